//! A file over HTTPS, in as many pieces as the line allows.
//!
//! A hundred megabytes on a bad line is where downloads fail, so what has arrived is kept in a `.part` file and the
//! next request, of this process or a later one, asks for the rest only. Where the size is pinned, nothing that the
//! server says about it is believed. Where it is not, the size and the tag that the server gave with the first piece are
//! kept beside it, a later piece is asked for on the condition that the tag still holds, and without a tag the file is
//! begun again. Not one byte more than the size is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::progress::{Progress, Shown};

/// What is to be fetched, and into which files.
#[derive(Debug)]
pub(super) struct Download {
    /// From where.
    pub(super) url: String,
    /// What it is, for people.
    pub(super) what: String,
    /// The size, where it is pinned.
    pub(super) size: Option<u64>,
    /// Where it grows; a beginning may exist.
    pub(super) part: PathBuf,
    /// Where it is kept what the server told of an unpinned file.
    pub(super) told: PathBuf,
}

/// What a server said of a file when it gave its beginning.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    size: u64,
    /// Names exactly these bytes; none where the server gave no such tag.
    tag: Option<String>,
}

impl Download {
    /// Fetches until the part is whole.
    pub(super) async fn run(&self, progress: &dyn Progress) -> Result<(), Failure> {
        // A hub that is asked in secret does not lead to a place where everybody listens.
        let secret = self.url.starts_with("https:");
        let client = Client::builder().connect_timeout(CONNECT).read_timeout(STALL).https_only(secret);
        let client = client.build()?;
        for _ in 1..TRIES {
            let before = self.arrived();
            match self.attempt(&client, progress).await {
                // Only a cut line is worth another request at once, and only when the last one brought something.
                Err(Failure::Cut(_) | Failure::Short { .. }) if self.arrived() > before => {}
                outcome => return outcome,
            }
        }
        self.attempt(&client, progress).await
    }

    fn arrived(&self) -> u64 {
        self.part.metadata().map_or(0, |part| part.len())
    }

    /// One request for what is missing.
    async fn attempt(&self, client: &Client, progress: &dyn Progress) -> Result<(), Failure> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.part)?;
        let told = self.told();
        let size = self.size.or_else(|| told.as_ref().map(|told| told.size));
        let resumable = self.size.is_some() || told.as_ref().is_some_and(|told| told.tag.is_some());
        if self.arrived() > size.unwrap_or(0) || (!resumable && Some(self.arrived()) != size) {
            file.set_len(0)?;
        }
        if Some(self.arrived()) == size {
            return Ok(());
        }
        let response = self.request(client, &file, told.as_ref()).await?;
        let size = self.size_of(&response, told)?;
        let shown = Shown::begin(progress, &self.what, Some(size));
        shown.advance(self.arrived());
        self.receive(response, &mut file, size, &shown).await
    }

    /// What was said when the beginning came. A damaged note is as good as none.
    fn told(&self) -> Option<Told> {
        if self.size.is_some() {
            return None;
        }
        serde_json::from_slice(&fs::read(&self.told).ok()?).ok()
    }

    /// Asks for the rest; when the server begins at the beginning, so does the file.
    async fn request(&self, client: &Client, file: &File, told: Option<&Told>) -> Result<Response, Failure> {
        let start = self.arrived();
        let mut request = client.get(&self.url);
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
            if let Some(tag) = told.and_then(|told| told.tag.as_ref()) {
                request = request.header(IF_RANGE, tag);
            }
        }
        let response = request.send().await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if continues(&response, start, told) => {}
            StatusCode::OK => file.set_len(0)?,
            status @ (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) => {
                // What is there does not fit what the server has: the next try must not stumble over it again.
                file.set_len(0)?;
                return Err(Failure::Status(status));
            }
            status => return Err(Failure::Status(status)),
        }
        Ok(response)
    }

    /// The size of the whole file; what a server tells for the first time is written down.
    fn size_of(&self, response: &Response, told: Option<Told>) -> Result<u64, Failure> {
        if let Some(size) = self.size {
            return Ok(size);
        }
        if let (StatusCode::PARTIAL_CONTENT, Some(told)) = (response.status(), told) {
            return Ok(told.size);
        }
        let size = response.content_length().filter(|size| *size > 0).ok_or(Failure::NoSize)?;
        if size > MAX_SIZE {
            return Err(Failure::TooLarge { size, limit: MAX_SIZE });
        }
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        // A weak tag promises a similar file, not the same bytes.
        let tag = tag.filter(|tag| tag.starts_with('"') && tag.len() <= MAX_TAG).map(str::to_owned);
        let note = serde_json::to_vec(&Told { size, tag }).map_err(io::Error::other)?;
        fs::write(&self.told, note)?;
        Ok(size)
    }

    async fn receive(
        &self,
        mut body: Response,
        file: &mut File,
        size: u64,
        shown: &Shown<'_>,
    ) -> Result<(), Failure> {
        let mut arrived = self.arrived();
        while let Some(chunk) = body.chunk().await.map_err(Failure::Cut)? {
            arrived += chunk.len() as u64;
            if arrived > size {
                file.set_len(0)?;
                return Err(Failure::TooLong { size });
            }
            // A page-cache write of some kilobytes: shorter than handing it to another thread.
            file.write_all(&chunk)?;
            shown.advance(chunk.len() as u64);
        }
        if arrived < size {
            return Err(Failure::Short { arrived, size });
        }
        file.sync_all().map_err(io::Error::into)
    }
}

/// True when a partial answer begins where the file ends, and is of a file as long as was said: a cache in between may
/// have other ideas.
fn continues(response: &Response, start: u64, told: Option<&Told>) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| {
        range.starts_with(&format!("bytes {start}-"))
            && told.is_none_or(|told| range.ends_with(&format!("/{}", told.size)))
    })
}

/// A server that cannot be reached in this time is not there; the next source is due.
const CONNECT: Duration = Duration::from_secs(5);

/// Silence on the line after which it counts as cut.
const STALL: Duration = Duration::from_secs(30);

/// Requests for one file. Each but the last must have brought something.
const TRIES: u32 = 8;

/// The longest file that is fetched without a pin: the largest single files of open models have some fifty gigabytes.
const MAX_SIZE: u64 = 64 << 30;

/// The longest tag that is kept; those of the hub have 66 bytes.
const MAX_TAG: usize = 256;
