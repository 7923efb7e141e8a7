//! Receipts and profiles as resources: `llamesh://receipts/DIGEST`, `llamesh://peers/PEER/profile`.
//!
//! The list has the peers that are known, and then the owner's receipts, the latest first, page by page. A page's cursor is
//! the last receipt before it, so that new receipts move nothing.

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crypto::{Digest, PeerId};
use rmcp::ErrorData;
use rmcp::model::{
    ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource, ResourceContents,
    ResourceTemplate,
};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::guest::Guest;
use super::receipt;
use crate::failure::Failure;

/// What all of them are.
pub(super) const JSON: &str = "application/json";
/// Receipts on a page.
const PAGE: usize = 50;
/// Peers in the list; all of them can be read.
const MAX_PEERS: usize = 64;
/// The longest resource in bytes that is sent: longer ones are no reading for a model.
const MAX_LEN: usize = 8 << 20;
/// The longest name that is looked at: longer ones are no names.
const MAX_URI: usize = 256;

/// Where a receipt can be read.
pub(super) fn of_receipt(receipt: Digest) -> String {
    format!("llamesh://receipts/{receipt}")
}

fn of_peer(peer: PeerId) -> String {
    format!("llamesh://peers/{peer}/profile")
}

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Profile(PeerId),
    Receipt(Digest),
}

impl Named {
    fn parse(uri: &str) -> Option<Self> {
        let path = uri.strip_prefix("llamesh://").filter(|_| uri.len() <= MAX_URI)?;
        match path.split_once('/')? {
            ("receipts", digest) => digest.parse().ok().map(Self::Receipt),
            ("peers", rest) => rest.strip_suffix("/profile")?.parse().ok().map(Self::Profile),
            _ => None,
        }
    }
}

/// Which names there are.
pub(super) fn templates() -> ListResourceTemplatesResult {
    let receipts = ResourceTemplate::new("llamesh://receipts/{digest}", "receipt")
        .with_title("A receipt")
        .with_description(
            "The signed file of a job that was done: who did it for whom, with which model, at what cost",
        )
        .with_mime_type(JSON);
    let profiles = ResourceTemplate::new("llamesh://peers/{peer}/profile", "profile")
        .with_title("A peer's profile")
        .with_description("What a peer says of itself: its agents, models, prices and speeds")
        .with_mime_type(JSON);
    ListResourceTemplatesResult::with_all_items(vec![receipts, profiles])
}

/// A page of what there is.
pub(super) async fn list(guest: &Guest, cursor: Option<String>) -> Result<ListResourcesResult, ErrorData> {
    let after = cursor.as_deref().map(Kept::parse).transpose()?;
    let mut resources = Vec::new();
    if after.is_none() {
        let mut found = guest.mesh.find(None).await.map_err(internal)?;
        found.sort_by_key(|found| found.peer);
        resources.extend(found.into_iter().take(MAX_PEERS).map(|found| {
            let capabilities: Vec<_> =
                found.profile.agents.iter().map(|one| one.capability.to_string()).collect();
            Resource::new(of_peer(found.peer), format!("profile of {}", found.peer.short()))
                .with_description(capabilities.join(", "))
                .with_mime_type(JSON)
        }));
    }
    let mut kept = receipts(guest, after).await?;
    let more = kept.len() > PAGE;
    kept.truncate(PAGE);
    let next = kept.last().filter(|_| more).map(Kept::to_string);
    resources.extend(kept.iter().map(Kept::resource));
    let mut page = ListResourcesResult::with_all_items(resources);
    page.next_cursor = next;
    Ok(page)
}

/// The next receipts after one, and one more where there are more.
async fn receipts(guest: &Guest, after: Option<Kept>) -> Result<Vec<Kept>, ErrorData> {
    let Some(folder) = guest.receipts().ok().filter(|_| guest.is_owner()).cloned() else {
        return Ok(Vec::new());
    };
    let looked = spawn_blocking(move || kept(&folder)).await.map_err(internal)?;
    let mut kept = looked.map_err(internal)?;
    kept.retain(|one| after.as_ref().is_none_or(|last| one.order() > last.order()));
    kept.sort_unstable_by_key(Kept::order);
    kept.truncate(PAGE + 1);
    Ok(kept)
}

/// A receipt's file, from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    /// Milliseconds since 1970.
    written: u64,
    receipt: Digest,
    size: u64,
}

impl Kept {
    /// The latest first.
    fn order(&self) -> (std::cmp::Reverse<u64>, Digest) {
        (std::cmp::Reverse(self.written), self.receipt)
    }

    fn resource(&self) -> Resource {
        Resource::new(of_receipt(self.receipt), format!("receipt {}", self.receipt))
            .with_mime_type(JSON)
            .with_size(self.size)
    }

    fn parse(cursor: &str) -> Result<Self, ErrorData> {
        let parsed = cursor.split_once('.').and_then(|(written, receipt)| {
            Some(Self { written: written.parse().ok()?, receipt: receipt.parse().ok()?, size: 0 })
        });
        parsed.ok_or_else(|| {
            ErrorData::invalid_params("the cursor is none of this list: begin again without one", None)
        })
    }
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.written, self.receipt)
    }
}

/// All receipts of a folder; what else is in it is passed over.
fn kept(folder: &Path) -> io::Result<Vec<Kept>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let one = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let receipt = entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok()?;
        let about = entry.metadata().ok()?;
        let written = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Kept { written: u64::try_from(written.as_millis()).ok()?, receipt, size: about.len() })
    };
    Ok(entries.filter_map(one).collect())
}

/// What a name stands for.
pub(super) async fn read(guest: &Guest, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let text = match Named::parse(uri) {
        Some(Named::Receipt(digest)) => file(guest, digest).await?,
        Some(Named::Profile(peer)) => profile(guest, peer).await?,
        None => {
            let shown = &uri[..uri.floor_char_boundary(MAX_URI)];
            let next = "resources/templates/list tells which names there are";
            return Err(ErrorData::resource_not_found(format!("no resource `{shown}`; {next}"), None));
        }
    };
    if text.len() > MAX_LEN {
        let next = "write it to a file with `llamesh receipts export`";
        return Err(ErrorData::internal_error(format!("{uri} is too long to be sent; {next}"), None));
    }
    let contents = ResourceContents::text(text, uri).with_mime_type(JSON);
    Ok(ReadResourceResult::new(vec![contents]))
}

/// A receipt's file; for whoever comes with a key, without what is private in it.
async fn file(guest: &Guest, digest: Digest) -> Result<String, ErrorData> {
    let none = |failure: Failure| ErrorData::resource_not_found(failure.message, None);
    let file = receipt::read(guest, digest).await.map_err(none)?.map_err(internal)?;
    let file = if guest.is_owner() { file } else { file.public() };
    file.render().map_err(internal)
}

async fn profile(guest: &Guest, peer: PeerId) -> Result<String, ErrorData> {
    let found = guest.mesh.find(None).await.map_err(internal)?;
    let Some(found) = found.into_iter().find(|found| found.peer == peer) else {
        let next = "find_agents finds those that offer something";
        return Err(ErrorData::resource_not_found(format!("no profile of {peer} is known; {next}"), None));
    };
    serde_json::to_string_pretty(&json!({ "peer": found.peer, "profile": found.profile })).map_err(internal)
}

fn internal(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_say() {
        let (digest, peer) = (Digest::of_content(b"x"), crypto::SecretKey::from_seed(&[1; 32]).peer_id());
        assert_eq!(Named::parse(&of_receipt(digest)), Some(Named::Receipt(digest)));
        assert_eq!(Named::parse(&of_peer(peer)), Some(Named::Profile(peer)));
        for wrong in
            ["", "llamesh://", "llamesh://receipts/../token", "llamesh://peers/x/profile", "file:///etc"]
        {
            assert_eq!(Named::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_latest_come_first_and_a_cursor_goes_on_after_the_last() {
        let one = |written, text: &[u8]| Kept { written, receipt: Digest::of_content(text), size: 0 };
        let (new, old) = (one(2, b"new"), one(1, b"old"));
        assert!(new.order() < old.order());
        assert_eq!(Kept::parse(&new.to_string()).unwrap(), new);
        for wrong in ["", "1", "1.x", "x.1", "-1.x"] {
            assert!(Kept::parse(wrong).is_err(), "{wrong}");
        }
    }
}
