//! Subjects: tokens with dots between them.

/// Appends a text as one token. What may not stand in a token (white space, control characters, `.`, `*`, `>`) and
/// `%` itself are written as `%` and two hexadecimal digits, so that no two texts become the same token; an empty
/// text is `%`.
pub fn push_token(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if text.is_empty() {
        out.push('%');
    }
    for character in text.chars() {
        if character.is_whitespace() || character.is_control() || matches!(character, '.' | '*' | '>' | '%') {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        } else {
            out.push(character);
        }
    }
}

/// Whether a text is a subject, which may have the wildcards `*` (one token) and, at its end, `>` (one or more).
pub fn is_filter(text: &str) -> bool {
    let tokens: Vec<&str> = text.split('.').collect();
    tokens.iter().enumerate().all(|(i, token)| match *token {
        "" => false,
        "*" => true,
        ">" => i + 1 == tokens.len(),
        token => !token.contains(['*', '>']) && !token.chars().any(|c| c.is_whitespace() || c.is_control()),
    })
}

/// Whether every subject that `inner` stands for is one that `outer` stands for.
pub fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_escaped_visibly() {
        let token = |text: &str| {
            let mut out = String::new();
            push_token(text, &mut out);
            out
        };
        for (text, expected) in [
            ("BTC-USDT", "BTC-USDT"),
            ("", "%"),
            ("1000.PEPE", "1000%2EPEPE"),
            ("a b*c>d%e\n", "a%20b%2Ac%3Ed%25e%0A"),
            ("比特币", "比特币"),
            ("\u{3000}", "%E3%80%80"),
        ] {
            assert_eq!(token(text), expected, "{text:?}");
        }
    }

    #[test]
    fn filters_cover_subjects() {
        for (outer, inner, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("a.*.c", "a.b.d", false),
            ("a.*", "a.*", true),
            ("a.*", "a.>", false),
            ("a.b", "a.*", false),
            ("a.>", "a.*", true),
        ] {
            assert_eq!(covers(outer, inner), expected, "{outer} {inner}");
        }
        for (text, expected) in [("a.b", true), ("a..b", false), ("", false), ("a.>", true), (">.a", false), ("a b", false), ("a*", false)]
        {
            assert_eq!(is_filter(text), expected, "{text:?}");
        }
    }
}
