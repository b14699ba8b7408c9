//! The gate against models of Stripe's limiters, in virtual time: what takes minutes is tried in a moment, with the
//! same result each time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::gate::{Call, Gate, May, Probe};
use super::{Answered, Endpoint, Limiter, Limits};

/// All calls here are for this one.
const ENDPOINT: Endpoint = Endpoint::CreateCard;

/// How a limiter counts a second.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Counts {
    /// Any second.
    Sliding,
    /// Seconds of the clock.
    Fixed,
}

/// A stand-in for Stripe's limiters.
struct Server {
    /// Calls per second, from the second of the run on.
    limits: Vec<(f64, usize)>,
    counts: Counts,
    concurrency: usize,
    /// Whose limit that is, as its 429 says.
    limiter: Limiter,
    /// Share of calls that are turned away for nothing.
    chance: f64,
    latency: Duration,
    /// From when to when nobody answers.
    down: std::ops::Range<f64>,
    accepted: VecDeque<f64>,
    running: usize,
}

impl Server {
    fn new(limit: usize, latency_ms: u64) -> Self {
        Self {
            limits: vec![(0.0, limit)],
            counts: Counts::Sliding,
            concurrency: usize::MAX,
            limiter: Limiter::EndpointRate,
            chance: 0.0,
            latency: Duration::from_millis(latency_ms),
            down: 0.0..0.0,
            accepted: VecDeque::new(),
            running: 0,
        }
    }

    fn call(&mut self, at: f64, random: &mut StdRng) -> Answered {
        if self.down.contains(&at) {
            return Answered::Failed("down".into());
        }
        let counts = self.counts;
        let old = |first: &f64| match counts {
            Counts::Sliding => at - *first >= 1.0,
            Counts::Fixed => first.floor() < at.floor(),
        };
        while self.accepted.front().is_some_and(old) {
            self.accepted.pop_front();
        }
        let limit = self
            .limits
            .iter()
            .rev()
            .find(|(from, _)| *from <= at)
            .expect("the first limit holds from the start")
            .1;
        if self.accepted.len() >= limit {
            return Answered::Limited(self.limiter);
        }
        if self.running >= self.concurrency {
            return Answered::Limited(Limiter::Concurrency);
        }
        if random.random_bool(self.chance) {
            return Answered::Limited(self.limiter);
        }
        self.accepted.push_back(at);
        self.running += 1;
        Answered::Accepted
    }
}

enum Event {
    Ready(Probe, Instant),
    Leaves(Call, Probe),
    Answer(Call, Probe, Answered),
}

/// A line that is never out of jobs.
struct Run {
    rate: f64,
    server: Server,
    /// How long preparing takes, from and to.
    prepares_ms: (u64, u64),
    /// How much later than it was let go a call may leave.
    late_ms: u64,
    seconds: f64,
    seed: u64,
}

/// When calls were let through and turned away, in seconds.
#[derive(Default)]
struct Log {
    through: Vec<f64>,
    limited: Vec<f64>,
    failed: Vec<f64>,
    key_fetches: Vec<f64>,
}

impl Log {
    fn between(times: &[f64], from: f64, to: f64) -> usize {
        times.iter().filter(|at| (from..to).contains(*at)).count()
    }

    #[expect(clippy::cast_precision_loss, reason = "few")]
    fn share_limited(&self) -> f64 {
        self.limited.len() as f64 / (self.limited.len() + self.through.len()) as f64
    }

    /// Let through in the time, as a share of what so many a second would be.
    #[expect(clippy::cast_precision_loss, reason = "few")]
    fn used(&self, from: f64, to: f64, per_second: f64) -> f64 {
        Self::between(&self.through, from, to) as f64 / (per_second * (to - from))
    }
}

/// Most of the times within any second.
fn fullest_second(times: &[f64]) -> usize {
    (0..times.len())
        .map(|first| times[first..].partition_point(|at| at - times[first] < 1.0))
        .max()
        .unwrap_or(0)
}

impl Run {
    fn new(rate: f64, server: Server) -> Self {
        Self { rate, server, prepares_ms: (2, 12), late_ms: 3, seconds: 40.0, seed: 1 }
    }

    fn log(mut self) -> Log {
        let mut random = StdRng::seed_from_u64(self.seed);
        let start = Instant::now();
        let limits = Limits { endpoint: self.rate, account: self.rate };
        let mut gate = Gate::new(limits, 4096, start);
        let mut events: BTreeMap<(Instant, u64), Event> = BTreeMap::new();
        let mut ready: VecDeque<(Probe, Instant)> = VecDeque::new();
        let (mut log, mut now, mut order) = (Log::default(), start, 0);
        let mut later = |events: &mut BTreeMap<_, _>, at, event| {
            order += 1;
            events.insert((at, order), event);
        };
        loop {
            let at = (now - start).as_secs_f64();
            if at >= self.seconds {
                return log;
            }
            let mut next: Option<Instant> = None;
            while let Some((probe, since)) = ready.front().copied() {
                match gate.permit(ENDPOINT, probe, since, true, now) {
                    May::Go(call) => {
                        // Mostly at once, now and then late.
                        let late_us = if random.random_bool(0.1) { self.late_ms * 1000 } else { 1000 };
                        let late = Duration::from_micros(random.random_range(0..=late_us));
                        later(&mut events, now + late, Event::Leaves(call, probe));
                        ready.pop_front();
                    }
                    May::Stale => {
                        gate.turn_stale(ENDPOINT, probe, now);
                        ready.pop_front();
                    }
                    May::At(from) => {
                        assert!(from > now, "a wait that is over");
                        next = Some(from);
                        break;
                    }
                    May::Blocked => break,
                }
            }
            loop {
                match gate.turn(ENDPOINT, now) {
                    May::Go(probe) => {
                        let takes = random.random_range(self.prepares_ms.0..=self.prepares_ms.1);
                        log.key_fetches.push(at);
                        later(&mut events, now + Duration::from_millis(takes), Event::Ready(probe, now));
                    }
                    May::At(from) => {
                        assert!(from > now, "a wait that is over");
                        next = Some(next.map_or(from, |next| next.min(from)));
                        break;
                    }
                    May::Blocked | May::Stale => break,
                }
            }
            let Some(((due, _), _)) = events.first_key_value() else {
                now = next.expect("nothing happens any more");
                continue;
            };
            if let Some(earlier) = next.filter(|next| next < due) {
                now = earlier;
                continue;
            }
            let ((due, _), event) = events.pop_first().expect("the first was seen above");
            now = now.max(due);
            let at = (now - start).as_secs_f64();
            match event {
                Event::Ready(probe, taken) => {
                    gate.prepared_in(ENDPOINT, now - taken);
                    ready.push_back((probe, now));
                }
                Event::Leaves(call, probe) => {
                    gate.left(call, now);
                    let answered = self.server.call(at, &mut random);
                    let (times, takes) = match &answered {
                        Answered::Accepted => (&mut log.through, self.server.latency),
                        Answered::Limited(_) => (&mut log.limited, Duration::from_millis(5)),
                        Answered::Failed(_) => (&mut log.failed, Duration::from_millis(1)),
                    };
                    times.push(at);
                    later(&mut events, now + takes, Event::Answer(call, probe, answered));
                }
                Event::Answer(call, probe, answered) => {
                    if answered == Answered::Accepted {
                        self.server.running -= 1;
                    }
                    gate.answered(answered, call, probe, now);
                }
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
fn limit(rate: f64) -> usize {
    rate as usize
}

const LATENCIES_MS: [u64; 3] = [5, 200, 1000];
const RATES: [f64; 3] = [25.0, 100.0, 1000.0];

#[test]
fn the_whole_rate_is_used_and_nothing_is_turned_away() {
    for rate in RATES {
        for latency_ms in LATENCIES_MS {
            for counts in [Counts::Sliding, Counts::Fixed] {
                let server = Server { counts, ..Server::new(limit(rate), latency_ms) };
                let mut run = Run::new(rate, server);
                // Departures as late as on a busy machine: up to half a period at 25 a second.
                run.late_ms = 20;
                let log = run.log();
                let what = format!("{rate}/s, {latency_ms} ms, {counts:?}");
                assert_eq!(log.limited.len(), 0, "{what}");
                let used = log.used(1.0, 21.0, rate);
                assert!(used >= 0.99, "{what}: {used}");
                let fetches = fullest_second(&log.key_fetches);
                assert!(fetches <= limit(rate) + 1, "{what}: {fetches} key fetches in a second");
            }
        }
    }
}

#[test]
fn a_slow_key_endpoint_does_not_starve_the_pace() {
    for prepares_ms in [(800, 800), (100, 900), (2900, 3100)] {
        let mut run = Run::new(25.0, Server::new(25, 200));
        run.prepares_ms = prepares_ms;
        run.seconds = 60.0;
        let log = run.log();
        let used = log.used(20.0, 60.0, 25.0);
        assert!(used >= 0.985, "{prepares_ms:?}: {used}");
        assert_eq!(log.limited.len(), 0);
    }
}

#[test]
fn a_lower_limit_is_found_within_ten_seconds_and_used() {
    for rate in RATES {
        for latency_ms in LATENCIES_MS {
            for (counts, limiter) in [
                (Counts::Sliding, Limiter::EndpointRate),
                (Counts::Sliding, Limiter::AccountRate),
                (Counts::Fixed, Limiter::EndpointRate),
            ] {
                for share in [0.1, 0.5, 0.9] {
                    for seed in 1..=if rate < 1000.0 { 3 } else { 1 } {
                        let allowed = limit(rate * share);
                        let server = Server { counts, limiter, ..Server::new(allowed, latency_ms) };
                        let mut run = Run::new(rate, server);
                        run.seed = seed;
                        let log = run.log();
                        #[expect(clippy::cast_precision_loss, reason = "few")]
                        let used = log.used(10.0, 40.0, allowed as f64);
                        let turned = log.share_limited();
                        let what = format!(
                            "{rate}/s, {allowed} by {limiter:?}, {latency_ms} ms, {counts:?}, seed {seed}"
                        );
                        assert!(used >= 0.9, "{what}: {used} used");
                        // Each look for a higher limit costs a call; where only a hundred are allowed in all, they
                        // are more of them.
                        assert!(turned < 0.02 || log.limited.len() <= 8, "{what}: {turned} turned away");
                    }
                }
            }
        }
    }
}

#[test]
fn a_limit_that_rises_again_is_used_again() {
    for rate in RATES {
        let mut server = Server::new(limit(rate / 2.0), 200);
        server.limits.push((20.0, limit(rate)));
        let mut run = Run::new(rate, server);
        run.seconds = 100.0;
        let log = run.log();
        let used = log.used(70.0, 100.0, rate);
        assert!(used >= 0.97, "{rate}: {used}");
        assert!(log.share_limited() < 0.02, "{}", log.share_limited());
    }
}

#[test]
fn a_limit_that_falls_and_falls_is_followed() {
    let mut server = Server::new(100, 200);
    server.limits.extend([(20.0, 60), (40.0, 30), (60.0, 10)]);
    let mut run = Run::new(100.0, server);
    run.seconds = 80.0;
    let log = run.log();
    for (from, per_second) in [(5.0, 100.0), (25.0, 60.0), (45.0, 30.0), (65.0, 10.0)] {
        let used = log.used(from, from + 15.0, per_second);
        assert!(used >= 0.88, "{per_second}: {used}");
    }
    assert!(log.share_limited() < 0.02, "{}", log.share_limited());
}

/// At best 90 % could be let through.
#[test]
fn one_in_ten_turned_away_for_nothing_does_not_starve_the_line() {
    for (rate, latency_ms, seeds) in [(25.0, 5, 20), (25.0, 1000, 10), (100.0, 200, 10), (1000.0, 5, 1)] {
        let mut all = 0.0;
        for seed in 1..=seeds {
            let server = Server { chance: 0.1, ..Server::new(usize::MAX, latency_ms) };
            let mut run = Run::new(rate, server);
            run.seconds = 120.0;
            run.seed = seed;
            let used = run.log().used(10.0, 120.0, rate);
            assert!(used >= 0.65, "{rate}/s, {latency_ms} ms, seed {seed}: {used} used");
            all += used / f64::from(u32::try_from(seeds).expect("seeds are few"));
        }
        assert!(all >= 0.83, "{rate}/s, {latency_ms} ms: {all} used on average");
    }
}

#[test]
fn one_in_a_hundred_turned_away_for_nothing_does_not_wear_the_rate_down() {
    const SEEDS: u32 = 10;
    for rate in [25.0, 100.0] {
        let mut all = 0.0;
        for seed in 1..=SEEDS {
            let server = Server { chance: 0.01, ..Server::new(usize::MAX, 50) };
            let mut run = Run::new(rate, server);
            run.seconds = 300.0;
            run.seed = seed.into();
            let used = run.log().used(10.0, 300.0, rate);
            // Some meet many by chance, one after the other.
            assert!(used >= 0.75, "{rate}/s, seed {seed}: {used} used");
            all += used / f64::from(SEEDS);
        }
        assert!(all >= 0.92, "{rate}/s: {all} used on average");
    }
}

/// 429s that were put up with do not hide a limit.
#[test]
fn a_limit_is_found_among_429s_that_mean_nothing() {
    let mut server = Server { chance: 0.05, ..Server::new(usize::MAX, 50) };
    server.limits.push((40.0, 50));
    let mut run = Run::new(100.0, server);
    run.seconds = 100.0;
    let log = run.log();
    let used = log.used(50.0, 100.0, 50.0);
    assert!(used >= 0.6, "{used}");
    let late: Vec<f64> = log.limited.iter().copied().filter(|at| *at > 50.0).collect();
    assert!(late.len() < 400, "{} turned away once the limit was known", late.len());
}

#[test]
fn a_concurrency_limit_is_found_and_the_rate_is_left_alone() {
    let server = Server { concurrency: 4, ..Server::new(usize::MAX, 200) };
    let log = Run::new(25.0, server).log();
    let used = log.used(5.0, 40.0, 20.0);
    assert!(used >= 0.95, "four at once, 200 ms each, are 20 a second: {used}");
    assert!(log.share_limited() < 0.02, "{}", log.share_limited());
}

#[test]
fn when_stripe_is_down_few_ask_and_all_go_on_when_it_is_back() {
    let server = Server { down: 5.0..35.0, ..Server::new(25, 200) };
    let mut run = Run::new(25.0, server);
    run.seconds = 100.0;
    let log = run.log();
    assert!(log.failed.len() < 8 + 12, "{} calls while it was down", log.failed.len());
    let used = log.used(66.0, 100.0, 25.0);
    assert!(used >= 0.98, "{used}");
}

#[test]
fn below_one_a_second_the_period_is_kept() {
    let mut run = Run::new(0.5, Server::new(1, 200));
    run.seconds = 60.0;
    let log = run.log();
    assert!((29..=30).contains(&log.through.len()), "{}", log.through.len());
    assert!(log.through.windows(2).all(|pair| pair[1] - pair[0] > 1.98), "{:?}", log.through);
}

/// When calls of each endpoint may leave in so many seconds, all of them being wanted at any time.
fn shared(limits: Limits, endpoints: &[Endpoint], seconds: u64) -> Vec<Vec<f64>> {
    const STEP: Duration = Duration::from_micros(500);
    let start = Instant::now();
    let mut gate = Gate::new(limits, 4096, start);
    let mut ready: Vec<VecDeque<(Probe, Instant)>> = vec![VecDeque::new(); endpoints.len()];
    let mut left = vec![Vec::new(); endpoints.len()];
    let mut now = start;
    while now < start + Duration::from_secs(seconds) {
        // Whoever is ready for longest goes first, as the queues have it.
        loop {
            let mut order: Vec<usize> = (0..endpoints.len()).filter(|at| !ready[*at].is_empty()).collect();
            order.sort_by_key(|at| ready[*at].front().map(|(_, since)| *since));
            let went = order.into_iter().any(|at| {
                let (probe, since) = ready[at][0];
                match gate.permit(endpoints[at], probe, since, true, now) {
                    May::Go(call) => {
                        gate.left(call, now);
                        gate.answered(Answered::Accepted, call, probe, now);
                        left[at].push((now - start).as_secs_f64());
                    }
                    May::Stale => gate.turn_stale(endpoints[at], probe, now),
                    May::At(_) | May::Blocked => return false,
                }
                ready[at].pop_front();
                true
            });
            if !went {
                break;
            }
        }
        for (endpoint, ready) in endpoints.iter().zip(&mut ready) {
            while let May::Go(probe) = gate.turn(*endpoint, now) {
                gate.prepared_in(*endpoint, Duration::from_millis(5));
                ready.push_back((probe, now));
            }
        }
        now += STEP;
    }
    left
}

#[test]
fn each_endpoint_has_its_limit_and_all_of_them_the_accounts() {
    let two = [Endpoint::CreateCardholder, Endpoint::CreateCard];
    let three = [Endpoint::CreateCardholder, Endpoint::CreateCard, Endpoint::ListCards];
    // The account's limit is above both; below both together; and the same as each one's.
    for (account, endpoints, each) in
        [(100.0, &two[..], 25.0), (40.0, &two, 20.0), (25.0, &two, 12.5), (60.0, &three, 20.0)]
    {
        let left = shared(Limits { endpoint: 25.0, account }, endpoints, 31);
        let mut all: Vec<f64> = left.concat();
        all.sort_by(f64::total_cmp);
        assert!(fullest_second(&all) <= limit(account), "{account}: {}", fullest_second(&all));
        for calls in &left {
            assert!(fullest_second(calls) <= 25);
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let used = Log::between(calls, 1.0, 31.0) as f64 / 30.0;
            assert!((each * 0.95..=each * 1.05).contains(&used), "{account}, {each} each: {used}");
        }
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let used = Log::between(&all, 1.0, 31.0) as f64 / 30.0;
        let sum: f64 = left.iter().map(|_| each).sum();
        assert!(used >= 0.985 * sum, "{account}: {used} of {sum}");
    }
}
