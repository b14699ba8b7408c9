//! How the rate answers to Stripe's limiters: a pure state machine, time is an input.
//!
//! A rate limiter's 429 slows at once, to a little less than what was let through in the second before it; so a limit
//! at half the configured rate is found in one or two cuts. Afterwards the rate rises in steps that grow while they
//! hold. A step that is turned away is taken back, and the next one waits longer.
//!
//! Not every limiter's 429 depends on our rate: other programs share the account, and limiters have moods. Such
//! 429s go on after a cut, and cutting further would only starve the line. So when they do go on after several cuts,
//! the cuts are taken back and 429s are put up with, until they are so many that there must be a limit after all.

use std::time::{Duration, Instant};

use super::window::Window;

/// Stripe's limiters count within one second.
const WINDOW: Duration = Duration::from_secs(1);
/// Added to a pause that waits for the window to clear: clocks and ways differ.
const EDGE: Duration = Duration::from_millis(10);
/// Kept below what was found to be let through.
const UNDER_CEILING: f64 = 0.97;
/// A 429 at this share of the rate or above is a graze: the limit is where we are, and calls arrived unevenly.
const GRAZE: f64 = 0.96;
/// A 429 below this share of the rate came before a second was full of calls: it says where the limit is.
const EARLY: f64 = 0.8;
/// What is left of the rate after a graze.
const AFTER_GRAZE: f64 = 0.985;
/// The lowest rate, as a share of the configured one.
const FLOOR: f64 = 0.02;
/// First and largest step up, as shares of the configured rate; a step that held doubles the next.
const STEP_MIN: f64 = 0.02;
const STEP_MAX: f64 = 0.16;
/// How long a step is on trial.
const TRIAL: Duration = Duration::from_secs(2);
/// How many calls it is on trial for at least: at a low rate a step too far shows late.
const TRIAL_CALLS: f64 = 10.0;
/// First wait before a step up, and the longest: a limit that was raised is noticed within that.
const WAIT_MIN: Duration = Duration::from_secs(5);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What a step that failed makes the wait for the next longer by.
const WAIT_GROWS: f64 = 1.5;
/// First pause when not one call was let through after the pause before, and the longest.
const FRUITLESS_PAUSE_MIN: Duration = Duration::from_millis(100);
const FRUITLESS_PAUSE_MAX: Duration = Duration::from_secs(8);
/// More grazes than this in a series: 429s that come rarely, and by chance.
const GRAZES_MAX: u32 = 4;
/// Below it, a period is longer than what one call may be later than another by far.
const LOW_PER_SECOND: f64 = 10.0;
/// As many let through each time before a 429: that is a limit, and the rate is cut to it however low it is. With
/// fewer calls than this it takes a third time to tell it from chance.
const FEW: usize = 5;
/// Until then the rate is not cut by more than half at once, nor below this share of what it was.
const UNTRUSTED_MIN: f64 = 0.3;
/// Cuts further apart than this have nothing to do with each other.
const EPISODE: Duration = Duration::from_secs(20);

/// A series of cuts.
#[derive(Debug, Clone, Copy)]
struct Episode {
    /// The rate before the first.
    rate: f64,
    cuts: u32,
    /// How many of them were grazes.
    grazes: u32,
    /// How often in a row as many calls were let through before the cut as before the one before it.
    sames: u32,
    latest: Instant,
    /// Calls that were let through since the first.
    passed: u32,
    /// What was let through in the second before the latest.
    in_second: usize,
}

/// 429s that do not depend on our rate are put up with.
#[derive(Debug, Clone, Copy)]
struct Background {
    /// A running test of "one in ten is turned away" against "every second one is", as the logarithm of how much
    /// likelier the latter is; never below zero, so that the past does not outweigh the present.
    suspicion: f64,
    /// When the lower rate is tried again, and how long that was waited for.
    retry: Instant,
    retry_wait: Duration,
    /// The rate to go back to if that does not help.
    trying: Option<f64>,
    /// Calls since all this began, and how many of them were turned away.
    calls: u32,
    limited: u32,
}

/// `ln(0.5 / 0.1)`: one that was turned away.
const SUSPICION_LIMITED: f64 = 1.609;
/// `ln(0.5 / 0.9)`: one that was let through.
const SUSPICION_PASSED: f64 = -0.588;
/// Five turned away in a row, or seven of eleven: one in ten does that once in some ten thousand calls.
const SUSPICION_MAX: f64 = 8.5;
/// What the rate is lowered to, to see whether there is a limit after all.
const RETRY_RATE: f64 = 0.8;
/// So many times the calls between two that were turned away, all let through at the lower rate: a chance of 2 %.
const RETRY_GAPS: u32 = 4;
/// Turned away this rarely, nothing needs to be put up with: one in so many.
const RARE: u32 = 200;
const RETRY_CALLS_MIN: u32 = 40;
const RETRY_WAIT: Duration = Duration::from_secs(30);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(300);

/// The adapted rate.
#[derive(Debug)]
pub(super) struct Adapt {
    configured: f64,
    current: f64,
    /// What the last cut set the rate to.
    cut_to: f64,
    /// The rate before the step that is on trial.
    proven: f64,
    step: f64,
    wait: Duration,
    changed: Option<Instant>,
    /// What is answered to calls that left before this is known already.
    cut: Option<Instant>,
    /// Calls that left since then and were not turned away.
    passed: u32,
    fruitless: u32,
    episode: Option<Episode>,
    background: Option<Background>,
}

impl Adapt {
    /// Starts at the configured rate, in calls per second.
    pub(super) fn new(configured: f64) -> Self {
        Self {
            configured,
            current: configured,
            cut_to: configured,
            proven: configured,
            step: STEP_MIN,
            wait: WAIT_MIN,
            changed: None,
            cut: None,
            passed: 0,
            fruitless: 0,
            episode: None,
            background: None,
        }
    }

    /// Calls per second at this moment.
    pub(super) fn current(&self) -> f64 {
        self.current
    }

    /// A call leaves. It counts as let through until its 429 comes.
    pub(super) fn left(&mut self) {
        self.passed += 1;
        if let Some(background) = &mut self.background {
            background.suspicion = (background.suspicion + SUSPICION_PASSED).max(0.0);
            background.calls += 1;
        }
    }

    /// A call that left then was turned away; the window knows it already. Answers how long everybody must pause, if
    /// this is news.
    pub(super) fn limited(&mut self, left: Instant, now: Instant, window: &Window) -> Option<Duration> {
        if self.cut.is_some_and(|cut| left <= cut) {
            return None;
        }
        self.passed = self.passed.saturating_sub(1);
        if self.is_background(now) {
            return None;
        }
        let (in_second, first) = window.let_through(left);
        let clear =
            first.map_or(FRUITLESS_PAUSE_MIN, |first| (first + WINDOW + EDGE).saturating_duration_since(now));
        let passed = std::mem::take(&mut self.passed);
        let cut_before = self.cut.replace(now);
        if passed == 0 && cut_before.is_some() {
            return Some(self.fruitless(now));
        }
        self.fruitless = 0;
        if self.current > self.cut_to {
            self.step_failed(in_second, now);
            return Some(clear);
        }
        let episode = self.episode_at(passed, now);
        // A limiter that counts lets the same number through each time; of few that may be chance.
        let apart = in_second.abs_diff(episode.in_second);
        #[expect(clippy::cast_precision_loss, reason = "a second's calls are few")]
        let early = (in_second + 1) as f64 <= self.current * EARLY;
        let same = episode.cuts > 0 && early && apart <= 1.max(in_second / 8);
        let sames = if same { episode.sames + 1 } else { 0 };
        let trusted = sames >= if in_second >= FEW { 1 } else { 2 };
        let since = cut_before.map(|cut| left.saturating_duration_since(cut));
        let estimate = estimate(in_second, passed, since);
        let graze = estimate >= self.current * GRAZE;
        let grazes = episode.grazes + u32::from(graze);
        let by_chance = grazes > self.grazes_max() && !window.is_uneven(now);
        if by_chance || !same && episode.sames < 2 && cuts_do_not_help(&episode, passed) {
            self.put_up_with_it(episode.rate, now);
            return None;
        }
        let lowest = if trusted { 0.0 } else { self.lowest_untrusted(episode.rate) };
        let rate = if graze { self.current * AFTER_GRAZE } else { (estimate * UNDER_CEILING).max(lowest) };
        self.episode =
            Some(Episode { cuts: episode.cuts + 1, grazes, sames, latest: now, in_second, ..episode });
        self.cut_to(rate, now);
        Some(clear)
    }

    /// Time passes: steps up if it is time to.
    pub(super) fn tick(&mut self, now: Instant) {
        self.look_for_a_limit(now);
        let Some(changed) = self.changed else { return };
        if self.current >= self.configured || self.background.is_some_and(|back| back.trying.is_some()) {
            return;
        }
        let stepped = self.proven < self.current;
        let due = if stepped { self.trial() } else { self.wait };
        if now.saturating_duration_since(changed) < due {
            return;
        }
        if stepped {
            self.step = (self.step * 2.0).min(STEP_MAX);
            self.wait = WAIT_MIN;
        }
        self.proven = self.current;
        self.current = (self.current + self.configured * self.step).min(self.configured);
        self.changed = Some(now);
    }

    fn cut_to(&mut self, rate: f64, now: Instant) {
        self.current = rate.clamp(self.configured * FLOOR, self.current);
        self.cut_to = self.current;
        self.proven = self.current;
        self.step = STEP_MIN;
        self.changed = Some(now);
    }

    /// The series of cuts that this one belongs to.
    fn episode_at(&self, passed: u32, now: Instant) -> Episode {
        let fresh = Episode {
            rate: self.current,
            cuts: 0,
            grazes: 0,
            sames: 0,
            latest: now,
            passed: 0,
            in_second: 0,
        };
        let recent = |episode: &Episode| now.saturating_duration_since(episode.latest) < EPISODE;
        self.episode
            .filter(recent)
            .map_or(fresh, |episode| Episode { passed: episode.passed + passed, ..episode })
    }

    /// Not one call got through after the last pause: it was too short, or the limit is very low indeed.
    fn fruitless(&mut self, now: Instant) -> Duration {
        self.fruitless += 1;
        self.changed = Some(now);
        if self.fruitless > 2 {
            self.current = (self.current / 2.0).max(self.configured * FLOOR);
            self.proven = self.current;
        }
        FRUITLESS_PAUSE_MIN.saturating_mul(1 << self.fruitless.min(8)).min(FRUITLESS_PAUSE_MAX)
    }

    /// How long a step is on trial.
    fn trial(&self) -> Duration {
        TRIAL.max(Duration::from_secs_f64(TRIAL_CALLS / self.current))
    }

    fn on_trial(&self, now: Instant) -> bool {
        let recent = |changed| now.saturating_duration_since(changed) < self.trial();
        self.proven < self.current && self.changed.is_some_and(recent)
    }

    /// There were steps since the last cut, and the latest or the ones before it went too far.
    fn step_failed(&mut self, in_second: usize, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "a second's calls are few")]
        let let_through = in_second as f64 * UNDER_CEILING;
        let on_trial = self.on_trial(now);
        let before = if on_trial { self.proven } else { self.proven.min(let_through) };
        if let Some(episode) = self.episode.as_mut().filter(|_| !on_trial) {
            // It held for its trial, and is turned away now: that may be chance.
            episode.grazes += 1;
            episode.latest = now;
        }
        self.current = before.clamp(self.cut_to, self.current);
        self.proven = self.current;
        self.step = STEP_MIN;
        self.wait = self.wait.mul_f64(WAIT_GROWS).min(WAIT_MAX);
        self.changed = Some(now);
    }

    /// How far one 429 alone may lower the rate.
    fn lowest_untrusted(&self, rate: f64) -> f64 {
        (rate * UNTRUSTED_MIN).max(self.current / 2.0).min(self.current * 0.6)
    }

    /// At a low rate calls do not arrive so unevenly that they graze a limit they keep below.
    fn grazes_max(&self) -> u32 {
        if self.current < LOW_PER_SECOND { 1 } else { GRAZES_MAX }
    }

    /// The cuts are taken back.
    fn put_up_with_it(&mut self, rate: f64, now: Instant) {
        self.current = rate;
        self.cut_to = rate;
        self.proven = rate;
        self.changed = Some(now);
        self.episode = None;
        self.background = Some(Background {
            suspicion: 0.0,
            retry: now + RETRY_WAIT,
            retry_wait: RETRY_WAIT,
            trying: None,
            calls: 0,
            limited: 0,
        });
    }

    /// Whether a 429 is one of those that are put up with.
    fn is_background(&mut self, now: Instant) -> bool {
        let Some(background) = &mut self.background else { return false };
        background.suspicion += SUSPICION_LIMITED - SUSPICION_PASSED;
        background.limited += 1;
        if background.suspicion >= SUSPICION_MAX {
            self.background = None;
            return false;
        }
        if let Some(rate) = background.trying.take() {
            // Slower, and still turned away.
            background.retry_wait = (background.retry_wait * 2).min(RETRY_WAIT_MAX);
            background.retry = now + background.retry_wait;
            self.current = rate;
            self.proven = rate;
        }
        true
    }

    /// From time to time, whether a lower rate ends the 429s that are put up with.
    fn look_for_a_limit(&mut self, now: Instant) {
        let Some(background) = &mut self.background else { return };
        let gap = background.calls / background.limited.max(1);
        if background.trying.is_some() {
            if self.passed >= gap.saturating_mul(RETRY_GAPS).max(RETRY_CALLS_MIN) {
                self.background = None;
                self.changed = Some(now);
            }
        } else if now >= background.retry {
            if gap >= RARE {
                self.background = None;
                return;
            }
            background.trying = Some(self.current);
            self.current *= RETRY_RATE;
            self.proven = self.current;
            self.cut = Some(now);
            self.passed = 0;
        }
    }
}

/// Whether calls are turned away as before although the rate was cut again and again. A limiter that counts lets
/// all through after two cuts; with chance 429s some calls pass and one does not, whatever the rate. (A limit of a
/// few calls a second takes more than two cuts to find, but lets no more than those few through in between.)
fn cuts_do_not_help(episode: &Episode, passed: u32) -> bool {
    let by_chance = episode.passed >= episode.cuts * 3;
    episode.cuts >= 2 && episode.passed >= 10 && passed <= 40 && by_chance
}

/// What the limit lets through in a second. A window that began with a burst says too much if it is not a sliding
/// one; from one 429 to the next, over a second or more, it cannot.
fn estimate(in_second: usize, passed: u32, since: Option<Duration>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a second's calls are few")]
    let in_second = in_second as f64;
    match since {
        Some(since) if since >= WINDOW.mul_f64(0.9) && passed >= 5 => {
            in_second.min(f64::from(passed) / since.as_secs_f64())
        }
        _ => in_second,
    }
}
