//! What is different between an upload and the batch of its name that was issued before.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::path::Path;

use serde::Serialize;
use tokio::runtime::Handle;
use utoipa::ToSchema;

use crate::job::{Batch, Content, JobId};
use crate::ledger::{Kind, Ledger, Only, Row as LedgerRow, Scope};
use crate::manifest::batch::RowNames;
use crate::manifest::{Manifest, Row};
use crate::serve::check::Stopped;
use crate::serve::held::{Held, Share};

/// Rows that are named of each kind.
const NAMED_MAX: usize = 20;
/// What an earlier row costs while it is compared.
const EARLIER_BYTES: usize = size_of::<Earlier>();

/// What is different from the batch of this name that was issued before. Rows are the same by their `row_id`s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct DiffView {
    /// Rows that ask for the same as before.
    same: u64,
    /// Those of them that have what they asked for: nothing is called for them.
    same_done: u64,
    /// Rows that ask for something else than before.
    changed: u64,
    /// The first of them.
    first_changed: Vec<String>,
    /// Rows that were not there before.
    new: u64,
    /// The first of them.
    first_new: Vec<String>,
    /// Rows that were there before and are no more. What was made for them stays.
    gone: u64,
    /// The first of them.
    first_gone: Vec<String>,
}

/// A row of the batch as it was issued before.
struct Earlier {
    id: u64,
    content: Content,
    done: bool,
    seen: bool,
}

/// What is different; none if the ledger has no batch of this name. Blocks on the ledger.
pub(super) fn of(
    held: &Held,
    (ledger, scope, batch): (&Ledger, &Scope, &Batch),
    mut share: Share,
    runtime: &Handle,
) -> Result<Option<DiffView>, Stopped> {
    let hasher = RandomState::new();
    let mut earlier: Vec<Earlier> = Vec::new();
    let mut pages = ledger.pages(scope, batch, Only::default());
    while let Some(page) = runtime.block_on(pages.next())? {
        share.grow(page.len() * EARLIER_BYTES)?;
        earlier.extend(page.iter().map(|row| Earlier {
            id: hasher.hash_one(&row.id),
            content: row.content,
            done: row.state.kind() == Kind::Done,
            seen: false,
        }));
    }
    if earlier.is_empty() {
        return Ok(None);
    }
    earlier.sort_unstable_by_key(|row| row.id);
    let find = |id: &JobId, earlier: &[Earlier]| {
        let id = hasher.hash_one(id);
        earlier.binary_search_by_key(&id, |row| row.id)
    };
    let mut diff = DiffView::default();
    let mut names = RowNames::new(batch.clone());
    let manifest = Manifest::read(Path::new("upload"), held.look(), &held.reading);
    for row in manifest.map_err(Stopped::NoManifest)?.rows() {
        // Every row was checked when it came.
        let Ok(row) = row else { continue };
        let content = row.content();
        let Ok(id) = names.id_of(&row, || content) else { continue };
        match find(&id, &earlier) {
            Ok(at) => {
                let earlier = &mut earlier[at];
                earlier.seen = true;
                if earlier.content == content || earlier.content == former(&row) {
                    diff.same += 1;
                    diff.same_done += u64::from(earlier.done);
                } else {
                    diff.changed += 1;
                    name(&mut diff.first_changed, row.row_id.as_deref(), &id);
                }
            }
            Err(_) => {
                diff.new += 1;
                name(&mut diff.first_new, row.row_id.as_deref(), &id);
            }
        }
    }
    diff.gone = earlier.iter().filter(|row| !row.seen).count() as u64;
    let mut pages = ledger.pages(scope, batch, Only::default());
    while (diff.first_gone.len() as u64) < diff.gone.min(NAMED_MAX as u64)
        && let Some(page) = runtime.block_on(pages.next())?
    {
        let is_gone = |row: &&LedgerRow| find(&row.id, &earlier).is_ok_and(|at| !earlier[at].seen);
        for row in page.iter().filter(is_gone) {
            name(&mut diff.first_gone, row.row_id.as_deref(), &row.id);
        }
    }
    Ok(Some(diff))
}

/// What ledgers of before have for what a row asks for.
fn former(row: &Row) -> Content {
    let mut former = [0; 16];
    former.copy_from_slice(&row.request.fingerprint()[..16]);
    Content(former)
}

/// Names a row by its `row_id`, or by its job's id where it has none.
fn name(first: &mut Vec<String>, row_id: Option<&str>, id: &JobId) {
    if first.len() < NAMED_MAX {
        first.push(row_id.unwrap_or(id.as_str()).to_owned());
    }
}
