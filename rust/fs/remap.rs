// SPDX-License-Identifier: GPL-2.0

//! Clone and dedupe: files that share blocks.

use super::data::{block_after, block_of, bytes_of};
use super::file::{check_changeable, check_not_pinned, drop_blocks, refresh, sync_if_asked};
use super::inode::InodeExt;
use super::truncate::{clear_tail, extend};
use super::{Inode, Oxfs};
use crate::engine::reflink::Clone;
use crate::engine::types::FileBlock;
use crate::vfs::file::OpenFile;
use crate::vfs::remap::{Pair, CAN_SHORTEN, DEDUPE};
use kernel::prelude::*;

/// Makes `len` bytes (0: to the end) at `to` in `dst` share blocks with those at `from` in `src`.
pub fn remap(
    src: &OpenFile<Oxfs>,
    from: i64,
    dst: &OpenFile<Oxfs>,
    to: i64,
    len: i64,
    flags: u32,
) -> Result<i64> {
    if flags & !(DEDUPE | CAN_SHORTEN) != 0 {
        return Err(EINVAL);
    }
    let pair = Pair::lock(src, dst);
    check_not_pinned(pair.src())?;
    check_changeable(pair.dst())?;
    let len = pair.prepare(from, to, len, flags)?;
    if len == 0 {
        return Ok(0);
    }
    let bytes = |n: i64| u64::try_from(n).map_err(|_| EINVAL);
    let done = share(
        &pair,
        bytes(from)?,
        bytes(to)?,
        bytes(len)?,
        flags & DEDUPE == 0,
    )?;
    sync_if_asked(dst)?;
    i64::try_from(done).map_err(|_| EFBIG)
}

/// Shares the blocks. Offsets are whole blocks; so is the length, unless it ends at the end of the
/// source, where the rest of the block is zeros. Returns how many bytes are shared: less than
/// `len` when something fails on the way.
fn share(pair: &Pair<'_, Oxfs>, from: u64, to: u64, len: u64, may_grow: bool) -> Result<u64> {
    let dst = pair.dst();
    if to > dst.size() {
        clear_tail(dst, to)?;
    }
    let (src_start, dst_start, count) = (block_of(from), block_of(to), block_after(len));
    drop_blocks(dst, dst_start, dst_start + count)?;
    let mut done = 0;
    while done < count {
        match clone_step(pair, src_start + done, dst_start + done, count - done) {
            Ok(step) => done += step.max(1),
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        // Nothing is to be behind the end for long: it would be seen when the file grows.
        if may_grow {
            extend(dst, to + bytes_of(done).min(len))?;
        }
    }
    refresh(dst)?;
    Ok(bytes_of(done).min(len))
}

/// One step: the mapping of both files changes, the source's from own to shared.
fn clone_step(pair: &Pair<'_, Oxfs>, from: u64, to: u64, count: u64) -> Result<u64> {
    let (src, dst) = (pair.src(), pair.dst());
    let (src_file, dst_file) = (src.data().file()?, dst.data().file()?);
    let src_id = src.data().id;
    // Writeback of neither is going on in the range, so the locks are for the sequences only, and
    // one after the other will do.
    let result = dst.join(|volume, dst_id| {
        volume.clone_range(&Clone {
            source: src_id,
            from: FileBlock(from),
            target: dst_id,
            to: FileBlock(to),
            len: count,
        })
    });
    for (inode, file) in [(src, src_file), (dst, dst_file)] {
        let _blocks = file.blocks();
        file.mapping_changed();
        remember(inode, dst);
    }
    result
}

/// The change is the source's too, for its next sync.
fn remember(inode: &Inode, dst: &Inode) {
    inode.data().note(dst.data().changed());
}
