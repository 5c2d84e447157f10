// SPDX-License-Identifier: GPL-2.0

//! Writes the manual pages and the shells' completions of the programs below a folder, from the
//! same definitions that the programs parse their command lines with, where they belong below
//! /usr: `share/man/man8` and so on.

use clap::{Command, CommandFactory};
use clap_complete::{generate_to, Shell};
use oxfs::admin::options::Options;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

// The programs' own sources, for their definitions.
#[allow(dead_code)]
#[path = "fsck.rs"]
mod fsck;
#[allow(dead_code)]
#[path = "mkfs.rs"]
mod mkfs;

/// Shells, and the folder under PREFIX where each looks for completions.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions"),
    (Shell::Fish, "share/fish/vendor_completions.d"),
    (Shell::Zsh, "share/zsh/site-functions"),
];

fn write(dir: &Path, program: Command) -> io::Result<()> {
    let name = program.get_name().to_string();
    for (shell, folder) in SHELLS {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder)?;
        generate_to(shell, &mut program.clone(), &name, &folder)?;
        // bash looks for the name of the program.
        if shell == Shell::Bash {
            fs::rename(folder.join(format!("{name}.bash")), folder.join(&name))?;
        }
    }
    let pages = dir.join("share/man/man8");
    fs::create_dir_all(&pages)?;
    page(&pages, program)
}

/// The pages of a command and of all below it.
fn page(dir: &Path, mut command: Command) -> io::Result<()> {
    command = command.disable_help_subcommand(true);
    command.build();
    let mut left = vec![(command.get_name().to_string(), command)];
    while let Some((name, command)) = left.pop() {
        for below in command.get_subcommands() {
            left.push((format!("{name}-{}", below.get_name()), below.clone()));
        }
        let command = command.display_name(&name);
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .section("8")
            .title(name.to_uppercase())
            .render(&mut page)?;
        fs::write(dir.join(format!("{name}.8")), page)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: oxfs-docs FOLDER");
        return ExitCode::FAILURE;
    };
    let programs = [
        Options::command(),
        mkfs::Options::command(),
        fsck::Options::command(),
    ];
    for program in programs {
        if let Err(error) = write(&dir, program) {
            eprintln!("oxfs-docs: {}: {error}", dir.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
