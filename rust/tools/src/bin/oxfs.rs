// SPDX-License-Identifier: GPL-2.0

//! oxfs: administers oxfs volumes. See [`oxfs::admin`].

use clap::Parser;
use oxfs::admin::{self, options::Options};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    let answer = match admin::run(&options) {
        Ok(answer) => answer,
        Err(why) => {
            eprintln!("oxfs: {why}");
            return ExitCode::FAILURE;
        }
    };
    let text = match options.json {
        true => format!("{:#}\n", answer.json),
        false => answer.text,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oxfs: cannot write the answer: {error}");
            ExitCode::FAILURE
        }
    }
}
