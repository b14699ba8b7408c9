//! Spans for a collector of OpenTelemetry traces, with the names of its messaging and HTTP conventions.
//!
//! Duty: to begin the spans, and to take a trace's context (W3C Trace Context) from a message or a request and hand it
//! on. Only with the feature `otlp`, and only where a collector is named; else every span here is none and costs
//! nothing. Never: a sender's text other than a job's id and batch, a query, a header or a body among the attributes.

#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
pub(crate) use off::{answered, delivered, requesting, sending, serving};
#[cfg(feature = "otlp")]
pub use otlp::{Export, TARGET};
#[cfg(feature = "otlp")]
pub(crate) use otlp::{answered, delivered, requesting, sending, serving};

/// A server that a span is about, as its attributes name it.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "without spans nobody reads it"))]
pub(crate) struct Server<'s> {
    /// Its host.
    pub(crate) address: &'s str,
    /// Its port.
    pub(crate) port: u16,
}

/// The header of a trace's context, in messages and requests (w3.org/TR/trace-context).
pub(crate) const PARENT_HEADER: &str = "traceparent";
