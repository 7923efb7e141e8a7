//! The road from a name to a file, with a hub on loopback that answers as each test tells it to, and in one test a
//! real pip that is told to look into a folder.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use reqwest::StatusCode;

use super::known::{HubFolder, Wheel};
use super::place::MAGIC;
use super::*;

mod hub;
mod inventory;
mod several;

/// What the hub does with one request.
#[derive(Clone, Debug)]
enum Reply {
    /// The file has changed: gives the new one, whatever was asked for, and a new tag.
    Changed,
    /// Promises everything that was asked for, and hangs up after this many bytes.
    Cut(usize),
    /// Gives the file, or the range that was asked for.
    File,
    /// Gives other bytes of the same length.
    Other,
    /// Gives nothing.
    Status(&'static str),
    /// Gives something that is no model.
    Page,
    /// Gives the whole file, whatever range was asked for, and no tag.
    Whole,
}

/// A hub on loopback. It plays its replies in order, then refuses, and remembers where each request wanted to start.
#[derive(Debug)]
struct Hub {
    base: String,
    seen: Arc<Mutex<Vec<Asked>>>,
}

/// What a request wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    path: String,
    start: usize,
    condition: Option<String>,
}

impl Hub {
    async fn with(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&seen);
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let reply = replies.pop_front().unwrap_or(Reply::Status("503 Service Unavailable"));
                answer(stream, reply, &asked).await;
            }
        });
        Self { base, seen }
    }

    fn starts(&self) -> Vec<usize> {
        self.asked().iter().map(|asked| asked.start).collect()
    }

    fn asked(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(mut stream: TcpStream, reply: Reply, seen: &Mutex<Vec<Asked>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    let header = |name: &str| request.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let start = header("range: bytes=").map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let path = request.split(' ').nth(1).unwrap().to_owned();
    seen.lock().unwrap().push(Asked { path, start, condition: header("if-range: ") });
    let file = content();
    let tag = match reply {
        Reply::Changed => "etag: \"second\"\r\n",
        Reply::Whole => "",
        _ => "etag: \"first\"\r\n",
    };
    let (status, body) = match reply {
        Reply::Status(status) => (status.to_owned(), Vec::new()),
        Reply::Other => ("200 OK".to_owned(), vec![b'x'; file.len()]),
        Reply::Page => ("200 OK".to_owned(), b"<html>".to_vec()),
        Reply::Changed => ("200 OK".to_owned(), changed()),
        Reply::Cut(_) | Reply::File if start > 0 => (partial(start, file.len()), file[start..].to_vec()),
        Reply::Cut(_) | Reply::File | Reply::Whole => ("200 OK".to_owned(), file),
    };
    let sent = if let Reply::Cut(count) = reply { &body[..count] } else { &body[..] };
    let head =
        format!("HTTP/1.1 {status}\r\n{tag}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // The client may have seen enough.
    let _ = stream.write_all(sent).await;
}

fn partial(start: usize, len: usize) -> String {
    format!("206 Partial Content\r\ncontent-range: bytes {start}-{}/{len}", len - 1)
}

/// Counts what it is shown, and that everything begun is ended.
#[derive(Debug, Default)]
struct Counted(Mutex<(u64, i32)>);

impl Progress for Counted {
    fn begin(&self, _what: &str, _total: Option<u64>) {
        let mut counted = self.0.lock().unwrap();
        *counted = (0, counted.1 + 1);
    }

    fn advance(&self, bytes: u64) {
        self.0.lock().unwrap().0 += bytes;
    }

    fn done(&self) {
        self.0.lock().unwrap().1 -= 1;
    }
}

/// Some hundred kilobytes that begin as a model does.
fn content() -> Vec<u8> {
    let noise = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    MAGIC.iter().copied().chain(noise).collect()
}

/// What the hub has after somebody has changed it.
fn changed() -> Vec<u8> {
    content().into_iter().chain(*b"more").collect()
}

fn piece(name: &'static str, content: &[u8]) -> Piece {
    Piece { name, size: content.len() as u64, digest: Digest::of_content(content) }
}

fn tiny() -> Known {
    Known {
        name: "tiny",
        content: Content::Gguf(piece("tiny-Q4.gguf", &content())),
        hub: Some(HubFolder { repository: "some/where", revision: "abc" }),
        wheel: Wheel { package: "llamesh-tiny", version: "0.1.0", folder: "llamesh_tiny" },
    }
}

/// A cache in a new folder, the given hub, and no Python.
fn models(hub: &Hub) -> (TempDir, Models) {
    let cache = TempDir::new().unwrap();
    let mut models = Models::new(cache.path()).with_known(vec![tiny()]).with_hub(&hub.base);
    models.pip.python = "no-such-python";
    (cache, models)
}

fn attempts(error: ObtainError) -> Vec<(Source, Failure)> {
    let ObtainError::Exhausted { attempts, .. } = error else { panic!("{error:?}") };
    attempts.into_iter().map(|attempt| (attempt.source, attempt.failure)).collect()
}

#[tokio::test]
async fn a_download_is_kept_and_asked_for_once() {
    let hub = Hub::with([Reply::File]).await;
    let (cache, models) = models(&hub);
    let counted = Counted::default();
    let file = models.obtain("tiny", &counted).await.unwrap();
    let expected = ModelFile {
        path: cache.path().join("models/tiny.gguf"),
        form: Form::Gguf,
        digest: tiny().digest(),
        name: "tiny".to_owned(),
    };
    assert_eq!(file, expected);
    assert_eq!(fs::read(&file.path).unwrap(), content());
    assert_eq!(*counted.0.lock().unwrap(), (tiny().size(), 0));

    assert_eq!(models.obtain("tiny", &counted).await.unwrap(), file);
    let once = Asked { path: "/some/where/resolve/abc/tiny-Q4.gguf".to_owned(), start: 0, condition: None };
    assert_eq!(hub.asked(), [once], "a cache hit asks nobody");
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_stopped() {
    let hub = Hub::with([Reply::Cut(100_000), Reply::Cut(50_000), Reply::File]).await;
    let (_cache, models) = models(&hub);
    let counted = Counted::default();
    let file = models.obtain("tiny", &counted).await.unwrap();
    assert_eq!(fs::read(file.path).unwrap(), content());
    assert_eq!(hub.starts(), [0, 100_000, 150_000]);
    assert_eq!(*counted.0.lock().unwrap(), (tiny().size(), 0));
}

#[tokio::test]
async fn another_process_resumes_what_one_left() {
    // The second reply brings nothing, so the first run gives up with a third of the file.
    let hub = Hub::with([Reply::Cut(100_000), Reply::Cut(0), Reply::File]).await;
    let (_cache, models) = models(&hub);
    let failed = attempts(models.obtain("tiny", &Silent).await.unwrap_err());
    assert!(matches!(failed[1], (Source::Hub, Failure::Cut(_) | Failure::Short { .. })), "{failed:?}");
    let file = models.clone().obtain("tiny", &Silent).await.unwrap();
    assert_eq!(fs::read(file.path).unwrap(), content());
    assert_eq!(hub.starts(), [0, 100_000, 100_000]);
}

#[tokio::test]
async fn a_server_without_ranges_begins_the_file_again() {
    let hub = Hub::with([Reply::Cut(100_000), Reply::Whole]).await;
    let (_cache, models) = models(&hub);
    let file = models.obtain("tiny", &Silent).await.unwrap();
    assert_eq!(fs::read(file.path).unwrap(), content());
}

#[tokio::test]
async fn wrong_bytes_are_set_aside_and_the_next_source_is_asked() {
    let hub = Hub::with([Reply::Other]).await;
    let (cache, models) = models(&hub);
    let failed = attempts(models.obtain("tiny", &Silent).await.unwrap_err());
    let sources: Vec<Source> = failed.iter().map(|(source, _)| *source).collect();
    assert_eq!(sources, [Source::Cache, Source::Hub, Source::Wheel]);
    let (_, Failure::Wrong { aside }) = &failed[1] else { panic!("{failed:?}") };
    assert_eq!(fs::read(aside).unwrap().len() as u64, tiny().size());
    assert!(!cache.path().join("models/tiny.gguf").exists());
}

#[tokio::test]
async fn a_spoiled_cache_is_noticed_and_replaced() {
    let hub = Hub::with([Reply::File]).await;
    let (cache, models) = models(&hub);
    let path = cache.path().join("models/tiny.gguf");
    let mut spoiled = content();
    spoiled[1000] ^= 1;
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, &spoiled).unwrap();
    let file = models.obtain("tiny", &Silent).await.unwrap();
    assert_eq!(fs::read(&file.path).unwrap(), content());
    assert_eq!(fs::read(path.with_extension("gguf.wrong")).unwrap(), spoiled);
}

#[tokio::test]
async fn two_at_once_fetch_once() {
    let hub = Hub::with([Reply::File]).await;
    let (_cache, models) = models(&hub);
    let (one, two) = tokio::join!(models.obtain("tiny", &Silent), models.obtain("tiny", &Silent));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(hub.starts(), [0]);
}

#[tokio::test]
async fn offline_asks_nobody_and_says_what_would_help() {
    let hub = Hub::with([Reply::File]).await;
    let (_cache, models) = models(&hub);
    let error = models.offline().obtain("tiny", &Silent).await.unwrap_err();
    let text = error.to_string();
    for part in ["`tiny`", "cache", "hub", "wheel", "LLAMESH_OFFLINE", "LLAMESH_CACHE", "GGUF file"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    assert!(matches!(
        attempts(error)[..],
        [(_, Failure::Absent), (_, Failure::Offline), (_, Failure::Offline)]
    ));
    assert!(hub.starts().is_empty());
}

#[tokio::test]
async fn each_source_says_why_it_gave_nothing() {
    let hub = Hub::with([Reply::Status("404 Not Found")]).await;
    let (_cache, models) = models(&hub);
    let failed = attempts(models.obtain("tiny", &Silent).await.unwrap_err());
    assert!(matches!(failed[1].1, Failure::Status(StatusCode::NOT_FOUND)), "{failed:?}");
    assert!(matches!(failed[2].1, Failure::NoProgram { .. }), "{failed:?}");
}

#[tokio::test]
async fn a_path_names_any_gguf_and_nothing_else() {
    let hub = Hub::with([]).await;
    let (cache, models) = models(&hub);
    let path = cache.path().join("my model.v2.gguf");
    fs::write(&path, content()).unwrap();
    let file = models.obtain(path.to_str().unwrap(), &Silent).await.unwrap();
    assert_eq!((file.digest, file.name.as_str()), (tiny().digest(), "my model.v2"));

    fs::write(&path, "# Not a model").unwrap();
    let error = models.obtain(path.to_str().unwrap(), &Silent).await.unwrap_err();
    assert!(matches!(error, ObtainError::NotGguf { .. }), "{error:?}");
    let error = models.obtain("tinny", &Silent).await.unwrap_err();
    assert!(matches!(&error, ObtainError::Unknown { known, .. } if known == &["tiny"]), "{error:?}");
}

#[tokio::test]
async fn digests_lead_to_files_and_names_to_digests() {
    let hub = Hub::with([Reply::File]).await;
    let (cache, models) = models(&hub);
    let digest = tiny().digest();
    assert_eq!(models.by_digest(&digest), None);
    let file = models.obtain("tiny", &Silent).await.unwrap();
    assert_eq!(models.by_digest(&digest), Some(file.path));

    let other = cache.path().join("models/other.gguf");
    fs::write(&other, b"GGUF of somebody").unwrap();
    let theirs = Digest::of_content(b"GGUF of somebody");
    assert_eq!(models.by_digest(&theirs), Some(other));
    assert_eq!(models.resolve_digest("tiny"), Some(digest));
    assert_eq!(models.resolve_digest(&theirs.to_string()), Some(theirs));
    assert_eq!(models.resolve_digest("other"), None);
}

#[tokio::test]
async fn pip_gives_the_model_where_the_hub_does_not() {
    let Some(pip) = Wheels::new() else { return };
    let hub = Hub::with([Reply::Cut(1000), Reply::Cut(0)]).await;
    let (cache, mut models) = models(&hub);
    write_wheel(pip.0.path(), "tiny-Q4.gguf", &content());
    models.pip = pip.pip();
    let file = models.obtain("tiny", &Silent).await.unwrap();
    assert_eq!(fs::read(file.path).unwrap(), content());
    let left: Vec<_> =
        fs::read_dir(cache.path().join("models")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the model and its lock, nothing else: {left:?}");
}

/// A folder in which pip looks for wheels.
struct Wheels(TempDir);

impl Wheels {
    /// `None`, and a word about it, where there is no pip.
    fn new() -> Option<Self> {
        let found = Command::new("python3").args(["-m", "pip", "--version"]).output();
        if found.is_ok_and(|output| output.status.success()) {
            return Some(Self(TempDir::new().unwrap()));
        }
        println!("SKIPPED: there is no python3 with pip on this machine");
        None
    }

    fn pip(&self) -> Pip {
        let options = ["--no-index", "--find-links", self.0.path().to_str().unwrap()];
        Pip { options: options.map(str::to_owned).to_vec(), ..Pip::default() }
    }
}

/// The smallest wheel that pip takes, with a model inside.
fn write_wheel(folder: &Path, member: &str, content: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    let source = folder.join("content");
    fs::write(&source, content).unwrap();
    let wheel = folder.join("llamesh_tiny-0.1.0-py3-none-any.whl");
    let status =
        Command::new("python3").args(["-c", WRITE_WHEEL]).arg(wheel).arg(source).arg(member).status();
    assert!(status.unwrap().success());
}

/// Adds to what is there, so that a wheel of several members is written in several calls.
const WRITE_WHEEL: &str = r#"
import os, sys, zipfile
begun = os.path.exists(sys.argv[1])
with zipfile.ZipFile(sys.argv[1], "a", zipfile.ZIP_DEFLATED) as wheel:
    wheel.write(sys.argv[2], "llamesh_tiny/" + sys.argv[3])
    info = "llamesh_tiny-0.1.0.dist-info/"
    if not begun:
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: llamesh-tiny\nVersion: 0.1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
"#;
