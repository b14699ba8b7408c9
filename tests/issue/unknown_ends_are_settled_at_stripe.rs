//! Promise: an attempt whose end is unknown never becomes a second card and never a lost one, whatever Stripe
//! remembers of it, inside its idempotency window and beyond.

use crate::support;

use std::time::Duration;

use embosser::clock::Clock;
use embosser::line::decision::Rules;
use embosser::line::{LookFirst, Options as Carry};
use embosser::sandbox::{Faults, Options, Sandbox};
use support::line::{issued, job, line_by, line_in, refused};

/// How long the sandbox works on a card: long enough to crash meanwhile.
const CALL_TAKES: Duration = Duration::from_millis(40);
/// Longer than Stripe keeps an idempotency key.
const DAY: Duration = Duration::from_secs(25 * 3600);

struct Setting {
    sandbox: Sandbox,
    directory: tempfile::TempDir,
    clock: Clock,
}

impl Setting {
    async fn new(faults: Faults) -> Self {
        Self::with(Options { faults, latency: CALL_TAKES, ..Options::default() }).await
    }

    async fn with(options: Options) -> Self {
        let sandbox = Sandbox::start(options).await.unwrap();
        Self { sandbox, directory: tempfile::tempdir().unwrap(), clock: Clock::system() }
    }

    async fn line(&self) -> embosser::line::Line {
        line_in(self.directory.path(), &self.sandbox, &self.clock, LookFirst::No).await
    }

    /// Begins a job and crashes as soon as its call has reached Stripe, where it runs to its end all the same.
    async fn crash_in_the_call(&self, faults: Faults) {
        self.sandbox.set_faults(faults);
        let line = self.line().await;
        let cut = job(&self.sandbox, "batch/a", "eur", Some("1234")).await;
        let carried = tokio::spawn(async move { line.carry(cut, Carry::default()).await });
        while self.sandbox.account().creates == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        carried.abort();
        let _ = carried.await;
        tokio::time::sleep(CALL_TAKES * 2).await;
        self.sandbox.set_faults(Faults::default());
    }

    fn pins(&self) -> Vec<Option<String>> {
        self.sandbox.account().cards.into_iter().map(|card| card.pin).collect()
    }

    fn pass_a_day(&self) {
        self.clock.advance(DAY);
        self.sandbox.advance(DAY);
    }
}

const ALWAYS: f64 = 1.0;

/// Each way an answer can be lost or replayed, with the PIN encrypted anew afterwards or not, within the window or
/// after it: one card, with the right PIN.
#[tokio::test(flavor = "multi_thread")]
async fn every_lost_answer_ends_in_one_card() {
    let lost = [
        ("nothing wrong", Faults::default()),
        ("500 after the card", Faults { error_after: ALWAYS, ..Faults::default() }),
        ("500 before the card", Faults { error_before: ALWAYS, ..Faults::default() }),
        ("cut after the card", Faults { drop_after: ALWAYS, ..Faults::default() }),
        ("cut before the card", Faults { drop_before: ALWAYS, ..Faults::default() }),
        ("409", Faults { conflict: ALWAYS, ..Faults::default() }),
        ("HTML", Faults { html: ALWAYS, ..Faults::default() }),
    ];
    for (name, faults) in lost {
        for day_passes in [false, true] {
            let setting = Setting::new(Faults::default()).await;
            setting.crash_in_the_call(faults).await;
            if day_passes {
                setting.pass_a_day();
            }
            let again = job(&setting.sandbox, "batch/a", "eur", Some("1234")).await;
            let ended = setting.line().await.carry(again, Carry::default()).await.unwrap();
            let card = issued(&ended).clone();
            assert_eq!(setting.pins(), [Some("1234".into())], "{name}, a day later: {day_passes}");
            assert_eq!(setting.sandbox.account().cards[0].id, card.id, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_makes_no_second_card() {
    let setting = Setting::new(Faults::default()).await;
    let first = job(&setting.sandbox, "batch/a", "eur", Some("1234")).await;
    let card = issued(&setting.line().await.carry(first, Carry::default()).await.unwrap()).clone();
    // Within the window Stripe's own memory of the key tells: even with another encryption of the PIN.
    for clock in [Clock::system(), Clock::system()] {
        let empty = tempfile::tempdir().unwrap();
        let line = line_in(empty.path(), &setting.sandbox, &clock, LookFirst::No).await;
        let again = job(&setting.sandbox, "batch/a", "eur", Some("1234")).await;
        assert_eq!(issued(&line.carry(again, Carry::default()).await.unwrap()).id, card.id);
    }
    // Beyond it only a look at the cards does: that is what --reconcile-first is for.
    setting.pass_a_day();
    let empty = tempfile::tempdir().unwrap();
    let line = line_in(empty.path(), &setting.sandbox, &setting.clock, LookFirst::Yes).await;
    let again = job(&setting.sandbox, "batch/a", "eur", Some("1234")).await;
    assert_eq!(issued(&line.carry(again, Carry::default()).await.unwrap()).id, card.id);
    assert_eq!(setting.pins().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_job_with_other_content_keeps_its_card_and_is_told_so() {
    let setting = Setting::new(Faults::default()).await;
    let line = setting.line().await;
    let first = job(&setting.sandbox, "batch/a", "eur", None).await;
    let card = issued(&line.carry(first, Carry::default()).await.unwrap()).clone();
    let other = job(&setting.sandbox, "batch/a", "usd", None).await;
    let ended = line.carry(other, Carry::default()).await.unwrap();
    assert_eq!(issued(&ended).id, card.id, "the card is there, whatever is asked for now");
    assert!(ended.note.as_deref().is_some_and(|note| note.contains("not applied")), "{ended:?}");
    // That did not spoil the record.
    let same =
        line.carry(job(&setting.sandbox, "batch/a", "eur", None).await, Carry::default()).await.unwrap();
    assert_eq!(issued(&same).id, card.id);
    assert!(same.recorded_before && same.note.is_none());
    assert_eq!(setting.pins().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_job_twice_at_once_is_one_card() {
    let setting = Setting::new(Faults::default()).await;
    let line = setting.line().await;
    let jobs = [
        job(&setting.sandbox, "batch/a", "eur", None).await,
        job(&setting.sandbox, "batch/a", "eur", None).await,
    ];
    let [one, two] = jobs.map(|job| line.carry(job, Carry::default()));
    let (one, two) = tokio::join!(one, two);
    assert_eq!(issued(&one.unwrap()).id, issued(&two.unwrap()).id);
    assert_eq!(setting.sandbox.account().creates, 1, "the second was answered from the record");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_taken_in_together_are_each_carried_by_what_is_known_of_it() {
    let setting = Setting::new(Faults::default()).await;
    let line = setting.line().await;
    let named = async |id: &str| Box::new(job(&setting.sandbox, id, "eur", None).await);
    let before = line.carry(named("batch/known").await, Carry::default()).await.unwrap();
    let ids = ["batch/new", "batch/known", "batch/new", "batch/other"];
    let mut jobs = Vec::new();
    for id in ids {
        jobs.push(named(id).await);
    }
    // The last first: the second of a name waits for the first, whichever is carried first.
    let carried = line.admit(jobs).await.into_iter().rev().map(|job| line.carry(job, Carry::default()));
    let ended: Vec<_> = futures_util::future::join_all(carried).await.into_iter().flatten().collect();
    let [other, again, known, new] = &ended[..] else { panic!("one end for each: {ended:?}") };
    assert_eq!((issued(known), known.recorded_before), (issued(&before), true));
    assert_eq!((issued(again), again.recorded_before), (issued(new), true));
    assert!(!new.recorded_before && !other.recorded_before && issued(new).id != issued(other).id);
    assert_eq!(setting.sandbox.account().creates, 3, "one for each name");
    // One that is taken in and never carried holds nobody up.
    drop(line.admit(vec![named("batch/left").await]).await);
    issued(&line.carry(named("batch/left").await, Carry::default()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_job_may_come_again_mended() {
    let setting = Setting::new(Faults::default()).await;
    let line = setting.line().await;
    let stale = job(&setting.sandbox, "batch/a", "eur", Some("1234")).await;
    setting.sandbox.rotate_key();
    assert_eq!(refused(&line.carry(stale, Carry::default()).await.unwrap()).code, "stale_key");
    assert_eq!(setting.sandbox.account().creates, 0, "a stale PIN costs no call");
    let fresh = job(&setting.sandbox, "batch/a", "eur", Some("1234")).await;
    issued(&line.carry(fresh, Carry::default()).await.unwrap());
    assert_eq!(setting.pins(), [Some("1234".into())]);
}

/// Its first answer is lost, and Stripe does not know its cardholder: then there can be no card, and it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_cardholder_whom_stripe_does_not_know_ends() {
    let setting = Setting::with(Options {
        latency: CALL_TAKES,
        cardholders: Some(["ich_other".to_owned()].into()),
        faults: Faults { drop_after: 1.0, ..Faults::default() },
        ..Options::default()
    })
    .await;
    let rules = Rules {
        call_lasts: Duration::from_millis(300),
        lists_lag: Duration::from_millis(300),
        ..Rules::default()
    };
    let line =
        line_by(setting.directory.path(), &setting.sandbox, &setting.clock, LookFirst::No, rules).await;
    let first = job(&setting.sandbox, "batch/a", "eur", None).await;
    let carrying = line.carry(first, Carry::default());
    let faults_end = async {
        while setting.sandbox.account().creates == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        setting.sandbox.set_faults(Faults::default());
    };
    let (ended, ()) = tokio::join!(carrying, faults_end);
    assert_eq!(refused(&ended.unwrap()).code, "resource_missing");
}
