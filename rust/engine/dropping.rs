// SPDX-License-Identifier: GPL-2.0

//! Dropping a subvolume that was deleted: giving back what nobody else owns.
//!
//! Dropping goes from the left: each step takes leaves away whose items nobody else owns, or lets go
//! of a shared subtree as a whole, and leaves a smaller tree, so that a crash costs nothing.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::extent::Place;
use super::format::{item_kind, subvolume_flag};
use super::node::{self, Key};
use super::tree::{Root, TreeId};
use super::tree_write::Txn;
use super::types::{BlockNr, Done, Ino, InodeId, Run, SubvolId, MAX_FILE_BLOCKS, MAX_INO};
use super::volume::{Cost, Volume};
use crate::platform::{Vec, VecExt};

/// Subtrees or leaves that one step of dropping takes away.
const STEP: usize = 8;
/// Shared pieces that a leaf may point to if it is to go as a whole.
const LEAF_PIECES: usize = 24;
/// Else, extents of it that one step drops.
const EXTENTS: usize = 2;
/// What a step takes: the left side of a tree, and for each shared piece the leaf of the refs tree
/// that it is in and what is above that. The way down has no shared node, only what is left of a leaf
/// may be merged with one. So little that it never finds no room for itself.
const COST: Cost = Cost::drops(LEAF_PIECES + 8).on_paths(1);

impl<D: BlockDevice> Txn<'_, D> {
    /// Takes one leaf or one shared subtree away, or a part of a leaf; `true` when the tree is gone.
    fn drop_left(&mut self, id: SubvolId) -> Result<bool> {
        let tree = TreeId::Subvol(id);
        let root = self.state.root(tree)?;
        if root.level == 0 || self.view().node_shared(tree, root.ptr)? {
            return self.drop_node(id, root);
        }
        // The way down the left side, up to the first node that can go as a whole. No node on it is
        // shared: nothing gains an owner.
        let mut parent = self.own_root(tree)?;
        loop {
            let (_, ptr) = self.first_child(parent)?;
            let level = self.level_of(parent)? - 1;
            if level == 0 || self.view().node_shared(tree, ptr)? {
                return match self.drop_node(id, Root { ptr, level })? {
                    true => self.forget_first(tree, parent),
                    false => Ok(false),
                };
            }
            parent = self.own_first(tree, parent)?;
        }
    }

    /// Lets go of a node: of a shared one as a whole, of a leaf with everything that it points to.
    /// `false` if that is in too many pieces for one step and some of the leaf is left.
    fn drop_node(&mut self, id: SubvolId, root: Root) -> Result<bool> {
        let tree = TreeId::Subvol(id);
        if self.view().node_shared(tree, root.ptr)? {
            self.count_dropped(id, 1)?;
            self.release(Run::new(root.ptr.block, 1))?;
            return Ok(true);
        }
        let (runs, first) = self.leaf_runs(tree, root)?;
        let mut pieces = 0;
        for run in runs.iter() {
            let most = LEAF_PIECES + 1 - pieces;
            pieces += self.view().shared_pieces(*run, most)?;
            if pieces > LEAF_PIECES {
                return self.drop_some_extents(id, first).map(|()| false);
            }
        }
        let blocks = runs.iter().map(|run| run.len).sum::<u64>();
        self.count_dropped(id, blocks + 1)?;
        for run in runs.iter() {
            self.release(*run)?;
        }
        self.free_node(root.ptr)?;
        Ok(true)
    }

    /// The blocks that a leaf points to, and the key of its first extent that has any.
    fn leaf_runs(&self, tree: TreeId, root: Root) -> Result<(Vec<Run>, Key)> {
        let leaf = self.view().node(tree, root.ptr, root.level)?;
        let (mut runs, mut first) = (Vec::new(), Key::MAX);
        for i in 0..node::count(&leaf) {
            let key = node::leaf_key(&leaf, i).filter(|key| key.kind == item_kind::EXTENT);
            if let Some(key) = key {
                let data = node::leaf_data(&leaf, i);
                let extent = super::extent::decode(self.store.geometry(), &key, data)?;
                if let Some(run) = extent.run() {
                    runs.try_push(run)?;
                    first = first.min(key);
                }
            }
        }
        Ok((runs, first))
    }

    /// Drops extents of a file from the one with this key on, as many as one step can count.
    fn drop_some_extents(&mut self, id: SubvolId, key: Key) -> Result<()> {
        let place = Place::file(InodeId {
            subvol: id,
            ino: Ino(key.object),
        });
        let (_, dropped) = self.drop_extents(place, key.offset, MAX_FILE_BLOCKS, EXTENTS)?;
        self.count_dropped(id, dropped)
    }

    fn count_dropped(&mut self, id: SubvolId, blocks: u64) -> Result<()> {
        let item = &mut self.subvol_mut(id)?.item;
        item.dropped = item.dropped.get().saturating_add(blocks).into();
        Ok(())
    }

    fn forget_subvolume(&mut self, id: SubvolId) -> Result<()> {
        self.state.subvols.remove(&id.0);
        self.remove(TreeId::Forest, &Key::new(id.0, item_kind::FOREST, 0))?;
        Ok(())
    }

    /// Drops swap space of the files of a subvolume; whether none is left.
    fn drop_swap(&mut self, id: SubvolId) -> Result<bool> {
        let inode = |ino| InodeId {
            subvol: id,
            ino: Ino(ino),
        };
        let first = Key::new(inode(0).st_ino(), 0, 0);
        let last = Key::new(inode(MAX_INO.0).st_ino(), u8::MAX, u64::MAX);
        let found = self
            .view()
            .first(TreeId::Swap, &first, &last, |key, _| match key.kind {
                item_kind::SWAP => Ok(key.object),
                _ => Err(Error::corrupt(BlockNr(0), "kind of a swap item")),
            })?;
        let Some(st_ino) = found else {
            return Ok(true);
        };
        let place = Place::swap(InodeId::from_st_ino(st_ino));
        self.drop_extents(place, 0, MAX_FILE_BLOCKS, STEP)?;
        Ok(false)
    }
}

impl<D: BlockDevice> Volume<D> {
    /// One step of dropping a subvolume that is marked; loop until the value is true.
    pub fn drop_step(&self, id: SubvolId) -> Result<Done<bool>> {
        self.open_subvolume(id)?;
        self.update(COST, |txn| {
            let flags = txn.state.subvol(id)?.item.flags.get();
            if flags & subvolume_flag::DROPPING == 0 {
                return Err(Error::Invalid("the subvolume is in use"));
            }
            if !txn.drop_swap(id)? {
                return Ok(false);
            }
            let gone = txn.drop_left(id)?;
            if gone {
                txn.forget_subvolume(id)?;
            }
            Ok(gone)
        })
    }
}
