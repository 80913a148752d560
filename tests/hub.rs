//! Models from the Hub, against a server on loopback that each test starts: what is fetched, from where, with
//! which headers, and what is left in the cache. Never the real Hub, and no environment variable.
use bitsweep::model::hub::*;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const COMMIT: &str = "1111111111111111111111111111111111111111";
const LATER: &str = "2222222222222222222222222222222222222222";

/// What a client asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn start(&self) -> usize {
        let range = self.header("range").unwrap_or("bytes=0-");
        range.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap()
    }

    /// The first request for a file wants its first byte only.
    fn is_probe(&self) -> bool {
        self.header("range") == Some("bytes=0-0")
    }
}

/// What a server says.
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection is cut.
    cut: Option<usize>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Answer { status, headers: vec![], body: vec![], cut: None }
    }

    /// The repository has no such file.
    pub fn missing() -> Self {
        Self::new(404).with("X-Error-Code", "EntryNotFound").with("X-Repo-Commit", COMMIT)
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// A file as the Hub serves it: hash as ETag, `Range` honoured.
    pub fn file(request: &Request, content: &[u8], etag: &str) -> Self {
        Self::bytes(request, content).with("ETag", format!("\"{etag}\"")).with("X-Repo-Commit", COMMIT)
    }

    fn bytes(request: &Request, content: &[u8]) -> Self {
        let (start, size) = (request.start(), content.len());
        if start >= size {
            return Answer::new(416).with("Content-Range", format!("bytes */{size}"));
        }
        if request.header("range").is_none() {
            return Answer { body: content.to_vec(), ..Answer::new(200) };
        }
        let end = if request.is_probe() { 1 } else { size };
        let answer = Answer { body: content[start..end].to_vec(), ..Answer::new(206) };
        answer.with("Content-Range", format!("bytes {start}-{}/{size}", end - 1))
    }
}

/// A server that lives as long as its value, and remembers what it was asked.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, stop) = (Arc::new(Mutex::new(vec![])), Arc::new(AtomicBool::new(false)));
        let (log, end) = (asked.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                // A client may hang up in the middle: that is its right.
                let _ = serve(stream, &answer, &log);
            }
        });
        Server { url, asked, stop, thread: Some(thread) }
    }

    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.asked().iter().map(|r| r.header("range").map(str::to_owned)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    stream: TcpStream,
    answer: &dyn Fn(&Request) -> Answer,
    log: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = vec![];
    for line in lines {
        let line = line?;
        match line.split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let request = Request { path, headers };
    let answer = answer(&request);
    log.lock().unwrap().push(request);
    let mut out = stream;
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    write!(out, "{head}Content-Length: {}\r\n\r\n", answer.body.len())?;
    out.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())])?;
    out.shutdown(std::net::Shutdown::Write)?;
    // Wait for the client to hang up, or what is still on its way is lost to it.
    out.read_to_end(&mut vec![])?;
    Ok(())
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(content: &[u8]) -> String {
    hex(Sha256::digest(content))
}

pub fn git_sha1(content: &[u8]) -> String {
    hex(Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize())
}

/// Bytes that differ wherever one may look.
fn weights(size: usize) -> Vec<u8> {
    (0..size as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn settings(cache: &TempDir, url: &str) -> Settings {
    Settings { pause: Duration::from_millis(5), ..Settings::new(cache.path(), url) }
}

fn hub(cache: &TempDir, url: &str) -> Hub {
    Hub::new(settings(cache, url)).unwrap()
}

fn tiny() -> RepoId {
    RepoId::parse("org/tiny").unwrap()
}

fn folder(cache: &TempDir) -> PathBuf {
    cache.path().join("models--org--tiny")
}

fn error<T>(result: anyhow::Result<T>) -> String {
    match result {
        Ok(_) => panic!("this should have failed"),
        Err(error) => format!("{error:#}"),
    }
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

/// Files and links below a folder that hold something; locks are empty.
fn remains(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(remains(&path)),
            false if path.extension().is_some_and(|ending| ending == "lock") => (),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn ids() {
    let id = RepoId::parse("openai-community/gpt2").unwrap();
    assert_eq!((id.name.as_str(), id.revision.as_str()), ("openai-community/gpt2", "main"));
    let id = RepoId::parse("org/na.me_1@refs/pr/3").unwrap();
    assert_eq!((id.name.as_str(), id.revision.as_str()), ("org/na.me_1", "refs/pr/3"));
    assert_eq!(id.to_string(), "org/na.me_1@refs/pr/3");
    for (text, why) in [
        ("gpt2", "openai-community/gpt2"),
        ("", "no organisation"),
        ("/name", "organisation is empty"),
        ("org/", "name is empty"),
        ("org/name/more", "'/'"),
        ("org/..", "`.`"),
        ("../name", "`.`"),
        ("org/a..b", "`..`"),
        ("org/na me", "' '"),
        ("org/näme", "'ä'"),
        ("org/name@", "revision is empty"),
        ("org/name@../../x", "`..`"),
        ("org/name@/etc", "empty part"),
        ("org/name@a?b", "'?'"),
    ] {
        says(&error(RepoId::parse(text)), &[why, &format!("`{text}`")]);
    }
    // A file's name may come from an index that somebody wrote.
    let cache = TempDir::new().unwrap();
    for file in ["../x", "/etc/passwd", "a/../../x", "", "a//b", "a\\b"] {
        says(&error(hub(&cache, "http://127.0.0.1:1").file(&tiny(), file)), &["no file of a repository"]);
    }
    let odd = RepoId { name: "../../x".into(), revision: "main".into() };
    says(&error(hub(&cache, "http://127.0.0.1:1").file(&odd, "a")), &["not a model"]);
    for endpoint in ["", "huggingface.co", "ftp://x", "https://", "https://a b"] {
        says(&error(Hub::new(settings(&cache, endpoint))), &["HF_ENDPOINT"]);
    }
}

#[test]
fn a_file_is_fetched_once() {
    let cache = TempDir::new().unwrap();
    let config = b"{\"model_type\": \"llama\"}".to_vec();
    let (content, etag) = (config.clone(), git_sha1(&config));
    let server = Server::start(move |request| Answer::file(request, &content, &etag));
    let seen = Arc::new(Mutex::new(vec![]));
    let tell = seen.clone();
    let online =
        hub(&cache, &format!("{}/", server.url)).on_progress(Some(Box::new(move |file, done, total| {
            tell.lock().unwrap().push((file.to_owned(), done, total));
        })));
    assert_eq!(online.commit(&tiny()), None);
    assert_eq!(online.cached(&tiny(), "sub/config.json"), None);
    let path = online.required(&tiny(), "sub/config.json").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), config);
    assert_eq!(path, folder(&cache).join("snapshots").join(COMMIT).join("sub/config.json"));
    assert!(folder(&cache).join("blobs").join(git_sha1(&config)).is_file());
    assert_eq!(std::fs::read_to_string(folder(&cache).join("refs/main")).unwrap(), COMMIT);
    assert_eq!(online.commit(&tiny()).as_deref(), Some(COMMIT));
    let size = config.len() as u64;
    assert_eq!(seen.lock().unwrap().last(), Some(&("sub/config.json".to_owned(), size, size)));
    assert!(
        server.asked().iter().all(|r| r.path == "/org/tiny/resolve/main/sub/config.json"),
        "{:?}",
        server.asked()
    );
    assert!(server.asked().iter().all(|r| r.header("authorization").is_none()));
    #[cfg(unix)]
    assert!(std::fs::read_link(&path).unwrap().is_relative());

    // Everything is cached: no server is needed, and none is asked.
    drop(server);
    assert_eq!(online.required(&tiny(), "sub/config.json").unwrap(), path);
}

#[test]
fn offline_means_offline() {
    let cache = TempDir::new().unwrap();
    let server = Server::start(|request| Answer::file(request, b"x", &git_sha1(b"x")));
    let offline = Hub::new(Settings { offline: true, ..settings(&cache, &server.url) }).unwrap();
    let place = folder(&cache).display().to_string();
    says(
        &error(offline.file(&tiny(), "config.json")),
        &["config.json", "org/tiny@main", "unset HF_HUB_OFFLINE", &place],
    );
    assert!(server.asked().is_empty());
    hub(&cache, &server.url).required(&tiny(), "config.json").unwrap();
    let before = server.asked().len();
    assert!(offline.required(&tiny(), "config.json").is_ok());
    assert_eq!(server.asked().len(), before);
}

#[test]
fn a_pinned_commit_is_found_whatever_it_was_called() {
    let cache = TempDir::new().unwrap();
    let server = Server::start(|request| Answer::file(request, b"x", &git_sha1(b"x")));
    let path = hub(&cache, &server.url).required(&tiny(), "config.json").unwrap();
    drop(server);
    let offline = Hub::new(Settings { offline: true, ..settings(&cache, "http://127.0.0.1:1") }).unwrap();
    let pinned = RepoId::parse(&format!("org/tiny@{COMMIT}")).unwrap();
    assert_eq!(offline.required(&pinned, "config.json").unwrap(), path);
    assert_eq!(offline.commit(&pinned).as_deref(), Some(COMMIT));
    let other = RepoId::parse(&format!("org/tiny@{LATER}")).unwrap();
    assert_eq!(offline.commit(&other), None);
    says(&error(offline.file(&other, "config.json")), &[LATER, "HF_HUB_OFFLINE"]);
}

#[test]
fn files_of_one_model_are_of_one_commit() {
    let cache = TempDir::new().unwrap();
    let moved = Arc::new(AtomicBool::new(false));
    let now = moved.clone();
    let server = Server::start(move |request| {
        let later = now.load(Ordering::SeqCst) && request.path.contains("/resolve/main/");
        let content: &[u8] = if later { b"later" } else { b"first" };
        let answer = Answer::bytes(request, content).with("ETag", git_sha1(content));
        answer.with("X-Repo-Commit", if later { LATER } else { COMMIT })
    });
    let hub = hub(&cache, &server.url);
    hub.required(&tiny(), "config.json").unwrap();
    moved.store(true, Ordering::SeqCst);
    let path = hub.required(&tiny(), "model.safetensors").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    assert_eq!(hub.commit(&tiny()).as_deref(), Some(COMMIT));
    assert!(hub.cached(&tiny(), "config.json").is_some());
}

#[test]
fn a_renamed_repository() {
    let cache = TempDir::new().unwrap();
    let server = Server::start(|request| match request.path.strip_prefix("/org/tiny/") {
        Some(rest) => Answer::new(307).with("Location", format!("/new/name/{rest}")),
        None => Answer::file(request, b"moved", &git_sha1(b"moved")),
    });
    let hub =
        Hub::new(Settings { token: Some("hf_secret".into()), ..settings(&cache, &server.url) }).unwrap();
    assert_eq!(std::fs::read(hub.required(&tiny(), "config.json").unwrap()).unwrap(), b"moved");
    // The same host: the token goes along.
    assert!(server.asked().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
    assert!(server.asked().iter().any(|r| r.path == "/new/name/resolve/main/config.json"));
}

#[test]
fn elsewhere_without_the_token() {
    let content = weights(300_000);
    // The Hub's own ETag counts, under either name; the one of the place that it leads to does not.
    for name in ["X-Linked-ETag", "ETag"] {
        let cache = TempDir::new().unwrap();
        let (etag, tag, other, size) = (sha256(&content), sha256(&content), content.clone(), content.len());
        let cdn = Server::start(move |request| Answer::bytes(request, &other).with("ETag", "\"of-the-cdn\""));
        let there = cdn.url.clone();
        let server = Server::start(move |_| {
            let answer = Answer::new(302).with("Location", format!("{there}/blob?X-Signature=s"));
            let answer = answer.with("X-Repo-Commit", COMMIT).with(name, format!("\"{tag}\""));
            answer.with("X-Linked-Size", size)
        });
        let hub =
            Hub::new(Settings { token: Some("hf_secret".into()), ..settings(&cache, &server.url) }).unwrap();
        let path = hub.required(&tiny(), "model.safetensors").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), content);
        assert!(folder(&cache).join("blobs").join(etag).is_file());
        assert!(server.asked().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
        assert!(!cdn.asked().is_empty());
        for request in cdn.asked() {
            assert_eq!(request.header("authorization"), None);
            assert!(!format!("{request:?}").contains("hf_secret"));
        }
    }
}

#[test]
fn odd_redirects() {
    for (place, why) in [
        (None, "no place"),
        (Some("http://"), "no place"),
        (Some("file:///etc/passwd"), "no place"),
        (Some("http://[oops"), "[oops"),
        (Some("/org/tiny/again"), "more than 10 redirects"),
    ] {
        let cache = TempDir::new().unwrap();
        let server = Server::start(move |_| match place {
            Some(place) => {
                Answer::new(302).with("Location", place).with("ETag", "x").with("X-Repo-Commit", COMMIT)
            }
            None => Answer::new(302).with("ETag", "x").with("X-Repo-Commit", COMMIT),
        });
        says(&error(hub(&cache, &server.url).file(&tiny(), "config.json")), &["config.json", why]);
    }
    for (name, value, why) in [("ETag", "\"../../../x\"", "ETag"), ("X-Repo-Commit", "../../x", "commit")] {
        let cache = TempDir::new().unwrap();
        let server = Server::start(move |request| {
            let answer = Answer::bytes(request, b"x").with(name, value);
            if name == "ETag" { answer.with("X-Repo-Commit", COMMIT) } else { answer.with("ETag", "x") }
        });
        says(&error(hub(&cache, &server.url).file(&tiny(), "config.json")), &[why, "cannot name"]);
        assert!(remains(cache.path()).is_empty());
    }
}

#[test]
fn a_broken_download_is_continued() {
    let cache = TempDir::new().unwrap();
    let content = weights(400_000);
    let (other, etag) = (content.clone(), sha256(&content));
    let broken = AtomicBool::new(false);
    let server = Server::start(move |request| {
        let mut answer = Answer::file(request, &other, &etag);
        if !request.is_probe() && !broken.swap(true, Ordering::SeqCst) {
            answer.cut = Some(150_000);
        }
        answer
    });
    let path = hub(&cache, &server.url).required(&tiny(), "model.safetensors").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
    let ranges = server.ranges();
    assert_eq!((ranges.len(), ranges[1].clone()), (3, None), "{ranges:?}");
    let start: usize = ranges[2].as_deref().unwrap()["bytes=".len()..].trim_end_matches('-').parse().unwrap();
    assert!((1..=150_000).contains(&start), "{ranges:?}");
}

#[test]
fn partial_files_of_any_length() {
    let content = weights(1000);
    let etag = sha256(&content);
    let longer = [content.as_slice(), b"more"].concat();
    let wrong = vec![7; 400];
    // What lies there, and which ranges are then asked.
    type Case<'a> = (&'a str, &'a [u8], &'a [Option<&'a str>]);
    let cases: [Case; 5] = [
        ("half of it", &content[..400], &[Some("bytes=400-")]),
        ("all of it", &content, &[]),
        ("more than it", &longer, &[None]),
        ("something else", &wrong, &[Some("bytes=400-"), None]),
        ("nothing", b"", &[None]),
    ];
    for (what, part, expected) in cases {
        let cache = TempDir::new().unwrap();
        let blobs = folder(&cache).join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(format!("{etag}.part")), part).unwrap();
        let (other, tag) = (content.clone(), etag.clone());
        let server = Server::start(move |request| Answer::file(request, &other, &tag));
        let path = hub(&cache, &server.url).required(&tiny(), "model.safetensors").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), content, "{what}");
        let ranges = server.ranges();
        let ranges: Vec<_> = ranges[1..].iter().map(|r| r.as_deref()).collect();
        assert_eq!(ranges, expected, "{what}");
        assert!(!blobs.join(format!("{etag}.part")).exists(), "{what}");
    }
    // A server that ignores `Range` sends the whole file: it replaces the partial one.
    let cache = TempDir::new().unwrap();
    let blobs = folder(&cache).join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{etag}.part")), &content[..400]).unwrap();
    let other = content.clone();
    let server = Server::start(move |_| {
        let answer = Answer { body: other.clone(), ..Answer::new(200) };
        answer.with("ETag", sha256(&other)).with("X-Repo-Commit", COMMIT)
    });
    let path = hub(&cache, &server.url).required(&tiny(), "model.safetensors").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn an_empty_file() {
    let cache = TempDir::new().unwrap();
    let server = Server::start(|request| match request.header("range") {
        Some(_) => Answer::new(416).with("Content-Range", "bytes */0"),
        None => Answer::new(200).with("ETag", git_sha1(b"")).with("X-Repo-Commit", COMMIT),
    });
    let path = hub(&cache, &server.url).required(&tiny(), "empty").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"");
}

#[test]
fn a_line_that_always_breaks() {
    let cache = TempDir::new().unwrap();
    let content = weights(1000);
    let server = Server::start(move |request| {
        let mut answer = Answer::file(request, &content, &sha256(&content));
        answer.cut = (!request.is_probe()).then_some(0);
        answer
    });
    let hub = Hub::new(Settings { retries: 2, ..settings(&cache, &server.url) }).unwrap();
    says(
        &error(hub.file(&tiny(), "model.safetensors")),
        &["model.safetensors", "gave up after 3 tries", &server.url],
    );
    assert_eq!(server.asked().len(), 4);
    assert!(hub.cached(&tiny(), "model.safetensors").is_none());

    // Nobody there: said at once.
    let url = server.url.clone();
    drop(server);
    says(&error(hub.file(&tiny(), "model.safetensors")), &["model.safetensors", "cannot reach", &url]);
}

#[test]
fn a_busy_server() {
    let cache = TempDir::new().unwrap();
    let busy = AtomicBool::new(true);
    let server = Server::start(move |request| match busy.swap(false, Ordering::SeqCst) {
        true => Answer::new(503),
        false => Answer::file(request, b"x", &git_sha1(b"x")),
    });
    assert!(hub(&cache, &server.url).required(&tiny(), "config.json").is_ok());
    let server = Server::start(|_| Answer::new(500));
    let hub = hub(&cache, &server.url);
    says(&error(hub.file(&tiny(), "other.json")), &["other.json", "answered 500", &server.url]);
    assert_eq!(server.asked().len(), 6);
}

#[test]
fn refused() {
    let cases: [(u16, &str, &[&str]); 5] = [
        (401, "", &["HF_TOKEN", "gated or private", "licence"]),
        (403, "", &["HF_TOKEN", "gated or private"]),
        (403, "GatedRepo", &["HF_TOKEN", "is gated", "licence"]),
        (401, "RepoNotFound", &["HF_TOKEN", "no repository", "private"]),
        (418, "", &["answered 418"]),
    ];
    for (status, code, words) in cases {
        let cache = TempDir::new().unwrap();
        let server = Server::start(move |_| Answer::new(status).with("X-Error-Code", code));
        let text = error(hub(&cache, &server.url).file(&tiny(), "config.json"));
        says(&text, words);
        says(&text, &["config.json", "org/tiny", &server.url, &status.to_string()]);
        assert!(remains(cache.path()).is_empty());
        let hub =
            Hub::new(Settings { token: Some("hf_secret".into()), ..settings(&cache, &server.url) }).unwrap();
        assert!(!error(hub.file(&tiny(), "config.json")).contains("hf_secret"));
    }
}

#[test]
fn no_such_file() {
    let info = format!("{{\"siblings\": [], \"sha\": \"{COMMIT}\"}}");
    let missing = |request: &Request| match request.path.as_str() {
        "/api/models/org/tiny/revision/main" => 200,
        _ => 404,
    };
    let named =
        |_: &Request| Answer::new(404).with("X-Error-Code", "EntryNotFound").with("X-Repo-Commit", COMMIT);
    for says_why in [true, false] {
        let cache = TempDir::new().unwrap();
        let info = info.clone();
        let server = Server::start(move |request| match says_why {
            true => named(request),
            false => Answer { body: info.clone().into_bytes(), ..Answer::new(missing(request)) },
        });
        let online = hub(&cache, &server.url);
        assert_eq!(online.file(&tiny(), "model.safetensors").unwrap(), None);
        says(
            &error(online.required(&tiny(), "model.safetensors")),
            &["has no file `model.safetensors`", "org/tiny"],
        );
        // Remembered, as Python remembers it: neither of us asks again.
        assert!(folder(&cache).join(".no_exist").join(COMMIT).join("model.safetensors").is_file());
        drop(server);
        assert_eq!(online.file(&tiny(), "model.safetensors").unwrap(), None);
        let offline = Hub::new(Settings { offline: true, ..settings(&cache, "http://127.0.0.1:1") }).unwrap();
        assert_eq!(offline.file(&tiny(), "model.safetensors").unwrap(), None);
        says(&error(offline.file(&tiny(), "config.json")), &["HF_HUB_OFFLINE"]);
    }
    // A plain file server has no answer to /api; once it gave a file, its 404 means the file.
    let cache = TempDir::new().unwrap();
    let server = Server::start(|request| match request.path.ends_with("/config.json") {
        true => Answer::file(request, b"x", &git_sha1(b"x")),
        false => Answer::new(404),
    });
    let hub = hub(&cache, &server.url);
    hub.required(&tiny(), "config.json").unwrap();
    assert_eq!(hub.file(&tiny(), "model.safetensors").unwrap(), None);
}

#[test]
fn no_such_repository() {
    for (code, words) in [
        ("RepoNotFound", ["no repository org/tiny", "404"]),
        ("RevisionNotFound", ["no revision `main`", "404"]),
        ("", ["no repository org/tiny", "404"]),
    ] {
        let cache = TempDir::new().unwrap();
        let server = Server::start(move |_| Answer::new(404).with("X-Error-Code", code));
        let text = error(hub(&cache, &server.url).file(&tiny(), "config.json"));
        says(&text, &words);
        says(&text, &[&server.url]);
        assert!(remains(cache.path()).is_empty());
    }
}

#[test]
fn a_damaged_file_is_not_kept() {
    let content = weights(5000);
    let config = b"{\"vocab_size\": 256}".to_vec();
    let shorter = content[..4000].to_vec();
    let mut flipped = content.clone();
    flipped[2500] ^= 1;
    let cases = [
        (flipped, sha256(&content), "expected sha256"),
        (b"{\"vocab_size\": 257}".to_vec(), git_sha1(&config), "expected git sha1"),
        (shorter, sha256(&content), "expected sha256"),
    ];
    for (bad, etag, why) in cases {
        let cache = TempDir::new().unwrap();
        let good = if etag.len() == 64 { content.clone() } else { config.clone() };
        let tag = etag.clone();
        let server = Server::start(move |request| Answer::file(request, &bad, &tag));
        let text = error(hub(&cache, &server.url).file(&tiny(), "model.safetensors"));
        says(&text, &["`model.safetensors`", why, &etag, "found", "run again"]);
        assert_eq!(remains(cache.path()), Vec::<PathBuf>::new());
        assert!(hub(&cache, &server.url).cached(&tiny(), "model.safetensors").is_none());
        drop(server);

        let sent = good.clone();
        let server = Server::start(move |request| Answer::file(request, &sent, &etag));
        let path = hub(&cache, &server.url).required(&tiny(), "model.safetensors").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), good);
    }
}

#[test]
fn a_cache_that_cannot_be_written() {
    let cache = TempDir::new().unwrap();
    std::fs::write(folder(&cache), b"a file stands where the folder should").unwrap();
    let server = Server::start(|request| Answer::file(request, b"x", &git_sha1(b"x")));
    says(
        &error(hub(&cache, &server.url).file(&tiny(), "config.json")),
        &["cannot write", "models--org--tiny"],
    );
}

#[test]
fn two_at_once() {
    let cache = TempDir::new().unwrap();
    let content = weights(200_000);
    let other = content.clone();
    let server = Server::start(move |request| Answer::file(request, &other, &sha256(&other)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let path = hub(&cache, &server.url).required(&tiny(), "model.safetensors").unwrap();
                assert_eq!(std::fs::read(path).unwrap(), content);
            });
        }
    });
    let downloads = server.asked().iter().filter(|r| !r.is_probe()).count();
    assert_eq!(downloads, 1);
}
