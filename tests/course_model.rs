//! Promise: the decisions in `line::course` make exactly one card, whatever order of crashes, lost answers,
//! replays, refusals, new encryptions and days passing they meet. Stripe is a model here, as its documentation
//! describes it: thousands of histories, no I/O, no waiting.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use embosser::card::CardRequest;
use embosser::clock::Time;
use embosser::job::{Batch, Generation, Job, JobId};
use embosser::ledger::{Row, Scope, State};
use embosser::line::course::{Answered, Course, Rules, Step, Verdict};
use embosser::outcome::{Card, Outcome, Refusal};
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);
/// How long Stripe remembers a key at least.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// More steps than any history needs that meets no new trouble.
const STEPS_MAX: usize = 200;

/// What befalls one create call.
#[derive(Debug, Clone, Copy)]
enum Call {
    /// A limiter's 429, or no connection.
    NotHeard,
    /// Cut before Stripe did anything.
    CutBefore,
    /// A 400 that is not saved.
    Invalid,
    /// A refusal that is saved, such as a 402.
    Declined,
    /// A card, and its answer comes.
    Card,
    /// A card, and its answer is lost.
    CardUnheard,
    /// A 500 is saved; there is no card.
    ErrorNoCard,
    /// A 500 is saved, and there is a card.
    ErrorCard,
    /// The call goes on for so many seconds after the line is cut; then there is a card, or not.
    Slow { seconds: u64, card: bool },
}

/// What happens around a step.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The step is taken, its call meets this.
    Step(Call),
    /// The process dies after the attempt was written down, before the call.
    CrashBeforeCall,
    /// The call is made and meets this; the process dies before it notes the answer.
    CrashAfterCall(Call),
    /// The PIN turns out stale before the attempt begins: the caller gives up.
    Stale,
    /// The attempt is begun and not made after all.
    Unbegun,
    /// Nobody does anything for so many seconds.
    Wait(u64),
    /// The sender submits the job again, with its PIN encrypted anew.
    EncryptedAnew,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saved {
    Card,
    Error,
    Declined,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    body: u32,
    saved: Saved,
    at: Time,
    /// Still running until then.
    until: Time,
    makes_card: bool,
}

/// Stripe, as far as one job meets it.
#[derive(Debug, Default)]
struct Stripe {
    keys: BTreeMap<u32, Entry>,
    cards: u32,
}

impl Stripe {
    /// Lets running calls end.
    fn settle(&mut self, now: Time) {
        for entry in self.keys.values_mut() {
            if entry.makes_card && now >= entry.until {
                entry.makes_card = false;
                self.cards += 1;
            }
        }
    }

    /// Cards made and cards that a running call will make.
    fn cards_in_the_end(&self) -> u32 {
        self.cards + u32::try_from(self.keys.values().filter(|entry| entry.makes_card).count()).unwrap()
    }

    fn create(&mut self, generation: Generation, body: u32, call: Call, now: Time) -> Answered {
        self.settle(now);
        if matches!(call, Call::NotHeard) {
            return Answered::NoEffect;
        }
        if matches!(call, Call::CutBefore) {
            return Answered::Unknown;
        }
        self.keys.retain(|_, entry| now.since(entry.at) < REMEMBERED);
        if let Some(entry) = self.keys.get(&generation.0) {
            let answer = match entry {
                entry if entry.body != body => Answered::BodyDiffers,
                entry if now < entry.until => Answered::InUse,
                Entry { saved: Saved::Card, .. } => Answered::Card(card()),
                Entry { saved: Saved::Error, .. } => Answered::EndedBadly,
                Entry { saved: Saved::Declined, .. } => Answered::No { refusal: refusal(), replayed: true },
            };
            let heard = matches!(call, Call::Card | Call::Declined | Call::Invalid);
            return if heard { answer } else { Answered::Unknown };
        }
        if matches!(call, Call::Invalid) {
            return Answered::No { refusal: refusal(), replayed: false };
        }
        let (saved, makes_card, seconds, answer) = match call {
            Call::Declined => {
                (Saved::Declined, false, 0, Answered::No { refusal: refusal(), replayed: false })
            }
            Call::Card => (Saved::Card, true, 0, Answered::Card(card())),
            Call::CardUnheard => (Saved::Card, true, 0, Answered::Unknown),
            Call::ErrorNoCard => (Saved::Error, false, 0, Answered::Unknown),
            Call::ErrorCard => (Saved::Error, true, 0, Answered::Unknown),
            Call::Slow { seconds, card: true } => (Saved::Card, true, seconds, Answered::Unknown),
            Call::Slow { seconds, card: false } => (Saved::Error, false, seconds, Answered::Unknown),
            Call::NotHeard | Call::CutBefore | Call::Invalid => unreachable!("answered above"),
        };
        let until = now.plus(Duration::from_secs(seconds));
        self.keys.insert(generation.0, Entry { body, saved, at: now, until, makes_card });
        self.settle(now);
        answer
    }
}

fn card() -> Card {
    Card { id: "ic_1".into(), last4: "4242".into(), exp_month: 1, exp_year: 2030 }
}

fn refusal() -> Refusal {
    Refusal::own("declined", "no")
}

/// embosser as it is around the course: one job, its ledger row, crashes.
struct World {
    stripe: Stripe,
    course: Course,
    row: Option<Row>,
    body: u32,
    now: Time,
}

impl World {
    fn new() -> Self {
        Self {
            stripe: Stripe::default(),
            course: Course::resume(None, false, Rules::default()),
            row: None,
            body: 0,
            now: Time::from_unix_ms(1_700_000_000_000),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.stripe.settle(self.now);
    }

    fn write(&mut self, state: State) {
        let pairs = [("type", "virtual"), ("currency", "eur")];
        let pairs = pairs.map(|(path, value)| (path.to_owned(), value.to_owned()));
        let request = CardRequest::from_pairs(pairs.into()).unwrap();
        let job = Job::new(JobId::new("b/1").unwrap(), Batch::new("b").unwrap(), None, request, None);
        let mut row = Row::of(&Scope::new("test", "model", None), &job, state, self.now);
        row.generation = self.course.generation();
        row.attempts = self.course.attempts();
        if let Some((key_began, last)) = self.course.open_since() {
            row.key_began = Some(key_began);
            row.attempted = Some(last);
        }
        self.row = Some(row);
    }

    fn crash(&mut self) {
        self.course = Course::resume(self.row.as_ref(), false, Rules::default());
    }

    fn begin(&mut self) {
        self.course.begin(self.now);
        self.write(State::Begun);
    }

    fn call(&mut self, call: Call) -> Answered {
        self.stripe.create(self.course.generation(), self.body, call, self.now)
    }

    fn happen(&mut self, event: Event) {
        let step = self.course.step(self.now);
        match (event, step) {
            (Event::Wait(seconds), _) => self.pass(Duration::from_secs(seconds)),
            (Event::EncryptedAnew, _) => {
                self.body += 1;
                self.crash();
            }
            (_, Step::Finish(outcome)) => self.finish(&outcome),
            (_, Step::Reconcile) => self.reconcile(),
            (Event::Stale, Step::Create(_)) => self.course.give_up(Refusal::own("stale_key", "stale")),
            (Event::Unbegun, Step::Create(_)) => {
                self.begin();
                self.course.unbegin();
            }
            (Event::CrashBeforeCall, Step::Create(_)) => {
                self.begin();
                self.crash();
            }
            (Event::CrashAfterCall(call), Step::Create(_)) => {
                self.begin();
                self.call(call);
                self.crash();
            }
            (Event::Step(call), Step::Create(_)) => {
                self.begin();
                let answered = self.call(call);
                self.course.answered(answered, self.now);
            }
        }
        assert!(self.stripe.cards_in_the_end() <= 1, "a second card");
    }

    fn reconcile(&mut self) {
        self.stripe.settle(self.now);
        let verdict = if self.stripe.cards > 0 { Verdict::Found(card()) } else { Verdict::Absent };
        if let Some(again) = self.course.reconciled(verdict, self.now) {
            self.pass(again.since(self.now));
        }
    }

    fn finish(&mut self, outcome: &Outcome) {
        let cards = self.stripe.cards_in_the_end();
        match outcome {
            Outcome::Issued(card) => {
                assert_eq!(cards, 1, "issued without a card");
                self.write(State::Issued(card.clone()));
            }
            Outcome::Refused(refusal) => {
                assert_eq!(cards, 0, "refused, and yet there is a card");
                self.write(State::Refused(refusal.clone()));
                // The sender may mend the job and send it again.
                self.body += 1;
            }
            Outcome::Unresolved(_) => panic!("a course does not finish unresolved"),
        }
        self.crash();
    }

    /// From here on all goes well: the job must come to its card.
    fn goes_well(&mut self) {
        for _ in 0..STEPS_MAX {
            if matches!(&self.row, Some(Row { state: State::Issued(_), .. })) {
                assert_eq!(self.stripe.cards_in_the_end(), 1);
                return;
            }
            self.happen(Event::Step(Call::Card));
            self.pass(Duration::from_secs(1));
        }
        panic!("no end after {STEPS_MAX} steps: {:?}", self.course);
    }
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        Just(Call::NotHeard),
        Just(Call::CutBefore),
        Just(Call::Invalid),
        Just(Call::Declined),
        Just(Call::Card),
        Just(Call::CardUnheard),
        Just(Call::ErrorNoCard),
        Just(Call::ErrorCard),
        (0..59_u64, any::<bool>()).prop_map(|(seconds, card)| Call::Slow { seconds, card }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => call().prop_map(Event::Step),
        1 => Just(Event::CrashBeforeCall),
        3 => call().prop_map(Event::CrashAfterCall),
        1 => Just(Event::Stale),
        1 => Just(Event::Unbegun),
        2 => (0..90_u64).prop_map(Event::Wait),
        1 => (22..26_u64).prop_map(|hours| Event::Wait(hours * HOUR.as_secs())),
        2 => Just(Event::EncryptedAnew),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_ends_in_one_card(events in prop::collection::vec(event(), 0..24)) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.goes_well();
    }
}
