//! The fields of an upload's form that stand before its file.

use std::time::Duration;

use axum::extract::multipart::Field;
use zeroize::Zeroizing;

use super::problem::{Kind, Problem};
use super::upload::{malformed, slow};

/// Longest field beside a form's file.
const FIELD_BYTES_MAX: usize = 512 << 10;

/// What a form says of its file, in fields before it.
#[derive(Default)]
pub(super) struct Fields {
    /// The text of a columns file.
    pub(super) columns: Option<String>,
    /// Cells that were mended since the file was made: one may hold a PIN's ciphertext.
    pub(super) edits: Option<Zeroizing<String>>,
}

impl Fields {
    /// Reads a field that is no file; what is not known is left out.
    pub(super) async fn read(&mut self, mut field: Field<'_>, idle_max: Duration) -> Result<(), Problem> {
        let is_edits = match field.name() {
            Some("columns") => false,
            Some("edits") => true,
            _ => return Ok(()),
        };
        // With its whole room from the beginning, so that no unwiped copy is left behind by growing.
        let mut bytes = Zeroizing::new(Vec::with_capacity(FIELD_BYTES_MAX));
        loop {
            let chunk = tokio::time::timeout(idle_max, field.chunk()).await.map_err(|_| slow())?;
            let Some(more) = chunk.map_err(malformed)? else { break };
            if bytes.len() + more.len() > FIELD_BYTES_MAX {
                let reason =
                    format!("a field beside the form's file has at most {} KiB", FIELD_BYTES_MAX >> 10);
                return Err(Problem::new(Kind::TooLarge, reason));
            }
            bytes.extend_from_slice(&more);
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Problem::new(Kind::BadRequest, "a field beside the form's file is not UTF-8"))?;
        let is_second = if is_edits {
            self.edits.replace(Zeroizing::new(text.to_owned())).is_some()
        } else {
            self.columns.replace(text.to_owned()).is_some()
        };
        if is_second {
            return Err(Problem::new(Kind::BadRequest, "a field beside the form's file stands there twice"));
        }
        Ok(())
    }
}
