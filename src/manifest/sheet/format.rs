//! Number formats: what a cell shows of its number, where that is more than the number.
//!
//! Zeros before it, letters and dashes in it, a currency's sign, decimals: whoever looks at the sheet reads these, and so does
//! embosser. A point stands before decimals and nothing between thousands, whatever the program's language is. What has no such
//! thing, or is not understood, is the number itself (ECMA-376, part 1, 18.8.31).

/// What a format makes of numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Format {
    /// Which numbers each part is for, and how it shows them.
    sections: Vec<(Condition, Shape)>,
}

/// Which numbers a part of a format is for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Condition {
    Any,
    Below(f64),
    UpTo(f64),
    Above(f64),
    From(f64),
    Equal(f64),
}

/// How numbers are shown.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// As they are.
    Plain,
    /// Digit by digit.
    Mask(Vec<Place>),
    /// With something before and after, as a currency's sign is.
    Beside { before: String, decimals: Option<usize>, divisor: f64, after: String },
}

/// A place of a mask.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// A digit, or a zero.
    Filled,
    /// A digit, or nothing.
    Open,
    Literal(char),
}

/// What a part of a format is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Digit(Place),
    Point,
    Comma,
    /// The number as it is.
    General,
    Literal(char),
}

impl Format {
    /// By its code; none if it shows numbers as they are.
    pub(super) fn of(code: &str) -> Option<Self> {
        let (mut sections, mut shows_more) = (Vec::new(), false);
        for section in sections_of(code) {
            let (condition, shape) = section.unwrap_or((Condition::Any, Shape::Plain));
            shows_more |= shape != Shape::Plain;
            sections.push((condition, shape));
            // The others are those of negative numbers, zero and texts.
            if condition == Condition::Any {
                break;
            }
        }
        shows_more.then_some(Self { sections })
    }

    /// What a cell shows; none if that is the number.
    pub(super) fn shown(&self, number: f64) -> Option<String> {
        let (_, shape) = self.sections.iter().find(|(condition, _)| condition.holds(number))?;
        let sign = if number < 0.0 { "-" } else { "" };
        let shown = match shape {
            Shape::Plain => return None,
            Shape::Mask(places) => masked(places, number.abs()),
            Shape::Beside { before, decimals, divisor, after } => {
                let number = number.abs() / divisor;
                let number = match decimals {
                    Some(decimals) => format!("{number:.decimals$}"),
                    None => number.to_string(),
                };
                format!("{before}{number}{after}")
            }
        };
        Some(format!("{sign}{}", shown.trim()))
    }
}

/// The code of a format that programs know by its number alone.
pub(super) fn built_in(id: u32) -> Option<&'static str> {
    match id {
        2 | 4 | 39 | 40 | 43 => Some("0.00"),
        // The currency is the program's own.
        5 | 6 | 42 => Some("$#,##0"),
        7 | 8 | 44 => Some("$#,##0.00"),
        _ => None,
    }
}

impl Condition {
    /// As it stands in brackets.
    fn of(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        if let Some(rest) = text.strip_prefix("<=") {
            return number(rest).map(Self::UpTo);
        }
        if let Some(rest) = text.strip_prefix(">=") {
            return number(rest).map(Self::From);
        }
        if let Some(rest) = text.strip_prefix('<') {
            return number(rest).map(Self::Below);
        }
        if let Some(rest) = text.strip_prefix('>') {
            return number(rest).map(Self::Above);
        }
        number(text.strip_prefix('=')?).map(Self::Equal)
    }

    #[expect(clippy::float_cmp, reason = "a format's number is compared as it is written")]
    fn holds(self, number: f64) -> bool {
        match self {
            Self::Any => true,
            Self::Below(limit) => number < limit,
            Self::UpTo(limit) => number <= limit,
            Self::Above(limit) => number > limit,
            Self::From(limit) => number >= limit,
            Self::Equal(limit) => number == limit,
        }
    }
}

/// The parts of a code; none for one that is not understood.
fn sections_of(code: &str) -> Vec<Option<(Condition, Shape)>> {
    let mut sections = Vec::new();
    let (mut tokens, mut condition, mut is_understood) = (Vec::new(), Condition::Any, true);
    let mut letters = code.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ';' => {
                let shape = is_understood.then(|| (condition, shape_of(&tokens)));
                sections.push(shape);
                (tokens, condition, is_understood) = (Vec::new(), Condition::Any, true);
            }
            '"' => tokens.extend(letters.by_ref().take_while(|letter| *letter != '"').map(Token::Literal)),
            '\\' => tokens.extend(letters.next().map(Token::Literal)),
            // Room as wide as a letter, or one that is repeated up to the cell's edge.
            '_' | '*' => {
                letters.next();
            }
            '[' => {
                let inside: String = letters.by_ref().take_while(|letter| *letter != ']').collect();
                if let Some(currency) = inside.strip_prefix('$') {
                    let sign = currency.split('-').next().unwrap_or_default();
                    tokens.extend(sign.chars().map(Token::Literal));
                } else {
                    condition = Condition::of(&inside).unwrap_or(condition);
                }
            }
            '0' => tokens.push(Token::Digit(Place::Filled)),
            '#' | '?' => tokens.push(Token::Digit(Place::Open)),
            '.' => tokens.push(Token::Point),
            ',' => tokens.push(Token::Comma),
            '%' | '@' => is_understood = false,
            'G' if letters.as_str().starts_with("eneral") => {
                letters = letters.as_str()["eneral".len()..].chars();
                tokens.push(Token::General);
            }
            'E' | 'e' if letters.as_str().starts_with(['+', '-']) => is_understood = false,
            letter => tokens.push(Token::Literal(letter)),
        }
    }
    sections.push(is_understood.then(|| (condition, shape_of(&tokens))));
    sections
}

fn shape_of(tokens: &[Token]) -> Shape {
    let is_number = |token: &Token| !matches!(token, Token::Literal(_));
    let Some(first) = tokens.iter().position(is_number) else { return Shape::Plain };
    let last = tokens.iter().rposition(is_number).unwrap_or(first);
    let (before, number, after) = (&tokens[..first], &tokens[first..=last], &tokens[last + 1..]);
    let text = |tokens: &[Token]| -> String {
        let literal = |token: &Token| if let Token::Literal(literal) = token { Some(*literal) } else { None };
        tokens.iter().filter_map(literal).collect()
    };
    let (before, after) = (text(before), text(after));
    let is_bare = before.trim().is_empty() && after.trim().is_empty();
    let is_broken = number.iter().any(|token| matches!(token, Token::Literal(_)));
    let has = |wanted: Token| number.contains(&wanted);
    if has(Token::Point) || has(Token::Comma) || has(Token::General) {
        // A fraction, or something else that nobody makes.
        if is_broken {
            return Shape::Plain;
        }
        let point = number.iter().position(|token| *token == Token::Point).unwrap_or(number.len());
        let behind = &number[point..];
        let filled = behind.iter().filter(|token| **token == Token::Digit(Place::Filled)).count();
        let is_open = behind.contains(&Token::Digit(Place::Open)) || has(Token::General);
        let of_thousands = number.iter().rev().take_while(|token| **token == Token::Comma).count();
        let divisor = 1000_f64.powi(i32::try_from(of_thousands).unwrap_or(0));
        if is_bare && filled == 0 && of_thousands == 0 {
            return Shape::Plain;
        }
        return Shape::Beside { before, decimals: (!is_open).then_some(filled), divisor, after };
    }
    let places = number.iter().filter_map(|token| match token {
        Token::Digit(place) => Some(*place),
        Token::Literal(letter) => Some(Place::Literal(*letter)),
        _ => None,
    });
    let places: Vec<Place> = places.collect();
    let filled = places.iter().filter(|place| **place == Place::Filled).count();
    // A fraction's bar stands between places that may be empty.
    let is_fraction = filled == 0 && places.contains(&Place::Literal('/'));
    if is_fraction || (is_bare && !is_broken && filled < 2) {
        return Shape::Plain;
    }
    let letters = |text: String| text.chars().map(Place::Literal).collect::<Vec<_>>();
    Shape::Mask([letters(before), places, letters(after)].concat())
}

/// A number digit by digit, from its end; the first place takes all digits that are left.
fn masked(mask: &[Place], number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut digits = if digits == "0" { "" } else { digits.as_str() };
    let mut left = mask.iter().filter(|place| !matches!(place, Place::Literal(_))).count();
    let mut shown = String::new();
    for place in mask {
        match place {
            Place::Literal(letter) => shown.push(*letter),
            Place::Filled | Place::Open => {
                let count = (digits.len() + 1).saturating_sub(left);
                let (these, rest) = digits.split_at(count);
                match (these, place) {
                    ("", Place::Filled) => shown.push('0'),
                    (these, _) => shown.push_str(these),
                }
                (digits, left) = (rest, left - 1);
            }
        }
    }
    shown
}

/// What a cell shows for its number, as a file has it that says so itself, in the form that formats give; none if that is the number.
pub(super) fn of_text(text: &str, number: f64) -> Option<String> {
    let text = text.trim();
    let first = text.find(|letter: char| letter.is_ascii_digit())?;
    let last = text.rfind(|letter: char| letter.is_ascii_digit())?;
    let (sign, before) = match text[..first].trim_start().strip_prefix(['-', '\u{2212}']) {
        Some(before) => ("-", before.trim_start()),
        None => ("", &text[..first]),
    };
    let (core, after) = (&text[first..=last], &text[last + 1..]);
    let is_bare = before.is_empty() && after.is_empty();
    let is_it = |text: &str| text.parse::<f64>().is_ok_and(|shown| close(shown, number.abs()));
    let digits: String = core.chars().filter(char::is_ascii_digit).collect();
    let separates =
        |letter: char| matches!(letter, '.' | ',' | '\'' | '\u{2019}' | ' ' | '\u{a0}' | '\u{202f}');
    if let Some((whole, decimals)) = core.rsplit_once(['.', ','])
        && decimals.bytes().all(|byte| byte.is_ascii_digit())
        && whole.chars().all(|letter| letter.is_ascii_digit() || separates(letter))
    {
        let whole: String = whole.chars().filter(char::is_ascii_digit).collect();
        let exact = format!("{:.*}", decimals.len(), number.abs());
        if exact == format!("{whole}.{decimals}") {
            return Some(format!("{sign}{before}{whole}.{decimals}{after}"));
        }
    }
    if !is_it(&digits) {
        return None;
    }
    if core.chars().all(|letter| letter.is_ascii_digit() || separates(letter)) {
        let shows_zeros = digits.len() == core.len() && digits.len() > 1 && digits.starts_with('0');
        return (!is_bare || shows_zeros).then(|| format!("{sign}{before}{digits}{after}"));
    }
    Some(text.to_owned())
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(code: &str, number: f64) -> String {
        Format::of(code).and_then(|format| format.shown(number)).unwrap_or_else(|| number.to_string())
    }

    #[test]
    fn a_cells_number_is_what_it_shows() {
        for (code, number, expected) in [
            ("00000", 2138.0, "02138"),
            ("\"P\"00000", 7.0, "P00007"),
            ("00-000", 950.0, "00-950"),
            ("000\\-0000", 600_001.0, "060-0001"),
            ("00000-0000", 21_381_234.0, "02138-1234"),
            ("00000;@", 1067.0, "01067"),
            ("[<=99999]00000;00000\\-0000", 2138.0, "02138"),
            ("[<=99999]00000;00000\\-0000", 21_381_234.0, "02138-1234"),
            ("\"D-\"00000", 1067.0, "D-01067"),
            ("(###) ###-####", 2_125_551_234.0, "(212) 555-1234"),
            ("#,##0.00 \"€\"", 500.0, "500.00 €"),
            ("#,##0.00\\ [$€-407]", 1000.0, "1000.00 €"),
            ("[$$-409]#,##0.00", 1234.5, "$1234.50"),
            ("_-* #,##0.00 \"€\"_-;-* #,##0.00 \"€\"_-;_-* \"-\"?? \"€\"_-;_-@_-", 500.0, "500.00 €"),
            ("_($* #,##0.00_);_($* (#,##0.00);_($* \"-\"??_);_(@_)", -5.0, "-$5.00"),
            ("\"£\"#,##0", 500.0, "£500"),
            ("0.00", 500.0, "500.00"),
            ("#,##0.0,\"k\"", 1500.0, "1.5k"),
            ("General\" kg\"", 1.5, "1.5 kg"),
            ("0\" kg\"", 5.0, "5 kg"),
        ] {
            assert_eq!(shown(code, number), expected, "{code}");
        }
        for code in [
            "General",
            "0",
            "#,##0",
            "0%",
            "0.00%",
            "0.00E+00",
            "# ?/?",
            "@",
            "",
            "#,##0;[Red]-#,##0",
            "0.##",
        ] {
            assert_eq!(Format::of(code), None, "{code}");
        }
    }

    #[test]
    fn a_text_beside_a_number_says_the_same_as_its_format() {
        for (text, number, expected) in [
            ("500,00 €", 500.0, Some("500.00 €")),
            ("1.000,00 €", 1000.0, Some("1000.00 €")),
            ("$1,234.50", 1234.5, Some("$1234.50")),
            ("-5.00", -5.0, Some("-5.00")),
            ("500 €", 500.0, Some("500 €")),
            ("P00007", 7.0, Some("P00007")),
            ("00-950", 950.0, Some("00-950")),
            ("02138", 2138.0, Some("02138")),
            ("500", 500.0, None),
            ("1,000", 1000.0, None),
            ("1 000", 1000.0, None),
            ("1.5", 1.5, Some("1.5")),
            ("1E+06", 1_000_000.0, None),
            ("TRUE", 1.0, None),
        ] {
            assert_eq!(of_text(text, number).as_deref(), expected, "{text}");
        }
    }
}
