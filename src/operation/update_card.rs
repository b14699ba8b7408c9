//! `POST /v1/issuing/cards/{card}`: a change of a card, a new PIN among them.
//!
//! A PIN cannot be read back. So the change writes its job's id into the card's metadata, by which it is known whether it took
//! effect; and of a card's changes only the latest that was begun may be sent again (see the line's order of changes).

use super::categories::CATEGORIES;
use super::kind::{INTERVALS, Kind, PRESENCES, TEXT_MAX};
use super::{Declaration, OwnMetadata, Place};

pub(super) static DECLARATION: Declaration = Declaration {
    word: "update_card",
    title: "A change of a card: the parameters of Stripe's POST /v1/issuing/cards/{card}",
    id_prefix: "ic_",
    parameters: &[
        ("cancellation_reason", Kind::OneOf(&["lost", "stolen"])),
        ("expand[0]", Kind::Expand),
        ("metadata[*]", Kind::Metadata { of_pin: false }),
        ("personalization_design", Kind::Text(TEXT_MAX)),
        ("pin[choose]", Kind::Boolean),
        ("pin[encrypted_number]", Kind::Pin),
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
        ("status", Kind::OneOf(&["active", "canceled", "inactive"])),
    ],
    required: &[
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
    own_metadata: OwnMetadata { job: "&metadata[embosser_change]=", batch: None },
    path: |request| format!("/v1/issuing/cards/{}", request.target.as_deref().unwrap_or_default()),
    look: |request| {
        let card = Place::Card(request.target.clone().unwrap_or_default());
        [card.clone(), card]
    },
    shared: &[],
};

/// What a card's id must be, for whoever gave another.
pub const CARD_ID: &str = "is the card that is changed: ic_ and letters and digits";

/// Whether a text can be a card's id: it becomes a part of an address.
#[must_use]
pub fn is_card_id(text: &str) -> bool {
    const CHARACTERS_MAX: usize = 200;
    let rest = text.strip_prefix("ic_").unwrap_or_default();
    !rest.is_empty()
        && text.len() <= CHARACTERS_MAX
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
