//! What the pace is told of calls: which endpoint they are for, and what a limiter's 429 means.

use crate::operation::{Operation, Place};
use crate::pace::{Endpoint, Limiter};
use crate::stripe::LimitReason;

/// The endpoint of an operation.
pub(crate) fn endpoint_of(operation: Operation) -> Endpoint {
    match operation {
        Operation::CreateCard => Endpoint::CreateCard,
        Operation::UpdateCard => Endpoint::UpdateCard,
        Operation::CreateCardholder => Endpoint::CreateCardholder,
    }
}

/// The endpoint by which a place is looked through.
pub(crate) fn endpoint_of_place(place: &Place) -> Endpoint {
    match place {
        Place::Cards | Place::CardsOf(_) => Endpoint::ListCards,
        Place::CardholdersByEmail(_) | Place::CardholdersByPhone(_) | Place::Cardholders => {
            Endpoint::ListCardholders
        }
        Place::Card(_) => Endpoint::Retrieve,
    }
}

/// What the limiter counts that gives this reason. One that names neither calls in flight nor the whole account is
/// about the endpoint's rate.
pub(crate) fn limiter_of(reason: LimitReason) -> Limiter {
    match reason {
        LimitReason::GlobalConcurrency | LimitReason::EndpointConcurrency => Limiter::Concurrency,
        LimitReason::GlobalRate => Limiter::AccountRate,
        LimitReason::EndpointRate | LimitReason::ResourceSpecific | LimitReason::Other => {
            Limiter::EndpointRate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_slows_down_what_it_is_about() {
        assert_eq!(limiter_of(LimitReason::GlobalRate), Limiter::AccountRate);
        for reason in [LimitReason::EndpointRate, LimitReason::ResourceSpecific, LimitReason::Other] {
            assert_eq!(limiter_of(reason), Limiter::EndpointRate, "{reason:?}");
        }
        for reason in [LimitReason::GlobalConcurrency, LimitReason::EndpointConcurrency] {
            assert_eq!(limiter_of(reason), Limiter::Concurrency, "{reason:?}");
        }
    }
}
