//! Every rule that an encrypted PIN must keep has its own refusal code, and what keeps them all is accepted,
//! whichever library made it.

use crate::forge;

use std::collections::BTreeMap;

use embosser::encrypt::encrypt_pin;
use embosser::jwe::{self, PinKey, Refusal};
use forge::broken::{CODES, broken};
use forge::{Jwe, KID, header, key};
use openssl::rsa::Rsa;

fn code(compact: &str) -> &'static str {
    jwe::verify(compact, &key(256)).map_or_else(|refusal| refusal.code(), |()| "accepted")
}

fn code_of(jwe: &Jwe) -> &'static str {
    code(&jwe.compact())
}

fn refused() -> Vec<(&'static str, String)> {
    broken(KID, &forge::modulus(256))
}

#[test]
fn every_broken_rule_has_its_own_code() {
    let mut told: BTreeMap<&str, String> = BTreeMap::new();
    for (expected, compact) in refused() {
        assert_eq!(code(&compact), expected, "{compact:.300}");
        let message = jwe::verify(&compact, &key(256)).unwrap_err().to_string();
        let before = told.insert(expected, message.clone());
        assert!(before.is_none_or(|before| before == message), "one code, one message: {expected}");
    }
    assert_eq!(told.len(), CODES, "codes that were told: {:?}", told.keys());
    let mut messages: Vec<&String> = told.values().collect();
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), CODES, "two codes with the same message tell the sender nothing");
}

#[test]
fn without_the_key_all_is_found_but_what_needs_it() {
    for (expected, compact) in refused() {
        let found = jwe::inspect(&compact).map_or_else(|refusal| refusal.code(), |()| "accepted");
        match expected {
            "stale_key" | "jwe_encrypted_key_range" => assert_eq!(found, "accepted", "{compact:.300}"),
            // 257 and 512 bytes are some other key's.
            "jwe_encrypted_key_length" => assert!([expected, "accepted"].contains(&found), "{compact:.300}"),
            _ => assert_eq!(found, expected, "{compact:.300}"),
        }
    }
}

#[test]
fn a_key_one_below_the_modulus_is_in_range_and_zeros_in_front_do_not_shorten_it() {
    let mut below = forge::modulus(256);
    below[255] -= 1;
    assert_eq!(code_of(&Jwe { encrypted_key: below, ..Jwe::default() }), "accepted");
    let mut small = vec![0; 256];
    small[255] = 2;
    assert_eq!(code_of(&Jwe { encrypted_key: small, ..Jwe::default() }), "accepted");
}

#[test]
fn the_first_broken_rule_in_the_fixed_order_is_told() {
    let wrong_from = |rule: usize| {
        let mut jwe = Jwe { tag: vec![0; 15], ..Jwe::default() };
        let mut members = vec![("kid", KID), ("enc", "A128CBC-HS256"), ("alg", "RSA-OAEP")];
        if rule < 8 {
            jwe.ciphertext = vec![0; 32];
        }
        if rule < 7 {
            jwe.iv = vec![0; 12];
        }
        if rule < 6 {
            jwe.encrypted_key = vec![0xFF; 256];
        }
        if rule < 5 {
            members[0].1 = "old";
        }
        if rule < 4 {
            members.push(("crit", "x"));
        }
        if rule < 3 {
            members.push(("zip", "DEF"));
        }
        if rule < 2 {
            members[1].1 = "A256GCM";
        }
        if rule < 1 {
            members[2].1 = "dir";
        }
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("{name:?}:{value:?}")).collect();
        jwe.header = format!("{{{}}}", members.join(","));
        code_of(&jwe)
    };
    let order: Vec<&str> = (0..9).map(wrong_from).collect();
    let expected = [
        "jwe_alg",
        "jwe_enc",
        "jwe_zip",
        "jwe_crit",
        "stale_key",
        "jwe_encrypted_key_range",
        "jwe_iv_length",
        "jwe_ciphertext_length",
        "jwe_tag_length",
    ];
    assert_eq!(order, expected);
}

/// Headers that say the same: all six orders, white space, escapes, other members.
fn equal_headers(kid: &str) -> Vec<String> {
    let (alg, enc, kid) = (
        r#""alg":"RSA-OAEP""#.to_owned(),
        r#""enc":"A128CBC-HS256""#.to_owned(),
        format!(r#""kid":"{kid}""#),
    );
    let mut headers = Vec::new();
    for order in [[&alg, &enc, &kid], [&alg, &kid, &enc], [&enc, &alg, &kid], [&enc, &kid, &alg]] {
        headers.push(format!("{{{},{},{}}}", order[0], order[1], order[2]));
    }
    for order in [[&kid, &alg, &enc], [&kid, &enc, &alg]] {
        headers.push(format!("{{ {}, {}, {} }}", order[0], order[1], order[2]));
        headers.push(
            format!("{{\n  {},\n\t{},\r\n  {}\n}}\n", order[0], order[1], order[2]).replace("\":", "\" : "),
        );
    }
    for extra in [
        r#""typ":"JWE""#,
        r#""cty":"text/plain""#,
        r#""typ":"JOSE","cty":"pin","iat":1790000000,"jku":null,"x":{"alg":"none","zip":[1,{"crit":2}]}"#,
        r#""apu":-1.5e3,"p2c":true,"epk":[],"ключ":"é \" \u00e9""#,
    ] {
        headers.push(format!("{{{extra},{alg},{enc},{kid}}}"));
        headers.push(format!("{{{alg},{enc},{kid},{extra}}}"));
    }
    headers.push(format!(r#"{{"\u0061lg":"RSA\u002DOAEP",{enc},{kid}}}"#));
    let many: Vec<String> = (0..300).map(|number| format!("\"x{number}\":0")).collect();
    headers.push(format!("{{{},{alg},{enc},{kid}}}", many.join(",")));
    headers
}

#[test]
fn member_order_extra_members_and_white_space_do_not_matter() {
    for round in ["never seen", "known"] {
        for header in equal_headers(KID) {
            let compact = Jwe::with_header(&header).compact();
            assert_eq!(code(&compact), "accepted", "{round}: {header}");
            assert_eq!(jwe::inspect(&compact), Ok(()), "{round}: {header}");
        }
    }
}

#[test]
fn what_josekit_encrypts_is_accepted_at_every_key_length() {
    for bits in [2048, 3072, 4096] {
        let rsa = Rsa::generate(bits).unwrap();
        let document = forge::document(KID, &rsa.n().to_vec());
        let key = PinKey::parse(&document).unwrap();
        for pin in ["0000", "1234", "123456789012"] {
            let compact = encrypt_pin(pin, &document).unwrap();
            assert_eq!(jwe::verify(&compact, &key), Ok(()), "{bits} bits");
            assert_eq!(jwe::inspect(&compact), Ok(()), "{bits} bits");
        }
    }
}

#[test]
fn what_is_encrypted_by_hand_is_accepted_and_a_jose_library_decrypts_it() {
    let rsa = Rsa::generate(2048).unwrap();
    let key = PinKey::parse(&forge::document(KID, &rsa.n().to_vec())).unwrap();
    let decrypter = josekit::jwe::RSA_OAEP.decrypter_from_der(rsa.private_key_to_der().unwrap()).unwrap();
    for header in [
        header(KID),
        format!("{{ \"kid\":\"{KID}\",\n\"typ\":\"JWE\",\"enc\":\"A128CBC-HS256\",\"alg\":\"RSA-OAEP\"}}"),
    ] {
        let compact = forge::encrypt_by_hand("4711", &header, &rsa);
        assert_eq!(jwe::verify(&compact, &key), Ok(()), "{header}");
        let (pin, _) = josekit::jwe::deserialize_compact(&compact, &decrypter).unwrap();
        assert_eq!(pin, b"4711");
    }
}

#[test]
fn pins_encrypted_under_the_key_before_are_stale() {
    let (old, new) = (Rsa::generate(2048).unwrap(), Rsa::generate(2048).unwrap());
    let document = forge::document("key_old", &old.n().to_vec());
    let compact = encrypt_pin("1234", &document).unwrap();
    let current = PinKey::parse(&forge::document("key_new", &new.n().to_vec())).unwrap();
    // Also when its header was known a moment ago.
    assert_eq!(jwe::verify(&compact, &PinKey::parse(&document).unwrap()), Ok(()));
    assert_eq!(jwe::verify(&compact, &current), Err(Refusal::StaleKey));
    assert_eq!(jwe::inspect(&compact), Ok(()));
}
