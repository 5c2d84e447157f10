// SPDX-License-Identifier: GPL-2.0

//! The end of a transaction, in two phases.
//!
//! 1. Under the state lock, exclusively and bounded: write the changed roots to the forest tree,
//!    the groups to the space tree, take the bitmaps and the nodes as they are, open the next
//!    transaction.
//! 2. Without it, one commit at a time: write nodes and bitmaps, flush, write the super block with
//!    FUA, then its mirror, and release the blocks that lost owners ([`super::readers`]).
//!
//! Nothing goes to a fixed place before the previous super block is durable: a bitmap is written to
//! the place that the durable space tree does not name. When a write fails nothing is released, and
//! the volume refuses every further change.

use super::device::{BlockDevice, Write};
use super::error::{Error, Result};
use super::format::{item_kind, SpaceItem};
use super::node::{self, Key};
use super::readers::Freed;
use super::store::Clean;
use super::super_block;
use super::tree::TreeId;
use super::tree_write::Txn;
use super::types::{BlockNr, Generation};
use super::volume::{check_writable, State, Volume};
use crate::platform::{log, new_arc, zeroed_block, Block, Box, Map, Vec, VecExt};
use zerocopy::IntoBytes;

/// Blocks that are given to the device at once.
const BATCH: usize = 256;

/// A closed transaction.
struct Closed {
    generation: Generation,
    nodes: Vec<(BlockNr, Clean)>,
    bitmaps: Vec<(BlockNr, Box<Block>)>,
    super_block: Box<Block>,
    freed: Freed,
}

impl<D: BlockDevice> Volume<D> {
    /// Makes everything durable that was changed before the call, data that was written in place
    /// included.
    pub fn commit(&self) -> Result<()> {
        let _one = self.committer.lock();
        match self.commit_locked()? {
            true => Ok(()),
            // No tree changed, but data may have.
            false => self.flush().inspect_err(|error| self.note(*error)),
        }
    }

    /// As [`Volume::commit`], but leaves an idle device alone: data that was written in place
    /// while no tree changed is not made durable. For a timer.
    pub fn commit_changes(&self) -> Result<()> {
        let _one = self.committer.lock();
        self.commit_locked().map(drop)
    }

    /// Makes what was changed so far in transaction `generation` durable, which is the running one or
    /// an older one. Callers that come while it is being committed share that commit. Returns the
    /// last transaction that is durable as a whole. That is an older one when nothing was changed: the
    /// running one goes on, and what is changed in it later is not durable.
    pub fn sync_to(&self, generation: Generation) -> Result<Generation> {
        let durable = || self.state.read().durable;
        let _one = match durable() {
            enough if enough >= generation => return Ok(enough),
            _ => self.committer.lock(),
        };
        if durable() < generation {
            self.commit_locked()?;
        }
        Ok(durable())
    }

    /// The transaction that has the last of the changes made so far, or a later one.
    pub fn last_change(&self) -> Generation {
        let state = self.state.read();
        if state.is_dirty() {
            return state.generation;
        }
        match state.changes {
            0 => state.durable,
            _ => Generation(state.generation.0.saturating_sub(1)),
        }
    }

    /// Makes data durable that was written in place.
    pub fn flush(&self) -> Result<()> {
        self.store.dev.flush()
    }

    /// Whether there was something to commit. The caller holds the committer's lock.
    pub(super) fn commit_locked(&self) -> Result<bool> {
        let Some(freed) = self.commit_keeping()? else {
            return Ok(false);
        };
        self.release_freed(freed)
            .inspect_err(|_| self.shut_down("a commit failed"))?;
        Ok(true)
    }

    /// Commits, but lets nobody have what was freed: that is for [`Volume::release_freed`]. `None`
    /// when there was nothing to commit. The caller holds the committer's lock.
    pub(super) fn commit_keeping(&self) -> Result<Option<Freed>> {
        let Some(closed) = self.close()? else {
            return Ok(None);
        };
        match self.write_out(closed) {
            Ok(freed) => Ok(Some(freed)),
            Err(error) => {
                self.stop(&mut self.state.write(), "a commit failed", Some(error));
                Err(error)
            }
        }
    }

    /// Phase 1. `None` when nothing was changed.
    fn close(&self) -> Result<Option<Closed>> {
        let mut state = self.state.write();
        // After a failed commit nothing may pass for durable.
        if state.fault.is_some() {
            return Err(Error::ReadOnly);
        }
        if !state.is_dirty() {
            return Ok(None);
        }
        check_writable(&state)?;
        let result = Txn {
            store: &self.store,
            state: &mut state,
        }
        .close();
        if let Err(error) = &result {
            self.stop(&mut state, "a commit failed", Some(*error));
        }
        result.map(Some)
    }

    /// Phase 2, but for the release of what was freed.
    fn write_out(&self, mut closed: Closed) -> Result<Freed> {
        let dev = &self.store.dev;
        self.write_all(&closed)?;
        dev.flush()?;
        let mirror = super_block::write_next(dev, self.store.geometry(), &mut closed.super_block)?;
        if let Some(error) = mirror {
            // The commit is durable, but its only copy must not be the last one.
            log(format_args!(
                "({}): mirror of the super block: {error}",
                dev.name()
            ));
            dev.flush()?;
        }
        for (block, _) in closed.nodes.iter() {
            self.store.unpin(*block);
        }
        {
            let mut state = self.state.write();
            state.durable = closed.generation;
            state.space.set_durable(closed.generation);
            let place = super_block::parse(&closed.super_block)?.block;
            super_block::parse_mut(&mut state.super_block)?.block = place;
        }
        Ok(closed.freed)
    }

    /// Blocks were freed, durably: they are available as soon as nobody reads them.
    pub(super) fn release_freed(&self, freed: Freed) -> Result<()> {
        self.readers.freed(freed)?;
        self.release(self.readers.ready());
        Ok(())
    }

    fn write_all(&self, closed: &Closed) -> Result<()> {
        let mut batch = Vec::with_room(BATCH)?;
        let nodes = closed.nodes.iter().map(|(block, node)| (*block, &***node));
        let bitmaps = closed.bitmaps.iter().map(|(block, data)| (*block, &**data));
        for (block, data) in nodes.chain(bitmaps) {
            batch.try_push(Write { block, data })?;
            if batch.len() == BATCH {
                self.store.dev.write(&batch)?;
                batch.clear();
            }
        }
        self.store.dev.write(&batch)
    }

    /// Makes blocks available that are durably free and that nobody reads: these, and what else waits.
    /// Those of the same transactions that have one owner left are that owner's.
    pub(super) fn release(&self, mut ready: Option<Freed>) {
        while let Some(freed) = ready {
            let mut state = self.state.write();
            for run in freed.runs.iter() {
                state.space.release(*run);
            }
            state.fallen.remove(&freed.generation.0);
            drop(state);
            ready = self.readers.ready();
        }
    }
}

impl<D: BlockDevice> Txn<'_, D> {
    fn close(&mut self) -> Result<Closed> {
        self.write_forest()?;
        self.write_space()?;
        let generation = self.state.generation;
        let bitmaps = self.state.space.close(&self.store.uuid, generation)?;
        let super_block = self.write_super()?;
        let nodes = self.take_nodes()?;
        let state: &mut State = self.state;
        let unshared = core::mem::take(&mut state.unshared);
        if !unshared.is_empty() {
            state.fallen.insert(generation.0, unshared)?;
        }
        state.committed_changes = state.changes;
        state.generation = Generation(generation.0.saturating_add(1));
        let runs = state.space.take_freed();
        Ok(Closed {
            generation,
            nodes,
            bitmaps,
            super_block,
            freed: Freed { generation, runs },
        })
    }

    /// Writes the changed roots of subvolumes to the forest tree.
    fn write_forest(&mut self) -> Result<()> {
        let mut from = 0;
        while let Some((id, subvol)) = self.state.subvols.at_or_after(&from) {
            from = id.saturating_add(1);
            if !subvol.dirty {
                continue;
            }
            let (key, item) = (Key::new(id, item_kind::FOREST, 0), subvol.forest_item());
            self.put(TreeId::Forest, &key, item.as_bytes())?;
            if let Some(subvol) = self.state.subvols.get_mut(&id) {
                subvol.item = item;
                subvol.dirty = false;
            }
        }
        Ok(())
    }

    /// Writes the changed groups to the space tree. Doing so takes and frees blocks, which may
    /// change more groups; each node of the tree is copied once, so that this ends.
    fn write_space(&mut self) -> Result<()> {
        let mut done = 0;
        while let Some(group) = self.state.space.dirty_group(done) {
            // The real values follow when no more group can change; their size is the same.
            self.put_space(group, SpaceItem::default())?;
            done += 1;
        }
        for i in 0..done {
            let Some(group) = self.state.space.dirty_group(i) else {
                break;
            };
            let item = self
                .state
                .space
                .next_item(&self.store.uuid, group, self.state.generation);
            self.put_space(group, item)?;
        }
        match self.state.space.dirty_group(done) {
            None => Ok(()),
            Some(_) => Err(Error::corrupt(
                BlockNr(0),
                "group changed while its item was written",
            )),
        }
    }

    fn put_space(&mut self, group: u64, item: SpaceItem) -> Result<()> {
        self.put(
            TreeId::Space,
            &Key::new(group, item_kind::SPACE, 0),
            item.as_bytes(),
        )
    }

    /// The super block of this transaction.
    fn write_super(&mut self) -> Result<Box<Block>> {
        let state: &mut State = self.state;
        let free = state.space.unmapped();
        let sb = super_block::parse_mut(&mut state.super_block)?;
        sb.generation = state.generation.0.into();
        sb.forest = state.forest.into();
        sb.space = state.space_root.into();
        sb.refs = state.refs.into();
        sb.swap = state.swap.into();
        sb.free_blocks = free.into();
        let mut copy = zeroed_block()?;
        copy.copy_from_slice(&state.super_block[..]);
        Ok(copy)
    }

    /// Takes the nodes that the transaction wrote, sealed. They do not change any more.
    fn take_nodes(&mut self) -> Result<Vec<(BlockNr, Clean)>> {
        let mut nodes = Vec::with_room(self.state.dirty.len())?;
        let mut dirty = core::mem::replace(&mut self.state.dirty, Map::new());
        while let Some(block) = dirty.first().map(|(block, _)| block) {
            let Some(mut data) = dirty.remove(&block) else {
                break;
            };
            node::seal(&mut data);
            let clean = new_arc(data)?;
            self.store.keep(BlockNr(block), clean.clone(), true)?;
            nodes.try_push((BlockNr(block), clean))?;
        }
        Ok(nodes)
    }
}
