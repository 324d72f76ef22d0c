//! The same pipeline into ClickHouse, into S3 and into a local folder: the same rows everywhere.

use std::path::Path;

use tests::program::{finish, marketprism, program, root};
use tests::servers::{ClickHouse, SeaweedFs};

/// What is compared: every column of every record, in one order.
const QUERIES: [&str; 3] = [
    "SELECT * FROM trades ORDER BY venue, market, symbol, event_time, trade_id",
    "SELECT * FROM bars ORDER BY venue, market, symbol, interval_seconds, start",
    "SELECT * FROM quotes ORDER BY venue, market, symbol, receive_time, frame, sequence",
];

/// The rows of the queries, with the settings of a folder.
fn answers(folder: &Path, environment: &[(&str, String)]) -> Vec<String> {
    let ask = |query: &&str| {
        let mut sql = program();
        sql.args(["sql", query, "--format", "csv"]).current_dir(folder).envs(environment.iter().map(|(k, v)| (k, v)));
        finish(&mut sql).expect_success()
    };
    QUERIES.iter().map(ask).collect()
}

#[test]
fn clickhouse_s3_and_a_folder_hold_the_same_rows() {
    let local = tempfile::tempdir().unwrap();
    let data = local.path().join("data");
    let pipeline = std::fs::read_to_string(root().join("examples/tiers/pipeline.toml")).unwrap();
    let cold_only =
        pipeline.split("[sinks.hot]").next().unwrap().to_owned() + "[sinks.cold]\ntype = \"parquet\"\ninputs = [\"records\", \"bars\"]\n";
    let file = local.path().join("pipeline.toml");
    std::fs::write(&file, cold_only).unwrap();
    marketprism(["run", file.to_str().unwrap(), "--data", data.to_str().unwrap()]).expect_success();
    let expected = answers(local.path(), &[("MARKETPRISM_DATA", data.display().to_string())]);
    for (query, rows) in QUERIES.iter().zip(&expected) {
        assert!(rows.lines().count() > 1, "nothing to compare for {query}");
    }

    let clickhouse = ClickHouse::start_with("writer", "s3cret").unwrap();
    let s3 = SeaweedFs::start().unwrap();
    s3.create_bucket("market").unwrap();
    let environment = [
        ("CLICKHOUSE_URL", clickhouse.url()),
        ("CLICKHOUSE_USER", "writer".to_owned()),
        ("CLICKHOUSE_PASSWORD", "s3cret".to_owned()),
        ("COLD_URL", "s3://market/cold".to_owned()),
        ("S3_ENDPOINT", s3.s3_url()),
        ("AWS_ACCESS_KEY_ID", SeaweedFs::ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SeaweedFs::SECRET_KEY.to_owned()),
    ];
    let state = tempfile::tempdir().unwrap();
    let mut run = program();
    run.args(["run", "examples/tiers/pipeline.toml", "--data", state.path().to_str().unwrap()]).current_dir(root());
    let summary = finish(run.envs(environment.iter().map(|(k, v)| (k, v)))).expect_success();
    assert!(summary.contains("the books balance"), "{summary}");

    let tiers = root().join("examples/tiers");
    compare("both tiers", &expected, &answers(&tiers, &environment));

    let hot = tempfile::tempdir().unwrap();
    std::fs::write(
        hot.path().join("marketprism.toml"),
        "[hot]\nurl = \"${CLICKHOUSE_URL}\"\nuser = \"${CLICKHOUSE_USER}\"\npassword = \"${CLICKHOUSE_PASSWORD}\"\nkeep_days = 0\n",
    )
    .unwrap();
    compare("hot alone", &expected, &answers(hot.path(), &environment));

    let cold = tempfile::tempdir().unwrap();
    let store = "[cold]\nurl = \"${COLD_URL}\"\nendpoint = \"${S3_ENDPOINT}\"\naccess_key = \"${AWS_ACCESS_KEY_ID}\"\nsecret_key = \"${AWS_SECRET_ACCESS_KEY}\"\n";
    std::fs::write(cold.path().join("marketprism.toml"), store).unwrap();
    compare("S3 alone", &expected, &answers(cold.path(), &environment));

    // Another engine reads the table on S3 as it lies.
    let table = format!("deltaLake('{}/market/cold/trades', '{}', '{}')", s3.s3_url(), SeaweedFs::ACCESS_KEY, SeaweedFs::SECRET_KEY);
    let count = clickhouse.query(&format!("SELECT count(), sum(quantity) FROM {table}"));
    let ours = clickhouse.query("SELECT count(), sum(quantity) FROM marketprism.trades");
    assert_eq!(count, ours, "ClickHouse reads the Delta table on S3");
}

#[track_caller]
fn compare(what: &str, expected: &[String], found: &[String]) {
    for ((query, expected), found) in QUERIES.iter().zip(expected).zip(found) {
        if expected != found {
            let difference = expected.lines().zip(found.lines()).find(|(e, f)| e != f);
            panic!(
                "{what}: {query}\n{} rows expected, {} came; first difference: {difference:#?}",
                expected.lines().count(),
                found.lines().count()
            );
        }
    }
}
