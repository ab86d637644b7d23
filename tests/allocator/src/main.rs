//! The example `prefork` with an allocator of its own.

#[path = "../../../examples/prefork.rs"]
mod prefork;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    prefork::main()
}
