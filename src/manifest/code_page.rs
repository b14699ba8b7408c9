//! Code page 850, in which Excel saves "CSV (MS-DOS)": no crate that is used here has it.
//!
//! Its small letters up to 0xA4 are those of code page 437. Files are not read in it; what is needed is whether a byte is a letter
//! there, and what a text was before it was taken for another encoding's.

/// What the bytes from 0x80 are, in their order (Unicode's mapping `CP850.TXT`).
const LETTERS: [char; 128] = [
    'Ç', 'ü', 'é', 'â', 'ä', 'à', 'å', 'ç', 'ê', 'ë', 'è', 'ï', 'î', 'ì', 'Ä', 'Å', //
    'É', 'æ', 'Æ', 'ô', 'ö', 'ò', 'û', 'ù', 'ÿ', 'Ö', 'Ü', 'ø', '£', 'Ø', '×', 'ƒ', //
    'á', 'í', 'ó', 'ú', 'ñ', 'Ñ', 'ª', 'º', '¿', '®', '¬', '½', '¼', '¡', '«', '»', //
    '░', '▒', '▓', '│', '┤', 'Á', 'Â', 'À', '©', '╣', '║', '╗', '╝', '¢', '¥', '┐', //
    '└', '┴', '┬', '├', '─', '┼', 'ã', 'Ã', '╚', '╔', '╩', '╦', '╠', '═', '╬', '¤', //
    'ð', 'Ð', 'Ê', 'Ë', 'È', 'ı', 'Í', 'Î', 'Ï', '┘', '┌', '█', '▄', '¦', 'Ì', '▀', //
    'Ó', 'ß', 'Ô', 'Ò', 'õ', 'Õ', 'µ', 'þ', 'Þ', 'Ú', 'Û', 'Ù', 'ý', 'Ý', '¯', '´', //
    '\u{ad}', '±', '‗', '¾', '¶', '§', '÷', '¸', '°', '¨', '·', '¹', '³', '²', '■', '\u{a0}',
];

/// What a byte from 0x80 is.
pub(super) fn char_of(byte: u8) -> Option<char> {
    LETTERS.get(usize::from(byte).checked_sub(128)?).copied()
}

/// A text's bytes; none if it has a letter that the code page has not.
pub(super) fn encoded(text: &str) -> Option<Vec<u8>> {
    let byte_of = |letter: char| {
        if letter.is_ascii() {
            return u8::try_from(letter).ok();
        }
        let at = LETTERS.iter().position(|known| *known == letter)?;
        u8::try_from(at + 128).ok()
    };
    text.chars().map(byte_of).collect()
}
