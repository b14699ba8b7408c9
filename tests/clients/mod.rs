//! The client libraries with which a cardholder's device can encrypt a PIN: where each is, how it is run, and the
//! header shapes that it is asked for. Their programs are in the folders beside this file.

#[path = "josekit/encrypt.rs"]
#[allow(unreachable_pub, reason = "docs/pins.md shows it as it stands")]
mod josekit_client;
pub(crate) mod pages;
pub(crate) mod wrong;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A shape: the matrix's column, how the client reads the key (`snippet`: as docs/pins.md shows it), and the header.
pub(crate) type Shape = (&'static str, &'static str, &'static str);

/// What each client is asked for. `KID` stands for the key's id, which the client fetches with the key.
pub(crate) const SHAPES: [Shape; 7] = [
    ("as shown above", "snippet", r#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":"KID"}"#),
    ("key from `pkcs8`", "pem", r#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":"KID"}"#),
    ("`typ`", "jwk", r#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":"KID","typ":"JWE"}"#),
    ("`cty`", "jwk", r#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":"KID","cty":"text/plain"}"#),
    (
        "both",
        "jwk",
        r#"{"typ":"JOSE","alg":"RSA-OAEP","enc":"A128CBC-HS256","cty":"text/plain","kid":"KID"}"#,
    ),
    ("`kid` first", "jwk", r#"{"kid":"KID","enc":"A128CBC-HS256","alg":"RSA-OAEP"}"#),
    ("another member", "jwk", r#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":"KID","app":{"version":3}}"#),
];

/// How a library's program is started.
#[derive(Clone, Copy)]
enum Runs {
    /// Under Node, with this npm package in the place of what the program imports.
    Node(Option<&'static str>),
    Python,
    /// A program of a Debian package, and the command that runs it.
    Debian(&'static str, &'static [&'static str]),
    /// Compiled before it is run, of a Debian package.
    Compiled(&'static str, fn(&Path, &Path) -> Command),
    /// In this process.
    Here,
}

/// A client library.
pub(crate) struct Library {
    /// As the matrix calls it.
    pub(crate) name: &'static str,
    /// Its program, under tests/clients.
    pub(crate) program: &'static str,
    runs: Runs,
}

const fn library(name: &'static str, program: &'static str, runs: Runs) -> Library {
    Library { name, program, runs }
}

/// In the matrix's order.
pub(crate) const LIBRARIES: [Library; 11] = [
    library("JavaScript `jose` 6", "jose-npm/encrypt.mjs", Runs::Node(Some("jose"))),
    library("JavaScript `jose` 5", "jose-npm/encrypt.mjs", Runs::Node(Some("jose5"))),
    library("JavaScript `jose` 4", "jose-npm/encrypt.mjs", Runs::Node(Some("jose4"))),
    library("JavaScript, WebCrypto alone", "webcrypto/encrypt.mjs", Runs::Node(None)),
    library("Python `jwcrypto`", "jwcrypto/encrypt.py", Runs::Python),
    library("Python `joserfc`", "joserfc/encrypt.py", Runs::Python),
    library("Ruby `json-jwt`", "json-jwt/encrypt.rb", Runs::Debian("ruby-json-jwt", &["ruby"])),
    library("Go `go-jose`", "go-jose/encrypt.go", Runs::Compiled("golang-gopkg-square-go-jose.v2-dev", go)),
    library("Erlang `jose`", "erlang-jose/encrypt.escript", Runs::Debian("erlang-jose", &["escript"])),
    library("C `cjose`", "cjose/encrypt.c", Runs::Compiled("libcjose-dev", c)),
    library("Rust `josekit`", "josekit/encrypt.rs", Runs::Here),
];

fn go(source: &Path, program: &Path) -> Command {
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(program).arg(source);
    // Debian's packages are in the old kind of workspace; nothing is fetched.
    command.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode");
    command.env("GOCACHE", target().join("clients/go"));
    command
}

fn c(source: &Path, program: &Path) -> Command {
    let mut command = Command::new("cc");
    command.arg("-o").arg(program).arg(source).args(["-lcjose", "-ljansson"]);
    command
}

pub(crate) fn source(program: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(program)
}

/// Where tests/run puts what it installs.
fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

/// A library that is there, ready to run.
pub(crate) struct Client {
    pub(crate) library: &'static Library,
    pub(crate) version: String,
    command: Vec<String>,
    environment: Option<(&'static str, PathBuf)>,
}

/// What a client made: the shape's number, the PIN, and the JWE; none if the library cannot make it.
pub(crate) struct Made {
    pub(crate) shape: usize,
    pub(crate) pin: String,
    pub(crate) jwe: Option<String>,
}

impl Library {
    /// Gets it ready, in a directory for it to use.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn prepare(&'static self, directory: &Path) -> Result<Client, String> {
        let directory = directory.join(self.name.replace(['`', ' ', ','], ""));
        std::fs::create_dir_all(&directory).unwrap();
        let file = source(self.program);
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (version, command, environment) = match self.runs {
            Runs::Here => (josekit(), Vec::new(), None),
            Runs::Node(package) => {
                let version = node_package(package, &directory)?;
                let copied = directory.join("encrypt.mjs");
                std::fs::copy(&file, &copied).unwrap();
                std::fs::copy(source("node/asked.mjs"), directory.join("asked.mjs")).unwrap();
                (version, vec!["node".to_owned(), text(&copied)], None)
            }
            Runs::Python => {
                let python = text(&target().join("clients/python/bin/python"));
                let package = self.program.split('/').next().unwrap();
                let ask = format!("import importlib.metadata as m; print(m.version({package:?}))");
                let version = said(Command::new(&python).args(["-c", &ask]))?;
                (version, vec![python, text(&file)], Some(("PYTHONPATH", source("python"))))
            }
            Runs::Debian(package, command) => {
                let command = command.iter().map(|part| (*part).to_owned()).chain([text(&file)]).collect();
                (of_debian(package)?, command, None)
            }
            Runs::Compiled(package, compile) => {
                let version = of_debian(package)?;
                let program = directory.join("encrypt");
                said(&mut compile(&file, &program))?;
                (version, vec![text(&program)], None)
            }
        };
        Ok(Client { library: self, version, command, environment })
    }
}

/// An npm package's version; it is put where a program in this directory imports it from as `jose`.
fn node_package(package: Option<&str>, directory: &Path) -> Result<String, String> {
    let node = said(Command::new("node").arg("--version"))?;
    let Some(package) = package else {
        let major = node.trim_start_matches('v').split('.').next().unwrap_or_default().to_owned();
        return Ok(format!("{major} (Node)"));
    };
    let installed = target().join("clients/node/node_modules").join(package);
    let manifest = std::fs::read(installed.join("package.json")).map_err(|error| error.to_string())?;
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    std::fs::create_dir_all(directory.join("node_modules")).unwrap();
    std::os::unix::fs::symlink(installed, directory.join("node_modules/jose")).unwrap();
    Ok(manifest["version"].as_str().unwrap().to_owned())
}

fn josekit() -> String {
    let lock = std::fs::read_to_string(source("../../Cargo.lock")).unwrap();
    let (_, entry) = lock.split_once("name = \"josekit\"\nversion = \"").unwrap();
    format!("{} (Cargo.lock)", entry.split('"').next().unwrap())
}

/// A Debian package's upstream version.
fn of_debian(package: &str) -> Result<String, String> {
    let asked = ["-W", "-f", "${source:Upstream-Version}", package];
    said(Command::new("dpkg-query").args(asked)).map(|version| format!("{version} (Debian)"))
}

/// What a command printed.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Client {
    /// Has it encrypt a PIN in each shape.
    pub(crate) async fn make(&self, pins: &[String], key_url: &str) -> Vec<Made> {
        let asked: Vec<_> = SHAPES.iter().zip(pins).enumerate().collect();
        let jwes = if self.command.is_empty() {
            let mut jwes = Vec::new();
            for (_, ((_, form, header), pin)) in &asked {
                jwes.push(match *form {
                    "snippet" => josekit_client::encrypt_pin(pin, key_url).await.unwrap(),
                    _ => josekit_client::encrypt_as_asked(pin, form, header, key_url).await,
                });
            }
            jwes
        } else {
            let lines =
                asked.iter().map(|(at, ((_, form, header), pin))| format!("{at}\t{pin}\t{form}\t{header}\n"));
            self.run(lines.collect(), key_url.to_owned()).await
        };
        assert_eq!(jwes.len(), SHAPES.len(), "{}", self.library.name);
        let pins = pins.iter().cloned();
        let made = jwes.into_iter().zip(pins).enumerate();
        made.map(|(shape, (jwe, pin))| Made { shape, pin, jwe: (jwe != "-").then_some(jwe) }).collect()
    }

    async fn run(&self, lines: String, key_url: String) -> Vec<String> {
        // A library that hangs fails its test.
        let mut command = Command::new("timeout");
        command.arg("120").args(&self.command).arg(key_url);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        let output = run.await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {:?}\n{stderr}", self.library.name, output.status);
        let lines = String::from_utf8(output.stdout).unwrap();
        let jwe_of = |(at, line): (usize, &str)| {
            let (name, jwe) = line.split_once('\t').unwrap();
            assert_eq!(name, at.to_string(), "{}", self.library.name);
            jwe.to_owned()
        };
        lines.lines().enumerate().map(jwe_of).collect()
    }
}
