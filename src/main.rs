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
/// Never.
const USUAL: std::ffi::c_long = -1;

/// When freed memory goes back to the system. Usually never, because it is wanted again at once, and a page that comes back
/// must be cleared: a tenth of the time. Where a model does not fit and comes part by part, each part's room must be free
/// before the next.
fn give_back(at_once: bool) {
    // SAFETY: sets one of the allocator's options, at any time, from any thread.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, if at_once { 0 } else { USUAL });
        if at_once {
            libmimalloc_sys::mi_collect(true);
        }
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
        super::give_back(true);
        assert_eq!(delay(), 0);
        super::give_back(false);
        assert_eq!(delay(), super::USUAL);
    }
}
