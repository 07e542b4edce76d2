//! `kstreams`: what an operator does to applications from outside of them.
#![expect(clippy::print_stdout, reason = "a command line talks to who has typed it")]

mod arguments;
mod time;

use std::process::ExitCode;

use arguments::{Command, Mode, Reset, USAGE};
use kstreams::Result;

fn main() -> ExitCode {
    let command = match arguments::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("kstreams: {}\n\n{USAGE}", error.report());
            return ExitCode::from(2);
        }
    };
    let outcome = match command {
        Command::Help => {
            println!("{USAGE}");
            Ok(())
        }
        Command::Version => {
            println!("kstreams {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Reset(command) => reset(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kstreams: {}", error.report());
            ExitCode::FAILURE
        }
    }
}

fn reset(command: &Reset) -> Result<()> {
    match command.mode {
        Mode::DryRun => println!("would reset {}\nnothing is changed", command.reset.plan()?),
        Mode::Run => println!("has reset {}", command.reset.run()?),
    }
    Ok(())
}
