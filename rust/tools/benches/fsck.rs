// SPDX-License-Identifier: GPL-2.0

//! What fsck.oxfs costs: `make bench-fsck`. The same million files on volumes of two sizes, each in a
//! sparse file: what it takes grows with the files, not with the volume.

#[path = "../tests/common/mod.rs"]
mod common;
mod table;

use common::{at, file_of_a_block, new_inode, MKFS};
use oxfs::engine::mkfs::format;
use oxfs::engine::mount::MountOptions;
use oxfs::engine::subvolume::{root_of, TOP};
use oxfs::engine::Volume;
use oxfs::file::{Access, FileDevice};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use table::{head, line};

const GIB: u64 = 1 << 30;
/// Files.
const FILES: u64 = 1_000_000;
/// Files of a folder.
const IN_FOLDER: u64 = 1000;

/// Makes a volume of so many bytes, with all of the files.
fn make(path: &Path, bytes: u64) {
    let file = File::create(path).expect("a file");
    file.set_len(bytes).expect("a sparse file");
    let open = || FileDevice::open(path, Access::WriteExclusive).expect("open");
    format(open(), &MKFS).expect("mkfs");
    let volume = Volume::mount(open(), &MountOptions::default()).expect("mount");
    for folder in 0..FILES / IN_FOLDER {
        let name = format!("folder {folder}");
        let made = volume.create(root_of(TOP), name.as_bytes(), &new_inode(0o040755, at(2)));
        let dir = made.expect("create").value.id;
        for i in 0..IN_FOLDER {
            // Its block was never written: the volume stays sparse.
            file_of_a_block(&volume, dir, format!("file number {i}").as_bytes());
        }
        if folder % 100 == 99 {
            volume.commit().expect("commit");
        }
    }
    volume.unmount().expect("unmount");
}

/// KiB that the process had at most so far, while it runs (`VmHWM`, proc_pid_status(5)).
fn peak(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Runs fsck.oxfs, which must find nothing: how long it took, and KiB.
fn check(path: &Path) -> (Duration, u64) {
    let (start, mut most) = (Instant::now(), 0);
    let mut child = Command::new(env!("CARGO_BIN_EXE_fsck-oxfs"))
        .arg("-n")
        .arg(path)
        .stdout(Stdio::null())
        .spawn()
        .expect("fsck.oxfs");
    let status = loop {
        most = most.max(peak(&child).unwrap_or(0));
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(status.success(), "fsck.oxfs: {status}");
    (start.elapsed(), most)
}

fn main() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    head(
        "fsck.oxfs of a million files: seconds, MiB of memory at most",
        &["GiB", "time", "memory"],
    );
    // A file of ext4 ends just before 16 TiB.
    for bytes in [64 * GIB, 16 * 1024 * GIB - GIB] {
        let path = folder.join("fsck-bench.img");
        make(&path, bytes);
        // The first one brings the file into the page cache.
        check(&path);
        let (time, memory) = check(&path);
        std::fs::remove_file(&path).expect("remove");
        line(&[
            (bytes / GIB).to_string(),
            format!("{:.2}", time.as_secs_f64()),
            (memory / 1024).to_string(),
        ]);
    }
}
