//! Files of a model or a dataset on the Hugging Face Hub, in the cache that all of Hugging Face's tools share.
//!
//! The idea: *the cache answers first, and nothing enters it unproved*. A file that a snapshot holds is
//! returned without a word on the network; what the server once said is not there is remembered in
//! `.no_exist`, as Python's `huggingface_hub` does; and a download becomes a blob only after its size and
//! hash agree with what the Hub announced. A blob that is already there is trusted. Once a branch is in the
//! cache it stays at its commit, so that the files of one model are always of one commit; a newer one is had
//! by naming it, or by deleting `refs/<branch>` from the cache.
//!
//! hf-hub 0.5 is the client and the layout: `Repo`, `Cache`, the `Progress` trait, and the requests
//! themselves, which are its own (its agent, TLS, user agent and token). The steps between are ours, because
//! its `download` cannot give what is promised here: it sends the token along to whatever host a redirect
//! names, hides the headers that tell a missing file from a missing repository, panics on odd redirects,
//! appends a whole file to a partial one where the server ignores `Range`, never recovers from a partial file
//! that is complete, takes a short answer for the file, checks no hash, looks up a pinned commit only under
//! `refs/`, and knows no `HF_HUB_OFFLINE`. Its names for partial files and locks are kept, so the two
//! continue each other's downloads and wait for each other.
use anyhow::{Context, Result, anyhow, bail, ensure};
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the Hub is, unless `HF_ENDPOINT` says otherwise.
pub const ENDPOINT: &str = "https://huggingface.co";
/// Redirects followed in one request.
const HOPS: usize = 10;
/// A try that brought this much is not counted as a failure: a large file over a poor line still arrives.
const HEADWAY: u64 = 1 << 20;

/// What a repository holds; each kind has names of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weights and a vocabulary.
    Model,
    /// Items of tasks.
    Dataset,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::Dataset => "dataset",
        }
    }
}

/// A repository on the Hub: of what, whose, which, and at which revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoId {
    /// Models and datasets may have the same name.
    pub kind: Kind,
    /// `org/name`.
    pub name: String,
    /// A branch, a tag, or a commit (40 hexadecimal digits).
    pub revision: String,
}

impl RepoId {
    /// Reads a model's `org/name[@revision]`; the revision is `main` where none is given.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let id = RepoId { kind: Kind::Model, name: name.into(), revision: revision.into() };
        id.check().with_context(|| {
            format!("`{text}` is not a model on the Hub; write org/name or org/name@revision")
        })?;
        Ok(id)
    }

    /// A dataset, at a revision that cannot move.
    pub fn dataset(name: &str, commit: &str) -> Result<Self> {
        let id = RepoId { kind: Kind::Dataset, name: name.into(), revision: commit.into() };
        id.check()?;
        ensure!(
            id.pinned().is_some(),
            "the revision `{commit}` is no commit (40 hexadecimal digits): what a branch or a tag names can change, \
             and the numbers with it; the commits of {name} are listed at {ENDPOINT}/{}/commits/main",
            id.repo().url()
        );
        Ok(id)
    }

    /// The fields are public, and become part of paths and URLs: so this is asked again before each use.
    fn check(&self) -> Result<()> {
        let Some((org, name)) = self.name.split_once('/') else {
            let full = match self.kind {
                Kind::Model => "gpt2 is openai-community/gpt2",
                Kind::Dataset => "squad is rajpurkar/squad",
            };
            bail!("`{}` has no organisation ({full})", self.name);
        };
        for (what, part) in [("organisation", org), ("name", name)] {
            ensure!(!part.is_empty(), "the {what} is empty");
            ensure!(part.len() <= 96, "the {what} has more than 96 characters");
            let odd = part.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c)));
            if let Some(c) = odd {
                bail!("the {what} `{part}` holds {c:?}; letters, digits, `-`, `_` and `.` are allowed");
            }
            let ends = part.starts_with(['-', '.']) || part.ends_with(['-', '.']);
            ensure!(!ends, "the {what} `{part}` begins or ends with `-` or `.`");
            ensure!(!part.contains("..") && !part.contains("--"), "the {what} `{part}` holds `..` or `--`");
        }
        let revision = &self.revision;
        ensure!(!revision.is_empty(), "the revision is empty");
        ensure!(revision.len() <= 200, "the revision has more than 200 characters");
        if let Some(c) = revision.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_./+".contains(*c))) {
            bail!(
                "the revision `{revision}` holds {c:?}, which is no letter, digit, `-`, `_`, `.`, `+` or `/`"
            );
        }
        let fine = revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
            && !revision.contains("..");
        ensure!(fine, "the revision `{revision}` has an empty part, one that begins with `.`, or `..`");
        Ok(())
    }

    fn repo(&self) -> Repo {
        let kind = match self.kind {
            Kind::Model => RepoType::Model,
            Kind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(self.name.clone(), kind, self.revision.clone())
    }

    /// The commit, where the revision is one already.
    fn pinned(&self) -> Option<&str> {
        let hex = self.revision.len() == 40 && self.revision.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then_some(self.revision.as_str())
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)
    }
}

/// Called with the file, the bytes that are here, and the bytes that there are (0 where the server does not
/// say).
pub type OnProgress = Box<dyn Fn(&str, u64, u64) + Send + Sync>;

/// What [`Hub::from_env`] reads from the environment.
#[derive(Clone)]
pub struct Settings {
    /// The cache folder, which holds `models--org--name` and `datasets--org--name`.
    pub cache: PathBuf,
    /// The server: scheme and host, without a slash at the end.
    pub endpoint: String,
    /// Sent to the endpoint, and to no other host.
    pub token: Option<String>,
    /// Never use the network.
    pub offline: bool,
    /// How many failed tries in a row are forgiven.
    pub retries: u32,
    /// The wait after the first failure; it doubles with each further one, up to ten seconds.
    pub pause: Duration,
}

/// Without the token, which belongs in no log.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// A cache folder and a server; no token, not offline.
    pub fn new(cache: impl Into<PathBuf>, endpoint: impl Into<String>) -> Self {
        let pause = Duration::from_millis(300);
        Settings {
            cache: cache.into(),
            endpoint: endpoint.into(),
            token: None,
            offline: false,
            retries: 5,
            pause,
        }
    }

    /// `HF_HUB_CACHE` (or `HF_HOME`, whose `hub` folder it is), `HF_ENDPOINT`, `HF_TOKEN` (or the file at
    /// `HF_TOKEN_PATH` or `HF_HOME/token`, where logging in leaves it), `HF_HUB_OFFLINE`: as
    /// `huggingface_hub` reads them.
    pub fn from_env() -> Result<Self> {
        Self::read(|key| std::env::var_os(key).filter(|value| !value.is_empty()))
    }

    fn read(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Self> {
        let user = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let path = |key: &str| {
            var(key).map(|value| match (Path::new(&value).strip_prefix("~"), &user) {
                (Ok(rest), Some(user)) => user.join(rest),
                _ => PathBuf::from(&value),
            })
        };
        let text = |key: &str| -> Result<Option<String>> {
            let Some(value) = var(key) else { return Ok(None) };
            let value =
                value.into_string().map_err(|_| anyhow!("the environment's {key} is not valid UTF-8"))?;
            Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
        };
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|dir| dir.join("huggingface")))
            .or_else(|| user.as_ref().map(|dir| dir.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .context("no folder for the Hub's cache: there is no home directory; set HF_HOME")?;
        let token = match text("HF_TOKEN")? {
            Some(token) => Some(token),
            None => match path("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|home| home.join("token"))) {
                Some(file) => fs::read_to_string(file).ok(),
                None => None,
            },
        };
        let on = |value: &str| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str());
        Ok(Settings {
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: text("HF_HUB_OFFLINE")?.is_some_and(|value| on(&value))
                || text("TRANSFORMERS_OFFLINE")?.is_some_and(|value| on(&value)),
            ..Settings::new(cache, text("HF_ENDPOINT")?.unwrap_or_else(|| ENDPOINT.into()))
        })
    }
}

/// The door to the Hub: a cache folder, a server, and the rules between them.
pub struct Hub {
    settings: Settings,
    cache: Cache,
    /// Two of hf-hub's clients, because it sends its token with every request: one for the endpoint, one for
    /// elsewhere.
    trusted: Api,
    stranger: Api,
    progress: Option<OnProgress>,
}

impl Hub {
    /// As the environment says: see [`Settings::from_env`].
    pub fn from_env() -> Result<Self> {
        Self::new(Settings::from_env()?)
    }

    /// With settings made by hand.
    pub fn new(mut settings: Settings) -> Result<Self> {
        settings.endpoint.truncate(settings.endpoint.trim_end_matches('/').len());
        let endpoint = &settings.endpoint;
        let fine = origin(endpoint).is_some() && endpoint.bytes().all(|b| b.is_ascii_graphic());
        ensure!(fine, "the Hub's address `{endpoint}` (HF_ENDPOINT) is no http:// or https:// URL");
        let sendable = settings.token.iter().all(|token| token.bytes().all(|b| b.is_ascii_graphic()));
        ensure!(
            sendable,
            "the Hub's token (HF_TOKEN or its file) holds a space or a character that cannot be sent"
        );
        let cache = Cache::new(settings.cache.clone());
        let client = |token: Option<String>| {
            ApiBuilder::from_cache(cache.clone())
                .with_endpoint(endpoint.clone())
                .with_token(token)
                .with_user_agent("bitsweep", env!("CARGO_PKG_VERSION"))
                .with_progress(false)
                .build()
                .context("hf-hub's client could not be made")
        };
        let (trusted, stranger) = (client(settings.token.clone())?, client(None)?);
        Ok(Hub { cache, trusted, stranger, progress: None, settings })
    }

    /// Tells the progress of downloads.
    pub fn on_progress(mut self, progress: Option<OnProgress>) -> Self {
        self.progress = progress;
        self
    }

    /// What this door was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The file's path, if it is in the cache; never touches the network. Where either of two files would do
    /// (one `model.safetensors`, or the index of many), ask this about both before [`Hub::file`] about any:
    /// then a model that is cached needs no network, whoever cached it.
    pub fn cached(&self, repo: &RepoId, file: &str) -> Option<PathBuf> {
        check_file(file).ok()?;
        let commit = self.commit(repo)?;
        let path = self.cache.repo(repo.repo()).pointer_path(&commit).join(file);
        path.is_file().then_some(path)
    }

    /// The commit that the revision stands for in this cache, for records.
    pub fn commit(&self, repo: &RepoId) -> Option<String> {
        repo.check().ok()?;
        if let Some(commit) = repo.pinned() {
            // By its snapshot, under whatever name it came: `refs/` need not know it.
            let known = self.cache.repo(repo.repo()).pointer_path(commit).is_dir()
                || self.folder(repo).join(".no_exist").join(commit).is_dir();
            return known.then(|| commit.to_owned());
        }
        let text = fs::read_to_string(self.folder(repo).join("refs").join(&repo.revision)).ok()?;
        let commit = text.trim();
        is_plain(commit).then(|| commit.to_owned())
    }

    /// The file's path, from the cache or else the server. `None`: the repository has no such file.
    pub fn file(&self, repo: &RepoId, file: &str) -> Result<Option<PathBuf>> {
        repo.check().with_context(|| format!("`{repo}` is not a {} on the Hub", repo.kind.word()))?;
        check_file(file)?;
        if let Some(path) = self.cached(repo, file) {
            return Ok(Some(path));
        }
        let commit = self.commit(repo);
        if let Some(commit) = &commit
            && self.folder(repo).join(".no_exist").join(commit).join(file).is_file()
        {
            return Ok(None);
        }
        if self.settings.offline {
            bail!(
                "`{file}` of {repo} is not in the cache ({}), and HF_HUB_OFFLINE forbids to download it: \
                 unset HF_HUB_OFFLINE, or point HF_HOME at a cache that holds the {}",
                self.folder(repo).display(),
                repo.kind.word()
            );
        }
        self.download(repo, file, commit.as_deref()).with_context(|| format!("cannot get `{file}` of {repo}"))
    }

    /// As [`Hub::file`], for a file that must be there.
    pub fn required(&self, repo: &RepoId, file: &str) -> Result<PathBuf> {
        let server = &self.settings.endpoint;
        self.file(repo, file)?
            .with_context(|| format!("{repo} has no file `{file}` ({server}/{})", repo.repo().url()))
    }

    /// The files that the server says the repository has; `None` where it does not say, or may not be asked.
    pub fn files(&self, repo: &RepoId) -> Option<Vec<String>> {
        if self.settings.offline {
            return None;
        }
        repo.check().ok()?;
        let answer = self.patiently(&self.info_url(repo), None).ok().filter(|answer| answer.status == 200)?;
        let info = read_info(answer)?;
        Some(info.siblings.into_iter().map(|file| file.rfilename).collect())
    }

    fn info_url(&self, repo: &RepoId) -> String {
        format!("{}/api/{}", self.settings.endpoint, repo.repo().api_url().replace('+', "%2B"))
    }

    fn folder(&self, repo: &RepoId) -> PathBuf {
        self.cache.path().join(repo.repo().folder_name())
    }

    fn download(&self, repo: &RepoId, file: &str, known: Option<&str>) -> Result<Option<PathBuf>> {
        let mut at = repo.clone();
        let mut found = self.ask(&at, file, known)?;
        // The branch has moved on since the cache first saw it: stay with the commit that is there.
        if let (Some(known), Some(now)) = (known, found.commit())
            && known != now
        {
            at.revision = known.to_owned();
            found = self.ask(&at, file, Some(known))?;
        }
        let cache = self.cache.repo(repo.repo());
        let name_commit = |commit: &str| match repo.pinned().is_some() || known.is_some() {
            true => Ok(()),
            false => cache
                .create_ref(commit)
                .with_context(|| format!("cannot write {}", self.folder(repo).display())),
        };
        match found {
            Found::Absent(commit) => {
                if let Some(commit) = commit {
                    write_marker(&self.folder(repo).join(".no_exist").join(&commit).join(file))?;
                    name_commit(&commit)?;
                }
                Ok(None)
            }
            Found::File(announced) => {
                let blob = cache.blob_path(&announced.etag);
                self.transfer(&self.url(&at, file), file, &announced, &blob)?;
                let pointer = cache.pointer_path(&announced.commit).join(file);
                point(&pointer, &blob, file)?;
                name_commit(&announced.commit)?;
                Ok(Some(pointer))
            }
        }
    }

    fn url(&self, repo: &RepoId, file: &str) -> String {
        let at = repo.repo();
        let revision = at.url_revision().replace('+', "%2B");
        format!("{}/{}/resolve/{revision}/{}", self.settings.endpoint, at.url(), escape(file))
    }

    /// Asks for one byte, as hf-hub does, and reads what the headers announce.
    fn ask(&self, repo: &RepoId, file: &str, known: Option<&str>) -> Result<Found> {
        let url = self.url(repo, file);
        let mut answer = self.patiently(&url, Some("bytes=0-0"))?;
        if answer.status == 416 && answer.etag.is_none() {
            answer = self.patiently(&url, None)?; // an empty file has no first byte
        }
        if answer.status == 404 && answer.at_home {
            return self.absent(repo, &url, answer, known);
        }
        if !(matches!(answer.status, 200 | 206) || answer.status == 416 && answer.size() == Some(0)) {
            return Err(self.refusal(repo, &url, &answer));
        }
        let commit = match (&answer.commit, repo.pinned()) {
            (Some(commit), _) => commit.clone(),
            (None, Some(commit)) => commit.to_owned(),
            _ => bail!("{url} answered without X-Repo-Commit: is {} a Hub?", self.settings.endpoint),
        };
        let etag = answer.etag.clone().with_context(|| format!("{url} answered without an ETag"))?;
        ensure!(is_plain(&commit), "{url} answered with a commit that cannot name a folder: {commit:?}");
        ensure!(is_plain(&etag), "{url} answered with an ETag that cannot name a file: {etag:?}");
        Ok(Found::File(Announced { commit, etag, size: answer.size() }))
    }

    /// A 404: of the file, of the revision, or of the repository?
    fn absent(&self, repo: &RepoId, url: &str, mut answer: Answer, known: Option<&str>) -> Result<Found> {
        answer.body = Box::new(std::io::empty()); // hangs up, before the next question
        let commit = answer.commit.clone().filter(|commit| is_plain(commit));
        match answer.header("x-error-code") {
            Some("EntryNotFound") => {
                return Ok(Found::Absent(commit.or_else(|| repo.pinned().map(str::to_owned))));
            }
            Some("RepoNotFound" | "RevisionNotFound") => return Err(self.refusal(repo, url, &answer)),
            _ if commit.is_some() => return Ok(Found::Absent(commit)),
            _ => (),
        }
        let info = self.info_url(repo);
        let about = match self.patiently(&info, None) {
            Ok(about) if about.status == 200 => about,
            _ if known.is_some() => return Ok(Found::Absent(None)), // seen before, so the repository is there
            Ok(about) if about.status == 404 => return Err(self.refusal(repo, &info, &about)),
            Ok(about) => {
                return Err(self.refusal(repo, &info, &about).context(format!("{url} answered 404")));
            }
            Err(error) => return Err(error.context(format!("{url} answered 404"))),
        };
        Ok(Found::Absent(read_info(about).map(|info| info.sha).filter(|sha| is_plain(sha))))
    }

    /// What a status that is no success means, and what to do.
    fn refusal(&self, repo: &RepoId, url: &str, answer: &Answer) -> anyhow::Error {
        let (status, code) = (answer.status, answer.header("x-error-code").unwrap_or_default());
        let page = format!("{}/{}", self.settings.endpoint, repo.repo().url());
        let said = answer
            .header("x-error-message")
            .map(|m| format!(" (\"{}\")", m.escape_debug()))
            .unwrap_or_default();
        let token = match self.settings.token {
            Some(_) => "the token in use (HF_TOKEN or its file) has no access",
            None => "set HF_TOKEN to a token that has access",
        };
        if !answer.at_home {
            return anyhow!("{url} led to {}, which answered {status}{said}", bare(&answer.url));
        }
        match (status, code) {
            (_, "RevisionNotFound") => {
                anyhow!(
                    "the repository {} has no revision `{}`: {url} answered {status}{said}",
                    repo.name,
                    repo.revision
                )
            }
            (401 | 403, "GatedRepo") => anyhow!(
                "the repository {} is gated: accept its licence at {page}; {token}: \
                 {url} answered {status}{said}",
                repo.name
            ),
            (401 | 403, "RepoNotFound") => anyhow!(
                "there is no repository {}, or it is private: check the name; {token}: \
                 {url} answered {status}{said}",
                repo.name
            ),
            (401 | 403, _) => anyhow!(
                "the repository {} is gated or private, or does not exist: accept its licence at {page} if \
                 it asks for that; {token}: {url} answered {status}{said}",
                repo.name
            ),
            (404, "RepoNotFound") => {
                anyhow!(
                    "there is no repository {} on {}: {url} answered 404{said}",
                    repo.name,
                    self.settings.endpoint
                )
            }
            (404, _) => anyhow!(
                "there is no repository {}, or it has no revision `{}`: {url} answered 404{said}",
                repo.name,
                repo.revision
            ),
            _ => anyhow!("{url} answered {status}{said}"),
        }
    }

    /// One request, again where the server says that it is busy.
    fn patiently(&self, url: &str, range: Option<&str>) -> Result<Answer> {
        let mut failures = 0;
        loop {
            let answer = self.fetch(url, range)?;
            if !is_busy(answer.status) || failures >= self.settings.retries {
                return Ok(answer);
            }
            self.rest(failures);
            failures += 1;
        }
    }

    fn rest(&self, failures: u32) {
        let pause = self.settings.pause.saturating_mul(1 << failures.min(16));
        std::thread::sleep(pause.min(Duration::from_secs(10)));
    }

    /// One GET through hf-hub's client, following redirects by hand: only so does the token stay at the
    /// endpoint, and only so are the Hub's own headers seen, which stand on the redirect and not on the file.
    fn fetch(&self, url: &str, range: Option<&str>) -> Result<Answer> {
        let home = origin(&self.settings.endpoint);
        let (mut url, mut commit, mut linked, mut etag) = (url.to_owned(), None, None, None);
        let mut linked_size = None;
        for _ in 0..=HOPS {
            let at = origin(&url);
            let at_home = at == home;
            let client = if at_home { &self.trusted } else { &self.stranger };
            let second = Duration::from_secs(1);
            // hf-hub builds the request (agent, TLS, user agent, token); it is only sent elsewhere.
            let request = client
                .model("a/b".into())
                .info_request()
                .uri(url.as_str())
                .config()
                .max_redirects(0)
                .http_status_as_error(false)
                .timeout_connect(Some(second * 30))
                .timeout_recv_response(Some(second * 60))
                .timeout_per_read(Some(second * 60));
            // No proxy stands between us and ourselves.
            let mut request = if is_loopback(&at) { request.proxy(None).build() } else { request.build() };
            request = request.header("Accept-Encoding", "identity");
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            let response = request.call().map_err(|error| anyhow!("cannot reach {}: {error}", bare(&url)))?;
            let (head, body) = response.into_parts();
            let text = |(name, value): (&_, &_)| {
                let (name, value): (&dyn AsRef<str>, &dyn AsRef<[u8]>) = (name, value);
                (
                    name.as_ref().to_ascii_lowercase(),
                    String::from_utf8_lossy(value.as_ref()).trim().to_owned(),
                )
            };
            let mut answer = Answer {
                status: head.status.as_u16(),
                headers: head.headers.iter().map(|(name, value)| text((name, value))).collect(),
                body: Box::new(body.into_reader()),
                at_home,
                url,
                commit: None,
                etag: None,
                linked_size: None,
            };
            let tag = |value: &str| value.trim_start_matches("W/").trim_matches('"').to_owned();
            // The Hub speaks for the file; where it sends us only carries bytes, and has ETags of its own.
            if at_home || commit.is_none() {
                linked = linked.or_else(|| answer.header("x-linked-etag").map(tag));
                linked_size =
                    linked_size.or_else(|| answer.header("x-linked-size").and_then(|n| n.parse().ok()));
            }
            let own = answer.header("etag").map(tag);
            etag = match commit {
                None => own.or(etag),
                Some(_) if at_home => etag.or(own),
                Some(_) => etag,
            };
            commit = commit.or_else(|| answer.header("x-repo-commit").map(str::to_owned));
            if matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                let place = answer.header("location").unwrap_or_default();
                url = join(&answer.url, place).with_context(|| {
                    format!(
                        "{} answered {} to {place:?}, which is no place",
                        bare(&answer.url),
                        answer.status
                    )
                })?;
                continue;
            }
            answer.etag = linked.or(etag);
            (answer.commit, answer.linked_size) = (commit, linked_size);
            return Ok(answer);
        }
        bail!("{} leads through more than {HOPS} redirects", bare(&url))
    }

    /// Brings a blob: continues a partial file, tries again a bounded number of times, and proves the whole.
    fn transfer(&self, url: &str, file: &str, announced: &Announced, blob: &Path) -> Result<()> {
        if blob.is_file() {
            return Ok(());
        }
        let write = |path: &Path| format!("cannot write {}", path.display());
        if let Some(folder) = blob.parent() {
            fs::create_dir_all(folder).with_context(|| write(folder))?;
        }
        let part = blob.with_extension("part");
        let _lock = lock(&blob.with_extension("lock"), &part)?;
        if blob.is_file() {
            return Ok(()); // another process brought it meanwhile
        }
        let (mut failures, mut afresh) = (0, false);
        loop {
            let before = length(&part);
            let error = match self.pull(url, file, announced, &part) {
                Ok(()) => match prove(&part, announced) {
                    Ok(()) => break,
                    Err(error) => {
                        fs::remove_file(&part).with_context(|| write(&part))?;
                        // What went before may have been wrong, not what came now: once more from the start.
                        if before > 0 && !afresh {
                            afresh = true;
                            continue;
                        }
                        return Err(error.context(format!(
                            "`{file}` came damaged from {url}, and was not kept: run again to get it anew"
                        )));
                    }
                },
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => error,
            };
            failures = if length(&part) >= before.saturating_add(HEADWAY) { 1 } else { failures + 1 };
            if failures > self.settings.retries {
                return Err(error.context(format!(
                    "gave up after {failures} tries with {} bytes here; running again continues from there",
                    length(&part)
                )));
            }
            self.rest(failures - 1);
        }
        fs::rename(&part, blob).with_context(|| write(blob))
    }

    /// One try: what is missing of the partial file is appended to it.
    fn pull(&self, url: &str, file: &str, announced: &Announced, part: &Path) -> Result<(), Trouble> {
        let write = |error| {
            Trouble::Final(anyhow::Error::new(error).context(format!("cannot write {}", part.display())))
        };
        let mut here = length(part);
        match announced.size {
            Some(size) if here == size && part.is_file() => return Ok(()),
            Some(size) if here <= size => (),
            _ if here == 0 => (),
            // Longer than the file, or nobody knows how long that is.
            _ => {
                fs::remove_file(part).map_err(write)?;
                here = 0;
            }
        }
        let range = (here > 0).then(|| format!("bytes={here}-"));
        let answer = self.fetch(url, range.as_deref()).map_err(Trouble::Passing)?;
        if answer.commit.as_ref().is_some_and(|commit| *commit != announced.commit)
            || answer.etag.as_ref().is_some_and(|etag| *etag != announced.etag)
        {
            return Err(Trouble::Final(anyhow!("{url} changed while it was being downloaded: run again")));
        }
        let place = || bare(&answer.url);
        match answer.status {
            206 if here == 0 || answer.begins() == Some(here) => (),
            // `Range` was ignored: the whole file comes.
            200 => here = 0,
            206 | 416 => {
                if here > 0 {
                    fs::remove_file(part).map_err(write)?;
                }
                return Err(Trouble::Passing(anyhow!("{} does not continue at byte {here}", place())));
            }
            status if is_busy(status) => {
                return Err(Trouble::Passing(anyhow!("{} answered {status}", place())));
            }
            status => return Err(Trouble::Final(anyhow!("{} answered {status}", place()))),
        }
        let mut out = File::options().create(true).append(true).open(part).map_err(write)?;
        if here == 0 {
            out.set_len(0).map_err(write)?;
        }
        let mut watch = Watch { tell: self.progress.as_ref(), file: String::new(), here: 0, size: 0 };
        watch.init(announced.size.map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX)), file);
        watch.update(usize::try_from(here).unwrap_or(usize::MAX));
        let (url, mut body) = (bare(&answer.url), answer.body);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Trouble::Passing(anyhow!(
                        "the connection to {url} broke after {here} bytes: {error}"
                    )));
                }
            };
            out.write_all(&buffer[..n]).map_err(write)?;
            here += n as u64;
            watch.update(n);
            if announced.size.is_some_and(|size| here > size) {
                break; // the proof will say so
            }
        }
        out.sync_all().map_err(write)?;
        if let Some(size) = announced.size.filter(|size| here < *size) {
            return Err(Trouble::Passing(anyhow!(
                "the connection to {url} ended after {here} of {size} bytes"
            )));
        }
        watch.finish();
        Ok(())
    }
}

fn read_info(answer: Answer) -> Option<hf_hub::api::RepoInfo> {
    serde_json::from_reader(answer.body.take(1 << 26)).ok()
}

/// What the Hub says of a file.
struct Announced {
    commit: String,
    etag: String,
    size: Option<u64>,
}

enum Found {
    File(Announced),
    /// With the commit that has it not, where the server said.
    Absent(Option<String>),
}

impl Found {
    fn commit(&self) -> Option<&str> {
        match self {
            Found::File(announced) => Some(&announced.commit),
            Found::Absent(commit) => commit.as_deref(),
        }
    }
}

/// Whether it is worth while to try again.
enum Trouble {
    Final(anyhow::Error),
    Passing(anyhow::Error),
}

/// The last answer of a chain of redirects, with what the Hub said on the way.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Box<dyn Read>,
    at_home: bool,
    url: String,
    commit: Option<String>,
    etag: Option<String>,
    linked_size: Option<u64>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// How long the whole file is.
    fn size(&self) -> Option<u64> {
        let total =
            self.header("content-range").and_then(|range| range.rsplit('/').next()?.trim().parse().ok());
        let plain =
            self.status == 200 && self.header("content-encoding").is_none_or(|coding| coding == "identity");
        let length = || self.header("content-length").filter(|_| plain)?.parse().ok();
        total.or(self.linked_size).or_else(length)
    }

    /// At which byte a partial answer begins.
    fn begins(&self) -> Option<u64> {
        self.header("content-range")?.strip_prefix("bytes")?.trim().split('-').next()?.parse().ok()
    }
}

/// hf-hub's trait for progress, handed on to a closure.
struct Watch<'a> {
    tell: Option<&'a OnProgress>,
    file: String,
    here: u64,
    size: u64,
}

impl Progress for Watch<'_> {
    fn init(&mut self, size: usize, file: &str) {
        (self.file, self.here, self.size) = (file.to_owned(), 0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.here = self.here.saturating_add(size as u64);
        if let Some(tell) = self.tell {
            tell(&self.file, self.here, self.size);
        }
    }

    fn finish(&mut self) {
        // The last update said that all is here; an empty file had none that did.
        if self.here == 0 {
            self.update(0);
        }
    }
}

/// Size, and the hash that the ETag is: 64 hexadecimal digits are the content's SHA-256 (large files), 40 its
/// git blob SHA-1 (small ones). Of an ETag of any other kind nothing follows.
fn prove(part: &Path, announced: &Announced) -> Result<()> {
    let read = || format!("cannot read {}", part.display());
    let size = fs::metadata(part).with_context(read)?.len();
    if let Some(expected) = announced.size {
        ensure!(size == expected, "expected {expected} bytes, found {size}");
    }
    let etag = announced.etag.to_ascii_lowercase();
    if !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    let (kind, found) = match etag.len() {
        64 => ("sha256", hash(Sha256::new(), part)),
        40 => ("git sha1", hash(Sha1::new_with_prefix(format!("blob {size}\0")), part)),
        _ => return Ok(()),
    };
    let found = found.with_context(read)?;
    ensure!(found == etag, "expected {kind} {etag}, found {found}");
    Ok(())
}

fn hash<D: Digest>(mut digest: D, path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => digest.update(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// hf-hub's lock, released with the handle. Whoever holds it is waited for as long as its partial file grows.
fn lock(path: &Path, part: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let (mut size, mut since) = (length(part), Instant::now());
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        if length(part) != size {
            (size, since) = (length(part), Instant::now());
        }
        if since.elapsed() > Duration::from_secs(60) {
            bail!(
                "another process has held {} for a minute and brings nothing: end it, and run again",
                path.display()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Where the file system knows no locks, none is held: a file is still proved before it counts.
    Ok(file)
}

/// Makes a snapshot's file stand for a blob: a relative link, or the blob itself where links cannot be made.
fn point(pointer: &Path, blob: &Path, file: &str) -> Result<()> {
    if pointer.is_file() {
        return Ok(());
    }
    let write = || format!("cannot write {}", pointer.display());
    if let Some(folder) = pointer.parent() {
        fs::create_dir_all(folder).with_context(write)?;
    }
    if pointer.is_symlink() {
        fs::remove_file(pointer).with_context(write)?; // its blob is gone
    }
    let mut target: PathBuf = std::iter::repeat_n("..", file.split('/').count() + 1).collect();
    target.push("blobs");
    target.extend(blob.file_name());
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(&target, pointer);
    #[cfg(windows)]
    let linked = std::os::windows::fs::symlink_file(&target, pointer);
    #[cfg(not(any(unix, windows)))]
    let linked: std::io::Result<()> = Err(std::io::ErrorKind::Unsupported.into());
    if linked.is_err() && !pointer.is_file() {
        fs::rename(blob, pointer).with_context(write)?;
    }
    Ok(())
}

fn write_marker(path: &Path) -> Result<()> {
    let write = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(write)?;
    }
    File::create(path).with_context(write)?;
    Ok(())
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// A file's name comes from an index that somebody wrote, and becomes a path: it may not lead out of the
/// snapshot.
fn check_file(file: &str) -> Result<()> {
    let fine =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    ensure!(
        file.split('/').all(fine),
        "{file:?} is no file of a repository: write a relative path without `..`"
    );
    Ok(())
}

/// Whether what a server sent can name a file in the cache.
fn is_plain(text: &str) -> bool {
    let chars = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    chars && !text.is_empty() && text.len() <= 128 && !text.starts_with('.')
}

fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

fn escape(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// A URL without what may be a secret: a signed address carries its signature in the query.
fn bare(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Scheme, host and port, of an http URL. What stands before an `@` counts as part of the host, so that no
/// such URL is ever taken for the endpoint.
fn origin(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let host = rest.split(['/', '?', '#']).next()?.to_ascii_lowercase();
    let host = host.strip_suffix(port).unwrap_or(&host).to_owned();
    (!host.is_empty()).then_some((scheme, host))
}

fn is_loopback(origin: &Option<(String, String)>) -> bool {
    let Some((_, host)) = origin else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Where a `Location` leads from a URL; `None` where it is none.
fn join(from: &str, place: &str) -> Option<String> {
    if place.is_empty() || !place.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let scheme = from.split_once("://")?.0;
    let host_end = scheme.len()
        + 3
        + from[scheme.len() + 3..].find(['/', '?', '#']).unwrap_or(from.len() - scheme.len() - 3);
    let to = if place.starts_with("//") {
        format!("{scheme}:{place}")
    } else if place.starts_with('/') {
        format!("{}{place}", &from[..host_end])
    } else if origin(place).is_some() {
        place.to_owned()
    } else if place.split(['/', '?', '#']).next()?.contains(':') {
        return None; // another scheme
    } else {
        let path = bare(from);
        let folder = path.rfind('/').filter(|at| *at >= host_end).map_or(path, |at| &path[..at]);
        format!("{folder}/{place}")
    };
    let to = to.split('#').next()?.to_owned();
    origin(&to).is_some().then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_leads_where_it_says() {
        let from = "http://a:1/x/y?q";
        for (place, to) in [
            ("/z", Some("http://a:1/z")),
            ("z", Some("http://a:1/x/z")),
            ("//b/z", Some("http://b/z")),
            ("https://b:2/z?s=1#f", Some("https://b:2/z?s=1")),
            ("", None),
            ("http://", None),
            ("file:///etc/passwd", None),
            ("/a b", None),
        ] {
            assert_eq!(join(from, place).as_deref(), to, "{place}");
        }
        assert_eq!(join("http://a", "z").as_deref(), Some("http://a/z"));
    }

    #[test]
    fn only_the_endpoint_is_the_endpoint() {
        let home = origin("https://Hub.co/x");
        assert_eq!(home, origin("HTTPS://hub.co:443?y"));
        for other in
            ["http://hub.co", "https://hub.co:444", "https://hub.co@evil", "https://evil/hub.co", "hub.co"]
        {
            assert_ne!(home, origin(other), "{other}");
        }
        for (url, yes) in
            [("http://127.0.0.1:8/", true), ("http://[::1]:8/", true), ("http://127.evil/", false)]
        {
            assert_eq!(is_loopback(&origin(url)), yes, "{url}");
        }
    }

    #[test]
    fn the_environment_is_read_as_python_reads_it() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let read = |vars: &[(&str, &str)]| {
            let (home, vars) = (home.path().as_os_str().to_owned(), vars.to_vec());
            Settings::read(move |key| match key {
                "HF_HOME" => Some(home.clone()),
                _ => vars.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).into()),
            })
            .unwrap()
        };
        let plain = read(&[]);
        assert_eq!((plain.cache.clone(), plain.endpoint.as_str()), (home.path().join("hub"), ENDPOINT));
        assert_eq!((plain.token.as_deref(), plain.offline), (Some("hf_file"), false));
        assert!(!format!("{plain:?}").contains("hf_file"));
        let other = read(&[
            ("HF_HUB_CACHE", "/c"),
            ("HF_TOKEN", "hf_env"),
            ("HF_HUB_OFFLINE", "True"),
            ("HF_ENDPOINT", "http://e"),
        ]);
        assert_eq!((other.cache, other.endpoint.as_str()), (PathBuf::from("/c"), "http://e"));
        assert_eq!((other.token.as_deref(), other.offline), (Some("hf_env"), true));
    }
}
