//! What comes over HTTP and AMQP: jobs, what stands beside them, and Stripe's answers.

use std::time::Duration;

use bytes::Bytes;
use embosser::clock::Time;
use embosser::intake::document::{decode, without_pin};
use embosser::operation::Operation;
use embosser::queue::delivery::Delivery;
use embosser::queue::message::{Terms, job_of};
use embosser::stripe::{Answer, Listed};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lapin::protocol::basic::parse_properties;

const NOW: Time = Time::from_unix_ms(1_796_000_000_000);
const OPERATIONS: [Operation; 3] =
    [Operation::CreateCard, Operation::CreateCardholder, Operation::UpdateCard];

/// A job's JSON.
pub(super) fn job_document(data: &[u8]) {
    let decoded = decode(data, None);
    let bare = without_pin(data);
    if let Ok(job) = &decoded {
        let bare = bare.expect("a job is an object");
        if let Ok(again) = decode(&bare, None) {
            assert_eq!((&again.id, &again.batch), (&job.id, &job.batch));
            assert!(again.pin.is_none(), "a PIN was left in it");
        }
    }
}

/// A message's properties as they come over the wire, their length in two bytes before them, and its body after them.
pub(super) fn amqp_properties(data: &[u8]) {
    let Some((length, rest)) = data.split_at_checked(2) else { return };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]])).min(rest.len());
    let (properties, body) = rest.split_at(length);
    let Ok((_, properties)) = parse_properties(properties) else { return };
    let mut message = lapin::message::Delivery::mock(1, "".into(), "jobs".into(), false, body.to_vec());
    message.properties = properties;
    let delivery = Delivery::open(message, None);
    let envelope = delivery.envelope(NOW);
    assert!(envelope.published.is_none_or(|published| published <= NOW), "published in the future");
    assert!(delivery.early(NOW) <= Duration::from_secs(600), "put away for longer than the ladder");
    let _ = (delivery.waits(), delivery.given_up(), delivery.died_of());
    let terms = Terms {
        account: None,
        mode: None,
        pin_age_max: Duration::from_secs(3600),
        message_bytes_max: 128 << 10,
    };
    if let Ok(job) = job_of(body, &envelope, &terms)
        && job.pin.is_some()
    {
        let latest = NOW.plus(terms.pin_age_max);
        assert!(job.deadline.is_some_and(|deadline| deadline <= latest), "a PIN that may grow old");
    }
}

/// A status of three digits, a header's name and value, each in a line, and the body.
pub(super) fn stripe_answer(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let status = lines.next().and_then(|line| StatusCode::from_bytes(line).ok());
    let Some(status) = status else { return };
    let mut headers = HeaderMap::new();
    if let Some(header) = lines.next()
        && let Some(at) = header.iter().position(|byte| *byte == b':')
        && let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&header[..at]), HeaderValue::from_bytes(&header[at + 1..]))
    {
        headers.insert(name, value);
    }
    let body = lines.next().map(Bytes::copy_from_slice).ok_or_else(|| "it broke off".to_owned());
    for operation in OPERATIONS {
        match Answer::of_change(operation, status, &headers, body.clone()) {
            Answer::Done { found, .. } => assert!(status.is_success() && !found.id.is_empty()),
            // An answer that cannot be understood is unknown, never a no.
            Answer::Refused { .. } | Answer::Forbidden { .. } => {
                assert!(status.is_client_error(), "{status}")
            }
            _ => {}
        }
    }
    match Listed::of_answer(status, &headers, body) {
        Listed::Page { found, more } => {
            assert!(status.is_success());
            assert!(!found.is_empty() || !more, "how to go on is not known");
        }
        Listed::Failed { reason, .. } => assert!(!reason.is_empty()),
    }
}
