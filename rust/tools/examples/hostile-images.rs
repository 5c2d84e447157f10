// SPDX-License-Identifier: GPL-2.0

//! `hostile-images FOLDER`: writes the damaged volumes of the host tests into files, for a guest to
//! mount (`qemu/hostile/run`).

// Of the tests it needs what makes images.
#![allow(dead_code, unused_imports)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/faults.rs"]
mod faults;
#[path = "../tests/hostile.rs"]
mod hostile;
#[path = "../tests/lies.rs"]
mod lies;

use oxfs::engine::device::BlockDevice;
use oxfs::sim::SimDisk;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How many images are made by chance, the same each time.
const RANDOM: u64 = 40;

/// Writes the blocks that are in use.
fn write(disk: &SimDisk, path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(disk.blocks() << 12)?;
    let image = disk.image();
    for block in image.blocks() {
        if let Some(data) = image.get(block) {
            file.write_all_at(&data[..], block.0 << 12)?;
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).expect("a folder");
    let lies = lies::images().into_iter();
    let named = |kind| move |(name, disk): (&str, SimDisk)| (format!("{kind}-{name}"), disk);
    let all = hostile::images(RANDOM)
        .into_iter()
        .chain(lies.map(named("lie")))
        .chain(faults::images().map(named("fault")));
    for (name, disk) in all {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        write(&disk, &Path::new(&folder).join(name + ".img"))?;
    }
    Ok(())
}
