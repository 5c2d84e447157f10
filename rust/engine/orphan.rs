// SPDX-License-Identifier: GPL-2.0

//! Orphans: inodes whose content, or a part of it, is still to be dropped.
//!
//! An inode becomes an orphan in the transaction that takes its last name, and stays one while it
//! is open. A truncate makes one for as long as its steps take. After a crash whoever mounts the
//! volume for writing finds the items and finishes the work.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{item_kind, OrphanItem};
use super::node::Key;
use super::tree::{TreeId, View};
use super::tree_write::Txn;
use super::types::{BlockNr, Done, FileBlock, Ino, InodeId, SubvolId, BLOCK_SIZE, MAX_INO};
use super::volume::{Cost, Volume};
use super::{extent, inode};
use core::ops::ControlFlow;
use zerocopy::{FromBytes, IntoBytes};

/// The size in the item of an inode without a name: nothing of it stays.
pub(super) const NO_NAME: u64 = u64::MAX;

/// Extents that one step drops at most.
const STEP_EXTENTS: usize = 16;
/// Other items that one step drops at most.
const STEP_ITEMS: usize = 16;

fn key(ino: Ino) -> Key {
    Key::new(0, item_kind::ORPHAN, ino.0)
}

/// The number of bytes to keep in an ORPHAN item, or [`NO_NAME`].
pub(super) fn decode(data: &[u8]) -> Result<u64> {
    OrphanItem::read_from_bytes(data)
        .map(|item| item.size.get())
        .map_err(|_| Error::corrupt(BlockNr(0), "size of an orphan item"))
}

/// The size in the ORPHAN item of `id`, if it has one.
pub(super) fn get<D: BlockDevice>(view: View<'_, D>, id: InodeId) -> Result<Option<u64>> {
    view.get(TreeId::Subvol(id.subvol), &key(id.ino), decode)
}

/// Makes `id` an orphan of which `size` bytes stay, or none: [`NO_NAME`].
pub(super) fn put<D: BlockDevice>(txn: &mut Txn<'_, D>, id: InodeId, size: u64) -> Result<()> {
    let item = OrphanItem { size: size.into() };
    txn.put(TreeId::Subvol(id.subvol), &key(id.ino), item.as_bytes())
}

/// `id` is not an orphan any more.
pub(super) fn remove<D: BlockDevice>(txn: &mut Txn<'_, D>, id: InodeId) -> Result<()> {
    txn.remove(TreeId::Subvol(id.subvol), &key(id.ino))
        .map(drop)
}

/// Drops up to [`STEP_ITEMS`] items of `id` other than its inode item, and says whether none is left.
fn drop_items<D: BlockDevice>(txn: &mut Txn<'_, D>, id: InodeId) -> Result<bool> {
    let tree = TreeId::Subvol(id.subvol);
    let first = Key::new(id.ino.0, 0, 0);
    let last = Key::new(id.ino.0, u8::MAX, u64::MAX);
    let mut keys = [Key::MIN; STEP_ITEMS];
    let mut found = 0usize;
    let mut more = false;
    txn.view().scan(tree, &first, &last, |key, _| {
        if *key == inode::key(id.ino) {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(place) = keys.get_mut(found) else {
            more = true;
            return Ok(ControlFlow::Break(()));
        };
        *place = *key;
        found = found.saturating_add(1);
        Ok(ControlFlow::Continue(()))
    })?;
    for key in keys.iter().take(found) {
        txn.remove(tree, key)?;
    }
    Ok(!more)
}

/// One step of finishing `id`: whether it was the last.
fn step<D: BlockDevice>(txn: &mut Txn<'_, D>, id: InodeId) -> Result<bool> {
    if get(txn.view(), id)?.is_none() {
        return Ok(true);
    }
    let attr = match inode::load(txn.view(), id) {
        Err(Error::NotFound) => return Err(Error::corrupt(BlockNr(0), "orphan without an inode")),
        attr => attr?,
    };
    if attr.nlink != 0 {
        // A truncate set the inode's size before its first step.
        let from = FileBlock(attr.size.div_ceil(BLOCK_SIZE as u64));
        if !extent::drop_from(txn, id, from, STEP_EXTENTS)? {
            return Ok(false);
        }
        remove(txn, id)?;
        return Ok(true);
    }
    if !extent::drop_from(txn, id, FileBlock(0), STEP_EXTENTS)? || !drop_items(txn, id)? {
        return Ok(false);
    }
    txn.remove(TreeId::Subvol(id.subvol), &inode::key(id.ino))?;
    remove(txn, id)?;
    Ok(true)
}

impl<D: BlockDevice> Volume<D> {
    /// The first orphan of `subvol` with a number greater than `after`.
    pub fn orphan_next(&self, subvol: SubvolId, after: Option<Ino>) -> Result<Option<Ino>> {
        let Some(first) = after.map_or(Some(0), |ino| ino.0.checked_add(1)) else {
            return Ok(None);
        };
        let mut found = None;
        self.query(|view| {
            let last = key(Ino(u64::MAX));
            view.scan(TreeId::Subvol(subvol), &key(Ino(first)), &last, |key, _| {
                if key.offset > MAX_INO.0 {
                    return Err(Error::corrupt(BlockNr(0), "inode number of an orphan"));
                }
                found = Some(Ino(key.offset));
                Ok(ControlFlow::Break(()))
            })
        })?;
        Ok(found)
    }

    /// One bounded step of dropping what the orphan `id` has to lose: all of it when it has no name,
    /// else what a truncate left behind. Loop until the value is true; an inode that is no orphan
    /// is done at once.
    pub fn finish_orphan(&self, id: InodeId) -> Result<Done<bool>> {
        self.update(Cost::finishes(STEP_EXTENTS + STEP_ITEMS), |txn| {
            step(txn, id)
        })
    }
}
