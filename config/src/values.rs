//! Values that options are made of: durations, sizes, decimals, expressions and secrets, each written as text.
//!
//! Their JSON Schema carries a `format` that names the reader below, so the checker finds a bad one where it
//! stands, before anything is built.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, written `250ms`, `5s`, `1m`, `2h 30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub std::time::Duration);

impl Duration {
    /// In microseconds; the longest that fits for what does not.
    pub fn micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }

    /// In whole milliseconds; the longest that fits for what does not.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// A number of seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Duration(std::time::Duration::from_secs(seconds))
    }
}

impl FromStr for Duration {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        use humantime::DurationError as E;
        humantime::parse_duration(text).map(Duration).map_err(|error| match error {
            E::Empty => "is empty".into(),
            E::NumberExpected(_) => "does not begin with a number".into(),
            E::UnknownUnit { unit, .. } if unit.is_empty() => "has no unit".into(),
            E::UnknownUnit { unit, .. } => format!("has the unknown unit `{unit}`"),
            E::InvalidCharacter(at) => format!("has an unexpected character after `{}`", text.get(..at).unwrap_or_default()),
            E::NumberOverflow => "is too long or too finely divided".into(),
        })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// An amount of memory or disk, written `64MB`, `1GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>().map(|b| Size(b.as_u64())).map_err(|_| {
            let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim();
            match unit {
                _ if text.is_empty() => "is empty".into(),
                _ if unit.len() == text.trim().len() => "does not begin with a number".into(),
                "" => "is too large, or not one number".into(),
                unit => format!("has the unknown unit `{unit}`"),
            }
        })
    }
}

impl fmt::Display for Size {
    /// In the largest unit that divides it, so that what is written reads back the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 8] = [
            (1 << 40, "TiB"),
            (bytesize::TB, "TB"),
            (1 << 30, "GiB"),
            (bytesize::GB, "GB"),
            (1 << 20, "MiB"),
            (bytesize::MB, "MB"),
            (1 << 10, "KiB"),
            (bytesize::KB, "kB"),
        ];
        match UNITS.iter().find(|(bytes, _)| self.0 >= *bytes && self.0.is_multiple_of(*bytes)) {
            Some((bytes, unit)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// An exact number, written as text, `"0.01"`, or as a TOML number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(pub model::Decimal);

impl FromStr for Decimal {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Decimal).map_err(|e: model::decimal::DecimalError| e.to_string())
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SQL expression over the columns of the input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expression(pub String);

impl FromStr for Expression {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() { Err("is empty".into()) } else { Ok(Expression(text.into())) }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The `format` keywords in schemas, with their readers: how the checker knows a bad value from a good one.
pub const FORMATS: [(&str, fn(&str) -> Result<(), String>); 4] = [
    ("duration", |t| t.parse::<Duration>().map(drop)),
    ("size", |t| t.parse::<Size>().map(drop)),
    ("decimal", |t| t.parse::<Decimal>().map(drop)),
    ("sql", |t| t.parse::<Expression>().map(drop)),
];

macro_rules! textual {
    ($($name:ident, $format:literal, $types:tt, $example:literal;)*) => { $(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                /// Text, or a number where the schema allows one.
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Text { Text(String), Number(serde_json::Number) }
                let text = match Text::deserialize(deserializer)? { Text::Text(text) => text, Text::Number(number) => number.to_string() };
                text.parse().map_err(|e| serde::de::Error::custom(format!(concat!("`{}` is no ", $format, ": {}"), text, e)))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool { true }
            fn schema_name() -> Cow<'static, str> { $format.into() }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": $types, "format": $format, "examples": [$example] })
            }
        }
    )* };
}

textual! {
    Duration, "duration", "string", "5s";
    Size, "size", "string", "64MB";
    Decimal, "decimal", ["string", "number"], "0.01";
    Expression, "sql", "string", "price > 100";
}

/// A text that is never printed: a password or a key. Write it as `${VAR}` or `${file:PATH}`.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(SecretString::from(text.into()))
    }

    /// The text itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "secret", "writeOnly": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_back_as_they_are_written() {
        for text in ["64MB", "1GiB", "3KiB", "1kB", "999B", "0B", "2TB", "1500MB"] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
        }
        assert_eq!("64MB".parse::<Size>().unwrap().to_string(), "64MB");
        assert_eq!("1GiB".parse::<Size>().unwrap().to_string(), "1GiB");
        assert_eq!(Duration::seconds(90).to_string(), "1m 30s");
    }

    #[test]
    fn a_bad_value_says_why() {
        let duration = |t: &str| t.parse::<Duration>().unwrap_err();
        assert_eq!(duration("5"), "has no unit");
        assert_eq!(duration("5 parsecs"), "has the unknown unit `parsecs`");
        assert_eq!(duration("soon"), "does not begin with a number");
        assert_eq!(duration("5s?"), "has an unexpected character after `5s`");
        assert_eq!(duration(""), "is empty");
        let size = |t: &str| t.parse::<Size>().unwrap_err();
        assert_eq!(size("64 megs"), "has the unknown unit `megs`");
        assert_eq!(size("many"), "does not begin with a number");
        assert_eq!(size(""), "is empty");
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}
