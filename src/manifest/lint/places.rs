//! Countries and their postal codes.

use super::cell::Odd;

/// ISO 3166-1, as one text of two letters each, in order.
const COUNTRIES: &str = "ADAEAFAGAIALAMAOAQARASATAUAWAXAZBABBBDBEBFBGBHBIBJBLBMBNBOBQBRBSBTBVBWBYBZCACCCDCFCGCHCICKCLCMCNCOCRCUCVCW\
    CXCYCZDEDJDKDMDODZECEEEGEHERESETFIFJFKFMFOFRGAGBGDGEGFGGGHGIGLGMGNGPGQGRGSGTGUGWGYHKHMHNHRHTHUIDIEILIMINIOIQIRISITJEJMJOJPKEKG\
    KHKIKMKNKPKRKWKYKZLALBLCLILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMRMSMTMUMVMWMXMYMZNANCNENFNGNINLNONPNRNUNZOMPAPEPFPGPHPKPL\
    PMPNPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISJSKSLSMSNSOSRSSSTSVSXSYSZTCTDTFTGTHTJTKTLTMTNTOTRTTTVTWTZUAUGUMUSUYUZVAVCVEVGVIVNVU\
    WFWSXKYEYTZAZMZW";
/// Countries of which Stripe says that it ships no cards to them: those of some 110 that its documentation names first.
const NOT_SHIPPED_TO: [&str; 4] = ["IN", "MX", "NG", "TR"];
/// The European Union.
const UNION: [&str; 27] = [
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT",
    "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
];
/// How a country, in their order, writes its postal codes: `0` a digit, `A` a letter, `?` a blank or nothing, and anything else itself.
const SHAPES: &[(&str, &[&str])] = &[
    ("AT", &["0000"]),
    ("AU", &["0000"]),
    ("BE", &["0000"]),
    ("BG", &["0000"]),
    ("BR", &["00000-000", "00000000"]),
    ("CA", &["A0A0A0"]),
    ("CH", &["0000"]),
    ("CY", &["0000"]),
    ("CZ", &["000?00"]),
    ("DE", &["00000"]),
    ("DK", &["0000"]),
    ("EE", &["00000"]),
    ("ES", &["00000"]),
    ("FI", &["00000"]),
    ("FR", &["00000"]),
    ("GB", &["A0?0AA", "A00?0AA", "AA0?0AA", "AA00?0AA", "A0A?0AA", "AA0A?0AA"]),
    ("GR", &["000?00"]),
    ("HR", &["00000"]),
    ("HU", &["0000"]),
    ("IT", &["00000"]),
    ("JP", &["000-0000", "0000000"]),
    ("LI", &["0000"]),
    ("LT", &["00000", "LT-00000"]),
    ("LU", &["0000", "L-0000"]),
    ("LV", &["LV-0000", "0000"]),
    ("MT", &["AAA?0000", "AAA?000"]),
    ("NL", &["0000?AA"]),
    ("NO", &["0000"]),
    ("NZ", &["0000"]),
    ("PL", &["00-000"]),
    ("PT", &["0000-000"]),
    ("RO", &["000000"]),
    ("SE", &["000?00"]),
    ("SG", &["000000"]),
    ("SI", &["0000"]),
    ("SK", &["000?00"]),
    ("US", &["00000", "00000-0000"]),
];

/// What is odd about a country's code, in any case of its letters.
pub(super) fn country(code: &str, shipped_to: bool) -> Option<Odd> {
    // What has not two letters is refused for itself.
    let code = upper(code)?;
    let (countries, _) = COUNTRIES.as_bytes().as_chunks();
    if countries.binary_search(&code).is_err() {
        return Some(Odd::NoCountry);
    }
    let is_it = |country: &&str| country.as_bytes() == code;
    (shipped_to && NOT_SHIPPED_TO.iter().any(is_it)).then_some(Odd::NotShippedTo)
}

/// Whether customs there want an EORI number of boxes of cards: the United Kingdom and the Union do.
pub(super) fn wants_eori(code: &str) -> bool {
    upper(code).is_some_and(|code| {
        let code = std::str::from_utf8(&code).unwrap_or_default();
        code == "GB" || UNION.contains(&code)
    })
}

fn upper(code: &str) -> Option<[u8; 2]> {
    let code: [u8; 2] = code.as_bytes().try_into().ok()?;
    code.iter().all(u8::is_ascii_alphabetic).then(|| code.map(|letter| letter.to_ascii_uppercase()))
}

/// What is odd about a postal code of a country.
pub(super) fn postal_code(code: &str, country: &str) -> Option<Odd> {
    let country = upper(country)?;
    let at = SHAPES.binary_search_by(|(known, _)| known.as_bytes().cmp(&country)).ok()?;
    let (_, shapes) = SHAPES[at];
    if shapes.iter().any(|shape| has_shape(code.as_bytes(), shape.as_bytes())) {
        return None;
    }
    if country == *b"CA" {
        let without: Vec<u8> = code.bytes().filter(|byte| *byte != b' ').collect();
        if has_shape(&without, b"A0A0A0") {
            return Some(Odd::PostalCodeBlank);
        }
    }
    let digits = shapes[0].bytes().filter(|letter| *letter == b'0').count();
    let all_digits = shapes[0].bytes().all(|letter| matches!(letter, b'0' | b'?'));
    let given = code.len();
    // More than two zeros at a code's beginning are nowhere.
    if all_digits && code.bytes().all(|byte| byte.is_ascii_digit()) && given < digits && given + 2 >= digits {
        return Some(Odd::ZerosLost { digits });
    }
    Some(Odd::PostalCode)
}

fn has_shape(code: &[u8], shape: &[u8]) -> bool {
    match (code, shape) {
        ([], []) => true,
        (_, [b'?', rest @ ..]) => {
            has_shape(code, rest) || code.first() == Some(&b' ') && has_shape(&code[1..], rest)
        }
        ([byte, code @ ..], [b'0', rest @ ..]) => byte.is_ascii_digit() && has_shape(code, rest),
        ([byte, code @ ..], [b'A', rest @ ..]) => byte.is_ascii_alphabetic() && has_shape(code, rest),
        ([byte, code @ ..], [letter, rest @ ..]) => {
            byte.eq_ignore_ascii_case(letter) && has_shape(code, rest)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countrys_postal_codes_are_told() {
        let good = [
            ("DE", "01067"),
            ("us", "02138"),
            ("US", "02138-1234"),
            ("GB", "SW1A 1AA"),
            ("GB", "m11ae"),
            ("CA", "M5V3L9"),
            ("NL", "1012 AB"),
            ("SE", "11455"),
            ("SE", "114 55"),
            ("PL", "00-950"),
            ("PT", "1000-001"),
            ("CH", "8001"),
            ("LU", "L-1111"),
            ("IE", "anything"),
            ("", "1"),
            ("DE ", "1"),
        ];
        for (country, code) in good {
            assert_eq!(postal_code(code, country), None, "{country} {code}");
        }
        assert_eq!(postal_code("1067", "DE"), Some(Odd::ZerosLost { digits: 5 }));
        assert_eq!(postal_code("602", "US"), Some(Odd::ZerosLost { digits: 5 }));
        assert_eq!(postal_code("2", "US"), Some(Odd::PostalCode));
        assert_eq!(postal_code("M5V 3L9", "CA"), Some(Odd::PostalCodeBlank));
        assert_eq!(postal_code("80331", "CH"), Some(Odd::PostalCode));
    }

    #[test]
    fn two_letters_are_a_country_or_not() {
        assert_eq!(COUNTRIES.len(), 250 * 2);
        assert!(COUNTRIES.as_bytes().chunks(2).is_sorted());
        assert!(SHAPES.iter().map(|(country, _)| country).is_sorted());
        assert_eq!((country("DE", true), country("gb", true), country("Germany", true)), (None, None, None));
        assert_eq!(
            (country("ZZ", false), country("UK", false)),
            (Some(Odd::NoCountry), Some(Odd::NoCountry))
        );
        assert_eq!((country("ng", true), country("NG", false)), (Some(Odd::NotShippedTo), None));
        assert!(wants_eori("fr") && wants_eori("GB") && !wants_eori("US"));
    }
}
