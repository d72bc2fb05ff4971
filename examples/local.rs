//! A Local with a prompt, as `dstore local --repl` starts it: it caches what Global holds, serves gRPC to this
//! machine, and runs the commands that are typed or piped in.
//!
//! ```text
//! cargo run --example local                                          on 127.0.0.1:50052, Global on 127.0.0.1:50051
//! echo 'GET hi' | cargo run --example local -- 127.0.0.1:0 127.0.0.1:50051
//! ```

use dstore::repl::{Input, Mode, Output, Patience, Screen, Session, Settings, Terminal};
use dstore::{Address, Listen, Local, LocalConfig, Sys};
use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let asked = args.next();
    let listen = Listen {
        address: asked.as_deref().unwrap_or("127.0.0.1:50052").parse()?,
        // Nobody asked for the default very address: if it is taken, any free port does.
        or_any: asked.is_none(),
    };
    let upstream: Address = args.next().as_deref().unwrap_or("127.0.0.1:50051").parse()?;

    let sys = Sys::real();
    let config = LocalConfig { listen: vec![listen], ..LocalConfig::new(upstream) };
    let local = Local::start(sys.clone(), config).await?;
    let code = converse(&sys, &local).await?;
    local.stop().await;
    Ok(ExitCode::from(code))
}

/// Runs what is typed or piped in, up to `.exit` or the end of the input.
async fn converse(sys: &Sys, local: &Local) -> Result<u8, Box<dyn Error>> {
    let person = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let input = if person {
        Input::terminal(Terminal::open(sys, None, false).await?)
    } else {
        Input::lines(tokio::io::BufReader::new(tokio::io::stdin()))
    };
    let screen = Screen {
        out_is_terminal: person,
        err_is_terminal: std::io::stderr().is_terminal(),
        ..Screen::default()
    };
    let settings = Settings {
        address: local.addresses()[0].to_string(),
        mode: Mode::default(),
        one_shot: false,
        chatty: person,
        patience: Patience::default(),
    };
    let output = Output::new(Box::new(tokio::io::stdout()), Box::new(tokio::io::stderr()), screen);
    // Ctrl-C is a key of the prompt; whoever pipes commands in ends them as usual.
    let (_interrupt, interrupts) = watch::channel(0);
    let node = Arc::new(local.node().clone());
    let mut session = Session::new(node, sys.clone(), settings, output, interrupts);
    Ok(dstore::repl::run(&mut session, sys, input, false).await?)
}
