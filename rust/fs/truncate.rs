// SPDX-License-Identifier: GPL-2.0

//! Changing the size of a file.

use super::data::{self, block_after, block_of, bytes_of, BLOCK};
use super::file::{change, check_not_pinned, refresh, File};
use super::inode::InodeExt;
use super::iomap::map;
use super::{attr, Inode, Oxfs};
use crate::engine::types::{Backing, Time};
use crate::vfs::iomap;
use kernel::prelude::*;

/// The time of a change that is made now; the VFS has it too.
pub fn now(inode: &Inode) -> Time {
    attr::to_engine(inode.touch())
}

/// Sets the size of a regular file. The caller holds the inode's lock exclusively.
pub fn set_size(inode: &Inode, size: u64) -> Result {
    check_not_pinned(inode)?;
    if inode.is_swapfile() {
        // The VFS refuses shrinking only.
        return Err(ETXTBSY);
    }
    inode.wait_for_direct_io();
    let _mapping = inode.lock_mapping();
    if size > inode.size() {
        grow(inode, size)
    } else {
        shrink(inode, size)
    }
}

/// Makes the file `size` bytes long, or leaves it when it is longer. The caller holds both locks
/// exclusively.
pub fn grow(inode: &Inode, size: u64) -> Result {
    if size <= inode.size() {
        return Ok(());
    }
    clear_tail(inode, size)?;
    extend(inode, size)
}

/// Before the file grows to `to`: zeros what is in its last block beyond the end, which was not
/// part of the file and may be anything; on the device, too, where the old content of the block could be
/// seen after a crash. The caller holds both locks exclusively.
pub fn clear_tail(inode: &Inode, to: u64) -> Result {
    let end = inode.size();
    let rest = (BLOCK - end % BLOCK) % BLOCK;
    iomap::zero_range::<Oxfs, File>(inode, end, rest.min(to.saturating_sub(end)))?;
    match map(inode, block_of(end), 1)?.backing {
        Backing::Written { .. } => write_tail(inode, end),
        _ => Ok(()),
    }
}

/// As [`grow`], when what is between the old end and the end of its block is right already.
pub fn extend(inode: &Inode, size: u64) -> Result {
    let old = inode.size();
    if size <= old {
        return Ok(());
    }
    let time = now(inode);
    let file = inode.data().file()?;
    let after = change(inode, |volume, id| volume.set_size(id, size, time))?;
    file.set_disk_size(after.size);
    inode.set_size(size);
    inode.size_extended(old, size);
    Ok(())
}

/// Makes the file `size` bytes long, which is less than it is.
fn shrink(inode: &Inode, size: u64) -> Result {
    zero_new_tail(inode, size)?;
    cut(inode, size)?;
    refresh(inode)
}

/// Drops what is behind `size`, which becomes the end. What is in the last block behind it is right
/// already. The caller holds both locks exclusively.
pub fn cut(inode: &Inode, size: u64) -> Result {
    inode.truncate_cached(size);
    let result = drop_behind(inode, size);
    if result.is_err() {
        // The size that a file has on disk is the one that it has, as long as no step was made.
        if let Ok(attr) = inode.query(|volume, id| volume.inode(id)) {
            inode.set_size(attr.size.max(size));
        }
    }
    // Only now: the end of a write in front of `size` may have found the old size on disk.
    let file = inode.data().file()?;
    let _blocks = file.blocks();
    file.set_disk_size(0);
    result
}

fn drop_behind(inode: &Inode, size: u64) -> Result {
    let file = inode.data().file()?;
    data::forget(inode, block_after(size), u64::MAX - block_after(size))?;
    // If not all steps are done, the next write does the rest before it puts anything there.
    file.set_plain(false);
    let time = now(inode);
    while !change(inode, |volume, id| volume.truncate(id, size, time))? {}
    Ok(())
}

/// Zeros what will be beyond the end in the last block. A full volume must still let files be
/// truncated, so there it is left: reading stops at the end, and growing zeros it.
fn zero_new_tail(inode: &Inode, size: u64) -> Result {
    let rest = (BLOCK - size % BLOCK) % BLOCK;
    let len = rest.min(inode.size().saturating_sub(size));
    match iomap::zero_range::<Oxfs, File>(inode, size, len) {
        Err(e) if e == ENOSPC => Ok(()),
        Err(e) => Err(e),
        Ok(()) => write_tail(inode, size),
    }
}

/// Writes the block that `end` is in. What is behind the end there must be zero on the device
/// before the size changes, or it could be seen after a crash.
fn write_tail(inode: &Inode, end: u64) -> Result {
    match end % BLOCK {
        0 => Ok(()),
        _ => inode.write_range(end, bytes_of(block_after(end)) - 1),
    }
}
