// SPDX-License-Identifier: GPL-2.0

//! mkfs.oxfs: makes an oxfs volume on a block device or in a file.

use clap::Parser;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::error::Error;
use oxfs::engine::format::{Geometry, GROUP_BLOCKS, SUPER_SLOTS, VERSION};
use oxfs::engine::mkfs::{format, MkfsOptions, Summary};
use oxfs::engine::types::{BlockNr, BLOCK_SIZE};
use oxfs::file::{Access, FileDevice};
use oxfs::now;
use oxfs::probe;
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

/// Removes what other filesystems and partition tables leave at both ends of a device, so that
/// nothing takes the volume for one of them. None of it is where a super block goes.
fn wipe_ends(device: &FileDevice) -> Result<(), Error> {
    let zeros = [0; BLOCK_SIZE];
    let end = device.blocks();
    let edge = SUPER_SLOTS[0].min(end / 2);
    for block in (0..edge).chain(end - edge..end) {
        device.write(&[Write {
            block: BlockNr(block),
            data: &zeros,
        }])?;
    }
    Ok(())
}

fn show(options: &Options, uuid: Uuid, made: &Summary) {
    let mib = |blocks: u64| blocks * BLOCK_SIZE as u64 / (1 << 20);
    println!("oxfs {VERSION} on {}", options.device.display());
    println!("  label   \"{}\"", options.label);
    println!("  uuid    {uuid}");
    println!(
        "  size    {} blocks of {BLOCK_SIZE} bytes ({} MiB)",
        made.blocks,
        mib(made.blocks)
    );
    println!("  groups  {} of {GROUP_BLOCKS} blocks", made.groups);
    println!("  free    {} blocks ({} MiB)", made.free, mib(made.free));
}

fn run(options: &Options) -> Result<(), String> {
    let path = &options.device;
    if options.label.len() > 255 {
        return Err("the label is longer than 255 bytes".into());
    }
    check_device(path, options.force)?;
    let name = path.display();
    let device = FileDevice::open(path, Access::WriteExclusive).map_err(|error| match error {
        busy if busy.kind() == std::io::ErrorKind::ResourceBusy => format!("{name} is in use"),
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
    if !options.quiet {
        show(options, uuid, &made);
    }
    Ok(())
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
