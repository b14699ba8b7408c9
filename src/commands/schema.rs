//! `embosser schema`: what messages look like, as JSON Schema made from the types that read and write them.

use super::Exit;
use super::output::write_out;
use crate::intake::document;
use crate::queue::event::ResultEvent;
use crate::webhooks::Event;

/// Options of `embosser schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of which message.
    pub of: Of,
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Of {
    /// What a sender publishes.
    Job,
    /// What is published of a job's end.
    Result,
    /// What a webhook is sent.
    Event,
}

/// Prints it.
///
/// # Errors
/// If nobody reads it.
pub fn run(args: &Args) -> Result<Exit, String> {
    let schema = match args.of {
        Of::Job => document::json_schema(),
        Of::Result => schemars::schema_for!(ResultEvent).to_value(),
        Of::Event => schemars::schema_for!(Event).to_value(),
    };
    let mut text = serde_json::to_vec_pretty(&schema).map_err(|error| error.to_string())?;
    text.push(b'\n');
    write_out(&text)
}
