//! Times: microseconds since 1970 in UTC.
//!
//! Microseconds are what the venues' trade and book feeds carry and the finest that Delta stores; finer
//! digits are cut. *Event time* is the venue's clock, *receive time* is ours; both are columns and their
//! difference is signed, because recorders' clocks run behind venues' clocks. *Logical time* ([`Time`])
//! is neither: it is the ingestion time in milliseconds that orders the dataflow.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Timelike, Utc};

/// Logical time: milliseconds since 1970 at which a source handed the rows over. The timestamp of the dataflow.
pub type Time = u64;

/// Microseconds since 1970, UTC.
pub type Micros = i64;

/// Microseconds in a second.
pub const SECOND: Micros = 1_000_000;

/// The Arrow type of every time column.
pub fn data_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Microseconds from a venue's milliseconds, or `None` beyond the range of the calendar.
pub fn from_millis(millis: i64) -> Option<Micros> {
    millis.checked_mul(1_000).filter(|m| DateTime::from_timestamp_micros(*m).is_some())
}

/// Microseconds from nanoseconds; the finer digits are cut.
pub fn from_nanos(nanos: i64) -> Micros {
    nanos.div_euclid(1_000)
}

/// The day (UTC) of a time: what tables are partitioned by.
pub fn date(micros: Micros) -> Option<NaiveDate> {
    Some(DateTime::from_timestamp_micros(micros)?.date_naive())
}

/// A time as RFC 3339 text, e.g. `2024-08-08T23:54:15.342000Z`.
pub fn display(micros: Micros) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) if (0..=9999).contains(&time.year()) => {
            // Written digit by digit: files have two of these in every row.
            let mut text = *b"0000-00-00T00:00:00.000000Z";
            let mut put = |end: usize, digits: usize, mut value: u32| {
                for digit in text[end - digits..end].iter_mut().rev() {
                    *digit = b'0' + (value % 10) as u8;
                    value /= 10;
                }
            };
            put(4, 4, time.year().unsigned_abs());
            put(7, 2, time.month());
            put(10, 2, time.day());
            put(13, 2, time.hour());
            put(16, 2, time.minute());
            put(19, 2, time.second());
            put(26, 6, time.timestamp_subsec_micros());
            std::str::from_utf8(&text).expect("digits are ASCII").to_owned()
        }
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Micros, true),
        None => format!("{micros} µs"),
    }
}

/// Now, by our clock.
pub fn now() -> Micros {
    Utc::now().timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_what_the_calendar_says() {
        let years = (0..=9999).step_by(37).filter_map(|year| {
            Some(NaiveDate::from_ymd_opt(year, 2, 28)?.and_hms_micro_opt(23, 59, 59, 120)?.and_utc().timestamp_micros())
        });
        for micros in [
            0,
            -1,
            1_723_161_255_342_000,
            253_402_300_799_999_999,
            253_402_300_800_000_000,
            -62_167_219_200_000_000,
            -62_167_219_200_000_001,
        ]
        .into_iter()
        .chain(years)
        {
            let expected = DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339_opts(SecondsFormat::Micros, true);
            assert_eq!(display(micros), expected);
        }
        assert_eq!(display(Micros::MAX), "9223372036854775807 µs");
    }
}
