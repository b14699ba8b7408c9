//! An upload from its request: as it stands, or as a form's file; within its bounds.

use std::sync::Arc;
use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::header;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use utoipa::IntoParams;

use super::Server;
use super::check::{Checked, Piece, Purpose, Stopped, check};
use super::columns;
use super::extract::int64;
use super::limits::{LINGER, PIECES_WAITING};
use super::plan::PlanView;
use super::problem::{Kind, Problem, Wrong};
use super::upload_fields::Fields;
use crate::clock::Time;
use crate::intake::start::start_of;
use crate::job::Batch;
use crate::manifest::batch::SecondCards;
use crate::manifest::columns::ColumnMap;
use crate::manifest::edits::Edits;
use crate::manifest::recognise::Recogniser;
use crate::manifest::{CheckReport, NO_ENCODING, Reading, waits};
use crate::operation::PIN_CHOICE;
use crate::remedy::TryAgain;

/// What an upload may be sent as; what it is, is told by its bytes.
const KINDS: [&str; 5] = [
    "text/csv",
    "application/csv",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.ms-excel",
    "application/vnd.oasis.opendocument.spreadsheet",
];

/// Parameters of an upload.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadQuery {
    /// The batch's name; without it, the name of the form's file. Together with a row's `row_id` it names the card
    /// for ever.
    #[param(min_length = 1, max_length = 255, example = "example")]
    pub(super) name: Option<String>,
    /// `true` if the same rows were issued under another name, and every row is to get a second card.
    pub(super) second_cards: Option<bool>,
    /// `true` if, of the batch's rows that were refused, only those are to be tried again that need no change (`takes` is
    /// `nothing` in its refusals). The others stay refused, as they are, and nothing is called for them. Rows that the batch does
    /// not know yet are issued as ever. Not together with `second_cards`.
    pub(super) retry: Option<bool>,
    /// What separates its cells: `comma`, `semicolon`, `tab` or `pipe`; without it, what its header shows.
    pub(super) delimiter: Option<String>,
    /// What its text was saved as: `windows-1252`, `macintosh` (Mac Roman) or another name that the web has for an encoding;
    /// without it, what its bytes show.
    pub(super) encoding: Option<String>,
    /// The sheet to read of a spreadsheet; without it, the first.
    pub(super) sheet: Option<String>,
    /// The name of a columns file of this server's: which of the upload's headings is which column.
    pub(super) columns: Option<String>,
    /// `true` if warnings are to keep it from being issued as problems do.
    pub(super) strict: Option<bool>,
    /// `true` if rows with problems are to be left out, and the others issued. Rows that contradict each other are never left
    /// out by themselves.
    pub(super) skip_invalid: Option<bool>,
    /// It is issued only if the file, as it comes, has this SHA-256, in hexadecimal: what a check of it answered. So nothing is
    /// issued that was not looked at, whatever was saved in its place meanwhile.
    #[param(min_length = 64, max_length = 64)]
    pub(super) file_sha256: Option<String>,
    /// How many cards the manifest cancels, if it does: that cannot be undone.
    #[serde(default, deserialize_with = "int64")]
    pub(super) yes_cancel: Option<u64>,
    /// Of a check alone: so many rows of the upload are answered as a table, those with problems and warnings first, if it is
    /// small. For the page on which it is mended; no cell that may hold a PIN is in it.
    #[param(maximum = 500)]
    pub(super) table: Option<usize>,
    /// When it is to start, within 7 days; without it, at once. If it must be approved, once that is done, too.
    #[param(example = "2026-12-01T05:00Z")]
    pub(super) start: Option<String>,
}

impl UploadQuery {
    /// How the upload is to be read.
    async fn reading(&self, server: &Server, fields: &Fields) -> Result<Reading, Problem> {
        let delimiter = self.delimiter.as_deref().map(|name| {
            Reading::delimiter_named(name).ok_or_else(|| {
                Problem::new(Kind::BadRequest, "delimiter is none of comma, semicolon, tab and pipe")
            })
        });
        let encoding = self.encoding.as_deref().map(|name| {
            Reading::encoding_named(name)
                .ok_or_else(|| Problem::new(Kind::BadRequest, format!("encoding {NO_ENCODING}")))
        });
        let folder = server.parts.config.columns_directory.as_deref();
        let bad = |reason: String| Problem::new(Kind::BadRequest, reason);
        let columns = match (&self.columns, &fields.columns) {
            (Some(_), Some(_)) => {
                return Err(bad(
                    "the columns are named in the address and sent in the form; one of them is enough".into(),
                ));
            }
            (Some(name), None) => Some(columns::named(folder, name).await?),
            (None, Some(text)) => {
                Some(Arc::new(ColumnMap::parse(text).map_err(|reason| {
                    bad(format!("what the form says of the columns is wrong: {reason}"))
                })?))
            }
            (None, None) => None,
        };
        let edits =
            fields.edits.as_ref().map(|edits| Edits::parse(edits)).transpose().map_err(bad)?.map(Arc::new);
        Ok(Reading {
            delimiter: delimiter.transpose()?,
            encoding: encoding.transpose()?,
            sheet: self.sheet.clone(),
            columns,
            edits,
            ..Reading::default()
        })
    }

    /// When it is to start.
    pub(super) fn start(&self, now: Time) -> Result<Option<Time>, Problem> {
        let start = self.start.as_deref().map(|text| start_of(text, now)).transpose();
        start.map_err(|wrong| Problem::new(Kind::BadRequest, format!("`start`: {wrong}")))
    }

    /// Whether rows that are known under other names are to be issued again.
    pub(super) fn second(&self) -> SecondCards {
        if self.second_cards == Some(true) { SecondCards::Wanted } else { SecondCards::Refused }
    }

    /// Which rows that were refused are to be tried again.
    ///
    /// # Errors
    /// If second cards are wanted of what is only tried again.
    fn again(&self) -> Result<TryAgain, Problem> {
        match (self.retry, self.second_cards) {
            (Some(true), Some(true)) => {
                let detail =
                    "`retry` and `second_cards` are not for one upload: what is tried again has no card yet";
                Err(Problem::new(Kind::BadRequest, detail))
            }
            (Some(true), _) => Ok(TryAgain::Unchanged),
            (None | Some(false), _) => Ok(TryAgain::All),
        }
    }
}

/// An upload that was read and checked.
pub(super) struct Upload {
    pub(super) batch: Option<Batch>,
    pub(super) checked: Checked,
}

/// Reads a request's upload and checks it as it comes.
pub(super) async fn receive(
    server: &Server,
    query: &UploadQuery,
    request: Request,
    purpose: Purpose,
) -> Result<Upload, Problem> {
    let Ok(_place) = server.parts.capacity.uploads.try_acquire() else {
        return Err(Problem::new(Kind::Busy, "as many uploads as are allowed are under way"));
    };
    let limits = server.limits;
    let length = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.upload_bytes_max) {
        let mut body = Body::of(server, request.into_body().into_data_stream());
        body.linger().await;
        return Err(too_large(limits.upload_bytes_max));
    }
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .map(|kind| kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase());
    match kind.as_deref() {
        Some(kind) if KINDS.contains(&kind) => {
            let batch = name_of(query.name.as_deref(), purpose)?;
            let mut body = Body::of(server, request.into_body().into_data_stream());
            let checked = receive_body(server, &mut body, batch.clone(), purpose, query).await;
            if checked.is_err() {
                body.linger().await;
            }
            Ok(Upload { batch, checked: checked? })
        }
        Some("multipart/form-data") => {
            // The form's own bounds are ours: bytes are counted as they come.
            let form = Multipart::from_request(request, &()).await.map_err(|_| {
                Problem::new(Kind::BadRequest, "the form has no boundary in its Content-Type")
            })?;
            receive_form(server, form, query, purpose).await
        }
        _ => Err(Problem::new(
            Kind::UnsupportedMediaType,
            "send the manifest as text/csv, as a spreadsheet (XLSX, XLS, ODS), or as a file in multipart/form-data",
        )),
    }
}

/// Checks a manifest that this server has written itself, as any upload: all of it must be right. It comes piece by piece.
pub(super) async fn receive_own(
    server: &Server,
    batch: &Batch,
    pieces: impl Stream<Item = Result<Bytes, Problem>> + Send,
) -> Result<Checked, Problem> {
    let Ok(_place) = server.parts.capacity.uploads.try_acquire() else {
        return Err(Problem::new(Kind::Busy, "as many uploads as are allowed are under way"));
    };
    let (query, purpose) = (UploadQuery::default(), Purpose::Issue { skips_invalid: false });
    let checking = Checking::begin(server, Some(batch.clone()), purpose, &query, &Fields::default()).await?;
    let mut pieces = std::pin::pin!(pieces);
    while let Some(bytes) = pieces.next().await.transpose()? {
        if !checking.add(bytes).await {
            break;
        }
    }
    all_or_nothing(server, checking.verdict(server).await?, &query, purpose)
}

/// The batch's name, if there is or must be one.
fn name_of(name: Option<&str>, purpose: Purpose) -> Result<Option<Batch>, Problem> {
    let Some(name) = name else {
        return match purpose {
            Purpose::Check { .. } | Purpose::Look => Ok(None),
            Purpose::Issue { .. } => {
                Err(Problem::new(Kind::BadRequest, "the batch needs a name: ?name=… or the form's file name"))
            }
        };
    };
    if matches!(name, "." | "..") {
        return Err(Problem::new(Kind::BadRequest, "the batch's name would be lost in its address"));
    }
    Batch::new(name)
        .map(Some)
        .map_err(|error| Problem::new(Kind::BadRequest, format!("the batch's name {error}")))
}

fn too_large(bytes_max: u64) -> Problem {
    Problem::new(Kind::TooLarge, format!("an upload has at most {} MiB; split it", bytes_max >> 20))
}

/// A request's body, counted and timed.
struct Body {
    pieces: BodyDataStream,
    idle_max: Duration,
    bytes_left: u64,
    bytes_max: u64,
}

impl Body {
    fn of(server: &Server, pieces: BodyDataStream) -> Self {
        let limits = server.limits;
        let bytes_max = limits.upload_bytes_max;
        Self { pieces, idle_max: limits.idle_max, bytes_left: bytes_max, bytes_max }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let next = tokio::time::timeout(self.idle_max, self.pieces.next()).await.map_err(|_| slow())?;
        let Some(piece) = next.transpose().map_err(|_| cut_off())? else { return Ok(None) };
        self.bytes_left =
            self.bytes_left.checked_sub(piece.len() as u64).ok_or_else(|| too_large(self.bytes_max))?;
        Ok(Some(piece))
    }

    /// Throws the rest away.
    async fn linger(&mut self) {
        let rest = async { while let Some(Ok(_)) = self.pieces.next().await {} };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
}

pub(super) fn slow() -> Problem {
    Problem::new(Kind::TooSlow, "the upload brought nothing for too long; send it again")
}

fn cut_off() -> Problem {
    Problem::new(Kind::BadRequest, "the upload ended early")
}

/// The check of an upload, on its thread.
struct Checking {
    pieces: mpsc::Sender<Piece>,
    verdict: tokio::task::JoinHandle<Result<Checked, Stopped>>,
}

impl Checking {
    async fn begin(
        server: &Server,
        batch: Option<Batch>,
        purpose: Purpose,
        query: &UploadQuery,
        fields: &Fields,
    ) -> Result<Self, Problem> {
        let (second, again) = (query.second(), query.again()?);
        let reading = query.reading(server, fields).await?;
        let (pieces, incoming) = mpsc::channel(PIECES_WAITING);
        let (budget, rows_max) = (server.parts.capacity.budget.clone(), server.limits.rows_max);
        let recogniser = batch.clone().map(|batch| {
            let (ledger, scope) = (server.parts.views.clone(), server.scope().clone());
            Recogniser::new(ledger, scope, batch, second, Handle::current()).trying(again)
        });
        let checking =
            move || check(incoming, batch.as_ref(), purpose, recogniser, &budget, (rows_max, reading));
        let verdict = tokio::task::spawn_blocking(checking);
        Ok(Self { pieces, verdict })
    }

    /// False if the check wants no more.
    async fn add(&self, bytes: Bytes) -> bool {
        self.pieces.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// What came of it, once the upload is whole.
    async fn verdict(self, server: &Server) -> Result<Checked, Problem> {
        let Self { pieces, verdict } = self;
        let _ = pieces.send(Piece::End).await;
        drop(pieces);
        let verdict = verdict.await.map_err(|error| {
            tracing::error!(%error, "a check failed");
            Problem::new(Kind::Internal, "the check failed; nothing was issued")
        })?;
        verdict.map_err(|stopped| server.problem_of(stopped))
    }
}

impl Server {
    /// Why an upload could not be read to its end, for its sender.
    pub(super) fn problem_of(&self, stopped: Stopped) -> Problem {
        match stopped {
            Stopped::CutOff => cut_off(),
            Stopped::TooManyRows(_) => {
                let rows_max = self.limits.rows_max;
                Problem::new(Kind::TooLarge, format!("an upload has at most {rows_max} rows; split it"))
            }
            Stopped::Full => {
                let waiting = self.batches.waiting_words();
                Problem::new(Kind::TooLarge, format!("{stopped}{}", waiting.unwrap_or_default()))
            }
            Stopped::NoTable(reason) => Problem::new(Kind::InvalidManifest, reason),
            Stopped::NoManifest(error) => Problem::new(Kind::InvalidManifest, without_path(&error)),
            Stopped::Ledger(error) => Problem::from(error),
        }
    }
}

/// A manifest's error without the path, which an upload has none of.
fn without_path(error: &crate::manifest::ManifestError) -> String {
    let text = error.to_string();
    text.strip_prefix("upload: ").map_or_else(|| text.clone(), str::to_owned)
}

async fn receive_body(
    server: &Server,
    body: &mut Body,
    batch: Option<Batch>,
    purpose: Purpose,
    query: &UploadQuery,
) -> Result<Checked, Problem> {
    let checking = Checking::begin(server, batch, purpose, query, &Fields::default()).await?;
    while let Some(bytes) = body.next().await? {
        if !checking.add(bytes).await {
            break;
        }
    }
    let checked = checking.verdict(server).await?;
    all_or_nothing(server, checked, query, purpose)
}

async fn receive_form(
    server: &Server,
    mut form: Multipart,
    query: &UploadQuery,
    purpose: Purpose,
) -> Result<Upload, Problem> {
    let limits = server.limits;
    let mut fields = Fields::default();
    loop {
        let field = tokio::time::timeout(limits.idle_max, form.next_field()).await.map_err(|_| slow())?;
        let Some(mut field) = field.map_err(malformed)? else {
            return Err(Problem::new(Kind::BadRequest, "the form holds no file"));
        };
        let Some(file_name) = field.file_name().map(str::to_owned) else {
            fields.read(field, limits.idle_max).await?;
            continue;
        };
        let stem =
            std::path::Path::new(&file_name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let batch = name_of(query.name.as_deref().or(stem.as_deref()), purpose)?;
        let checking = Checking::begin(server, batch.clone(), purpose, query, &fields).await?;
        let mut bytes_left = limits.upload_bytes_max;
        let mut wanted = true;
        loop {
            let chunk = tokio::time::timeout(limits.idle_max, field.chunk()).await.map_err(|_| slow())?;
            let Some(bytes) = chunk.map_err(malformed)? else { break };
            bytes_left = bytes_left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| too_large(limits.upload_bytes_max))?;
            // Once it is refused, the rest is read and thrown away.
            wanted = wanted && checking.add(bytes).await;
        }
        drop(field);
        // To the form's end, so that the connection can be used again.
        while let Ok(Ok(Some(_))) = tokio::time::timeout(limits.idle_max, form.next_field()).await {}
        let checked = checking.verdict(server).await?;
        return Ok(Upload { batch, checked: all_or_nothing(server, checked, query, purpose)? });
    }
}

pub(super) fn malformed(_: MultipartError) -> Problem {
    Problem::new(Kind::BadRequest, "the form is malformed, or the upload ended early")
}

fn all_or_nothing(
    server: &Server,
    checked: Checked,
    query: &UploadQuery,
    purpose: Purpose,
) -> Result<Checked, Problem> {
    if purpose == Purpose::Look {
        return Ok(checked);
    }
    let report: &CheckReport = &checked.report;
    let skips_invalid = query.skip_invalid == Some(true);
    if checked.can_be_issued(skips_invalid)
        && report.pins_to_choose > 0
        && let Err(reason) = server.takes_choices()
    {
        let detail = format!(
            "{} for a PIN that the cardholder chooses, which cannot be here; nothing was issued",
            waits(report.pins_to_choose)
        );
        let wrong = Wrong::new(PIN_CHOICE.to_owned(), "no_pin_page", reason);
        return Err(Problem::new(Kind::InvalidManifest, detail).with(vec![wrong]));
    }
    let strict = query.strict == Some(true);
    if !checked.can_be_issued(skips_invalid) || (strict && report.warning_count > 0) {
        let plan = (checked.can_be_issued(true) && report.problem_count > 0).then(|| PlanView {
            file_sha256: Some(checked.file.clone()),
            rows: checked.rows(),
            ..PlanView::of(report, &checked.recognition, server.pace_per_second(), 0)
        });
        Err(Problem::of_report(checked.report).with_table(checked.table).with_plan(plan))
    } else {
        Ok(checked)
    }
}
