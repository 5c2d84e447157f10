// SPDX-License-Identifier: GPL-2.0

//! The program `oxfs`: what administrators do with mounted volumes, by the ioctls of
//! [`oxfs_user`], and what debuggers read on devices, by the engine's own code.
//!
//! A command gives an [`output::Answer`], which has it all twice: as text for people and as JSON
//! for scripts. An error is a sentence that says what to do about it.

pub mod filesystem;
pub mod inspect;
pub mod options;
pub mod output;
pub mod place;
pub mod subvolume;
pub mod swapfile;

use options::{Command, Options};
use output::Answer;

/// Runs a command.
pub fn run(options: &Options) -> place::Result<Answer> {
    match &options.command {
        Command::Subvolume(command) => subvolume::run(command),
        Command::Property(command) => subvolume::property(command),
        Command::Swapfile(command) => swapfile::run(command),
        Command::Filesystem(command) => filesystem::run(command),
        Command::Inspect(command) => inspect::run(command),
    }
}
