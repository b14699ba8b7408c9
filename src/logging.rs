//! The log, on standard error: for people on a terminal, JSON elsewhere.
//!
//! Duty: to decide what is logged and to write it. Guarantees: of embosser's own events whatever `RUST_LOG` asks for; of
//! what a library says only warnings and errors, and only from places that are known to print no payload ([`LOGGED`]),
//! whatever `RUST_LOG` asks for. Logging never waits for whoever reads the log: a thread of its own writes, and what it
//! has no room for is dropped and counted.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{Directive, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Where libraries may log from, at warning and above: their source was read, and what these places print at those
/// levels are their own words, addresses, error codes and sizes. A place that is not here is off. So is, above all,
/// `lapin::returned_messages`, which prints the whole body of a returned message at warning.
const LOGGED: &[&str] = &[
    "axum::serve",
    "h2",
    "hyper",
    "hyper_rustls",
    "hyper_util",
    "lapin::channel",
    "lapin::channels",
    "lapin::heartbeat",
    "lapin::io_loop",
    "lapin::socket_state",
    "opentelemetry_sdk",
    "rustls",
    "rustls_platform_verifier",
    "sqlx::query",
    "sqlx_core",
];
/// Lines that may wait for the writer: some megabytes, and more than a second of the busiest log.
const LINES_MAX: usize = 16_384;
/// The variable that says what is logged.
const VARIABLE: &str = "RUST_LOG";

/// The writer, for as long as the log is open.
static OPEN: Mutex<Option<Open>> = Mutex::new(None);

struct Open {
    writer: NonBlocking,
    guard: WorkerGuard,
}

/// Opens the log. `usual`: what is logged where `RUST_LOG` does not say.
pub fn begin(usual: &str, #[cfg(feature = "otlp")] export: Option<&crate::trace::Export>) {
    let asked = std::env::var_os(VARIABLE).filter(|asked| !asked.is_empty());
    let (filter, wrong) = filter(asked.as_deref(), usual);
    let (writer, guard) = writer_to(io::stderr(), LINES_MAX);
    *open() = Some(Open { writer: writer.clone(), guard });
    wrong.iter().for_each(|wrong| say(&format!("embosser: {wrong}")));
    // Spans for a collector say again what the log's own lines say.
    #[cfg(feature = "otlp")]
    let filter = {
        use tracing_subscriber::filter::FilterExt as _;
        filter.and(filter_fn(|event| event.target() != crate::trace::TARGET))
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = if io::stderr().is_terminal() {
        lines.with_filter(filter).boxed()
    } else {
        lines.json().flatten_event(true).with_filter(filter).boxed()
    };
    let payloadless = filter_fn(|event| may_be_logged(event.target(), *event.level()));
    let subscriber = tracing_subscriber::registry().with(lines).with(payloadless);
    #[cfg(feature = "otlp")]
    let subscriber = subscriber.with(export.map(crate::trace::Export::layer));
    subscriber.init();
}

fn writer_to(to: impl io::Write + Send + 'static, lines_max: usize) -> (NonBlocking, WorkerGuard) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(lines_max);
    builder.thread_name("log").finish(to)
}

/// A line for whoever watches, beside the log and without waiting either.
pub fn say(line: &str) {
    let Some(mut writer) = open().as_ref().map(|open| open.writer.clone()) else {
        eprintln!("{line}");
        return;
    };
    // One piece, as each is a line of the log's; it only ever fails by being dropped, which is counted.
    let _ = writer.write_all(format!("{line}\n").as_bytes());
}

/// From now on a panic tells where it was and of which kind, and quotes nothing: what a library had before it may be a cell, with a
/// PIN in it.
pub fn panics_quote_nothing() {
    std::panic::set_hook(Box::new(|panic| {
        let said = without_quotes(panic.payload_as_str().unwrap_or_default());
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        say(&format!("embosser: a bug, at {place}: {said}"));
    }));
}

/// A panic's sentence up to what it quotes: Rust's own quote a text between backticks, and a value between quotes.
fn without_quotes(said: &str) -> &str {
    said.split(['`', '"', '\n']).next().unwrap_or_default().trim_end()
}

/// Lines that were dropped, as nobody read the log as fast as it came.
#[must_use]
pub fn dropped() -> u64 {
    open().as_ref().map_or(0, |open| dropped_of(&open.writer))
}

/// Closes the log: what waits is written, if that takes no more than a second.
pub fn end() {
    let Some(Open { mut writer, guard }) = open().take() else { return };
    // Where the writer has no room, nobody reads: then it is left behind, as its guard would complain on standard output.
    let before = dropped_of(&writer);
    let _ = writer.write_all(b"");
    if dropped_of(&writer) > before {
        std::mem::forget(guard);
    }
}

/// Ends the process at once, but for the log's last lines.
pub fn exit(code: u8) -> ! {
    end();
    std::process::exit(i32::from(code));
}

fn open() -> std::sync::MutexGuard<'static, Option<Open>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn dropped_of(writer: &NonBlocking) -> u64 {
    u64::try_from(writer.error_counter().dropped_lines()).unwrap_or(u64::MAX)
}

/// Whether it is this place or one inside of it.
fn is_within(target: &str, place: &str) -> bool {
    target.strip_prefix(place).is_some_and(|inside| inside.is_empty() || inside.starts_with("::"))
}

fn may_be_logged(target: &str, level: Level) -> bool {
    is_within(target, "embosser")
        || level <= Level::WARN && LOGGED.iter().any(|place| is_within(target, place))
}

/// What `RUST_LOG` asks for, and what is wrong with it; directives that are wrong are left out.
fn filter(asked: Option<&OsStr>, usual: &str) -> (EnvFilter, Vec<String>) {
    let Some(asked) = asked else { return (EnvFilter::new(usual), Vec::new()) };
    let Some(text) = asked.to_str() else {
        let wrong = format!("{VARIABLE}={asked:?}: it is not UTF-8; using {usual:?}");
        return (EnvFilter::new(usual), vec![wrong]);
    };
    let (mut good, mut reasons) = (Vec::new(), Vec::new());
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        match check(directive) {
            Ok(()) => good.push(directive),
            Err(reason) => reasons.push(format!("{directive:?} {reason}")),
        }
    }
    let used = if good.is_empty() { usual.to_owned() } else { good.join(",") };
    let wrong =
        (!reasons.is_empty()).then(|| format!("{VARIABLE}={text:?}: {}; using {used:?}", reasons.join(", ")));
    (EnvFilter::new(&used), wrong.into_iter().collect())
}

/// What is wrong with one of `RUST_LOG`'s directives: a level, `TARGET=LEVEL`, or one with a span.
fn check(directive: &str) -> Result<(), &'static str> {
    const NO_LEVEL: &str = "names no level (off, error, warn, info, debug, trace)";
    if directive.parse::<LevelFilter>().is_ok() {
        return Ok(());
    }
    directive.parse::<Directive>().map_err(|_| NO_LEVEL)?;
    let target = directive.split(['=', '[']).next().unwrap_or_default();
    let is_logged = |place: &&str| is_within(target, place) || is_within(place, target);
    if target.is_empty() || is_within(target, "embosser") || LOGGED.iter().any(is_logged) {
        Ok(())
    } else if directive == target {
        Err("is no level (off, error, warn, info, debug, trace) and no place that is ever logged from")
    } else {
        Err("names a place that is never logged from")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_quotes_is_left_out() {
        let jwe = "é".to_owned() + &"eyJ".repeat(50);
        for panics in [
            &(|| _ = jwe[1..].len()) as &(dyn Fn() + std::panic::RefUnwindSafe),
            &|| _ = jwe[..jwe.len() + 1].len(),
            &|| _ = jwe.parse::<u8>().map_err(|_| jwe.clone()).unwrap(),
        ] {
            let panicked = std::panic::catch_unwind(panics).unwrap_err();
            let said = panicked.downcast_ref::<String>().unwrap();
            let shown = without_quotes(said);
            assert!(!shown.is_empty() && !shown.contains("eyJ"), "{shown}");
        }
        assert_eq!(without_quotes("a word"), "a word");
    }

    #[test]
    fn what_nobody_reads_is_dropped_and_counted_and_holds_nobody_up() {
        let (_unread, pipe) = io::pipe().unwrap();
        let (mut writer, guard) = writer_to(pipe, 4);
        // Far more than the pipe and the queue take in.
        let line = vec![b'x'; 64 << 10];
        (0..64).for_each(|_| writer.write_all(&line).unwrap());
        assert!(dropped_of(&writer) >= 40, "{}", dropped_of(&writer));
        std::mem::forget(guard);
    }

    #[test]
    fn nothing_that_a_library_prints_of_a_payload_is_told() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            for target in [
                "lapin::returned_messages",
                "lapin::consumer",
                "lapin::internal_rpc",
                "lapin",
                "amq_protocol::frame::parsing",
                "tower_http::catch_panic",
                "sqlx_postgres::options::parse",
                "sqlx::postgres::notice",
                "a_library_of_tomorrow",
                "embosser_of_others",
            ] {
                assert!(!may_be_logged(target, level), "{target} at {level}");
            }
        }
        for target in ["hyper::proto::h1::io", "h2::codec::framed_write", "rustls::conn", "lapin::channel"] {
            assert!(may_be_logged(target, Level::WARN) && !may_be_logged(target, Level::INFO), "{target}");
        }
        assert!(may_be_logged("embosser", Level::TRACE) && may_be_logged("embosser::line", Level::TRACE));
    }

    #[test]
    fn what_rust_log_cannot_mean_is_told_and_the_rest_is_used() {
        let usual = "warn,embosser=info";
        let said = |asked: &str| {
            let (filter, wrong) = filter(Some(OsStr::new(asked)), usual);
            (filter.to_string(), wrong.join("; "))
        };
        for good in
            ["trace", "OFF", "embosser=debug", "embosser::line=trace,hyper=error", "sqlx=warn", "info,h2=off"]
        {
            let (_, wrong) = said(good);
            assert_eq!(wrong, "", "{good}");
        }
        for (setting, complaint, used) in [
            ("loud", "is no level", EnvFilter::new(usual)),
            ("embosser=loud", "names no level", EnvFilter::new(usual)),
            ("embossr=debug", "never logged from", EnvFilter::new(usual)),
            ("debug,mio=info", "\"mio=info\" names a place", EnvFilter::new("debug")),
        ] {
            let (filter, wrong) = said(setting);
            assert!(
                wrong.contains(complaint) && wrong.contains("using") && wrong.contains(setting),
                "{wrong}"
            );
            assert_eq!(filter, used.to_string(), "{setting}");
        }
        let (_, wrong) = filter(None, usual);
        assert!(wrong.is_empty());
    }
}
