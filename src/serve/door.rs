//! Who may stay connected: a connections that has shown no token must not keep everybody else out.
//!
//! A connection is *known* once a request on it was let through by its token. Of the others only so many may be open at once,
//! from one address and in all. Whoever comes beyond that is let in all the same, and another one goes: of the address that has
//! most of them the one that has rested longest. Behind a proxy all come from one address, and those that are in use are known.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::Extensions;
use tokio_util::sync::CancellationToken;

use super::limits::{UNKNOWN_MAX, UNKNOWN_OF_ADDRESS_MAX};

/// Who is connected and has shown no token.
#[derive(Debug, Default)]
pub(super) struct Door {
    unknown: Mutex<Unknown>,
}

#[derive(Debug, Default)]
struct Unknown {
    /// Connections so far, which numbers them in order.
    came: u64,
    /// By address, in the order in which they came.
    of: HashMap<IpAddr, BTreeMap<u64, Entry>>,
    count: usize,
}

#[derive(Debug)]
struct Entry {
    /// Whether a request of it is under way.
    is_asking: bool,
    closed: CancellationToken,
}

/// A connection's place; given back when the last of its clones is dropped.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    door: Arc<Door>,
    address: IpAddr,
    number: u64,
    closed: CancellationToken,
}

/// A request that is under way on a connection, until this is dropped.
pub(super) struct Asking(Place);

impl Door {
    fn unknown(&self) -> MutexGuard<'_, Unknown> {
        // Every change leaves the map and its count in agreement.
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Place {
        let address = network_of(peer);
        let closed = CancellationToken::new();
        let mut unknown = self.unknown();
        if unknown.of.get(&address).is_some_and(|of| of.len() >= UNKNOWN_OF_ADDRESS_MAX) {
            unknown.close_one_of(address);
        }
        if unknown.count >= UNKNOWN_MAX {
            unknown.close_one();
        }
        unknown.came += 1;
        unknown.count += 1;
        let number = unknown.came;
        let entry = Entry { is_asking: false, closed: closed.clone() };
        unknown.of.entry(address).or_default().insert(number, entry);
        Place(Arc::new(Held { door: self.clone(), address, number, closed }))
    }

    /// Makes room for another connection, known or not: one that is not known goes. False if all are known.
    pub(super) fn make_room(&self) -> bool {
        self.unknown().close_one()
    }
}

impl Unknown {
    fn close_one(&mut self) -> bool {
        let fullest = self.of.iter().max_by_key(|(_, of)| of.len()).map(|(address, _)| *address);
        fullest.is_some_and(|address| self.close_one_of(address))
    }

    /// The oldest that rests; only if none does the oldest.
    fn close_one_of(&mut self, address: IpAddr) -> bool {
        let Some(of) = self.of.get(&address) else { return false };
        let number = of.iter().find(|(_, entry)| !entry.is_asking).or_else(|| of.iter().next());
        let Some(number) = number.map(|(number, _)| *number) else { return false };
        if let Some(entry) = self.remove(address, number) {
            entry.closed.cancel();
        }
        true
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<Entry> {
        let of = self.of.get_mut(&address)?;
        let entry = of.remove(&number)?;
        if of.is_empty() {
            self.of.remove(&address);
        }
        self.count -= 1;
        Some(entry)
    }

    fn entry(&mut self, held: &Held) -> Option<&mut Entry> {
        self.of.get_mut(&held.address)?.get_mut(&held.number)
    }
}

impl Place {
    /// Ends when the connection must go.
    pub(super) async fn closed(&self) {
        self.0.closed.cancelled().await;
    }

    /// A request of it is under way.
    pub(super) fn ask(&self) -> Asking {
        if let Some(entry) = self.0.door.unknown().entry(&self.0) {
            entry.is_asking = true;
        }
        Asking(self.clone())
    }

    /// Marks the connection of a request whose token was good.
    pub(super) fn is_known(extensions: &Extensions) {
        if let Some(Self(held)) = extensions.get() {
            held.door.unknown().remove(held.address, held.number);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let held = &self.0.0;
        if let Some(entry) = held.door.unknown().entry(held) {
            entry.is_asking = false;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.door.unknown().remove(self.address, self.number);
    }
}

/// One who has an IPv6 address has some 2^64 of them.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn is_closed(place: &Place) -> bool {
        place.0.closed.is_cancelled()
    }

    fn known(place: &Place) {
        let mut extensions = Extensions::new();
        extensions.insert(place.clone());
        Place::is_known(&extensions);
    }

    #[test]
    fn of_an_address_the_one_that_has_rested_longest_goes_and_never_a_known_one() {
        let door = Arc::new(Door::default());
        let places: Vec<_> = (0..UNKNOWN_OF_ADDRESS_MAX).map(|_| door.enter(address(1))).collect();
        known(&places[0]);
        let asking = places[1].ask();
        let _in_the_room_of_the_known_one = door.enter(address(1));
        assert!(!places.iter().any(is_closed));
        let _more = door.enter(address(1));
        assert!(!is_closed(&places[0]) && !is_closed(&places[1]) && is_closed(&places[2]));
        drop(asking);
        let _still_more = door.enter(address(1));
        assert!(is_closed(&places[1]) && !is_closed(&places[3]));
        assert_eq!(door.unknown().count, UNKNOWN_OF_ADDRESS_MAX);
    }

    #[test]
    fn in_all_the_address_with_most_of_them_loses_one() {
        let door = Arc::new(Door::default());
        let few = [door.enter(address(9)), door.enter(address(8))];
        let connections: Vec<_> =
            (0..UNKNOWN_MAX).map(|number| door.enter(address(u8::from(number % 3 == 0)))).collect();
        assert!(!few.iter().any(is_closed));
        assert_eq!(
            connections.iter().filter(|place| is_closed(place)).count(),
            connections.len() + few.len() - door.unknown().count
        );
        assert!(door.unknown().count <= UNKNOWN_MAX);
        assert!(door.make_room());
        drop((few, connections));
        assert!(door.unknown().of.is_empty());
        assert_eq!(door.unknown().count, 0);
        assert!(!door.make_room());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), address(1));
    }
}
