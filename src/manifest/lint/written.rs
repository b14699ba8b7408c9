//! E-mail addresses and telephone numbers as people write them, and what they mean by it.

/// Countries in which a zero is dialled before a number, and never after the country's code.
const WITHOUT_ZERO: [&str; 17] = [
    "30", "31", "32", "33", "353", "358", "359", "36", "385", "386", "40", "41", "420", "43", "44", "46",
    "49",
];

/// An e-mail address, as far as anybody can tell: something, one `@`, and the name of a host.
pub(super) fn is_email(text: &str) -> bool {
    let Some((local, host)) = text.rsplit_once('@') else { return false };
    let is_label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let is_host = host.split('.').all(is_label)
        && host.rsplit_once('.').is_some_and(|(_, last)| last.chars().count() > 1);
    let is_around = |letter: char| letter == '.' || letter == '\'';
    !local.is_empty()
        && is_host
        && !local.starts_with(is_around)
        && !local.ends_with('.')
        && !host.ends_with('\'')
        && !local.contains('@')
        && !text.contains(|letter: char| {
            letter.is_whitespace()
                || matches!(letter, ',' | ';' | ':' | '<' | '>' | '(' | ')' | '[' | ']' | '"' | '/' | '\\')
        })
}

/// The e-mail address within what is none: `mailto:…`, `Ada <…>`, or one with a sign after it.
pub(super) fn email_meant(text: &str) -> Option<String> {
    let inner = text.split_once('<').map_or(text, |(_, rest)| rest.split('>').next().unwrap_or(rest));
    let inner = match inner.get(..7) {
        Some(begin) if begin.eq_ignore_ascii_case("mailto:") => &inner[7..],
        _ => inner,
    };
    let around = |letter: char| letter.is_whitespace() || ".,;:<>\"'".contains(letter);
    let inner = inner.trim_matches(around);
    (inner != text && is_email(inner)).then(|| inner.to_owned())
}

/// A telephone number with its country: `+49 30 1234`.
pub(super) fn is_international(bytes: &[u8]) -> bool {
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    bytes[0] == b'+'
        && (7..=15).contains(&digits)
        && !bytes.ends_with(b".0")
        && bytes[1..]
            .iter()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'-' | b'(' | b')' | b'.' | b'/'))
}

/// A number with its country, without the zero that is dialled only where the country is not: `+49 (0)171 …`, `+353 087 …`.
pub(super) fn without_zero(text: &str) -> Option<String> {
    if let Some((before, after)) = text.split_once("(0)") {
        return Some(format!(
            "{}{}{}",
            before.trim_end(),
            if before.ends_with(' ') { " " } else { "" },
            after.trim_start()
        ));
    }
    let digits = text.strip_prefix('+')?;
    let code = WITHOUT_ZERO.iter().find(|code| digits.starts_with(**code))?;
    let rest = &digits[code.len()..];
    let zero = rest.find(|letter: char| letter.is_ascii_digit())?;
    (rest.as_bytes()[zero] == b'0').then(|| format!("+{code}{}{}", &rest[..zero], &rest[zero + 1..]))
}

/// The number with its country within what is none: `0049…`, `tel:+49…`, or one that a program took for a decimal.
pub(super) fn phone_meant(text: &str) -> Option<String> {
    let inner = text.strip_prefix("tel:").unwrap_or(text).trim();
    let inner = inner.strip_suffix(".0").unwrap_or(inner);
    let inner = match inner.strip_prefix("00") {
        Some(rest) if !rest.starts_with('0') => format!("+{rest}"),
        _ => inner.replace('\u{ff0b}', "+"),
    };
    let inner = without_zero(&inner).unwrap_or(inner);
    (inner != text && !inner.is_empty() && is_international(inner.as_bytes())).then_some(inner)
}

/// The text within what tells a spreadsheet that it is one: `="0001"`, or an apostrophe before a number or a sign.
pub(super) fn text_meant(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("=\"") {
        return rest.strip_suffix('"');
    }
    let is_mark = |letter: char| letter.is_ascii_digit() || "+=-@".contains(letter);
    text.strip_prefix('\'').filter(|rest| rest.starts_with(is_mark) && !rest.ends_with('\''))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_suggested_where_one_can_be_told() {
        for text in [
            "mailto:ada@acme.example",
            "ada@acme.example;",
            "ada@acme.example,",
            "<ada@acme.example>",
            "Ada Lee <ada@acme.example>",
            "\"ada@acme.example\"",
            "ada@acme.example>",
            ".ada@acme.example",
            "ada@acme.example.",
            "MAILTO:ada@acme.example",
        ] {
            assert!(!is_email(text), "{text}");
            assert_eq!(email_meant(text).as_deref(), Some("ada@acme.example"), "{text}");
        }
        for text in [
            "ada@acme.example; a2@acme.example",
            "ada@acme.example/a2@acme.example",
            "ada(at)acme.example",
            "ada@-acme.example",
            "ada@acme.c",
        ] {
            assert_eq!((is_email(text), email_meant(text)), (false, None), "{text}");
        }
        for text in ["o'neill@acme.ie", "a.b+c@mail.acme.co.uk", "ada@xn--mller-kva.example"] {
            assert!(is_email(text), "{text}");
        }
    }

    #[test]
    fn numbers_are_suggested_as_they_are_dialled_from_abroad() {
        for (text, meant) in [
            ("+49 (0)171 1234567", "+49 171 1234567"),
            ("+49(0)1711234567", "+491711234567"),
            ("+4901711234567", "+491711234567"),
            ("+353 0871234568", "+353 871234568"),
        ] {
            assert_eq!(without_zero(text).as_deref(), Some(meant), "{text}");
        }
        for text in ["+39 06 1234567", "+491711234567", "+12025550123", "+49 30 1234567"] {
            assert_eq!(without_zero(text), None, "{text}");
        }
        for (text, meant) in [
            ("00353871234567", Some("+353871234567")),
            ("tel:+491711234567", Some("+491711234567")),
            ("+491711234567.0", Some("+491711234567")),
            ("0171 1234567", None),
        ] {
            assert_eq!(phone_meant(text).as_deref(), meant, "{text}");
        }
    }
}
