//! Arguments in, exit code out.
use std::process::ExitCode;

/// Tensors come and go by the megabyte: the system's allocator gives each back to the kernel, and pays for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bitsweep::cli::main(std::env::args_os()).into()
}
