//! People with tokens, who ask a server as themselves.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::Value;

use super::serve::{Answer, Served};
use super::{Program, expect_exit};

/// Who, by which role, did what.
pub type Deed = (String, String, String);

/// People with a token each, and the program that knows them.
pub struct People {
    pub tokens: BTreeMap<&'static str, String>,
    pub program: Program,
    pub lines: String,
}

pub async fn people(program: Program, who: &[(&'static str, &[&str])]) -> People {
    let (mut tokens, mut lines) = (BTreeMap::new(), String::new());
    for (name, roles) in who {
        let roles: Vec<&str> = roles.iter().flat_map(|role| ["--role", role]).collect();
        let output = program.run(&[&["token", *name], &roles[..]].concat()).await;
        expect_exit(&output, 0);
        lines += String::from_utf8(output.stderr).unwrap().lines().last().unwrap();
        lines += "\n";
        tokens.insert(*name, String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    let file = program.directory.join("tokens");
    std::fs::write(&file, &lines).unwrap();
    let program = program.with("EMBOSSER__HTTP__TOKENS_FILE", file.to_str().unwrap());
    People { tokens, program, lines }
}

impl People {
    pub async fn ask(&self, served: &Served, who: &str, method: Method, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {}", self.tokens[who]);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        served.ask(method, path, &headers, body.to_string().into_bytes()).await
    }

    pub async fn post(&self, served: &Served, who: &str, path: &str, body: Value) -> Answer {
        self.ask(served, who, Method::POST, path, body).await
    }

    pub async fn get(&self, served: &Served, who: &str, path: &str) -> Answer {
        self.ask(served, who, Method::GET, path, Value::Null).await
    }

    pub async fn upload(&self, served: &Served, who: &str, path: &str, csv: &[u8]) -> Answer {
        let bearer = format!("Bearer {}", self.tokens[who]);
        let headers = [("authorization", bearer.as_str()), ("content-type", "text/csv")];
        served.ask(Method::POST, path, &headers, csv.to_vec()).await
    }

    /// What stands in the log, as who, role and action, in the order in which it was done.
    ///
    /// Somebody called `boss` has the role for it.
    pub async fn deeds(&self, served: &Served) -> Vec<Deed> {
        let entries = self.get(served, "boss", "/v1/audit?limit=1000").await.expect(200).json();
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let entries = entries["entries"].as_array().unwrap().iter().rev();
        entries.map(|entry| (text(&entry["who"]), text(&entry["role"]), text(&entry["action"]))).collect()
    }
}
