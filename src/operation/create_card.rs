//! `POST /v1/issuing/cards`: a new card.

use super::categories::CATEGORIES;
use super::kind::{INTERVALS, Kind, PRESENCES, TEXT_MAX};
use super::{Declaration, OwnMetadata, Place};

/// What fits on a card's second line, in characters (the parameter's description; its schema says 5000).
const SECOND_LINE_MAX: usize = 24;

pub(super) static DECLARATION: Declaration = Declaration {
    word: "create_card",
    title: "A card to create: the parameters of Stripe's POST /v1/issuing/cards",
    id_prefix: "ic_",
    parameters: &[
        ("cancel_replaced", Kind::Boolean),
        ("cardholder", Kind::Cardholder),
        ("currency", Kind::Currency),
        ("exp_month", Kind::Integer { min: 1, max: 12 }),
        ("exp_year", Kind::Integer { min: 2000, max: 9999 }),
        ("expand[0]", Kind::Expand),
        ("financial_account", Kind::Text(TEXT_MAX)),
        ("lifecycle_controls[cancel_after][payment_count]", Kind::Integer { min: 1, max: i64::MAX }),
        ("metadata[*]", Kind::Metadata { of_pin: false }),
        ("personalization_design", Kind::Text(TEXT_MAX)),
        ("pin[choose]", Kind::Boolean),
        ("pin[encrypted_number]", Kind::Pin),
        ("replacement_for", Kind::Text(TEXT_MAX)),
        ("replacement_reason", Kind::OneOf(&["damaged", "expired", "lost", "stolen"])),
        ("second_line", Kind::Text(SECOND_LINE_MAX)),
        ("shipping[address][city]", Kind::Text(TEXT_MAX)),
        ("shipping[address][country]", Kind::Country),
        ("shipping[address][line1]", Kind::Text(TEXT_MAX)),
        ("shipping[address][line2]", Kind::Text(TEXT_MAX)),
        ("shipping[address][postal_code]", Kind::Text(TEXT_MAX)),
        ("shipping[address][state]", Kind::Text(TEXT_MAX)),
        (
            "shipping[address_validation][mode]",
            Kind::OneOf(&["disabled", "normalization_only", "validation_and_normalization"]),
        ),
        ("shipping[business_name]", Kind::Text(50)),
        ("shipping[customs][eori_number]", Kind::Text(TEXT_MAX)),
        ("shipping[name]", Kind::Text(TEXT_MAX)),
        ("shipping[phone_number]", Kind::Text(TEXT_MAX)),
        ("shipping[require_signature]", Kind::Boolean),
        ("shipping[service]", Kind::OneOf(&["express", "priority", "standard"])),
        ("shipping[type]", Kind::OneOf(&["bulk", "individual"])),
        ("spending_controls[allowed_card_presences][0]", Kind::OneOf(PRESENCES)),
        ("spending_controls[allowed_categories][0]", Kind::OneOf(&CATEGORIES)),
        ("spending_controls[allowed_merchant_countries][0]", Kind::Country),
        ("spending_controls[blocked_card_presences][0]", Kind::OneOf(PRESENCES)),
        ("spending_controls[blocked_categories][0]", Kind::OneOf(&CATEGORIES)),
        ("spending_controls[blocked_merchant_countries][0]", Kind::Country),
        ("spending_controls[spending_limits][0][amount]", Kind::Amount),
        ("spending_controls[spending_limits][0][categories][0]", Kind::OneOf(&CATEGORIES)),
        ("spending_controls[spending_limits][0][interval]", Kind::OneOf(INTERVALS)),
        ("status", Kind::OneOf(&["active", "inactive"])),
        ("type", Kind::OneOf(&["physical", "virtual"])),
    ],
    required: &[
        ("", &["currency", "type"]),
        ("lifecycle_controls", &["[cancel_after][payment_count]"]),
        (
            "shipping",
            &[
                "[address][city]",
                "[address][country]",
                "[address][line1]",
                "[address][postal_code]",
                "[name]",
            ],
        ),
        ("shipping[address_validation]", &["[mode]"]),
        ("spending_controls[spending_limits][0]", &["[amount]", "[interval]"]),
    ],
    exclusive: &[
        ("spending_controls[allowed_card_presences]", "spending_controls[blocked_card_presences]"),
        ("spending_controls[allowed_categories]", "spending_controls[blocked_categories]"),
        ("spending_controls[allowed_merchant_countries]", "spending_controls[blocked_merchant_countries]"),
    ],
    own_metadata: OwnMetadata { job: "&metadata[embosser_job]=", batch: Some("&metadata[embosser_batch]=") },
    path: |_| "/v1/issuing/cards".to_owned(),
    look: |request| {
        let narrow = request.cardholder.clone().map_or(Place::Cards, Place::CardsOf);
        [narrow, Place::Cards]
    },
    shared: &[
        ("type", |found| found.kind.as_deref()),
        ("currency", |found| found.currency.as_deref()),
        ("cardholder", |found| found.cardholder.as_deref()),
    ],
};
