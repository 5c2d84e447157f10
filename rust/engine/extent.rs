// SPDX-License-Identifier: GPL-2.0

//! Extent items: what is behind the blocks of a file, in its subvolume tree and in the swap tree.
//!
//! Where the swap tree has an item it wins over the subvolume tree, which has `Unbacked` there.
//! Extents of one file never overlap. What a file's items say about `st_blocks` is kept in its
//! inode item: every block that is not a hole counts.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{extent_state, item_kind, ExtentItem, Geometry};
use super::node::Key;
use super::tree::{TreeId, View};
use super::tree_write::Txn;
use super::types::{BlockNr, FileBlock, Generation, InodeId, Run, MAX_FILE_BLOCKS};
use super::{inode, swap};
use zerocopy::{FromBytes, IntoBytes};

/// What an extent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentState {
    /// Blocks with data.
    Written,
    /// Blocks that read as zeros.
    Prealloc,
    /// A promise without blocks.
    Unbacked,
}

/// A run of a file's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first file block.
    pub start: u64,
    /// Number of blocks.
    pub len: u64,
    /// The first block on the device; 0 if `Unbacked`.
    pub at: BlockNr,
    /// The transaction that mapped it.
    pub generation: Generation,
    /// What it holds.
    pub state: ExtentState,
}

impl Extent {
    /// The first file block after it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// The device blocks behind it, if there are any.
    pub fn run(&self) -> Option<Run> {
        (self.state != ExtentState::Unbacked).then(|| Run::new(self.at, self.len))
    }

    /// The part of it in `[from, to)`, which overlaps it.
    pub fn part(&self, from: u64, to: u64) -> Self {
        let start = self.start.max(from);
        let len = self.end().min(to).saturating_sub(start);
        let at = match self.state {
            ExtentState::Unbacked => BlockNr(0),
            _ => BlockNr(self.at.0.saturating_add(start - self.start)),
        };
        Self {
            start,
            len,
            at,
            ..*self
        }
    }

    /// Whether `next` goes on where `self` ends, on the device as well, and holds the same.
    pub(super) fn continues(&self, next: &Self) -> bool {
        let adjacent = match self.state {
            ExtentState::Unbacked => true,
            _ => self.at.0.saturating_add(self.len) == next.at.0,
        };
        self.state == next.state && self.end() == next.start && adjacent
    }

    pub(super) fn item(&self) -> ExtentItem {
        ExtentItem {
            at: self.at.0.into(),
            len: self.len.into(),
            generation: self.generation.0.into(),
            state: match self.state {
                ExtentState::Written => extent_state::WRITTEN,
                ExtentState::Prealloc => extent_state::PREALLOC,
                ExtentState::Unbacked => extent_state::UNBACKED,
            },
            flags: 0,
            reserved: [0; 6],
        }
    }
}

/// Where the extents of a file are: its subvolume tree, or the swap tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The tree.
    pub tree: TreeId,
    object: u64,
    kind: u8,
}

impl Place {
    /// The extents of `id` in its subvolume tree.
    pub fn file(id: InodeId) -> Self {
        Self {
            tree: TreeId::Subvol(id.subvol),
            object: id.ino.0,
            kind: item_kind::EXTENT,
        }
    }

    /// The extents of `id` in the swap tree.
    pub fn swap(id: InodeId) -> Self {
        Self {
            tree: TreeId::Swap,
            object: id.st_ino(),
            kind: item_kind::SWAP,
        }
    }

    /// The key of an extent that begins at file block `start`.
    pub fn key(&self, start: u64) -> Key {
        Key::new(self.object, self.kind, start)
    }
}

/// Decodes an extent item and checks its rules.
pub fn decode(geometry: Geometry, key: &Key, data: &[u8]) -> Result<Extent> {
    let bad = |rule| Error::corrupt(BlockNr(0), rule);
    let item = ExtentItem::read_from_bytes(data).map_err(|_| bad("size of an extent item"))?;
    let state = match item.state {
        extent_state::WRITTEN => ExtentState::Written,
        extent_state::PREALLOC => ExtentState::Prealloc,
        extent_state::UNBACKED => ExtentState::Unbacked,
        _ => return Err(bad("state of an extent")),
    };
    let extent = Extent {
        start: key.offset,
        len: item.len.get(),
        at: BlockNr(item.at.get()),
        generation: Generation(item.generation.get()),
        state,
    };
    let end = extent.start.checked_add(extent.len);
    if extent.len == 0 || end.is_none_or(|end| end > MAX_FILE_BLOCKS) || item.flags != 0 {
        return Err(bad("bounds of an extent"));
    }
    let held = match state {
        // A swapfile's blocks are there: the kernel will write to them.
        ExtentState::Unbacked => extent.at.0 == 0 && key.kind != item_kind::SWAP,
        _ => geometry.may_hold(extent.at.0, extent.len),
    };
    if !held {
        return Err(bad("blocks of an extent"));
    }
    Ok(extent)
}

impl<D: BlockDevice> View<'_, D> {
    /// The first extent of `place` that ends after file block `from`.
    pub fn extent(&self, place: Place, from: u64) -> Result<Option<Extent>> {
        let geometry = self.store.geometry();
        let mine = |key: &Key| key.object == place.object && key.kind == place.kind;
        let before = self.prev(place.tree, &place.key(from), |key, data| {
            mine(key).then(|| decode(geometry, key, data)).transpose()
        })?;
        if let Some(extent) = before.flatten().filter(|extent| extent.end() > from) {
            return Ok(Some(extent));
        }
        self.first(
            place.tree,
            &place.key(from),
            &place.key(u64::MAX),
            |key, data| decode(geometry, key, data),
        )
    }

    /// The part of the first extent of `place` that overlaps `[from, to)`.
    pub fn extent_in(&self, place: Place, from: u64, to: u64) -> Result<Option<Extent>> {
        let found = self.extent(place, from)?;
        Ok(found
            .filter(|extent| extent.start < to && from < to)
            .map(|extent| extent.part(from, to)))
    }

    /// Whether the blocks of `part` of the extent `whole`, of a subvolume tree, have other owners, and
    /// how many of them, from its first on, are alike in that.
    pub fn extent_shared(&self, id: InodeId, whole: &Extent, part: &Extent) -> Result<(bool, u64)> {
        let Some(run) = part.run() else {
            return Ok((false, part.len));
        };
        let (shared, alike) = self.shared(run.start, run.len)?;
        if shared || part.generation > self.state.subvol(id.subvol)?.last_snapshot {
            return Ok((shared, alike));
        }
        // The way to the item, which may be in the leaf before the one where the part's key would be.
        let key = Place::file(id).key(whole.start);
        Ok((self.path_shared(id.subvol, &key)?, alike))
    }
}

impl<D: BlockDevice> Txn<'_, D> {
    /// Takes `[from, to)` of the extent that is there out of the tree; its blocks keep their owner.
    pub fn cut_extent(&mut self, place: Place, from: u64, to: u64) -> Result<()> {
        let Some(old) = self
            .view()
            .extent(place, from)?
            .filter(|old| old.start < to)
        else {
            return Ok(());
        };
        // Shorten it in place where that is possible: one item less to write.
        if old.start < from {
            self.write_extent(place, &old.part(old.start, from))?;
        } else {
            self.remove(place.tree, &place.key(old.start))?;
        }
        if old.end() > to {
            self.write_extent(place, &old.part(to, old.end()))?;
        }
        Ok(())
    }

    /// Writes an extent item; nothing else is in its range.
    pub fn write_extent(&mut self, place: Place, extent: &Extent) -> Result<()> {
        self.put(
            place.tree,
            &place.key(extent.start),
            extent.item().as_bytes(),
        )
    }

    /// Puts an extent where nothing is, as one with the neighbours that it continues.
    pub fn add_extent(&mut self, place: Place, extent: Extent) -> Result<()> {
        let mut extent = extent;
        if let Some(next) = self.view().extent(place, extent.end())? {
            if extent.continues(&next) {
                self.remove(place.tree, &place.key(next.start))?;
                extent.len += next.len;
                extent.generation = extent.generation.min(next.generation);
            }
        }
        let before = match extent.start.checked_sub(1) {
            Some(block) => self.view().extent(place, block)?,
            None => None,
        };
        if let Some(before) = before.filter(|before| before.continues(&extent)) {
            extent = Extent {
                len: before.len + extent.len,
                generation: extent.generation.min(before.generation),
                ..before
            };
        }
        self.write_extent(place, &extent)
    }

    /// Removes what is in `[from, to)`, at most `budget` extents of it: how far it got, and how many
    /// blocks were no hole.
    pub fn drop_extents(
        &mut self,
        place: Place,
        from: u64,
        to: u64,
        budget: usize,
    ) -> Result<(u64, u64)> {
        let (mut at, mut dropped) = (from, 0u64);
        for _ in 0..budget {
            let Some(extent) = self.view().extent_in(place, at, to)? else {
                return Ok((to, dropped));
            };
            let extent = match extent.run() {
                None => extent,
                Some(run) => {
                    let len = self.view().countable(run)?;
                    extent.part(extent.start, extent.start + len)
                }
            };
            self.cut_extent(place, extent.start, extent.end())?;
            if let Some(run) = extent.run() {
                self.release(run)?;
            }
            dropped = dropped.saturating_add(extent.len);
            at = extent.end();
        }
        match self.view().extent_in(place, at, to)? {
            Some(next) => Ok((next.start, dropped)),
            None => Ok((to, dropped)),
        }
    }

    /// Adds `added` to an inode's blocks and takes `dropped` away.
    pub fn count_blocks(&mut self, id: InodeId, added: u64, dropped: u64) -> Result<()> {
        if added == dropped {
            return Ok(());
        }
        let mut attr = inode::load(self.view(), id)?;
        attr.blocks = attr.blocks.saturating_add(added).saturating_sub(dropped);
        inode::store(self, id, &attr)
    }
}

/// Drops the blocks of `id` from `from` on, at most `budget` extents; whether none is left.
pub(super) fn drop_from<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    from: FileBlock,
    budget: usize,
) -> Result<bool> {
    let swapped = swap::drop_from(txn, id, from, budget)?;
    if !swapped {
        return Ok(false);
    }
    let (reached, dropped) = txn.drop_extents(Place::file(id), from.0, MAX_FILE_BLOCKS, budget)?;
    txn.count_blocks(id, 0, dropped)?;
    Ok(reached >= MAX_FILE_BLOCKS)
}
