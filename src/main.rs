//! Arguments in, exit code out.
use std::process::ExitCode;

/// Tensors come and go by the megabyte: the system's allocator gives each back to the kernel, and pays for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bitsweep::study::system::when_tight(give_back);
    bitsweep::cli::main(std::env::args_os()).into()
}

/// Has the allocator give freed memory back at once, or in its own time: a model that does not fit is read part by part, and
/// each part's room must be free before the next.
fn give_back(at_once: bool) {
    /// `mi_option_purge_delay`, milliseconds, which the bindings do not name: the one between those that are 14 and 16.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_use_numa_nodes - 1;
    static USUAL: std::sync::OnceLock<std::ffi::c_long> = std::sync::OnceLock::new();
    // SAFETY: reads and sets one of the allocator's options, at any time, from any thread.
    #[allow(unsafe_code)]
    unsafe {
        let usual = *USUAL.get_or_init(|| libmimalloc_sys::mi_option_get(PURGE_DELAY));
        libmimalloc_sys::mi_option_set(PURGE_DELAY, if at_once { 0 } else { usual });
        if at_once {
            libmimalloc_sys::mi_collect(true);
        }
    }
}
