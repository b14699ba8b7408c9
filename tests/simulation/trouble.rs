//! What goes wrong: crashes, suspensions, clocks that are set, outages, limits that change, a ledger restored from a backup.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;

use super::executor::{self, Executor};
use super::setup::Upload;
use super::world::World;

const MINUTE: Duration = Duration::from_secs(60);
/// While much happens.
const BUSY: Duration = Duration::from_secs(4);
/// How wrong a clock may be that nobody has set, in milliseconds: together with another one's less than the hour between the trust in
/// keys and their end.
const WRONG_MS: i64 = 25 * 60 * 1000;
const HOUR_MS: i64 = 3600 * 1000;
/// Of suspensions, in seconds: on both sides of each bound that embosser has.
const SUSPENDED: [u64; 10] = [1, 4, 6, 14, 20, 130, 200, 7200, 24 * 3600, 50 * 3600];
/// After a restore nothing runs for so long: what was called before has ended.
const RESTORED_AFTER: Duration = Duration::from_secs(600);

/// Comes until there is no more.
pub(crate) async fn comes(world: Arc<World>) {
    if world.setup.restores_backup {
        let of_restore = world.clone();
        executor::spawn(backup_and_restore(of_restore));
    }
    if world.setup.loses_ledger {
        executor::spawn(loss(world.clone()));
    }
    while world.state().is_in_trouble {
        // Most happens soon after an upload: there trouble comes closer together.
        let longest = if world.is_busy() { BUSY } else { MINUTE };
        tokio::time::sleep(world.roll(|dice| longest.mul_f64(dice.random_range(0.01..1.0)))).await;
        processes(&world);
        stripe(&world);
    }
}

fn processes(world: &Arc<World>) {
    let chances = world.setup.chances;
    for process in 0..world.setup.processes {
        if world.comes(chances.clock) {
            set_clock(world, process);
        }
        let Some(life) = world.state().lives[process] else { continue };
        if world.comes(chances.crash) {
            let polls = world.roll(|dice| dice.random_range(0..300));
            world.note(format_args!("life {life} crashes after {polls} steps"));
            executor::current().crash_after(life, polls);
        }
        if world.comes(chances.suspend) {
            let polls = world.roll(|dice| dice.random_range(0..100));
            executor::current().suspend_after(life, polls, suspension(world));
        }
    }
}

/// How long one lasts.
pub(crate) fn suspension(world: &World) -> Duration {
    Duration::from_secs(world.pick(&SUSPENDED))
}

fn set_clock(world: &Arc<World>, process: usize) {
    let wrong = if world.setup.sets_clocks && world.pick(&[true, false]) {
        world.pick(&[30 * HOUR_MS, -30 * HOUR_MS, 3 * HOUR_MS, -3 * HOUR_MS])
    } else {
        world.roll(|dice| dice.random_range(-WRONG_MS..WRONG_MS))
    };
    world.note(format_args!("process {process}: its clock is {} s wrong", wrong / 1000));
    // Processes on one machine have one clock.
    let of = if world.setup.is_one_machine() { 0..world.setup.processes } else { process..process + 1 };
    let mut state = world.state();
    of.for_each(|process| state.set_clock(process, wrong));
}

fn stripe(world: &Arc<World>) {
    let (chances, now) = (world.setup.chances, world.now_ms());
    let until = |seconds: &[u64]| now + 1000 * world.pick(seconds);
    if world.comes(chances.rotate) {
        world.state().kid += 1;
        world.note(format_args!("Stripe's key is rotated"));
    }
    if world.comes(chances.outage) {
        let until = until(&[5, 60, 600]);
        match world.pick(&[0, 1, 2]) {
            0 => world.state().stripe_out_until = until,
            1 => world.state().keys_out_until = until,
            // Longer than the ledger's patience, or shorter.
            _ => world.state().ledger_out_until = until,
        }
        world.note(format_args!("an outage until {until}"));
    }
    if world.comes(chances.alike) {
        let (until, status) = (until(&[5, 60, 600]), world.pick(&[400, 403, 401]));
        world.note(format_args!("Stripe says {status} to everybody until {until}"));
        let mut state = world.state();
        (state.alike_until, state.alike) = (until, status);
    }
    if world.comes(chances.limited) {
        let (account, allows) = (
            world.roll(|dice| dice.random_range(0..world.setup.accounts)),
            world.pick(&[None, Some(1), Some(2), Some(10)]),
        );
        world.note(format_args!("account {account}: a limiter allows {allows:?}"));
        world.state().accounts[account].allows = allows;
    }
}

async fn backup_and_restore(world: Arc<World>) {
    let third = world.setup.trouble / 3;
    let (until_copy, until_restore) = world.roll(|dice| {
        (third.mul_f64(dice.random_range(0.0..1.0)), third.mul_f64(dice.random_range(0.1..1.5)))
    });
    tokio::time::sleep(until_copy).await;
    if !world.database.back_up() {
        world.state().restored = true;
        return;
    }
    tokio::time::sleep(until_restore).await;
    stop_all(&world);
    tokio::time::sleep(RESTORED_AFTER).await;
    world.database.restore();
    world.note(format_args!("the ledger is as it was before"));
    let mut state = world.state();
    (state.is_down, state.reconciles, state.restored) = (false, true, true);
    state.oracle.restored();
}

/// Everybody goes on with an empty ledger, as those do who issue a manifest again from another place.
async fn loss(world: Arc<World>) {
    let quarter = world.setup.trouble / 4;
    tokio::time::sleep(world.roll(|dice| quarter.mul_f64(dice.random_range(0.0..1.0)))).await;
    while !is_all_done_that_was_begun(&world) {
        if world.now_ms() > u64::try_from((quarter * 2).as_millis()).unwrap() {
            world.state().restored = true;
            return;
        }
        tokio::time::sleep(world.idle()).await;
    }
    stop_all(&world);
    // While Stripe still knows the keys, or when it does not.
    tokio::time::sleep(Duration::from_secs(world.pick(&[600, 25 * 3600, 30 * 3600]))).await;
    world.database.empty();
    world.note(format_args!("the ledger is empty"));
    let mut state = world.state();
    (state.is_down, state.restored) = (false, true);
    state.oracle.lost();
}

/// Of each batch that is known: whether all of it is there to be seen.
fn is_all_done_that_was_begun(world: &World) -> bool {
    let mut batches: BTreeMap<_, Vec<bool>> = BTreeMap::new();
    for upload in &world.setup.uploads {
        let scope = World::scope(upload.account);
        for row in upload.rows.iter().filter(|row| world.database.has_any(&scope, &row.id)) {
            let recorded = world.database.row(&scope, &row.id);
            let is_done = recorded.is_some_and(|recorded| recorded.state == "done");
            batches.entry((upload.account, &upload.batch)).or_default().push(is_done);
        }
    }
    let is_whole = |(of, done): (&(usize, &String), &Vec<bool>)| {
        let rows = |upload: &Upload| (upload.account, &upload.batch) == *of;
        let all: usize =
            world.setup.uploads.iter().filter(|upload| rows(upload)).map(|upload| upload.rows.len()).sum();
        done.len() == all && done.iter().all(|done| *done)
    };
    !batches.is_empty() && batches.iter().all(is_whole)
}

/// Nothing runs until it may.
fn stop_all(world: &World) {
    world.state().is_down = true;
    let lives: Vec<_> = world.state().lives.iter().flatten().copied().collect();
    lives.into_iter().for_each(|life| executor::current().kill(life));
}

/// There is no more trouble.
pub(crate) fn ends(world: &Arc<World>, executor: &Rc<Executor>) {
    world.note(format_args!("the trouble ends"));
    let lives = {
        let mut state = world.state();
        state.is_in_trouble = false;
        (state.stripe_out_until, state.keys_out_until, state.ledger_out_until) = (0, 0, 0);
        state.alike_until = 0;
        state.accounts.iter_mut().for_each(|account| account.allows = None);
        for process in 0..world.setup.processes {
            state.set_clock(process, 0);
        }
        state.lives.clone()
    };
    lives.into_iter().flatten().for_each(|life| executor.calm(life));
}
