//! How often cardholders' pages may ask: by the link, and by the address that asks. Whoever guesses links pays more for each
//! wrong one.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use sha2::{Digest as _, Sha256};

use super::problem::{Kind, Problem};

/// Requests a minute from one address: an office of a thousand behind one address chooses its PINs within an hour.
const OF_ADDRESS: (u32, u32) = (120, 60);
/// What a link that cannot be used costs its address beside: 20 guesses a minute are left.
const GUESS_COSTS: u32 = 5;
/// Requests a minute with one link: a page needs two, and some more if its cardholder mistypes or its key is stale.
const OF_LINK: (u32, u32) = (30, 15);
/// Addresses or links that are remembered before those that rest are forgotten: a bound on memory.
const REMEMBERED_MAX: usize = 20_000;

type Keyed<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

/// The limits of a server's pages.
pub(super) struct PinLimits {
    addresses: Keyed<IpAddr>,
    links: Keyed<[u8; 32]>,
}

impl Default for PinLimits {
    fn default() -> Self {
        Self { addresses: limiter(OF_ADDRESS), links: limiter(OF_LINK) }
    }
}

fn limiter<K: Hash + Eq + Clone>((per_minute, burst): (u32, u32)) -> Keyed<K> {
    let count = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
    RateLimiter::hashmap(Quota::per_minute(count(per_minute)).allow_burst(count(burst)))
}

impl PinLimits {
    /// A request from an address.
    pub(super) fn address(&self, address: IpAddr) -> Result<(), Problem> {
        check(&self.addresses, &network_of(address))
    }

    /// A request with a link's text.
    pub(super) fn link(&self, token: &str) -> Result<(), Problem> {
        check(&self.links, &Sha256::digest(token.as_bytes()).into())
    }

    /// The address came with a link that cannot be used.
    pub(super) fn guessed(&self, address: IpAddr) {
        for _ in 0..GUESS_COSTS {
            let _ = self.addresses.check_key(&network_of(address));
        }
    }
}

/// Whose address it is: of IPv6 a customer has 64 bits for himself.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            const CUSTOMERS_OWN: u128 = (1 << 64) - 1;
            std::net::Ipv6Addr::from_bits(address.to_bits() & !CUSTOMERS_OWN).into()
        }
    }
}

fn check<K: Hash + Eq + Clone>(limiter: &Keyed<K>, key: &K) -> Result<(), Problem> {
    if limiter.len() > REMEMBERED_MAX {
        limiter.retain_recent();
    }
    limiter.check_key(key).map_err(|not_until| {
        let wait = not_until.wait_time_from(DefaultClock::default().now());
        Problem::new(Kind::TooManyRequests, "too many requests; wait a little")
            .retry_after(wait.as_secs() + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_slowed_and_others_are_not() {
        let limits = PinLimits::default();
        let (guesser, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut guesses = 0;
        while guesses < 10_000 && limits.address(guesser).is_ok() {
            limits.guessed(guesser);
            guesses += 1;
        }
        assert_eq!(guesses, 10);
        assert!(limits.address(other).is_ok());
        assert_eq!((0..100).filter(|_| limits.link("one").is_ok()).count(), 15);
        assert!(limits.link("another").is_ok());
    }
}
