//! Promise: a ledger that fails half-way, or a cancelling that comes between two steps, leaves a chosen PIN with one card, or its
//! link good, or its job waiting; and nobody waits for ever.

use crate::support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use embosser::clock::Clock;
use embosser::config::PinPageConfig;
use embosser::job::{Batch, Job, JobId};
use embosser::ledger::{Begin, Conclude, Row, State};
use embosser::line::decision::Rules;
use embosser::line::settle::{CUT_OFF, Settled, Settling};
use embosser::line::{self, CarriedOnly, Line, LookFirst, Parts};
use embosser::operation::{Operation, Request};
use embosser::outcome::{Outcome, Refusal};
use embosser::pin_links::{LinksWhen, PinLinks};
use embosser::sandbox::{Faults, KeyEndpoint, Options, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::Connection as _;
use support::choosing::{
    Stage, ask, choose, encrypted, links_of, look, one_that_waits, pins_of, stage, token_of,
};
use support::line::{CALLS_LAST, LISTS_LAG, parts_in, refused};
use support::postgres::Postgres;
use support::proxy::Proxy;
use support::serve::Served;
use support::{Program, http_client, sqlite};

const JOB: &str = "/v1/jobs/staff%2Fa";

async fn until_state(served: &Served, state: &str) -> Value {
    let began = Instant::now();
    loop {
        let view = served.get(JOB).await.expect(200).json();
        if view["state"] == state {
            return view;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "never {state}: {view}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn waiting(view: &Value) -> usize {
    view["waiting"].as_array().unwrap().len()
}

/// A ledger in which a kind of write fails for as long as a trigger stands.
struct Ledger {
    file: PathBuf,
}

impl Ledger {
    fn of(stage: &Stage) -> (Self, Program) {
        let file = stage.directory.path().join("ledger.db");
        let program = stage.program.clone().with("EMBOSSER__LEDGER__URL", &sqlite(&file));
        (Self { file }, program)
    }

    /// `BEFORE … ON … WHEN …`
    fn fails(&self, event: &str) {
        let trigger =
            format!("CREATE TRIGGER fails {event} BEGIN SELECT RAISE(ABORT, 'the test says no'); END");
        rusqlite::Connection::open(&self.file).unwrap().execute_batch(&trigger).unwrap();
    }

    fn is_mended(&self) {
        rusqlite::Connection::open(&self.file).unwrap().execute_batch("DROP TRIGGER fails").unwrap();
    }
}

/// The link cannot be written as used: nothing was begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_cannot_be_claimed_is_not_used_and_nothing_is_made() {
    let stage = stage().await;
    let (ledger, program) = Ledger::of(&stage);
    let served = Served::start(&program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    ledger.fails(
        "BEFORE UPDATE ON metadata WHEN NEW.name LIKE 'pin_link:%' AND NEW.value LIKE '%\"used_ms\"%'",
    );
    let jwe = encrypted(&stage.sandbox, "4711").await;
    assert_eq!(choose(&served, &link, &jwe).await.expect(503).json()["code"], "not_now");
    assert!(pins_of(&stage.sandbox, "staff/a").is_empty());
    ledger.is_mended();
    look(&served, &link).await.expect(200);
    choose(&served, &link, &jwe).await.expect(200);
    assert_eq!(pins_of(&stage.sandbox, "staff/a"), [Some("4711".to_owned())]);
}

/// A PIN under an old key has no effect, and its link cannot be given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_cannot_be_given_back_is_made_anew_by_whoever_asks() {
    let stage = stage().await;
    let (ledger, program) = Ledger::of(&stage);
    let served = Served::start(&program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    ledger.fails(
        "BEFORE UPDATE ON metadata WHEN OLD.name LIKE 'pin_link:%' AND OLD.value LIKE '%\"used_ms\"%' AND NEW.value NOT LIKE '%\"used_ms\"%'",
    );
    let stale = encrypted(&stage.sandbox, "4711").await;
    stage.sandbox.rotate_key();
    assert_eq!(choose(&served, &link, &stale).await.expect(409).json()["code"], "stale_key");
    look(&served, &link).await.expect(404);
    until_state(&served, "awaiting_pin").await;
    ledger.is_mended();
    let new = links_of(&served, "staff").await.remove("a").unwrap();
    choose(&served, &new, &encrypted(&stage.sandbox, "4711").await).await.expect(200);
    assert_eq!(pins_of(&stage.sandbox, "staff/a"), [Some("4711".to_owned())]);
}

/// The card is made and its end recorded; that its job waits no more is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_could_not_be_forgotten_as_waiting_is_forgotten_later_and_takes_no_second_pin() {
    let stage = stage().await;
    let (ledger, program) = Ledger::of(&stage);
    let served = Served::start(&program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    ledger.fails("BEFORE DELETE ON metadata WHEN OLD.name LIKE 'awaiting_pin:%'");
    choose(&served, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(200);
    assert_eq!(waiting(&served.get("/v1/pin-links").await.expect(200).json()), 1);
    // Who gets another link meanwhile has come too late.
    let made = ask(&served, "/v1/pin-links", &json!({"job": "staff/a"})).await.expect(200).json();
    let other = made["links"][0]["pin_link"].as_str().unwrap();
    look(&served, other).await.expect(404);
    choose(&served, other, &encrypted(&stage.sandbox, "1379").await).await.expect(404);
    assert_eq!(served.stopped().await.0, Some(0));
    ledger.is_mended();
    let served = Served::start(&program, &["--rate", "100"]);
    let began = Instant::now();
    while waiting(&served.get("/v1/pin-links").await.expect(200).json()) > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "it waits for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(pins_of(&stage.sandbox, "staff/a"), [Some("4711".to_owned())]);
}

/// The card is made, and that cannot be recorded: the page is told that the PIN was taken, as it may be; the line stops, and the card
/// is found when it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_cannot_be_recorded_is_found_out_when_the_ledger_is_there_again() {
    let stage = stage().await;
    let (ledger, program) = Ledger::of(&stage);
    let served = Served::start(&program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    ledger.fails("BEFORE UPDATE ON steps WHEN NEW.state = 'done'");
    let jwe = encrypted(&stage.sandbox, "4711").await;
    choose(&served, &link, &jwe).await.expect(200);
    assert_eq!(served.get(JOB).await.expect(200).json()["state"], "unresolved");
    served.get("/readyz").await.expect(503);
    served.stopped().await;
    ledger.is_mended();
    let served = Served::start(&program, &["--rate", "100"]);
    until_state(&served, "issued").await;
    assert_eq!(pins_of(&stage.sandbox, "staff/a"), [Some("4711".to_owned())]);
    assert_eq!(waiting(&served.get("/v1/pin-links").await.expect(200).json()), 0);
}

/// PostgreSQL makes a link used, and the connection is gone before it can say so: it was this page's own claim.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_is_lost_is_known_for_ones_own() {
    const SLOW: &str = "
        CREATE FUNCTION slow() RETURNS trigger AS 'BEGIN PERFORM pg_sleep(2); RETURN NEW; END' LANGUAGE plpgsql;
        CREATE TRIGGER slow BEFORE UPDATE ON metadata FOR EACH ROW
            WHEN (NEW.name LIKE 'pin_link:%' AND NEW.value LIKE '%\"used_ms\"%' AND OLD.value NOT LIKE '%\"used_ms\"%')
            EXECUTE FUNCTION slow()";
    let stage = stage().await;
    let server = Postgres::start();
    let (port, url) =
        (server.url().rsplit_once('/').unwrap().0.rsplit_once(':').unwrap().1.parse().unwrap(), server.url());
    let proxy = Proxy::before(port).await;
    let by_proxy = url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let served =
        Served::start(&stage.program.clone().with("EMBOSSER__LEDGER__URL", &by_proxy), &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(SLOW).execute(&mut connection).await.unwrap();
    let jwe = encrypted(&stage.sandbox, "4711").await;
    let cut = async {
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        let began = Instant::now();
        while sqlx::query_scalar::<_, i64>(asleep).fetch_one(&mut connection).await.unwrap() == 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "the link is not being used");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.cut();
    };
    let (chosen, ()) = tokio::join!(choose(&served, &link, &jwe), cut);
    // The claim is its own. Other connections were cut as well, so that it may have been given back: then it is as good as before.
    if chosen.status != 200 {
        assert_eq!(chosen.expect(503).json()["code"], "not_now");
        choose(&served, &link, &jwe).await.expect(200);
    }
    assert_eq!(pins_of(&stage.sandbox, "staff/a"), [Some("4711".to_owned())]);
    choose(&served, &link, &encrypted(&stage.sandbox, "1379").await).await.expect(404);
    let (_, log) = served.stopped().await;
    assert!(log.contains("the ledger does not serve; waiting for it"), "the answer was not lost: {log}");
}

/// Requests for the key that came to Stripe.
async fn asked_for_key(stage: &Stage) -> usize {
    let seen =
        http_client().get(format!("{}/_sandbox/requests", stage.sandbox.api_url())).send().await.unwrap();
    let seen: Vec<Value> = seen.json().await.unwrap();
    seen.iter().filter(|one| one["path"] == "/v1/keys").count()
}

/// Anybody may ask for the key: where the endpoint is down, pages do not go on asking it.
#[tokio::test(flavor = "multi_thread")]
async fn pages_do_not_press_a_key_endpoint_that_is_down_and_get_the_key_when_it_is_back() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    served.get("/v1/pin-key").await.expect(200);
    stage.sandbox.set_key_endpoint(KeyEndpoint::Unavailable);
    // So many failures open the circuit.
    for _ in 0..8 {
        assert_eq!(served.get("/v1/pin-key").await.expect(503).json()["code"], "not_now");
    }
    let (before, began) = (asked_for_key(&stage).await, Instant::now());
    let pages = futures_util::future::join_all((0..30).map(|_| served.get("/v1/pin-key"))).await;
    assert!(pages.iter().all(|answer| answer.status == 503), "{pages:?}");
    // Half a second, one, two, and four between them.
    let probes = asked_for_key(&stage).await - before;
    assert!((1..=5).contains(&probes), "{probes} requests in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(12), "a page is answered: {:?}", began.elapsed());
    stage.sandbox.set_key_endpoint(KeyEndpoint::Up);
    let began = Instant::now();
    while served.get("/v1/pin-key").await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(45), "the key is not had again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A call was begun when the server was killed, and Stripe's lists do not answer: who cancels is told so, soon enough for a browser;
/// and it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_is_answered_within_20_seconds_and_the_cancelling_goes_on() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    drop(served);
    let killer = stage.program.clone().with("EMBOSSER_KILL_AT", "begun:1");
    let served = Served::start(&killer, &["--rate", "100"]);
    let body = json!({"link": token_of(&link), "pin": encrypted(&stage.sandbox, "4711").await});
    let json_type = [("content-type", "application/json")];
    let body = body.to_string().into_bytes();
    let cut = served.try_ask(reqwest::Method::POST, "/v1/pin-links/choose", &json_type, body).await;
    assert!(cut.is_err(), "{cut:?}");
    drop(served);
    stage.sandbox.set_faults(Faults { list_error: 1.0, ..Faults::default() });
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let began = Instant::now();
    let answer = ask(&served, "/v1/pin-links/cancel", &json!({"batch": "staff"})).await.expect(200).json();
    let took = began.elapsed();
    assert_eq!((&answer["cancelled"], &answer["pending"]), (&json!(0), &json!(1)), "{answer}");
    assert!((Duration::from_secs(19)..Duration::from_secs(24)).contains(&took), "{took:?}");
    stage.sandbox.set_faults(Faults::default());
    // In between it is said that the call had no effect, and that another PIN is needed.
    let began = Instant::now();
    while served.get(JOB).await.expect(200).json()["code"] != "cancelled" {
        assert!(began.elapsed() < Duration::from_secs(40), "it is not cancelled");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(pins_of(&stage.sandbox, "staff/a").is_empty());
}

/// A chosen PIN was refused, and before its job waits again somebody else cancels it: it does not wait again.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_between_a_refused_pin_and_its_waiting_stays_cancelled() {
    let stage = stage().await;
    let other = Served::start(&stage.program, &["--rate", "100"]);
    let link = one_that_waits(&other, "staff").await;
    let stopper = stage.program.clone().with("EMBOSSER_STOP_AT", "recorded:1");
    let served = Served::start(&stopper, &["--rate", "100"]);
    let stale = encrypted(&stage.sandbox, "4711").await;
    stage.sandbox.rotate_key();
    let cancel = async {
        // The refusal is recorded, and whoever recorded it stands still.
        until_state(&other, "refused").await;
        let answer = ask(&other, "/v1/pin-links/cancel", &json!({"job": "staff/a"})).await.expect(200).json();
        kill_process(Pid::from_raw(i32::try_from(served.pid()).unwrap()).unwrap(), Signal::CONT).unwrap();
        answer
    };
    let (chosen, cancelled) = tokio::join!(choose(&served, &link, &stale), cancel);
    assert_eq!((&cancelled["cancelled"], &cancelled["pending"]), (&json!(1), &json!(0)), "{cancelled}");
    // Its page encrypts again by itself, and comes too late.
    assert_eq!(chosen.expect(409).json()["code"], "stale_key");
    choose(&served, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(404);
    let view = other.get(JOB).await.expect(200).json();
    assert_eq!((&view["state"], &view["code"]), (&json!("refused"), &json!("cancelled")), "{view}");
    assert_eq!(waiting(&other.get("/v1/pin-links").await.expect(200).json()), 0);
    assert!(pins_of(&stage.sandbox, "staff/a").is_empty());
}

/// A line in this process whose jobs can wait for their PINs, with their links.
async fn line_with_links(stage: &InProcess, rules: Rules) -> (Arc<Line>, PinLinks) {
    let InProcess { directory, sandbox, clock } = stage;
    let parts = parts_in(directory.path(), sandbox, clock, LookFirst::No, rules).await;
    let config = PinPageConfig { url: Some("https://pins.example.com".into()), ..PinPageConfig::default() };
    let links = PinLinks::of(&config, LinksWhen::Asked, (&parts.ledger, &parts.scope, clock)).unwrap();
    (Arc::new(Line::new(Parts { pin_links: Some(links.clone()), ..parts })), links)
}

/// What such a line is over.
struct InProcess {
    directory: tempfile::TempDir,
    sandbox: Sandbox,
    clock: Clock,
}

impl InProcess {
    async fn new() -> Self {
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        Self { directory: tempfile::tempdir().unwrap(), sandbox, clock: Clock::system() }
    }
}

/// A job whose cardholder is to choose the PIN.
fn choosing(id: &JobId) -> Job {
    let pairs = [("cardholder", "ich_1"), ("currency", "eur"), ("type", "virtual"), ("pin[choose]", "true")];
    let pairs = pairs.map(|(path, value)| (path.to_owned(), value.to_owned()));
    let card = Request::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
    Job::new(id.clone(), Batch::new("batch").unwrap(), None, card, None)
}

/// Calls of two jobs were cut off, and somebody has the rows of their batch looked for at Stripe: the one whose cardholder chose its PIN
/// is not refused, and waits for another by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_pin_was_chosen_is_not_refused_with_the_rows_that_were_cut_off() {
    let stage = InProcess::new().await;
    let rules = Rules {
        call_lasts: CALLS_LAST,
        lists_lag: LISTS_LAG,
        departs_within: CALLS_LAST,
        ..Rules::default()
    };
    let (line, links) = line_with_links(&stage, rules).await;
    let (ledger, scope, clock) = (&line.parts().ledger, &line.parts().scope, &stage.clock);
    let [chosen, other] = ["batch/1", "batch/2"].map(|id| JobId::new(id).unwrap());
    let waits = line.carry(choosing(&chosen), line::Options::default()).await.unwrap();
    assert_eq!(waits.outcome, Outcome::AwaitingPin(None));
    let waiting = ledger.look_up(scope, &chosen).await.unwrap();
    for (id, known) in [(&chosen, waiting), (&other, None)] {
        let now = clock.now();
        let row = Row::of(scope, &choosing(id), State::Begun, now);
        let row = Row { attempts: 1, attempted: Some(now), key_began: Some(now), ..row };
        assert!(matches!(ledger.begin(row, known.as_ref()).await.unwrap(), Begin::Recorded(_)));
    }
    let settling = Settling::of(ledger, scope, &Batch::new("batch").unwrap(), clock).await.unwrap();
    assert_eq!(settling.rows(), 2);
    let lease = line.try_lease().await.unwrap().unwrap();
    let settled = settling.run(&line, lease).await;
    assert_eq!(settled, Settled { absent: 1, left: 1, ..Settled::default() });
    let state = async |id| ledger.look_up(scope, id).await.unwrap().unwrap().state;
    assert!(matches!(state(&other).await, State::Refused(refusal) if refusal.code == CUT_OFF));
    assert_eq!(state(&chosen).await, State::Begun);
    let open = line::Options { only: CarriedOnly::WhileItIsOpen, ..line::Options::default() };
    let job = links.waiting_job(&chosen).await.unwrap().unwrap().into_job(None);
    assert_eq!(line.carry(job, open).await.unwrap().outcome, Outcome::AwaitingPin(None));
    assert_eq!(stage.sandbox.account().creates, 0);
}

/// The same where the call with a chosen PIN is found to have had no effect: that is no end.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_call_had_no_effect_is_cancelled_before_it_waits_again() {
    let stage = InProcess::new().await;
    let (line, links) = line_with_links(&stage, Rules::default()).await;
    let (ledger, scope) = (line.parts().ledger.clone(), line.parts().scope.clone());
    let id = JobId::new("batch/1").unwrap();
    let waits = line.carry(choosing(&id), line::Options::default()).await.unwrap();
    assert_eq!(waits.outcome, Outcome::AwaitingPin(None));
    // Whoever found it out stands still before it waits again.
    let row = ledger.look_up(&scope, &id).await.unwrap().unwrap();
    let state = State::Refused(Refusal::own("pin_needed", "its call had no effect"));
    let found = ledger.conclude(Row { state, attempts: 1, ..row.clone() }, Some(&row)).await.unwrap();
    assert!(matches!(found, Conclude::Written(_)), "{found:?}");
    let cancelled = Refusal::own("cancelled", "the test does");
    let way = line::Options { given_up: Some(cancelled), ..line::Options::default() };
    let ended = line.carry(choosing(&id), way).await.unwrap();
    assert_eq!(refused(&ended).code, "cancelled");
    assert!(links.waiting_job(&id).await.unwrap().is_none(), "it waits for nobody");
    assert_eq!(stage.sandbox.account().creates, 0);
}
