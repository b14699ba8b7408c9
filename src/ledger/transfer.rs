//! A ledger is moved to another database: from SQLite to PostgreSQL, back, or to another one of its kind.
//!
//! The order is what keeps each job at one effect. All leases of both are held. Then the other one serves nobody until it is whole, and
//! the ledger that moves is written to by nobody any more ([`super::standing`]), so that a copy of it stays one. Each piece of rows is
//! committed together with the record of how far the move has come, so that it goes on from there however it was ended. Once both are
//! the same by a digest of every row, the one that was moved is marked for good, and only then the other serves: a crash between the
//! two leaves none that serves, and the same command again ends it.

use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::LedgerError;
use super::lease::{Holder, LeaseError};
use super::schema::VERSION;
use super::standing::Standing;
use super::tables::{TABLES, Table, Values};
use super::whole::{Access, Whole};
use crate::config::place::shown;
use crate::content::hex;
use crate::killpoint;

/// How long calls may still count that were made for an account before its lease was held: longer than the ledger's leases wait, whose
/// record of their holders stays behind.
const CALLS_COUNT: Duration = Duration::from_millis(1500);

/// Why a ledger was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// One of the two databases.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A lease's file.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Somebody works with one of them.
    #[error("{holder} works with the ledger {ledger}: end that first, then move again; nothing was changed")]
    InUse {
        /// Which ledger.
        ledger: String,
        /// Who.
        holder: Box<Holder>,
    },
    /// Both addresses lead to one database.
    #[error("{0} is the ledger that is to be moved: name another place for it")]
    Same(String),
    /// There is something in it.
    #[error(
        "the ledger {0} is not empty, and two ledgers are never mixed: move to a file or a database that is not there yet, or is \
         empty"
    )]
    NotEmpty(String),
    /// A text that PostgreSQL cannot hold.
    #[error(
        "the row {row} of the ledger {ledger} has the character NUL (U+0000) in one of its texts, which PostgreSQL cannot hold: change \
         that text with the sqlite3 program, then move again; nothing was changed"
    )]
    Nul {
        /// Which ledger.
        ledger: String,
        /// Which table's row.
        row: String,
    },
    /// It belongs to another move.
    #[error(
        "the ledger {ledger} holds a part of another move, from {from}: finish that one; if it was given up, drop that database (or \
         delete that file) and make it anew; or move to another one that is empty"
    )]
    OtherMove {
        /// Which ledger.
        ledger: String,
        /// Where that one is from.
        from: String,
    },
    /// It is being moved elsewhere.
    #[error(
        "the ledger {ledger} is being moved to {to}, and not to {other}: finish that move by naming {to}, or give it up first, with \
         --abandon"
    )]
    Elsewhere {
        /// Which ledger.
        ledger: String,
        /// Where it is moved to.
        to: String,
        /// What was named.
        other: String,
    },
    /// Another move is to be given up than that which was begun.
    #[error(
        "the ledger {ledger} is being moved to {to}, and not to {other}: to give that move up, name {to}; nothing was changed"
    )]
    OtherTarget {
        /// Which ledger.
        ledger: String,
        /// Where it is moved to.
        to: String,
        /// What was named.
        other: String,
    },
    /// What arrived is not what was sent.
    #[error(
        "the table {table} of {to} is not the same as that of {from} ({to_rows} and {from_rows} rows): somebody else writes to {to}. \
         Nothing is lost: give this move up with --abandon, and move to an empty database that nobody else uses"
    )]
    Differs {
        /// Which table.
        table: &'static str,
        /// Where from.
        from: String,
        /// Where to.
        to: String,
        /// Rows there.
        from_rows: u64,
        /// Rows here.
        to_rows: u64,
    },
    /// It has moved to the end.
    #[error(
        "the ledger {ledger} was moved to {to}, to the end: that cannot be given up any more. Move it back from where it is now \
         instead"
    )]
    Over {
        /// Which ledger.
        ledger: String,
        /// Where it is.
        to: String,
    },
    /// There is no move to give up.
    #[error("the ledger {0} is not being moved")]
    NotMoving(String),
}

impl MoveError {
    /// Whether the same command may do later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Ledger(error) | Self::Lease(LeaseError::Ledger(error)) => error.may_pass(),
            Self::InUse { .. } => true,
            Self::Lease(LeaseError::File { .. })
            | Self::Same(_)
            | Self::NotEmpty(_)
            | Self::Nul { .. }
            | Self::OtherMove { .. }
            | Self::Elsewhere { .. }
            | Self::OtherTarget { .. }
            | Self::Differs { .. }
            | Self::Over { .. }
            | Self::NotMoving(_) => false,
        }
    }
}

/// How far a move has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// So many rows of all are there.
    Copied {
        /// Rows that are there.
        rows: u64,
        /// All of them.
        of: u64,
    },
    /// All are there, and so many of both ledgers were read for comparison.
    Compared {
        /// Rows that were read.
        rows: u64,
        /// All of both.
        of: u64,
    },
}

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Where the ledger is now, as people are shown it.
    pub to: String,
    /// Of each table: its name, its rows, and SHA-256 of them in hexadecimal.
    pub tables: Vec<(&'static str, u64, String)>,
    /// Whether it had been moved before.
    pub was_there: bool,
}

/// Both ledgers of a move.
struct Pair {
    from: Whole,
    to: Whole,
}

/// What is to be done.
enum Found {
    /// No row is there yet.
    Begins { id: String },
    /// From the last row that is there on, if any is.
    GoesOn { id: String, at: Option<(String, Values)> },
}

/// Moves the ledger `from` to `to`, which is made if it is not there. `tell` is told how far that has come.
///
/// # Errors
/// Says why not. The ledger that was to be moved is whole at any time; the same again goes on where it ended.
pub async fn move_ledger(from: &str, to: &str, tell: impl Fn(Stage)) -> Result<Moved, MoveError> {
    let from = Whole::open(from, Access::Writing).await?;
    let to = Whole::open(to, Access::Making).await?;
    let mut pair = Pair { from, to };
    let moved = pair.run(&tell).await;
    let Pair { from, to } = pair;
    from.close().await;
    to.close().await;
    moved
}

/// Gives a move up that has not come to its end: the ledger serves again where it was. What of it is at the other place stays there, and
/// serves nobody. Answers where that is, as people are shown it.
///
/// # Errors
/// If it is not being moved, or to another place, has arrived, or somebody moves it at this moment.
pub async fn abandon_move(from: &str, to: &str) -> Result<String, MoveError> {
    let mut from = Whole::open(from, Access::Writing).await?;
    let abandoned = abandon(&mut from, to).await;
    from.close().await;
    abandoned
}

async fn abandon(from: &mut Whole, url: &str) -> Result<String, MoveError> {
    hold(from).await?;
    let (ledger, other) = (from.name().to_owned(), shown(url));
    match from.standing().await? {
        Some(Standing::Moving { to, .. } | Standing::Moved { to, .. }) if to != other => {
            Err(MoveError::OtherTarget { ledger, to, other })
        }
        Some(Standing::Moving { to, .. }) => {
            from.stand(None, None).await?;
            Ok(to)
        }
        // The other one serves only after its own mark is gone: until then nobody has worked with it.
        Some(Standing::Moved { id, to }) => {
            let mut target = Whole::open(url, Access::Writing).await?;
            let abandoned = match held_standing(&mut target).await {
                Ok(Some(Standing::Receiving { id: of, .. })) if of == id => Ok(from.stand(None, None).await),
                Ok(_) => Err(MoveError::Over { ledger, to: to.clone() }),
                Err(error) => Err(error),
            };
            target.close().await;
            abandoned?.map(|()| to).map_err(MoveError::from)
        }
        // It may have been ended before this one was marked.
        None => {
            let not_moving = || MoveError::NotMoving(ledger.clone());
            let mut target = Whole::open(url, Access::Writing).await.map_err(|_| not_moving())?;
            let abandoned = match held_standing(&mut target).await {
                Ok(Some(Standing::Receiving { from, at: None, .. })) if from == ledger => {
                    Ok(target.stand(None, None).await)
                }
                Ok(_) => Err(not_moving()),
                Err(error) => Err(error),
            };
            target.close().await;
            abandoned?.map(|()| other).map_err(MoveError::from)
        }
        Some(Standing::Receiving { .. }) => Err(MoveError::NotMoving(ledger)),
    }
}

async fn held_standing(ledger: &mut Whole) -> Result<Option<Standing>, MoveError> {
    hold(ledger).await?;
    Ok(ledger.standing().await?)
}

async fn hold(ledger: &mut Whole) -> Result<(), MoveError> {
    match ledger.hold_leases().await? {
        None => Ok(()),
        Some(holder) => Err(MoveError::InUse { ledger: ledger.name().to_owned(), holder }),
    }
}

impl Pair {
    async fn run(&mut self, tell: &impl Fn(Stage)) -> Result<Moved, MoveError> {
        if self.from.identity().await? == self.to.identity().await? {
            return Err(MoveError::Same(self.to.name().to_owned()));
        }
        // It serves at its new place, and whoever works with it there is not to end.
        if self.is_over().await? {
            return Ok(Moved { to: self.to.name().to_owned(), tables: Vec::new(), was_there: true });
        }
        hold(&mut self.from).await?;
        hold(&mut self.to).await?;
        let held_since = Instant::now();
        let id = match self.find().await? {
            Found::Begins { id } => {
                if let Err(error) = self.begin(&id).await {
                    if let Err(also) = self.take_back(&id).await {
                        tracing::warn!("the move stays begun ({also}): run it again, or with --abandon");
                    }
                    return Err(error);
                }
                self.copy(&id, None, tell).await?;
                id
            }
            Found::GoesOn { id, at } => {
                self.copy(&id, at, tell).await?;
                id
            }
        };
        self.to.settle().await?;
        let tables = self.compare(tell).await?;
        killpoint::pass("move_compared");
        // Whoever calls next does not find who held the leases before.
        tokio::time::sleep(CALLS_COUNT.saturating_sub(held_since.elapsed())).await;
        let to = self.to.name().to_owned();
        self.from.stand(Some(Standing::Moved { id: id.clone(), to: to.clone() }), None).await?;
        killpoint::pass("move_marked");
        self.to.stand(None, Some(id)).await?;
        Ok(Moved { to, tables, was_there: false })
    }

    /// What both say of how far the move has come.
    async fn find(&mut self) -> Result<Found, MoveError> {
        let (from, to) = (self.from.standing().await?, self.to.standing().await?);
        let (ledger, other) = (self.from.name().to_owned(), self.to.name().to_owned());
        match (from, to) {
            (Some(Standing::Moving { to, .. }), _) if to != other => {
                Err(MoveError::Elsewhere { ledger, to, other })
            }
            (None, None) => {
                self.is_empty().await?;
                self.has_no_nul().await?;
                Ok(Found::Begins { id: format!("{:032x}", rand::random::<u128>()) })
            }
            // It was ended between the first marks of the two.
            (None, Some(Standing::Receiving { id, from, at: None, .. })) if from == ledger => {
                Ok(Found::Begins { id })
            }
            // The other one was made anew since.
            (Some(Standing::Moving { id, .. }), None) => {
                self.is_empty().await?;
                Ok(Found::Begins { id })
            }
            (Some(Standing::Moving { id, .. }), Some(Standing::Receiving { id: of, at: None, .. }))
                if id == of =>
            {
                Ok(Found::Begins { id })
            }
            // If this one was marked for good, it was ended between the last marks of the two.
            (
                Some(Standing::Moving { id, .. } | Standing::Moved { id, .. }),
                Some(Standing::Receiving { id: of, at, .. }),
            ) if id == of => Ok(Found::GoesOn { id, at }),
            (Some(standing @ (Standing::Moved { .. } | Standing::Receiving { .. })), _) => {
                Err(standing.error(&ledger).into())
            }
            (_, Some(Standing::Receiving { from, .. })) => Err(MoveError::OtherMove { ledger: other, from }),
            (_, Some(Standing::Moving { .. } | Standing::Moved { .. })) => Err(MoveError::NotEmpty(other)),
        }
    }

    async fn is_empty(&mut self) -> Result<(), MoveError> {
        for table in &TABLES {
            if self.to.count(table).await? > 0 {
                return Err(MoveError::NotEmpty(self.to.name().to_owned()));
            }
        }
        Ok(())
    }

    async fn has_no_nul(&mut self) -> Result<(), MoveError> {
        if !self.to.is_on_server() {
            return Ok(());
        }
        for table in &TABLES {
            if let Some(row) = self.from.with_nul(table).await? {
                return Err(MoveError::Nul { ledger: self.from.name().to_owned(), row: table.words(&row) });
            }
        }
        Ok(())
    }

    /// From here on neither serves. First the other one: ended in between, this one does.
    async fn begin(&mut self, id: &str) -> Result<(), MoveError> {
        let (from, to) = (self.from.name().to_owned(), self.to.name().to_owned());
        let receiving = Standing::Receiving { id: id.to_owned(), from, version: VERSION, at: None };
        self.to.stand(Some(receiving), None).await?;
        killpoint::pass("move_received");
        // Who came to hold a lease since all were held may have a call under way, of which it could record no end; and a row may have
        // come. Neither comes any more.
        hold(&mut self.to).await?;
        self.is_empty().await?;
        let moving = Standing::Moving { id: id.to_owned(), to, version: VERSION };
        self.from.stand(Some(moving), None).await?;
        killpoint::pass("move_began");
        hold(&mut self.from).await?;
        self.has_no_nul().await
    }

    /// Both are as before the beginning of this move, of which no row was copied.
    async fn take_back(&mut self, id: &str) -> Result<(), MoveError> {
        match self.from.standing().await? {
            None => {}
            Some(Standing::Moving { id: of, .. }) if of == id => self.from.stand(None, None).await?,
            Some(_) => return Ok(()),
        }
        match self.to.standing().await? {
            Some(Standing::Receiving { id: of, at: None, .. }) if of == id => {
                Ok(self.to.stand(None, None).await?)
            }
            _ => Ok(()),
        }
    }

    async fn copy(
        &mut self,
        id: &str,
        at: Option<(String, Values)>,
        tell: &impl Fn(Stage),
    ) -> Result<(), MoveError> {
        let (mut of, mut there) = (0, 0);
        for table in &TABLES {
            of += self.from.count(table).await?;
            there += self.to.count(table).await?;
        }
        tell(Stage::Copied { rows: there, of });
        let first = at.as_ref().and_then(|(name, _)| TABLES.iter().position(|table| table.name == name));
        let mut after = at.map(|(_, key)| key);
        self.from.begin_view().await?;
        for table in &TABLES[first.unwrap_or(0)..] {
            let from = self.from.name().to_owned();
            let mut rows = self.from.rows(table, after.take()).await?;
            loop {
                let piece = rows.next().await?;
                let Some(last) = piece.last() else { break };
                there += piece.len() as u64;
                let at = Some((table.name.to_owned(), table.key_of(last).to_vec()));
                let (id, from) = (id.to_owned(), from.clone());
                let standing = Standing::Receiving { id, from, version: VERSION, at };
                self.to.add(table, piece, standing).await?;
                killpoint::pass("move_piece");
                tell(Stage::Copied { rows: there, of });
            }
        }
        Ok(self.from.end_view().await?)
    }

    async fn compare(
        &mut self,
        tell: &impl Fn(Stage),
    ) -> Result<Vec<(&'static str, u64, String)>, MoveError> {
        let mut of = 0;
        for table in &TABLES {
            of += self.from.count(table).await? + self.to.count(table).await?;
        }
        let (mut tables, mut read) = (Vec::new(), 0);
        self.from.begin_view().await?;
        self.to.begin_view().await?;
        for table in &TABLES {
            let mut count = |rows: usize| {
                read += rows as u64;
                tell(Stage::Compared { rows: read, of });
            };
            let (from_rows, from) = digest(&mut self.from, table, &mut count).await?;
            let (to_rows, to) = digest(&mut self.to, table, &mut count).await?;
            if (from_rows, &from) != (to_rows, &to) {
                let (from, to) = (self.from.name().to_owned(), self.to.name().to_owned());
                return Err(MoveError::Differs { table: table.name, from, to, from_rows, to_rows });
            }
            tables.push((table.name, to_rows, to));
        }
        self.from.end_view().await?;
        self.to.end_view().await?;
        Ok(tables)
    }

    /// Whether it has moved to the end; its new place serves, perhaps for long.
    async fn is_over(&mut self) -> Result<bool, MoveError> {
        let Some(Standing::Moved { id, .. }) = self.from.standing().await? else { return Ok(false) };
        Ok(self.to.standing().await?.is_none() && self.to.came_by().await?.as_ref() == Some(&id))
    }
}

/// How many rows a table has, and SHA-256 of them in their order, each as a line of JSON.
async fn digest(
    ledger: &mut Whole,
    table: &'static Table,
    count: &mut impl FnMut(usize),
) -> Result<(u64, String), LedgerError> {
    let (mut hash, mut total) = (Sha256::new(), 0);
    let mut rows = ledger.rows(table, None).await?;
    loop {
        let piece = rows.next().await?;
        if piece.is_empty() {
            return Ok((total, hex(&hash.finalize())));
        }
        total += piece.len() as u64;
        for row in &piece {
            hash.update(super::export::line(table, row));
        }
        count(piece.len());
    }
}
