// SPDX-License-Identifier: GPL-2.0

//! The operations of a history: what they are, how often each comes, and what each does to the
//! volume and to the model.

use super::{Cell, Owner, World, FILES, NOW, SPAN, VIEWS};
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::types::{Backing, BlockNr, FileBlock, InodeId, MAX_FILE_BLOCKS};
use oxfs::engine::Error;
use proptest::prelude::*;
use std::fmt::Debug;

/// A range of blocks of a file.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    pub file: usize,
    pub start: u64,
    pub len: u64,
}

impl Range {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// What a clone or a deduplication shares: `len` blocks.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub from: usize,
    pub to: usize,
    pub start: u64,
    pub target: u64,
    pub len: u64,
}

impl Pair {
    /// The blocks of the one and of the other.
    fn blocks(self) -> impl Iterator<Item = (u64, u64)> {
        (self.start..).zip(self.target..self.target + self.len)
    }
}

#[derive(Debug, Clone)]
pub enum Op {
    Write(Range),
    /// Single blocks, so that a file's extents fill several leaves.
    Scatter(Range),
    Punch(Range),
    Prealloc(Range),
    Zero(Range),
    Unshare(Range),
    Collapse(Range),
    Insert(Range),
    Truncate {
        file: usize,
        blocks: u64,
    },
    Clone(Pair),
    Dedupe(Pair),
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

pub fn op() -> impl Strategy<Value = Op> {
    let file = || 0..FILES * VIEWS;
    let view = 0..VIEWS;
    // Often the first block, where a swapfile has its header.
    let at = || prop_oneof![1 => Just(0), 5 => 0..SPAN];
    let len = || prop_oneof![1u64..8, 1u64..700];
    let range = || (file(), at(), len()).prop_map(|(file, start, len)| Range { file, start, len });
    let pair = || {
        (file(), file(), at(), at(), len()).prop_map(|(from, to, start, target, len)| Pair {
            from,
            to,
            start,
            target,
            len,
        })
    };
    // Often the same place, which in a snapshot may hold the same blocks.
    let alike = prop_oneof![
        pair(),
        pair().prop_map(|pair| Pair {
            target: pair.start,
            ..pair
        }),
    ];
    prop_oneof![
        8 => range().prop_map(Op::Write),
        2 => range().prop_map(Op::Scatter),
        2 => range().prop_map(Op::Punch),
        3 => range().prop_map(Op::Prealloc),
        2 => range().prop_map(Op::Zero),
        2 => range().prop_map(Op::Unshare),
        1 => range().prop_map(Op::Collapse),
        1 => range().prop_map(Op::Insert),
        1 => (file(), at()).prop_map(|(file, blocks)| Op::Truncate { file, blocks }),
        4 => pair().prop_map(Op::Clone),
        3 => alike.prop_map(Op::Dedupe),
        3 => (file(), 2..SPAN).prop_map(|(file, pages)| Op::Swapon { file, pages }),
        2 => file().prop_map(|file| Op::Swapoff { file }),
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
            Self::Write(Range { file, .. })
            | Self::Scatter(Range { file, .. })
            | Self::Punch(Range { file, .. })
            | Self::Prealloc(Range { file, .. })
            | Self::Zero(Range { file, .. })
            | Self::Unshare(Range { file, .. })
            | Self::Collapse(Range { file, .. })
            | Self::Insert(Range { file, .. })
            | Self::Truncate { file, .. }
            | Self::Swapon { file, .. }
            | Self::Swapoff { file } => *file = pick(*file),
            Self::Clone(pair) | Self::Dedupe(pair) => {
                (pair.from, pair.to) = (pick(pair.from), pick(pair.to));
            }
            Self::Snapshot { .. }
            | Self::Delete { .. }
            | Self::Drop { .. }
            | Self::Commit
            | Self::Remount => {}
        }
        op
    }

    /// The file whose mapping changes.
    fn changes(&self) -> Option<usize> {
        match *self {
            Self::Write(range)
            | Self::Scatter(range)
            | Self::Punch(range)
            | Self::Prealloc(range)
            | Self::Zero(range)
            | Self::Unshare(range)
            | Self::Collapse(range)
            | Self::Insert(range) => Some(range.file),
            Self::Truncate { file, .. } => Some(file),
            Self::Clone(pair) | Self::Dedupe(pair) => Some(pair.to),
            _ => None,
        }
    }
}

/// An active swapfile's mapping does not change; that there is no space may be seen first.
fn assert_refused(result: Result<(), Error>, what: &dyn Debug) {
    let refused = matches!(result, Err(Error::SwapActive | Error::NoSpace));
    assert!(refused, "{what:?}: {result:?}");
}

impl World {
    pub fn apply(&mut self, op: &Op) -> Result<(), Error> {
        let op = &op.with_files(|file| self.pick(file));
        if op.changes().is_some_and(|file| self.pinned(file)) {
            assert_refused(self.first_step(op), op);
            return Ok(());
        }
        match *op {
            Op::Write(Range { file, start, len }) => self.write(file, start, len),
            Op::Scatter(range) => (range.start..range.end())
                .step_by(5)
                .try_for_each(|at| self.write(range.file, at, 1)),
            Op::Punch(range) => self.punch(range),
            Op::Prealloc(range) => self.prealloc(range),
            // As the kernel does it: blocks that read as zeros without being written.
            Op::Zero(range) => {
                self.punch(range)?;
                self.prealloc(range)
            }
            Op::Unshare(range) => self.unshare(range),
            Op::Collapse(range) => self.collapse(range),
            Op::Insert(range) => self.insert(range),
            Op::Truncate { file, blocks } => self.truncate(file, blocks),
            Op::Clone(pair) => self.clone_range(pair),
            Op::Dedupe(pair) => self.dedupe(pair),
            Op::Swapon { file, .. } if self.pinned(file) => Ok(()),
            Op::Swapon { file, pages } => {
                let start = 0;
                self.write(file, start, 1)?;
                self.prealloc(Range {
                    file,
                    start,
                    len: pages,
                })?;
                self.swapon(file, pages)
            }
            Op::Swapoff { file } => self.swapoff(file),
            Op::Snapshot { view } => self.snapshot(view),
            Op::Delete { view } => self.delete(view),
            Op::Drop { steps } => self.drop_some(steps),
            Op::Commit => self.volume.commit(),
            Op::Remount => self.remount(),
        }
    }

    /// The first call of an operation that changes a mapping, for those that must be refused.
    fn first_step(&self, op: &Op) -> Result<(), Error> {
        let volume = &self.volume;
        let place = |Range { file, start, .. }| (self.files[file], FileBlock(start));
        match *op {
            Op::Write(range) | Op::Scatter(range) | Op::Unshare(range) => {
                let (id, start) = place(range);
                volume.prepare_write(id, start, range.len).map(drop)
            }
            Op::Punch(range) | Op::Zero(range) | Op::Collapse(range) => {
                let (id, start) = place(range);
                volume.punch(id, start, range.len).map(drop)
            }
            Op::Prealloc(range) => {
                let (id, start) = place(range);
                volume.prealloc(id, start, range.len).map(drop)
            }
            Op::Insert(range) => {
                let (id, start) = place(range);
                let last = FileBlock(MAX_FILE_BLOCKS);
                volume.move_up(id, start, last, range.len).map(drop)
            }
            Op::Truncate { file, .. } => volume.truncate(self.files[file], 0, NOW).map(drop),
            Op::Clone(pair) | Op::Dedupe(pair) => self.share_step(pair, 0).map(drop),
            _ => unreachable!("{op:?} changes no mapping"),
        }
    }

    /// Does `step` on what is left of a range, until it got to the end.
    fn in_steps(
        &self,
        Range { file, start, len }: Range,
        step: impl Fn(InodeId, FileBlock, u64) -> Result<FileBlock, Error>,
    ) -> Result<(), Error> {
        let (mut at, end) = (start, start + len);
        while at < end {
            at = step(self.files[file], FileBlock(at), end - at)?.0;
        }
        Ok(())
    }

    fn punch(&mut self, range: Range) -> Result<(), Error> {
        self.in_steps(range, |id, start, len| {
            self.volume.punch(id, start, len).map(|done| done.value)
        })?;
        self.models[range.file].clear(range.start, range.len);
        Ok(())
    }

    fn prealloc(&mut self, range: Range) -> Result<(), Error> {
        self.in_steps(range, |id, start, len| {
            self.volume.prealloc(id, start, len).map(|done| done.value)
        })?;
        for block in range.start..range.end() {
            let cells = &mut self.models[range.file].cells;
            cells.entry(block).or_insert(Cell::Zero);
        }
        self.each_piece(range, |_, _, backing| {
            let has = !matches!(backing, Backing::Hole | Backing::Unbacked);
            assert!(has, "{backing:?} in what was allocated");
        })
    }

    /// As the kernel does it: what is shared is read and written again, and goes to new blocks.
    fn unshare(&mut self, range: Range) -> Result<(), Error> {
        let id = self.files[range.file];
        // Else the private header page of a swapfile hides that the one below it is shared.
        let start = FileBlock(range.start);
        self.volume.prepare_write(id, start, range.len)?;
        let mut shared = Vec::new();
        self.each_piece(range, |at, len, backing| {
            if matches!(backing, Backing::Written { shared: true, .. }) {
                shared.push((at, len));
            }
        })?;
        for (start, len) in shared {
            let cells = self.models[range.file].cells.range(start..start + len);
            let numbers: Vec<_> = cells.filter_map(|(_, cell)| cell.number()).collect();
            assert_eq!(numbers.len() as u64, len);
            self.write_numbers(range.file, start, &numbers)?;
        }
        self.prealloc(range)?;
        for (block, places) in self.owners()? {
            let here = |(file, at, backing): &Owner| {
                let within = (range.start..range.end()).contains(at);
                *file == range.file && within && matches!(backing, Backing::Written { .. })
            };
            let own = places.len() == 1 || !places.iter().any(here);
            assert!(own, "block {block} is still at {places:?}");
        }
        Ok(())
    }

    /// Calls `look` with start, length and backing of each piece of a range.
    pub fn each_piece(
        &self,
        range: Range,
        mut look: impl FnMut(u64, u64, Backing),
    ) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end() {
            let left = range.end() - at;
            let map = self
                .volume
                .map(self.files[range.file], FileBlock(at), left)?;
            look(at, map.len, map.backing);
            at += map.len;
        }
        Ok(())
    }

    fn truncate(&mut self, file: usize, blocks: u64) -> Result<(), Error> {
        let (id, size) = (self.files[file], blocks * 4096);
        while !self.volume.truncate(id, size, NOW)?.value {}
        self.models[file].clear(blocks, MAX_FILE_BLOCKS - blocks);
        Ok(())
    }

    fn collapse(&mut self, range: Range) -> Result<(), Error> {
        self.punch(range)?;
        let (id, mut from) = (self.files[range.file], FileBlock(range.end()));
        while from.0 < MAX_FILE_BLOCKS {
            from = self.volume.move_down(id, from, range.len)?.value;
        }
        let down = |at| if at < range.start { at } else { at - range.len };
        self.models[range.file].move_cells(down);
        Ok(())
    }

    fn insert(&mut self, range: Range) -> Result<(), Error> {
        let id = self.files[range.file];
        let (start, mut to) = (FileBlock(range.start), FileBlock(MAX_FILE_BLOCKS));
        while to > start {
            to = self.volume.move_up(id, start, to, range.len)?.value;
        }
        let up = |at| if at < range.start { at } else { at + range.len };
        self.models[range.file].move_cells(up);
        Ok(())
    }

    /// Shares what is left of a pair after `done` blocks: how many more are.
    fn share_step(&self, pair: Pair, done: u64) -> Result<u64, Error> {
        let clone = CloneRange {
            source: self.files[pair.from],
            from: FileBlock(pair.start + done),
            target: self.files[pair.to],
            to: FileBlock(pair.target + done),
            len: pair.len - done,
        };
        self.volume.clone_range(&clone).map(|done| done.value)
    }

    /// Whether the ranges can be shared: the kernel refuses those that overlap.
    fn can_share(&self, pair: Pair) -> bool {
        let overlap = pair.from == pair.to && pair.start.abs_diff(pair.target) < pair.len;
        if !overlap && self.pinned(pair.from) {
            assert_refused(self.share_step(pair, 0).map(drop), &pair);
            return false;
        }
        !overlap
    }

    fn clone_range(&mut self, pair: Pair) -> Result<(), Error> {
        if !self.can_share(pair) {
            return Ok(());
        }
        // A clone of a swapfile's header page is of the subvolume tree's own: the same content here.
        let mut done = 0;
        while done < pair.len {
            done += self.share_step(pair, done)?;
        }
        for (from, to) in pair.blocks() {
            let cell = self.models[pair.from].cells.get(&from).copied();
            match cell {
                Some(cell) => self.models[pair.to].cells.insert(to, cell),
                None => self.models[pair.to].cells.remove(&to),
            };
        }
        Ok(())
    }

    /// Makes a copy of what differs, then has both share their blocks. The kernel compares first: the
    /// engine sees only what is alike.
    fn dedupe(&mut self, pair: Pair) -> Result<(), Error> {
        if !self.can_share(pair) {
            return Ok(());
        }
        self.copy_what_differs(pair)?;
        self.clone_range(pair)?;
        for (from, to) in pair.blocks() {
            let blocks = (self.owned(pair.from, from)?, self.owned(pair.to, to)?);
            // The header page of a swapfile is private; the target got the subvolume tree's own.
            if let (Some(from), (Some(source), target)) = (from.checked_sub(1), blocks) {
                assert_eq!(target, Some(source), "block {} of {pair:?}", from + 1);
                assert!(source.1, "block {} of {pair:?} is not shared", from + 1);
            }
        }
        Ok(())
    }

    fn copy_what_differs(&mut self, pair: Pair) -> Result<(), Error> {
        let number = |file: usize, at: u64| self.models[file].cells.get(&at).and_then(Cell::number);
        let both = pair
            .blocks()
            .map(|(from, to)| (to, number(pair.from, from)));
        let differing: Vec<_> = both.filter(|(to, n)| *n != number(pair.to, *to)).collect();
        let next = |a: &(u64, Option<u64>), b: &(u64, Option<u64>)| {
            b.0 == a.0 + 1 && b.1.is_some() == a.1.is_some()
        };
        for run in differing.chunk_by(next) {
            let (file, start, len) = (pair.to, run[0].0, run.len() as u64);
            let numbers: Vec<_> = run.iter().filter_map(|(_, number)| *number).collect();
            match numbers.is_empty() {
                true => self.punch(Range { file, start, len })?,
                false => self.write_numbers(file, start, &numbers)?,
            }
        }
        Ok(())
    }

    /// The block with the data of a file, if it has any there, and whether it is shared.
    fn owned(&self, file: usize, at: u64) -> Result<Option<(BlockNr, bool)>, Error> {
        let map = self.volume.map(self.files[file], FileBlock(at), 1)?;
        Ok(match map.backing {
            Backing::Written { at, shared } => Some((at, shared)),
            _ => None,
        })
    }
}
