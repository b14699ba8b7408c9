//! Letters that were read in another encoding than they were written in, before the file came here.

/// What the bytes 0x80 to 0xBF are in Windows-1252, beside those that are themselves: the second byte of a letter in UTF-8.
const SECOND_IN_1252: &str = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ";
/// The same in Windows-1250.
const SECOND_IN_1250: &str = "€‚„…†‡‰Š‹ŚŤŽŹ‘’“”•–—™š›śťžźˇ˘Ł¤Ą¦§¨©Ş«¬®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\u{a0}\u{ad}";

/// UTF-8 that was read as Windows-1252, Windows-1250 or Mac Roman: a letter that begins such a pair, and one that ends it.
pub(super) fn is_mixed_up(text: &str) -> bool {
    let ends = |letter: char| {
        matches!(letter, '\u{a0}'..='\u{bf}' | '\u{80}'..='\u{9f}') || SECOND_IN_1252.contains(letter)
    };
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let Some(next) = letters.peek().copied().filter(|next| !next.is_ascii()) else { continue };
        let is_pair = match letter {
            'Ã' | 'Â' | 'Ä' | 'Å' => ends(next),
            'â' => next == '€',
            'Ă' | 'Ĺ' => SECOND_IN_1250.contains(next) || next.is_control(),
            // Of Mac Roman: √º is ü, ≈Ç is ł, and ‚Ä begins quotes and dashes.
            '√' | '≈' => true,
            '‚' => next == 'Ä',
            _ => false,
        };
        if is_pair {
            return true;
        }
    }
    false
}

/// Whether a question mark stands within a word: a letter stood there that the encoding had not in which the file was saved.
pub(super) fn has_lost_letter(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'?', bytes).any(|at| {
        let is_letter = |at: Option<usize>| {
            at.and_then(|at| bytes.get(at)).is_some_and(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii())
        };
        is_letter(at.checked_sub(1)) && is_letter(Some(at + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_8_that_was_read_in_another_encoding_is_told() {
        for text in [
            "MÃ¼ller",
            "Oâ€™Neill",
            "MĂĽller",
            "Ĺ\u{81}ukasz",
            "√úmit",
            "M√ºller",
            "Oâ€“",
            "≈Åukasz",
            "O‚ÄôNeill",
        ] {
            assert!(is_mixed_up(text), "{text}");
        }
        for text in ["SÃO PAULO", "Ăsta", "ĂȘTI", "Ĺubica", "√2", "Müller", "Łódź", "Åse", "‚Anna‘"]
        {
            assert!(!is_mixed_up(text), "{text}");
        }
    }
}
