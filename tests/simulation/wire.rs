//! The way to Stripe and back: connections that are not made, requests that leave late or are lost, answers that are lost or come late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use embosser::clock::Clock;
use embosser::stripe::simulated::{Reply, Transport};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use reqwest::Request;

use super::executor::{self, Life};
use super::pins;
use super::stripe::{Answer, Call, Came, Ends, Execution, endpoint, limited};
use super::world::World;

/// How long a client waits for an answer: longer than `stripe.total_timeout_seconds` is as a rule, so that late answers are heard.
const TOTAL: Duration = Duration::from_secs(80);
/// What a call may last at Stripe at most, with its way there.
const LASTS_MS: [u64; 6] = [500, 5000, 20_000, 79_000, 90_000, 118_000];
/// The most that lists lag by.
const LAG_MS: [u64; 5] = [0, 0, 1000, 20_000, 59_000];

/// One life's connections to Stripe for an account.
pub(crate) struct Wire {
    pub(crate) world: Arc<World>,
    pub(crate) account: usize,
    pub(crate) process: usize,
    pub(crate) life: Life,
    pub(crate) clock: Clock,
}

/// Why there is no answer.
const CUT: &str = "connection failed: simulated";

impl Transport for Wire {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, String>> {
        Box::pin(async move {
            match tokio::time::timeout(TOTAL, self.through(request)).await {
                Ok(reply) => reply,
                Err(_) => Err("no answer in time".into()),
            }
        })
    }
}

impl Wire {
    async fn through(&self, mut request: Request) -> Result<Reply, String> {
        let chances = self.world.setup.chances;
        if request.url().path() == "/v1/keys" {
            return self.key().await;
        }
        let endpoint = endpoint(request.method().as_str(), request.url().path());
        let (connects, asked) =
            (self.delay(chances.slow, &[0, 0, 1, 5], &[30, 300, 3000]), self.world.now_ms());
        pause(connects).await;
        if self.world.comes(chances.unconnected) {
            return Err("cannot connect: simulated".into());
        }
        if request.method() == Method::GET {
            // A connection takes it, and leaves its empty body behind.
            drop(request.body_mut().take());
            if self.world.now_ms() > asked + connects {
                // Nothing can hold a question back that waited for its connection while its process slept.
                self.world.note(format_args!("life {}: a question leaves after a sleep", self.life));
            } else {
                self.leaves(endpoint);
            }
            return self.get(&request, endpoint).await;
        }
        let body = request.body_mut().take().ok_or("no body")?;
        // The moment at which it leaves, or stays.
        let body = body.collect().await.map_err(|_| CUT.to_owned())?.to_bytes();
        self.leaves(endpoint);
        self.may_leave(&key_of(&request), &body);
        self.post(&request, endpoint, body).await
    }

    fn leaves(&self, endpoint: &'static str) {
        let now = self.world.now_ms();
        let holder = self.world.leases.holder(&World::scope(self.account));
        let setup = &self.world.setup;
        self.world.note(format_args!("life {} account {}: {endpoint} leaves", self.life, self.account));
        let is_holder = holder == Some(u32::try_from(self.life).unwrap());
        self.world.judge(|state| state.oracle.left(setup, self.account, endpoint, now, is_holder));
    }

    /// A call that changes something leaves only while its process has the lease and the ledger says that it is begun, and a PIN only
    /// before its deadline. A process that slept may hear an answer and record it after the next one has recorded that it calls: then
    /// that one's call, which comes at once, is of a job that is done, and has no effect, since it is under the same key.
    fn may_leave(&self, key: &str, body: &[u8]) {
        let holder = self.world.leases.holder(&World::scope(self.account));
        if holder != Some(u32::try_from(self.life).unwrap()) {
            self.world.judge(|_| Err(format!("life {} calls, and {holder:?} has the lease", self.life)));
        }
        let (job, has_pin) = (job_of(body), form_of(body).contains_key("pin[encrypted_number]"));
        let (of_step, is_first) = key.strip_suffix("-first").map_or((key, false), |of_step| (of_step, true));
        let generation = of_step.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let is =
            |what| self.world.database.is(&World::scope(self.account), &job, (is_first, generation), what);
        if !is("begun") {
            let (is_done, now) = (is("done"), self.world.now_ms());
            self.world.judge(|state| {
                let is_just_done =
                    is_done && state.oracle.is_just_done(self.life, (self.account, &job, key), now);
                if is_just_done && state.accounts[self.account].is_done_under(key, now) {
                    state.oracle.count("calls for what is done");
                    return Ok(());
                }
                Err(format!("life {} calls for {job}, which the ledger does not say", self.life))
            });
        }
        let now = self.clock.now();
        self.world.judge(|state| match state.deadlines.get(&(self.life, job.clone())) {
            Some(Some(deadline)) if has_pin && now > *deadline => {
                Err(format!("{job}: its PIN leaves after its deadline"))
            }
            _ => Ok(()),
        });
    }

    fn delay(&self, chance: u32, usual_ms: &[u64], slow_ms: &[u64]) -> u64 {
        if self.world.comes(chance) { self.world.pick(slow_ms) } else { self.world.pick(usual_ms) }
    }

    async fn key(&self) -> Result<Reply, String> {
        pause(self.delay(self.world.setup.chances.slow, &[1, 5], &[500, 5000])).await;
        let (kid, out_until) = {
            let state = self.world.state();
            (state.kid, state.keys_out_until)
        };
        if self.world.now_ms() < out_until || self.world.comes(self.world.setup.chances.answer_lost / 4) {
            return Err(CUT.into());
        }
        Ok(reply(Answer { status: 200, headers: Vec::new(), body: pins::document(kid) }))
    }

    /// What stands before Stripe, or a limiter, answers instead.
    fn turned_away(&self, endpoint: &str) -> Option<Answer> {
        let (world, chances) = (&self.world, self.world.setup.chances);
        let now = world.now_ms();
        if now < world.state().stripe_out_until {
            return Some(Answer::page(503));
        }
        if now < world.state().alike_until {
            let status = world.state().alike;
            return Some(Answer::error(
                status,
                "invalid_request_error",
                "not_enabled",
                "your account may not do this",
            ));
        }
        if world.comes(chances.error / 2) {
            return Some(match world.pick(&[0, 1, 2, 3]) {
                0 => Answer::page(502),
                1 => Answer::error(503, "api_error", "", "unavailable"),
                2 => Answer::error(424, "api_error", "", "a dependency failed"),
                _ => Answer::error(429, "invalid_request_error", "lock_timeout", "busy"),
            });
        }
        if world.comes(chances.limited / 3) {
            let reasons = [
                "global-rate",
                "endpoint-rate",
                "global-concurrency",
                "endpoint-concurrency",
                "resource-specific",
            ];
            return Some(limited(world.pick(&reasons)));
        }
        world.state().accounts[self.account].limits(endpoint, now)
    }

    async fn get(&self, request: &Request, endpoint: &'static str) -> Result<Reply, String> {
        let chances = self.world.setup.chances;
        pause(self.delay(chances.slow, &[1, 10, 60], &[1000, 10_000])).await;
        if self.world.comes(chances.request_lost) {
            return Err(CUT.into());
        }
        let answer = self.turned_away(endpoint).unwrap_or_else(|| {
            let now = self.world.now_ms();
            self.world.state().accounts[self.account].read(request.url(), self.world.setup.page, now)
        });
        pause(self.delay(chances.slow, &[1, 10, 60], &[1000, 10_000])).await;
        if self.world.comes(chances.answer_lost) {
            return Err(CUT.into());
        }
        Ok(reply(answer))
    }

    async fn post(&self, request: &Request, endpoint: &'static str, body: Bytes) -> Result<Reply, String> {
        let (world, chances) = (self.world.clone(), self.world.setup.chances);
        let (key, path) = (key_of(request), request.url().path().to_owned());
        let under = key.clone();
        let (there_ms, back_ms) = (
            self.delay(chances.slow, &[1, 10, 50], &[300, 1000]),
            self.delay(chances.slow, &[1, 10, 50], &[3000, 30_000, 90_000]),
        );
        if world.comes(chances.request_lost) {
            // It waits for an answer that never comes, or is told soon.
            pause(self.world.pick(&[10, 1000, 100_000])).await;
            return Err(CUT.into());
        }
        let arriving = Arriving {
            account: self.account,
            process: self.process,
            key,
            path,
            body,
            endpoint,
            left: world.state().oracle.number(),
            wall_ms: self.clock.now().unix_ms(),
        };
        let away = self.turned_away(endpoint);
        let (answers, answered) = tokio::sync::oneshot::channel();
        // What has left arrives, whatever becomes of who sent it.
        executor::spawn(async move {
            pause(there_ms).await;
            let answer = match away {
                Some(away) => away,
                None => arriving.executed(&world).await,
            };
            pause(back_ms).await;
            let _ = answers.send(answer);
        });
        let answer = answered.await.map_err(|_| CUT.to_owned())?;
        if self.world.comes(chances.answer_lost) {
            if self.world.pick(&[true, false]) {
                return Err(CUT.into());
            }
            let mut broken = reply(answer);
            broken.body = Err("broken off".into());
            return Ok(broken);
        }
        if answer.status == 200 {
            let now = self.world.now_ms();
            self.world.state().oracle.hears(self.life, &under, now);
        }
        Ok(reply(answer))
    }
}

/// A call on its way.
struct Arriving {
    account: usize,
    process: usize,
    key: String,
    path: String,
    body: Bytes,
    endpoint: &'static str,
    /// Where it stands among all that happened.
    left: u64,
    /// The time of day as its process knew it when it left.
    wall_ms: i64,
}

impl Arriving {
    async fn executed(self, world: &Arc<World>) -> Answer {
        let now = world.now_ms();
        let chances = world.setup.chances;
        let lasts_ms =
            if world.comes(chances.slow) { world.pick(&LASTS_MS) } else { world.pick(&[20, 200, 900]) };
        let ends = if world.comes(chances.declined) {
            Ends::Declined
        } else if world.comes(chances.error) {
            Ends::Error { has_effect: world.pick(&[true, false]) }
        } else {
            Ends::Well
        };
        let lag_ms = if world.state().is_in_trouble { world.pick(&LAG_MS) } else { 0 };
        let execution = Execution { lasts_ms, ends, lag_ms };
        let came = {
            let mut state = world.state();
            let kid = pins::kid(state.kid);
            let call = Call { path: &self.path, key: &self.key, body: &self.body, kid: &kid };
            state.accounts[self.account].change(&call, execution, now)
        };
        let Came { answer, lasts_ms, made, is_of_forgotten_key } = came;
        if is_of_forgotten_key && made.is_some() && self.is_deceived(world) {
            world.note(format_args!("a clock was wrong and nothing could show it"));
            executor::current().over();
            return answer;
        }
        world.note(format_args!(
            "account {}: {} of process {} under {}: {} after {lasts_ms} ms, made {made:?}",
            self.account, self.endpoint, self.process, self.key, answer.status
        ));
        if let Some(made) = &made {
            world.judge(|state| state.oracle.made(&state.accounts, self.account, made, self.left));
        }
        pause(lasts_ms).await;
        answer
    }

    /// A key that Stripe has forgotten may make a second effect. No clock can keep a process from it that is wrong by more than the
    /// hour between the trust in keys and their end, and shows no time as future: such a history proves nothing.
    fn is_deceived(&self, world: &Arc<World>) -> bool {
        const TRUSTED_MS: i64 = 23 * 3600 * 1000;
        let began = world.database.key_began(&World::scope(self.account), &job_of(&self.body));
        let seems = self.wall_ms - began.unwrap_or(i64::MIN / 2);
        world.setup.sets_clocks && (0..=TRUSTED_MS).contains(&seems)
    }
}

fn key_of(request: &Request) -> String {
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    key.unwrap_or_default().to_owned()
}

fn form_of(body: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(body).into_owned().collect()
}

/// The job that a call is for.
fn job_of(body: &[u8]) -> String {
    let form = form_of(body);
    let job = ["metadata[embosser_job]", "metadata[embosser_change]"].iter().find_map(|name| form.get(*name));
    job.cloned().unwrap_or_default()
}

async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

fn reply(answer: Answer) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert("request-id", HeaderValue::from_static("req_simulated"));
    for (name, value) in answer.headers {
        headers.insert(HeaderName::from_static(name), value.parse().unwrap());
    }
    let status = StatusCode::from_u16(answer.status).unwrap();
    Reply { status, headers, body: Ok(answer.body.into()) }
}
