//! What a limiter's 429 means for the pace.

use crate::pace::Limiter;
use crate::stripe::LimitReason;

/// What the limiter counts that gives this reason. One that says nothing of calls in flight is about their rate.
pub(crate) fn limiter_of(reason: LimitReason) -> Limiter {
    match reason {
        LimitReason::GlobalConcurrency | LimitReason::EndpointConcurrency => Limiter::Concurrency,
        LimitReason::GlobalRate
        | LimitReason::EndpointRate
        | LimitReason::ResourceSpecific
        | LimitReason::Other => Limiter::Rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_limiter_gives_as_its_reason_the_rate_follows_unless_it_counts_calls_in_flight() {
        for reason in [
            LimitReason::GlobalRate,
            LimitReason::EndpointRate,
            LimitReason::ResourceSpecific,
            LimitReason::Other,
        ] {
            assert_eq!(limiter_of(reason), Limiter::Rate, "{reason:?}");
        }
        for reason in [LimitReason::GlobalConcurrency, LimitReason::EndpointConcurrency] {
            assert_eq!(limiter_of(reason), Limiter::Concurrency, "{reason:?}");
        }
    }
}
