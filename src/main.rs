//! Arguments in, exit code out.
use std::process::ExitCode;

/// Tensors come and go by the megabyte: the system's allocator gives each back to the kernel, and pays for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    give_back(false);
    bitsweep::study::system::when_tight(give_back);
    bitsweep::cli::main(std::env::args_os()).into()
}

/// `mi_option_purge_delay`, milliseconds, which the bindings do not name: the one between those that are 14 and 16.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_use_numa_nodes - 1;
/// An hour. Not never: what is never to go back is not kept track of, and cannot be given back when it must.
const USUAL: std::ffi::c_long = 3_600_000;

/// When freed memory goes back to the system. Usually hardly ever, because it is wanted again at once, and a page that comes back
/// must be cleared: a tenth of the time. Where a model does not fit and comes part by part, each part's room must be free
/// before the next.
fn give_back(at_once: bool) {
    // SAFETY: sets one of the allocator's options, at any time, from any thread.
    #[allow(unsafe_code)]
    unsafe {
        if at_once {
            // While there is a delay, or nothing of what was freed is looked at.
            libmimalloc_sys::mi_collect(true);
        }
        libmimalloc_sys::mi_option_set(PURGE_DELAY, if at_once { 0 } else { USUAL });
    }
}

#[cfg(test)]
mod tests {
    /// The bindings have no name for the option: its value tells that the number is still its own.
    #[test]
    fn the_option_is_the_purge_delay() {
        // SAFETY: reads an option.
        #[allow(unsafe_code)]
        let delay = || unsafe { libmimalloc_sys::mi_option_get(super::PURGE_DELAY) };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            assert_eq!(delay(), 1000, "the default of mimalloc 3, in milliseconds");
        }
        super::give_back(false);
        assert_eq!(delay(), super::USUAL);
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
            line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
        };
        let room: Vec<Vec<u8>> = (0..40).map(|i| vec![i + 1; 5_000_000]).collect();
        let held = resident();
        drop(room);
        super::give_back(true);
        assert_eq!(delay(), 0);
        if let (Some(held), Some(left)) = (held, resident()) {
            assert!(left + 150_000 < held, "{left} kB of {held} kB are still there");
        }
        super::give_back(false);
    }
}
