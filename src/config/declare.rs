//! `rabbitmq.declare`: who makes the queues.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Who makes queues and exchanges, and decides about their arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declare {
    /// embosser makes what is missing, and insists on the arguments of what is there: `true`.
    Missing,
    /// Others do: embosser only looks that all are there, whatever their arguments (a policy may set them): `"passive"` or
    /// `false`.
    Passive,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Flag(bool),
    Word(String),
}

impl<'de> Deserialize<'de> for Declare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer) {
            Ok(Written::Flag(true)) => Ok(Self::Missing),
            Ok(Written::Flag(false)) => Ok(Self::Passive),
            // From the environment all are words.
            Ok(Written::Word(word)) if word == "true" => Ok(Self::Missing),
            Ok(Written::Word(word)) if word == "passive" || word == "false" => Ok(Self::Passive),
            Ok(Written::Word(_)) | Err(_) => {
                Err(serde::de::Error::custom("declare is true, false or \"passive\""))
            }
        }
    }
}

impl Serialize for Declare {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Missing => serializer.serialize_bool(true),
            Self::Passive => serializer.serialize_str("passive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_from_a_file_and_from_the_environment() {
        let read = |text: &str| serde_json::from_str::<Declare>(text).ok();
        for missing in ["true", "\"true\""] {
            assert_eq!(read(missing), Some(Declare::Missing), "{missing}");
        }
        for passive in ["false", "\"false\"", "\"passive\""] {
            assert_eq!(read(passive), Some(Declare::Passive), "{passive}");
        }
        assert_eq!(read("\"no\""), None);
    }
}
