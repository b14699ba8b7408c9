//! A real Chromium, driven through its own WebDriver.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// Longer than anything on the page may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A browser with one page; both it and its driver are ended when this is dropped.
pub struct Browser {
    driver: Child,
    /// Where the driver listens, and the session's path there.
    address: String,
    session: String,
    pub page: Client,
}

type Lines = std::io::Lines<BufReader<std::process::ChildStdout>>;

/// Starts a driver; answers its port and what it goes on to print.
fn start_driver() -> (Child, String, Lines) {
    /// It listens on a free port of IPv6 and then on the same of IPv4, which somebody else may have taken; then it ends.
    const TRIES: usize = 5;
    let mut printed = Vec::new();
    for _ in 0..TRIES {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().expect("chromedriver is installed by tests/run");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some((_, port)) = line.rsplit_once("successfully on port ") {
                let port = port.trim_end_matches('.').to_owned();
                return (driver, port, lines);
            }
            printed.push(line);
        }
        driver.wait().unwrap();
    }
    panic!("chromedriver does not start: {printed:?}");
}

/// How the page is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Desk,
    PhoneInTheDark,
}

impl Browser {
    /// Starts one whose downloads go to `downloads`.
    pub async fn start(look: Look, downloads: &Path) -> Self {
        Self::begin(look, downloads, &[], json!({})).await
    }

    /// Starts one with more arguments of Chromium's; what it sends and what pages print is kept for [`Self::log`].
    pub async fn watched(downloads: &Path, more: &[&str]) -> Self {
        Self::begin(Look::Desk, downloads, more, json!({"performance": "ALL", "browser": "ALL"})).await
    }

    async fn begin(look: Look, downloads: &Path, more: &[&str], logged: Value) -> Self {
        let (driver, port, lines) = start_driver();
        // Else the driver stops at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut arguments = vec![
            "--headless=new",
            // Tests run as root in containers, where Chromium's own sandbox cannot.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-proxy-server",
            "--window-size=1000,1100",
            "--hide-scrollbars",
        ];
        arguments.extend(more);
        let mut options = json!({"prefs": {"download.default_directory": downloads, "download.prompt_for_download": false}});
        if look == Look::PhoneInTheDark {
            arguments.push("--blink-settings=preferredColorScheme=0");
            options["mobileEmulation"] =
                json!({"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 1.0}});
        }
        options["args"] = json!(arguments);
        let wanted = json!({"goog:chromeOptions": options, "goog:loggingPrefs": logged});
        let Value::Object(capabilities) = wanted else { unreachable!() };
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        let session = page.session_id().await.unwrap().expect("a session has an id");
        Self { driver, address: format!("127.0.0.1:{port}"), session: format!("/session/{session}"), page }
    }

    /// Asks the driver to end its browser, and waits until it has. (A driver that is only told to stop may leave it running.)
    fn quit(&self) -> std::io::Result<()> {
        let mut driver = std::net::TcpStream::connect(&self.address)?;
        driver.set_read_timeout(Some(Duration::from_secs(20)))?;
        let Self { address, session, .. } = self;
        write!(driver, "DELETE {session} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        // It answers once the browser has ended.
        driver.read(&mut [0; 1024]).map(drop)
    }

    /// Asks the driver for what only Chromium's has.
    async fn ask_driver(&self, path: &str, body: &Value) -> Value {
        let url = format!("http://{}{}/{path}", self.address, self.session);
        let answer = super::http_client().post(url).json(body).send().await.unwrap();
        let mut answer: Value = answer.json().await.unwrap();
        assert!(answer["value"].get("error").is_none(), "{path}: {answer}");
        answer["value"].take()
    }

    /// A command of Chromium's own protocol.
    pub async fn command(&self, command: &str, parameters: Value) -> Value {
        self.ask_driver("goog/cdp/execute", &json!({"cmd": command, "params": parameters})).await
    }

    /// What was written since the last look into a log: `browser` (the console) or `performance` (the network).
    pub async fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.ask_driver("se/log", &json!({"type": kind})).await;
        entries.as_array().unwrap().clone()
    }

    /// Presses keys one after the other, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let mut pressed = KeyActions::new("keyboard".into());
        for value in keys.chars() {
            pressed = pressed.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        }
        self.page.perform_actions(pressed).await.unwrap();
    }

    pub async fn open(&self, url: &str) {
        self.page.goto(url).await.unwrap();
    }

    pub async fn element(&self, css: &str) -> Element {
        self.page.find(Locator::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    pub async fn click(&self, css: &str) {
        self.until(&format!(
            "const e = document.querySelector({css:?}); return Boolean(e?.checkVisibility()) && !e.disabled"
        ))
        .await;
        self.element(css).await.click().await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Types into it, or presses keys while it has the focus.
    pub async fn keys(&self, css: &str, keys: &str) {
        self.until(&format!("return Boolean(document.querySelector({css:?})?.checkVisibility())")).await;
        self.element(css).await.send_keys(keys).await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    pub async fn run(&self, script: &str) -> Value {
        self.page.execute(script, Vec::new()).await.unwrap()
    }

    /// What a person reads there.
    pub async fn text(&self, css: &str) -> String {
        self.element(css).await.text().await.unwrap()
    }

    /// Waits until the script answers true.
    pub async fn until(&self, script: &str) {
        let began = Instant::now();
        while self.run(script).await != json!(true) {
            if began.elapsed() > WAIT_MAX {
                panic!("never came: {script}\n{}", self.text("body").await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until these words stand there.
    pub async fn until_text(&self, css: &str, words: &str) {
        let script = format!(
            "const e = document.querySelector({css:?}); return Boolean(e?.checkVisibility()) && e.textContent.includes({words:?})"
        );
        self.until(&script).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.quit();
        let pid = rustix::process::Pid::from_child(&self.driver);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.driver.wait();
    }
}

/// Waits for a download and reads it.
pub async fn downloaded(folder: &Path, name: &str) -> String {
    String::from_utf8(downloaded_bytes(folder, name).await).unwrap()
}

/// The same, of a file that is no text.
pub async fn downloaded_bytes(folder: &Path, name: &str) -> Vec<u8> {
    let began = Instant::now();
    loop {
        if let Ok(bytes) = std::fs::read(folder.join(name)) {
            return bytes;
        }
        let there: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert!(began.elapsed() < WAIT_MAX, "{name} was not downloaded, only {there:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
