//! Promise: every endpoint that shows or does anything wants a token with its role; without tokens only this machine
//! is served, and no other site's page can act through a browser on it.

use crate::support;

use std::collections::BTreeMap;
use std::process::Output;
use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};
use reqwest::Method;
use support::serve::Served;
use support::{Program, expect_exit, write_manifest};

const ROLES: [&str; 6] = ["read", "submit", "operate", "approve", "pin", "audit"];

/// A tokens file with a token for each role, and the tokens.
async fn tokens(program: &Program) -> (std::path::PathBuf, BTreeMap<&'static str, String>) {
    let mut file = String::from("# who may do what\n");
    let mut tokens = BTreeMap::new();
    for role in ROLES {
        let output = program.run(&["token", &format!("{role}-only"), "--role", role]).await;
        expect_exit(&output, 0);
        let line = String::from_utf8(output.stderr).unwrap().lines().last().unwrap().to_owned();
        let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert!(token.len() > 40 && !line.contains(&token));
        file += &format!("{line}\n");
        tokens.insert(role, token);
    }
    let path = program.directory.join("tokens");
    std::fs::write(&path, file).unwrap();
    (path, tokens)
}

#[tokio::test]
async fn every_endpoint_wants_a_token_with_its_role() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let (file, tokens) = tokens(&program).await;
    let program = program.with("EMBOSSER__HTTP__TOKENS_FILE", file.to_str().unwrap());
    let manifest = directory.path().join("staff.csv");
    write_manifest(&manifest, &sandbox, 3).await;
    let served = Served::start(&program, &["--rate", "100"]);
    let with = |token: &str| [("authorization", format!("Bearer {token}"))];
    let csv = std::fs::read(&manifest).unwrap();
    let ask = async |method: Method, path: &str, authorization: Option<&str>| {
        let mut headers = vec![("content-type", "text/csv")];
        headers.extend(authorization.map(|value| ("authorization", value)));
        served.ask(method, path, &headers, csv.clone()).await
    };
    let submit = &with(&tokens["submit"])[0].1;
    ask(Method::POST, "/v1/batches?name=staff", Some(submit)).await.expect(202);
    // All of them, before anybody may cancel the rest.
    let creates_before = 3;
    while sandbox.account().cards.len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let document = served.get("/openapi.json").await.expect(200).json();
    let mut guarded = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path.replace("{batch}", "staff").replace("{id}", "staff%2Fr1");
            let ways: Vec<&str> = operation["security"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|way| {
                    Some(way["token"].as_array()?.first().map_or("any", |role| role.as_str().unwrap()))
                })
                .collect();
            let is_open =
                operation["security"].as_array().unwrap().iter().any(|way| way.get("token").is_none());
            if is_open {
                if ["/healthz", "/readyz"].contains(&path.as_str()) {
                    ask(method, &path, None).await.expect(200);
                } else {
                    // Cardholders' pages, which have a link instead of a token, and Stripe's events, which are signed; there are none here.
                    let of_pages =
                        ["/v1/pin-links/look", "/v1/pin-links/choose", "/v1/pin-key", "/v1/stripe-events"];
                    let is_key = path.ends_with("/ephemeral-keys");
                    assert!(of_pages.contains(&path.as_str()) || is_key, "{path} is open");
                    let status = ask(method, &path, None).await.status.as_u16();
                    assert!(matches!(status, 404 | 415), "{path}: {status}");
                }
                continue;
            };
            guarded += 1;
            let good = if ways == ["any"] { "read" } else { ways[0] };
            let none = ask(method.clone(), &path, None).await.expect(401);
            assert_eq!(none.headers["www-authenticate"], "Bearer realm=\"embosser\"");
            let wrong = format!("Bearer {}x", tokens[good]);
            let malformed = format!("Basic {}", tokens[good]);
            for authorization in ["Bearer", "Bearer ", &wrong, &malformed, &tokens[good]] {
                ask(method.clone(), &path, Some(authorization)).await.expect(401);
            }
            for role in ROLES {
                let authorization = &with(&tokens[role])[0].1;
                let answer = ask(method.clone(), &path, Some(authorization)).await;
                if ways == ["any"] || ways.contains(&role) {
                    assert!(!matches!(answer.status.as_u16(), 401 | 403), "{method} {path}: {}", answer.text);
                } else {
                    // It says what is missing, and what there is.
                    let said = answer.expect(403).text;
                    assert!(
                        said.contains(ways[0]) && said.contains(&format!("{role}-only has {role}")),
                        "{said}"
                    );
                }
            }
        }
    }
    // Without a link, a card is shown to nobody who has not the role.
    for role in ROLES {
        let authorization = &with(&tokens[role])[0].1;
        let headers = [("content-type", "application/json"), ("authorization", authorization.as_str())];
        let path = "/v1/cards/ic_1/ephemeral-keys";
        let answer = served.ask(Method::POST, path, &headers, br#"{"nonce": "n"}"#.to_vec()).await;
        // There are no pages here.
        answer.expect(if role == "pin" { 404 } else { 403 });
    }
    let open = [("content-type", "application/json")];
    let path = "/v1/cards/ic_1/ephemeral-keys";
    served.ask(Method::POST, path, &open, br#"{"nonce": "n"}"#.to_vec()).await.expect(401);
    assert!(guarded >= 16, "{guarded} endpoints");
    assert_eq!(sandbox.account().creates, creates_before, "nobody without the role had a card made");
    // The page has no data of its own: it asks for the token.
    for path in ["/", "/page.css", "/page.js", "/openapi.json"] {
        served.get(path).await.expect(200);
    }
}

async fn refused_to_start(program: &Program, arguments: &[&str]) -> String {
    let output: Output = program.run(&[&["serve"], arguments].concat()).await;
    expect_exit(&output, 2);
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn without_tokens_only_this_machine_is_served_by_its_own_name() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let said = refused_to_start(&program, &["--listen", "0.0.0.0:0"]).await;
    assert!(said.contains("http.tokens_file"), "{said}");
    let said = refused_to_start(&program, &["--listen", "[::]:0"]).await;
    assert!(said.contains("http.tokens_file"), "{said}");
    // Live cards want tokens even here.
    let live = Program::new(directory.path(), &sandbox)
        .with("STRIPE_API_KEY", "sk_live_of_nobody")
        .with("EMBOSSER__STRIPE__API_URL", "https://api.stripe.com")
        .with("EMBOSSER__STRIPE__KEY_URL", "https://issuing-key.stripe.com/v1/keys");
    let said = refused_to_start(&live, &["--listen", "127.0.0.1:0"]).await;
    assert!(said.contains("live cards need tokens"), "{said}");
    let bad = Program::new(directory.path(), &sandbox).with("EMBOSSER__HTTP__TOKENS_FILE", "/nowhere/tokens");
    let said = refused_to_start(&bad, &["--listen", "127.0.0.1:0"]).await;
    assert!(said.contains("/nowhere/tokens"), "{said}");

    let served = Served::start(&program, &[]);
    let port = served.address().rsplit_once(':').unwrap().1.to_owned();
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
        served.ask(Method::GET, "/v1/batches", &[("host", &host)], Vec::new()).await.expect(200);
    }
    // A name that an attacker made to point here.
    let rebound = [("host", "rebound.example")];
    let problem = served.ask(Method::GET, "/v1/batches", &rebound, Vec::new()).await.expect(403).json();
    assert_eq!(problem["type"], "urn:embosser:problem:cross_site");
}

#[tokio::test]
async fn another_sites_page_can_do_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let manifest = directory.path().join("staff.csv");
    write_manifest(&manifest, &sandbox, 3).await;
    let csv = std::fs::read(&manifest).unwrap();
    let served = Served::start(&program, &["--rate", "100"]);
    let own = served.url.clone();
    // What a browser says of a form that another page sent.
    for (name, value, status) in [
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "same-origin", 202),
        ("origin", own.as_str(), 202),
    ] {
        let headers = [("content-type", "text/csv"), (name, value)];
        served.ask(Method::POST, "/v1/batches?name=staff", &headers, csv.clone()).await.expect(status);
    }
    for path in ["/", "/v1/batches", "/nowhere"] {
        let headers = served.get(path).await.headers;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}

/// Longer than anything here may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A token with these options, and its line.
async fn token(program: &Program, name: &str, options: &[&str]) -> (String, String) {
    let output =
        program.run(&[&["token", name, "--role", "read", "--role", "operate"], options].concat()).await;
    expect_exit(&output, 0);
    let line = String::from_utf8(output.stderr).unwrap().lines().last().unwrap().to_owned();
    (String::from_utf8(output.stdout).unwrap().trim().to_owned(), line)
}

#[tokio::test]
async fn a_token_is_good_until_it_expires_and_for_its_accounts_alone() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let (plain, plain_line) = token(&program, "plain", &[]).await;
    let (other, other_line) = token(&program, "other", &["--account", "acct_of_another"]).await;
    let (old, old_line) = token(&program, "old", &["--expires", "2026-01-31"]).await;
    let (days, days_line) = token(&program, "days", &["--days", "30"]).await;
    for options in [&["--expires", "soon"][..], &["--account", "payroll"], &["--days", "0"]] {
        let output = program.run(&[&["token", "x", "--role", "read"], options].concat()).await;
        expect_exit(&output, 2);
    }
    let file = directory.path().join("tokens");
    std::fs::write(&file, format!("{plain_line}\n{other_line}\n{old_line}\n{days_line}\n")).unwrap();
    let program = program.with("EMBOSSER__HTTP__TOKENS_FILE", file.to_str().unwrap());
    let served = Served::start(&program, &[]);
    let ask = async |token: &str, path: &str| {
        let bearer = format!("Bearer {token}");
        served.ask(Method::GET, path, &[("authorization", &bearer)], Vec::new()).await
    };
    let me = ask(&plain, "/v1/me").await.expect(200).json();
    let account = me["account"].as_str().unwrap().to_owned();
    assert_eq!((&me["name"], &me["expires_ms"], &me["accounts"]), (&"plain".into(), &().into(), &().into()));
    assert_eq!(me["roles"], serde_json::json!(["read", "operate"]));
    for path in ["/v1/me", "/v1/batches"] {
        let refused = ask(&old, path).await.expect(401);
        assert!(refused.text.contains("token old expired at 2026-02-01T00:00:00Z"), "{}", refused.text);
        let refused = ask(&other, path).await.expect(403);
        assert!(
            refused.text.contains("acct_of_another") && refused.text.contains(&account),
            "{}",
            refused.text
        );
    }
    let days = ask(&days, "/v1/me").await.expect(200).json();
    let left = days["expires_ms"].as_i64().unwrap() - jiff::Timestamp::now().as_millisecond();
    assert!((30 * 86_400_000..=31 * 86_400_000).contains(&left), "{left}");
    // The account's own token opens it.
    let (own, own_line) = token(&program, "own", &["--account", "acct_1", "--account", &account]).await;
    std::fs::write(&file, format!("{plain_line}\n{own_line}\n")).unwrap();
    let began = Instant::now();
    while ask(&own, "/v1/me").await.status != 200 {
        assert!(began.elapsed() < WAIT_MAX, "the file is not read by itself");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ask(&own, "/v1/batches").await.expect(200);
}

#[tokio::test]
async fn a_token_that_is_taken_out_ends_what_it_follows_and_a_broken_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let (kept, kept_line) = token(&program, "kept", &["--role", "submit"]).await;
    let (taken, taken_line) = token(&program, "taken", &[]).await;
    let file = directory.path().join("tokens");
    std::fs::write(&file, format!("{kept_line}\n{taken_line}\n")).unwrap();
    let program = program.with("EMBOSSER__HTTP__TOKENS_FILE", file.to_str().unwrap());
    let manifest = directory.path().join("staff.csv");
    write_manifest(&manifest, &sandbox, 50).await;
    // So slow that it goes on all the while.
    let served = Served::start(&program, &["--rate", "0.1"]).with_token(&kept);
    served.upload_file(&manifest).await.expect(202);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let follow = async |token: &str| {
        let request = client.get(format!("{}/v1/batches/staff/events", served.url)).bearer_auth(token);
        let mut events = request.send().await.unwrap().error_for_status().unwrap();
        assert!(events.chunk().await.unwrap().is_some(), "the first view comes at once");
        events
    };
    let (mut of_kept, mut of_taken) = (follow(&kept).await, follow(&taken).await);
    // A file that cannot be used changes nothing, and is told once.
    std::fs::write(&file, "kept read\n").unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(6), async {
        while of_taken.chunk().await.unwrap().is_some() {}
    });
    assert!(ended.await.is_err(), "a broken file ended a stream");
    std::fs::write(&file, format!("{kept_line}\n")).unwrap();
    let ended = tokio::time::timeout(WAIT_MAX, async { while of_taken.chunk().await.unwrap().is_some() {} });
    ended.await.expect("a stream outlives its token");
    let goes_on = tokio::time::timeout(Duration::from_millis(1500), async {
        while of_kept.chunk().await.unwrap().is_some() {}
    });
    assert!(goes_on.await.is_err(), "another token's stream was ended");
    let bearer = format!("Bearer {taken}");
    let ask = client.get(format!("{}/v1/me", served.url)).header("authorization", bearer).send();
    assert_eq!(ask.await.unwrap().status(), 401);
    drop(of_kept);
    let (_, log) = served.stopped().await;
    assert_eq!(log.matches("the tokens stay as they were").count(), 1, "{log}");
    assert!(!log.contains(&kept) && !log.contains(&taken));
}
