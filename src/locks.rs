//! The standard library's locks, atomics and threads, for those parts whose every order of events a model checker tries.
//!
//! Here they are std's own and nothing else. `tests/models` compiles the same files with names of its own in this one's place, which
//! switch from thread to thread at each use.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
pub(crate) use std::thread;
