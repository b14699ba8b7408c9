//! The OpenAPI document's frame; its paths and schemas come from the endpoints.

use serde_json::{Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::intake::document;

use super::problem::{Problem, Wrong};

/// The frame.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "embosser",
        description = "Issues payment cards in bulk through Stripe Issuing: exactly one card per row or job.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem, Wrong)),
    tags(
        (name = "batches", description = "Manifests and what became of their rows"),
        (name = "jobs", description = "Jobs that are sent one by one"),
        (name = "pins", description = "PINs that cardholders choose or look at, and the links for that"),
        (name = "audit", description = "Who did what"),
        (name = "server", description = "The server itself"),
    ),
    modifiers(&Tokens),
)]
pub(super) struct Document;

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A token with the role that the endpoint names: read, submit, operate, approve or pin. None is needed \
                 where none is configured; then only the server's own machine is served.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
    }
}

/// The whole document: what the endpoints say of themselves, with what every one of them may answer, and what a job
/// asks for by the tables that the program itself goes by.
pub(super) fn whole(mut document: utoipa::openapi::OpenApi) -> Value {
    with_problems(&mut document);
    let mut whole = serde_json::to_value(document).expect("the document is plain data");
    let mut job = document::json_schema();
    // OpenAPI 3.1 schemas are of this dialect anyway.
    job.as_object_mut().expect("a job is an object").remove("$schema");
    let schemas = &mut whole["components"]["schemas"];
    for (path, name) in [
        ("/else/else/properties/card", "Card"),
        ("/else/then/properties/card", "CardChange"),
        ("/properties/cardholder", "Cardholder"),
    ] {
        let schema = job.pointer_mut(path).expect("a job's schema has its operations");
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        schemas[name] = std::mem::replace(schema, reference);
    }
    schemas["Job"] = job;
    whole
}

fn with_problems(document: &mut utoipa::openapi::OpenApi) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new()
        .description(
            "Problem details (RFC 9457): bad request, no or too weak token, busy, or not able to serve",
        )
        .content("application/problem+json", content)
        .build();
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post, &mut path.put].into_iter().flatten() {
            operation.responses.responses.insert("default".into(), RefOr::T(response.clone()));
        }
    }
}
