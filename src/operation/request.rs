//! A request: what an operation is asked to do, under Stripe's own names.

mod content;
mod lists;
mod own;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

use self::lists::close_gaps;
pub(crate) use self::lists::may_leave_gaps;
pub use self::own::{CANCEL_REPLACED, OWN, PIN_CHOICE, REUSE};
use super::form::{self, Form};
use super::kind::Kind;
use super::{FieldProblem, Found, Operation, Place, json, params, rules};
use crate::pin::PinJwe;

/// Parameters in the order of their paths; without the PIN, which travels apart.
#[derive(Debug)]
pub struct Request {
    operation: Operation,
    form: Form,
    pin: Option<PinJwe>,
    /// Whether its cardholder is to choose the PIN.
    chooses_pin: bool,
    cancels_replaced: bool,
    /// Whether a cardholder whom the person has already is taken, if that is said.
    reuses: Option<bool>,
    /// The cardholder, by whom the card can be found again.
    pub cardholder: Option<String>,
    /// The card that is changed, if it is one that exists.
    pub target: Option<String>,
}

/// The parameter that holds the encrypted PIN.
pub const PIN: &str = "pin[encrypted_number]";
/// Why it stands beside nobody who is to be created.
pub const REPLACED_OF_NOBODY: &str =
    "is for the card of a cardholder who exists, and this one is to be created";
impl Request {
    /// Checks the pairs against Stripe's schema and takes them over. Every problem is told, not only the first.
    ///
    /// An empty value is an absent one, as in a form body Stripe takes it to be; gaps that this leaves in a list are
    /// closed. Numbers and booleans get their one spelling.
    ///
    /// # Errors
    /// The problems; none quotes a value.
    pub fn from_pairs(operation: Operation, pairs: Vec<(String, String)>) -> Result<Self, Vec<FieldProblem>> {
        Self::from_parts(operation, pairs, &[])
    }

    /// Flattens Stripe's nested JSON.
    ///
    /// The types are the schema's: text is a string, an amount a number, `require_signature` a boolean. A number
    /// where text is meant is refused, because it has lost its leading zeros on the way (postal codes, references).
    /// `null` is an absent member, and so is an empty text.
    ///
    /// # Errors
    /// As [`Self::from_pairs`].
    pub fn from_json(operation: Operation, request: &Value) -> Result<Self, Vec<FieldProblem>> {
        let json::Flat { pairs, given, mut problems, .. } = json::flatten(operation.declaration(), request);
        match Self::from_parts(operation, pairs, &given) {
            Ok(request) if problems.is_empty() => Ok(request),
            Ok(_) => Err(problems),
            Err(more) => {
                // A member of the wrong type is there all the same.
                let is_known =
                    |problem: &FieldProblem| problems.iter().any(|known| known.path == problem.path);
                let more: Vec<_> = more.into_iter().filter(|problem| !is_known(problem)).collect();
                problems.extend(more);
                Err(problems)
            }
        }
    }

    fn from_parts(
        operation: Operation,
        mut pairs: Vec<(String, String)>,
        given: &[String],
    ) -> Result<Self, Vec<FieldProblem>> {
        pairs.retain(|(_, value)| !value.is_empty());
        let declaration = operation.declaration();
        let problems = rules::check(declaration, &pairs, given);
        if !problems.is_empty() {
            pairs.iter_mut().filter(|(path, _)| path == PIN).for_each(|(_, value)| value.zeroize());
            return Err(problems);
        }
        close_gaps(&mut pairs);
        pairs.sort_unstable();
        let mut request = Self::empty(operation, Form::default());
        for (path, value) in pairs {
            if path == PIN {
                request.pin = Some(PinJwe::new(value));
                continue;
            }
            if request.takes_own(&path, &value) {
                continue;
            }
            match declaration.kind_of(&path) {
                Ok(kind) => request.push(&path, &kind.canonical(&value)),
                Err(_) => request.push(&path, &value),
            }
        }
        Ok(request)
    }

    /// Of pairs that are known to be right: none empty, sorted by their paths, no gap in a list.
    pub(crate) fn of_right_pairs<'p>(
        operation: Operation,
        pairs: impl Iterator<Item = (&'p str, Kind, &'p str)> + Clone,
    ) -> Self {
        let (count, length) = pairs
            .clone()
            .filter(|(_, kind, _)| *kind != Kind::Pin)
            .fold((0, 0), |(count, length), (path, _, value)| {
                (count + 1, length + path.len() + value.len() + 2)
            });
        let mut request = Self::empty(operation, Form::with_capacity(count, length));
        for (path, kind, value) in pairs {
            if kind == Kind::Pin {
                request.pin = Some(PinJwe::new(value.to_owned()));
            } else if !request.takes_own(path, value) {
                request.push(path, &kind.canonical(value));
            }
        }
        request
    }

    fn empty(operation: Operation, form: Form) -> Self {
        Self {
            operation,
            form,
            pin: None,
            chooses_pin: false,
            cancels_replaced: false,
            reuses: None,
            cardholder: None,
            target: None,
        }
    }

    /// Whether its card replaces another.
    #[must_use]
    pub fn is_replacement(&self) -> bool {
        self.value("replacement_for").is_some()
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.form.iter().next().is_none() && self.pin.is_none() && !self.chooses_pin
    }

    /// What is asked for.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The same, but for the PIN.
    #[must_use]
    pub fn without_pin(&self) -> Self {
        let Self { operation, form, pin: _, chooses_pin, cancels_replaced, reuses, cardholder, target } =
            self;
        Self {
            operation: *operation,
            form: form.clone(),
            pin: None,
            chooses_pin: *chooses_pin,
            cancels_replaced: *cancels_replaced,
            reuses: *reuses,
            cardholder: cardholder.clone(),
            target: target.clone(),
        }
    }

    /// Of this card.
    #[must_use]
    pub fn with_target(mut self, card: String) -> Self {
        self.target = Some(card);
        self
    }

    /// For a cardholder who was not known before.
    pub fn set_cardholder(&mut self, id: &str) {
        self.push("cardholder", id);
    }

    /// The path of its address at Stripe.
    #[must_use]
    pub fn path(&self) -> String {
        (self.operation.declaration().path)(self)
    }

    /// Where its effect is looked for while its end is unknown: the narrowest place, and all there is.
    #[must_use]
    pub fn places(&self) -> [Place; 2] {
        (self.operation.declaration().look)(self)
    }

    /// In what something that was found differs from what is asked for.
    #[must_use]
    pub fn differences(&self, found: &Found) -> Vec<String> {
        let shared = self.operation.declaration().shared.iter();
        shared
            .filter_map(|(path, of)| Some((path, self.value(path)?, of(found)?)))
            .filter(|(_, wanted, has)| !wanted.trim().eq_ignore_ascii_case(has))
            .map(|(path, wanted, has)| format!("its {path} is {has}, not {wanted}"))
            .collect()
    }

    fn push(&mut self, path: &str, value: &str) {
        self.form.push(path, value);
        if path == "cardholder" {
            self.cardholder = Some(value.to_owned());
        }
    }

    /// Stripe's nested JSON again, without the PIN: what [`Self::from_json`] makes the same request of.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut nested = json::nest(self.operation.declaration(), self.form.iter());
        if self.chooses_pin {
            nested["pin"]["choose"] = true.into();
        }
        if self.cancels_replaced {
            nested[CANCEL_REPLACED] = true.into();
        }
        if let Some(reuses) = self.reuses {
            nested[REUSE] = reuses.into();
        }
        nested
    }

    /// Takes the PIN out.
    pub fn take_pin(&mut self) -> Option<PinJwe> {
        self.pin.take()
    }

    /// `physical` or `virtual`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.form.iter().find(|(path, _)| *path == "type").map_or("", |(_, value)| value)
    }

    /// What was asked for, without the PIN; independent of the order of columns or members.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(self.target().into_iter().chain(self.form.iter()))
    }

    /// The card that is changed, as a parameter.
    fn target(&self) -> Option<(&'static str, &str)> {
        self.target.as_deref().map(|card| ("card", card))
    }

    /// The names of all parameters that were given, but the PIN's.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.form.iter().map(|(path, _)| path)
    }

    /// The value of a parameter, if it was given.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<&str> {
        self.form.iter().find(|(given, _)| *given == path).map(|(_, value)| value)
    }

    /// Appends the form body, with the metadata by which its effect is found again.
    pub fn encode_into(&self, body: &mut Vec<u8>, pin: Option<&str>, job_id: &str, batch: &str) {
        self.form.encode_into(body);
        let own = &self.operation.declaration().own_metadata;
        if let Some(key) = own.batch {
            form::pair(body, key, batch);
        }
        form::pair(body, own.job, job_id);
        // The PIN comes last: a buffer that grew once it held the PIN would leave a copy behind that nobody wipes.
        if let Some(pin) = pin {
            // base64url and dots need no escaping; any other text is refused before it comes here.
            form::plain_pair(body, "&pin[encrypted_number]=", pin);
        }
    }
}

/// Of pairs in the order of their paths, each value as it is written.
fn fingerprint<'p, V: AsRef<str>>(pairs: impl Iterator<Item = (&'p str, V)>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for (path, value) in pairs {
        for text in [path, value.as_ref()] {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        }
    }
    digest.finalize().into()
}

/// Stripe's schema of the request body, if it is at hand; the project does not contain it.
#[cfg(test)]
pub(super) fn stripe_schema(operation: Operation) -> Option<Value> {
    let folder = std::env::var_os("STRIPE_SCHEMAS").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/stripe"),
        std::path::PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(folder.join("openapi-issuing.json")) else {
        eprintln!("Stripe's schemas are not here; their comparison was left out");
        return None;
    };
    let schema: Value = serde_json::from_str(&text).expect("Stripe's schemas are JSON");
    let path = match operation {
        Operation::CreateCardholder => "/v1/issuing/cardholders",
        Operation::CreateCard => "/v1/issuing/cards",
        Operation::UpdateCard => "/v1/issuing/cards/{card}",
    };
    let body = &schema["paths"][path]["post"]["requestBody"]["content"];
    Some(body["application/x-www-form-urlencoded"]["schema"].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&str, &str)]) -> Request {
        let always = [("type", "virtual"), ("currency", "eur")];
        let pairs =
            always.iter().chain(pairs).map(|(path, value)| ((*path).into(), (*value).into())).collect();
        Request::from_pairs(Operation::CreateCard, pairs).unwrap()
    }

    #[test]
    fn gaps_in_lists_are_closed() {
        let limit = "spending_controls[spending_limits]";
        let gaps = request(&[
            (&format!("{limit}[2][amount]"), "5"),
            (&format!("{limit}[2][interval]"), "daily"),
            (&format!("{limit}[2][categories][4]"), "airlines_air_carriers"),
            (&format!("{limit}[10][amount]"), "6"),
            (&format!("{limit}[10][interval]"), "weekly"),
            ("metadata[7]", "no index"),
        ]);
        let none = request(&[
            (&format!("{limit}[0][amount]"), "5"),
            (&format!("{limit}[0][interval]"), "daily"),
            (&format!("{limit}[0][categories][0]"), "airlines_air_carriers"),
            (&format!("{limit}[1][amount]"), "6"),
            (&format!("{limit}[1][interval]"), "weekly"),
            ("metadata[7]", "no index"),
        ]);
        assert!(gaps.form.iter().eq(none.form.iter()), "{gaps:?}");
    }

    #[test]
    fn one_request_has_one_fingerprint_however_it_is_spelt() {
        let one = request(&[("exp_month", "07"), ("shipping[require_signature]", "")]);
        let other = request(&[("exp_month", "7"), ("second_line", "")]);
        assert_eq!(one.fingerprint(), other.fingerprint());
        assert_ne!(one.fingerprint(), request(&[("exp_month", "8")]).fingerprint());
    }

    #[test]
    fn what_a_spreadsheet_changes_is_no_other_wish() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect();
            Request::from_pairs(Operation::CreateCard, pairs).unwrap().content(None)
        };
        let one = of(&[("type", "virtual"), ("currency", "EUR"), ("metadata[staff]", "00012")]);
        let other = of(&[("type", "virtual"), ("currency", "eur"), ("metadata[staff]", "12 ")]);
        assert_eq!(one, other);
        assert_ne!(one, of(&[("type", "virtual"), ("currency", "eur"), ("metadata[staff]", "13")]));
    }

    #[test]
    fn the_pin_is_in_no_debug_output() {
        let refused =
            Request::from_pairs(Operation::CreateCard, vec![(PIN.into(), "4711".into())]).unwrap_err();
        assert!(refused.iter().any(|problem| problem.code == "pin_in_clear"));
        assert!(!format!("{refused:?}").contains("4711"));
    }
}
