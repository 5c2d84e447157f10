// SPDX-License-Identifier: GPL-2.0

//! Making a mounted volume larger or smaller.
//!
//! 1. [`Volume::begin_resize`] checks the new size, and puts up a fence: blocks that the new size has
//!    no place for are not handed out any more (see `space/resize.rs`). Only memory knows of it.
//! 2. [`Volume::move_step`], as often as [`Volume::finish_resize`] says `Move`, brings what is
//!    among those blocks elsewhere (see [`super::relocate`]). Each step is a commit of its own, after
//!    which the volume is as it was, but for addresses.
//! 3. [`Volume::finish_resize`] changes the size, in two commits, one for each slot of the super
//!    block. [`Volume::cancel_resize`] takes the fence away instead.
//!
//! The mirrors move with the end of the volume. A slot says where its mirror is by the size that it
//! tells. When the first of the two commits is cut, the other slot counts, which tells the old size,
//! and nothing was written to its mirrors or to what it points to. Nothing that was freed is handed
//! out before both slots tell the new size, the old mirrors included: until then the loss of one
//! slot costs a commit and no more.

use super::device::{BlockDevice, Write};
use super::error::{Error, Result};
use super::format::Geometry;
use super::node::Key;
use super::space::Leaving;
use super::super_block;
use super::tree::{TreeId, View};
use super::tree_write::Txn;
use super::types::{BlockNr, InodeId};
use super::volume::{check_writable, Cost, Volume};
use super::{extent, format::item_kind};
use crate::platform::{log, zeroed_block};
use core::ops::ControlFlow;

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the volume has its new size.
    Done,
    /// Something is in the way: [`Volume::move_step`].
    Move,
    /// Data is being written there, or a reader has not finished: commit, and try again.
    Wait,
}

impl<D: BlockDevice> Volume<D> {
    /// Prepares for a size of `blocks`, or a little less, where that would leave a last group that is
    /// too small: the new size.
    ///
    /// `FileTooBig` if the device is smaller, `Invalid` if no volume has that size, `NoSpace` if what
    /// is in use has no room, `Busy` if an active swapfile is in the way or another resize is under
    /// way: then nothing has changed.
    pub fn begin_resize(&self, blocks: u64) -> Result<u64> {
        if blocks > self.store.dev.blocks() {
            return Err(Error::FileTooBig);
        }
        let to = Geometry::for_device(blocks).ok_or(Error::Invalid("size of a volume"))?;
        // What was freed is free then.
        self.commit()?;
        self.check_swap_leaving(Leaving::new(self.store.geometry(), to))?;
        self.fence(to)?;
        Ok(to.blocks)
    }

    /// Puts up the fence, if there is room for everything that has to move. Nobody may see it
    /// otherwise: what was promised to data that is being written might be behind it.
    fn fence(&self, to: Geometry) -> Result<()> {
        let mut state = self.state.write();
        check_writable(&state)?;
        state.space.fence(&self.store, to)?;
        let room = state.space.leaving_in_use().and_then(|blocks| {
            match state.has_room_behind_fence(self.store.geometry(), blocks) {
                true => Ok(()),
                false => Err(Error::NoSpace),
            }
        });
        room.inspect_err(|_| state.space.open_fence())
    }

    /// Blocks of the device, which may have become larger.
    pub fn device_blocks(&self) -> u64 {
        self.store.dev.blocks()
    }

    /// `Busy`, with a log line, if blocks of an active swapfile are leaving. Activation may still come:
    /// each step looks again.
    pub(super) fn check_swap_leaving(&self, leaving: Leaving) -> Result<()> {
        let file = self.query(|view| view.swap_leaving(&leaving))?;
        self.log_busy(file, "the volume cannot shrink over its blocks");
        match file {
            Some(_) => Err(Error::Busy),
            None => Ok(()),
        }
    }

    /// Gives up, if a resize was begun and not finished. Nobody may still read blocks that something
    /// was moved away from, but for readers with a ticket.
    pub fn cancel_resize(&self) {
        self.state.write().space.open_fence();
    }

    /// Changes the size, if nothing is in the way.
    pub fn finish_resize(&self) -> Result<Next> {
        let _one = self.committer.lock();
        let to = {
            let mut state = self.state.write();
            let Some(to) = state.space.resizing() else {
                return Ok(Next::Done);
            };
            check_writable(&state)?;
            if to == self.store.geometry() {
                state.space.open_fence();
                return Ok(Next::Done);
            }
            if state.space.last_leaving(&self.store, 1)?.1.is_some() {
                return Ok(Next::Move);
            }
            if !state.space.is_vacant()? {
                return Ok(Next::Wait);
            }
            state.changes += 1;
            to
        };
        // From here on the newest super block is in a slot, not only in a mirror of the old size.
        self.commit_locked()?;
        let from = self.store.geometry();
        self.clear_mirrors(from, to)?;
        // A volume that is full can grow.
        let cost = match to.blocks > from.blocks {
            true => Cost::drops(0),
            false => Cost::SMALL,
        };
        if self.try_update(cost, &mut |txn| txn.resize())?.is_none() {
            return Err(Error::NoSpace);
        }
        let first = self.commit_keeping()?;
        self.state.write().changes += 1;
        let second = self.commit_keeping()?;
        for freed in [first, second].into_iter().flatten() {
            self.release_freed(freed)?;
        }
        self.wipe_mirrors(from);
        Ok(Next::Done)
    }

    /// Clears the places of the new mirrors, which nothing uses, or which are beyond the old end. What
    /// is there now, an older volume's mirror or what a user made to look like one, would be believed
    /// if the power failed between the new size's first super block and its mirrors.
    fn clear_mirrors(&self, from: Geometry, to: Geometry) -> Result<()> {
        let zeros = zeroed_block()?;
        for slot in [0, 1] {
            let block = to.mirror(slot);
            // Where there is a mirror already, there is no other volume's.
            if !from.super_copies().contains(&block) {
                self.store.dev.write(&[Write {
                    block: BlockNr(block),
                    data: &zeros,
                }])?;
            }
        }
        self.store.dev.flush()
    }

    /// Removes the mirrors of a volume that was larger: they would be found, and believed, if both
    /// slots were lost.
    fn wipe_mirrors(&self, from: Geometry) {
        let now = self.store.geometry();
        let wiped = zeroed_block().map_err(Error::from).and_then(|zeros| {
            let wipe = |slot| match from.mirror(slot) {
                block if block >= now.blocks => self.store.dev.write(&[Write {
                    block: BlockNr(block),
                    data: &zeros,
                }]),
                _ => Ok(()),
            };
            wipe(0).and_then(|()| wipe(1))
        });
        if let Err(error) = wiped {
            let name = self.store.dev.name();
            log(format_args!(
                "({name}): mirrors of the larger volume: {error}"
            ));
        }
    }
}

impl<D: BlockDevice> View<'_, D> {
    /// An active swapfile with blocks that are leaving.
    fn swap_leaving(self, leaving: &Leaving) -> Result<Option<InodeId>> {
        let mut found = None;
        self.scan(TreeId::Swap, &Key::MIN, &Key::MAX, |key, data| {
            if key.kind != item_kind::SWAP {
                return Err(Error::corrupt(BlockNr(0), "kind of a swap item"));
            }
            let extent = extent::decode(self.store.geometry(), key, data)?;
            let leaves = extent.run().and_then(|run| leaving.first(run)).is_some();
            if leaves && self.state.swapping.contains(&key.object) {
                found = Some(InodeId::from_st_ino(key.object));
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

impl<D: BlockDevice> Txn<'_, D> {
    /// The size that was prepared for becomes the volume's.
    fn resize(&mut self) -> Result<()> {
        let Some(to) = self.state.space.resizing() else {
            return Err(Error::Invalid("no resize was begun"));
        };
        self.state.changes += 1;
        let first = Key::new(to.groups(), 0, 0);
        while let Some(key) = self
            .view()
            .first(TreeId::Space, &first, &Key::MAX, |key, _| Ok(*key))?
        {
            self.remove(TreeId::Space, &key)?;
        }
        self.state.space.resize(self.store)?;
        self.store.set_geometry(to);
        super_block::parse_mut(&mut self.state.super_block)?.blocks = to.blocks.into();
        Ok(())
    }
}
