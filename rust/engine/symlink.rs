// SPDX-License-Identifier: GPL-2.0

//! Targets of symbolic links, in pieces of [`SYMLINK_CHUNK`] bytes.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{item_kind, SYMLINK_CHUNK};
use super::inode;
use super::node::Key;
use super::tree::TreeId;
use super::tree_write::Txn;
use super::types::{BlockNr, FileType, Ino, InodeId, MAX_SYMLINK};
use super::volume::Volume;
use crate::platform::{Vec, VecExt};
use core::ops::ControlFlow;

fn key(ino: Ino, chunk: u64) -> Key {
    Key::new(ino.0, item_kind::SYMLINK, chunk)
}

/// Whether `target` can be the target of a symbolic link.
pub(super) fn check(target: &[u8]) -> Result<()> {
    match target.len() {
        0 => Err(Error::Invalid("empty target of a symbolic link")),
        1..=MAX_SYMLINK if !target.contains(&0) => Ok(()),
        1..=MAX_SYMLINK => Err(Error::Invalid("zero byte in a symbolic link")),
        _ => Err(Error::NameTooLong),
    }
}

/// Writes the target of the new symbolic link `id`.
pub(super) fn put<D: BlockDevice>(txn: &mut Txn<'_, D>, id: InodeId, target: &[u8]) -> Result<()> {
    for (chunk, piece) in (0..).zip(target.chunks(SYMLINK_CHUNK)) {
        txn.put(TreeId::Subvol(id.subvol), &key(id.ino, chunk), piece)?;
    }
    Ok(())
}

impl<D: BlockDevice> Volume<D> {
    /// Appends the target of the symbolic link `id`, without an ending zero byte.
    pub fn read_link(&self, id: InodeId, target: &mut Vec<u8>) -> Result<()> {
        let bad = |rule| Error::corrupt(BlockNr(0), rule);
        let old_len = target.len();
        self.query(|view| {
            let attr = inode::load(view, id)?;
            if inode::file_type(&attr)? != FileType::Symlink {
                return Err(Error::Invalid("not a symbolic link"));
            }
            let (first, last) = (key(id.ino, 0), key(id.ino, u64::MAX));
            let mut next = 0u64;
            view.scan(TreeId::Subvol(id.subvol), &first, &last, |key, piece| {
                let len = target.len().saturating_sub(old_len);
                let room = MAX_SYMLINK.saturating_sub(len);
                if key.offset != next || piece.len() > room || piece.contains(&0) {
                    return Err(bad("pieces of a symbolic link"));
                }
                next = next.saturating_add(1);
                target.try_extend(piece)?;
                Ok(ControlFlow::Continue(()))
            })?;
            let len = target.len().saturating_sub(old_len);
            if len == 0 || len as u64 != attr.size {
                return Err(bad("length of a symbolic link"));
            }
            Ok(())
        })
    }
}
