// SPDX-License-Identifier: GPL-2.0

//! File handles: finding inodes by number, for NFS and open_by_handle_at(2).

use super::{attr, inode, Inode, InodeExt, Oxfs, SuperBlock};
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
        let stale = |error| if error == ENOENT { ESTALE } else { error };
        // Before it is brought into memory: a number that was guessed must not get in the way of
        // the task that is just making that inode.
        let attr = sb.data().query(|volume| {
            volume.open_subvolume(id.subvol)?;
            volume.inode(id)
        });
        let attr = attr.map_err(stale)?;
        if attr.generation as u32 != generation {
            return Err(ESTALE);
        }
        inode::get(sb, id).map_err(stale)
    }

    fn parent(dir: &Inode) -> Result<ARef<Inode>> {
        let stale = |error| if error == ENOENT { ESTALE } else { error };
        let parent = dir.query(|volume, id| volume.parent(id)).map_err(stale)?;
        inode::get(dir.super_block(), parent).map_err(stale)
    }

    fn commit_metadata(inode: &Inode) -> Result {
        attr::sync(inode)
    }
}
