//! The scanner against another parser, and its errors word by word.

use proptest::prelude::*;

use super::*;

fn scanned(text: &[u8]) -> Scan<Value> {
    let mut scanner = Scanner::new(text)?;
    let value = scanner.value()?;
    scanner.end().map(|()| value)
}

#[test]
fn accepts_what_is_json() {
    for text in [
        r#"{}"#,
        "[]",
        " [ 1 , -0.5e+10 , \"\" ] ",
        r#"{"a":{"b":[{"c":"}]\"\\u"},null]},"é":"币安"}"#,
        "0",
        "-0",
        "10",
        "true",
        "null",
        r#""\u00e9\n\/""#,
        r#""123456781234567\"8""#,
    ] {
        assert!(scanned(text.as_bytes()).is_ok(), "{text}: {:?}", scanned(text.as_bytes()));
    }
}

#[test]
fn names_the_flaw_and_its_place() {
    for (text, what, at) in [
        ("", Flaw::Truncated, 0),
        ("{", Flaw::Truncated, 1),
        (r#"{"a":1"#, Flaw::Truncated, 6),
        (r#"{"a""#, Flaw::Truncated, 4),
        (r#"{"a":1,}"#, Flaw::Unexpected, 7),
        (r#"{"a":1 "b":2}"#, Flaw::Unexpected, 7),
        ("[1,]", Flaw::Unexpected, 3),
        ("[1 2]", Flaw::Unexpected, 3),
        ("{}{}", Flaw::Trailing, 2),
        ("01", Flaw::Number, 2),
        ("1.", Flaw::Number, 2),
        ("-", Flaw::Number, 1),
        ("1e", Flaw::Number, 2),
        ("\"abc", Flaw::Truncated, 4),
        ("\"a\nb\"", Flaw::Control, 2),
        (r#""\x""#, Flaw::Escape, 1),
        (r#""\u12g4""#, Flaw::Escape, 1),
        ("tru", Flaw::Truncated, 0),
        ("nul1", Flaw::Unexpected, 0),
        ("[}", Flaw::Unexpected, 1),
        ("{]", Flaw::Unexpected, 1),
        ("'a'", Flaw::Unexpected, 0),
        ("NaN", Flaw::Unexpected, 0),
        ("+1", Flaw::Unexpected, 0),
        (".5", Flaw::Unexpected, 0),
    ] {
        assert_eq!(scanned(text.as_bytes()).unwrap_err(), Malformed { at, what }, "{text:?}");
    }
    assert_eq!(scanned(b"\"\xff\"").unwrap_err().what, Flaw::Encoding);
    assert_eq!(scanned(&b"[".repeat(100)).unwrap_err().what, Flaw::Depth);
    assert!(scanned([b"[".repeat(64), b"]".repeat(64)].concat().as_slice()).is_ok());
}

#[test]
fn unescapes_texts() {
    let text = br#"["\u5e01a\"","\ud800"]"#;
    let mut found = Vec::new();
    Scanner::new(text).unwrap().array(|s| s.value().map(|v| found.push(unescaped(text, v)))).unwrap();
    assert_eq!(found, [Some("币a\"".to_owned()), None]);
}

/// Texts of JSON's own alphabet, which come near to JSON more often than random bytes do.
fn almost_json() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{\"k\":",
        "{\"e\":\"trade\",",
        "\"m\":true",
        "\"T\":1234567890123,",
        "\"p\":\"1.5\"}",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "a",
        "\"k\":",
        "\"v\"",
        "1",
        "-",
        "0",
        ".5",
        "e9",
        "true",
        "false",
        "null",
        " ",
        "\n",
        "é",
        "\u{7f}",
        "\u{1}",
        "\\u00e9",
        "\\n",
        "12345678",
        "abcdefgh",
    ]);
    prop_oneof![prop::collection::vec(piece, 0..24).prop_map(|p| p.concat().into_bytes()), prop::collection::vec(any::<u8>(), 0..40),]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn agrees_with_another_parser(text in almost_json()) {
        // Theirs ignores the value as ours does; half characters, which we leave to `unescaped`, it accepts as well.
        let theirs = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok() && std::str::from_utf8(&text).is_ok();
        prop_assert_eq!(scanned(&text).is_ok(), theirs);
        // The short way through objects of letters accepts the same.
        if let [b'{', ..] = text.as_slice() {
            let mut scanner = Scanner::new(&text).unwrap();
            let walk = scanner.letters(|s, member| match member {
                Member::Plain(..) => Ok(()),
                Member::Other(_) => s.value().map(drop),
            });
            prop_assert_eq!(walk.and_then(|()| scanner.end()).is_ok(), theirs);
        }
    }
}
