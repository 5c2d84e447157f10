// SPDX-License-Identifier: GPL-2.0

//! The content of files: mapping, delayed allocation, truncate and fallocate.
//!
//! A write reserves space when a page is dirtied, stages blocks when the page is written, and maps
//! them when that write has ended ([`Volume::finish_write`]): until then a crash shows the old
//! content. Data is written in place where the mapping says that nobody else owns the blocks.
//!
//! Every function with unbounded work goes on in steps of at most [`STEP`] extents; each leaves a
//! state that a crash may show.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::extent::{self, Extent, ExtentState, Place};
use super::readers::Ticket;
use super::tree::View;
use super::tree_write::Txn;
use super::types::{
    Attr, Backing, BlockNr, Done, FileBlock, InodeId, Mapping, Run, Time, BLOCK_SHIFT, BLOCK_SIZE,
    MAX_FILE_BLOCKS, MAX_FILE_SIZE,
};
use super::volume::{check_writable, Cost, Volume};
use super::{inode, orphan};

/// Extents that one step changes at most.
pub(super) const STEP: usize = 16;
/// What a step takes that gives space back.
const FREES: Cost = Cost::frees(STEP);
/// What a step takes that maps what was promised.
const MAPS: Cost = Cost::maps(STEP);
/// What a step takes that may need more space than before.
const TAKES: Cost = Cost::takes(STEP);

/// Where data was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// To staged blocks from this one on.
    Staged(BlockNr),
    /// To the blocks that were mapped there.
    InPlace,
}

impl<D: BlockDevice> View<'_, D> {
    /// What is behind file block `start` and up to `max` - 1 after it.
    pub fn map(&self, id: InodeId, start: u64, max: u64) -> Result<Mapping> {
        let to = start.saturating_add(max.max(1)).min(MAX_FILE_BLOCKS);
        if start >= to {
            return Err(Error::FileTooBig);
        }
        let swapped = self.extent_in(Place::swap(id), start, to)?;
        let to = match swapped {
            Some(extent) if extent.start == start => {
                return Ok(mapping(&extent, false, extent.len))
            }
            Some(extent) => extent.start,
            None => to,
        };
        let Some(whole) = self.extent(Place::file(id), start)? else {
            return Ok(hole(start, to));
        };
        if whole.start > start {
            return Ok(hole(start, whole.start.min(to)));
        }
        let part = whole.part(start, to);
        let (shared, alike) = self.extent_shared(id, &whole, &part)?;
        Ok(mapping(&part, shared, alike.min(part.len)))
    }
}

fn hole(start: u64, end: u64) -> Mapping {
    Mapping {
        start: FileBlock(start),
        len: end - start,
        backing: Backing::Hole,
    }
}

fn mapping(extent: &Extent, shared: bool, len: u64) -> Mapping {
    let at = extent.at;
    let backing = match extent.state {
        ExtentState::Written => Backing::Written { at, shared },
        ExtentState::Prealloc => Backing::Prealloc { at, shared },
        ExtentState::Unbacked => Backing::Unbacked,
    };
    Mapping {
        start: FileBlock(extent.start),
        len,
        backing,
    }
}

fn end_of(start: FileBlock, len: u64) -> Result<u64> {
    start
        .0
        .checked_add(len)
        .filter(|end| *end <= MAX_FILE_BLOCKS)
        .ok_or(Error::FileTooBig)
}

impl<D: BlockDevice> Txn<'_, D> {
    /// Maps blocks that are staged: `[extent.start, ...)` as far as `budget` old extents allow.
    /// Returns how far that is.
    fn map_staged(&mut self, id: InodeId, extent: Extent, budget: usize) -> Result<u64> {
        let place = Place::file(id);
        let (reached, dropped) = self.drop_extents(place, extent.start, extent.end(), budget)?;
        let extent = extent.part(extent.start, reached);
        if extent.len == 0 {
            return Ok(reached);
        }
        if let Some(run) = extent.run() {
            self.state.changes += 1;
            self.state.space.map(run)?;
        }
        self.add_extent(place, extent)?;
        self.count_blocks(id, extent.len, dropped)?;
        Ok(reached)
    }

    /// Makes preallocated blocks in `[from, to)` written ones, at most `budget` extents.
    fn convert(&mut self, id: InodeId, from: u64, to: u64, budget: usize) -> Result<u64> {
        let place = Place::file(id);
        let mut at = from;
        for _ in 0..budget {
            let Some(extent) = self.view().extent_in(place, at, to)? else {
                return Ok(to);
            };
            if extent.state == ExtentState::Prealloc {
                self.cut_extent(place, extent.start, extent.end())?;
                self.add_extent(
                    place,
                    Extent {
                        state: ExtentState::Written,
                        ..extent
                    },
                )?;
            }
            at = extent.end();
        }
        Ok(at)
    }

    fn grow_size(&mut self, id: InodeId, size: u64) -> Result<Attr> {
        let mut attr = inode::load(self.view(), id)?;
        if size > attr.size {
            attr.size = size.min(MAX_FILE_SIZE);
            inode::store(self, id, &attr)?;
        }
        Ok(attr)
    }

    /// Gives up to `max` blocks from `from` on, which are a hole or unbacked, blocks of their own.
    fn back(&mut self, id: InodeId, from: u64, max: u64) -> Result<u64> {
        let goal = self.goal(id, from)?;
        let run = self.state.space.stage(self.store, goal, max)?;
        self.state.space.unreserve(run.len);
        let extent = Extent {
            start: from,
            len: run.len,
            at: run.start,
            generation: self.state.generation,
            state: ExtentState::Prealloc,
        };
        let changes = self.state.changes;
        let result = self.map_staged(id, extent, 2);
        if result.is_err() && self.state.changes == changes {
            // Nothing points to them; the promise is used up.
            self.state.space.unstage(run);
        }
        result
    }

    /// The block after the one behind file block `start` - 1: where `start` goes best.
    fn goal(&mut self, id: InodeId, start: u64) -> Result<Option<u64>> {
        let Some(before) = start.checked_sub(1) else {
            return Ok(None);
        };
        let found = self.view().extent_in(Place::file(id), before, start)?;
        Ok(found.and_then(|extent| extent.run()).map(Run::end))
    }
}

impl<D: BlockDevice> Volume<D> {
    /// What is behind file block `start` and up to `max` - 1 after it: one piece, at least one block.
    ///
    /// Who reads the blocks without the page cache, or writes to them, brackets this and the I/O with
    /// [`Volume::begin_read`] and [`Volume::end_read`].
    pub fn map(&self, id: InodeId, start: FileBlock, max: u64) -> Result<Mapping> {
        self.query(|view| view.map(id, start.0, max))
    }

    /// Blocks that lose owners from now on are not reused, nor written in place by an owner that is left,
    /// before [`Volume::end_read`].
    pub fn begin_read(&self) -> Result<Ticket> {
        self.readers.begin()
    }

    /// The reader does not read any more what it looked up.
    pub fn end_read(&self, ticket: Ticket) {
        self.release(self.readers.end(ticket));
    }

    /// Turns up to `want` reserved blocks into a run of blocks to write data to, at least one. They
    /// are held in memory only: after a crash they are free.
    pub fn stage(&self, id: InodeId, start: FileBlock, want: u64) -> Result<Run> {
        match self.try_stage(id, start, want) {
            // The space is promised: what is missing waits for a commit.
            Err(Error::NoSpace) => {
                self.commit()?;
                self.try_stage(id, start, want)
            }
            result => result,
        }
    }

    fn try_stage(&self, id: InodeId, start: FileBlock, want: u64) -> Result<Run> {
        let mut state = self.state.write();
        let mut txn = Txn {
            store: &self.store,
            state: &mut state,
        };
        let goal = txn.goal(id, start.0)?;
        let run = txn.state.space.stage(&self.store, goal, want)?;
        txn.state.space.unreserve(run.len);
        Ok(run)
    }

    /// Gives staged blocks back. The reservation that they were made from is gone.
    pub fn unstage(&self, run: Run) {
        self.state.write().space.unstage(run);
    }

    /// Data was written to `[start, start + len)`, after [`Volume::prepare_write`]: maps it. The size
    /// on disk becomes `size` if that is more. If this fails, staged blocks that were not mapped stay
    /// unavailable until the volume is mounted again.
    pub fn finish_write(
        &self,
        id: InodeId,
        start: FileBlock,
        len: u64,
        written: Written,
        size: Option<u64>,
    ) -> Result<Done<Attr>> {
        let end = end_of(start, len)?;
        let mut at = start.0;
        loop {
            let done = self.update(MAPS, |txn| {
                let reached = match written {
                    Written::InPlace => txn.convert(id, at, end, STEP)?,
                    Written::Staged(block) => {
                        let extent = Extent {
                            start: at,
                            len: end - at,
                            at: BlockNr(block.0.saturating_add(at - start.0)),
                            generation: txn.state.generation,
                            state: ExtentState::Written,
                        };
                        txn.map_staged(id, extent, STEP)?
                    }
                };
                // In the same step: data beyond the size must not wait for a later growth.
                let size = size.map_or(0, |size| size.min(reached << BLOCK_SHIFT));
                Ok((reached, txn.grow_size(id, size)?))
            })?;
            let (reached, attr) = done.value;
            at = reached;
            if at >= end {
                return Ok(Done {
                    value: attr,
                    generation: done.generation,
                });
            }
        }
    }

    /// Finishes a truncate that was interrupted, before anything is put behind the end again: what
    /// it had to drop must not come back, and what is put there must not be dropped.
    pub(super) fn settle_truncate(&self, id: InodeId) -> Result<()> {
        let pending = |kept: &u64| *kept != orphan::NO_NAME;
        while self
            .query(|view| orphan::get(view, id))?
            .filter(pending)
            .is_some()
        {
            self.finish_orphan(id)?;
        }
        Ok(())
    }

    /// Sets the size, and the times, and drops the blocks beyond it: one step. Loop until the value
    /// is true. An orphan item guards the steps against a crash in between.
    pub fn truncate(&self, id: InodeId, size: u64, time: Time) -> Result<Done<bool>> {
        if size > MAX_FILE_SIZE {
            return Err(Error::FileTooBig);
        }
        self.restore_swap(id)?;
        self.update(FREES, |txn| {
            let mut attr = inode::load(txn.view(), id)?;
            if attr.size != size || attr.mtime != time {
                attr.size = size;
                inode::changed(&mut attr, time);
                inode::store(txn, id, &attr)?;
            }
            let guarded = orphan::get(txn.view(), id)?;
            let kept = guarded.map_or(size, |kept| size.min(kept));
            let from = FileBlock(kept.div_ceil(BLOCK_SIZE as u64));
            let done = extent::drop_from(txn, id, from, STEP)?;
            match (done, guarded) {
                (false, None) => orphan::put(txn, id, size)?,
                (true, Some(kept)) if kept != orphan::NO_NAME => orphan::remove(txn, id)?,
                _ => {}
            }
            Ok(done)
        })
    }

    /// Sets the size if that is more than it was: after blocks beyond the end got content.
    pub fn set_size(&self, id: InodeId, size: u64, time: Time) -> Result<Done<Attr>> {
        if size > MAX_FILE_SIZE {
            return Err(Error::FileTooBig);
        }
        self.settle_truncate(id)?;
        self.update(Cost::CHANGES, |txn| {
            let mut attr = inode::load(txn.view(), id)?;
            attr.size = attr.size.max(size);
            inode::changed(&mut attr, time);
            inode::store(txn, id, &attr)?;
            Ok(attr)
        })
    }

    /// Makes `[start, start + len)` a hole: one step; how far it got.
    pub fn punch(&self, id: InodeId, start: FileBlock, len: u64) -> Result<Done<FileBlock>> {
        let end = end_of(start, len)?;
        self.restore_swap(id)?;
        self.update(FREES, |txn| {
            let (reached, dropped) = txn.drop_extents(Place::file(id), start.0, end, STEP)?;
            txn.count_blocks(id, 0, dropped)?;
            Ok(FileBlock(reached))
        })
    }

    /// Gives holes and promises in `[start, start + len)` blocks that read as zeros: one step; how
    /// far it got. What has blocks stays as it is.
    pub fn prealloc(&self, id: InodeId, start: FileBlock, len: u64) -> Result<Done<FileBlock>> {
        let end = end_of(start, len)?;
        self.restore_swap(id)?;
        self.settle_truncate(id)?;
        let piece = self.map(id, start, len)?;
        let piece_end = piece.start.0.saturating_add(piece.len).min(end);
        if !matches!(piece.backing, Backing::Hole | Backing::Unbacked) {
            // Nothing changes, so a full volume is not in the way.
            return Ok(self.unchanged(FileBlock(piece_end)));
        }
        let want = (piece_end - start.0).min(super::format::GROUP_BLOCKS);
        self.reserve_runs(want)?;
        let mut left = want;
        let done = self.update(MAPS, |txn| {
            let had = txn.state.space.reserved();
            let reached = txn.back(id, start.0, want);
            // Also what a failed change took from the promise.
            left = left.saturating_sub(had.saturating_sub(txn.state.space.reserved()));
            reached.map(FileBlock)
        });
        self.unreserve(left);
        done
    }

    /// Moves what is behind file block `from` forward by `len`, to where nothing is: one step, which a
    /// crash may show; how far it got, at last [`MAX_FILE_BLOCKS`].
    pub fn move_down(&self, id: InodeId, from: FileBlock, len: u64) -> Result<Done<FileBlock>> {
        if from.0 < len {
            return Err(Error::Invalid("nothing can be before the first block"));
        }
        self.restore_swap(id)?;
        self.settle_truncate(id)?;
        self.update(FREES, |txn| {
            let place = Place::file(id);
            let mut from = from.0;
            for _ in 0..STEP {
                let Some(extent) = txn.view().extent_in(place, from, MAX_FILE_BLOCKS)? else {
                    return Ok(FileBlock(MAX_FILE_BLOCKS));
                };
                let start = extent.start - len;
                txn.cut_extent(place, extent.start, extent.end())?;
                txn.add_extent(place, Extent { start, ..extent })?;
                from = extent.end();
            }
            Ok(FileBlock(from))
        })
    }

    /// Moves what is in `[start, to)` back by `len`, the last first, to where nothing is: one step,
    /// which a crash may show; what is left to move ends at the result. `FileTooBig` if the last
    /// extent would move too far.
    pub fn move_up(
        &self,
        id: InodeId,
        start: FileBlock,
        to: FileBlock,
        len: u64,
    ) -> Result<Done<FileBlock>> {
        self.restore_swap(id)?;
        self.settle_truncate(id)?;
        self.update(TAKES, |txn| {
            let place = Place::file(id);
            let mut to = to.0;
            for _ in 0..STEP {
                let found = txn.view().extent_before(id, to)?;
                let Some(extent) = found.filter(|extent| extent.end() > start.0) else {
                    return Ok(start);
                };
                let extent = extent.part(start.0, to);
                end_of(FileBlock(extent.end()), len)?;
                let start = extent.start + len;
                txn.cut_extent(place, extent.start, extent.end())?;
                txn.add_extent(place, Extent { start, ..extent })?;
                to = extent.start;
            }
            Ok(FileBlock(to))
        })
    }

    /// Whether changes are allowed: not after damage, and not on a read-only mount.
    pub fn check_writable(&self) -> Result<()> {
        check_writable(&self.state.read())
    }
}

impl<D: BlockDevice> View<'_, D> {
    /// The last extent of `id` that begins before file block `to`.
    fn extent_before(&self, id: InodeId, to: u64) -> Result<Option<Extent>> {
        let Some(last) = to.checked_sub(1) else {
            return Ok(None);
        };
        let place = Place::file(id);
        let found = self.prev(place.tree, &place.key(last), |key, data| {
            let mine = *key >= place.key(0);
            mine.then(|| extent::decode(self.store.geometry(), key, data))
                .transpose()
        })?;
        Ok(found.flatten())
    }
}
