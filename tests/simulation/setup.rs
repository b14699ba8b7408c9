//! What a seed decides before anything happens: how many processes and accounts, what is asked for, and how bad the times are.

use std::time::Duration;

use embosser::ledger::simulated::LeaseKind;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// One simulation's world.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) processes: usize,
    pub(crate) accounts: usize,
    pub(crate) lease: LeaseKind,
    /// How long there is trouble.
    pub(crate) trouble: Duration,
    pub(crate) chances: Chances,
    /// Whether clocks are set by hours, beside going a little wrong.
    pub(crate) sets_clocks: bool,
    pub(crate) restores_backup: bool,
    /// Whether all go on with an empty ledger, once whatever was begun is done.
    pub(crate) loses_ledger: bool,
    pub(crate) endpoint_per_second: u32,
    pub(crate) account_per_second: u32,
    /// How many objects a page of a list has.
    pub(crate) page: usize,
    pub(crate) same_refusals_max: u32,
    pub(crate) uploads: Vec<Upload>,
}

/// Chances of trouble, in a thousand of the cases where it may come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Chances {
    /// A connection is not made.
    pub(crate) unconnected: u32,
    /// A request is lost after it left.
    pub(crate) request_lost: u32,
    /// An answer is lost, or broken off.
    pub(crate) answer_lost: u32,
    /// A call takes long.
    pub(crate) slow: u32,
    /// An error of Stripe's, or of what stands before it.
    pub(crate) error: u32,
    /// A definite no.
    pub(crate) declined: u32,
    /// A limiter says no.
    pub(crate) limited: u32,
    /// A write or a question of the ledger's fails.
    pub(crate) ledger: u32,
    /// A process crashes, is suspended, or has its clock set: in the thousand, each minute.
    pub(crate) crash: u32,
    pub(crate) suspend: u32,
    pub(crate) clock: u32,
    /// Stripe's key is rotated, Stripe is out or refuses everybody, the ledger is out; the same.
    pub(crate) rotate: u32,
    pub(crate) outage: u32,
    pub(crate) alike: u32,
}

/// A manifest that some process issues.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) process: usize,
    pub(crate) account: usize,
    pub(crate) batch: String,
    pub(crate) at: Duration,
    pub(crate) rows: Vec<Row>,
    /// Whether a process handles its jobs as a worker does: they can be handed back.
    pub(crate) is_queue: bool,
}

/// What a row asks for.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) number: u64,
    pub(crate) asks: Asks,
    pub(crate) currency: &'static str,
    /// Which encryption of a PIN it has.
    pub(crate) pin: Option<u32>,
    /// How long after its upload its PIN may be used.
    pub(crate) deadline: Option<Duration>,
}

/// Which operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asks {
    /// A card for a cardholder who exists.
    Card(usize),
    /// A card, and its cardholder first; whether one whom this person has is taken.
    Person { person: usize, reuses: bool },
    /// A change of a card that exists.
    Change(usize),
}

/// Seeds what decides whether a ledger is lost.
const LOSES_DICE: u64 = 0x105e;
/// Of a seed that loses its ledger: longer than what was done before takes, the loss, and what comes after it.
const LOSES_MINUTES: u64 = 4320;

/// Seeds what decides whether changes alone are asked for, of few cards: they meet one another seldom otherwise.
const CHANGES_DICE: u64 = 0xc4a9;
/// Cards of which such a seed asks for changes.
const CHANGED: usize = 2;

/// Cardholders and cards that each account has from the start.
pub(crate) const THERE: usize = 3;

impl Setup {
    /// Whether all processes run on one machine: only there is a lease a locked file.
    pub(crate) fn is_one_machine(&self) -> bool {
        self.lease == LeaseKind::File
    }

    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let dice = &mut dice;
        let processes = *[1, 1, 2, 2, 2, 3, 4].choose(dice).unwrap();
        let accounts = *[1, 1, 1, 2, 3, 5].choose(dice).unwrap();
        let minutes = *[2, 10, 10, 60, 360, 1560, 1560, 4320].choose(dice).unwrap();
        // Of dice of its own, so that what else a seed decides stays as it was before there was this.
        let loses_ledger = StdRng::seed_from_u64(seed ^ LOSES_DICE).random_bool(0.1);
        let minutes = if loses_ledger { LOSES_MINUTES } else { minutes };
        let mut uploads = Vec::new();
        for number in 0..dice.random_range(1..=3) {
            uploads.push(upload(dice, number, processes, accounts));
        }
        if !loses_ledger {
            ask_for_changes_alone(seed, &mut uploads);
        }
        for again in again(dice, &uploads, processes, minutes) {
            uploads.push(again);
        }
        let mut setup = Self {
            seed,
            processes,
            accounts,
            lease: if dice.random() { LeaseKind::File } else { LeaseKind::Session },
            trouble: Duration::from_secs(minutes * 60),
            chances: Chances::of(dice),
            sets_clocks: dice.random_bool(0.3),
            restores_backup: dice.random_bool(0.15),
            loses_ledger,
            endpoint_per_second: *[2, 3, 5, 25].choose(dice).unwrap(),
            account_per_second: *[3, 5, 8, 25].choose(dice).unwrap(),
            page: *[2, 3, 100].choose(dice).unwrap(),
            same_refusals_max: *[2, 3, 5].choose(dice).unwrap(),
            uploads,
        };
        if loses_ledger {
            setup.keep_what_a_batch_shows();
        }
        setup
    }

    /// A batch that another ledger has issued is known by its cards at Stripe (`line::vet`): all of them must be there and be shown,
    /// or a few that are looked for may be others. A change is shown by its card until the next one.
    fn keep_what_a_batch_shows(&mut self) {
        (self.restores_backup, self.sets_clocks) = (false, false);
        (self.chances.declined, self.chances.alike) = (0, 0);
        for row in self.uploads.iter_mut().flat_map(|upload| &mut upload.rows) {
            row.deadline = None;
            if let Asks::Change(there) = row.asks {
                row.asks = Asks::Card(there);
            }
        }
    }
}

impl Chances {
    /// Each kind of trouble is there or not, so that it also meets others alone.
    fn of(dice: &mut StdRng) -> Self {
        let mut some =
            |levels: [u32; 3]| if dice.random_bool(0.45) { *levels.choose(dice).unwrap() } else { 0 };
        Self {
            unconnected: some([10, 50, 200]),
            request_lost: some([10, 50, 200]),
            answer_lost: some([20, 100, 400]),
            slow: some([20, 100, 400]),
            error: some([20, 100, 400]),
            declined: some([20, 50, 200]),
            limited: some([20, 100, 300]),
            ledger: some([5, 20, 100]),
            crash: some([20, 100, 500]),
            suspend: some([20, 100, 300]),
            clock: some([20, 100, 300]),
            rotate: some([10, 50, 100]),
            outage: some([10, 50, 100]),
            alike: some([5, 20, 50]),
        }
    }
}

fn upload(dice: &mut StdRng, number: usize, processes: usize, accounts: usize) -> Upload {
    let batch = format!("b{number}");
    let mut rows = Vec::new();
    for row in 1..=dice.random_range(1..=6) {
        let asks = match dice.random_range(0..10) {
            0..=5 => Asks::Card(dice.random_range(0..THERE)),
            6 | 7 => Asks::Person { person: dice.random_range(0..4), reuses: dice.random() },
            _ => Asks::Change(dice.random_range(0..THERE)),
        };
        let deadline = dice.random_bool(0.3).then(|| *[60, 600, 7200].choose(dice).unwrap());
        rows.push(Row {
            id: format!("{batch}/{row}"),
            number: row,
            asks,
            currency: "eur",
            pin: dice.random_bool(0.6).then(|| dice.random_range(0..1000)),
            deadline: deadline.map(Duration::from_secs),
        });
    }
    Upload {
        process: dice.random_range(0..processes),
        account: dice.random_range(0..accounts),
        batch,
        at: Duration::from_secs(dice.random_range(0..30)),
        rows,
        is_queue: dice.random_bool(0.4),
    }
}

/// One seed in ten does.
fn ask_for_changes_alone(seed: u64, uploads: &mut [Upload]) {
    // Of dice of its own, as above.
    let mut dice = StdRng::seed_from_u64(seed ^ CHANGES_DICE);
    if !dice.random_bool(0.1) {
        return;
    }
    for row in uploads.iter_mut().flat_map(|upload| &mut upload.rows) {
        row.asks = Asks::Change(dice.random_range(0..CHANGED));
    }
}

/// The same batches again: at another process, with their PINs encrypted anew, with other content.
fn again(dice: &mut StdRng, uploads: &[Upload], processes: usize, minutes: u64) -> Vec<Upload> {
    let mut all = Vec::new();
    for upload in uploads {
        for _ in 0..*[0, 0, 1, 1, 2].choose(dice).unwrap() {
            let mut upload = upload.clone();
            upload.process = dice.random_range(0..processes);
            let latest = *[10, 600, 60 * minutes].choose(dice).unwrap();
            upload.at += Duration::from_secs(dice.random_range(0..latest));
            let (is_new_encryption, is_other) = (dice.random_bool(0.4), dice.random_bool(0.2));
            for row in &mut upload.rows {
                if is_new_encryption && row.pin.is_some() {
                    row.pin = Some(dice.random_range(1000..2000));
                }
                if is_other && dice.random_bool(0.5) {
                    row.currency = "usd";
                }
            }
            all.push(upload);
        }
    }
    all
}
