//! A real browser, driven: chromedriver on a port of its own, and one page.

use std::process::Command;
use std::time::Duration;

use fantoccini::wd::TimeoutConfiguration;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::support::{LIMIT, Process, text};

/// A browser may take longer than a peer: it is the largest program here.
const PATIENCE: Duration = Duration::from_secs(300);

/// One browser at a time: each takes whatever the machine has, and one of them is measured.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A page in a browser of its own. Dropping it ends the browser.
#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) client: Client,
    http: reqwest::Client,
    session: String,
    chromium: u64,
    _driver: Process,
    _alone: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one; `None`, said loudly, where this machine has none.
    pub(crate) async fn start() -> Option<Self> {
        for program in ["chromium", "chromedriver"] {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
            if !found.status.success() {
                eprintln!("SKIPPED: the console is not tested: there is no {program} here");
                return None;
            }
        }
        let alone = ALONE.lock().await;
        let mut command = Command::new("chromedriver");
        command.arg("--port=0");
        let mut driver = Process::start(command, PATIENCE);
        let port = loop {
            let line = driver.text().expect("chromedriver says its port");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let base = format!("http://127.0.0.1:{port}");
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(capabilities()).connect(&base).await.expect("a browser");
        let timeouts = TimeoutConfiguration::new(Some(LIMIT), Some(LIMIT), Some(Duration::ZERO));
        client.update_timeouts(timeouts).await.unwrap();
        let id = client.session_id().await.unwrap().unwrap();
        let chromium = client.capabilities().unwrap()["goog:processID"].as_u64().unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Some(Self {
            client,
            http,
            session: format!("{base}/session/{id}"),
            chromium,
            _driver: driver,
            _alone: alone,
        })
    }

    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// What a script returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits in the page until an expression is true; returns what it is then.
    pub(crate) async fn until(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[0];
             const look = () => {{
               let found = null;
               try {{ found = ({expression}); }} catch {{ }}
               if (found) done(found); else setTimeout(look, 30);
             }};
             look();"
        );
        let found = self.client.execute_async(&script, Vec::new()).await;
        match found {
            Ok(found) => found,
            Err(error) => {
                let page = self.run("return document.body.innerText").await;
                panic!("never: {expression}: {error}\n{}", text(&page))
            }
        }
    }

    pub(crate) async fn click(&self, css: &str) {
        self.client
            .find(Locator::Css(css))
            .await
            .unwrap()
            .click()
            .await
            .unwrap_or_else(|e| panic!("{css}: {e}"));
    }

    /// Types into a field, instead of what is in it.
    pub(crate) async fn fill(&self, css: &str, what: &str) {
        let field = self.client.find(Locator::Css(css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(what).await.unwrap();
    }

    pub(crate) async fn text(&self, css: &str) -> String {
        let script = format!("return document.querySelector({css:?})?.textContent ?? ''");
        text(&self.run(&script).await)
    }

    /// Goes to a view by its link.
    pub(crate) async fn view(&self, name: &str) {
        self.run(&format!("document.getElementById('to-{name}').click()")).await;
        self.until(&format!("!document.getElementById('{name}').hidden")).await;
    }

    /// A command of the browser's own protocol.
    pub(crate) async fn command(&self, name: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", &json!({ "cmd": name, "params": parameters })).await
    }

    /// What the browser complained of since it was last asked.
    pub(crate) async fn complaints(&self) -> Vec<Value> {
        let log = self.post("se/log", &json!({ "type": "browser" })).await;
        let entries = log.as_array().cloned().unwrap_or_default();
        entries
            .into_iter()
            .filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING")
            .collect()
    }

    /// The screen in CSS pixels; a narrow one is a telephone's.
    pub(crate) async fn screen(&self, width: u32, height: u32) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700 });
        self.command("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// What the reader prefers: `light` or `dark`.
    pub(crate) async fn scheme(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", features).await;
    }

    /// Keeps what is to be seen, where somebody wants to look at it.
    pub(crate) async fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("CONSOLE_PICTURES") {
            let png = self.client.screenshot().await.unwrap();
            std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), png).unwrap();
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/{path}", self.session);
        let answer: Value = self.http.post(url).json(body).send().await.unwrap().json().await.unwrap();
        answer["value"].clone()
    }
}

impl Drop for Browser {
    /// Chromedriver alone would leave its browser behind.
    fn drop(&mut self) {
        let _ = Command::new("sh").args(["-c", &format!("kill -9 {}", self.chromium)]).status();
    }
}

fn capabilities() -> Map<String, Value> {
    // Without a sandbox it runs as root, too, as in a container; here it shows nothing but what this test serves.
    let args = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=1360,900",
    ];
    let options = json!({ "args": args });
    let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
    wanted.as_object().unwrap().clone()
}
