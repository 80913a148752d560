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

/// A file or folder of real data beside the repository; `None`, said aloud, where it is not.
pub fn shared(path: &str) -> Option<PathBuf> {
    let found = repo("../shared").join(path);
    if !found.exists() {
        // Past the test runner, which swallows what a passing test prints.
        let line = format!("skipped: ../shared/{path} is not here\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    Some(found)
}
