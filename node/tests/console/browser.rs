//! A real browser, driven: chromedriver on a port of its own, one page, and the commands of WebDriver
//! (<https://www.w3.org/TR/webdriver2/>) that a test of it needs.

use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::support::{LIMIT, Process, text};

/// A browser may take longer than a peer: it is the largest program here.
const PATIENCE: Duration = Duration::from_secs(300);

/// One browser at a time: each takes whatever the machine has, and one of them is measured.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A page in a browser of its own. Dropping it ends the browser.
#[derive(Debug)]
pub(crate) struct Browser {
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
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let wanted = json!({ "capabilities": { "alwaysMatch": capabilities() } });
        let session = send(http.post(format!("{base}/session")).json(&wanted)).await.expect("a browser");
        let (id, chromium) = (text(&session["sessionId"]), &session["capabilities"]["goog:processID"]);
        let (session, chromium) = (format!("{base}/session/{id}"), chromium.as_u64().unwrap());
        let browser = Self { http, session, chromium, _driver: driver, _alone: alone };
        let limit = LIMIT.as_millis();
        browser.post("timeouts", &json!({ "script": limit, "pageLoad": limit, "implicit": 0 })).await;
        Some(browser)
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url })).await;
    }

    pub(crate) async fn reload(&self) {
        self.post("refresh", &json!({})).await;
    }

    /// What a script returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// What a script hands to its last argument.
    pub(crate) async fn wait(&self, script: &str, given: &[&str]) -> Value {
        self.post("execute/async", &json!({ "script": script, "args": given })).await
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
        match self.try_post("execute/async", &json!({ "script": script, "args": [] })).await {
            Ok(found) => found,
            Err(error) => {
                let page = self.run("return document.body.innerText").await;
                panic!("never: {expression}: {error}\n{}", text(&page))
            }
        }
    }

    pub(crate) async fn click(&self, css: &str) {
        let element = self.find(css).await;
        self.post(&format!("element/{element}/click"), &json!({})).await;
    }

    /// Types into a field, instead of what is in it.
    pub(crate) async fn fill(&self, css: &str, what: &str) {
        let field = self.find(css).await;
        self.post(&format!("element/{field}/clear"), &json!({})).await;
        self.post(&format!("element/{field}/value"), &json!({ "text": what })).await;
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
            let picture = send(self.http.get(format!("{}/screenshot", self.session))).await.unwrap();
            let png = STANDARD.decode(text(&picture)).unwrap();
            std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), png).unwrap();
        }
    }

    async fn find(&self, css: &str) -> String {
        let found = self.post("element", &json!({ "using": "css selector", "value": css })).await;
        text(found.as_object().and_then(|found| found.values().next()).expect("a reference to it"))
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).await.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    async fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        send(self.http.post(format!("{}/{path}", self.session)).json(body)).await
    }
}

/// The value of an answer, or why there is none.
async fn send(request: reqwest::RequestBuilder) -> Result<Value, String> {
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let good = answer.status().is_success();
    let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
    let value = answer["value"].take();
    if good { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
}

impl Drop for Browser {
    /// Chromedriver alone would leave its browser behind.
    fn drop(&mut self) {
        let _ = Command::new("sh").args(["-c", &format!("kill -9 {}", self.chromium)]).status();
    }
}

fn capabilities() -> Value {
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
    json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } })
}
