//! A process: it starts, issues what it was given with embosser's own line, tells what became of it, and is started again as long as
//! something has no end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use embosser::clock::{Boot, Clock, Time};
use embosser::config::{PaceConfig, RetryConfig, StripeConfig};
use embosser::job::{Batch, Job, JobId, Place};
use embosser::ledger::Ledger;
use embosser::ledger::simulated::Given;
use embosser::line::decision::Rules;
use embosser::line::{Admitted, LEASE_IDLE, Line, LookFirst, OnSameRefusals, Options, Parts, Vet};
use embosser::operation::{Operation, Request};
use embosser::pace::Pace;
use embosser::stripe::Client;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use tokio_util::sync::CancellationToken;

use super::executor::{self, Life};
use super::ledger::OfLife;
use super::pins;
use super::setup::{Asks, Row, Upload};
use super::trouble;
use super::wire::Wire;
use super::world::{World, unix_ms};

thread_local! {
    /// Its settings are read once; where its calls go is each life's own.
    static CLIENT: RefCell<Option<Client>> = const { RefCell::new(None) };
}

fn client() -> Client {
    CLIENT.with_borrow_mut(|client| {
        let make = || {
            let config = StripeConfig {
                api_url: "http://127.0.0.1:1".into(),
                key_url: "http://127.0.0.1:1/v1/keys".into(),
                ..StripeConfig::default()
            };
            Client::new(&config, &"sk_test_simulated".to_owned().into()).unwrap()
        };
        client.get_or_insert_with(make).clone()
    })
}

/// How long a process may be away, in seconds: on both sides of what keys are trusted and kept for.
const RESTS: [u64; 6] = [130, 200, 3600, 83_500, 88_000, 180_000];

/// One life after the other.
pub(crate) async fn lives(world: Arc<World>, process: usize) {
    loop {
        let due = due(&world, process);
        if due.is_empty() || world.state().is_down {
            tokio::time::sleep(world.idle()).await;
            continue;
        }
        let executor = executor::current();
        let (life, is_killed) = executor.begin_life();
        world.note(format_args!("process {process} begins life {life} for {due:?}"));
        world.state().lives[process] = Some(life);
        if world.comes(world.setup.chances.crash) {
            let polls = world.roll(|dice| dice.random_range(0..2000));
            executor.crash_after(life, polls);
        }
        if world.comes(world.setup.chances.suspend) {
            let polls = world.roll(|dice| dice.random_range(0..1500));
            executor.suspend_after(life, polls, trouble::suspension(&world));
        }
        executor.spawn(life, live(world.clone(), process, life, is_killed, due));
        executor.ended(life).await;
        world.note(format_args!("life {life} has ended"));
        {
            let mut state = world.state();
            (state.lives[process], state.clocks[process]) = (None, None);
        }
        rest(&world).await;
    }
}

/// Until it is started again: at once, or after a night, or when the trouble is over.
async fn rest(world: &World) {
    let now = Duration::from_millis(world.now_ms());
    let left = world.setup.trouble.saturating_sub(now);
    if !world.state().is_in_trouble || left.is_zero() {
        tokio::time::sleep(Duration::from_secs(2)).await;
        return;
    }
    let usual = Duration::from_millis(world.roll(|dice| dice.random_range(10..20_000)));
    let is_long = world.roll(|dice| dice.random_bool(0.15));
    let rest = if is_long { Duration::from_secs(world.pick(&RESTS)) } else { usual };
    tokio::time::sleep(rest.min(left)).await;
}

/// The uploads that this process has and that have no end.
fn due(world: &World, process: usize) -> Vec<usize> {
    let now = Duration::from_millis(world.now_ms());
    let state = world.state();
    let is_due = |(number, upload): &(usize, &Upload)| {
        upload.process == process
            && (upload.at <= now || !state.is_in_trouble)
            && !state.oracle.is_ended(*number, &world.setup)
    };
    world.setup.uploads.iter().enumerate().filter(is_due).map(|(number, _)| number).collect()
}

async fn live(world: Arc<World>, process: usize, life: Life, is_killed: Arc<AtomicBool>, due: Vec<usize>) {
    let clock = {
        let mut state = world.state();
        let (now, wrong) = (world.now_ms(), state.wrong_by[process]);
        // Each machine was started at another time.
        let machine = if world.setup.is_one_machine() { 1 } else { 1 + process as u64 };
        let boot = Boot::after(Duration::from_millis(now + 1_000_000 * machine));
        let clock = Clock::simulated(Time::from_unix_ms(unix_ms(now) + wrong), boot);
        state.clocks[process] = Some(clock.clone());
        clock
    };
    let host = if world.setup.is_one_machine() { "here".to_owned() } else { format!("machine {process}") };
    let given = Given {
        url: world.database.url.clone(),
        fates: Arc::new(OfLife { world: world.clone(), life, is_killed }),
        connections: world.database.connections.clone(),
        leases: world.leases.clone(),
        host,
        process: u32::try_from(life).unwrap(),
    };
    let ledger = Ledger::simulated(given).await.unwrap();
    let mut lines: BTreeMap<usize, Arc<Line>> = BTreeMap::new();
    let mut issues = Vec::new();
    for number in due {
        let upload = &world.setup.uploads[number];
        let line = lines.entry(upload.account).or_insert_with(|| {
            let wire =
                Wire { world: world.clone(), account: upload.account, process, life, clock: clock.clone() };
            Arc::new(line(&world, &ledger, &clock, wire))
        });
        let (done, ended) = tokio::sync::oneshot::channel::<()>();
        let issuing = issue(world.clone(), line.clone(), number);
        executor::current().spawn(life, async move {
            issuing.await;
            let _ = done.send(());
        });
        issues.push(ended);
    }
    for ended in issues {
        let _ = ended.await;
    }
    for line in lines.into_values() {
        if let Some(halt) = line.halt() {
            // Each simulation's database has a name of its own.
            let halt = halt.to_string().replace(ledger.name(), "the ledger");
            world.note(format_args!("life {life}: {halt}"));
        }
    }
    ledger.close().await;
    executor::current().kill(life);
}

fn line(world: &Arc<World>, ledger: &Ledger, clock: &Clock, wire: Wire) -> Line {
    let setup = &world.setup;
    let pace = PaceConfig {
        endpoint_per_second: setup.endpoint_per_second.into(),
        account_per_second: setup.account_per_second.into(),
        ..PaceConfig::default()
    };
    let (lease_idle, on_same_refusals) =
        world.pick(&[(Duration::ZERO, OnSameRefusals::Stop), (LEASE_IDLE, OnSameRefusals::Wait)]);
    let look_first = if world.state().reconciles { LookFirst::Yes } else { LookFirst::No };
    Line::new(Parts {
        scope: World::scope(wire.account),
        client: client().over(Arc::new(wire)),
        pace: Pace::simulated(&pace),
        ledger: ledger.clone(),
        clock: clock.clone(),
        retry: RetryConfig::default(),
        rules: Rules::default(),
        look_first,
        vet: Vet::Yes,
        lease_idle,
        pin_links: None,
        same_refusals: (setup.same_refusals_max, on_same_refusals),
    })
}

/// An upload, row by row, some at a time.
async fn issue(world: Arc<World>, line: Arc<Line>, number: usize) {
    // A run to an end has the account's lease all the while; a server or worker whenever it has work.
    let is_run = line.parts().same_refusals.1 == OnSameRefusals::Stop;
    let _lease = if is_run { line.hold_lease().await } else { None };
    let upload = world.setup.uploads[number].clone();
    let kid = {
        let mut state = world.state();
        let present = state.kid;
        *state.encrypted_under.entry(number).or_insert(present)
    };
    let recall = CancellationToken::new();
    if upload.is_queue && world.comes(100) {
        let (recall, after) = (recall.clone(), Duration::from_millis(world.pick(&[100, 2000, 60_000])));
        spawn_here(async move {
            tokio::time::sleep(after).await;
            recall.cancel();
        });
    }
    let mut rows: Vec<usize> = (0..upload.rows.len()).collect();
    // A broker delivers some of them twice, and after a redelivery in another order.
    if upload.is_queue && world.pick(&[true, false, false]) {
        let twice = world.pick(&rows);
        rows.push(twice);
    }
    if upload.is_queue && world.pick(&[true, false]) {
        world.roll(|dice| rows.shuffle(dice));
    }
    let mut ends = Vec::new();
    while !rows.is_empty() {
        let some: Vec<usize> = rows.drain(..world.roll(|dice| dice.random_range(1..=rows.len()))).collect();
        let jobs: Vec<_> = some.iter().map(|at| Box::new(job(&upload, &upload.rows[*at], kid))).collect();
        let life = executor::current().running();
        for job in &jobs {
            let mut state = world.state();
            let latest = state.deadlines.entry((life, job.id.to_string())).or_insert(job.deadline);
            *latest = latest.zip(job.deadline).map(|(one, other)| one.max(other));
        }
        let admitted = line.admit(jobs).await;
        for (at, admitted) in some.into_iter().zip(admitted) {
            let (done, ended) = tokio::sync::oneshot::channel::<()>();
            let recall = upload.is_queue.then(|| recall.clone());
            let (world, line) = (world.clone(), line.clone());
            spawn_here(async move {
                carry(&world, &line, (number, at), admitted, recall).await;
                let _ = done.send(());
            });
            ends.push(ended);
        }
    }
    for ended in ends {
        let _ = ended.await;
    }
}

/// As a task of the life that runs now.
fn spawn_here(task: impl Future<Output = ()> + 'static) {
    let executor = executor::current();
    executor.spawn(executor.running(), task);
}

async fn carry(
    world: &Arc<World>,
    line: &Line,
    (number, at): (usize, usize),
    admitted: Admitted,
    recall: Option<CancellationToken>,
) {
    // It is sent again: until it is told anew it has no end, whatever it had.
    let life = executor::current().running();
    world.state().oracle.is_sent(life, number, at);
    let options = Options { recall: recall.as_ref(), ..Options::default() };
    let Some(ended) = line.carry(admitted, options).await else { return };
    let upload = &world.setup.uploads[number];
    let row = &upload.rows[at];
    world.note(format_args!(
        "upload {number} {}: {} {:?}",
        row.id,
        ended.outcome.word(),
        code_of(&ended.outcome)
    ));
    let now = world.now_ms();
    world.judge(|state| {
        if matches!(ended.outcome, embosser::outcome::Outcome::Done(_)) {
            state.oracle.is_done(life, upload.account, &row.id, now);
        }
        state.oracle.told(&state.accounts, &world.database, life, (upload.account, number, at), row, &ended)
    });
}

fn code_of(outcome: &embosser::outcome::Outcome) -> &str {
    use embosser::outcome::Outcome;
    match outcome {
        Outcome::Done(_) | Outcome::AwaitingPin(_) => "",
        Outcome::Refused(refusal) | Outcome::Unresolved(refusal) => refusal.code.as_ref(),
    }
}

fn request(operation: Operation, pairs: &[(&str, &str)]) -> Request {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request::from_pairs(operation, pairs).unwrap()
}

/// A row's job, as each intake makes it.
fn job(upload: &Upload, row: &Row, kid: u32) -> Job {
    let pin = row.pin.map(|which| pins::encrypted(kid, which));
    let place = Some(Place { row: row.number, row_id: None });
    let (id, batch) = (JobId::new(row.id.as_str()).unwrap(), Batch::new(upload.batch.as_str()).unwrap());
    let card = [("type", "virtual"), ("currency", row.currency)];
    let mut job = match &row.asks {
        Asks::Card(there) => {
            let cardholder = format!("ich_a{}there{there}", upload.account);
            let [kind, currency] = card;
            let request =
                request(Operation::CreateCard, &[kind, currency, ("cardholder", cardholder.as_str())]);
            Job::new(id, batch, place, request, pin)
        }
        Asks::Person { person, reuses } => {
            let (name, email) = (format!("Person {person}"), format!("person{person}@example.com"));
            let first = request(
                Operation::CreateCardholder,
                &[
                    ("name", name.as_str()),
                    ("email", email.as_str()),
                    ("billing[address][line1]", "1 New Street"),
                    ("billing[address][city]", "Cork"),
                    ("billing[address][postal_code]", "T12"),
                    ("billing[address][country]", "IE"),
                ],
            );
            let first = if *reuses { first.reusing() } else { first };
            Job::new(id, batch, place, request(Operation::CreateCard, &card), pin).after(first)
        }
        Asks::Change(there) => {
            let status = if row.currency == "eur" { "inactive" } else { "active" };
            let change = request(Operation::UpdateCard, &[("status", status)]);
            let change = change.with_target(format!("ic_a{}there{there}", upload.account));
            Job::new(id, batch, place, change, pin)
        }
    };
    job.deadline = row.deadline.map(|deadline| {
        Time::from_unix_ms(unix_ms(u64::try_from((upload.at + deadline).as_millis()).unwrap()))
    });
    job
}
