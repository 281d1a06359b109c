//! The `fanfare` binary: its allocator. Everything else is in the library.

/// Memory that a crowd has left behind goes back to the kernel within ten seconds.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    fanfare::cli::main()
}
