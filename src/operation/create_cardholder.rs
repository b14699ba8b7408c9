//! `POST /v1/issuing/cardholders`: a person or a company who can have cards.

use super::categories::CATEGORIES;
use super::kind::{INTERVALS, Kind, TEXT_MAX};
use super::{Declaration, OwnMetadata, Place};

pub(super) static DECLARATION: Declaration = Declaration {
    word: "create_cardholder",
    title: "A cardholder to create: the parameters of Stripe's POST /v1/issuing/cardholders",
    id_prefix: "ich_",
    parameters: &[
        ("billing[address][city]", Kind::Text(TEXT_MAX)),
        ("billing[address][country]", Kind::Country),
        ("billing[address][line1]", Kind::Text(TEXT_MAX)),
        ("billing[address][line2]", Kind::Text(TEXT_MAX)),
        ("billing[address][postal_code]", Kind::Text(TEXT_MAX)),
        ("billing[address][state]", Kind::Text(TEXT_MAX)),
        ("company[tax_id]", Kind::Text(TEXT_MAX)),
        ("email", Kind::Text(TEXT_MAX)),
        ("expand[0]", Kind::Expand),
        ("individual[card_issuing][user_terms_acceptance][date]", Kind::Integer { min: 0, max: i64::MAX }),
        ("individual[card_issuing][user_terms_acceptance][ip]", Kind::Text(TEXT_MAX)),
        ("individual[card_issuing][user_terms_acceptance][user_agent]", Kind::Text(TEXT_MAX)),
        ("individual[dob][day]", Kind::Integer { min: 1, max: 31 }),
        ("individual[dob][month]", Kind::Integer { min: 1, max: 12 }),
        ("individual[dob][year]", Kind::Integer { min: 1900, max: 9999 }),
        ("individual[first_name]", Kind::Text(TEXT_MAX)),
        ("individual[last_name]", Kind::Text(TEXT_MAX)),
        ("individual[verification][document][back]", Kind::Text(TEXT_MAX)),
        ("individual[verification][document][front]", Kind::Text(TEXT_MAX)),
        ("metadata[*]", Kind::Metadata { of_pin: false }),
        ("name", Kind::Text(TEXT_MAX)),
        ("phone_number", Kind::Text(TEXT_MAX)),
        ("preferred_locales[0]", Kind::OneOf(&["de", "en", "es", "fr", "it"])),
        ("reuse", Kind::Boolean),
        ("spending_controls[allowed_categories][0]", Kind::OneOf(&CATEGORIES)),
        ("spending_controls[blocked_categories][0]", Kind::OneOf(&CATEGORIES)),
        ("spending_controls[spending_limits][0][amount]", Kind::Amount),
        ("spending_controls[spending_limits][0][categories][0]", Kind::OneOf(&CATEGORIES)),
        ("spending_controls[spending_limits][0][interval]", Kind::OneOf(INTERVALS)),
        ("spending_controls[spending_limits_currency]", Kind::Currency),
        ("status", Kind::OneOf(&["active", "inactive"])),
        ("type", Kind::OneOf(&["company", "individual"])),
    ],
    required: &[
        (
            "",
            &[
                "billing[address][city]",
                "billing[address][country]",
                "billing[address][line1]",
                "billing[address][postal_code]",
                "name",
            ],
        ),
        ("individual[dob]", &["[day]", "[month]", "[year]"]),
        ("spending_controls[spending_limits][0]", &["[amount]", "[interval]"]),
    ],
    exclusive: &[("spending_controls[allowed_categories]", "spending_controls[blocked_categories]")],
    own_metadata: OwnMetadata { job: "&metadata[embosser_job]=", batch: Some("&metadata[embosser_batch]=") },
    path: |_| "/v1/issuing/cardholders".to_owned(),
    look: |request| {
        let by = |path: &str| request.value(path).map(str::to_owned);
        let narrow = by("email").map(Place::CardholdersByEmail);
        let narrow = narrow.or_else(|| by("phone_number").map(Place::CardholdersByPhone));
        [narrow.unwrap_or(Place::Cardholders), Place::Cardholders]
    },
    shared: &[],
};
