//! What is drawn by chance: by the system's randomness, or from a simulation's seed.

use rand::Rng as _;

/// A number from `least` to `most`, both included.
pub(crate) fn between(least: f64, most: f64) -> f64 {
    #[cfg(feature = "killpoints")]
    if let Some(drawn) = seeded::between(least, most) {
        return drawn;
    }
    rand::rng().random_range(least..=most)
}

/// What this thread draws follows from this seed from now on; from the system's randomness again if there is none.
#[cfg(feature = "killpoints")]
pub fn seed(seed: Option<u64>) {
    seeded::seed(seed);
}

#[cfg(feature = "killpoints")]
mod seeded {
    use std::cell::RefCell;

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    thread_local! {
        static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    pub(super) fn seed(seed: Option<u64>) {
        DICE.with_borrow_mut(|dice| *dice = seed.map(StdRng::seed_from_u64));
    }

    pub(super) fn between(least: f64, most: f64) -> Option<f64> {
        DICE.with_borrow_mut(|dice| Some(dice.as_mut()?.random_range(least..=most)))
    }
}
