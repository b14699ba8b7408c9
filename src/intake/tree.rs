//! A document's JSON as a tree, without losing what stands in it twice, and wiped when it is dropped.
//!
//! serde_json's own tree silently keeps the last of several members of one name. Readers differ in which one they take,
//! and the one that was dropped may have been a PIN in clear that nobody then speaks of.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use zeroize::Zeroize as _;

/// Why a document is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// It stops being JSON here.
    At {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 at a line's end.
        column: usize,
    },
    /// It is, and something stands after it.
    Follows,
}

/// A member that stands in its object more than once.
pub(super) struct Repeated {
    /// The names and places that lead to it.
    pub(super) path: Vec<String>,
    /// What stood there before the last one.
    pub(super) earlier: Wiped,
}

/// A JSON value whose texts are overwritten when it is dropped.
#[derive(Default)]
pub(super) struct Wiped(pub(super) Value);

impl Wiped {
    fn into_value(mut self) -> Value {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// A document's tree.
pub(super) struct Tree {
    /// All of it; of members that stand there twice the last.
    pub(super) root: Wiped,
    /// The others.
    pub(super) repeated: Vec<Repeated>,
}

impl Tree {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Syntax> {
        let repeated = RefCell::default();
        let mut json = serde_json::Deserializer::from_slice(body);
        let node = Node { path: &Path::Root, repeated: &repeated };
        // Its own words would be safe for the syntax only.
        let root = node
            .deserialize(&mut json)
            .map_err(|error| Syntax::At { line: error.line(), column: error.column() })?;
        let root = Wiped(root);
        json.end().map_err(|_| Syntax::Follows)?;
        Ok(Self { root, repeated: repeated.into_inner() })
    }
}

/// Overwrites the texts of a JSON value, names of members among them.
pub(super) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => {
            for (mut name, mut value) in std::mem::take(members) {
                name.zeroize();
                wipe(&mut value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Where in the document a value stands.
enum Path<'p> {
    Root,
    Member(&'p Self, &'p str),
    Item(&'p Self, usize),
}

impl Path<'_> {
    fn segments(&self) -> Vec<String> {
        let (parent, segment) = match self {
            Self::Root => return Vec::new(),
            Self::Member(parent, name) => (parent, (*name).to_owned()),
            Self::Item(parent, index) => (parent, index.to_string()),
        };
        let mut segments = parent.segments();
        segments.push(segment);
        segments
    }
}

/// Reads one value.
struct Node<'n> {
    path: &'n Path<'n>,
    repeated: &'n RefCell<Vec<Repeated>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Wiped(Value::Array(Vec::new()));
        for index in 0.. {
            let path = Path::Item(self.path, index);
            let Some(item) = items.next_element_seed(Node { path: &path, repeated: self.repeated })? else {
                break;
            };
            if let Value::Array(items) = &mut array.0 {
                items.push(item);
            }
        }
        Ok(array.into_value())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Wiped(Value::Object(Map::new()));
        while let Some(name) = members.next_key::<String>()? {
            let path = Path::Member(self.path, &name);
            let value = members.next_value_seed(Node { path: &path, repeated: self.repeated })?;
            let segments = || path.segments();
            let Value::Object(members) = &mut object.0 else { continue };
            if members.contains_key(&name) {
                let path = segments();
                if let Some(earlier) = members.insert(name, value) {
                    self.repeated.borrow_mut().push(Repeated { path, earlier: Wiped(earlier) });
                }
            } else {
                members.insert(name, value);
            }
        }
        Ok(object.into_value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_what_serde_json_reads() {
        for text in
            ["null", "-1", "1.5", "[]", r#"{"a": [1, {"b": "c\n"}, true], "d": {}}"#, "18446744073709551615"]
        {
            let tree = Tree::parse(text.as_bytes()).unwrap_or_else(|_| unreachable!("{text}"));
            assert_eq!(tree.root.0, serde_json::from_str::<Value>(text).unwrap());
            assert!(tree.repeated.is_empty());
        }
    }

    #[test]
    fn what_stands_there_twice_is_kept_with_its_path() {
        let text = r#"{"a": 1, "b": [{"c": "x", "c": "y"}], "a": 2, "a": 3}"#;
        let Ok(tree) = Tree::parse(text.as_bytes()) else { panic!("it is JSON") };
        let repeated: Vec<_> =
            tree.repeated.iter().map(|member| (member.path.join("."), member.earlier.0.clone())).collect();
        assert_eq!(repeated, [("b.0.c".into(), "x".into()), ("a".into(), 1.into()), ("a".into(), 2.into())]);
    }

    #[test]
    fn what_is_no_json_is_told_by_its_place() {
        assert_eq!(Tree::parse(b"{\n\"a\": x}").err(), Some(Syntax::At { line: 2, column: 6 }));
        assert_eq!(Tree::parse(b"{} {}").err(), Some(Syntax::Follows));
        let deep = "[".repeat(100_000);
        assert!(matches!(Tree::parse(deep.as_bytes()).err(), Some(Syntax::At { .. })), "no stack is used up");
    }
}
