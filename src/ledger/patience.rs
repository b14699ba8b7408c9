//! The one road of every question and every write to the database: with a bound for each try, a new connection after one that was
//! lost, and patience with a database that is away.
//!
//! Guarantees: what is asked waits for the ledger's patience at most, from its own first failure on (what stands behind it in the same
//! connection's queue begins to count when its turn comes, and so may wait for longer); nothing is asked twice on
//! connections of which one may still execute it. A write whose answer was lost is put again as one that may have taken effect
//! ([`Commit::Again`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::LedgerError;
use super::address::Needs;
use super::availability::{Availability, Role};
use super::database::{Opening, Place, Store, in_time};
use super::postgres::Lost;
use super::servers::Work;
use super::store::Commit;
use crate::backoff::Backoff;

/// The first wait before a database that is away is asked again, and the longest: work is to go on within seconds of its return.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest for a new connection to the same database, and a look whether it is the same.
const REOPEN_MAX: Duration = Duration::from_secs(16);
/// How long another process's lock on an SQLite file is waited for: SQLite itself waits five seconds each time.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// Something to be asked, again if need be.
pub(super) trait Request {
    /// What is answered.
    type Answer: Send;

    /// One try.
    fn put(
        &mut self,
        store: &mut Store,
        commit: Commit,
    ) -> impl Future<Output = Result<Self::Answer, LedgerError>> + Send;

    /// Longest for one try.
    fn max(&self, store: &Store) -> Duration {
        store.answer_max()
    }

    /// Whether whoever asks is to be told at once that it took longer than it may, as it would again.
    fn is_told_if_slow(&self) -> bool {
        false
    }

    /// Whether anybody still waits for the answer.
    fn is_wanted(&self) -> bool {
        true
    }

    /// Ends once nobody does.
    fn unwanted(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// A connection that is opened anew when it was lost.
pub(super) struct Connection {
    place: Place,
    availability: Arc<Availability>,
    role: Role,
    /// What the server must be where none was open before.
    needs: Needs,
    state: State,
}

enum State {
    /// It was not needed so far.
    Unopened,
    Open(Store),
    Lost(Lost),
}

impl Connection {
    /// One that is open.
    pub(super) fn open(place: &Place, availability: &Arc<Availability>, role: Role, store: Store) -> Self {
        let (place, availability) = (place.clone(), availability.clone());
        Self { place, availability, role, needs: Needs::Any, state: State::Open(store) }
    }

    /// One that is opened when it is needed, to a server that is this.
    pub(super) fn later(place: &Place, availability: &Arc<Availability>, role: Role, needs: Needs) -> Self {
        let (place, availability) = (place.clone(), availability.clone());
        Self { place, availability, role, needs, state: State::Unopened }
    }

    /// Asks until there is an answer, or patience ends.
    pub(super) async fn ask<R: Request>(&mut self, request: &mut R) -> Result<R::Answer, LedgerError> {
        self.ask_as(request, Commit::First).await
    }

    /// The same of what may have taken effect, or not.
    pub(super) async fn ask_as<R: Request>(
        &mut self,
        request: &mut R,
        mut commit: Commit,
    ) -> Result<R::Answer, LedgerError> {
        let mut backoff = Backoff::between(WAIT_MIN, WAIT_MAX);
        let mut first_failure = None;
        loop {
            let began = Instant::now();
            let failed = match self.once(request, &mut commit, began).await {
                Ok(answer) => {
                    self.availability.serves(self.role);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            if !failed.passes {
                return Err(failed.error);
            }
            self.availability.is_away(self.role, &failed.error);
            let first_failure = *first_failure.get_or_insert(began);
            let wait = backoff.wait();
            if first_failure.elapsed() + wait > self.patience() || !request.is_wanted() {
                return Err(failed.error);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = self.availability.given_up(first_failure) => return Err(failed.error),
                () = request.unwanted() => return Err(failed.error),
            }
        }
    }

    /// How long a database that is away is waited for.
    pub(super) fn patience(&self) -> Duration {
        match self.place {
            Place::File(_) => self.availability.patience().min(LOCK_PATIENCE),
            Place::Servers(_) => self.availability.patience(),
            #[cfg(feature = "killpoints")]
            Place::Simulated(_) => self.availability.patience(),
        }
    }

    /// Whether it answers; asked while nobody asks anything else, so that one that is lost is known before it is needed.
    pub(super) async fn ping(&mut self) {
        let began = Instant::now();
        match self.once(&mut Ping, &mut Commit::First, began).await {
            Ok(()) => self.availability.serves(self.role),
            Err(failed) => self.availability.is_away(self.role, &failed.error),
        }
    }

    /// Whether it is to be looked at while nobody asks it: one of a server that was needed once.
    pub(super) fn is_used(&self) -> bool {
        let is_unopened =
            matches!(self.state, State::Unopened) && !self.availability.is_known_away(self.role);
        matches!(self.place, Place::Servers(_)) && !is_unopened
    }

    async fn once<R: Request>(
        &mut self,
        request: &mut R,
        commit: &mut Commit,
        began: Instant,
    ) -> Result<R::Answer, Failed> {
        let availability = self.availability.clone();
        let store = self.opened(&availability, began).await?;
        if let Err(error) = store.check_timeline() {
            self.lose();
            return Err(Failed { error, passes: true });
        }
        let (max, name) = (request.max(store), "");
        // An answer of a server that was the primary until then is worth nothing.
        let answered = in_time(name, max, async {
            let answer = request.put(store, *commit).await?;
            store.check_timeline().map(|()| answer)
        });
        let answered = tokio::select! {
            biased;
            answered = answered => answered,
            () = availability.given_up(began) => Err(stopped()),
        };
        match answered {
            Ok(answer) => Ok(answer),
            Err(error) => {
                *commit = Commit::Again;
                if matches!(error, LedgerError::TooSlow { .. }) && request.is_told_if_slow() {
                    // The session is well, and so is the database.
                    return Err(Failed { error, passes: false });
                }
                let passes = self.place.passes(&error);
                if passes {
                    self.lose();
                }
                Err(Failed { error: self.named(error), passes })
            }
        }
    }

    /// A server's connection is of no more use; a file's is good for another try.
    fn lose(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Unopened) {
            State::Open(Store::Postgres(postgres)) => State::Lost(postgres.lose()),
            kept => kept,
        };
    }

    /// The connection, opened if it is not.
    async fn opened(&mut self, availability: &Availability, began: Instant) -> Result<&mut Store, Failed> {
        if !matches!(self.state, State::Open(_)) {
            let lost = match std::mem::replace(&mut self.state, State::Unopened) {
                State::Lost(lost) => Some(lost),
                State::Unopened | State::Open(_) => None,
            };
            match open(&self.place, lost.as_ref(), self.needs, availability, began).await {
                Ok(store) => self.state = State::Open(store),
                Err(error) => {
                    self.state = lost.map_or(State::Unopened, State::Lost);
                    return Err(Failed { passes: self.place.passes(&error), error: self.named(error) });
                }
            }
        }
        match &mut self.state {
            State::Open(store) => Ok(store),
            State::Unopened | State::Lost(_) => Err(Failed { error: LedgerError::Closed, passes: false }),
        }
    }

    /// An error of a bound here has no name yet.
    fn named(&self, error: LedgerError) -> LedgerError {
        match (error, &self.place) {
            (LedgerError::Unreachable { ledger, reason }, Place::Servers(servers)) if ledger.is_empty() => {
                LedgerError::Unreachable { ledger: servers.name().to_owned(), reason }
            }
            (error, _) => error,
        }
    }

    pub(super) async fn close(self) {
        match self.state {
            State::Open(store) => store.close().await,
            State::Unopened | State::Lost(_) => {}
        }
    }
}

/// A connection instead of the one that was lost, or the first one: only views have none at the begin.
async fn open(
    place: &Place,
    lost: Option<&Lost>,
    needs: Needs,
    availability: &Availability,
    began: Instant,
) -> Result<Store, LedgerError> {
    let opening = async {
        match lost {
            Some(lost) => place.open_again(lost).await,
            None => place.open(Opening::Existing, needs, Work::Views).await,
        }
    };
    tokio::select! {
        biased;
        opened = in_time("", REOPEN_MAX, opening) => opened,
        () = availability.given_up(began) => Err(stopped()),
    }
}

/// What a try failed at, and whether the next one may go well.
struct Failed {
    error: LedgerError,
    passes: bool,
}

fn stopped() -> LedgerError {
    let reason = "no answer when the process was to stop".to_owned();
    LedgerError::Unreachable { ledger: String::new(), reason }
}

/// Whether the database answers, and still is what is needed.
struct Ping;

impl Request for Ping {
    type Answer = ();

    async fn put(&mut self, store: &mut Store, _: Commit) -> Result<(), LedgerError> {
        store.ping().await
    }

    fn max(&self, store: &Store) -> Duration {
        /// Longer than any network's round trip, and shorter than anybody waits.
        const PING_MAX: Duration = Duration::from_secs(5);
        store.answer_max().min(PING_MAX)
    }
}
