#![allow(dead_code, missing_docs)]
#[path = "system/awkward.rs"] mod awkward;
#[path = "system/clickhouse.rs"] mod clickhouse;
#[path = "system/faults.rs"] mod faults;
#[path = "system/tiers.rs"] mod tiers;
