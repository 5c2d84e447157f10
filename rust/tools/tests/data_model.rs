// SPDX-License-Identifier: GPL-2.0

//! Random histories of what changes the content of files, against a model that is a map from file
//! block to a number: writes, every mode of fallocate, clones, deduplication, truncates, swapfiles,
//! snapshots, commits, remounts. After each history the content, who shares it, the sizes and
//! `st_blocks` agree, and the checker finds nothing.

mod op;
mod swap;

use crate::common::{assert_clean, cases, formatted, mount, new_inode, SimVolume, SMALL};
use op::{op, Op, Range};
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{root_of, TOP};
use oxfs::engine::types::{Backing, BlockNr, FileBlock, InodeId, Run, Time, MAX_FILE_BLOCKS};
use oxfs::engine::Error;
use oxfs::platform::Block;
use oxfs::sim::SimDisk;
use proptest::prelude::*;
use std::collections::BTreeMap;

const FILES: usize = 4;
/// The subvolume and its snapshots.
const VIEWS: usize = 4;
/// Files stay smaller than this, so that operations meet.
const SPAN: u64 = 2200;

const NOW: Time = Time {
    sec: 1_700_000_000,
    nsec: 5,
};

/// What is at a block of a file: absent is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// Data: its number.
    Data(u64),
    /// Reads as zeros, counts in `st_blocks`.
    Zero,
}

impl Cell {
    fn number(&self) -> Option<u64> {
        match *self {
            Self::Data(number) => Some(number),
            Self::Zero => None,
        }
    }
}

/// A file of the model.
#[derive(Debug, Clone, Default)]
struct Model {
    cells: BTreeMap<u64, Cell>,
    /// Pages of the active swapfile.
    swap: Option<u64>,
}

impl Model {
    fn clear(&mut self, start: u64, len: u64) {
        self.cells
            .retain(|at, _| !(start..start + len).contains(at));
    }

    /// The block after the last one that is no hole.
    fn end(&self) -> u64 {
        self.cells.last_key_value().map_or(0, |(at, _)| at + 1)
    }

    /// Moves what is at each block to where `to` says.
    fn move_cells(&mut self, to: impl Fn(u64) -> u64) {
        let cells = std::mem::take(&mut self.cells);
        self.cells = cells.into_iter().map(|(at, cell)| (to(at), cell)).collect();
    }
}

/// A file that has a block, the place in it, and what the volume says there.
type Owner = (usize, u64, Backing);

struct World {
    disk: SimDisk,
    volume: SimVolume,
    files: Vec<InodeId>,
    models: Vec<Model>,
    next: u64,
}

fn data_block(number: u64) -> Block {
    let mut block = [0; 4096];
    for (i, byte) in number
        .to_le_bytes()
        .into_iter()
        .cycle()
        .take(4096)
        .enumerate()
    {
        block[i] = byte;
    }
    block
}

impl World {
    fn new(blocks: u64) -> Self {
        let disk = formatted(blocks);
        let volume = mount(&disk);
        let files = (0..FILES).map(|i| {
            let (name, new) = (format!("file{i}"), new_inode(0o100600, NOW));
            let made = volume.create(root_of(TOP), name.as_bytes(), &new);
            made.expect("create").value.id
        });
        let files = files.collect();
        Self {
            disk,
            volume,
            files,
            models: vec![Model::default(); FILES],
            next: 1,
        }
    }

    fn write(&mut self, file: usize, start: u64, len: u64) -> Result<(), Error> {
        let numbers: Vec<_> = (self.next..self.next + len).collect();
        self.next += len;
        self.write_numbers(file, start, &numbers)
    }

    /// Writes as the kernel does: reserve, stage or overwrite in place, write, map.
    fn write_numbers(&mut self, file: usize, start: u64, numbers: &[u64]) -> Result<(), Error> {
        let (id, end) = (self.files[file], start + numbers.len() as u64);
        self.volume
            .prepare_write(id, FileBlock(start), end - start)?;
        let mut at = start;
        while at < end {
            let map = self.volume.map(id, FileBlock(at), end - at)?;
            let (run, written) = match map.backing {
                Backing::Written { at, shared: false }
                | Backing::Prealloc { at, shared: false } => {
                    self.volume.reserve_in_place(map.len)?;
                    (Run::new(at, map.len), Written::InPlace)
                }
                _ => {
                    self.volume.reserve(map.len)?;
                    let run = self.volume.stage(id, FileBlock(at), map.len)?;
                    self.volume.unreserve(map.len - run.len);
                    (run, Written::Staged(run.start))
                }
            };
            for (i, number) in (0..run.len).zip(&numbers[(at - start) as usize..]) {
                let data = data_block(*number);
                let block = BlockNr(run.start.0 + i);
                self.disk.write(&[Write { block, data: &data }])?;
                let cell = Cell::Data(*number);
                self.models[file].cells.insert(at + i, cell);
            }
            let size = (at + run.len) * 4096;
            let (start, len) = (FileBlock(at), run.len);
            let done = self
                .volume
                .finish_write(id, start, len, written, Some(size));
            if written == Written::InPlace {
                done.expect("mapping was promised");
                self.volume.unreserve_in_place(len);
            } else {
                done?;
            }
            at += run.len;
        }
        Ok(())
    }

    fn size(&self, file: usize) -> u64 {
        self.volume.inode(self.files[file]).expect("inode").size / 4096
    }

    /// Whether the mapping of a file may not change now.
    fn pinned(&self, file: usize) -> bool {
        self.models[file].swap.is_some()
    }

    /// The file that a number from 0 to `FILES * VIEWS` - 1 means: those of the snapshots come after
    /// the subvolume's own.
    fn pick(&self, file: usize) -> usize {
        file % self.files.len()
    }

    fn snapshot(&mut self, view: usize) -> Result<(), Error> {
        let views = self.files.len() / FILES;
        if views == VIEWS {
            return Ok(());
        }
        let first = view % views * FILES;
        self.next += 1;
        let name = format!("view {}", self.next);
        let new = NewSnapshot {
            source: self.files[first].subvol,
            dir: root_of(TOP),
            name: name.as_bytes(),
            read_only: false,
            uuid: [view as u8; 16],
            time: NOW,
        };
        let subvol = self.volume.snapshot(&new)?.value.id.subvol;
        for file in first..first + FILES {
            self.files.push(InodeId {
                subvol,
                ..self.files[file]
            });
            let model = Model {
                swap: None,
                ..self.models[file].clone()
            };
            self.models.push(model);
        }
        Ok(())
    }

    fn delete(&mut self, view: usize) -> Result<(), Error> {
        let first = view % (self.files.len() / FILES) * FILES;
        let subvol = self.files[first].subvol;
        // The top level has no name.
        if first == 0 {
            return Ok(());
        }
        let name = self.volume.path(root_of(subvol))?;
        let deleted = self.volume.delete_subvolume(root_of(TOP), &name, NOW);
        if (first..first + FILES).any(|file| self.pinned(file)) {
            assert_eq!(deleted.map(drop), Err(Error::Busy));
            return Ok(());
        }
        deleted?;
        self.files.drain(first..first + FILES);
        self.models.drain(first..first + FILES);
        Ok(())
    }

    /// Some steps of dropping what was deleted; there is always room for them.
    fn drop_some(&mut self, steps: usize) -> Result<(), Error> {
        for _ in 0..steps {
            if let Some(id) = self.volume.next_dropping(TOP)? {
                self.volume.drop_step(id).expect("room to drop");
            }
        }
        Ok(())
    }

    fn remount(&mut self) -> Result<(), Error> {
        for file in 0..self.files.len() {
            self.models[file].swap = None;
            self.volume.set_swapping(self.files[file], false)?;
        }
        self.volume.unmount()?;
        self.volume = mount(&self.disk);
        self.files
            .iter()
            .try_for_each(|id| self.volume.open_subvolume(id.subvol))
    }

    /// Which files have each block of the disk.
    fn owners(&self) -> Result<BTreeMap<u64, Vec<Owner>>, Error> {
        let mut owners: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (file, model) in self.models.iter().enumerate() {
            let (start, len) = (0, model.end());
            self.each_piece(Range { file, start, len }, |start, len, backing| {
                if let Backing::Written { at, .. } | Backing::Prealloc { at, .. } = backing {
                    for i in 0..len {
                        let places = owners.entry(at.0 + i).or_default();
                        places.push((file, start + i, backing));
                    }
                }
            })?;
        }
        Ok(owners)
    }

    /// Compares everything with the model.
    fn verify(&self) {
        for file in 0..self.files.len() {
            self.verify_file(file);
        }
        for (block, places) in self.owners().expect("map") {
            // What was shared until the last commit may still count as that.
            let own = places.iter().any(|(.., backing)| backing.is_exclusive());
            assert!(!own || places.len() == 1, "block {block} is at {places:?}");
        }
    }

    fn verify_file(&self, file: usize) {
        let (id, model) = (self.files[file], &self.models[file]);
        let blocks = self.volume.inode(id).expect("inode").blocks;
        assert_eq!(blocks, model.cells.len() as u64, "st_blocks of file {file}");
        let (start, len) = (0, model.end() + 3);
        let compare = |start, len, backing| {
            for i in 0..len {
                match (backing, model.cells.get(&(start + i))) {
                    (Backing::Hole, None) => {}
                    (Backing::Unbacked | Backing::Prealloc { .. }, Some(Cell::Zero)) => {}
                    (Backing::Written { at, .. }, Some(Cell::Data(number))) => {
                        let block = BlockNr(at.0 + i);
                        let mut data = [0; 4096];
                        self.disk.read(block, &mut data).expect("read");
                        let right = data == data_block(*number);
                        assert!(right, "file {file} block {}", start + i);
                    }
                    other => panic!("file {file} block {}: {other:?}", start + i),
                }
            }
        };
        let range = Range { file, start, len };
        self.each_piece(range, compare).expect("map");
        // What is asked for in part is as exclusive as the whole.
        let inside = |start, len, backing: Backing| {
            let part = self.volume.map(id, FileBlock(start + len / 2), 1);
            let part = part.expect("map").backing;
            assert_eq!(
                part.is_exclusive(),
                backing.is_exclusive(),
                "file {file} at {start}"
            );
        };
        self.each_piece(range, inside).expect("map");
    }

    fn check(&self) {
        self.volume.commit().expect("commit");
        assert_clean(&self.disk);
    }
}

fn run(blocks: u64, ops: &[Op]) {
    let mut world = World::new(blocks);
    for (i, op) in ops.iter().enumerate() {
        match world.apply(op) {
            Ok(()) => {}
            // What a full volume refuses half way is not modelled: start from what there is.
            Err(Error::NoSpace) => {
                assert_eq!(
                    world.volume.fault(),
                    None,
                    "step {i} {op:?} failed half way"
                );
                return world.check();
            }
            Err(error) => panic!("step {i} {op:?}: {error}"),
        }
        if i % 8 == 7 {
            world.verify();
            world.check();
        }
    }
    world.verify();
    world.check();
    world.remount().expect("remount");
    world.verify();
    while world.volume.next_dropping(TOP).expect("next").is_some() {
        world.drop_some(1).expect("drop");
    }
    world.check();
    assert!((0..world.files.len()).all(|file| world.size(file) <= MAX_FILE_BLOCKS));
}

/// A full volume, on which file 0 has `len` blocks that were allocated and never written.
fn full_volume(len: u64) -> World {
    let mut world = World::new(20_000);
    let allocate = Op::Prealloc(Range {
        file: 0,
        start: 0,
        len,
    });
    world.apply(&allocate).expect("allocate");
    let mut places = (0..20_000).step_by(64);
    let full = places.find_map(|at| world.write(1, at, 64).err());
    assert_eq!(full, Some(Error::NoSpace));
    world
}

#[test]
fn what_was_allocated_can_be_written_on_a_full_volume() {
    let mut world = full_volume(8_000);
    for at in (0..8_000).rev().step_by(5) {
        world.write(0, at - 4, 5).expect("it has its place");
    }
    world.write(1, 0, 64).expect("what was written, too");
    world.check();
    world.verify();
}

/// The most extents that there can be: at the worst a write is refused, never lost.
#[test]
fn every_second_block_on_a_full_volume() {
    let mut world = full_volume(8_000);
    let mut places = (0..8_000).step_by(2);
    let refused = places.find_map(|at| world.write(0, at, 1).err().map(|error| (at, error)));
    assert!(
        matches!(refused, None | Some((2_000.., Error::NoSpace))),
        "{refused:?}"
    );
    world.check();
    world.verify();
}

/// A leaf that points to more shared pieces than one step can count is dropped in parts.
#[test]
fn dropping_a_leaf_in_parts() {
    let mut world = World::new(SMALL);
    for at in (0..80).step_by(2) {
        world.write(0, at, 1).expect("write");
    }
    world.snapshot(0).expect("snapshot");
    // Its leaf is its own from here on.
    world.write(FILES, 100, 1).expect("write");
    world.delete(1).expect("delete");
    let mut steps = 0;
    while world.volume.next_dropping(TOP).expect("next").is_some() {
        world.drop_some(1).expect("drop");
        world.check();
        steps += 1;
    }
    assert!(steps > 4, "{steps} steps");
    world.verify();
}

/// The item of an extent that begins before a leaf's bound is in the leaf before. Who owns its blocks
/// is decided by the way to that leaf, also for the part of it behind the bound.
#[test]
fn an_extent_across_the_bound_of_a_leaf() {
    for bound in (300..1300).step_by(10) {
        let mut world = World::new(SMALL);
        for at in (0..2000).step_by(10) {
            world.write(0, at, 1).expect("write");
        }
        let across = Range {
            file: 0,
            start: bound - 10,
            len: 20,
        };
        world.apply(&Op::Punch(across)).expect("punch");
        world.write(0, bound - 10, 20).expect("write");
        world.snapshot(0).expect("snapshot");
        // The leaf behind the bound is the file's own from here on.
        world.write(0, bound + 100, 1).expect("write");
        world.write(0, bound + 2, 3).expect("write");
        world.verify();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(128), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_agree_with_the_model(ops in proptest::collection::vec(op(), 1..60)) {
        run(40_000, &ops);
    }

    #[test]
    fn histories_on_a_full_volume(ops in proptest::collection::vec(op(), 1..60)) {
        run(SMALL, &ops);
    }
}
