//! A delivery, opened: its body, what came with it, and how it is published again.
//!
//! Of its properties only those are carried on that mean something here. The broker's own notes on dead-lettering must
//! not be: it takes a message that has them for one that goes in circles, and drops it
//! (rabbitmq.com/docs/dlx, "Dead-Letter Cycles"). Nor may the sender's user id, which is not ours.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, BasicProperties};
use zeroize::Zeroizing;

use super::message::Envelope;
use crate::clock::Time;
use crate::outcome::Refusal;
use crate::trace::PARENT_HEADER;

/// How often a job has waited on the ladder.
const WAITS_HEADER: &str = "embosser-waits";
/// Before when it must not be tried again, in milliseconds since the Unix epoch.
const NOT_BEFORE_HEADER: &str = "embosser-not-before";
/// When it was first seen, in milliseconds since the Unix epoch, if its sender does not say when it was published.
const SEEN_HEADER: &str = "embosser-seen";
/// It will not be called for any more, and this is the code to refuse it with.
const GIVEN_UP_HEADER: &str = "embosser-given-up";
/// The manifest's row that a job came from.
pub(crate) const ROW_HEADER: &str = "embosser-row";
/// That row's own id.
pub(crate) const ROW_ID_HEADER: &str = "embosser-row-id";

/// A trace's context has 55 bytes in its version 00; a longer header is none.
const PARENT_BYTES_MAX: usize = 64;

/// Timestamps beyond this, in the year 5138 as seconds, are milliseconds: some senders' clocks are.
const SECONDS_MAX: u64 = 100_000_000_000;

/// A delivery.
pub(super) struct Letter {
    /// What it says; wiped when it is dropped.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// What is told to the broker in the end.
    pub(super) acker: Acker,
    properties: BasicProperties,
    headers: FieldTable,
}

/// Why a job is not called for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// Whoever took it never came to an end with it.
    Poison,
    /// It has waited too long.
    Expired,
}

impl GivenUp {
    fn word(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Expired => "expired",
        }
    }

    /// What its sender is told.
    pub(super) fn refusal(self) -> Refusal {
        let reason = match self {
            Self::Poison => {
                "the broker delivered the job many times and it never came to an end; send it again"
            }
            Self::Expired => "the job waited past its deadline; send it again, with the PIN encrypted anew",
        };
        Refusal::own(self.word(), reason)
    }
}

impl Letter {
    pub(super) fn open(delivery: Delivery) -> Self {
        let Delivery { data, properties, acker, .. } = delivery;
        let headers = properties.headers().clone().unwrap_or_default();
        Self { body: Zeroizing::new(data), acker, properties, headers }
    }

    /// What the job is judged by besides its body.
    pub(super) fn envelope(&self) -> Envelope {
        let stamped = self.properties.timestamp().and_then(|stamp| {
            let ms = if stamp > SECONDS_MAX { stamp } else { stamp.saturating_mul(1000) };
            i64::try_from(ms).ok()
        });
        Envelope {
            published: stamped.or_else(|| self.number(SEEN_HEADER)).map(Time::from_unix_ms),
            row: self.number(ROW_HEADER).and_then(|row| u64::try_from(row).ok()),
            row_id: self.text(ROW_ID_HEADER),
        }
    }

    /// What came with it beside its properties.
    pub(super) fn headers(&self) -> &FieldTable {
        &self.headers
    }

    /// How often it has waited on the ladder.
    pub(super) fn waits(&self) -> usize {
        self.number(WAITS_HEADER).and_then(|waits| usize::try_from(waits).ok()).unwrap_or(0)
    }

    /// How long it still has to wait.
    pub(super) fn early(&self, now: Time) -> Duration {
        self.number(NOT_BEFORE_HEADER)
            .map_or(Duration::ZERO, |not_before| Time::from_unix_ms(not_before).since(now))
    }

    /// Whether it was given up before.
    pub(super) fn given_up(&self) -> Option<GivenUp> {
        let word = self.text(GIVEN_UP_HEADER)?;
        [GivenUp::Poison, GivenUp::Expired].into_iter().find(|given_up| given_up.word() == word)
    }

    /// Why the broker gave up on it, by its latest note.
    pub(super) fn died_of(&self) -> GivenUp {
        let latest = match self.headers.inner().get("x-death") {
            Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice().first(),
            _ => None,
        };
        match latest {
            Some(AMQPValue::FieldTable(death)) if text(death, "reason").as_deref() == Some("expired") => {
                GivenUp::Expired
            }
            _ => GivenUp::Poison,
        }
    }

    /// What relates it to its answer, if its sender set it.
    pub(super) fn correlation(&self) -> Option<String> {
        self.properties.correlation_id().as_ref().map(ToString::to_string)
    }

    /// The properties of the same job on its way to the ladder.
    pub(super) fn again(
        &self,
        waits: usize,
        not_before: Time,
        now: Time,
        given_up: Option<GivenUp>,
    ) -> BasicProperties {
        let mut headers = FieldTable::default();
        let mut put = |name: &str, value: i64| {
            headers.insert(name.into(), AMQPValue::LongLongInt(value));
        };
        put(WAITS_HEADER, i64::try_from(waits).unwrap_or(i64::MAX));
        put(NOT_BEFORE_HEADER, not_before.unix_ms());
        if self.properties.timestamp().is_none() {
            put(SEEN_HEADER, self.number(SEEN_HEADER).unwrap_or(now.unix_ms()));
        }
        if let Some(row) = self.number(ROW_HEADER) {
            put(ROW_HEADER, row);
        }
        let given_up = given_up.or_else(|| self.given_up()).map(|given_up| given_up.word().to_owned());
        for (name, value) in [
            (ROW_ID_HEADER, self.text(ROW_ID_HEADER)),
            (PARENT_HEADER, self.text(PARENT_HEADER).filter(|parent| parent.len() <= PARENT_BYTES_MAX)),
            (GIVEN_UP_HEADER, given_up),
        ] {
            if let Some(value) = value {
                headers.insert(name.into(), AMQPValue::LongString(value.into()));
            }
        }
        let mut properties =
            BasicProperties::default().with_content_type("application/json".into()).with_headers(headers);
        if let Some(id) = self.properties.message_id() {
            properties = properties.with_message_id(id.clone());
        }
        if let Some(id) = self.properties.correlation_id() {
            properties = properties.with_correlation_id(id.clone());
        }
        if let Some(stamp) = self.properties.timestamp() {
            properties = properties.with_timestamp(*stamp);
        }
        properties
    }

    fn number(&self, name: &str) -> Option<i64> {
        match self.headers.inner().get(name)? {
            AMQPValue::LongLongInt(number) => Some(*number),
            AMQPValue::LongInt(number) => Some((*number).into()),
            AMQPValue::LongUInt(number) => Some((*number).into()),
            AMQPValue::ShortInt(number) => Some((*number).into()),
            AMQPValue::ShortShortInt(number) => Some((*number).into()),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        text(&self.headers, name)
    }
}

fn text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}
