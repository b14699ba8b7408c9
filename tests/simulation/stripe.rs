//! Stripe as its documentation describes it: keys that are remembered for a day, answers that are replayed, lists that lag, limiters.
//! It answers documents, so that embosser's own reading of them runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

/// How long a key is remembered, in milliseconds.
pub(crate) const REMEMBERED_MS: u64 = 24 * 3600 * 1000;
/// What limiters count by, in milliseconds.
const SECOND_MS: u64 = 1000;

/// One account's objects.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) cards: Vec<Card>,
    pub(crate) cardholders: Vec<Cardholder>,
    keys: BTreeMap<String, Entry>,
    /// Keys that were forgotten.
    forgotten: BTreeSet<String>,
    arrivals: VecDeque<(u64, String)>,
    /// What a limiter allows now, in calls per second.
    pub(crate) allows: Option<usize>,
}

#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) id: String,
    pub(crate) cardholder: String,
    pub(crate) kind: String,
    pub(crate) currency: String,
    pub(crate) status: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) created_ms: u64,
    pub(crate) listed_ms: u64,
    /// The changes that took effect, in their order.
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) job: String,
    pub(crate) status: Option<String>,
    pub(crate) listed_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Cardholder {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) line1: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) created_ms: u64,
    pub(crate) listed_ms: u64,
}

/// A call as it is remembered under its key.
struct Entry {
    path: String,
    body: Vec<u8>,
    began_ms: u64,
    ended_ms: u64,
    answer: Answer,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: &Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    pub(crate) fn error(status: u16, kind: &str, code: &str, message: &str) -> Self {
        Self::new(status, &json!({"error": {"type": kind, "code": code, "message": message}}))
    }

    /// Of something before Stripe.
    pub(crate) fn page(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: b"<html>bad gateway</html>".to_vec() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A call that changes something, as it arrives.
pub(crate) struct Call<'c> {
    pub(crate) path: &'c str,
    pub(crate) key: &'c str,
    pub(crate) body: &'c [u8],
    /// Which of Stripe's keys a PIN must be encrypted under.
    pub(crate) kid: &'c str,
}

/// What befalls a call that is executed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Execution {
    pub(crate) lasts_ms: u64,
    pub(crate) ends: Ends,
    /// How long lists do not have what it made.
    pub(crate) lag_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    Well,
    Declined,
    /// A 500, saved; whether it had its effect before.
    Error {
        has_effect: bool,
    },
}

/// What came of a call.
pub(crate) struct Came {
    pub(crate) answer: Answer,
    /// How long it takes until there is one.
    pub(crate) lasts_ms: u64,
    pub(crate) made: Option<Made>,
    /// Whether its key was remembered once, and no more.
    pub(crate) is_of_forgotten_key: bool,
}

impl Came {
    fn answered(answer: Answer) -> Self {
        Self { answer, lasts_ms: 0, made: None, is_of_forgotten_key: false }
    }
}

/// An effect.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// Its job, as its metadata names it.
    pub(crate) job: String,
    /// The card or cardholder.
    pub(crate) id: String,
    pub(crate) is_change: bool,
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn metadata_of(form: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let entries = form.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix("metadata[")?.strip_suffix(']')?;
        Some((key.to_owned(), value.clone()))
    });
    entries.collect()
}

/// Which key a PIN was encrypted under.
fn kid_of(jwe: &str) -> String {
    use base64::Engine as _;
    let header = jwe.split('.').next().unwrap_or_default();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    let header: Value = serde_json::from_slice(&header).unwrap_or_default();
    header["kid"].as_str().unwrap_or_default().to_owned()
}

/// What a limiter counts for itself.
pub(crate) fn endpoint(method: &str, path: &str) -> &'static str {
    let of_cards = path.starts_with("/v1/issuing/cards");
    let is_one = path.trim_start_matches("/v1/issuing/").contains('/');
    match (method, of_cards && !path.starts_with("/v1/issuing/cardholders"), is_one) {
        ("POST", true, false) => "create_card",
        ("POST", true, true) => "update_card",
        ("POST", false, _) => "create_cardholder",
        (_, _, true) => "retrieve",
        (_, true, false) => "list_cards",
        (_, false, false) => "list_cardholders",
    }
}

impl Account {
    /// With some cardholders and cards, which embosser has not made.
    pub(crate) fn new(number: usize) -> Self {
        let mut account = Self::default();
        for there in 0..super::setup::THERE {
            let id = format!("ich_a{number}there{there}");
            account.cardholders.push(Cardholder {
                id: id.clone(),
                name: format!("There {there}"),
                email: format!("there{there}@example.com"),
                line1: "1 Old Street".into(),
                metadata: BTreeMap::new(),
                created_ms: 0,
                listed_ms: 0,
            });
            account.cards.push(Card {
                id: format!("ic_a{number}there{there}"),
                cardholder: id,
                kind: "virtual".into(),
                currency: "eur".into(),
                status: "active".into(),
                metadata: BTreeMap::new(),
                created_ms: 0,
                listed_ms: 0,
                changes: Vec::new(),
            });
        }
        account
    }

    /// Whether a limiter turns it away.
    pub(crate) fn limits(&mut self, endpoint: &str, now_ms: u64) -> Option<Answer> {
        let allows = self.allows?;
        while self.arrivals.front().is_some_and(|(at, _)| at + SECOND_MS <= now_ms) {
            self.arrivals.pop_front();
        }
        let count = self.arrivals.iter().filter(|(_, other)| other == endpoint).count();
        if count >= allows {
            return Some(limited("endpoint-rate"));
        }
        self.arrivals.push_back((now_ms, endpoint.to_owned()));
        None
    }

    pub(crate) fn change(&mut self, call: &Call<'_>, execution: Execution, now_ms: u64) -> Came {
        let old: Vec<String> = self
            .keys
            .iter()
            .filter(|(_, entry)| now_ms >= entry.began_ms + REMEMBERED_MS)
            .map(|(key, _)| key.clone())
            .collect();
        for key in old {
            self.keys.remove(&key);
            self.forgotten.insert(key);
        }
        if let Some(entry) = self.keys.get(call.key) {
            let answer = if entry.path != call.path || entry.body != call.body {
                Answer::error(400, "idempotency_error", "", "other parameters under this key")
            } else if now_ms < entry.ended_ms {
                Answer::error(409, "idempotency_error", "idempotency_key_in_use", "still running")
            } else {
                entry.answer.clone().with("idempotent-replayed", "true")
            };
            return Came::answered(answer);
        }
        let form = form(call.body);
        if let Some(answer) = self.invalid(call, &form) {
            return Came::answered(answer);
        }
        let ended_ms = now_ms + execution.lasts_ms;
        let has_effect = matches!(execution.ends, Ends::Well | Ends::Error { has_effect: true });
        let made = has_effect.then(|| self.make(call.path, &form, ended_ms, execution.lag_ms));
        let answer = match (execution.ends, &made) {
            (Ends::Well, Some(made)) => Answer::new(200, &self.object(&made.id, ended_ms, true)),
            (Ends::Declined, _) => Answer::error(402, "card_error", "declined", "the issuer declines"),
            _ => Answer::error(500, "api_error", "", "something went wrong"),
        };
        let entry = Entry {
            path: call.path.to_owned(),
            body: call.body.to_vec(),
            began_ms: now_ms,
            ended_ms,
            answer: answer.clone(),
        };
        self.keys.insert(call.key.to_owned(), entry);
        let is_of_forgotten_key = self.forgotten.contains(call.key);
        Came { answer, lasts_ms: execution.lasts_ms, made, is_of_forgotten_key }
    }

    /// Whether a call under this key has had its effect, and another one has none: it is told once more what was answered, or that it
    /// asks for something else.
    pub(crate) fn is_done_under(&self, key: &str, now_ms: u64) -> bool {
        self.keys.get(key).is_some_and(|entry| {
            entry.answer.status == 200 && (entry.ended_ms..entry.began_ms + REMEMBERED_MS).contains(&now_ms)
        })
    }

    /// What is refused before it is executed, and not saved.
    fn invalid(&self, call: &Call<'_>, form: &BTreeMap<String, String>) -> Option<Answer> {
        let refused = |message: &str| Some(Answer::error(400, "invalid_request_error", "invalid", message));
        if form.get("pin[encrypted_number]").is_some_and(|jwe| kid_of(jwe) != call.kid) {
            return refused("the PIN is not encrypted under the present key");
        }
        if let Some(cardholder) = form.get("cardholder")
            && !self.cardholders.iter().any(|known| known.id == *cardholder)
        {
            return refused("no such cardholder");
        }
        let card = call.path.strip_prefix("/v1/issuing/cards/")?;
        if self.cards.iter().any(|known| known.id == card) { None } else { refused("no such card") }
    }

    fn make(&mut self, path: &str, form: &BTreeMap<String, String>, made_ms: u64, lag_ms: u64) -> Made {
        let metadata = metadata_of(form);
        let value = |name: &str| form.get(name).cloned().unwrap_or_default();
        let listed_ms = made_ms + lag_ms;
        if let Some(id) = path.strip_prefix("/v1/issuing/cards/") {
            let job = metadata.get("embosser_change").cloned().unwrap_or_default();
            let card = self.cards.iter_mut().find(|card| card.id == id).unwrap();
            card.changes.push(Change { job: job.clone(), status: form.get("status").cloned(), listed_ms });
            return Made { job, id: id.to_owned(), is_change: true };
        }
        let job = metadata.get("embosser_job").cloned().unwrap_or_default();
        let number = self.cards.len() + self.cardholders.len();
        if path == "/v1/issuing/cards" {
            let id = format!("ic_N{number}");
            self.cards.push(Card {
                id: id.clone(),
                cardholder: value("cardholder"),
                kind: value("type"),
                currency: value("currency"),
                status: "active".into(),
                metadata,
                created_ms: made_ms,
                listed_ms,
                changes: Vec::new(),
            });
            return Made { job, id, is_change: false };
        }
        let id = format!("ich_N{number}");
        self.cardholders.push(Cardholder {
            id: id.clone(),
            name: value("name"),
            email: value("email"),
            line1: value("billing[address][line1]"),
            metadata,
            created_ms: made_ms,
            listed_ms,
        });
        Made { job, id, is_change: false }
    }

    /// An object as it is seen at a moment; by its maker, at once.
    fn object(&self, id: &str, now_ms: u64, is_maker: bool) -> Value {
        if let Some(card) = self.cards.iter().find(|card| card.id == id) {
            let mut metadata = card.metadata.clone();
            let mut status = card.status.clone();
            for change in card.changes.iter().filter(|change| is_maker || change.listed_ms <= now_ms) {
                metadata.insert("embosser_change".into(), change.job.clone());
                status = change.status.clone().unwrap_or(status);
            }
            return json!({"id": card.id, "object": "issuing.card", "type": card.kind, "currency": card.currency,
                "status": status, "last4": "4242", "exp_month": 1, "exp_year": 2030,
                "cardholder": {"id": card.cardholder}, "metadata": metadata});
        }
        let cardholder = self.cardholders.iter().find(|cardholder| cardholder.id == id).unwrap();
        json!({"id": cardholder.id, "object": "issuing.cardholder", "name": cardholder.name, "email": cardholder.email,
            "status": "active", "metadata": cardholder.metadata, "billing": {"address": {
            "line1": cardholder.line1, "city": "Cork", "postal_code": "T12", "country": "IE"}}})
    }

    /// One object, or a page of a list.
    pub(crate) fn read(&self, url: &url::Url, page: usize, now_ms: u64) -> Answer {
        let path = url.path();
        if let Some(id) =
            path.strip_prefix("/v1/issuing/cards/").or_else(|| path.strip_prefix("/v1/issuing/cardholders/"))
        {
            let is_there = self.cards.iter().any(|card| card.id == id && card.listed_ms <= now_ms)
                || self.cardholders.iter().any(|one| one.id == id && one.listed_ms <= now_ms);
            return if is_there {
                Answer::new(200, &self.object(id, now_ms, false))
            } else {
                Answer::error(404, "invalid_request_error", "resource_missing", "no such object")
            };
        }
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let since = query.get("created[gte]").and_then(|since| since.parse::<i64>().ok());
        let created = |ms: u64| since.is_none_or(|since| super::world::unix_ms(ms) / 1000 >= since);
        let is = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
        let mut ids: Vec<(u64, &str)> = if path == "/v1/issuing/cards" {
            let cards = self.cards.iter().filter(|card| {
                card.listed_ms <= now_ms && created(card.created_ms) && is("cardholder", &card.cardholder)
            });
            cards.map(|card| (card.created_ms, card.id.as_str())).collect()
        } else {
            let those = self
                .cardholders
                .iter()
                .filter(|one| one.listed_ms <= now_ms && created(one.created_ms) && is("email", &one.email));
            those.map(|one| (one.created_ms, one.id.as_str())).collect()
        };
        ids.sort_by_key(|(created, id)| std::cmp::Reverse((*created, *id)));
        if let Some(after) = query.get("starting_after") {
            let Some(at) = ids.iter().position(|(_, id)| id == after) else {
                return Answer::error(400, "invalid_request_error", "resource_missing", "no such object");
            };
            ids.drain(..=at);
        }
        let more = ids.len() > page;
        let data: Vec<Value> = ids.iter().take(page).map(|(_, id)| self.object(id, now_ms, false)).collect();
        Answer::new(200, &json!({"object": "list", "data": data, "has_more": more}))
    }

    /// How often each job has had its effect, apart from changes.
    pub(crate) fn effects(&self, job: &str) -> Vec<&str> {
        let of_job = |metadata: &BTreeMap<String, String>| {
            metadata.get("embosser_job").is_some_and(|known| known == job)
        };
        let cards = self.cards.iter().filter(|card| of_job(&card.metadata)).map(|card| card.id.as_str());
        cards.collect()
    }

    /// Whether a change took effect.
    pub(crate) fn is_changed(&self, card: &str, job: &str) -> bool {
        let card = self.cards.iter().find(|known| known.id == card);
        card.is_some_and(|card| card.changes.iter().any(|change| change.job == job))
    }
}

pub(crate) fn limited(reason: &str) -> Answer {
    Answer::error(429, "invalid_request_error", "rate_limit", "too many requests")
        .with("stripe-rate-limited-reason", reason)
}
