//! From which country a text is, as far as its cells tell: countries, currencies, and the ends of e-mail addresses. In one byte a letter
//! is `ő` in Hungary and `õ` in Portugal.

use std::collections::BTreeMap;

/// So many bytes tell it.
const LOOKED_AT: usize = 64 << 10;

/// Countries by their codes, where the code is no word of another language, and by the top-level domain that tells an encoding.
const COUNTRIES: [(&str, &str); 37] = [
    ("AT", "at"),
    ("BA", "ba"),
    ("BE", "be"),
    ("BG", "bg"),
    ("CH", "ch"),
    ("CZ", "cz"),
    ("DE", "de"),
    ("DK", "dk"),
    ("EE", "ee"),
    ("ES", "es"),
    ("FI", "fi"),
    ("FR", "fr"),
    ("GB", "uk"),
    ("GR", "gr"),
    ("HR", "hr"),
    ("HU", "hu"),
    ("IE", "ie"),
    ("IL", "il"),
    ("LT", "lt"),
    ("LU", "lu"),
    ("LV", "lv"),
    ("MT", "mt"),
    ("NL", "nl"),
    ("PL", "pl"),
    ("PT", "pt"),
    ("RO", "ro"),
    ("RS", "rs"),
    ("RU", "ru"),
    ("SE", "se"),
    ("SK", "sk"),
    ("TR", "tr"),
    ("UA", "ua"),
    ("UK", "uk"),
    ("US", "us"),
    ("BR", "br"),
    ("MX", "mx"),
    ("CA", "ca"),
];
/// Currencies of one country, or of countries that write alike.
const CURRENCIES: [(&str, &str); 16] = [
    ("BGN", "bg"),
    ("CHF", "ch"),
    ("CZK", "cz"),
    ("DKK", "dk"),
    ("GBP", "uk"),
    ("HUF", "hu"),
    ("ILS", "il"),
    ("MXN", "mx"),
    ("BRL", "br"),
    ("NOK", "no"),
    ("PLN", "pl"),
    ("RON", "ro"),
    ("RUB", "ru"),
    ("SEK", "se"),
    ("TRY", "tr"),
    ("USD", "us"),
];

/// The top-level domain of the country that most cells speak of.
pub(super) fn top_level_domain(bytes: &[u8]) -> Option<&'static str> {
    let mut found: BTreeMap<&'static str, usize> = BTreeMap::new();
    let cells = bytes[..bytes.len().min(LOOKED_AT)].split(|byte| b",;\t|\r\n\"".contains(byte));
    for cell in cells.map(<[u8]>::trim_ascii) {
        let country = COUNTRIES.iter().find(|(code, _)| code.as_bytes() == cell);
        let currency = || CURRENCIES.iter().find(|(code, _)| code.as_bytes().eq_ignore_ascii_case(cell));
        let of_address = || {
            let (_, end) = std::str::from_utf8(cell).ok()?.split_once('@')?.1.rsplit_once('.')?;
            COUNTRIES.iter().find(|(_, domain)| domain.eq_ignore_ascii_case(end))
        };
        if let Some((_, domain)) = country.or_else(currency).or_else(of_address) {
            *found.entry(domain).or_default() += 1;
        }
    }
    found.into_iter().max_by_key(|(_, count)| *count).map(|(domain, _)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_most_cells_speak_of_is_the_country() {
        for (text, domain) in [
            ("E1;Nagy;n@ceg.hu;Gyor;HU;virtual;huf\nE2;Kis;k@x.com;Pecs;HU;virtual;huf", Some("hu")),
            ("1,Ann,a@f.co.uk,London,GB,virtual,gbp\n2,Bob,b@f.pl,Leeds,GB,virtual,gbp", Some("uk")),
            ("1;Jonas;j@imone.lt;Vilnius;virtual;eur", Some("lt")),
            ("1;no;si;virtual;eur", None),
        ] {
            assert_eq!(top_level_domain(text.as_bytes()), domain, "{text}");
        }
    }
}
