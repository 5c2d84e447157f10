// SPDX-License-Identifier: GPL-2.0

//! Changing the size of a file.

use super::data::{self, block_after, bytes_of, BLOCK};
use super::file::{change, check_not_pinned, refresh, zero_tail, File};
use super::{attr, Inode, Oxfs};
use crate::engine::types::Time;
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
    let old = inode.size();
    zero_tail(inode, size)?;
    write_tail(inode, old)?;
    extend(inode, size)
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
    let file = inode.data().file()?;
    file.set_disk_size(0);
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
