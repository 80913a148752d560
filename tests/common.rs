//! What several tests need.
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// The program under test.
pub fn bitsweep() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bitsweep"))
}

/// A file or folder of the repository.
pub fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Says aloud that something was not tested: past the test runner, which swallows what a passing test prints.
pub fn skipped(why: &str) {
    std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

/// A file or folder of real data beside the repository; `None`, said aloud, where it is not.
pub fn shared(path: &str) -> Option<PathBuf> {
    let found = repo("../shared").join(path);
    if !found.exists() {
        skipped(&format!("../shared/{path} is not here"));
        return None;
    }
    Some(found)
}
