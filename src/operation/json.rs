//! A job's nested JSON as flat pairs, and back.

use serde_json::{Map, Value};

use super::kind::Kind;
use super::params::{self, Shape};
use super::{Declaration, FieldProblem};

/// A request's JSON, flattened.
pub(super) struct Flat {
    of: &'static Declaration,
    pub(super) pairs: Vec<(String, String)>,
    /// Objects that were given, even if nothing stands in them.
    pub(super) given: Vec<String>,
    /// What has the wrong type.
    pub(super) problems: Vec<FieldProblem>,
}

/// Most entries of one list: more than any of Stripe's has a use for.
const ENTRIES_MAX: usize = 1000;

pub(super) fn flatten(of: &'static Declaration, request: &Value) -> Flat {
    let mut flat = Flat { of, pairs: Vec::new(), given: Vec::new(), problems: Vec::new() };
    if request.is_object() {
        flat.value("", request);
    } else {
        flat.wrong_type("", "must be a JSON object");
    }
    flat
}

impl Flat {
    fn value(&mut self, path: &str, value: &Value) {
        match (self.of.shape_at(path), value) {
            // Absent; but a name that Stripe does not know is no less unknown for that.
            (Shape::Leaf(_) | Shape::Unknown, Value::Null) => self.problems.extend(self.of.known(path).err()),
            (_, Value::Null) => {}
            (Shape::Leaf(kind), _) => self.leaf(path, kind, value),
            (Shape::Array, Value::Array(items)) => self.items(path, items),
            (Shape::Object, Value::Object(members)) => {
                self.given.push(path.to_owned());
                self.members(path, members);
            }
            // "" is how a form body empties a list or an object.
            (Shape::Array | Shape::Object, Value::String(text)) if text.is_empty() && path != "pin" => {}
            (Shape::Array, _) => self.wrong_type(path, "must be a JSON array"),
            (Shape::Object, _) if path != "pin" => self.wrong_type(path, "must be a JSON object"),
            // Nothing of Stripe's: the table says why, by its name alone.
            (Shape::Object | Shape::Unknown, _) => self.problems.extend(self.of.known(path).err()),
        }
    }

    fn members(&mut self, path: &str, members: &Map<String, Value>) {
        if path == "metadata" && members.len() > self.of.metadata_entries_max() {
            self.problems.push(self.of.too_much_metadata());
        }
        for (name, value) in members {
            let child = if path.is_empty() { name.clone() } else { format!("{path}[{name}]") };
            if path != "metadata" && (name.contains(['[', ']']) || params::is_index(name)) {
                let reason = "is no member's name; lists are JSON arrays and parts are nested objects";
                self.problems.push(FieldProblem::new(&child, "unknown_parameter", reason));
            } else {
                self.value(&child, value);
            }
        }
    }

    fn items(&mut self, path: &str, items: &[Value]) {
        if items.len() > ENTRIES_MAX {
            let reason = format!("has at most {ENTRIES_MAX} entries");
            self.problems.push(FieldProblem::new(path, "too_many", reason));
            return;
        }
        for (index, item) in items.iter().enumerate() {
            let child = format!("{path}[{index}]");
            if item.is_null() || item.as_str().is_some_and(str::is_empty) {
                self.wrong_type(&child, "is empty; leave it out");
            } else {
                self.value(&child, item);
            }
        }
    }

    fn leaf(&mut self, path: &str, kind: Kind, value: &Value) {
        let text = match (kind, value) {
            (Kind::Integer { .. } | Kind::Amount, Value::Number(number)) => {
                if let Some(number) = whole(number) {
                    number
                } else {
                    // Not an integer, or beyond its range: the kind says which.
                    self.problems.push(FieldProblem::of(path, kind.explain(&number.to_string())));
                    return;
                }
            }
            (Kind::Integer { .. } | Kind::Amount, _) => {
                return self.wrong_type(path, "must be a whole number, as a JSON number");
            }
            (Kind::Boolean, Value::Bool(yes)) => yes.to_string(),
            (Kind::Boolean, _) => return self.wrong_type(path, "must be true or false, as a JSON boolean"),
            (
                Kind::Text(_) | Kind::Cardholder | Kind::Expand | Kind::Metadata { .. },
                Value::String(text),
            ) if text.is_empty() => {
                return self.problems.extend(self.of.known(path).err());
            }
            (_, Value::String(text)) if text.is_empty() => {
                self.problems.push(FieldProblem::of(path, kind.explain(text)));
                return;
            }
            (_, Value::String(text)) => text.clone(),
            (Kind::Pin, _) => {
                return self.wrong_type(path, "must be the encrypted PIN's compact JWE, as a JSON string");
            }
            (_, Value::Number(_)) => {
                return self.wrong_type(path, "must be a JSON string; a number has lost its leading zeros");
            }
            _ => return self.wrong_type(path, "must be a JSON string"),
        };
        self.pairs.push((path.to_owned(), text));
    }

    fn wrong_type(&mut self, path: &str, reason: &str) {
        self.problems.push(FieldProblem::new(path, "wrong_type", reason));
    }
}

/// A JSON number without a fraction, in digits; JSON Schema takes 5.0 for an integer, too.
fn whole(number: &serde_json::Number) -> Option<String> {
    /// Beyond it not every integer has a double of its own.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.is_i64() || number.is_u64() {
        return Some(number.to_string());
    }
    let number = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT_MAX)?;
    Some(format!("{number:.0}"))
}

/// Pairs of known parameters, without gaps, as nested JSON of the schema's types.
pub(super) fn nest<'p>(of: &Declaration, pairs: impl Iterator<Item = (&'p str, &'p str)>) -> Value {
    let mut card = Value::Object(Map::new());
    // In the order of their indices, so that each list grows at its end.
    let mut sorted: Vec<_> = pairs.map(|(path, value)| (segments(path), path, value)).collect();
    sorted.sort_by(|one, other| one.0.cmp(&other.0));
    for (segments, path, value) in sorted {
        let leaf = match of.kind_of(path) {
            Ok(Kind::Integer { .. } | Kind::Amount) => value.parse::<i64>().map_or(Value::Null, Value::from),
            Ok(Kind::Boolean) => Value::Bool(value == "true"),
            _ => Value::String(value.to_owned()),
        };
        let mut at = &mut card;
        for (place, segment) in segments.iter().enumerate() {
            let list_next = matches!(segments.get(place + 1), Some(Segment::Index(_)));
            let empty = || if list_next { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
            at = match (segment, at) {
                (Segment::Index(_), Value::Array(items)) => {
                    if segment.index() >= items.len() {
                        items.push(empty());
                    }
                    items.last_mut().expect("an item was pushed if there was none")
                }
                (Segment::Name(name), Value::Object(members)) => {
                    members.entry((*name).to_owned()).or_insert_with(empty)
                }
                (_, at) => at,
            };
        }
        *at = leaf;
    }
    card
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Segment<'p> {
    Index(usize),
    Name(&'p str),
}

impl Segment<'_> {
    fn index(self) -> usize {
        match self {
            Self::Index(index) => index,
            Self::Name(_) => 0,
        }
    }
}

fn segments(path: &str) -> Vec<Segment<'_>> {
    if let Some(key) = params::metadata_key(path) {
        return vec![Segment::Name("metadata"), Segment::Name(key)];
    }
    path.split('[')
        .map(|part| part.strip_suffix(']').unwrap_or(part))
        .map(|name| match name.parse() {
            Ok(index) if params::is_index(name) => Segment::Index(index),
            _ => Segment::Name(name),
        })
        .collect()
}
