//! `get_receipt` and `verify_receipt`: what a receipt says, and whether it is right.

use std::io;
use std::sync::Arc;

use crypto::Digest;
use protocol::Receipt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;

use super::answer::Answer;
use super::guest::Guest;
use super::progress::Progress;
use super::resources;
use crate::failure::{Class, Failure};
use crate::models::Models;
use crate::receipts::{ReceiptError, ReceiptFile, path_of};
use crate::verification::{self, Verdict, Word, replaying};

/// Which receipt.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    receipt: Digest,
}

/// Which receipt, and how closely it is looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Doubted {
    receipt: Digest,
    #[serde(default)]
    replay: bool,
}

/// The replays that run: one at a time, as each loads a model and takes all of the machine.
#[derive(Clone, Debug)]
pub(super) struct Replays(Arc<Semaphore>);

impl Default for Replays {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Replays {
    /// Whether this guest may have one.
    pub(super) fn allow(&self, guest: &Guest) -> Result<(), Failure> {
        if guest.is_owner() {
            return Ok(());
        }
        let next = "leave replay out, or replay it on a machine of your own with `llamesh verify --replay`";
        Err(Failure::new(
            Class::Request,
            format!("only the peer's owner may have it replay an answer: {next}"),
        ))
    }

    fn begin(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let busy = |_| Failure::new(Class::Job, "another replay is running; try again when it is done");
        Arc::clone(&self.0).try_acquire_owned().map_err(busy)
    }
}

pub(super) async fn get(guest: &Guest, Named { receipt }: Named) -> Result<Answer, Failure> {
    let file = read(guest, receipt).await?.map_err(|error| {
        let next = "keep the file and look at it with `llamesh verify`";
        Failure::new(Class::Refuted, format!("receipt {receipt}: {error}; {next}"))
    })?;
    let value = entry(&file, guest.is_owner());
    let provider = file.receipt.signer();
    let Receipt { capability, cost, requester, .. } = file.receipt.value();
    let tokens = file.receipt.answer_tokens();
    let text = format!(
        "{provider} did {capability} for {requester}: {tokens} tokens, {cost}; both signed receipt {receipt}"
    );
    let mut answer = Answer::new(value, text);
    answer.receipts.push(receipt);
    Ok(answer)
}

pub(super) async fn verify(
    guest: &Guest,
    Doubted { receipt, replay }: Doubted,
    replays: &Replays,
    progress: &mut Progress,
) -> Result<Answer, Failure> {
    if replay {
        replays.allow(guest)?;
    }
    let verdict = judge(guest, receipt, replay, replays, progress).await?;
    let mut value = json!(verdict);
    value["receipt"] = json!(receipt);
    Ok(Answer::new(value, told(&verdict)))
}

/// A verdict in a sentence.
pub(super) fn told(verdict: &Verdict) -> String {
    let word = json!(verdict.verdict);
    format!("{}: {}", word.as_str().unwrap_or_default(), verdict.why)
}

/// Whether a receipt is right.
pub(super) async fn judge(
    guest: &Guest,
    receipt: Digest,
    replay: bool,
    replays: &Replays,
    progress: &mut Progress,
) -> Result<Verdict, Failure> {
    let file = match read(guest, receipt).await? {
        Ok(file) => file,
        Err(error) => return Ok(Verdict::new(Word::Refuted, error.to_string())),
    };
    if !replay {
        let why = "both signatures hold, and so does every commitment; ask for a replay to compute the answer again";
        return Ok(Verdict::new(Word::Signed, why));
    }
    let model = match verification::replayable(&file) {
        Ok((_, _, model)) => model,
        Err(verdict) => return Ok(verdict),
    };
    let models = Models::from_env().map_err(Failure::of(Class::Model))?;
    let Some(path) = models.by_digest(&model) else {
        let why =
            format!("the model {model} is not on this machine; `llamesh models` lists and fetches them");
        return Ok(Verdict::new(Word::Unverifiable, why));
    };
    // It goes on to its end where nobody waits for it any more, and makes room for the next one only then.
    let place = replays.begin()?;
    let (tell, mut heard) = watch::channel((0, 0));
    let mut work = spawn_blocking(move || {
        let _place = place;
        let verdict = replaying::replay_with(&file, &path, |done, of| {
            tell.send_replace((done, of));
        });
        verdict.map_err(|error| Failure::of_load(&path, &error))
    });
    loop {
        tokio::select! {
            verdict = &mut work => return verdict.map_err(Failure::of(Class::Internal))?,
            Ok(()) = heard.changed() => {
                let (done, of) = *heard.borrow_and_update();
                progress.tell(f64::from(done), Some(f64::from(of)), format!("{done} of {of} replayed")).await;
            }
        }
    }
}

/// A receipt's file, and what is wrong with it.
///
/// # Errors
/// Where there is none.
pub(super) async fn read(
    guest: &Guest,
    receipt: Digest,
) -> Result<Result<ReceiptFile, ReceiptError>, Failure> {
    let path = path_of(guest.receipts()?, receipt);
    let file =
        spawn_blocking(move || ReceiptFile::read(&path)).await.map_err(Failure::of(Class::Internal))?;
    match file {
        Err(ReceiptError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            let next = "submit_job tells the digest of each, and the owner's list of resources has them all";
            Err(Failure::new(Class::Request, format!("this peer keeps no receipt {receipt}; {next}")))
        }
        Err(error @ ReceiptError::Io { .. }) => Err(Failure::new(Class::Data, error)),
        Ok(file) if file.digest() != receipt => Ok(Err(ReceiptError::Altered)),
        file => Ok(file),
    }
}

/// What the tool tells of a file.
fn entry(file: &ReceiptFile, private: bool) -> Value {
    let receipt = file.receipt.value();
    let digest = file.digest();
    let mut entry = json!({
        "receipt": digest,
        "uri": resources::of_receipt(digest),
        "network": file.network,
        "job": receipt.job,
        "kind": receipt.kind,
        "provider": file.receipt.signer(),
        "requester": receipt.requester,
        "agent": receipt.agent,
        "capability": receipt.capability,
        "usage": { "prompt_tokens": receipt.prompt_tokens(), "completion_tokens": receipt.answer_tokens() },
        "price": receipt.price,
        "cost": receipt.cost,
        "started": receipt.started,
        "finished": receipt.finished,
        "finish": receipt.finish,
        "children": receipt.children,
    });
    let opening = file.opening.as_ref().filter(|_| private);
    let text =
        opening.map(|opening| opening.output.iter().map(|token| token.text.as_str()).collect::<String>());
    let more = [
        ("model", receipt.model.map(|model| json!(model))),
        ("engine", receipt.engine.clone().map(Value::from)),
        ("answer", text.map(Value::from)),
    ];
    for (name, one) in more {
        if let Some(one) = one {
            entry[name] = one;
        }
    }
    entry
}
