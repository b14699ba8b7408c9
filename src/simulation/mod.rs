//! What a deterministic simulation decides in the machine's place: which task runs next, what is drawn by chance, and which rule
//! is broken on purpose. Time is tokio's (`tokio::time::pause`) and [`Clock::simulated`](crate::clock::Clock::simulated)'s.
//!
//! Only with the `killpoints` feature, which no release has; without it these functions are tokio's and rand's own, and no rule
//! is ever broken. All of it is of one thread: simulations on several threads know nothing of each other.

mod mutation;
mod random;
mod spawn;

pub use mutation::Mutation;
#[cfg(feature = "killpoints")]
pub use mutation::break_rule;
pub(crate) use mutation::is_broken;
pub(crate) use random::between;
#[cfg(feature = "killpoints")]
pub use random::seed;
pub(crate) use spawn::spawn;
#[cfg(feature = "killpoints")]
pub use spawn::{Spawner, spawn_by};
