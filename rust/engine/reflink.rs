// SPDX-License-Identifier: GPL-2.0

//! Sharing data between files: what FICLONE, FICLONERANGE and FIDEDUPERANGE do.

use super::data::STEP;
use super::device::BlockDevice;
use super::error::{Error, Result};
use super::extent::{Extent, ExtentState, Place};
use super::tree_write::Txn;
use super::types::{BlockNr, Done, FileBlock, InodeId, MAX_FILE_BLOCKS};
use super::volume::{Cost, Volume};

/// A part of a clone that is still to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clone {
    /// The file that has the data.
    pub source: InodeId,
    /// Its first block.
    pub from: FileBlock,
    /// The file that gets it.
    pub target: InodeId,
    /// Its first block.
    pub to: FileBlock,
    /// Number of blocks.
    pub len: u64,
}

impl<D: BlockDevice> Txn<'_, D> {
    /// Clones the first piece; how many blocks that is.
    fn clone_piece(&mut self, clone: &Clone) -> Result<u64> {
        let (source, target) = (Place::file(clone.source), Place::file(clone.target));
        let end = clone.from.0 + clone.len;
        let found = self.view().extent_in(source, clone.from.0, end)?;
        let (len, data) = match found {
            Some(extent) if extent.start == clone.from.0 => (extent.len, Some(extent)),
            Some(extent) => (extent.start - clone.from.0, None),
            None => (clone.len, None),
        };
        let len = match data.and_then(|extent| extent.run()) {
            Some(run) => self.view().countable(run)?.min(len),
            None => len,
        };
        let to = clone.to.0;
        let (reached, dropped) = self.drop_extents(target, to, to + len, STEP / 4)?;
        let len = reached - to;
        let Some(extent) = data.filter(|_| len > 0) else {
            self.count_blocks(clone.target, 0, dropped)?;
            return Ok(len);
        };
        let extent = extent.part(extent.start, extent.start + len);
        let copy = match extent.state {
            ExtentState::Written => Extent {
                start: to,
                ..extent
            },
            _ => Extent {
                start: to,
                state: ExtentState::Unbacked,
                at: BlockNr(0),
                ..extent
            },
        };
        if let Some(run) = copy.run() {
            self.share(run)?;
        }
        let generation = self.state.generation;
        self.add_extent(target, Extent { generation, ..copy })?;
        self.count_blocks(clone.target, len, dropped)?;
        Ok(len)
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Makes the target's blocks those of the source, from the first on: one step; how many blocks
    /// of `len` it did. Blocks that were never written become a promise without blocks in the
    /// target, holes become holes.
    ///
    /// The data of both ranges is on the device, and nobody changes either mapping meanwhile.
    /// The size of the target is the caller's to set.
    pub fn clone_range(&self, clone: &Clone) -> Result<Done<u64>> {
        let fits = |start: FileBlock| {
            start
                .0
                .checked_add(clone.len)
                .is_some_and(|end| end <= MAX_FILE_BLOCKS)
        };
        if !fits(clone.from) || !fits(clone.to) {
            return Err(Error::FileTooBig);
        }
        self.restore_swap(clone.target)?;
        self.settle_truncate(clone.target)?;
        self.update(Cost::takes(STEP), |txn| {
            txn.check_not_swapping(clone.source)?;
            txn.check_not_swapping(clone.target)?;
            let mut done = 0;
            for _ in 0..STEP / 4 {
                if done >= clone.len {
                    break;
                }
                done += txn.clone_piece(&Clone {
                    from: FileBlock(clone.from.0 + done),
                    to: FileBlock(clone.to.0 + done),
                    len: clone.len - done,
                    ..*clone
                })?;
            }
            Ok(done)
        })
    }
}
