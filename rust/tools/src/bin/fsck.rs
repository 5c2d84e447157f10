// SPDX-License-Identifier: GPL-2.0

//! fsck.oxfs: checks an oxfs volume and names every rule that it breaks. Exit codes of fsck(8).

use clap::Parser;
use oxfs::check::{check, Report};
use oxfs::file::{Access, FileDevice};
use oxfs::probe;
use std::path::PathBuf;
use std::process::ExitCode;

/// No errors.
const CLEAN: u8 = 0;
/// Errors left uncorrected.
const FAULTS: u8 = 4;
/// Operational error.
const FAILED: u8 = 8;
/// Usage or syntax error.
const USAGE: u8 = 16;

/// Check an oxfs volume. It is only read: this version repairs nothing.
#[derive(Parser)]
#[command(
    name = "fsck.oxfs",
    bin_name = "fsck.oxfs",
    version,
    disable_version_flag = true
)]
pub struct Options {
    /// Check only, also while the volume is mounted
    #[arg(short = 'n', conflicts_with_all = ["auto", "preen", "yes"])]
    check_only: bool,

    /// Accepted for fsck(8); this version checks only
    #[arg(short = 'a')]
    auto: bool,

    /// Accepted for fsck(8); this version checks only
    #[arg(short = 'p')]
    preen: bool,

    /// Accepted for fsck(8); this version checks only
    #[arg(short = 'y')]
    yes: bool,

    /// Check even if the volume looks clean (it always does)
    #[arg(short, long)]
    force: bool,

    /// Say nothing when all is well
    #[arg(short, long)]
    quiet: bool,

    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: (),

    /// Block device or file
    device: PathBuf,
}

fn run(options: &Options) -> Result<Report, String> {
    let path = &options.device;
    let name = path.display();
    if !options.check_only {
        match probe::in_use(path) {
            Err(error) => return Err(format!("{name}: {error}")),
            Ok(Some(used)) => return Err(format!("{name} is {used}; -n checks it all the same")),
            Ok(None) => {}
        }
    }
    let access = if options.check_only {
        Access::Read
    } else {
        Access::ReadExclusive
    };
    let device = FileDevice::open(path, access).map_err(|error| format!("{name}: {error}"))?;
    check(&device).map_err(|error| format!("{name}: {error}"))
}

fn show(options: &Options, report: &Report) {
    let name = options.device.display();
    for fault in &report.faults {
        println!("{name}: {fault}");
    }
    if report.more_faults > 0 {
        println!("{name}: {} more", report.more_faults);
    }
    if options.quiet && report.is_clean() {
        return;
    }
    for note in &report.notes {
        println!("{name}: note: {note}");
    }
    if options.auto || options.preen || options.yes {
        println!("{name}: note: this version repairs nothing");
    }
    let used = report.blocks - report.free.min(report.blocks);
    println!(
        "{name}: {}, generation {}, {} inodes ({} directories), {}/{} blocks, {} nodes, {} shared runs",
        if report.is_clean() { "clean" } else { "DAMAGED" },
        report.generation,
        report.inodes,
        report.directories,
        used,
        report.blocks,
        report.nodes,
        report.shared_runs,
    );
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { CLEAN });
        }
    };
    match run(&options) {
        Ok(report) => {
            show(&options, &report);
            ExitCode::from(if report.is_clean() { CLEAN } else { FAULTS })
        }
        Err(why) => {
            eprintln!("fsck.oxfs: {why}");
            ExitCode::from(FAILED)
        }
    }
}
