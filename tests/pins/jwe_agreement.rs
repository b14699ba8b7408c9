//! Promise: the checks on a JWE's text come to the verdict and the code of those on its decoded segments ([`forge::plain`]), on every
//! input and whatever header is known; and both agree with a third reading, bit by bit, on what is in order.

use crate::forge;

use std::sync::LazyLock;

use embosser::jwe::{self, PinKey, Refusal, Verifier};
use forge::{Jwe, KID, header, plain};
use proptest::prelude::*;
use rayon::prelude::*;

/// A verifier that knows the usual header, as it does from the second PIN on.
struct Knowing(Verifier);

impl Knowing {
    fn new(key: &PinKey, good: &str) -> Self {
        let mut verifier = Verifier::new();
        verifier.verify(good, key).unwrap();
        verifier.inspect(good).unwrap();
        Self(verifier)
    }

    /// What it and the plain way say.
    fn agree(&mut self, compact: &str, key: &PinKey) -> Result<(), Refusal> {
        let (verified, inspected) = (plain::verify(compact, key), plain::inspect(compact));
        assert_eq!(self.0.verify(compact, key), verified, "{:?} {compact:.900}", self.0);
        assert_eq!(self.0.inspect(compact), inspected, "{:?} {compact:.900}", self.0);
        verified
    }

    /// The same, and one that has never seen a header, and the thread's own.
    fn agree_and_new(&mut self, compact: &str, key: &PinKey) -> Result<(), Refusal> {
        let (verified, inspected) = (self.agree(compact, key), plain::inspect(compact));
        assert_eq!(Verifier::new().verify(compact, key), verified, "new {compact:.900}");
        assert_eq!(Verifier::new().inspect(compact), inspected, "new {compact:.900}");
        assert_eq!(jwe::verify(compact, key), verified, "{compact:.900}");
        assert_eq!(jwe::inspect(compact), inspected, "{compact:.900}");
        verified
    }
}

/// The third reading: bit by bit, numbers as numbers, the header as a JSON value.
fn is_in_order(compact: &str, key: &PinKey) -> bool {
    let segments: Vec<Option<Vec<u8>>> = compact.split('.').map(bits_to_bytes).collect();
    let [Some(header), Some(encrypted_key), Some(iv), Some(ciphertext), Some(tag)] = &segments[..] else {
        return false;
    };
    let Ok(serde_json::Value::Object(header)) = serde_json::from_slice(header) else { return false };
    let number = |bytes: &[u8]| openssl::bn::BigNum::from_slice(bytes).unwrap();
    header.get("alg").is_some_and(|alg| alg == "RSA-OAEP")
        && header.get("enc").is_some_and(|enc| enc == "A128CBC-HS256")
        && header.get("kid").is_some_and(|kid| kid == key.kid())
        && !header.contains_key("zip")
        && !header.contains_key("crit")
        && encrypted_key.len() == key.modulus().len()
        && number(encrypted_key) < number(&key.modulus())
        && [iv, ciphertext, tag].iter().all(|part| part.len() == 16)
}

fn bits_to_bytes(segment: &str) -> Option<Vec<u8>> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for character in segment.chars() {
        bits = (bits << 6) | u32::try_from(ALPHABET.find(character)?).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xFF).unwrap());
            bits &= (1 << held) - 1;
        }
    }
    // Six bits left over: a character that holds no byte's end.
    (bits == 0 && held < 6).then_some(bytes)
}

/// Puts each of 256 characters at each of the places, and each time asks everybody. Beyond ASCII these are the
/// characters U+0080 to U+00FF, since a text cannot hold the bare byte; alphabet.rs tests those.
fn mutate(bytes: usize, places: impl Fn(usize, usize) -> bool) {
    let key = forge::key(bytes);
    let good = Jwe::of_bytes(bytes).compact();
    let places: Vec<usize> = (0..good.len()).filter(|place| places(*place, good.len())).collect();
    let accepted: usize = places
        .par_iter()
        .map_init(
            || Knowing::new(&key, &good),
            |verifier, place| {
                let (before, after) = (&good[..*place], &good[place + 1..]);
                let mut accepted = 0;
                for byte in 0..=u8::MAX {
                    let mutant = format!("{before}{}{after}", char::from(byte));
                    let verified = verifier.agree(&mutant, &key);
                    assert_eq!(verified.is_ok(), is_in_order(&mutant, &key), "{mutant}");
                    accepted += usize::from(verified.is_ok());
                }
                accepted
            },
        )
        .sum();
    // Most of the alphabet fits at most places of the four random segments.
    assert!(accepted > places.len() * 20, "{accepted} of {}", places.len() * 256);
}

#[test]
fn all_agree_on_every_single_character_changed_in_a_2048_bit_jwe() {
    mutate(256, |_, _| true);
}

#[test]
fn all_agree_at_the_edges_of_longer_keys() {
    // 384 bytes end without spare bits, 512 with two. The whole header was changed above.
    for bytes in [384, 512] {
        mutate(bytes, |place, length| {
            let header = Jwe::default().segments()[0].len();
            (header..header + 3).contains(&place) || place + 74 > length
        });
    }
}

/// The good JWE's segments, then moved about.
#[derive(Debug, Clone)]
enum Change {
    Truncate(prop::sample::Index),
    Insert(prop::sample::Index, String),
    Remove(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Flip(prop::sample::Index, char),
    Header(String),
    Resize(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    use prop::sample::Index;
    prop_oneof![
        any::<Index>().prop_map(Change::Truncate),
        (any::<Index>(), "(\\.|=|[A-Za-z0-9_-]{1,4}|\\.\\.|[^a-z])")
            .prop_map(|(at, what)| Change::Insert(at, what)),
        any::<Index>().prop_map(Change::Remove),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Change::Swap(one, other)),
        (any::<Index>(), any::<char>()).prop_map(|(at, what)| Change::Flip(at, what)),
        header_text().prop_map(Change::Header),
        (1..5_usize, 0..60_usize).prop_map(|(segment, length)| Change::Resize(segment, length)),
    ]
}

/// Headers near the truth.
fn header_text() -> impl Strategy<Value = String> {
    let member = prop_oneof![
        4 => Just(r#""alg":"RSA-OAEP""#.to_owned()),
        4 => Just(r#""enc":"A128CBC-HS256""#.to_owned()),
        4 => Just(format!(r#""kid":"{KID}""#)),
        1 => Just(r#""zip":"DEF""#.to_owned()),
        1 => Just(r#""crit":["x"]"#.to_owned()),
        1 => "\"(alg|enc|kid|typ|x)\":(\"[a-zA-Z0-9\\\\-]{0,8}\"|null|1|\\[\\]|\\{\\}|)",
        1 => r#""q[a-z\\u]{0,6}" ?: ?(true|-?[0-9.e]{1,4}|"é")"#,
    ];
    (prop::collection::vec(member, 0..6), "[ \n\t]{0,2}", "[,}]?").prop_map(|(members, space, end)| {
        format!("{{{space}{}{space}}}{end}", members.join(&format!("{space},")))
    })
}

fn changed(good: &str, changes: &[Change]) -> String {
    let mut text: Vec<char> = good.chars().collect();
    for change in changes {
        let length = text.len().max(1);
        match change {
            Change::Truncate(at) => text.truncate(at.index(length)),
            Change::Insert(at, what) => {
                let at = at.index(length).min(text.len());
                text.splice(at..at, what.chars());
            }
            Change::Remove(at) if !text.is_empty() => drop(text.remove(at.index(length))),
            Change::Flip(at, what) if !text.is_empty() => text[at.index(length)] = *what,
            Change::Remove(_) | Change::Flip(..) => {}
            Change::Swap(..) | Change::Header(_) | Change::Resize(..) => {
                let mut segments: Vec<String> =
                    text.iter().collect::<String>().split('.').map(str::to_owned).collect();
                match change {
                    Change::Swap(one, other) => {
                        let count = segments.len();
                        segments.swap(one.index(count), other.index(count));
                    }
                    Change::Header(header) => segments[0] = forge::base64url(header.as_bytes()),
                    Change::Resize(at, length) => {
                        if let Some(segment) = segments.get_mut(*at) {
                            *segment = "Q".repeat(*length);
                        }
                    }
                    _ => unreachable!("matched above"),
                }
                text = segments.join(".").chars().collect();
            }
        }
    }
    text.into_iter().collect()
}

static KEYS: LazyLock<Vec<(PinKey, String)>> = LazyLock::new(|| {
    let of = |bytes: &usize| (forge::key(*bytes), Jwe::of_bytes(*bytes).compact());
    [256, 257, 384, 512].iter().map(of).collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn all_agree_on_what_was_cut_swapped_and_spliced(
        which in 0..4_usize, changes in prop::collection::vec(change(), 0..4),
    ) {
        let (key, good) = &KEYS[which];
        let text = changed(good, &changes);
        let verified = Knowing::new(key, good).agree_and_new(&text, key);
        // A duplicate member is refused here, and is the last one for the third reading.
        if verified != Err(Refusal::HeaderInvalid) {
            prop_assert_eq!(verified.is_ok(), is_in_order(&text, key), "{}", text);
        }
    }

    #[test]
    fn all_agree_on_any_text(text in "\\PC{0,80}|[A-Za-z0-9_.=-]{0,700}|([A-Za-z0-9_-]{0,6}\\.){0,6}|[0-9 ]{0,14}") {
        let (key, good) = &KEYS[0];
        let verified = Knowing::new(key, good).agree_and_new(&text, key);
        prop_assert!(verified.is_err());
    }

    #[test]
    fn what_a_jose_library_cannot_read_is_not_accepted(header in header_text()) {
        // josekit holds typ to be a string; here it is not looked at.
        prop_assume!(!header.contains("typ"));
        let (key, good) = &KEYS[0];
        let text = Jwe::with_header(&header).compact();
        if Knowing::new(key, good).agree_and_new(&text, key).is_ok() {
            let asked = std::cell::Cell::new(false);
            let read = josekit::jwe::deserialize_compact_with_selector(&text, |header| {
                asked.set(header.key_id() == Some(KID));
                Ok(None)
            });
            prop_assert!(asked.get() && read.is_err(), "{}", header);
        }
    }
}

#[test]
fn no_key_remembers_another_keys_header() {
    let (one, other) =
        (forge::key(256), PinKey::parse(&forge::document("other", &forge::modulus(256))).unwrap());
    let (of_one, of_other) = (Jwe::default().compact(), Jwe::with_header(&header("other")).compact());
    let mut verifier = Verifier::new();
    for _ in 0..3 {
        assert_eq!(verifier.verify(&of_one, &one), Ok(()));
        assert_eq!(verifier.verify(&of_other, &one), Err(Refusal::StaleKey));
        assert_eq!(verifier.verify(&of_other, &other), Ok(()));
        assert_eq!(verifier.verify(&of_one, &other), Err(Refusal::StaleKey));
        assert_eq!((verifier.inspect(&of_one), verifier.inspect(&of_other)), (Ok(()), Ok(())));
    }
}
