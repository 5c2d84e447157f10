// SPDX-License-Identifier: GPL-2.0

//! mkfs.oxfs: makes an oxfs volume on a block device or in a file.

use clap::Parser;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::error::Error;
use oxfs::engine::format::{Geometry, GROUP_BLOCKS, VERSION};
use oxfs::engine::mkfs::{format, MkfsOptions, Summary};
use oxfs::engine::types::{BlockNr, BLOCK_SIZE};
use oxfs::file::{Access, FileDevice};
use oxfs::now;
use oxfs::probe;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use uuid::Uuid;

/// Make an oxfs volume of a whole device or file. What it held is lost.
#[derive(Parser)]
#[command(
    name = "mkfs.oxfs",
    bin_name = "mkfs.oxfs",
    version,
    disable_version_flag = true
)]
pub struct Options {
    /// Name of the volume, up to 255 bytes
    #[arg(short = 'L', long, default_value = "", hide_default_value = true)]
    label: String,

    /// UUID of the volume instead of a random one
    #[arg(short = 'U', long)]
    uuid: Option<Uuid>,

    /// Overwrite another filesystem or a partition table
    #[arg(short, long)]
    force: bool,

    /// Say nothing
    #[arg(short, long)]
    quiet: bool,

    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: (),

    /// Block device or file
    device: PathBuf,
}

fn check_device(path: &Path, force: bool) -> Result<(), String> {
    let name = path.display();
    match probe::in_use(path) {
        Err(error) => return Err(format!("{name}: {error}")),
        Ok(Some(used)) => return Err(format!("{name} is {used}")),
        Ok(None) => {}
    }
    match probe::signature(path) {
        Err(error) => Err(format!("{name}: {error}")),
        Ok(Some(found)) if !force => Err(format!("{name} holds {found}; --force overwrites it")),
        Ok(_) => Ok(()),
    }
}

/// What is cleared at both ends of a device: all that filesystems, partition tables and arrays of disks
/// have there, also ZFS (512 KiB) and old MD arrays (up to 128 KiB before the end).
const EDGE: u64 = (1 << 20) / BLOCK_SIZE as u64;

/// Removes what others leave at both ends of a device, so that nothing takes the volume for theirs.
fn wipe_ends(device: &FileDevice) -> Result<(), Error> {
    let zeros = [0; BLOCK_SIZE];
    let end = device.blocks();
    let edge = EDGE.min(end / 2);
    for block in (0..edge).chain(end - edge..end) {
        device.write(&[Write {
            block: BlockNr(block),
            data: &zeros,
        }])?;
    }
    device.clear_rest()
}

fn show(options: &Options, uuid: Uuid, made: &Summary) -> io::Result<()> {
    let mib = |blocks: u64| blocks * BLOCK_SIZE as u64 / (1 << 20);
    let (blocks, free) = (made.blocks, made.free);
    let out = &mut io::stdout().lock();
    writeln!(out, "oxfs {VERSION} on {}", options.device.display())?;
    writeln!(out, "  label   \"{}\"", options.label)?;
    writeln!(out, "  uuid    {uuid}")?;
    let size = mib(blocks);
    writeln!(
        out,
        "  size    {blocks} blocks of {BLOCK_SIZE} bytes ({size} MiB)"
    )?;
    writeln!(out, "  groups  {} of {GROUP_BLOCKS} blocks", made.groups)?;
    writeln!(out, "  free    {free} blocks ({} MiB)", mib(free))
}

fn run(options: &Options) -> Result<(), String> {
    let path = &options.device;
    if options.label.len() > 255 {
        return Err("the label is longer than 255 bytes".into());
    }
    check_device(path, options.force)?;
    let name = path.display();
    let device = FileDevice::open(path, Access::WriteExclusive).map_err(|error| match error {
        busy if busy.kind() == io::ErrorKind::ResourceBusy => format!("{name} is in use"),
        error => format!("{name}: {error}"),
    })?;
    if Geometry::for_device(device.blocks()).is_some() {
        wipe_ends(&device).map_err(|error| format!("{name}: {error}"))?;
    }
    let uuid = options.uuid.unwrap_or_else(Uuid::new_v4);
    let made = format(
        device,
        &MkfsOptions {
            uuid: *uuid.as_bytes(),
            label: options.label.as_bytes(),
            hash_seed: *Uuid::new_v4().as_bytes(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            time: now(),
        },
    )
    .map_err(|error| format!("{name}: {error}"))?;
    let shown = match options.quiet {
        true => Ok(()),
        false => show(options, uuid, &made),
    };
    match shown {
        // Nobody reads on: the volume is made.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("mkfs.oxfs: {why}");
            ExitCode::FAILURE
        }
    }
}
