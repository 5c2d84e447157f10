// SPDX-License-Identifier: GPL-2.0

//! Swapfiles: making one private, in metadata only, and giving it back.
//!
//! The range of a swapfile that the kernel swaps to lives in the swap tree, which no snapshot
//! shares; the subvolume tree keeps its own header page and a promise without blocks. Activation
//! moves the range there: blocks that belong to this file alone stay where they are, the others get
//! new ones, and only the header page is copied. A second activation finds everything in place.
//!
//! Where free space allows it, no boundary between two runs is inside an aligned chunk of 512 pages
//! (what a huge page covers), but for the one behind the header page.
//!
//! While it is active nothing changes the mapping (`State::swapping`). When it is not, the range
//! reads as zeros, and whoever wants to change it moves it back first ([`Volume::restore_swap`]).

use super::data::STEP;
use super::device::BlockDevice;
use super::error::{Error, Result};
use super::extent::{Extent, ExtentState, Place};
use super::format::{item_kind, subvolume_flag};
use super::inode;
use super::node::Key;
use super::tree::TreeId;
use super::tree_write::Txn;
use super::types::{
    BlockNr, Done, FileBlock, InodeId, Run, CHUNK_BLOCKS, INODE_SWAP, MAX_FILE_BLOCKS,
};
use super::volume::{Cost, Volume};
use crate::platform::log;

/// A run of an active swapfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapRun {
    /// The first page of the file.
    pub page: u64,
    /// The blocks behind it and the pages after it.
    pub run: Run,
}

/// Drops the private blocks of `id` from `from` on, at most `budget` runs; whether none is left.
pub(super) fn drop_from<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    from: FileBlock,
    budget: usize,
) -> Result<bool> {
    if inode::load(txn.view(), id)?.flags & INODE_SWAP == 0 {
        return Ok(true);
    }
    let (reached, _) = txn.drop_extents(Place::swap(id), from.0, MAX_FILE_BLOCKS, budget)?;
    let done = reached >= MAX_FILE_BLOCKS;
    if done && from.0 == 0 {
        txn.set_swap_flag(id, false)?;
    }
    Ok(done)
}

impl<D: BlockDevice> Txn<'_, D> {
    /// `SwapActive` if the file is an active swapfile.
    pub(super) fn check_not_swapping(&self, id: InodeId) -> Result<()> {
        match self.state.swapping.contains(&id.st_ino()) {
            true => Err(Error::SwapActive),
            false => Ok(()),
        }
    }

    pub(super) fn set_swap_flag(&mut self, id: InodeId, set: bool) -> Result<()> {
        let mut attr = inode::load(self.view(), id)?;
        let flags = if set {
            attr.flags | INODE_SWAP
        } else {
            attr.flags & !INODE_SWAP
        };
        if flags == attr.flags {
            return Ok(());
        }
        attr.flags = flags;
        inode::store(self, id, &attr)
    }

    /// Moves runs back to the subvolume tree; whether none is left.
    fn restore_step(&mut self, id: InodeId) -> Result<bool> {
        let (swap, file) = (Place::swap(id), Place::file(id));
        for _ in 0..STEP / 4 {
            let Some(extent) = self.view().extent(swap, 0)? else {
                self.set_swap_flag(id, false)?;
                return Ok(true);
            };
            if extent.state == ExtentState::Written {
                // The header page: the subvolume tree has its own.
                self.drop_extents(swap, extent.start, extent.end(), 1)?;
                continue;
            }
            let (reached, dropped) =
                self.drop_extents(file, extent.start, extent.end(), STEP / 4)?;
            let part = extent.part(extent.start, reached);
            if part.len == 0 {
                return Ok(false);
            }
            self.cut_extent(swap, part.start, part.end())?;
            let generation = self.state.generation;
            self.add_extent(file, Extent { generation, ..part })?;
            self.count_blocks(id, part.len, dropped)?;
        }
        Ok(false)
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Marks a file as an active swapfile, or takes the mark away. `Busy` if it has the mark,
    /// `ReadOnly` in a subvolume where nothing may change.
    pub fn set_swapping(&self, id: InodeId, active: bool) -> Result<()> {
        let mut state = self.state.write();
        if !active {
            state.swapping.remove(&id.st_ino());
            return Ok(());
        }
        let flags = state.subvol(id.subvol)?.item.flags.get();
        if flags & subvolume_flag::READ_ONLY != 0 {
            return Err(Error::ReadOnly);
        }
        match state.swapping.contains(&id.st_ino()) || flags & subvolume_flag::DROPPING != 0 {
            true => Err(Error::Busy),
            false => Ok(state.swapping.insert(id.st_ino(), ()).map(drop)?),
        }
    }

    /// Takes the blocks of a swapfile that is not active: its range is a promise without blocks
    /// then, as in a snapshot. Whether there was one. The header page's block stays: it may be being
    /// read into the page cache.
    pub(super) fn take_over(&self, except: InodeId) -> Result<bool> {
        let mut victim = None;
        self.query(|view| {
            view.scan(TreeId::Swap, &Key::MIN, &Key::MAX, |key, _| {
                if key.kind != item_kind::SWAP {
                    return Err(Error::corrupt(BlockNr(0), "kind of a swap item"));
                }
                let active = view.state.swapping.contains(&key.object);
                if active || key.offset == 0 || key.object == except.st_ino() {
                    return Ok(core::ops::ControlFlow::Continue(()));
                }
                victim = Some(InodeId::from_st_ino(key.object));
                Ok(core::ops::ControlFlow::Break(()))
            })
        })?;
        let Some(victim) = victim else {
            return Ok(false);
        };
        log(format_args!(
            "({}): swapfile {victim} is not active and gives its blocks to {except}",
            self.store.dev.name()
        ));
        let mut from = 1;
        while from < MAX_FILE_BLOCKS {
            let place = Place::swap(victim);
            let cost = Cost::frees(STEP);
            let step = self.update(cost, |txn| {
                // It may have become active meanwhile, and keeps what it has then.
                if txn.state.swapping.contains(&victim.st_ino()) {
                    return Ok(MAX_FILE_BLOCKS);
                }
                Ok(txn.drop_extents(place, from, MAX_FILE_BLOCKS, STEP)?.0)
            })?;
            from = step.value;
        }
        self.commit()?;
        Ok(true)
    }

    /// The run of an active swapfile's blocks from page `page` on, up to page `pages` - 1: as long
    /// as the blocks follow each other.
    pub fn swap_run(&self, id: InodeId, page: u64, pages: u64) -> Result<Option<SwapRun>> {
        self.query(|view| {
            let place = Place::swap(id);
            let Some(first) = view.extent_in(place, page, pages)? else {
                return Ok(None);
            };
            if first.start != page {
                return Err(Error::corrupt(first.at, "gap in a swapfile's runs"));
            }
            let mut run = Run::new(first.at, first.len);
            while let Some(next) = view.extent_in(place, page + run.len, pages)? {
                if next.start != page + run.len || next.at.0 != run.end() {
                    break;
                }
                run.len += next.len;
            }
            Ok(Some(SwapRun { page, run }))
        })
    }

    /// Whether a boundary after `page` pages is one where a huge page may end: aligned, or behind
    /// the header page.
    pub fn is_swap_boundary(page: u64) -> bool {
        page == 1 || page % CHUNK_BLOCKS == 0
    }

    /// Moves the private range of a file, which is not an active swapfile, back to its subvolume
    /// tree, as blocks that read as zeros. `SwapActive` if it is active.
    pub fn restore_swap(&self, id: InodeId) -> Result<()> {
        while self.inode(id)?.flags & INODE_SWAP != 0 {
            let step = self.update(Cost::frees(STEP), |txn| {
                txn.check_not_swapping(id)?;
                txn.restore_step(id)
            })?;
            if step.value {
                break;
            }
        }
        Ok(())
    }

    /// Makes sure that a write to `[start, start + len)` goes to the subvolume tree's blocks, and
    /// that they stay: moves a private range back, or, for the header page alone, drops the private
    /// copy of that, and finishes a truncate that was interrupted.
    pub fn prepare_write(&self, id: InodeId, start: FileBlock, len: u64) -> Result<Done<()>> {
        self.settle_truncate(id)?;
        if self.inode(id)?.flags & INODE_SWAP == 0 {
            return Ok(self.unchanged(()));
        }
        if start.0.saturating_add(len) > 1 {
            self.restore_swap(id)?;
        }
        self.update(Cost::FREES, |txn| {
            txn.check_not_swapping(id)?;
            txn.drop_extents(Place::swap(id), 0, 1, 1).map(drop)
        })
    }
}
