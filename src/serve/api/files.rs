//! The endpoints of files that people open: templates, columns files under their names, and results as a spreadsheet.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::BODY_WITHIN;
use crate::manifest::columns::{ColumnMap, Words};
use crate::manifest::dates::Order;
use crate::manifest::template::{What, csv, workbook};
use crate::serve::access::{Read, Submit};
use crate::serve::audit::{About, Action};
use crate::serve::extract::{Path, Query};
use crate::serve::problem::{Kind, Problem};
use crate::serve::results::ResultsQuery;
use crate::serve::{Server, columns, results_workbook};

use super::batches::existing;
use super::place;

/// Longest columns file.
const COLUMNS_BYTES_MAX: usize = 512 << 10;

/// What a template's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// A spreadsheet with notes and drop-downs.
    Xlsx,
    /// CSV UTF-8.
    Csv,
}

/// Which template.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TemplateQuery {
    /// What its rows are to be: cards for cardholders who exist, people who get a card each, changes of cards, or new PINs.
    #[param(inline)]
    pub(super) r#for: What,
    /// What its file is.
    #[param(inline)]
    pub(super) format: Option<Format>,
}

/// Whether a columns file is replaced.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeepQuery {
    /// `true` if one of this name may be there already.
    pub(super) replace: Option<bool>,
}

/// A columns file.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ColumnsView {
    /// Its name: what an upload says in `?columns=`.
    pub(super) name: String,
    /// Headings as they are spelt, and the column that each is; an empty text leaves it out.
    pub(super) columns: BTreeMap<String, String>,
    /// Columns that are filled from several headings, and these in the order in which they are read.
    pub(super) joined: BTreeMap<String, Vec<String>>,
    /// What rows have in a column that have nothing there.
    pub(super) defaults: BTreeMap<String, String>,
    /// Words in small letters and what they stand for, by columns.
    pub(super) values: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether physical cards whose row does not say where they are sent go to their person's own name and address.
    pub(super) own_address: bool,
    /// How dates are written that end with their year, if it says so: `day/month/year` or `month/day/year`.
    pub(super) date_order: Option<&'static str>,
}

impl ColumnsView {
    fn of(name: String, map: &ColumnMap) -> Self {
        let owned = |(one, other): (&str, &str)| (one.to_owned(), other.to_owned());
        let words = |words: &Words| words.iter().map(|(word, value)| (word.clone(), value.clone())).collect();
        Self {
            name,
            columns: map.headings().map(owned).collect(),
            joined: map.joined().map(|(column, of)| (column.to_owned(), of.to_vec())).collect(),
            defaults: map.defaults().map(owned).collect(),
            values: map.values().map(|(column, of)| (column.to_owned(), words(of))).collect(),
            own_address: map.ships_to_own_address(),
            date_order: map.date_order().map(Order::name),
        }
    }
}

/// Download an empty manifest with its headings and an example row.
#[utoipa::path(
    get, path = "/v1/template", tag = "batches", params(TemplateQuery), security(("token" = ["submit"])),
    responses((status = 409, body = Problem, content_type = "application/problem+json",
            description = "New PINs are chosen by cardholders, and there is no page for that"),
        (status = 200, description = "The file",
        content((String = "text/csv"), (Vec<u8> = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))))
)]
pub(super) async fn template(
    _: Submit,
    State(server): State<Server>,
    Query(query): Query<TemplateQuery>,
) -> Result<Response, Problem> {
    let chooses = server.takes_choices();
    if let (What::Pins, Err(reason)) = (query.r#for, &chooses) {
        return Err(Problem::new(Kind::Conflict, reason.clone()));
    }
    let chooses = chooses.is_ok();
    let bug = |error: String| {
        tracing::error!(error, "a template cannot be written");
        Problem::new(Kind::Internal, "the template cannot be written")
    };
    let (kind, bytes) = match query.format.unwrap_or(Format::Xlsx) {
        Format::Csv => {
            ("text/csv; charset=utf-8", csv(query.r#for, chooses).map_err(|error| bug(error.to_string()))?)
        }
        Format::Xlsx => (
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            workbook(query.r#for, chooses).map_err(|error| bug(error.to_string()))?,
        ),
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], bytes).into_response())
}

/// Show a columns file.
#[utoipa::path(
    get, path = "/v1/columns/{name}", tag = "batches", params(("name" = String, Path, min_length = 1, example = "staff")),
    security(("token" = ["submit"])),
    responses((status = 200, body = ColumnsView),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "There is none of that name, or it is wrong"))
)]
pub(super) async fn show_columns(
    _: Submit,
    State(server): State<Server>,
    Path(name): Path<String>,
) -> Result<Json<ColumnsView>, Problem> {
    let map = columns::named(server.parts.config.columns_directory.as_deref(), &name).await?;
    Ok(Json(ColumnsView::of(name, &map)))
}

/// The text of a columns file: within its bounds, and soon there.
async fn columns_body(body: Body) -> Result<Vec<u8>, Problem> {
    let read = async {
        let (mut bytes, mut pieces) = (Vec::new(), body.into_data_stream());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Problem::new(Kind::BadRequest, "the columns file ended early"))?;
            if bytes.len() + piece.len() > COLUMNS_BYTES_MAX {
                let reason = format!("a columns file has at most {} KiB", COLUMNS_BYTES_MAX >> 10);
                return Err(Problem::new(Kind::TooLarge, reason));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    let read = tokio::time::timeout(BODY_WITHIN, read).await;
    read.map_err(|_| Problem::new(Kind::TooSlow, "the columns file took too long to come"))?
}

/// Keep a columns file under a name, for uploads to come.
#[utoipa::path(
    put, path = "/v1/columns/{name}", tag = "batches",
    params(("name" = String, Path, min_length = 1, max_length = 64, example = "staff"), KeepQuery),
    security(("token" = ["submit"])),
    request_body(content = String, content_type = "application/toml", description = "The columns file"),
    responses((status = 200, body = ColumnsView),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It is wrong; the answer says where"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It took too long to come"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "There is one of that name, or this server keeps none"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "It is too long"))
)]
pub(super) async fn keep_columns(
    Submit(caller): Submit,
    State(server): State<Server>,
    Path(name): Path<String>,
    Query(query): Query<KeepQuery>,
    request: axum::extract::Request,
) -> Result<Json<ColumnsView>, Problem> {
    let body = columns_body(request.into_body()).await?;
    let text = String::from_utf8(body)
        .map_err(|_| Problem::new(Kind::BadRequest, "the columns file is no UTF-8 text"))?;
    let folder = server.parts.config.columns_directory.as_deref();
    let about = About { detail: Some(name.clone()), ..About::default() };
    server.record(&caller, Action::ColumnsKept, about).await?;
    let map = columns::keep(folder, &name, text, query.replace == Some(true)).await?;
    tracing::info!(name, "a columns file was kept");
    Ok(Json(ColumnsView::of(name, &map)))
}

/// Download a batch's results as a spreadsheet: a row for each that has begun, every cell what it is (`0042` stays), and a second
/// sheet that sums them up.
///
/// Of 50,000 rows at most: more come as CSV.
#[utoipa::path(
    get, path = "/v1/batches/{batch}/results.xlsx", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example"), ResultsQuery), security(("token" = ["read"])),
    responses((status = 200, body = Vec<u8>,
            content_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "It has too many rows"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Others are being made"))
)]
pub(super) async fn results_workbook(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
    Query(query): Query<ResultsQuery>,
) -> Result<Response, Problem> {
    let place = place(
        &server.parts.capacity.workbooks,
        "other spreadsheets are being made; the CSV can be had at once",
    )?;
    let batch = existing(&server, batch).await?;
    results_workbook::xlsx(&server, &batch, query.outcome, place).await
}
