//! A model file from the Hugging Face hub, over HTTPS.
//!
//! A hundred megabytes on a bad line is where downloads fail, so what has arrived is kept in a `.part` file and the
//! next request, of this process or a later one, asks for the rest only. What the server says about sizes is never
//! believed: the size is pinned, and not one byte more is written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};

use super::progress::{Progress, Shown};
use super::{Failure, Known};

/// The hub that everybody uses.
pub(super) const HUB: &str = "https://huggingface.co";

/// Fetches `known` into the file at `part`, of which a beginning may exist.
pub(super) async fn fetch(
    base: &str,
    known: &Known,
    part: &Path,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let client = Client::builder().connect_timeout(CONNECT).read_timeout(STALL).build()?;
    let download = Download { client, url: known.hub.url(base), known, part };
    for _ in 1..TRIES {
        let before = download.arrived();
        match download.attempt(progress).await {
            // Only a cut line is worth another request at once, and only when the last one brought something.
            Err(Failure::Cut(_) | Failure::Short { .. }) if download.arrived() > before => {}
            outcome => return outcome,
        }
    }
    download.attempt(progress).await
}

#[derive(Debug)]
struct Download<'a> {
    client: Client,
    url: String,
    known: &'a Known,
    part: &'a Path,
}

impl Download<'_> {
    fn arrived(&self) -> u64 {
        self.part.metadata().map_or(0, |part| part.len())
    }

    /// One request for what is missing.
    async fn attempt(&self, progress: &dyn Progress) -> Result<(), Failure> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.part)?;
        if self.arrived() > self.known.size {
            file.set_len(0)?;
        }
        if self.arrived() == self.known.size {
            return Ok(());
        }
        let response = self.request(&file).await?;
        let what = format!("{} from the Hugging Face hub", self.known.name);
        let shown = Shown::begin(progress, &what, Some(self.known.size));
        shown.advance(self.arrived());
        self.receive(response, &mut file, &shown).await
    }

    /// Asks for the rest; when the server begins at the beginning, so does the file.
    async fn request(&self, file: &File) -> Result<Response, Failure> {
        let start = self.arrived();
        let mut request = self.client.get(&self.url);
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        let response = request.send().await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, start) => {}
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

    async fn receive(&self, mut body: Response, file: &mut File, shown: &Shown<'_>) -> Result<(), Failure> {
        let mut arrived = self.arrived();
        while let Some(chunk) = body.chunk().await.map_err(Failure::Cut)? {
            arrived += chunk.len() as u64;
            if arrived > self.known.size {
                file.set_len(0)?;
                return Err(Failure::TooLong { size: self.known.size });
            }
            // A page-cache write of some kilobytes: shorter than handing it to another thread.
            file.write_all(&chunk)?;
            shown.advance(chunk.len() as u64);
        }
        if arrived < self.known.size {
            return Err(Failure::Short { arrived, size: self.known.size });
        }
        file.sync_all().map_err(io::Error::into)
    }
}

/// True when a partial answer begins where the file ends: a cache in between may have other ideas.
fn starts_at(response: &Response, start: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {start}-")))
}

/// A hub that cannot be reached in this time is not there; pip is next.
const CONNECT: Duration = Duration::from_secs(5);

/// Silence on the line after which it counts as cut.
const STALL: Duration = Duration::from_secs(30);

/// Requests for one file. Each but the last must have brought something.
const TRIES: u32 = 8;
