// SPDX-License-Identifier: GPL-2.0

//! mkfs.oxfs and fsck.oxfs as programs: what they refuse, what they say, how they exit.

use oxfs::engine::mount::MountOptions;
use oxfs::engine::volume::Volume;
use oxfs::file::{Access, FileDevice};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const MKFS: &str = env!("CARGO_BIN_EXE_mkfs-oxfs");
const FSCK: &str = env!("CARGO_BIN_EXE_fsck-oxfs");
const SIZE: u64 = 24 << 20;

/// A file that goes when the test is over.
struct Image(PathBuf);

impl Image {
    fn new(name: &str, size: u64) -> Self {
        let path = std::env::temp_dir().join(format!("oxfs-{}-{name}", std::process::id()));
        File::create(&path)
            .and_then(|file| file.set_len(size))
            .expect("image");
        Self(path)
    }

    fn put(&self, at: u64, data: &[u8]) {
        let file = OpenOptions::new().write(true).open(&self.0).expect("image");
        file.write_all_at(data, at).expect("write");
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run(program: &str, options: &[&str], path: &Path) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .args(options)
        .arg(path)
        .output()
        .expect("run");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn makes_what_it_says_and_finds_it_clean() {
    let image = Image::new("make", SIZE);
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let (code, said, _) = run(MKFS, &["--label", "my volume", "--uuid", uuid], &image.0);
    assert_eq!(code, Some(0));
    assert!(said.contains("my volume") && said.contains(uuid) && said.contains("6144 blocks"));

    let device = FileDevice::open(&image.0, Access::Read).expect("open");
    let volume = Volume::mount(device, &MountOptions { read_only: true }).expect("mount");
    assert!(volume.label().starts_with(b"my volume\0"));
    assert_eq!(volume.statfs().blocks, 6144);
    assert!(said.contains(&format!("free    {} blocks", volume.statfs().free)));

    for option in ["-n", "-a", "-p", "-y", "-f"] {
        let (code, said, _) = run(FSCK, &[option], &image.0);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("clean"));
    }
}

#[test]
fn asks_before_it_overwrites() {
    let image = Image::new("force", SIZE);
    image.put(1024 + 56, &[0x53, 0xef]);
    image.put(0, b"XFSB");
    let (code, _, why) = run(MKFS, &[], &image.0);
    assert_eq!(code, Some(1));
    assert!(why.contains("--force"), "{why}");
    assert_eq!(
        run(MKFS, &["-q", "--force"], &image.0),
        (Some(0), String::new(), String::new())
    );
    // Now it is an oxfs, and nothing of the other is left.
    let (code, _, why) = run(MKFS, &[], &image.0);
    assert_eq!(code, Some(1));
    assert!(why.contains("holds oxfs "), "{why}");
    assert_eq!(run(FSCK, &[], &image.0).0, Some(0));
}

#[test]
fn refuses_what_it_cannot_use() {
    let small = Image::new("small", (16 << 20) - 1);
    let (code, _, why) = run(MKFS, &[], &small.0);
    assert_eq!(code, Some(1));
    assert!(why.contains("smaller than 16 MiB"), "{why}");
    assert_eq!(run(MKFS, &[], Path::new("/dev/null")).0, Some(1));
    assert_eq!(run(MKFS, &[], Path::new("/does/not/exist")).0, Some(1));
    let long = "x".repeat(256);
    assert_eq!(run(MKFS, &["-L", &long], &small.0).0, Some(1));
    assert_ne!(run(MKFS, &["--uuid", "none"], &small.0).0, Some(0));
}

#[test]
fn exits_as_fsck_does() {
    let image = Image::new("fsck", SIZE);
    let (code, _, why) = run(FSCK, &[], &image.0);
    assert_eq!(code, Some(8));
    assert!(why.contains("not an oxfs volume"), "{why}");
    assert_eq!(run(FSCK, &["--nonsense"], &image.0).0, Some(16));
    assert_eq!(run(FSCK, &[], Path::new("/does/not/exist")).0, Some(8));

    assert_eq!(run(MKFS, &["-q"], &image.0).0, Some(0));
    // Damage all nodes: a volume that was just made has them after the first bitmap.
    for block in 18..40 {
        image.put(block * 4096 + 100, b"damage");
    }
    let (code, said, _) = run(FSCK, &["-n"], &image.0);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("node-damaged: block "), "{said}");
}

#[test]
fn repairs_and_says_so() {
    let image = Image::new("repair", SIZE);
    assert_eq!(run(MKFS, &["-q"], &image.0).0, Some(0));
    assert_eq!(run(FSCK, &["-y"], &image.0).0, Some(0));
    // Both places of the bitmap.
    for block in [17, 1025] {
        image.put(block * 4096 + 2000, b"damage");
    }
    let (code, said, _) = run(FSCK, &[], &image.0);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("bitmap-damaged: block "), "{said}");
    let (code, said, _) = run(FSCK, &["-y", "--json"], &image.0);
    assert_eq!(code, Some(1), "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&said["clean"], &said["found"], &said["left"]),
        (&true.into(), &1.into(), &0.into())
    );
    assert_eq!(said["faults"][0]["rule"], "bitmap-damaged");
    let (code, said, _) = run(FSCK, &["-n"], &image.0);
    assert_eq!(code, Some(0), "{said}");
}

/// What others look for at the ends of a device is gone, also behind the last whole block.
#[test]
fn nothing_of_what_was_there_is_left_at_the_ends() {
    const EDGE: u64 = 1 << 20;
    let image = Image::new("ends", SIZE + 1234);
    let junk = vec![0xa5; EDGE as usize];
    image.put(0, &junk);
    image.put(SIZE + 1234 - EDGE, &junk);
    let (code, _, why) = run(MKFS, &["--force"], &image.0);
    assert_eq!(code, Some(0), "{why}");
    let data = std::fs::read(&image.0).expect("image");
    assert!(!data.windows(16).any(|bytes| bytes == [0xa5; 16]));
    let (code, said, _) = run(FSCK, &[], &image.0);
    assert_eq!(code, Some(0), "{said}");
}

/// Who does not read on is told by the exit status all the same.
#[test]
fn a_reader_that_is_gone_is_no_failure() {
    let image = Image::new("pipe", SIZE);
    for (program, option) in [(MKFS, "--force"), (FSCK, "-n"), (FSCK, "--json")] {
        let mut command = Command::new(program);
        let command = command.arg(option).arg(&image.0).stdout(Stdio::piped());
        let mut child = command.spawn().expect("run");
        drop(child.stdout.take());
        let status = child.wait().expect("wait");
        assert_eq!(status.code(), Some(0), "{program} {option}");
    }
}
