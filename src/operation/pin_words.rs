//! Names that speak of a PIN: what stands under them is refused in the clear, and shown nowhere.
//!
//! Only words that mean nothing else beside a card: `NIP` is a PIN in Mexico and a company's tax number in Poland, and is none of these.

/// Single words, in small letters.
const WORDS: [&str; 27] = [
    "cardpin",
    "clearpin",
    "codepin",
    "geheimcode",
    "geheimnummer",
    "geheimzahl",
    "newpin",
    "pin",
    "pincode",
    "pincodes",
    "pinkod",
    "pinkode",
    "pinkoodi",
    "pinno",
    "pinnummer",
    "pinnumber",
    "pins",
    "plainpin",
    "пин",
    "пинкод",
    "пін",
    "пінкод",
    "暗証番号",
    "密码",
    "密碼",
    "비밀번호",
    "핀번호",
];
/// Several words, one after the other.
const PHRASES: [&str; 10] = [
    "code confidentiel",
    "code secret",
    "codice segreto",
    "clave secreta",
    "código secreto",
    "codigo secreto",
    "número secreto",
    "numero segreto",
    "secret code",
    "tajny kod",
];
/// What means a PIN where it is all that a name says.
const WHOLE: [&str; 2] = ["clave", "暗証"];

/// Whether a name has a word for a PIN in it.
pub(crate) fn speaks_of_pin(name: &str) -> bool {
    let name = name.to_lowercase();
    let words: Vec<&str> = name
        .split(|letter: char| !letter.is_alphanumeric())
        .map(|word| word.trim_end_matches(|letter: char| letter.is_ascii_digit()))
        .filter(|word| !word.is_empty())
        .collect();
    let has_phrase = |phrase: &str| {
        let count = phrase.split(' ').count();
        words.windows(count).any(|window| window.iter().copied().eq(phrase.split(' ')))
    };
    words.iter().any(|word| WORDS.contains(word))
        || PHRASES.into_iter().any(has_phrase)
        || matches!(words[..], [word] | ["metadata", word] if WHOLE.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_known_in_any_language_and_nothing_else_is() {
        for name in [
            "PIN",
            "Card PIN 2",
            "metadata[Code secret]",
            "ПИН-код",
            "暗証番号",
            "metadata[Código secreto]",
            "Clave",
            "metadata[clave]",
            "Secret code",
            "Wunsch-PIN",
            "PIN-kod",
        ] {
            assert!(speaks_of_pin(name), "{name}");
        }
        for name in [
            "NIP",
            "Clave de empleado",
            "Code",
            "Shipping",
            "Spinning class",
            "secret",
            "Kod pocztowy",
            "metadata[pinboard]",
        ] {
            assert!(!speaks_of_pin(name), "{name}");
        }
    }
}
