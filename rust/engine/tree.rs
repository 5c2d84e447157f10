// SPDX-License-Identifier: GPL-2.0

//! The copy-on-write B+tree that everything is kept in, reading side.
//!
//! A node is changed in place only while the running transaction wrote it and nobody else points
//! to it; else it is copied (see `tree_write`). So a node that a reader holds never changes. Every
//! node below the root has a slot, and all its keys lie between the bounds that its parent gives:
//! that is checked on the way down, so that a walk over a damaged tree ends as well.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{tree_kind, RootItem};
use super::node::{self, Identity, Key, Ptr};
use super::store::{Clean, Store};
use super::types::{BlockNr, Generation, Run, SubvolId};
use super::volume::State;
use crate::platform::Block;
use core::ops::{ControlFlow, Deref};

/// One of the volume's trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeId {
    /// Subvolume id to root.
    Forest,
    /// Group to bitmap.
    Space,
    /// Blocks with more than one owner.
    Refs,
    /// Private blocks of swapfiles.
    Swap,
    /// The files of a subvolume.
    Subvol(SubvolId),
}

impl TreeId {
    /// The kind that its nodes carry.
    pub fn kind(self) -> u8 {
        match self {
            Self::Forest => tree_kind::FOREST,
            Self::Space => tree_kind::SPACE,
            Self::Refs => tree_kind::REFS,
            Self::Swap => tree_kind::SWAP,
            Self::Subvol(_) => tree_kind::SUBVOLUME,
        }
    }

    /// The subvolume that its nodes name as their writer.
    pub fn owner(self) -> u64 {
        match self {
            Self::Subvol(id) => id.0,
            _ => 0,
        }
    }
}

/// The root of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// The node.
    pub ptr: Ptr,
    /// Its level.
    pub level: u8,
}

impl From<RootItem> for Root {
    fn from(item: RootItem) -> Self {
        Self {
            ptr: Ptr {
                block: BlockNr(item.block.get()),
                generation: Generation(item.generation.get()),
            },
            level: item.level,
        }
    }
}

impl From<Root> for RootItem {
    fn from(root: Root) -> Self {
        Self {
            block: root.ptr.block.0.into(),
            generation: root.ptr.generation.0.into(),
            level: root.level,
            reserved: [0; 7],
        }
    }
}

/// What the parent says about the keys of a node: `[lower, upper)`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The smallest key that it may have.
    pub lower: Key,
    /// The first key that it may not have, if there is one.
    pub upper: Option<Key>,
}

impl Bounds {
    /// A root's.
    pub const ALL: Self = Self {
        lower: Key::MIN,
        upper: None,
    };

    /// Those of child `i` of `parent`, whose own are `self`.
    pub fn of_child(self, parent: &Block, i: usize) -> Self {
        Self {
            // The first child owns everything from the parent's own bound on, also what is before
            // its slot's key: a child that was before it may be gone.
            lower: match i {
                0 => self.lower,
                _ => node::child(parent, i).map_or(self.lower, |(key, _)| key),
            },
            upper: node::child(parent, i + 1).map_or(self.upper, |(key, _)| Some(key)),
        }
    }

    /// Whether the keys of `block`, which is not a root, keep to the bounds.
    fn hold(self, block: &Block) -> bool {
        let n = node::count(block);
        let key = |i| match node::level(block) {
            0 => node::leaf_key(block, i),
            _ => node::child(block, i).map(|(key, _)| key),
        };
        match (key(0), key(n.saturating_sub(1))) {
            (Some(first), Some(last)) => {
                first >= self.lower && self.upper.is_none_or(|upper| last < upper)
            }
            _ => false,
        }
    }
}

/// A node to read.
pub enum NodeRef<'a> {
    /// The running transaction changes it.
    Dirty(&'a Block),
    /// It does not change any more.
    Clean(Clean),
}

impl Deref for NodeRef<'_> {
    type Target = Block;

    fn deref(&self) -> &Block {
        match self {
            Self::Dirty(block) => block,
            Self::Clean(node) => node,
        }
    }
}

/// The volume, to read. The state lock is held, shared or exclusively.
pub struct View<'a, D> {
    /// The device.
    pub store: &'a Store<D>,
    /// What is in memory.
    pub state: &'a State,
}

impl<D> Clone for View<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for View<'_, D> {}

impl<'a, D: BlockDevice> View<'a, D> {
    /// The node at `ptr`.
    pub fn node(&self, tree: TreeId, ptr: Ptr, level: u8) -> Result<NodeRef<'a>> {
        if let Some(block) = self.state.dirty.get(&ptr.block.0) {
            let same = ptr.generation == self.state.generation
                && node::level(block) == level
                && node::tree(block) == tree.kind();
            return match same {
                true => Ok(NodeRef::Dirty(block)),
                false => Err(Error::corrupt(ptr.block, "node with two identities")),
            };
        }
        let id = Identity {
            uuid: &self.store.uuid,
            ptr,
            tree: tree.kind(),
            level,
        };
        self.store.node(id).map(NodeRef::Clean)
    }

    /// The node at `ptr`, which a parent with these bounds points to.
    pub fn child(&self, tree: TreeId, ptr: Ptr, level: u8, bounds: Bounds) -> Result<NodeRef<'a>> {
        let node = self.node(tree, ptr, level)?;
        if !bounds.hold(&node) {
            return Err(Error::corrupt(ptr.block, "keys beyond the parent's bounds"));
        }
        Ok(node)
    }

    /// The leaf that `key` belongs to, and its block.
    fn leaf(&self, tree: TreeId, key: &Key) -> Result<(NodeRef<'a>, Bounds, BlockNr)> {
        let root = self.state.root(tree)?;
        let (mut level, mut bounds, mut at) = (root.level, Bounds::ALL, root.ptr.block);
        let mut node = self.node(tree, root.ptr, level)?;
        while level > 0 {
            let i = node::child_search(&node, key);
            let Some((_, ptr)) = node::child(&node, i) else {
                return Err(Error::corrupt(root.ptr.block, "inner node without a child"));
            };
            bounds = bounds.of_child(&node, i);
            level -= 1;
            node = self.child(tree, ptr, level, bounds)?;
            at = ptr.block;
        }
        Ok((node, bounds, at))
    }

    /// What `read` makes of the item at `key`, if there is one.
    pub fn get<R>(
        &self,
        tree: TreeId,
        key: &Key,
        read: impl FnOnce(&[u8]) -> Result<R>,
    ) -> Result<Option<R>> {
        let (leaf, _, block) = self.leaf(tree, key)?;
        match node::leaf_search(&leaf, key) {
            Ok(i) => read(node::leaf_data(&leaf, i))
                .map(Some)
                .map_err(|error| error.in_block(block)),
            Err(_) => Ok(None),
        }
    }

    /// Shows the items with keys in `[from, to]` in ascending order, until `visit` breaks.
    pub fn scan(
        &self,
        tree: TreeId,
        from: &Key,
        to: &Key,
        mut visit: impl FnMut(&Key, &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut at = *from;
        loop {
            let (leaf, bounds, block) = self.leaf(tree, &at)?;
            let first = node::leaf_search(&leaf, &at).unwrap_or_else(|i| i);
            for i in first..node::count(&leaf) {
                let Some(key) = node::leaf_key(&leaf, i) else {
                    break;
                };
                if key > *to {
                    return Ok(());
                }
                let visited = visit(&key, node::leaf_data(&leaf, i));
                if visited.map_err(|error| error.in_block(block))?.is_break() {
                    return Ok(());
                }
            }
            match bounds.upper {
                Some(upper) if upper <= *to && upper > at => at = upper,
                _ => return Ok(()),
            }
        }
    }

    /// What `read` makes of the first item in `[from, to]`.
    pub fn first<R>(
        &self,
        tree: TreeId,
        from: &Key,
        to: &Key,
        mut read: impl FnMut(&Key, &[u8]) -> Result<R>,
    ) -> Result<Option<R>> {
        let mut found = None;
        self.scan(tree, from, to, |key, data| {
            found = Some(read(key, data)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// What `read` makes of the item with the greatest key that is `key` or less.
    pub fn prev<R>(
        &self,
        tree: TreeId,
        key: &Key,
        read: impl FnOnce(&Key, &[u8]) -> Result<R>,
    ) -> Result<Option<R>> {
        let mut at = *key;
        loop {
            let (leaf, bounds, block) = self.leaf(tree, &at)?;
            let found = match node::leaf_search(&leaf, &at) {
                Ok(i) => Some(i),
                Err(i) => i.checked_sub(1),
            };
            if let Some((i, key)) = found.and_then(|i| Some((i, node::leaf_key(&leaf, i)?))) {
                return read(&key, node::leaf_data(&leaf, i))
                    .map(Some)
                    .map_err(|error| error.in_block(block));
            }
            match bounds.lower.prev() {
                Some(before) if before < at => at = before,
                Some(_) => return Err(Error::corrupt(block, "bounds of a leaf")),
                None => return Ok(None),
            }
        }
    }

    /// Whether a node on the way to `key` belongs to another tree as well, or did so in a
    /// transaction that a crash may bring back, or for somebody who still reads: the data below it must
    /// not be written in place.
    pub fn path_shared(&self, id: SubvolId, key: &Key) -> Result<bool> {
        let tree = TreeId::Subvol(id);
        let root = self.state.root(tree)?;
        let (mut ptr, mut level, mut bounds) = (root.ptr, root.level, Bounds::ALL);
        loop {
            if self.shared(ptr.block, 1)?.0 {
                return Ok(true);
            }
            if level == 0 {
                return Ok(false);
            }
            let node = self.node(tree, ptr, level)?;
            let i = node::child_search(&node, key);
            let Some((_, next)) = node::child(&node, i) else {
                return Ok(false);
            };
            bounds = bounds.of_child(&node, i);
            (ptr, level) = (next, level - 1);
            self.child(tree, ptr, level, bounds)?;
        }
    }

    /// Whether a node belongs to another tree as well. (Nodes of an older transaction are never
    /// written in place, so it does not matter here when a count fell.)
    pub fn node_shared(&self, tree: TreeId, ptr: Ptr) -> Result<bool> {
        let TreeId::Subvol(id) = tree else {
            return Ok(false);
        };
        if ptr.generation > self.state.subvol(id)?.last_snapshot {
            return Ok(false);
        }
        let (count, _) = self.owners(Run::new(ptr.block, 1))?;
        Ok(count > 1)
    }
}
