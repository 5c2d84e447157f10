// SPDX-License-Identifier: GPL-2.0

//! The copy-on-write B+tree, writing side (Rodeh, "B-trees, Shadowing, and Clones").
//!
//! On the way to a leaf every node is made the transaction's own: written by it and pointed to
//! once. A node of an older transaction is copied to a new block and the old one is freed when the
//! transaction is durable; a node with other owners is copied, everything that the copy points to
//! gains an owner, and the old node loses one. On the way to an insertion every full inner node is
//! split, so that a leaf that must be split finds room above it.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::extent;
use super::format::{item_kind, MAX_ITEM, MAX_LEVELS};
use super::node::{self, Identity, Key, Ptr, SPACE};
use super::store::Store;
use super::tree::{Bounds, Root, TreeId, View};
use super::types::{BlockNr, Run, SubvolId};
use super::volume::{State, Subvol};
use crate::platform::{zeroed_block, Block};

/// The volume, to change: one bounded step of the running transaction. The state lock is held
/// exclusively.
pub struct Txn<'a, D> {
    /// The device.
    pub store: &'a Store<D>,
    /// What is in memory.
    pub state: &'a mut State,
}

/// The way from a root to a leaf; all nodes on it are the transaction's own.
struct Path {
    /// Inner nodes from the root on, each with the slot of the next.
    inner: [(BlockNr, usize); MAX_LEVELS],
    depth: usize,
    leaf: BlockNr,
}

impl Path {
    fn parent(&self, depth: usize) -> Option<(BlockNr, usize)> {
        self.inner.get(depth).copied()
    }
}

fn lost() -> Error {
    Error::corrupt(BlockNr(0), "changed node is not in memory")
}

impl<D: BlockDevice> Txn<'_, D> {
    /// The same volume, to read.
    pub fn view(&self) -> View<'_, D> {
        View {
            store: self.store,
            state: self.state,
        }
    }

    /// A subvolume, to change.
    pub fn subvol_mut(&mut self, id: SubvolId) -> Result<&mut Subvol> {
        let subvol = self.state.subvols.get_mut(&id.0).ok_or(Error::NotFound)?;
        self.state.changes += 1;
        subvol.dirty = true;
        Ok(subvol)
    }

    pub(super) fn set_root(&mut self, tree: TreeId, root: Root) -> Result<()> {
        match tree {
            TreeId::Subvol(id) => self.subvol_mut(id)?.root = root,
            TreeId::Forest => self.state.forest = root,
            TreeId::Space => self.state.space_root = root,
            TreeId::Refs => self.state.refs = root,
            TreeId::Swap => self.state.swap = root,
        }
        Ok(())
    }

    pub(super) fn dirty(&self, block: BlockNr) -> Result<&Block> {
        self.state
            .dirty
            .get(&block.0)
            .map(|b| &**b)
            .ok_or_else(lost)
    }

    pub(super) fn dirty_mut(&mut self, block: BlockNr) -> Result<&mut Block> {
        self.state.changes += 1;
        self.state
            .dirty
            .get_mut(&block.0)
            .map(|b| &mut **b)
            .ok_or_else(lost)
    }

    fn ptr(&self, block: BlockNr) -> Ptr {
        Ptr {
            block,
            generation: self.state.generation,
        }
    }

    /// An empty node of the transaction.
    pub(super) fn new_node(&mut self, tree: TreeId, level: u8) -> Result<Ptr> {
        let mut data = zeroed_block()?;
        self.state.changes += 1;
        let block = self.state.space.take_node(self.store)?;
        let ptr = self.ptr(block);
        let id = Identity {
            uuid: &self.store.uuid,
            ptr,
            tree: tree.kind(),
            level,
        };
        node::init(&mut data, id, tree.owner());
        // A block that was freed and taken again must not show its earlier content.
        self.store.forget(ptr.block);
        self.state.dirty.insert(ptr.block.0, data)?;
        Ok(ptr)
    }

    /// Makes the root of a tree the transaction's own.
    pub(super) fn own_root(&mut self, tree: TreeId) -> Result<BlockNr> {
        let root = self.state.root(tree)?;
        let ptr = self.own(tree, root.ptr, root.level, None)?;
        if ptr != root.ptr {
            let level = root.level;
            self.set_root(tree, Root { ptr, level })?;
        }
        Ok(ptr.block)
    }

    /// The level of a node of the transaction.
    pub(super) fn level_of(&self, block: BlockNr) -> Result<u8> {
        Ok(node::level(self.dirty(block)?))
    }

    /// The first child of an inner node of the transaction.
    pub(super) fn first_child(&self, parent: BlockNr) -> Result<(Key, Ptr)> {
        node::child(self.dirty(parent)?, 0).ok_or_else(lost)
    }

    /// Makes the first child of an inner node of the transaction its own as well.
    pub(super) fn own_first(&mut self, tree: TreeId, parent: BlockNr) -> Result<BlockNr> {
        let level = self.level_of(parent)?.checked_sub(1).ok_or_else(lost)?;
        self.own_child(tree, parent, 0, level, Bounds::ALL)
            .map(|ptr| ptr.block)
    }

    /// Takes the slot of the first leaf or subtree, which is gone already, out of the tree;
    /// `true` when nothing is left of it. `parent` is the node that had the slot.
    pub(super) fn forget_first(&mut self, tree: TreeId, parent: BlockNr) -> Result<bool> {
        node::inner_remove(self.dirty_mut(parent)?, 0);
        // The nodes above on the left side that have no child any more go as well.
        loop {
            let root = self.state.root(tree)?;
            let (mut above, mut at, mut level) = (None, root.ptr, root.level);
            while level > 0 {
                match node::child(self.dirty(at.block)?, 0) {
                    Some((_, child)) if self.state.dirty.contains(&child.block.0) => {
                        level -= 1;
                        // A damaged pointer may lead back up, to a block that was free.
                        self.view().node(tree, child, level)?;
                        (above, at) = (Some(at), child);
                    }
                    _ => break,
                }
            }
            if level == 0 || node::count(self.dirty(at.block)?) > 0 {
                return Ok(false);
            }
            self.free_node(at)?;
            match above {
                Some(above) => node::inner_remove(self.dirty_mut(above.block)?, 0),
                None => return Ok(true),
            }
        }
    }

    /// Frees a node that this transaction's trees do not point to any more.
    pub(super) fn free_node(&mut self, ptr: Ptr) -> Result<()> {
        self.state.changes += 1;
        self.store.forget(ptr.block);
        if self.state.dirty.remove(&ptr.block.0).is_some() {
            return self.state.space.unmap_new(self.store, ptr.block);
        }
        self.state.space.unmap(self.store, Run::new(ptr.block, 1))
    }

    /// Makes a node the transaction's own: the pointer to it, new or as it was.
    fn own(&mut self, tree: TreeId, ptr: Ptr, level: u8, bounds: Option<Bounds>) -> Result<Ptr> {
        let view = self.view();
        let source = match bounds {
            Some(bounds) => view.child(tree, ptr, level, bounds)?,
            None => view.node(tree, ptr, level)?,
        };
        let shared = view.node_shared(tree, ptr)?;
        if ptr.generation == self.state.generation && !shared {
            return Ok(ptr);
        }
        let mut copy = zeroed_block()?;
        copy.copy_from_slice(&source[..]);
        drop(source);
        self.state.changes += 1;
        let block = self.state.space.take_node(self.store)?;
        let new = self.ptr(block);
        node::readdress(&mut copy, new, tree.owner());
        self.store.forget(new.block);
        self.state.dirty.insert(new.block.0, copy)?;
        if shared {
            self.share_children(new.block)?;
            self.release(Run::new(ptr.block, 1))?;
        } else {
            if matches!(tree, TreeId::Subvol(_)) {
                self.inherit_fallen(ptr.block, new.block)?;
            }
            self.free_node(ptr)?;
        }
        Ok(new)
    }

    /// Everything that a node of a subvolume tree points to gains an owner.
    fn share_children(&mut self, block: BlockNr) -> Result<()> {
        for i in 0..node::count(self.dirty(block)?) {
            if let Some(run) = self.child_run(block, i)? {
                self.share(run)?;
            }
        }
        Ok(())
    }

    /// Everything that the copy of a node points to counts as shared for as long, at least, as the node did
    /// whose count fell: after a crash the other owner has both again.
    fn inherit_fallen(&mut self, old: BlockNr, copy: BlockNr) -> Result<()> {
        if !self.view().shared(old, 1)?.0 {
            return Ok(());
        }
        for i in 0..node::count(self.dirty(copy)?) {
            if let Some(run) = self.child_run(copy, i)? {
                self.state.unshared.insert(run.start.0, run.len)?;
            }
        }
        Ok(())
    }

    /// The blocks that slot `i` of a node of a subvolume tree points to.
    fn child_run(&self, block: BlockNr, i: usize) -> Result<Option<Run>> {
        let node = self.dirty(block)?;
        if node::level(node) > 0 {
            return Ok(node::child(node, i).map(|(_, ptr)| Run::new(ptr.block, 1)));
        }
        let Some(key) = node::leaf_key(node, i).filter(|key| key.kind == item_kind::EXTENT) else {
            return Ok(None);
        };
        let data = node::leaf_data(node, i);
        Ok(extent::decode(self.store.geometry(), &key, data)?.run())
    }

    /// Puts a node with one child above the root.
    fn grow(&mut self, tree: TreeId) -> Result<Ptr> {
        let root = self.state.root(tree)?;
        let level = root.level + 1;
        if usize::from(level) >= MAX_LEVELS {
            return Err(Error::corrupt(root.ptr.block, "tree too high"));
        }
        let top = self.new_node(tree, level)?;
        node::inner_insert(self.dirty_mut(top.block)?, 0, Key::MIN, root.ptr);
        self.set_root(tree, Root { ptr: top, level })?;
        Ok(top)
    }

    /// Splits the full inner node at `slot` of `parent`, which has room.
    fn split_inner(&mut self, tree: TreeId, parent: BlockNr, slot: usize) -> Result<()> {
        let (_, left) = node::child(self.dirty(parent)?, slot).ok_or_else(lost)?;
        let half = node::count(self.dirty(left.block)?) / 2;
        self.split(tree, parent, slot, half).map(|_| ())
    }

    /// Moves the slots from `at` on, of the node at `slot` of `parent`, to a new node after it.
    fn split(&mut self, tree: TreeId, parent: BlockNr, slot: usize, at: usize) -> Result<BlockNr> {
        let (_, left) = node::child(self.dirty(parent)?, slot).ok_or_else(lost)?;
        let level = node::level(self.dirty(left.block)?);
        let right = self.new_node(tree, level)?;
        let mut data = self.state.dirty.remove(&right.block.0).ok_or_else(lost)?;
        node::move_tail(self.dirty_mut(left.block)?, at, &mut data);
        let first = match level {
            0 => node::leaf_key(&data, 0),
            _ => node::child(&data, 0).map(|(key, _)| key),
        };
        self.state.dirty.insert(right.block.0, data)?;
        if let Some(key) = first {
            node::inner_insert(self.dirty_mut(parent)?, slot + 1, key, right);
        }
        Ok(right.block)
    }

    /// Makes the way to `key` the transaction's own; with room in every inner node if something
    /// is to be inserted.
    fn own_path(&mut self, tree: TreeId, key: &Key, insert: bool) -> Result<Path> {
        let root = self.state.root(tree)?;
        let mut at = self.own(tree, root.ptr, root.level, None)?;
        if at != root.ptr {
            self.set_root(
                tree,
                Root {
                    ptr: at,
                    level: root.level,
                },
            )?;
        }
        let mut level = root.level;
        if insert && level > 0 && !node::inner_fits(self.dirty(at.block)?) {
            at = self.grow(tree)?;
            level += 1;
            self.split_inner(tree, at.block, 0)?;
        }
        let mut path = Path {
            inner: [(BlockNr(0), 0); MAX_LEVELS],
            depth: 0,
            leaf: at.block,
        };
        let mut bounds = Bounds::ALL;
        while level > 0 {
            let mut slot = node::child_search(self.dirty(at.block)?, key);
            if insert {
                node::lower_bound(self.dirty_mut(at.block)?, slot, key);
            }
            level -= 1;
            let mut child = self.own_child(tree, at.block, slot, level, bounds)?;
            if insert && level > 0 && !node::inner_fits(self.dirty(child.block)?) {
                self.split_inner(tree, at.block, slot)?;
                slot = node::child_search(self.dirty(at.block)?, key);
                child = node::child(self.dirty(at.block)?, slot).ok_or_else(lost)?.1;
            }
            bounds = bounds.of_child(self.dirty(at.block)?, slot);
            let place = path.inner.get_mut(path.depth).ok_or_else(lost)?;
            *place = (at.block, slot);
            path.depth += 1;
            path.leaf = child.block;
            at = child;
        }
        Ok(path)
    }

    /// Makes all nodes on the way to `key` the transaction's own.
    pub(super) fn own_way(&mut self, tree: TreeId, key: &Key) -> Result<()> {
        self.own_path(tree, key, false).map(drop)
    }

    /// Makes child `slot` of `parent` the transaction's own.
    fn own_child(
        &mut self,
        tree: TreeId,
        parent: BlockNr,
        slot: usize,
        level: u8,
        bounds: Bounds,
    ) -> Result<Ptr> {
        let node = self.dirty(parent)?;
        let (_, old) = node::child(node, slot).ok_or_else(lost)?;
        let bounds = bounds.of_child(node, slot);
        let new = self.own(tree, old, level, Some(bounds))?;
        if new != old {
            node::set_child(self.dirty_mut(parent)?, slot, new);
        }
        Ok(new)
    }

    /// Replaces the value of an item by one of the same size. Once the way to it is the
    /// transaction's own this neither takes nor frees a block.
    fn overwrite(&mut self, tree: TreeId, key: &Key, data: &[u8]) -> Result<()> {
        let path = self.own_path(tree, key, false)?;
        let leaf = self.dirty_mut(path.leaf)?;
        let slot = node::leaf_search(leaf, key).map_err(|_| lost())?;
        let place = node::leaf_data_mut(leaf, slot);
        // A device that answers differently each time could have it otherwise.
        if place.len() != data.len() {
            return Err(lost());
        }
        place.copy_from_slice(data);
        Ok(())
    }

    /// Inserts an item, or replaces the value of the one that is there.
    pub fn put(&mut self, tree: TreeId, key: &Key, data: &[u8]) -> Result<()> {
        if data.len() > MAX_ITEM {
            return Err(Error::Invalid("item larger than a third of a node"));
        }
        if self.view().get(tree, key, |old| Ok(old.len()))? == Some(data.len()) {
            return self.overwrite(tree, key, data);
        }
        let mut path = self.own_path(tree, key, true)?;
        let leaf = self.dirty_mut(path.leaf)?;
        let slot = node::leaf_search(leaf, key).inspect(|slot| node::leaf_remove(leaf, *slot));
        let slot = slot.unwrap_or_else(|slot| slot);
        if node::leaf_fits(leaf, data.len()) {
            node::leaf_insert(leaf, slot, *key, data);
            return Ok(());
        }
        if path.depth == 0 {
            let top = self.grow(tree)?;
            path = Path { depth: 1, ..path };
            if let Some(first) = path.inner.first_mut() {
                *first = (top.block, 0);
            }
        }
        let (parent, child) = path.parent(path.depth - 1).ok_or_else(lost)?;
        self.split_leaf(tree, parent, child, slot, key, data)
    }

    /// Splits the leaf at `child` of `parent` and inserts an item that goes to its `slot`.
    fn split_leaf(
        &mut self,
        tree: TreeId,
        parent: BlockNr,
        child: usize,
        slot: usize,
        key: &Key,
        data: &[u8],
    ) -> Result<()> {
        let (_, left) = node::child(self.dirty(parent)?, child).ok_or_else(lost)?;
        let (stay, goes_left) = node::leaf_split_point(self.dirty(left.block)?, slot, data.len());
        let right = self.split(tree, parent, child, stay)?;
        if goes_left {
            node::leaf_insert(self.dirty_mut(left.block)?, slot, *key, data);
            return Ok(());
        }
        let at = slot.saturating_sub(stay);
        node::leaf_insert(self.dirty_mut(right)?, at, *key, data);
        if at > 0 {
            return Ok(());
        }
        if node::count(self.dirty(right)?) == 1 {
            // Nothing moved: the new leaf has no slot above it yet.
            let ptr = self.ptr(right);
            node::inner_insert(self.dirty_mut(parent)?, child + 1, *key, ptr);
        } else {
            node::lower_bound(self.dirty_mut(parent)?, child + 1, key);
        }
        Ok(())
    }

    /// Removes an item; whether it was there.
    pub fn remove(&mut self, tree: TreeId, key: &Key) -> Result<bool> {
        if self.view().get(tree, key, |_| Ok(()))?.is_none() {
            return Ok(false);
        }
        let path = self.own_path(tree, key, false)?;
        let leaf = self.dirty_mut(path.leaf)?;
        if let Ok(slot) = node::leaf_search(leaf, key) {
            node::leaf_remove(leaf, slot);
        }
        self.rebalance(tree, &path)?;
        Ok(true)
    }

    /// Removes nodes that became empty and merges those that became small, from the leaf up.
    fn rebalance(&mut self, tree: TreeId, path: &Path) -> Result<()> {
        let mut block = path.leaf;
        for depth in (0..path.depth).rev() {
            let (parent, slot) = path.parent(depth).ok_or_else(lost)?;
            if node::count(self.dirty(block)?) == 0 {
                node::inner_remove(self.dirty_mut(parent)?, slot);
                let ptr = self.ptr(block);
                self.free_node(ptr)?;
            } else if node::used(self.dirty(block)?) >= SPACE / 4
                || !self.merge(tree, parent, slot)?
            {
                break;
            }
            block = parent;
        }
        self.shrink_root(tree)
    }

    /// Merges child `slot` of `parent` with a neighbour if both fit into one node.
    fn merge(&mut self, tree: TreeId, parent: BlockNr, slot: usize) -> Result<bool> {
        for left in [Some(slot), slot.checked_sub(1)].into_iter().flatten() {
            let node = self.dirty(parent)?;
            let level = node::level(node).saturating_sub(1);
            let (Some((_, a)), Some((_, b))) =
                (node::child(node, left), node::child(node, left + 1))
            else {
                continue;
            };
            let view = self.view();
            let size =
                node::used(&*view.node(tree, a, level)?) + node::used(&*view.node(tree, b, level)?);
            if size > SPACE {
                continue;
            }
            // The bounds of the parent are not known here; its own slots are.
            let a = self.own_child(tree, parent, left, level, Bounds::ALL)?;
            let b = self.own_child(tree, parent, left + 1, level, Bounds::ALL)?;
            let mut data = self.state.dirty.remove(&b.block.0).ok_or_else(lost)?;
            node::move_tail(&mut data, 0, self.dirty_mut(a.block)?);
            self.state.dirty.insert(b.block.0, data)?;
            node::inner_remove(self.dirty_mut(parent)?, left + 1);
            self.free_node(b)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Takes away roots with one child; an empty tree is an empty leaf.
    fn shrink_root(&mut self, tree: TreeId) -> Result<()> {
        loop {
            let root = self.state.root(tree)?;
            let top = self.dirty(root.ptr.block)?;
            if root.level == 0 || node::count(top) > 1 {
                return Ok(());
            }
            match node::child(top, 0) {
                Some((_, ptr)) => {
                    self.set_root(
                        tree,
                        Root {
                            ptr,
                            level: root.level - 1,
                        },
                    )?;
                    self.free_node(root.ptr)?;
                    // The new root may be of an older transaction; it is then done.
                    if !self.state.dirty.contains(&ptr.block.0) {
                        return Ok(());
                    }
                }
                None => {
                    let new = self.new_node(tree, 0)?;
                    self.set_root(tree, Root { ptr: new, level: 0 })?;
                    return self.free_node(root.ptr);
                }
            }
        }
    }
}
