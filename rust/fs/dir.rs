// SPDX-License-Identifier: GPL-2.0

//! Reading directories: some entries are collected under the engine's lock, then emitted without
//! it, for emitting may fault.

use super::{attr, Inode, InodeExt, Oxfs};
use crate::vfs::dir::{DirOperations, Emitter};
use kernel::prelude::*;

/// Entries that are collected at a time.
const BATCH: usize = 64;

/// Operations of an open directory.
pub struct Operations;

#[vtable]
impl DirOperations<Oxfs> for Operations {
    fn read(dir: &Inode, out: &mut Emitter<'_>) -> Result {
        let mut entries = KVVec::with_capacity(BATCH, GFP_KERNEL)?;
        loop {
            entries.clear();
            let from = out.position();
            dir.query(|volume, id| volume.readdir(id, from, BATCH, &mut entries))?;
            for entry in &entries {
                let (ino, kind) = (entry.id.st_ino(), entry.kind as u8);
                if !out.emit(&entry.name, ino, kind, entry.cookie) {
                    return Ok(());
                }
            }
            if entries.len() < BATCH {
                return Ok(());
            }
        }
    }

    fn sync(dir: &Inode) -> Result {
        attr::sync(dir)
    }
}
