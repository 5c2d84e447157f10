// SPDX-License-Identifier: GPL-2.0

//! Carrying out the plan of a swapfile's activation: moves its range to the swap tree, step by
//! step. Each step leaves a state that a crash may show.

use super::data::STEP;
use super::device::{BlockDevice, Write};
use super::error::{Error, Result};
use super::extent::{Extent, ExtentState, Place};
use super::swap_plan::{Activation, Origin, Piece, Plan, PlannedRun};
use super::tree_write::Txn;
use super::types::{BlockNr, InodeId, Run};
use super::volume::Cost;
use crate::platform::Block;

/// What a step takes. It lets go of what others own too, so it may use the reserve as far as what
/// frees does: an activation that was planned is not to fail half way.
const STEPS: Cost = Cost::frees(STEP);

impl<D: BlockDevice> Txn<'_, D> {
    /// Maps the header page's copy.
    fn keep_header(&mut self, id: InodeId, run: Run) -> Result<()> {
        self.set_swap_flag(id, true)?;
        self.state.changes += 1;
        self.state.space.map(run)?;
        let header = Extent {
            start: 0,
            len: run.len,
            at: run.start,
            generation: self.state.generation,
            state: ExtentState::Written,
        };
        self.write_extent(Place::swap(id), &header)
    }

    /// Puts blocks that are the file's own into the swap tree, as they are, as far as one step
    /// goes; where the next begins.
    fn keep_own(&mut self, id: InodeId, planned: PlannedRun, from: u64) -> Result<u64> {
        let to = planned.page + planned.run.len;
        let mut at = from;
        for _ in 0..STEP / 4 {
            if at >= to {
                break;
            }
            let block = BlockNr(planned.run.start.0 + (at - planned.page));
            let (piece, end) = self.view().swap_piece(id, at, to)?;
            if piece != Piece::Own(block) {
                // The plan says so, and nobody may change it.
                return Err(Error::corrupt(block, "swapfile changed during activation"));
            }
            self.cut_extent(Place::file(id), at, end)?;
            self.add_private(id, at, Run::new(block, end - at))?;
            at = end;
        }
        Ok(at)
    }

    /// Puts staged blocks behind `[from, from + run.len)`, as far as one step goes; where the next
    /// begins.
    fn back_staged(&mut self, id: InodeId, run: Run, from: u64) -> Result<u64> {
        let (swap, file) = (Place::swap(id), Place::file(id));
        let (mut reached, mut dropped) = self.drop_extents(file, from, from + run.len, STEP)?;
        if reached > from {
            let (swapped, _) = self.drop_extents(swap, from, reached, STEP)?;
            // What the swap tree still has there is done in the next step; so is the file's part.
            if swapped < reached {
                dropped = dropped.saturating_sub(reached - swapped);
                self.promise(id, swapped, reached)?;
                reached = swapped;
            }
        }
        if reached > from {
            let part = Run::new(run.start, reached - from);
            self.state.changes += 1;
            self.state.space.map(part)?;
            self.add_private(id, from, part)?;
            self.count_blocks(id, part.len, dropped)?;
        }
        Ok(reached)
    }

    /// Enters a run into the swap tree; the subvolume tree, which has nothing there, promises it.
    fn add_private(&mut self, id: InodeId, start: u64, run: Run) -> Result<()> {
        let extent = Extent {
            start,
            len: run.len,
            at: run.start,
            generation: self.state.generation,
            state: ExtentState::Prealloc,
        };
        self.add_extent(Place::swap(id), extent)?;
        self.promise(id, start, extent.end())
    }

    /// The subvolume tree promises `[from, to)`.
    fn promise(&mut self, id: InodeId, from: u64, to: u64) -> Result<()> {
        let extent = Extent {
            start: from,
            len: to - from,
            at: BlockNr(0),
            generation: self.state.generation,
            state: ExtentState::Unbacked,
        };
        self.add_extent(Place::file(id), extent)
    }
}

impl<D: BlockDevice> Plan<'_, D> {
    /// Makes the planned runs the file's, in the swap tree, and durable; `header` is the content of
    /// its first page.
    ///
    /// It has space. If the device fails half way, a part of the range is private and reads as
    /// zeros, in memory and, if changes are still possible, later on the device; another activation
    /// goes on from there.
    pub fn apply(mut self, header: &Block) -> Result<Activation> {
        self.unreserve();
        for index in 0..self.runs.len() {
            let Some(planned) = self.runs.get(index).copied() else {
                break;
            };
            match planned.origin {
                Origin::Private => {}
                Origin::Own => self.keep(planned)?,
                Origin::Staged if planned.page == 0 => self.back_header(index, planned, header)?,
                Origin::Staged => self.back(index, planned)?,
            }
        }
        self.volume.commit()?;
        Ok(self.report)
    }

    /// The first `done` blocks of a run that was staged are mapped: no plan's any more.
    fn mapped(&mut self, index: usize, done: u64) {
        if let Some(planned) = self.runs.get_mut(index) {
            planned.page += done;
            planned.run = Run::new(
                BlockNr(planned.run.start.0 + done),
                planned.run.len.saturating_sub(done),
            );
        }
    }

    fn keep(&self, planned: PlannedRun) -> Result<()> {
        let (mut at, end) = (planned.page, planned.page + planned.run.len);
        while at < end {
            let step = |txn: &mut Txn<'_, D>| txn.keep_own(self.id, planned, at);
            at = self.volume.update(STEPS, step)?.value;
        }
        Ok(())
    }

    fn back_header(&mut self, index: usize, planned: PlannedRun, header: &Block) -> Result<()> {
        self.volume.device().write(&[Write {
            block: planned.run.start,
            data: header,
        }])?;
        let step = |txn: &mut Txn<'_, D>| txn.keep_header(self.id, planned.run);
        self.volume.update(STEPS, step)?;
        self.mapped(index, planned.run.len);
        Ok(())
    }

    fn back(&mut self, index: usize, planned: PlannedRun) -> Result<()> {
        let mut done = 0;
        while done < planned.run.len {
            let rest = Run::new(BlockNr(planned.run.start.0 + done), planned.run.len - done);
            let from = planned.page + done;
            let step = |txn: &mut Txn<'_, D>| txn.back_staged(self.id, rest, from);
            let reached = self.volume.update(STEPS, step)?.value;
            self.mapped(index, reached - from);
            done = reached - planned.page;
        }
        Ok(())
    }
}
