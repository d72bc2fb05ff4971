//! A Global of its own, as `dstore global` starts it: durable in `./dstore-data`, until Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --example global                        on 127.0.0.1:50051, data in ./dstore-data
//! cargo run --example global -- 127.0.0.1:0 DIR     on a free port, data in DIR
//! ```

use dstore::{Address, Global, GlobalConfig, Sys};
use std::error::Error;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let listen: Address = args.next().as_deref().unwrap_or("127.0.0.1:50051").parse()?;
    let data = args.next().unwrap_or_else(|| "dstore-data".to_owned());

    let config = GlobalConfig { listen: vec![listen], ..GlobalConfig::new(data) };
    let global = Global::start(Sys::real(), config).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    for address in global.addresses() {
        println!("Dstore server listening on {address}");
    }

    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    // Waits for the leases it gave, so that the next start need not.
    Ok(global.stop().await?)
}
