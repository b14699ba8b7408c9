//! Countries as people write them: by name in English, in German and in their own language, or by three letters.

/// Codes, and what else stands for them, in small letters.
const NAMES: [(&str, &[&str]); 44] = [
    ("AT", &["austria", "österreich", "oesterreich", "autriche", "aut"]),
    ("AU", &["australia", "australien", "aus"]),
    ("BE", &["belgium", "belgien", "belgique", "belgië", "bel"]),
    ("BG", &["bulgaria", "bulgarien", "българия", "bgr"]),
    ("BR", &["brazil", "brasilien", "brasil", "bra"]),
    ("CA", &["canada", "kanada", "can"]),
    ("CH", &["switzerland", "schweiz", "suisse", "svizzera", "che"]),
    ("CN", &["china", "chn"]),
    ("CY", &["cyprus", "zypern", "κύπρος", "cyp"]),
    ("CZ", &["czechia", "czech republic", "tschechien", "česko", "cze"]),
    (
        "DE",
        &["germany", "deutschland", "allemagne", "alemania", "germania", "duitsland", "deu", "ger", "brd"],
    ),
    ("DK", &["denmark", "dänemark", "danmark", "dnk"]),
    ("EE", &["estonia", "estland", "eesti", "est"]),
    ("ES", &["spain", "spanien", "españa", "espagne", "esp"]),
    ("FI", &["finland", "finnland", "suomi", "fin"]),
    ("FR", &["france", "frankreich", "francia", "fra"]),
    (
        "GB",
        &[
            "uk",
            "u.k.",
            "united kingdom",
            "great britain",
            "britain",
            "england",
            "scotland",
            "wales",
            "northern ireland",
            "großbritannien",
            "grossbritannien",
            "vereinigtes königreich",
            "royaume-uni",
            "gbr",
        ],
    ),
    ("GR", &["greece", "griechenland", "ελλάδα", "grc"]),
    ("HK", &["hong kong", "hongkong", "hkg"]),
    ("HR", &["croatia", "kroatien", "hrvatska", "hrv"]),
    ("HU", &["hungary", "ungarn", "magyarország", "hun"]),
    ("IE", &["ireland", "irland", "éire", "eire", "republic of ireland", "irl"]),
    ("IN", &["india", "indien", "ind"]),
    ("IT", &["italy", "italien", "italia", "italie", "ita"]),
    ("JP", &["japan", "日本", "jpn"]),
    ("LI", &["liechtenstein", "lie"]),
    ("LT", &["lithuania", "litauen", "lietuva", "ltu"]),
    ("LU", &["luxembourg", "luxemburg", "lux"]),
    ("LV", &["latvia", "lettland", "latvija", "lva"]),
    ("MT", &["malta", "mlt"]),
    ("MX", &["mexico", "mexiko", "méxico", "mex"]),
    ("NL", &["netherlands", "the netherlands", "holland", "niederlande", "nederland", "pays-bas", "nld"]),
    ("NO", &["norway", "norwegen", "norge", "nor"]),
    ("NZ", &["new zealand", "neuseeland", "nzl"]),
    ("PL", &["poland", "polen", "polska", "pologne", "pol"]),
    ("PT", &["portugal", "prt"]),
    ("RO", &["romania", "rumänien", "românia", "rou"]),
    ("SE", &["sweden", "schweden", "sverige", "swe"]),
    ("SG", &["singapore", "singapur", "sgp"]),
    ("SI", &["slovenia", "slowenien", "slovenija", "svn"]),
    ("SK", &["slovakia", "slowakei", "slovensko", "svk"]),
    ("TR", &["turkey", "türkiye", "türkei", "tur"]),
    ("UA", &["ukraine", "україна", "ukr"]),
    (
        "US",
        &[
            "usa",
            "u.s.",
            "u.s.a.",
            "united states",
            "united states of america",
            "america",
            "vereinigte staaten",
            "états-unis",
            "estados unidos",
        ],
    ),
];

/// The code of the country that people write so.
pub(super) fn country_named(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    NAMES.iter().find(|(_, names)| names.contains(&name.as_str())).map(|(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_is_known_by_its_names() {
        for (name, code) in [
            ("Germany", Some("DE")),
            ("DEUTSCHLAND", Some("DE")),
            ("Österreich", Some("AT")),
            ("UK", Some("GB")),
            ("USA", Some("US")),
            ("Atlantis", None),
        ] {
            assert_eq!(country_named(name), code, "{name}");
        }
        let mut names: Vec<_> = NAMES.iter().flat_map(|(_, names)| names.iter()).collect();
        let count = names.len();
        assert!(names.iter().all(|name| **name == name.to_lowercase()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
