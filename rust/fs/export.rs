// SPDX-License-Identifier: GPL-2.0

//! File handles: finding inodes by number, for NFS and open_by_handle_at(2).

use super::{inode, Inode, InodeExt, Oxfs, SuperBlock};
use crate::engine::types::InodeId;
use crate::vfs::export::ExportOperations;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// Operations on file handles.
pub struct Operations;

#[vtable]
impl ExportOperations<Oxfs> for Operations {
    fn find(sb: &SuperBlock, ino: u64, generation: u32) -> Result<ARef<Inode>> {
        let id = InodeId::from_st_ino(ino);
        // Subvolumes that were not opened do not take part.
        let found = inode::get(sb, id).map_err(|error| match error {
            error if error == ENOENT => ESTALE,
            other => other,
        })?;
        match found.generation() == generation {
            true => Ok(found),
            false => Err(ESTALE),
        }
    }

    fn parent(dir: &Inode) -> Result<ARef<Inode>> {
        let parent = dir.query(|volume, id| volume.parent(id))?;
        inode::get(dir.super_block(), parent)
    }
}
