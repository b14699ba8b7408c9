//! Names and their values, rows that wait for a PIN, and the links to choose it by.

use embosser::clock::Clock;
use embosser::config::PinPageConfig;
use embosser::job::{Batch, Job, JobId};
use embosser::ledger::{Begin, Kind, Ledger, Only, Row, Scope, State};
use embosser::operation::{Operation, Request};
use embosser::outcome::Refusal;
use embosser::pin_links::{LinksWhen, Made, PinLinks, Standing};

use super::{found, issued, refused, row, scope, write};

/// A value changes hands once, whoever tries at the same moment, and is found by the beginning of its name.
pub(super) async fn a_names_value_is_swapped_once(url: &str) {
    let (ledger, other) = (Ledger::open(url).await.unwrap(), Ledger::open(url).await.unwrap());
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(ledger.swap_metadata("swap:%_a", text("x"), text("y")).await.unwrap(), Err(None));
    assert_eq!(ledger.swap_metadata("swap:%_a", None, text("0")).await.unwrap(), Ok(()));
    assert_eq!(ledger.swap_metadata("swap:%_a", None, text("1")).await.unwrap(), Err(text("0")));
    for round in 0..20 {
        let (from, one, two) = (format!("{round}"), format!("{}", round + 1), "other".to_owned());
        let (one, two) = tokio::join!(
            ledger.swap_metadata("swap:%_a", text(&from), Some(one)),
            other.swap_metadata("swap:%_a", text(&from), Some(two)),
        );
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        if two.is_ok() {
            let next = format!("{}", round + 1);
            ledger.swap_metadata("swap:%_a", text("other"), Some(next)).await.unwrap().unwrap();
        }
    }
    for name in ["swap:%_b", "swap:%_c", "swap:xxa"] {
        ledger.set_metadata(name, "v").await.unwrap();
    }
    let names = |page: Vec<(String, String)>| page.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let page = ledger.metadata_page("swap:%_", "", 2).await.unwrap();
    assert_eq!(names(page), ["swap:%_a", "swap:%_b"]);
    assert_eq!(names(ledger.metadata_page("swap:%_", "swap:%_b", 2).await.unwrap()), ["swap:%_c"]);
    assert_eq!(ledger.swap_metadata("swap:%_a", text("20"), None).await.unwrap(), Ok(()));
    assert_eq!(ledger.metadata("swap:%_a").await.unwrap(), None);
    other.close().await;
    ledger.close().await;
}

/// A row that waits for its cardholder's PIN is neither refused nor forgotten.
pub(super) async fn a_row_that_waits_is_told_from_a_refused_one(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    let batch = Batch::new("waits").unwrap();
    for (id, state) in [("waits/1", State::AwaitingPin), ("waits/2", refused()), ("waits/3", issued())] {
        write(&ledger, Row { batch: batch.clone(), ..row(id, state) }).await;
    }
    assert_eq!(found(&ledger, "waits/1").await.unwrap().state, State::AwaitingPin);
    let counts = ledger.counts_of(&scope(), &batch).await.unwrap().unwrap();
    assert_eq!((counts.issued, counts.refused, counts.unresolved, counts.awaiting_pin), (1, 1, 0, 1));
    for (kind, id) in [(Kind::AwaitingPin, "waits/1"), (Kind::Refused, "waits/2"), (Kind::Done, "waits/3")] {
        let page = ledger.batch_page(&scope(), &batch, None, Only::of(kind), 9).await.unwrap();
        assert_eq!(page.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), [id]);
    }
    // They are found by what names them and by their card, and a text means itself.
    for (text, ids) in
        [("AITS/3", vec!["waits/3"]), ("ic_", vec!["waits/3"]), ("%", vec![]), ("waits_3", vec![])]
    {
        let only = Only { with: Some(text.into()), ..Only::default() };
        let page = ledger.batch_page(&scope(), &batch, None, only, 9).await.unwrap();
        assert_eq!(page.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ids, "{text}");
    }
    let content = row("any", State::Begun).content;
    let same = ledger.same_content(&scope(), vec![content]).await.unwrap();
    assert!(same.iter().any(|same| same.id.as_str() == "waits/1"), "it may come to have a card");
    assert!(!same.iter().any(|same| same.id.as_str() == "waits/2"));
    // One that somebody cancelled counts as refused, and is told from those that were.
    let cancelled = State::Refused(Refusal::own("cancelled", "somebody changed their mind"));
    write(&ledger, Row { batch: batch.clone(), ..row("waits/4", cancelled) }).await;
    let counts = ledger.counts_of(&scope(), &batch).await.unwrap().unwrap();
    assert_eq!((counts.refused, counts.cancelled, counts.awaiting_pin), (2, 1, 1));
    // When the PIN has come it begins like any other.
    let known = found(&ledger, "waits/1").await;
    let begun = Row { batch, ..row("waits/1", State::Begun) };
    assert!(matches!(ledger.begin(begun, known.as_ref()).await.unwrap(), Begin::Recorded(_)));
    ledger.close().await;
}

/// A link is used once, by whichever of two processes comes first, until it expires; a clock that was set back does not
/// make it younger.
pub(super) async fn a_link_is_used_once_and_not_for_ever(url: &str) {
    let (ledger, other) = (Ledger::open(url).await.unwrap(), Ledger::open(url).await.unwrap());
    let config = PinPageConfig { url: Some("https://pins.example.com".into()), ..PinPageConfig::default() };
    let clock = Clock::system();
    let links =
        |ledger: &Ledger| PinLinks::of(&config, LinksWhen::AtOnce, (ledger, &scope(), &clock)).unwrap();
    let (here, there) = (links(&ledger), links(&other));
    let job = |id: &str| {
        let pairs = [("type", "virtual"), ("currency", "eur"), ("pin[choose]", "true")];
        let pairs = pairs.map(|(path, value)| (path.into(), value.into()));
        let card = Request::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
        Job::new(JobId::new(id).unwrap(), Batch::new("links").unwrap(), None, card, None)
    };
    let token = |made: &Made| made.link.expose().split_once('#').unwrap().1.to_owned();
    let made = here.await_pin(&job("links/1"), None).await.unwrap().unwrap();
    let second = there.await_pin(&job("links/1"), None).await.unwrap().unwrap();
    assert_eq!(
        here.find(&token(&made)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Revoked))
    );
    let made = second;
    here.mark_delivered(&JobId::new("links/1").unwrap()).await.unwrap();
    assert!(there.await_pin(&job("links/1"), None).await.unwrap().is_none(), "it has one that was told");
    let usable = here.find(&token(&made)).await.unwrap().unwrap();
    let (one, two) = tokio::join!(here.claim(&usable, None), there.claim(&usable, None));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one.is_some() != two.is_some(), "{one:?} {two:?}");
    assert_eq!(
        here.find(&token(&made)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Used))
    );
    here.give_back(one.or(two).unwrap()).await.unwrap();
    assert!(here.find(&token(&made)).await.unwrap().is_ok());
    let waits = there.waits(&JobId::new("links/1").unwrap(), &usable).await.unwrap().unwrap();
    assert_eq!(waits.into_job(None).content(), job("links/1").content());
    clock.set(-3_600_000);
    assert_eq!(
        here.find(&token(&made)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Expired)),
        "set back"
    );
    clock.set(3_600_000);
    clock.advance(std::time::Duration::from_secs(7 * 24 * 3600));
    assert_eq!(
        here.find(&token(&made)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Expired))
    );
    assert_eq!(here.waiting_by_age().await.unwrap(), [0, 0, 0, 1]);
    let again = there.await_pin(&job("links/1"), None).await.unwrap().unwrap();
    assert!(here.find(&token(&again)).await.unwrap().is_ok(), "who waits for longer gets another");
    // The account becomes known: what waits is found under its new name, and one whose name begins like it is another's.
    let renamed = Scope::new("test", "ledger.test", Some("acct_1"));
    assert_eq!(
        PinLinks::of(&config, LinksWhen::Asked, (&ledger, &renamed, &clock))
            .unwrap()
            .waiting_by_age()
            .await
            .unwrap(),
        [0; 4]
    );
    ledger.rename_scope(&scope(), &renamed).await.unwrap();
    let moved = PinLinks::of(&config, LinksWhen::Asked, (&ledger, &renamed, &clock)).unwrap();
    assert!(moved.find(&token(&again)).await.unwrap().is_ok());
    ledger.rename_scope(&renamed, &scope()).await.unwrap();
    clock.advance(std::time::Duration::from_secs(60 * 24 * 3600));
    assert!(here.forget_old().await.unwrap() >= 2, "links that were of no use for a month");
    assert_eq!(here.find(&token(&again)).await.unwrap().err().map(|link| link.standing), Some(None));
    let again = there.await_pin(&job("links/1"), None).await.unwrap().unwrap();
    here.ended(&JobId::new("links/1").unwrap(), None).await.unwrap();
    assert_eq!(
        here.find(&token(&again)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Revoked))
    );
    assert_eq!(here.waiting_by_age().await.unwrap(), [0; 4]);
    assert_eq!(here.find("x").await.unwrap().err().map(|link| link.standing), Some(None));
    other.close().await;
    ledger.close().await;
}
