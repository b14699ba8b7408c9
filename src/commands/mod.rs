//! The commands: what `main.rs` parses, done.

pub mod accounts;
pub mod arguments;
pub mod audit;
pub mod cancel;
pub mod check;
pub mod check_known;
pub mod check_online;
pub mod columns;
mod confirm;
pub mod connect;
pub mod encrypt;
pub mod example;
pub mod exposed;
pub mod health;
pub mod issue;
pub mod ledger;
pub mod manifest;
mod output;
mod progress;
pub mod results;
pub mod sandbox;
pub mod schema;
pub mod serve;
pub mod settle;
pub mod shell;
pub mod signals;
pub mod status;
pub mod submit;
mod telling;
pub mod template;
pub mod token;
pub mod track;
pub mod webhooks;
pub mod worker;

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is done.
    Success,
    /// All rows ended, some without a card.
    Refused,
    /// Bad usage, configuration or manifest.
    Unusable,
    /// Interrupted, or some rows' end is not known: run again.
    Unfinished,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Refused => 1,
            Self::Unusable => 2,
            Self::Unfinished => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
