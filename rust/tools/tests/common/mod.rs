// SPDX-License-Identifier: GPL-2.0

//! What the tests share: volumes on simulated disks, and a check that must find nothing.

#![allow(dead_code)]

pub mod states;
pub mod world;

use oxfs::check::check;
use oxfs::engine::data::Written;
use oxfs::engine::device::BlockDevice;
use oxfs::engine::format::{Geometry, SuperBlock};
use oxfs::engine::inode::NewInode;
use oxfs::engine::mkfs::{format, MkfsOptions};
use oxfs::engine::mount::MountOptions;
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::types::{BlockNr, FileBlock, InodeId, SubvolId, Time, ROOT_INO};
use oxfs::engine::volume::Volume;
use oxfs::sim::SimDisk;
use std::sync::mpsc;
use std::time::Duration;
use zerocopy::FromBytes;

/// A volume on a simulated disk.
pub type SimVolume = Volume<SimDisk>;

/// The smallest volume.
pub const SMALL: u64 = 4096;

/// Seconds as a time.
pub const fn at(sec: i64) -> Time {
    Time { sec, nsec: 7 }
}

/// How volumes are made.
pub const MKFS: MkfsOptions<'static> = MkfsOptions {
    uuid: *b"0123456789abcdef",
    label: b"test",
    hash_seed: [7; 16],
    uid: 0,
    gid: 0,
    time: at(1),
};

/// A disk of `blocks` blocks with an empty volume.
pub fn formatted(blocks: u64) -> SimDisk {
    let disk = SimDisk::new(blocks);
    format(disk.clone(), &MKFS).expect("mkfs");
    disk
}

/// Mounts for writing.
pub fn mount(disk: &SimDisk) -> SimVolume {
    Volume::mount(disk.clone(), &MountOptions { read_only: false }).expect("mount")
}

/// The root directory.
pub fn root(volume: &SimVolume) -> InodeId {
    InodeId {
        subvol: volume.default_subvolume(),
        ino: ROOT_INO,
    }
}

/// Makes a writable snapshot of the default subvolume, in its root directory.
pub fn snapshot(volume: &SimVolume, name: &[u8]) -> SubvolId {
    let new = NewSnapshot {
        source: volume.default_subvolume(),
        dir: root(volume),
        name,
        read_only: false,
        uuid: [5; 16],
        time: at(6),
    };
    volume.snapshot(&new).expect("snapshot").value.id.subvol
}

/// A new inode of this mode.
pub fn new_inode(mode: u32, time: Time) -> NewInode<'static> {
    NewInode {
        mode,
        uid: 1,
        gid: 2,
        rdev: 0,
        project: 0,
        flags: 0,
        time,
        symlink: None,
        xattrs: &[],
    }
}

/// Makes a file of one block, which is mapped; its content is what the device has there.
pub fn file_of_a_block<D: BlockDevice>(volume: &Volume<D>, dir: InodeId, name: &[u8]) -> InodeId {
    let made = volume.create(dir, name, &new_inode(0o100644, at(3)));
    let id = made.expect("create").value.id;
    volume.reserve(1).expect("reserve");
    let run = volume.stage(id, FileBlock(0), 1).expect("stage");
    let staged = Written::Staged(run.start);
    let done = volume.finish_write(id, FileBlock(0), 1, staged, Some(4096));
    done.expect("finish_write");
    id
}

/// The super block that counts, of a volume of the smallest size.
pub fn newest(disk: &SimDisk) -> SuperBlock {
    let copies = Geometry::of_volume(SMALL).expect("geometry").super_copies();
    let read = |at| {
        let mut block = [0; 4096];
        disk.read(BlockNr(at), &mut block).expect("read");
        SuperBlock::read_from_bytes(&block).expect("super block")
    };
    let newest = copies.map(read).into_iter();
    newest
        .max_by_key(|sb| sb.generation.get())
        .expect("four copies")
}

/// What `work` answers; it must not take for ever.
pub fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(work()));
    let answer = receive.recv_timeout(Duration::from_secs(120));
    answer.expect("goes round and round")
}

/// Fails with all faults if the checker finds any.
#[track_caller]
pub fn assert_clean(disk: &SimDisk) {
    let report = check(disk).expect("check");
    if !report.is_clean() {
        let faults: Vec<_> = report
            .faults
            .iter()
            .take(20)
            .map(|f| f.to_string())
            .collect();
        panic!("{} faults:\n{}", report.faults.len(), faults.join("\n"));
    }
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How many histories a property test tries: `PROPTEST_CASES`, or `default`.
pub fn cases(default: u32) -> u32 {
    let wanted = number("PROPTEST_CASES").and_then(|n| n.try_into().ok());
    wanted.unwrap_or(default)
}

/// A small generator of random numbers (splitmix64, Steele et al. 2014): the same seed gives the
/// same history.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Makes choices.
pub trait Choice {
    /// A number.
    fn next(&mut self) -> u64;

    /// A number less than `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

impl Choice for Random {
    fn next(&mut self) -> u64 {
        Self::next(self)
    }
}

/// Choices that bytes make, each a number of up to four of them; zeros when they are used up.
pub struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    /// Choices of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    fn take(&mut self, bytes: usize) -> u64 {
        let (head, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        head.iter().fold(0, |n, &byte| (n << 8) | u64::from(byte))
    }
}

impl Choice for Tape<'_> {
    fn next(&mut self) -> u64 {
        self.take(8)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.take(if n <= 256 { 1 } else { 4 }) % n
    }
}
