//! What must be refused, and by which code.

use super::{Jwe, base64url, header, noise};

/// How many codes there are.
pub(crate) const CODES: usize = 18;

/// Texts that break a rule each, with the code it must get under a key of 2048 bits with this id and modulus.
pub(crate) fn broken(kid: &str, modulus: &[u8]) -> Vec<(&'static str, String)> {
    let good = Jwe::with_header(&header(kid));
    let segments = good.segments();
    let with_segment = |at: usize, segment: String| {
        let mut segments = segments.clone();
        segments[at] = segment;
        segments.join(".")
    };
    let with_member = |member: &str| {
        let header = header(kid);
        Jwe::with_header(&format!("{},{member}}}", header.strip_suffix('}').unwrap())).compact()
    };
    let renamed = |from: &str, to: &str| Jwe::with_header(&header(kid).replace(from, to)).compact();
    // The last character of 256 bytes carries four bits that no byte has: A is 000000, B 000001.
    let uncanonical = |at: usize| {
        let segment = &segments[at];
        let bumped = match segment.as_bytes()[segment.len() - 1] {
            b'A' => 'B',
            b'Q' => 'R',
            b'g' => 'h',
            _ => 'x',
        };
        with_segment(at, format!("{}{bumped}", &segment[..segment.len() - 1]))
    };
    // The lowest byte below its end: one more is above in that byte alone.
    let mut above = modulus.to_vec();
    let last = above.iter().rposition(|byte| *byte < 0xFF).unwrap();
    above[last] += 1;
    let mut cases = vec![
        ("pin_in_clear", "1234".into()),
        ("pin_in_clear", " 1234\n".into()),
        ("pin_in_clear", "123456789012".into()),
        ("jwe_too_long", format!("{}.", good.compact()).repeat(12)),
        ("jwe_too_long", "A".repeat(5001)),
        ("jwe_not_compact", String::new()),
        ("jwe_not_compact", "123".into()),
        ("jwe_not_compact", "not a jwe".into()),
        ("jwe_not_compact", segments[..4].join(".")),
        ("jwe_not_compact", segments[..3].join(".")),
        ("jwe_not_compact", format!("{}.", good.compact())),
        ("jwe_not_compact", format!(".{}", good.compact())),
        ("jwe_padding", with_segment(2, format!("{}==", segments[2]))),
        ("jwe_padding", format!("{}=", good.compact())),
        ("jwe_not_base64url", format!(" {}", good.compact())),
        ("jwe_not_base64url", format!("{}\n", good.compact())),
        ("jwe_not_base64url", with_segment(1, format!("+{}", &segments[1][1..]))),
        ("jwe_not_base64url", with_segment(1, format!("/{}", &segments[1][1..]))),
        ("jwe_not_base64url", with_segment(3, format!("{}é", &segments[3][..20]))),
        ("jwe_not_canonical", uncanonical(1)),
        ("jwe_not_canonical", uncanonical(2)),
        ("jwe_not_canonical", uncanonical(3)),
        ("jwe_not_canonical", uncanonical(4)),
        ("jwe_not_canonical", with_segment(2, segments[2][..21].into())),
        ("jwe_header_invalid", with_segment(0, String::new())),
        ("jwe_header_invalid", with_segment(0, base64url(b"not json"))),
        ("jwe_header_invalid", with_segment(0, base64url(b"[]"))),
        ("jwe_header_invalid", with_segment(0, base64url(b"\xEF\xBB\xBF{}"))),
        ("jwe_header_invalid", with_segment(0, base64url(b"{\"typ\":\"\xFF\"}"))),
        ("jwe_header_invalid", Jwe::with_header(&(header(kid) + "{}")).compact()),
        ("jwe_header_invalid", with_member(&format!(r#""kid":"{kid}""#))),
        ("jwe_header_invalid", with_member(r#""alg":"RSA-OAEP""#)),
        ("jwe_header_invalid", with_member(r#""\u0061lg":"RSA-OAEP""#)),
        ("jwe_header_invalid", with_member(r#""typ":"JWE","typ":"JWE""#)),
        ("jwe_header_invalid", with_member(&format!(r#""typ":{}"#, "[".repeat(2000)))),
        ("jwe_zip", with_member(r#""zip":"DEF""#)),
        ("jwe_zip", with_member(r#""zip":null"#)),
        ("jwe_crit", with_member(r#""crit":["exp"],"exp":1"#)),
        ("jwe_crit", with_member(r#""crit":["kid"]"#)),
        ("jwe_crit", with_member(r#""crit":[]"#)),
        ("stale_key", Jwe::with_header(&header("key_before")).compact()),
        ("stale_key", Jwe::with_header(&header(&kid.to_uppercase())).compact()),
        ("stale_key", Jwe::with_header(&header(&format!("{kid} "))).compact()),
        ("jwe_kid_missing", renamed("kid", "key_id")),
        ("jwe_kid_missing", Jwe::with_header(&header("")).compact()),
        ("jwe_kid_missing", renamed(&format!("\"{kid}\""), "7")),
        ("jwe_encrypted_key_length", with_segment(1, String::new())),
        ("jwe_encrypted_key_length", Jwe { encrypted_key: noise(255, 7), ..good.clone() }.compact()),
        ("jwe_encrypted_key_length", Jwe { encrypted_key: noise(257, 7), ..good.clone() }.compact()),
        ("jwe_encrypted_key_length", Jwe::of_bytes(512).compact()),
        ("jwe_encrypted_key_range", Jwe { encrypted_key: modulus.to_vec(), ..good.clone() }.compact()),
        ("jwe_encrypted_key_range", Jwe { encrypted_key: above, ..good.clone() }.compact()),
        ("jwe_encrypted_key_range", Jwe { encrypted_key: vec![0xFF; 256], ..good.clone() }.compact()),
    ];
    for alg in ["RSA-OAEP-256", "RSA1_5", "dir", "rsa-oaep", "none", ""] {
        cases.push(("jwe_alg", renamed("RSA-OAEP", alg)));
    }
    cases.push(("jwe_alg", renamed("\"RSA-OAEP\"", "[\"RSA-OAEP\"]")));
    cases.push(("jwe_alg", renamed("\"alg\":\"RSA-OAEP\",", "")));
    cases.push(("jwe_alg", Jwe::with_header("{}").compact()));
    for enc in ["A256GCM", "A256CBC-HS512", "A128GCM", "a128cbc-hs256"] {
        cases.push(("jwe_enc", renamed("A128CBC-HS256", enc)));
    }
    cases.push(("jwe_enc", renamed("\"A128CBC-HS256\"", "{\"A128CBC-HS256\":1}")));
    for length in [0, 12, 15, 17, 32] {
        let bytes = || noise(length, 4);
        cases.push(("jwe_iv_length", Jwe { iv: bytes(), ..good.clone() }.compact()));
        cases.push(("jwe_ciphertext_length", Jwe { ciphertext: bytes(), ..good.clone() }.compact()));
        cases.push(("jwe_tag_length", Jwe { tag: bytes(), ..good.clone() }.compact()));
    }
    cases
}
