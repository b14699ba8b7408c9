//! One seed's world: its time, its dice, what all processes share, and the way from its begin to its end.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use embosser::clock::{Clock, Time};
use embosser::ledger::Scope;
use embosser::ledger::simulated::Leases;
use embosser::simulation::Mutation;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

use super::executor::{self, Executor, Life};
use super::ledger::Database;
use super::oracle::Oracle;
use super::setup::Setup;
use super::stripe::Account;
use super::{process, trouble};

/// The time of day when a simulation begins, in milliseconds since the Unix epoch.
const BEGINS_UNIX_MS: i64 = 1_800_000_000_000;
/// Within this all must have ended once there is no more trouble.
const ENDS_WITHIN: Duration = Duration::from_secs(3 * 3600);
/// How long much happens after an upload.
const BUSY_FOR: Duration = Duration::from_secs(30);
/// Between two looks for something to do, at least.
const IDLE: Duration = Duration::from_secs(5);
/// After the last end: calls that were under way end, too.
const SETTLES: Duration = Duration::from_secs(300);
/// Steps of tasks that no simulation needs.
const POLLS_MAX: u64 = 3_000_000;

/// A true time as the time of day.
pub(crate) fn unix_ms(ms: u64) -> i64 {
    BEGINS_UNIX_MS + i64::try_from(ms).unwrap()
}

/// What all processes and Stripe share. One thread uses it; it is shared as embosser's interfaces ask for that.
pub(crate) struct World {
    pub(crate) setup: Setup,
    began: Instant,
    dice: Mutex<StdRng>,
    state: Mutex<State>,
    pub(crate) database: Database,
    pub(crate) leases: Leases,
    trace: Mutex<DefaultHasher>,
    is_told: bool,
}

/// What changes.
pub(crate) struct State {
    pub(crate) accounts: Vec<Account>,
    pub(crate) oracle: Oracle,
    /// Which key PINs are encrypted under now.
    pub(crate) kid: u32,
    /// Until when Stripe, or its key's endpoint, or the ledger is out.
    pub(crate) stripe_out_until: u64,
    pub(crate) keys_out_until: u64,
    pub(crate) ledger_out_until: u64,
    /// Until when Stripe refuses everybody alike, and how.
    pub(crate) alike_until: u64,
    pub(crate) alike: u16,
    pub(crate) is_in_trouble: bool,
    /// How wrong each process's clock is, in milliseconds.
    pub(crate) wrong_by: Vec<i64>,
    /// The clocks of those that live.
    pub(crate) clocks: Vec<Option<Clock>>,
    pub(crate) lives: Vec<Option<Life>>,
    /// Which key each upload's PINs were encrypted under.
    pub(crate) encrypted_under: BTreeMap<usize, u32>,
    /// Until when each life may use the PIN of a job: the latest of all that it has of one id, none if one of them has none.
    pub(crate) deadlines: BTreeMap<(Life, String), Option<Time>>,
    /// Whether no backup is to be restored any more, and no ledger to be lost.
    pub(crate) restored: bool,
    /// Nothing is to be started.
    pub(crate) is_down: bool,
    /// Whether jobs are looked for first, as the ledger is an older one.
    pub(crate) reconciles: bool,
}

impl State {
    /// Sets a process's clock, so that it is so wrong.
    pub(crate) fn set_clock(&mut self, process: usize, wrong_by: i64) {
        let before = std::mem::replace(&mut self.wrong_by[process], wrong_by);
        if let Some(clock) = &self.clocks[process] {
            clock.set(wrong_by - before);
        }
    }
}

/// How a simulation ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended {
    /// A digest of everything that happened.
    pub(crate) trace: u64,
    pub(crate) polls: u64,
    /// What went wrong, if something did.
    pub(crate) failure: Option<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// Whether what happens is written to the standard error output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    Nothing,
    Everything,
}

impl World {
    fn new(setup: Setup, tell: Tell) -> Arc<Self> {
        let seed = setup.seed;
        let state = State {
            accounts: (0..setup.accounts).map(Account::new).collect(),
            oracle: Oracle::default(),
            kid: 0,
            stripe_out_until: 0,
            keys_out_until: 0,
            ledger_out_until: 0,
            alike_until: 0,
            alike: 400,
            is_in_trouble: true,
            wrong_by: vec![0; setup.processes],
            clocks: vec![None; setup.processes],
            lives: vec![None; setup.processes],
            encrypted_under: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            restored: !setup.restores_backup && !setup.loses_ledger,
            is_down: false,
            reconciles: false,
        };
        Arc::new(Self {
            began: Instant::now(),
            dice: Mutex::new(StdRng::seed_from_u64(seed ^ 0x5eed)),
            state: Mutex::new(state),
            database: Database::new(),
            leases: Leases::new(setup.lease),
            trace: Mutex::default(),
            is_told: tell == Tell::Everything,
            setup,
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The true time since the begin, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    pub(crate) fn scope(account: usize) -> Scope {
        Scope::new("test", "simulated", Some(&format!("acct_{account}")))
    }

    /// Between two looks for something to do.
    pub(crate) fn idle(&self) -> Duration {
        if self.state().is_in_trouble { (self.setup.trouble / 500).max(IDLE) } else { IDLE }
    }

    /// Whether an upload has just begun.
    pub(crate) fn is_busy(&self) -> bool {
        let now = Duration::from_millis(self.now_ms());
        self.setup.uploads.iter().any(|upload| upload.at <= now && now < upload.at + BUSY_FOR)
    }

    /// Something happened: it counts for the trace.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let now = self.now_ms();
        let text = what.to_string();
        (now, &text).hash(&mut *self.trace.lock().unwrap());
        if self.is_told {
            eprintln!("{:>12.3} {text}", Duration::from_millis(now).as_secs_f64());
        }
    }

    pub(crate) fn roll<T>(&self, roll: impl FnOnce(&mut StdRng) -> T) -> T {
        roll(&mut self.dice.lock().unwrap())
    }

    /// Whether trouble of this chance comes now.
    pub(crate) fn comes(&self, in_thousand: u32) -> bool {
        in_thousand > 0
            && self.state().is_in_trouble
            && self.roll(|dice| dice.random_range(0..1000) < in_thousand)
    }

    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        self.roll(|dice| of[dice.random_range(0..of.len())])
    }

    /// Asks the oracle; what it finds wrong ends the simulation.
    pub(crate) fn judge(&self, judge: impl FnOnce(&mut State) -> Result<(), String>) {
        let judged = judge(&mut self.state());
        if let Err(why) = judged {
            self.note(format_args!("WRONG: {why}"));
            executor::current().fail(why);
        }
    }

    fn digest(&self) -> u64 {
        self.trace.lock().unwrap().finish()
    }
}

/// Runs a seed's simulation to its end.
pub(crate) fn simulate(setup: Setup, broken: Option<Mutation>, tell: Tell) -> Ended {
    let seed = setup.seed;
    embosser::simulation::seed(Some(seed));
    embosser::simulation::break_rule(broken);
    // A panic is a finding, and the next seed is another one's.
    let ended = std::panic::catch_unwind(|| run(setup, tell))
        .unwrap_or_else(|_| Ended { failure: Some("something panicked".into()), ..Ended::default() });
    embosser::simulation::seed(None);
    embosser::simulation::break_rule(None);
    ended
}

fn run(setup: Setup, tell: Tell) -> Ended {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let executor = Executor::start(setup.seed ^ 0xe8ec, POLLS_MAX);
        let world = World::new(setup, tell);
        executor.spawn(executor::WORLD, history(world.clone(), executor.clone()));
        let failure = executor.run().await.err();
        let counts = world.state().oracle.counts.clone();
        Ended { trace: world.digest(), polls: executor.polls(), failure, counts }
    })
}

/// From the first upload to the last job's end.
async fn history(world: Arc<World>, executor: Rc<Executor>) {
    for process in 0..world.setup.processes {
        executor.spawn(executor::WORLD, process::lives(world.clone(), process));
    }
    executor.spawn(executor::WORLD, trouble::comes(world.clone()));
    // Once all have ended and nothing more is to come, no trouble has anything to meet.
    let all_early = async {
        while !(world.state().restored && world.state().oracle.is_all_ended(&world.setup)) {
            tokio::time::sleep(world.idle()).await;
        }
        tokio::time::sleep(SETTLES).await;
    };
    let _ = tokio::time::timeout(world.setup.trouble, all_early).await;
    trouble::ends(&world, &executor);
    let all_ended = async {
        while !world.state().oracle.is_all_ended(&world.setup) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    if tokio::time::timeout(ENDS_WITHIN, all_ended).await.is_err() {
        let open = world.state().oracle.open(&world.setup);
        world.judge(|_| Err(format!("not ended {ENDS_WITHIN:?} after the trouble: {open}")));
        return;
    }
    world.judge(|state| state.oracle.at_end(&world.setup, &state.accounts, &world.database));
    world.note(format_args!("all ended"));
    executor.over();
}
