//! Promise: the memory that held an encrypted PIN is wiped before it is given back, and a PIN cannot be printed.
//!
//! This program's allocator looks through every block that is freed for a text that stands in the JWE.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use embosser::job::{Batch, Job, JobId};
use embosser::operation::{Operation, PIN, Request};
use embosser::pin::PinJwe;
use zeroize::{Zeroize as _, Zeroizing};

/// Stands in the ciphertext segment of every JWE of this test, and nowhere else.
const TELLING: &[u8; 22] = b"TellingCiphertextBeing";

/// Blocks that were freed with the telling text in them.
static FREED_WITH_PIN: AtomicUsize = AtomicUsize::new(0);

struct Watching;

// SAFETY: every call is the system allocator's own. Growing is left to the trait's default, which takes a new block,
// copies and frees the old one: a copy that growth leaves behind is seen too.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract. Zeroed, so that all of a block may be read when it is freed.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is still the caller's, has this size, and was zeroed when it was made.
        let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        if memchr::memmem::find(bytes, TELLING).is_some() {
            FREED_WITH_PIN.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Freed blocks with the PIN in them while this ran.
fn freed_with_pin(what: impl FnOnce()) -> usize {
    let before = FREED_WITH_PIN.load(Ordering::SeqCst);
    what();
    FREED_WITH_PIN.load(Ordering::SeqCst) - before
}

/// A JWE whose every growth on the way is wiped.
fn compact() -> String {
    let header = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkExMjhDQkMtSFMyNTYiLCJraWQiOiJrZXkifQ";
    let mut compact = String::with_capacity(1000);
    compact.push_str(header);
    compact.push('.');
    // 'A' is six zero bits: 342 of them are 256 bytes of zero.
    (0..342).for_each(|_| compact.push('A'));
    compact.push_str(".AAAAAAAAAAAAAAAAAAAAAA.");
    compact.push_str(std::str::from_utf8(TELLING).unwrap());
    compact.push_str(".AAAAAAAAAAAAAAAAAAAAAA");
    compact
}

fn pairs(pin: bool) -> Vec<(String, String)> {
    let long = "x".repeat(400);
    let mut pairs = vec![("type", "virtual"), ("currency", "eur"), ("cardholder", "ich_1")];
    // The body grows beyond the room it begins with.
    pairs.extend(["metadata[a]", "metadata[b]", "metadata[c]", "metadata[d]"].map(|path| (path, &*long)));
    let mut pairs: Vec<_> = pairs.into_iter().map(|(path, value)| (path.into(), value.into())).collect();
    if pin {
        pairs.push((PIN.into(), compact()));
    }
    pairs
}

fn job() -> Job {
    let card = Request::from_pairs(Operation::CreateCard, pairs(false)).unwrap();
    let (id, batch) = (JobId::new("b/1").unwrap(), Batch::new("b").unwrap());
    Job::new(id, batch, None, card, Some(PinJwe::new(compact())))
}

// One test, since the allocator counts for the whole program.
#[test]
fn memory_that_held_a_pin_is_wiped_and_nothing_prints_it() {
    // That it would be seen: a plain text is not wiped, and neither is one that grew.
    assert_eq!(freed_with_pin(|| drop(compact())), 1);
    assert_eq!(freed_with_pin(|| drop(Zeroizing::new(compact() + &"x".repeat(1000)))), 1);

    assert_eq!(freed_with_pin(|| drop(PinJwe::new(compact()))), 0, "PinJwe");
    let json = Zeroizing::new(format!("\"{}\"", Zeroizing::new(compact()).as_str()));
    assert_eq!(freed_with_pin(|| drop(serde_json::from_str::<PinJwe>(&json).unwrap())), 0, "from JSON");
    assert_eq!(freed_with_pin(|| drop(job())), 0, "a job");
    assert_eq!(
        freed_with_pin(|| drop(Request::from_pairs(Operation::CreateCard, pairs(true)).unwrap())),
        0,
        "a request"
    );
    let refused = || {
        let mut pairs = pairs(true);
        pairs.push(("colour".into(), "red".into()));
        assert!(Request::from_pairs(Operation::CreateCard, pairs).is_err());
    };
    assert_eq!(freed_with_pin(refused), 0, "a request that is refused");
    let body = || {
        let job = job();
        let mut body = Zeroizing::new(Vec::with_capacity(16));
        let pin = job.pin.as_ref().map(PinJwe::expose);
        job.request.encode_into(&mut body, pin, job.id.as_str(), job.batch.as_str());
        assert!(memchr::memmem::find(&body, TELLING).is_some() && body.len() > 2048);
    };
    assert_eq!(freed_with_pin(body), 0, "a body that grew");
    let verified = || {
        let mut compact = compact();
        let key = include_bytes!("../src/sandbox/demo_key.pem");
        let key = openssl::rsa::Rsa::private_key_from_pem(key).unwrap();
        let pem = String::from_utf8(key.public_key_to_pem().unwrap()).unwrap();
        let document = serde_json::json!({"key_id": "key", "pkcs8": pem}).to_string();
        let key = embosser::jwe::PinKey::parse(document.as_bytes()).unwrap();
        assert_eq!(embosser::jwe::verify(&compact, &key), Ok(()));
        assert_eq!(embosser::jwe::inspect(&compact), Ok(()));
        compact.zeroize();
    };
    assert_eq!(freed_with_pin(verified), 0, "verification");

    let job = job();
    let mut printed = vec![format!("{job:?} {:?} {:#?}", job.pin, job.request)];
    printed.push(format!("{:?}", PinJwe::new(compact())));
    let panicked = catch_unwind(AssertUnwindSafe(|| panic!("{job:?}"))).unwrap_err();
    printed.push(panicked.downcast_ref::<String>().unwrap().clone());
    let unwrapped =
        catch_unwind(|| std::hint::black_box(Err::<(), _>(PinJwe::new(compact()))).unwrap()).unwrap_err();
    printed.push(unwrapped.downcast_ref::<String>().unwrap().clone());
    for text in printed {
        assert!(text.contains("redacted"), "{text}");
        assert!(
            !text.contains(std::str::from_utf8(TELLING).unwrap()) && !text.contains("AAAA"),
            "a PIN is printed"
        );
    }
}
