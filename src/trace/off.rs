//! Without the feature `otlp` there are no spans.

use axum::Router;
use lapin::types::FieldTable;
use tracing::Span;

use super::Server;

pub(crate) fn delivered(_: Server<'_>, _: &str, _: &FieldTable, _: usize) -> Span {
    Span::none()
}

pub(crate) fn sending(_: Server<'_>, _: &str, _: &mut FieldTable, _: usize) -> Span {
    Span::none()
}

pub(crate) fn requesting(_: &str, _: &url::Url) -> Span {
    Span::none()
}

pub(crate) fn answered(_: &Span, _: Option<u16>) {}

pub(crate) fn serving<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
}
