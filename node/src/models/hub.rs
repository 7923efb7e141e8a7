//! Files of the Hugging Face hub that have no pin: `owner/repository/file.gguf`, or with `@revision` after the
//! repository.
//!
//! Nobody has said what their bytes must be, so the first ones that come are taken, and their digest is remembered
//! beside the file, as `b3sum` would print it. From then on every use is checked against it, also after the file was
//! deleted by hand and fetched again: `llamesh models rm` forgets.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crypto::Digest;

use super::place::Place;

/// The hub that everybody uses.
pub(super) const HUB: &str = "https://huggingface.co";

/// A file on the hub, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubFile {
    owner: String,
    repository: String,
    revision: Option<String>,
    /// Path within the repository.
    file: String,
}

/// What does not name a file on the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoHubFile;

impl FromStr for HubFile {
    type Err = NoHubFile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (owner, rest) = text.split_once('/').ok_or(NoHubFile)?;
        let (repository, file) = rest.split_once('/').ok_or(NoHubFile)?;
        let (repository, revision) = match repository.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (repository, None),
        };
        let segments = [owner, repository].into_iter().chain(revision).chain(file.split('/'));
        let bounded = text.len() <= MAX_LEN && segments.clone().count() <= MAX_SEGMENTS;
        let fits = bounded && file.ends_with(".gguf") && segments.clone().all(is_segment);
        fits.then(|| Self {
            owner: owner.to_owned(),
            repository: repository.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.to_owned(),
        })
        .ok_or(NoHubFile)
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, repository, revision, file } = self;
        match revision {
            Some(revision) => write!(f, "{owner}/{repository}@{revision}/{file}"),
            None => write!(f, "{owner}/{repository}/{file}"),
        }
    }
}

impl HubFile {
    /// Its address at the hub that answers under `base`.
    pub(super) fn url(&self, base: &str) -> String {
        let Self { owner, repository, revision, file } = self;
        let revision = revision.as_deref().unwrap_or("main");
        format!("{}/{owner}/{repository}/resolve/{revision}/{file}", base.trim_end_matches('/'))
    }

    /// Its place in the cache, with the digest that is remembered of it.
    pub(super) fn place(&self, folder: &Path) -> Place {
        let file = folder.join(FOLDER).join(self.to_string());
        let digest = remembered(&file);
        Place { file, size: None, digest }
    }
}

/// The digest that is remembered of a file.
pub(super) fn remembered(file: &Path) -> Option<Digest> {
    let note = fs::read_to_string(note_of(file)).ok()?;
    note.split_whitespace().next()?.parse().ok()
}

/// Remembers a digest, in a line that `b3sum --check` reads.
pub(super) fn remember(file: &Path, digest: Digest) -> io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    fs::write(note_of(file), format!("{digest}  {name}\n"))
}

fn note_of(file: &Path) -> PathBuf {
    Place::companion(file, "b3")
}

/// Letters, digits and a few signs, and no dot in front: nothing that leads out of a folder, or means something in an
/// address.
fn is_segment(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(plain)
}

/// The folder of the cache that mirrors the hub.
pub(super) const FOLDER: &str = "hub";

/// The longest name: it becomes a path, which most systems bound at 4096 bytes.
const MAX_LEN: usize = 512;

/// The deepest name. Those of the hub have three or four parts.
pub(super) const MAX_SEGMENTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_an_address_and_back() {
        for (text, url) in [
            ("some/where/tiny.gguf", "http://h/some/where/resolve/main/tiny.gguf"),
            ("some/where@v1.0/deep/tiny-Q4_1.gguf", "http://h/some/where/resolve/v1.0/deep/tiny-Q4_1.gguf"),
        ] {
            let file: HubFile = text.parse().unwrap();
            assert_eq!((file.to_string().as_str(), file.url("http://h/").as_str()), (text, url));
        }
    }

    #[test]
    fn what_leads_elsewhere_is_no_name() {
        for text in [
            "smollm2",
            "where/tiny.gguf",
            "some/where/tiny.bin",
            "../where/tiny.gguf",
            "some/../../tiny.gguf",
            "some/where/../tiny.gguf",
            "/some/where/tiny.gguf",
            "some//where/tiny.gguf",
            "some/where@/tiny.gguf",
            "some/where@a@b/tiny.gguf",
            "some/where/a?b.gguf",
            "some/where/a%2f.gguf",
            "./some/where.gguf",
        ] {
            assert_eq!(text.parse::<HubFile>(), Err(NoHubFile), "{text}");
        }
        let long = format!("some/where/{}.gguf", "x".repeat(MAX_LEN));
        assert_eq!(long.parse::<HubFile>(), Err(NoHubFile));
        let deep = format!("some/where/{}tiny.gguf", "a/".repeat(MAX_SEGMENTS));
        assert_eq!(deep.parse::<HubFile>(), Err(NoHubFile));
    }
}
