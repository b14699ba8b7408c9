//! Values of several names at once, in SQLite.

use crate::ledger::LedgerError;
use crate::ledger::sqlite::Sqlite;
use crate::ledger::store::{Columns as _, database};

impl Sqlite {
    /// Those of these names that have a value, each with it.
    pub(in crate::ledger) fn metadata_of(
        &mut self,
        names: &[String],
    ) -> Result<Vec<(String, String)>, LedgerError> {
        let names = serde_json::to_string(names).expect("strings always serialise");
        let select = "SELECT name, value FROM metadata WHERE name IN (SELECT value FROM json_each(?1))";
        self.all(select, &[&names], |mut columns, name| {
            let mut next = || columns.text().map(Option::unwrap_or_default);
            let read = next().and_then(|found| Ok((found, next()?)));
            read.map_err(|reason| database(name, reason))
        })
    }
}
