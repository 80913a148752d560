//! What the system has to give and what it has given, in bytes; and `--memory` as people write it.
//!
//! Linux tells, in `/proc` and in the files of control groups. Elsewhere nothing is known, and whoever has little memory
//! says so with `--memory`. Libraries that ask more systems look at the outermost group alone, and at no `ulimit`.
use crate::mistake;
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// `4G`, `700M`, `1.5GiB`: bytes, in powers of 1000, or of 1024 with an `i`.
///
/// # Errors
/// Another text.
pub fn parse(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, binary) = match lower.strip_suffix('i') {
        Some(rest) => (rest, true),
        None => (lower, false),
    };
    let (number, power) = match number.chars().last() {
        Some(unit @ ('k' | 'm' | 'g' | 't')) => {
            (&number[..number.len() - 1], "kmgt".find(unit).unwrap_or(0) as i32 + 1)
        }
        _ => (number, 0),
    };
    let unit = if binary { 1024f64 } else { 1000. }.powi(power);
    match number.trim().parse::<f64>() {
        Ok(n) if n > 0. && n.is_finite() && (power > 0 || !binary) => Ok((n * unit) as u64),
        _ => mistake!("--memory `{text}`: it is a size, such as 4G, 700M or 16GiB"),
    }
}

/// What this process may have in all: what it has, and what the system, any group around it and its own limits leave free.
/// `None` where the system does not tell.
pub fn available() -> Option<u64> {
    let free = number(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")? * 1024;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let free = in_groups(&groups, Path::new("/sys/fs/cgroup")).map_or(free, |left| left.min(free));
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mut most = free.saturating_add(status("VmRSS:")?);
    for (limit, used) in [("Max address space", "VmSize:"), ("Max data size", "VmData:")] {
        if let (Some(limit), Some(used)) = (number(&limits, limit), status(used)) {
            most = most.min(limit.saturating_sub(used).saturating_add(status("VmRSS:")?));
        }
    }
    Some(most)
}

/// The most that this process has had so far, as the system counts it; `None` where it does not.
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// A line of `/proc/self/status`, in bytes.
fn status(key: &str) -> Option<u64> {
    Some(number(&fs::read_to_string("/proc/self/status").ok()?, key)? * 1024)
}

/// The number behind the key that a line begins with.
fn number(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What is left in the tightest of the control groups that `groups` (`/proc/self/cgroup`) names, or any around them, in the
/// hierarchies under `root`. Pages of files that nobody reads count as free: the system drops them first.
fn in_groups(groups: &str, root: &Path) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(of), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        // Version 2 has one hierarchy; version 1 one for memory.
        let (tops, files, inactive): (&[PathBuf], _, _) = match of {
            "" => (
                &[root.to_path_buf(), root.join("unified")],
                ["memory.max", "memory.current"],
                "inactive_file",
            ),
            _ if of.split(',').any(|c| c == "memory") => (
                &[root.join("memory")],
                ["memory.limit_in_bytes", "memory.usage_in_bytes"],
                "total_inactive_file",
            ),
            _ => continue,
        };
        for top in tops {
            let mut group = top.join(path.trim_start_matches('/'));
            loop {
                let read = |file: &str| fs::read_to_string(group.join(file)).ok();
                let [limit, used] = files.map(|f| read(f).and_then(|t| t.trim().parse::<u64>().ok()));
                if let (Some(limit), Some(used)) = (limit, used) {
                    let idle = read("memory.stat").and_then(|t| number(&t, inactive)).unwrap_or(0);
                    let left = limit.saturating_sub(used.saturating_sub(idle));
                    least = Some(least.map_or(left, |l: u64| l.min(left)));
                }
                if group == *top || !group.pop() {
                    break;
                }
            }
        }
    }
    least
}

static TIGHT: OnceLock<fn(bool)> = OnceLock::new();

/// What tells the allocator whether freed memory must go back at once: the library does not know the allocator, and the
/// program does.
pub fn when_tight(f: fn(bool)) {
    TIGHT.get_or_init(|| f);
}

/// Before the first block of a model that does not fit, and after its last.
pub(super) fn tight(yes: bool) {
    if let Some(f) = TIGHT.get() {
        f(yes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("4G", 4_000_000_000),
            ("700M", 700_000_000),
            ("1.5GiB", 1_610_612_736),
            ("512kb", 512_000),
            ("9", 9),
        ] {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "G", "-1G", "0", "4X", "nanG", "1iB", "infG"] {
            assert!(parse(text).unwrap_err().to_string().contains("such as 4G"), "{text}");
        }
    }

    #[test]
    fn the_tightest_group_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let two = "0::/a/b\n";
        assert_eq!(in_groups(two, root), None);
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "300\n");
        assert_eq!(in_groups(two, root), None);
        write("a/memory.max", "1000\n");
        write("a/memory.current", "400\n");
        assert_eq!(in_groups(two, root), Some(600));
        write("a/memory.stat", "anon 250\ninactive_file 150\n");
        assert_eq!(in_groups(two, root), Some(750));
        // More than it may have: nothing is left.
        write("a/b/memory.max", "100\n");
        assert_eq!(in_groups(two, root), Some(0));
        // Version 1, beside an empty version 2.
        let one = "4:memory:/c\n1:cpu:/a\n0::/\nnonsense\n";
        write("memory/c/memory.limit_in_bytes", "5000\n");
        write("memory/c/memory.usage_in_bytes", "2000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/memory.usage_in_bytes", "99999\n");
        assert_eq!(in_groups(one, root), Some(3000));
    }

    #[test]
    fn this_process_has_something() {
        if cfg!(target_os = "linux") {
            let (all, most) = (available().unwrap(), peak().unwrap());
            assert!(most > 1 << 20 && all > 1 << 20, "{all} {most}");
        }
    }
}
