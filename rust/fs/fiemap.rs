// SPDX-License-Identifier: GPL-2.0

//! FIEMAP. Own, and not iomap's, since that cannot show a promise without blocks.

use super::data::{block_after, block_of, bytes_of, State};
use super::iomap::map;
use super::Inode;
use crate::engine::types::{Backing, MAX_FILE_BLOCKS};
use crate::vfs::fiemap::{FiemapInfo, Reported, DELALLOC, LAST, SHARED, UNKNOWN, UNWRITTEN};
use kernel::prelude::*;

/// Reports the extents of `len` bytes at `start`.
pub fn fiemap(inode: &Inode, info: &mut FiemapInfo, start: u64, len: u64) -> Result {
    let len = info.prepare(inode, start, len)?;
    // Without the inode's lock: to tell what was found may take as long as a freeze.
    let end = block_after(start.saturating_add(len)).min(MAX_FILE_BLOCKS);
    let mut at = block_of(start);
    let mut last: Option<Reported> = None;
    while at < end {
        let (extent, next) = look_up(inode, at, end - at)?;
        at = next;
        let Some(extent) = extent else { continue };
        if let Some(before) = last.replace(extent) {
            if info.add(&before)? {
                return Ok(());
            }
        }
    }
    if let Some(mut extent) = last {
        extent.flags |= LAST;
        info.add(&extent)?;
    }
    Ok(())
}

/// What is at block `at`, if anything, and where that ends.
fn look_up(inode: &Inode, at: u64, len: u64) -> Result<(Option<Reported>, u64)> {
    let file = inode.data().file()?;
    let blocks = file.blocks();
    let (state, len) = blocks.state(at, len);
    let mapping = map(inode, at, len)?;
    let owners = |shared| if shared { SHARED } else { 0 };
    let found = match mapping.backing {
        Backing::Written { at, shared } => Some((at.0, owners(shared))),
        Backing::Prealloc { at, shared } => Some((at.0, UNWRITTEN | owners(shared))),
        _ if state != State::Clean => Some((0, DELALLOC | UNKNOWN)),
        Backing::Unbacked => Some((0, UNWRITTEN | DELALLOC | UNKNOWN)),
        Backing::Hole => None,
    };
    let extent = found.map(|(addr, flags)| Reported {
        start: bytes_of(mapping.start.0),
        addr: bytes_of(addr),
        len: bytes_of(mapping.len),
        flags,
    });
    Ok((extent, at.saturating_add(mapping.len.max(1))))
}
