// SPDX-License-Identifier: GPL-2.0

//! Random histories of what changes the content of files, against a model that is a map from file
//! block to a number: writes, holes, preallocation, clones, shifts, truncates, swapfiles, commits,
//! remounts. After each history the content, the sizes and `st_blocks` agree, and the checker finds
//! nothing.

use oxfs::check::check;
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::inode::NewInode;
use oxfs::engine::mkfs::{format, MkfsOptions};
use oxfs::engine::mount::MountOptions;
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{root_of, TOP};
use oxfs::engine::swap_plan::PlannedRun;
use oxfs::engine::types::{
    Backing, BlockNr, FileBlock, InodeId, Run, Time, MAX_FILE_BLOCKS, ROOT_INO,
};
use oxfs::engine::{Error, Volume};
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

#[derive(Debug, Clone)]
enum Op {
    Write {
        file: usize,
        start: u64,
        len: u64,
    },
    Punch {
        file: usize,
        start: u64,
        len: u64,
    },
    Prealloc {
        file: usize,
        start: u64,
        len: u64,
    },
    Truncate {
        file: usize,
        blocks: u64,
    },
    Clone {
        from: usize,
        to: usize,
        start: u64,
        target: u64,
        len: u64,
    },
    Collapse {
        file: usize,
        start: u64,
        len: u64,
    },
    Insert {
        file: usize,
        start: u64,
        len: u64,
    },
    Swapon {
        file: usize,
        pages: u64,
    },
    Swapoff {
        file: usize,
    },
    Snapshot {
        view: usize,
    },
    Delete {
        view: usize,
    },
    Drop {
        steps: usize,
    },
    Commit,
    Remount,
}

fn op() -> impl Strategy<Value = Op> {
    let file = 0..FILES * VIEWS;
    let view = 0..VIEWS;
    let at = 0..SPAN;
    let len = prop_oneof![1u64..8, 1u64..700];
    prop_oneof![
        8 => (file.clone(), at.clone(), len.clone())
            .prop_map(|(file, start, len)| Op::Write { file, start, len }),
        2 => (file.clone(), at.clone(), len.clone())
            .prop_map(|(file, start, len)| Op::Punch { file, start, len }),
        3 => (file.clone(), at.clone(), len.clone())
            .prop_map(|(file, start, len)| Op::Prealloc { file, start, len }),
        1 => (file.clone(), at.clone()).prop_map(|(file, blocks)| Op::Truncate { file, blocks }),
        4 => (file.clone(), file.clone(), at.clone(), at.clone(), len.clone()).prop_map(
            |(from, to, start, target, len)| Op::Clone { from, to, start, target, len }
        ),
        1 => (file.clone(), at.clone(), len.clone())
            .prop_map(|(file, start, len)| Op::Collapse { file, start, len }),
        1 => (file.clone(), at, len.clone())
            .prop_map(|(file, start, len)| Op::Insert { file, start, len }),
        3 => (file.clone(), 2..SPAN).prop_map(|(file, pages)| Op::Swapon { file, pages }),
        2 => file.prop_map(|file| Op::Swapoff { file }),
        2 => view.clone().prop_map(|view| Op::Snapshot { view }),
        1 => view.prop_map(|view| Op::Delete { view }),
        2 => (1..6usize).prop_map(|steps| Op::Drop { steps }),
        2 => Just(Op::Commit),
        1 => Just(Op::Remount),
    ]
}

impl Op {
    /// The same operation on files that `pick` chooses.
    fn with_files(&self, pick: impl Fn(usize) -> usize) -> Self {
        let mut op = self.clone();
        match &mut op {
            Self::Write { file, .. }
            | Self::Punch { file, .. }
            | Self::Prealloc { file, .. }
            | Self::Truncate { file, .. }
            | Self::Collapse { file, .. }
            | Self::Insert { file, .. }
            | Self::Swapon { file, .. }
            | Self::Swapoff { file } => *file = pick(*file),
            Self::Clone { from, to, .. } => (*from, *to) = (pick(*from), pick(*to)),
            Self::Snapshot { .. }
            | Self::Delete { .. }
            | Self::Drop { .. }
            | Self::Commit
            | Self::Remount => {}
        }
        op
    }
}

/// A file of the model.
#[derive(Debug, Clone, Default)]
struct Model {
    cells: BTreeMap<u64, Cell>,
    /// Pages of the active swapfile.
    swap: Option<u64>,
    /// Whether some range may be in the swap tree.
    was_swap: bool,
}

impl Model {
    fn clear(&mut self, start: u64, len: u64) {
        self.cells
            .retain(|at, _| !(start..start + len).contains(at));
    }
}

struct World {
    disk: SimDisk,
    volume: Volume<SimDisk>,
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
        let disk = SimDisk::new(blocks);
        let options = MkfsOptions {
            uuid: [7; 16],
            label: b"model",
            hash_seed: [9; 16],
            uid: 0,
            gid: 0,
            time: NOW,
        };
        format(disk.clone(), &options).expect("mkfs");
        let volume = Volume::mount(disk.clone(), &MountOptions::default()).expect("mount");
        let root = InodeId {
            subvol: volume.default_subvolume(),
            ino: ROOT_INO,
        };
        let files = (0..FILES).map(|i| {
            let new = NewInode {
                mode: 0o100600,
                uid: 0,
                gid: 0,
                rdev: 0,
                project: 0,
                flags: 0,
                time: NOW,
                symlink: None,
                xattrs: &[],
            };
            volume
                .create(root, format!("file{i}").as_bytes(), &new)
                .expect("create")
                .value
                .id
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

    /// Writes as the kernel does: reserve, stage or overwrite in place, write, map.
    fn write(&mut self, file: usize, start: u64, len: u64) -> Result<(), Error> {
        let id = self.files[file];
        self.volume.prepare_write(id, FileBlock(start), len)?;
        let mut at = start;
        while at < start + len {
            let map = self.volume.map(id, FileBlock(at), start + len - at)?;
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
            for i in 0..run.len {
                let number = self.next;
                self.next += 1;
                let data = data_block(number);
                let block = BlockNr(run.start.0 + i);
                self.disk.write(&[Write { block, data: &data }])?;
                self.models[file].cells.insert(at + i, Cell::Data(number));
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

    fn punch(&self, file: usize, start: u64, len: u64) -> Result<(), Error> {
        let (mut at, end) = (start, start + len);
        while at < end {
            let step = self
                .volume
                .punch(self.files[file], FileBlock(at), end - at)?;
            at = step.value.0;
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Result<(), Error> {
        let op = &op.with_files(|file| self.pick(file));
        match *op {
            Op::Drop { steps } => self.drop_some(steps),
            Op::Snapshot { view } => self.snapshot(view),
            Op::Delete { view } => self.delete(view),
            Op::Write { file, start, len } if !self.pinned(file) => self.write(file, start, len),
            Op::Punch { file, start, len } if !self.pinned(file) => {
                self.punch(file, start, len)?;
                self.models[file].clear(start, len);
                Ok(())
            }
            Op::Prealloc { file, start, len } if !self.pinned(file) => {
                let mut at = start;
                while at < start + len {
                    let left = start + len - at;
                    let done = self
                        .volume
                        .prealloc(self.files[file], FileBlock(at), left)?;
                    for block in at..done.value.0 {
                        self.models[file].cells.entry(block).or_insert(Cell::Zero);
                    }
                    at = done.value.0;
                }
                Ok(())
            }
            Op::Truncate { file, blocks } if !self.pinned(file) => {
                while !self
                    .volume
                    .truncate(self.files[file], blocks * 4096, NOW)?
                    .value
                {}
                self.models[file].clear(blocks, MAX_FILE_BLOCKS - blocks);
                Ok(())
            }
            Op::Clone {
                from,
                to,
                start,
                target,
                len,
            } => self.clone_range(from, to, start, target, len),
            Op::Collapse { file, start, len } if !self.pinned(file) => {
                self.punch(file, start, len)?;
                let (id, mut from) = (self.files[file], FileBlock(start + len));
                while from.0 < MAX_FILE_BLOCKS {
                    from = self.volume.move_down(id, from, len)?.value;
                }
                let cells = std::mem::take(&mut self.models[file].cells);
                let shift = |(at, cell)| match at {
                    at if at < start => Some((at, cell)),
                    at if at < start + len => None,
                    at => Some((at - len, cell)),
                };
                self.models[file].cells = cells.into_iter().filter_map(shift).collect();
                Ok(())
            }
            Op::Insert { file, start, len } if !self.pinned(file) => {
                let id = self.files[file];
                let (start_at, mut to) = (FileBlock(start), FileBlock(MAX_FILE_BLOCKS));
                while to > start_at {
                    to = self.volume.move_up(id, start_at, to, len)?.value;
                }
                let cells = std::mem::take(&mut self.models[file].cells);
                let shift = |(at, cell)| (if at < start { at } else { at + len }, cell);
                self.models[file].cells = cells.into_iter().map(shift).collect();
                Ok(())
            }
            Op::Swapon { file, pages } if !self.pinned(file) => {
                self.apply(&Op::Write {
                    file,
                    start: 0,
                    len: 1,
                })?;
                self.apply(&Op::Prealloc {
                    file,
                    start: 0,
                    len: pages,
                })?;
                self.swapon(file, pages)
            }
            Op::Swapoff { file } => {
                self.models[file].swap = None;
                self.volume.set_swapping(self.files[file], false)
            }
            Op::Commit => self.volume.commit(),
            Op::Remount => self.remount(),
            // What an active swapfile refuses.
            Op::Write { file, start, len } => {
                let id = self.files[file];
                let refused = self
                    .volume
                    .prepare_write(id, FileBlock(start), len)
                    .map(drop);
                assert_eq!(refused, Err(Error::SwapActive));
                Ok(())
            }
            Op::Punch { file, start, len } => {
                let refused = self
                    .volume
                    .punch(self.files[file], FileBlock(start), len)
                    .map(drop);
                assert_eq!(refused, Err(Error::SwapActive));
                Ok(())
            }
            Op::Truncate { file, .. } => {
                let refused = self.volume.truncate(self.files[file], 0, NOW).map(drop);
                assert_eq!(refused, Err(Error::SwapActive));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn clone_range(
        &mut self,
        from: usize,
        to: usize,
        start: u64,
        target: u64,
        len: u64,
    ) -> Result<(), Error> {
        let overlaps = from == to && start.abs_diff(target) < len;
        if overlaps || self.pinned(from) || self.pinned(to) {
            return Ok(());
        }
        // A clone of a swapfile's header page is of the subvolume tree's own: the same content here.
        let mut done = 0;
        while done < len {
            let clone = CloneRange {
                source: self.files[from],
                from: FileBlock(start + done),
                target: self.files[to],
                to: FileBlock(target + done),
                len: len - done,
            };
            done += self.volume.clone_range(&clone)?.value;
        }
        let part: Vec<_> = self.models[from]
            .cells
            .range(start..start + len)
            .map(|(a, c)| (*a, *c))
            .collect();
        self.models[to].clear(target, len);
        for (at, cell) in part {
            self.models[to].cells.insert(at - start + target, cell);
        }
        Ok(())
    }

    fn swapon(&mut self, file: usize, pages: u64) -> Result<(), Error> {
        let id = self.files[file];
        let has = |at: &u64| self.models[file].cells.contains_key(at);
        let hole = (0..pages).find(|at| !has(at));
        assert_eq!(self.volume.first_hole(id, pages)?, hole.map(FileBlock));
        let Some(&Cell::Data(header)) = self.models[file].cells.get(&0) else {
            return Ok(());
        };
        if hole.is_some() {
            return Ok(());
        }
        self.volume.set_swapping(id, true)?;
        assert_eq!(self.volume.set_swapping(id, true), Err(Error::Busy));
        // A plan that is dropped has changed nothing.
        let planned = self.volume.plan_swap(id, pages).map(drop);
        let activated = planned.and_then(|()| {
            let plan = self.volume.plan_swap(id, pages)?;
            let runs = plan.runs().to_vec();
            plan.apply(&data_block(header)).map(|_| runs)
        });
        match activated {
            Ok(runs) => self.check_plan(file, &runs)?,
            Err(error) => {
                assert_eq!(error, Error::NoSpace);
                return self.volume.set_swapping(id, false).and(Err(error));
            }
        }
        for at in 1..pages {
            self.models[file].cells.insert(at, Cell::Zero);
        }
        self.models[file].swap = Some(pages);
        self.models[file].was_swap = true;
        self.check_runs(file, pages)?;
        // A second activation changes nothing.
        let before = self.disk.writes();
        let again = self.volume.plan_swap(id, pages)?;
        let again = again.apply(&data_block(header))?;
        assert_eq!(
            (again.new_blocks, again.kept_blocks, again.moved_blocks),
            (0, 0, 0)
        );
        assert_eq!(self.disk.writes(), before);
        Ok(())
    }

    /// What the kernel was told is what the file has got.
    fn check_plan(&mut self, file: usize, runs: &[PlannedRun]) -> Result<(), Error> {
        let mut page = 0;
        for planned in runs {
            assert_eq!(planned.page, page);
            let end = page + planned.run.len;
            while page < end {
                let id = self.files[file];
                let found = self.volume.swap_run(id, page, end)?.expect("run").run;
                assert_eq!(found.start.0, planned.run.start.0 + (page - planned.page));
                page += found.len;
            }
        }
        Ok(())
    }

    /// The runs cover the pages without a gap, and swap I/O to them reaches nobody else.
    fn check_runs(&mut self, file: usize, pages: u64) -> Result<(), Error> {
        let mut page = 0;
        while page < pages {
            let found = self
                .volume
                .swap_run(self.files[file], page, pages)?
                .expect("run");
            assert_eq!(found.page, page);
            assert!(found.run.len > 0);
            for i in (0..found.run.len).filter(|i| page + i > 0) {
                let block = BlockNr(found.run.start.0 + i);
                let data = data_block(u64::MAX - page - i);
                self.disk.write(&[Write { block, data: &data }])?;
            }
            page += found.run.len;
        }
        assert_eq!(page, pages);
        Ok(())
    }

    fn remount(&mut self) -> Result<(), Error> {
        for file in 0..self.files.len() {
            self.models[file].swap = None;
            self.volume.set_swapping(self.files[file], false)?;
        }
        self.volume.unmount()?;
        self.volume = Volume::mount(self.disk.clone(), &MountOptions::default())?;
        self.files
            .iter()
            .try_for_each(|id| self.volume.open_subvolume(id.subvol))
    }

    /// Compares the whole content with the model.
    fn verify(&self) {
        for (file, model) in self.models.iter().enumerate() {
            let id = self.files[file];
            let attr = self.volume.inode(id).expect("inode");
            assert_eq!(
                attr.blocks,
                model.cells.len() as u64,
                "st_blocks of file {file}"
            );
            let end = model.cells.last_key_value().map_or(0, |(at, _)| at + 1);
            let mut at = 0;
            while at < end + 3 {
                let map = self
                    .volume
                    .map(id, FileBlock(at), end + 3 - at)
                    .expect("map");
                for i in 0..map.len {
                    let cell = model.cells.get(&(at + i));
                    match (map.backing, cell) {
                        (Backing::Hole, None) => {}
                        (Backing::Unbacked | Backing::Prealloc { .. }, Some(Cell::Zero)) => {}
                        (Backing::Written { at: block, .. }, Some(Cell::Data(number))) => {
                            let mut data = [0; 4096];
                            self.disk
                                .read(BlockNr(block.0 + i), &mut data)
                                .expect("read");
                            assert!(data == data_block(*number), "file {file} block {}", at + i);
                        }
                        other => panic!("file {file} block {}: {other:?}", at + i),
                    }
                }
                at += map.len;
            }
        }
    }

    fn check(&self) {
        self.volume.commit().expect("commit");
        let report = check(&self.disk).expect("check");
        assert!(
            report.is_clean(),
            "{:#?}",
            &report.faults[..report.faults.len().min(8)]
        );
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
    let allocate = Op::Prealloc {
        file: 0,
        start: 0,
        len,
    };
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_agree_with_the_model(ops in proptest::collection::vec(op(), 1..60)) {
        run(40_000, &ops);
    }

    #[test]
    fn histories_on_a_full_volume(ops in proptest::collection::vec(op(), 1..60)) {
        run(4096, &ops);
    }
}
