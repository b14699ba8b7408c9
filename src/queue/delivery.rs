//! A delivery, opened: its body, what came with it, and how it is published again.
//!
//! Of its properties only those are carried on that mean something here. The broker's own notes on dead-lettering must
//! not be: it takes a message that has them for one that goes in circles, and drops it
//! (rabbitmq.com/docs/dlx, "Dead-Delivery Cycles"). Nor may the sender's user id, which is not ours.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, BasicProperties};
use zeroize::Zeroizing;

use super::message::Envelope;
use super::topology::RUNGS;
use crate::clock::Time;
use crate::job::Batch;
use crate::outcome::Refusal;
use crate::trace::PARENT_HEADER;

/// How often a job has waited on the ladder.
const WAITS_HEADER: &str = "embosser-waits";
/// Before when it must not be tried again, in milliseconds since the Unix epoch.
const NOT_BEFORE_HEADER: &str = "embosser-not-before";
/// When it was published at the earliest, in milliseconds since the Unix epoch, where its sender does not say so or cannot
/// be believed; 0 if that is not known.
const SEEN_HEADER: &str = "embosser-seen";
/// It will not be called for any more, and this is the code to refuse it with.
const GIVEN_UP_HEADER: &str = "embosser-given-up";
/// The manifest's row that a job came from.
pub(crate) const ROW_HEADER: &str = "embosser-row";
/// That row's own id.
pub(crate) const ROW_ID_HEADER: &str = "embosser-row-id";
/// How many rows of that manifest are published.
pub(crate) const ROWS_HEADER: &str = "embosser-rows";

/// The Stripe account that a job is for.
pub(crate) const ACCOUNT_HEADER: &str = "embosser-account";
/// Whether it is for live or for test cards.
pub(crate) const MODE_HEADER: &str = "embosser-mode";

/// The batch of a message whose body cannot be read.
const BATCH_HEADER: &str = "embosser-batch";

/// A trace's context has 55 bytes in its version 00; a longer header is none.
const PARENT_BYTES_MAX: usize = 64;

/// Timestamps from here on are milliseconds: as seconds they would lie in the year 5138. Some senders' clocks tell these.
const MILLISECONDS_MIN: u64 = 100_000_000_000;
/// And from here on microseconds,
const MICROSECONDS_MIN: u64 = 100_000_000_000_000;
/// and from here on nanoseconds.
const NANOSECONDS_MIN: u64 = 100_000_000_000_000_000;
/// How far a sender's clock may be ahead of ours: as far as clocks that are kept right differ.
const AHEAD_MAX: Duration = Duration::from_secs(5);
/// Longest wait that a message may ask for: that of the ladder's longest rung. embosser itself asks for no longer one.
const EARLY_MAX: Duration = RUNGS[RUNGS.len() - 1].1;

/// A delivery.
pub struct Delivery {
    /// What it says; wiped when it is dropped.
    pub(crate) body: Zeroizing<Vec<u8>>,
    /// What is told to the broker in the end.
    pub(crate) acker: Acker,
    properties: BasicProperties,
    headers: FieldTable,
    /// After when it must have been published, by what was seen of its queue.
    published_after: Option<Time>,
}

/// Why a job is not called for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// Whoever took it never came to an end with it.
    Poison,
    /// It has waited too long.
    Expired,
    /// Nobody knows how old its PIN is.
    AgeUnknown,
}

impl GivenUp {
    fn word(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Expired => "expired",
            Self::AgeUnknown => "age_unknown",
        }
    }

    /// The code of its refusal.
    fn code(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Expired | Self::AgeUnknown => "expired",
        }
    }

    /// What its sender is told.
    pub(crate) fn refusal(self) -> Refusal {
        let reason = match self {
            Self::Poison => {
                "the broker delivered the job many times and it never came to an end; send it again, with the AMQP property \
                 timestamp set to when that is"
            }
            Self::Expired => "the job waited past its deadline; send it again, with the PIN encrypted anew",
            Self::AgeUnknown => {
                "nothing says when the job was published, so its PIN may be of any age; set the AMQP property timestamp \
                 (by a clock that is right), and send it again with the PIN encrypted anew"
            }
        };
        Refusal::own(self.code(), reason)
    }
}

impl Delivery {
    /// `published_after`: when its queue was seen empty last, by the broker's answers.
    #[must_use]
    pub fn open(delivery: lapin::message::Delivery, published_after: Option<Time>) -> Self {
        let lapin::message::Delivery { data, properties, acker, .. } = delivery;
        let headers = properties.headers().clone().unwrap_or_default();
        Self { body: Zeroizing::new(data), acker, properties, headers, published_after }
    }

    /// What the job is judged by besides its body.
    #[must_use]
    pub fn envelope(&self, now: Time) -> Envelope {
        Envelope {
            published: self.published(now),
            row: self.number(ROW_HEADER).and_then(|row| u64::try_from(row).ok()),
            row_id: self.text(ROW_ID_HEADER),
            rows: self.number(ROWS_HEADER).and_then(|rows| u64::try_from(rows).ok()),
            account: self.text(ACCOUNT_HEADER),
            mode: self.text(MODE_HEADER),
        }
    }

    /// When it was published, as its sender says, if that can be believed.
    pub(crate) fn stamped(&self, now: Time) -> Option<Time> {
        let stamp = self.properties.timestamp().as_ref().map(|stamp| milliseconds(*stamp))?;
        believed(Time::from_unix_ms(stamp), now)
    }

    /// When it was published at the earliest: by its sender, by the worker that had it before, or by when its queue was
    /// empty. Where several of them know, the earliest holds.
    fn published(&self, now: Time) -> Option<Time> {
        let seen = self.number(SEEN_HEADER).and_then(|seen| believed(Time::from_unix_ms(seen), now));
        let said = self.stamped(now).into_iter().chain(seen).min();
        said.or_else(|| self.published_after.and_then(|moment| believed(moment, now)))
    }

    /// What came with it beside its properties.
    pub(crate) fn headers(&self) -> &FieldTable {
        &self.headers
    }

    /// How often it has waited on the ladder.
    #[must_use]
    pub fn waits(&self) -> usize {
        self.number(WAITS_HEADER).and_then(|waits| usize::try_from(waits).ok()).unwrap_or(0)
    }

    /// How long it still has to wait. What a sender asks for is cut short: a job must not be put away for years, its PIN
    /// with it.
    #[must_use]
    pub fn early(&self, now: Time) -> Duration {
        self.number(NOT_BEFORE_HEADER)
            .map_or(Duration::ZERO, |not_before| Time::from_unix_ms(not_before).since(now).min(EARLY_MAX))
    }

    /// Whether it was given up before.
    #[must_use]
    pub fn given_up(&self) -> Option<GivenUp> {
        let word = self.text(GIVEN_UP_HEADER)?;
        [GivenUp::Poison, GivenUp::Expired, GivenUp::AgeUnknown]
            .into_iter()
            .find(|given_up| given_up.word() == word)
    }

    /// Why the broker gave up on it, by its latest note.
    #[must_use]
    pub fn died_of(&self) -> GivenUp {
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

    /// What its sender calls it.
    pub(crate) fn message_id(&self) -> Option<String> {
        self.properties.message_id().as_ref().map(ToString::to_string)
    }

    /// Its batch, as its sender says beside the body.
    pub(crate) fn batch(&self) -> Option<String> {
        self.text(BATCH_HEADER).filter(|batch| Batch::new(batch.as_str()).is_ok())
    }

    /// What relates it to its answer, if its sender set it.
    pub(crate) fn correlation(&self) -> Option<String> {
        self.properties.correlation_id().as_ref().map(ToString::to_string)
    }

    /// The properties of the same job on its way to the ladder.
    pub(crate) fn again(
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
        let published = self.published(now);
        // A time that is ahead today is not ahead for ever: whoever gets this next must not come to believe it.
        if self.stamped(now).is_none() || published != self.stamped(now) {
            put(SEEN_HEADER, published.map_or(0, Time::unix_ms));
        }
        for name in [ROW_HEADER, ROWS_HEADER] {
            if let Some(number) = self.number(name) {
                put(name, number);
            }
        }
        let given_up = given_up.or_else(|| self.given_up()).map(|given_up| given_up.word().to_owned());
        for (name, value) in [
            (ROW_ID_HEADER, self.text(ROW_ID_HEADER)),
            (ACCOUNT_HEADER, self.text(ACCOUNT_HEADER)),
            (MODE_HEADER, self.text(MODE_HEADER)),
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

/// An AMQP timestamp is in seconds; by its size it is told when a sender's is not.
fn milliseconds(stamp: u64) -> i64 {
    let ms = match stamp {
        0..MILLISECONDS_MIN => stamp * 1000,
        MILLISECONDS_MIN..MICROSECONDS_MIN => stamp,
        MICROSECONDS_MIN..NANOSECONDS_MIN => stamp / 1000,
        NANOSECONDS_MIN.. => stamp / 1_000_000,
    };
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// A moment that lies ahead says nothing, lest it lengthen a PIN's life.
fn believed(moment: Time, now: Time) -> Option<Time> {
    (moment <= now.plus(AHEAD_MAX)).then(|| moment.min(now))
}

fn text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_unix_ms(1_800_000_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn delivery(stamp: Option<u64>, headers: &[(&str, i64)], published_after: Option<Time>) -> Delivery {
        let mut table = FieldTable::default();
        for (name, number) in headers {
            table.insert((*name).into(), AMQPValue::LongLongInt(*number));
        }
        let mut properties = BasicProperties::default().with_headers(table);
        if let Some(stamp) = stamp {
            properties = properties.with_timestamp(stamp);
        }
        let mut delivery = lapin::message::Delivery::mock(1, "".into(), "jobs".into(), false, Vec::new());
        delivery.properties = properties;
        Delivery::open(delivery, published_after)
    }

    fn published(stamp: Option<u64>, headers: &[(&str, i64)], after: Option<Time>) -> Option<i64> {
        delivery(stamp, headers, after).envelope(NOW).published.map(Time::unix_ms)
    }

    #[test]
    fn a_timestamp_is_read_in_whatever_unit_it_is() {
        let old = 1_799_999_000;
        for unit in [1, 1_000, 1_000_000, 1_000_000_000] {
            assert_eq!(published(Some(old * unit), &[], None), Some(1_799_999_000_000), "{unit}");
        }
    }

    #[test]
    fn a_time_that_lies_ahead_is_no_time_and_a_little_skew_is_now() {
        let ahead = |seconds: u64| published(Some(1_800_000_000 + seconds), &[], None);
        assert_eq!(ahead(3), Some(NOW.unix_ms()));
        assert_eq!(ahead(6), None);
        assert_eq!(published(Some(u64::MAX), &[], None), None);
        assert_eq!(published(Some(4_102_444_800), &[(SEEN_HEADER, 4_102_444_800_000)], None), None);
    }

    #[test]
    fn without_a_time_it_came_after_its_queue_was_empty_or_nobody_knows() {
        let empty = Time::from_unix_ms(NOW.unix_ms() - 2000);
        assert_eq!(published(None, &[], Some(empty)), Some(empty.unix_ms()));
        assert_eq!(published(None, &[], None), None);
        assert_eq!(published(None, &[], Some(NOW.plus(HOUR))), None, "a clock was set back");
        assert_eq!(published(Some(1_700_000_000), &[], Some(empty)), Some(1_700_000_000_000));
    }

    #[test]
    fn on_the_ladder_a_job_grows_old_whatever_its_sender_said() {
        let empty = Time::from_unix_ms(NOW.unix_ms() - 2000);
        let later = NOW.plus(HOUR * 2);
        for (stamp, after, known) in [
            (None, Some(empty), empty.unix_ms()),
            (None, None, 0),
            (Some(1_800_003_600), Some(empty), empty.unix_ms()),
            (Some(1_800_003_600), None, 0),
            (Some(1_799_999_999), None, 1_799_999_999_000),
        ] {
            let again = delivery(stamp, &[], after).again(1, NOW, NOW, None);
            let mut delivery = lapin::message::Delivery::mock(2, "".into(), "jobs".into(), false, Vec::new());
            delivery.properties = again;
            // The queue was empty meanwhile: this one was not in it.
            let again = Delivery::open(delivery, Some(later));
            assert_eq!(
                again.envelope(later).published.map(Time::unix_ms),
                Some(known),
                "{stamp:?} {after:?}"
            );
        }
    }

    #[test]
    fn whose_a_job_is_goes_with_it_on_the_ladder() {
        let mut table = FieldTable::default();
        for (name, value) in [(ACCOUNT_HEADER, "acct_1"), (MODE_HEADER, "test")] {
            table.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let mut first = lapin::message::Delivery::mock(1, "".into(), "jobs".into(), false, Vec::new());
        first.properties = BasicProperties::default().with_headers(table);
        let mut second = lapin::message::Delivery::mock(2, "".into(), "jobs".into(), false, Vec::new());
        second.properties = Delivery::open(first, None).again(1, NOW, NOW, None);
        let envelope = Delivery::open(second, None).envelope(NOW);
        assert_eq!((envelope.account.as_deref(), envelope.mode.as_deref()), (Some("acct_1"), Some("test")));
    }

    #[test]
    fn no_sender_puts_a_job_away_for_longer_than_the_longest_rung() {
        let delivery = delivery(None, &[(NOT_BEFORE_HEADER, 4_102_444_800_000)], None);
        assert_eq!(delivery.early(NOW), Duration::from_secs(600));
    }
}
