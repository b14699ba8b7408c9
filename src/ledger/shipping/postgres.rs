//! Values of several names at once, in PostgreSQL.

use crate::ledger::LedgerError;
use crate::ledger::postgres::{Postgres, meaning};

impl Postgres {
    /// Those of these names that have a value, each with it.
    pub(in crate::ledger) async fn metadata_of(
        &mut self,
        names: &[String],
    ) -> Result<Vec<(String, String)>, LedgerError> {
        let (connection, name) = self.parts();
        let found = sqlx::query_as("SELECT name, value FROM metadata WHERE name = ANY($1)").bind(names);
        found.fetch_all(connection).await.map_err(|error| meaning(name, &error))
    }
}
