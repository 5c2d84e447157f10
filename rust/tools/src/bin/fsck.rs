// SPDX-License-Identifier: GPL-2.0

//! fsck.oxfs: checks an oxfs volume, names every rule that it breaks, and repairs what takes no
//! guess. Exit codes of fsck(8).

use clap::Parser;
use oxfs::check::{examine, Report};
use oxfs::file::{Access, FileDevice};
use oxfs::now;
use oxfs::probe;
use oxfs::repair::repair;
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// No errors.
const CLEAN: u8 = 0;
/// Errors were corrected. Together with the next: some were.
const CORRECTED: u8 = 1;
/// Errors left uncorrected.
const FAULTS: u8 = 4;
/// Operational error.
const FAILED: u8 = 8;
/// Usage or syntax error.
const USAGE: u8 = 16;

/// Check an oxfs volume, and repair it
///
/// Without -y or -p it is only read. A repair puts right what takes no guess: bitmaps, free and
/// reference counts, the list of orphans, link counts; inodes without a name get one in lost+found.
/// It is one commit, or one for each round where a fault hid another: a repair that is interrupted leaves
/// the volume as a commit left it.
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

    /// The same as -p
    #[arg(short = 'a')]
    auto: bool,

    /// Repair what takes no guess: no repair does more
    #[arg(short = 'p')]
    preen: bool,

    /// The same as -p
    #[arg(short = 'y')]
    yes: bool,

    /// Check even if the volume looks clean (it always does)
    #[arg(short, long)]
    force: bool,

    /// Say nothing when all is well
    #[arg(short, long)]
    quiet: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: (),

    /// Block device or file
    device: PathBuf,
}

/// What was found, and what was done about it.
struct Outcome {
    before: Report,
    after: Option<Report>,
    why_not: Option<String>,
}

impl Outcome {
    fn last(&self) -> &Report {
        self.after.as_ref().unwrap_or(&self.before)
    }

    fn repaired(&self) -> u64 {
        self.before.total().saturating_sub(self.last().total())
    }

    fn code(&self) -> u8 {
        let corrected = if self.repaired() > 0 { CORRECTED } else { 0 };
        let left = if self.last().is_clean() { 0 } else { FAULTS };
        corrected | left
    }
}

/// Shows on a terminal how far the check is.
fn progress() -> impl FnMut(u64) {
    let (shown, mut last) = (std::io::stderr().is_terminal(), Instant::now());
    move |nodes| {
        if shown && last.elapsed() > Duration::from_millis(200) {
            last = Instant::now();
            eprint!("\r{nodes} nodes\x1b[K\r");
            let _ = std::io::stderr().flush();
        }
    }
}

fn run(options: &Options) -> Result<Outcome, String> {
    let path = &options.device;
    let name = path.display();
    if !options.check_only {
        match probe::in_use(path) {
            Err(error) => return Err(format!("{name}: {error}")),
            Ok(Some(used)) => return Err(format!("{name} is {used}; -n checks it all the same")),
            Ok(None) => {}
        }
    }
    let repairs = options.auto || options.preen || options.yes;
    let access = match (options.check_only, repairs) {
        (true, _) => Access::Read,
        (_, false) => Access::ReadExclusive,
        (_, true) => Access::WriteExclusive,
    };
    let failed = |error: &dyn std::fmt::Display| format!("{name}: {error}");
    let device = FileDevice::open(path, access).map_err(|error| failed(&error))?;
    let mut progress = progress();
    if !repairs {
        let (before, _) = examine(&device, &mut progress).map_err(|error| failed(&error))?;
        return Ok(Outcome {
            before,
            after: None,
            why_not: None,
        });
    }
    let done = repair(&device, now(), &mut progress).map_err(|error| failed(&error))?;
    let unknown = done
        .after
        .unknown
        .then(|| "not all owners of blocks are known".to_owned());
    Ok(Outcome {
        before: done.before,
        why_not: done.failed.map(|error| error.to_string()).or(unknown),
        after: Some(done.after),
    })
}

fn show_faults(out: &mut dyn Write, options: &Options, report: &Report) -> io::Result<()> {
    let name = options.device.display();
    for fault in &report.faults {
        writeln!(out, "{name}: {fault}")?;
    }
    if report.more_faults > 0 {
        writeln!(out, "{name}: {} more", report.more_faults)?;
    }
    Ok(())
}

fn show(out: &mut dyn Write, options: &Options, outcome: &Outcome) -> io::Result<()> {
    let (name, report) = (options.device.display(), outcome.last());
    show_faults(out, options, &outcome.before)?;
    if options.quiet && outcome.code() == CLEAN {
        return Ok(());
    }
    for note in &report.notes {
        writeln!(out, "{name}: note: {note}")?;
    }
    if outcome.after.is_some() && !outcome.before.is_clean() {
        writeln!(
            out,
            "{name}: {} repaired, {} left",
            outcome.repaired(),
            report.total()
        )?;
        if outcome.repaired() > 0 {
            show_faults(out, options, report)?;
        }
        if let Some(why) = &outcome.why_not {
            writeln!(out, "{name}: not repaired: {why}")?;
        }
    }
    let used = report.blocks - report.free.min(report.blocks);
    writeln!(
        out,
        "{name}: {}, generation {}, {} inodes ({} directories), {}/{} blocks, {} nodes, {} shared runs",
        if report.is_clean() { "clean" } else { "DAMAGED" },
        report.generation,
        report.inodes,
        report.directories,
        used,
        report.blocks,
        report.nodes,
        report.shared_runs,
    )
}

fn show_json(out: &mut dyn Write, options: &Options, outcome: &Outcome) -> io::Result<()> {
    let faults = |report: &Report| -> Vec<_> {
        let fault =
            |f: &oxfs::check::Fault| json!({"rule": f.rule, "block": f.block, "what": f.what});
        report.faults.iter().map(fault).collect()
    };
    let report = outcome.last();
    let object = json!({
        "device": options.device.display().to_string(),
        "clean": report.is_clean(),
        "found": outcome.before.total(),
        "repaired": outcome.repaired(),
        "left": report.total(),
        "not_repaired_because": outcome.why_not,
        "faults": faults(&outcome.before),
        "faults_left": faults(report),
        "notes": report.notes,
        "generation": report.generation,
        "inodes": report.inodes,
        "directories": report.directories,
        "blocks": report.blocks,
        "free": report.free,
        "nodes": report.nodes,
        "shared_runs": report.shared_runs,
    });
    writeln!(out, "{object:#}")
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
        Ok(outcome) => {
            let out = &mut io::stdout().lock();
            let shown = match options.json {
                true => show_json(out, &options, &outcome),
                false => show(out, &options, &outcome),
            };
            // Nobody reads on: what there was to do is done.
            let failed = shown.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe);
            ExitCode::from(outcome.code() | if failed { FAILED } else { CLEAN })
        }
        Err(why) => {
            eprintln!("fsck.oxfs: {why}");
            ExitCode::from(FAILED)
        }
    }
}
