//! A queue that is there and has other arguments than are asked for: told by the broker in its own words, and by us in a
//! sentence that says which queue, which argument, what it has and what was wanted, and what to do.

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};

/// Which argument of which queue differs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Differs {
    /// The argument, `x-max-length` for instance.
    pub(super) argument: String,
    pub(super) queue: String,
    /// What was asked for.
    pub(super) wanted: String,
    /// What the queue has.
    pub(super) current: String,
}

impl Differs {
    /// What the broker says of it, if that is what it says.
    pub(super) fn of(error: &lapin::Error) -> Option<Self> {
        let refused = matches!(error.kind(), lapin::ErrorKind::ProtocolError(error)
            if matches!(error.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)));
        refused.then(|| Self::read(&error.to_string())).flatten()
    }

    /// `inequivalent arg 'A' for queue 'Q' in vhost 'V': received X but current is Y`
    fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once("' for queue '")?;
        let (queue, rest) = rest.split_once("' in vhost '")?;
        let (_, rest) = rest.split_once("': received ")?;
        let (wanted, current) = rest.split_once(" but current is ")?;
        let own = |text: &str| text.to_owned();
        Some(Self {
            argument: own(argument),
            queue: own(queue),
            wanted: value(wanted),
            current: value(current),
        })
    }

    /// The sentence; `setting` is the option that decides about this argument, if one does.
    pub(super) fn sentence(&self, setting: Option<&str>) -> String {
        let Self { argument, queue, wanted, current } = self;
        let here = setting
            .filter(|_| current != "none")
            .map(|setting| format!("set {setting} = {current} here, or "))
            .unwrap_or_default();
        format!(
            "the queue {queue} has {argument} {current}, and {wanted} is asked for: {here}make the queue anew as RUNBOOK.md \
             says (\"A queue has other arguments\"), or take it as it is with rabbitmq.declare = \"passive\""
        )
    }
}

/// `'5'`, `the value '5' of type 'long'` and `none`, with whatever follows.
fn value(text: &str) -> String {
    let text = text.trim_start();
    match text.split('\'').nth(1) {
        Some(quoted) if !text.starts_with("none") => quoted.to_owned(),
        _ => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_are_read_in_each_of_their_forms() {
        let form = |received: &str, current: &str| {
            format!(
                "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'embosser.jobs' in vhost '/': \
                 received {received} but current is {current}"
            )
        };
        for (text, wanted, current) in [
            (form("'100'", "'200'"), "100", "200"),
            (form("the value '100' of type 'signedint'", "none"), "100", "none"),
            (form("none", "the value '200' of type 'long'"), "none", "200"),
        ] {
            let differs = Differs::read(&text).unwrap();
            assert_eq!((differs.wanted.as_str(), differs.current.as_str()), (wanted, current), "{text}");
            let sentence = differs.sentence(Some("rabbitmq.jobs_max"));
            assert_eq!(sentence.contains("rabbitmq.jobs_max = 200"), current == "200", "{sentence}");
            assert!(sentence.contains("embosser.jobs") && sentence.contains("x-max-length"), "{sentence}");
        }
        assert_eq!(Differs::read("ACCESS_REFUSED - no"), None);
    }
}
