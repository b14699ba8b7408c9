//! The commands.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use embosser::commands::accounts::{self, AccountArgs, Stripe};
use embosser::commands::{
    Exit, audit, cancel, check, check_known, check_online, columns, encrypt, example, exposed, health, issue,
    ledger, results, sandbox, schema, serve, settle, shell, status, submit, template, token, track, webhooks,
    worker,
};
use embosser::config::Config;
use embosser::files;
use embosser::logging;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Issues payment cards in bulk through Stripe Issuing: exactly one card per row.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file; config/embosser.toml names every option.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Issue every row of a manifest; run again to resume.
    Issue(issue::Args),
    /// Cancel the cards that a batch made; run again to resume.
    Cancel(cancel::Args),
    /// Find out at Stripe how a batch's rows ended whose calls were cut off, without their file.
    Settle(settle::Args),
    /// Check every row of a manifest, offline.
    Check(check::Args),
    /// Write a columns file for a manifest whose headings are not Stripe's.
    Columns(columns::Args),
    /// Write an empty manifest to fill in: headings, notes, an example row.
    Template(template::Args),
    /// Write a manifest for trials.
    Example(example::Args),
    /// Serve the HTTP API and its page: upload manifests, watch them, fetch their results.
    Serve(serve::Args),
    /// Take jobs from RabbitMQ, one card each.
    Worker(worker::Args),
    /// Publish every row of a manifest to RabbitMQ, for the worker.
    Submit(submit::Args),
    /// Print the JSON Schema of a message.
    Schema(schema::Args),
    /// Encrypt one PIN as a cardholder's device would: for trials and tooling, never on a server.
    Encrypt(encrypt::Args),
    /// Run the stand-in for Stripe as a server.
    Sandbox(sandbox::Args),
    /// Ask whether the `serve` or `worker` of this machine lives.
    Health(health::Args),
    /// Make a bearer token for `serve`.
    Token(token::Args),
    /// Say what the ledger knows of each batch.
    Status(status::StatusArgs),
    /// Write a batch's results, as the ledger knows them: CSV, JSON or a spreadsheet.
    Results(results::ResultsArgs),
    /// Ask Stripe where a batch's physical cards are.
    Track(track::Args),
    /// Write what was done over HTTP, by whom: CSV.
    Audit(audit::Args),
    /// Move the ledger to another database, prune, export or verify it.
    Ledger(ledger::Args),
    /// List what webhooks were not told yet, deliver it now, or try whether an event arrives.
    Webhooks(webhooks::Args),
    /// Print a shell's completions.
    Completions(shell::CompletionsArgs),
    /// Print the manual page.
    Man(shell::ManArgs),
}

fn main() -> ExitCode {
    // A crash must not leave PINs or keys in a core file.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    logging::panics_quote_nothing();
    let arguments = Arguments::parse();
    // Manual pages are for every user of the machine; all else is not.
    if !matches!(arguments.command, Command::Man(_)) {
        files::keep_from_others();
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    #[cfg(feature = "otlp")]
    let export = match embosser::trace::Export::begin(runtime.handle()) {
        Ok(export) => export,
        Err(reason) => return fail(&reason),
    };
    logging::begin(
        usual_log(&arguments.command),
        #[cfg(feature = "otlp")]
        export.as_ref(),
    );
    let ended = runtime.block_on(run(arguments));
    #[cfg(feature = "otlp")]
    if let Some(export) = export {
        export.end();
    }
    // As the log is written: whoever does not read it holds up no end.
    let exit = ended.unwrap_or_else(|reason| {
        logging::say(&format!("embosser: {reason}"));
        Exit::Unusable
    });
    logging::end();
    exit.into()
}

/// What is logged where `RUST_LOG` does not say: a line per job where nothing else is shown; a progress bar is not to be
/// written over. That the broker closed a channel is in the answer to whoever asked it something, who tells what matters: that a
/// queue is not there yet does not.
fn usual_log(command: &Command) -> &'static str {
    match command {
        Command::Worker(_) | Command::Serve(_) => "warn,embosser=info,lapin::channel=off",
        _ => "warn,lapin::channel=off",
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("embosser: {reason}");
    Exit::Unusable.into()
}

async fn run(arguments: Arguments) -> Result<Exit, String> {
    let config = Config::load(arguments.config.as_deref()).map_err(|error| error.to_string())?;
    if let Some(file) = &arguments.config {
        exposed::warn_of_configuration(file);
    }
    let account = |args: &AccountArgs, sandbox: bool| accounts::one(&config, args, Stripe::of(sandbox));
    match arguments.command {
        Command::Issue(args) => {
            let (config, key) = account(&args.account, args.sandbox)?;
            issue::run(args, config, key).await
        }
        Command::Cancel(args) => {
            let (config, key) = account(&args.account, false)?;
            cancel::run(args, config, key).await
        }
        Command::Track(args) => {
            let (config, key) = account(&args.account, false)?;
            track::run(args, config, key).await
        }
        Command::Settle(args) => {
            let (config, key) = account(&args.account, false)?;
            settle::run(args, config, key).await
        }
        Command::Serve(args) => serve::run(args, config, arguments.config).await,
        Command::Worker(args) => worker::run(args, config, arguments.config).await,
        Command::Submit(args) => {
            let config = accounts::one_without_key(&config, &args.account)?;
            submit::run(args, config).await
        }
        Command::Schema(args) => schema::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Check(args) => {
            let (config, key) = match args.online {
                true => account(&args.account, false)?,
                // Without a look at Stripe it is much the same for all accounts.
                false if args.account.account.is_none() => (config, None),
                false => (accounts::one_without_key(&config, &args.account)?, None),
            };
            let of_ledger = (args.batch.as_deref(), args.ledger.as_deref());
            let known = check_known::look(&args.manifest, args.reading.reading(), of_ledger, &config).await;
            let exit = check::run(&args, &config, &known)?;
            if !args.online || exit != Exit::Success {
                return Ok(exit);
            }
            check_online::run(&args.manifest, args.reading.reading(), config, key).await
        }
        Command::Example(args) => example::run(&args, &config).await,
        Command::Encrypt(args) => encrypt::run(&args, &config).await,
        Command::Sandbox(args) => sandbox::run(args).await,
        Command::Health(args) => health::run(&args, &config).await,
        Command::Status(args) => status::status(&args, &config).await,
        Command::Results(args) => results::results(&args, &config).await,
        Command::Audit(args) => audit::run(&args, &config).await,
        Command::Ledger(args) => ledger::run(&args, &config).await,
        Command::Webhooks(args) => webhooks::run(&args, &config).await,
        Command::Columns(args) => columns::run(&args),
        Command::Template(args) => template::run(&args),
        Command::Completions(args) => shell::completions(&args, Arguments::command()),
        Command::Man(args) => shell::man(&args, Arguments::command()),
    }
}
