//! Push notifications: a task's news, posted to an address that its client names.
//!
//! The address is a stranger's wish, and this peer stands in networks that the stranger may not reach. So only addresses of
//! the open internet are posted to, whatever a name means at that moment, and no redirect is followed; the owner may allow
//! all. Nothing is queued: each webhook has a courier that follows the task, as a stream does.
//!
//! | module | what it answers |
//! |---|---|
//! | [`address`] | may this be posted to? |

pub(super) mod address;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use self::address::Vetting;
use super::Office;
use super::error::Error;
use super::follow::Follower;
use super::message::MAX_NAME;
use crate::clock;

/// What tells a webhook that it is this peer that posts.
const TOKEN: HeaderName = HeaderName::from_static("x-a2a-notification-token");
/// Bytes of an address, and of what is sent along.
const MAX_TEXT: usize = 2048;
/// Posts at once, of all tasks.
const AT_ONCE: usize = 16;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses before the second, third and fourth try.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(8)];

/// Where a task's news go (A2A's `TaskPushNotificationConfig`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Webhook {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) task_id: String,
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authentication: Option<Authentication>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Authentication {
    scheme: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credentials: Option<String>,
}

impl Webhook {
    /// The same of a task.
    pub(super) fn of(self, task_id: String) -> Self {
        Self { task_id, ..self }
    }

    /// With a name, and nothing in it that could not be sent.
    pub(super) async fn checked(mut self, vetting: &Vetting) -> Result<Self, Error> {
        if self.id.is_empty() {
            self.id = super::name()?;
        }
        if self.id.len() > MAX_NAME || self.id.chars().any(|c| c.is_control() || c == '/') {
            return Err(Error::invalid("id", &format!("must have {MAX_NAME} bytes at most, and no slash")));
        }
        self.headers()?;
        vetting.check(&self.url).await.map_err(|why| Error::invalid("url", &why))?;
        Ok(self)
    }

    /// What is sent along.
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
        let value = |field: &str, text: &str| {
            let value = HeaderValue::try_from(text).ok().filter(|value| value.len() <= MAX_TEXT);
            let mut value = value.ok_or_else(|| {
                Error::invalid(
                    field,
                    &format!("must be something a header can carry, of {MAX_TEXT} bytes at most"),
                )
            })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        let mut headers = Vec::new();
        if let Some(token) = self.token.as_ref().filter(|token| !token.is_empty()) {
            headers.push((TOKEN, value("token", token)?));
        }
        if let Some(Authentication { scheme, credentials: Some(credentials) }) = &self.authentication
            && !credentials.is_empty()
        {
            let text = format!("{scheme} {credentials}");
            headers.push((header::AUTHORIZATION, value("authentication", &text)?));
        }
        Ok(headers)
    }
}

/// Whoever posts.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) vetting: Vetting,
    places: Semaphore,
}

impl Post {
    pub(super) fn new(vetting: Vetting) -> Self {
        Self { vetting, places: Semaphore::new(AT_ONCE) }
    }

    /// Posts once.
    async fn once(&self, client: &Client, webhook: &Webhook, event: &Value) -> Result<(), String> {
        let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
        // A name may mean something else by now; the client asks again, and this sees to addresses that are no names.
        self.vetting.check(&webhook.url).await?;
        let mut request = client.post(&webhook.url).timeout(PATIENCE).body(event.to_string());
        request = request.header(header::CONTENT_TYPE, super::MEDIA);
        for (name, value) in webhook.headers().map_err(|_| "its headers cannot be sent")? {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| error.without_url().to_string())?;
        if response.status().is_success() { Ok(()) } else { Err(format!("it answers {}", response.status())) }
    }
}

/// Tells one webhook of a task, until that is over, the webhook is taken back, or it does not answer.
pub(super) async fn carry(office: Arc<Office>, mut follower: Follower, (task, id): (String, String)) {
    while let Some(event) = follower.next().await {
        for pause in PAUSES.into_iter().map(Some).chain([None]) {
            let Some(webhook) = office.webhook(&task, &id) else { return };
            let Some(client) = office.post().vetting.client(&webhook.url) else { return };
            let Err(why) = office.post().once(&client, &webhook, &event).await else { break };
            tracing::debug!(%task, why, "a webhook could not be told");
            let Some(pause) = pause else { return };
            sleep(pause).await;
        }
    }
}

impl Office {
    fn webhook(&self, task: &str, id: &str) -> Option<Webhook> {
        self.tasks().followed(task)?.webhook(id).cloned()
    }

    /// Keeps a webhook of a task that somebody has, and lets it hear of what comes.
    pub(super) fn tell(
        self: &Arc<Self>,
        owner: crate::api::keys::Caller,
        task: &str,
        webhook: Webhook,
    ) -> Result<Webhook, Error> {
        let now = clock::now();
        let webhook = webhook.of(task.to_owned());
        let mut store = self.tasks();
        let known = store.get(now, owner, task)?.webhook(&webhook.id).is_some();
        store.set_webhook((now, owner), task, webhook.clone())?;
        let kept = store.get(now, owner, task)?;
        // One that is changed has a courier already, who looks at what it says now.
        if !known && !kept.task.state.is_over() {
            let follower = Follower::new(self, kept, super::follow::Telling::Whole);
            let names = (task.to_owned(), webhook.id.clone());
            tokio::spawn(carry(Arc::clone(self), follower, names));
        }
        Ok(webhook)
    }
}
