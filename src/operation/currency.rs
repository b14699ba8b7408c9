//! Currencies: which there are, and how many digits of an amount stand after the point.

use crate::config::range::grouped;

/// ISO 4217, as one text of three letters each, in order; without funds and metals. `xts` and `xxx` are codes, too: for tests.
const CURRENCIES: &str = "aedafnallamdaoaarsaudawgaznbambbdbdtbgnbhdbifbmdbndbobbrlbsdbtnbwpbynbzdcadcdfchfclpcnycopcrccupcveczkdjfdkk\
    dopdzdegpernetbeurfjdfkpgbpgelghsgipgmdgnfgtqgydhkdhnlhtghufidrilsinriqdirriskjmdjodjpykeskgskhrkmfkpwkrwkwdkydkztlaklbplkrlrdlsllyd\
    madmdlmgamkdmmkmntmopmrumurmvrmwkmxnmyrmznnadngnnionoknprnzdomrpabpenpgkphppkrplnpygqarronrsdrubrwfsarsbdscrsdgseksgdshpslesossrdssp\
    stnsvcsypszlthbtjstmttndtoptryttdtwdtzsuahugxusduyuuzsvesvndvuvwstxafxcdxcgxofxpfxtsxxxyerzarzmwzwg";
/// Their smallest unit is the whole, to Stripe (docs.stripe.com/currencies).
const WITHOUT_DECIMALS: [&str; 15] =
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"];
/// Their smallest unit is a thousandth.
const WITH_THREE: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];

/// Whether it is the code of a currency, in any case of its letters.
#[must_use]
pub fn is_currency(code: &str) -> bool {
    let Ok(code) = <[u8; 3]>::try_from(code.as_bytes()) else { return false };
    let (codes, _) = CURRENCIES.as_bytes().as_chunks::<3>();
    codes.binary_search(&code.map(|letter| letter.to_ascii_lowercase())).is_ok()
}

/// How many digits of an amount stand after the point.
#[must_use]
pub fn decimals(currency: &str) -> u32 {
    match currency.to_ascii_lowercase().as_str() {
        code if WITHOUT_DECIMALS.contains(&code) => 0,
        code if WITH_THREE.contains(&code) => 3,
        _ => 2,
    }
}

/// An amount of a currency's smallest unit as people write it: `500.00 EUR`.
#[must_use]
pub fn money(smallest: u64, currency: &str) -> String {
    let digits = decimals(currency);
    let code = currency.to_ascii_uppercase();
    let unit = 10_u64.pow(digits);
    let whole = grouped(smallest / unit);
    if digits == 0 {
        return format!("{whole} {code}");
    }
    format!("{whole}.{:0width$} {code}", smallest % unit, width = digits as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_money_is_as_people_write_it() {
        assert!(CURRENCIES.len().is_multiple_of(3) && CURRENCIES.as_bytes().chunks(3).is_sorted());
        assert!(WITHOUT_DECIMALS.iter().chain(&WITH_THREE).all(|code| is_currency(code)));
        for (code, is) in
            [("eur", true), ("EUR", true), ("jpy", true), ("eru", false), ("", false), ("euro", false)]
        {
            assert_eq!(is_currency(code), is, "{code}");
        }
        for (smallest, code, words) in [
            (50_000, "eur", "500.00 EUR"),
            (5, "USD", "0.05 USD"),
            (123_456_789, "usd", "1,234,567.89 USD"),
            (50_000, "jpy", "50,000 JPY"),
            (1_500, "kwd", "1.500 KWD"),
            (0, "gbp", "0.00 GBP"),
        ] {
            assert_eq!(money(smallest, code), words);
        }
    }
}
