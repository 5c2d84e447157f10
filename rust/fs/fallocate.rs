// SPDX-License-Identifier: GPL-2.0

//! `fallocate(2)` and its ways of changing what a file's blocks are.

use super::data::{self, block_after, block_of, bytes_of, BLOCK};
use super::file::{change, check_changeable, drop_blocks, refresh, sync_if_asked, File};
use super::iomap::map;
use super::truncate::{cut, grow};
use super::{Inode, Oxfs, Volume};
use crate::engine;
use crate::engine::types::{Backing, Done, FileBlock, InodeId, MAX_FILE_BLOCKS, MAX_FILE_SIZE};
use crate::vfs::file::{is_killed, mode, OpenFile};
use crate::vfs::iomap;
use kernel::prelude::*;

/// What is wanted of a range.
#[derive(Clone, Copy)]
struct Range {
    pos: u64,
    end: u64,
    keep_size: bool,
}

/// Changes the blocks of `len` bytes at `pos` as `flags` ([`mode`]) say.
pub fn fallocate(file: &OpenFile<Oxfs>, flags: u32, pos: u64, len: u64) -> Result {
    let inode = file.inode();
    let range = Range {
        pos,
        end: pos
            .checked_add(len)
            .filter(|end| *end <= MAX_FILE_SIZE)
            .ok_or(EFBIG)?,
        keep_size: flags & mode::KEEP_SIZE != 0,
    };
    let operation: fn(&Inode, &Range) -> Result = match flags & !mode::KEEP_SIZE {
        mode::ALLOCATE => allocate,
        mode::PUNCH_HOLE => punch,
        mode::ZERO_RANGE => zero,
        mode::UNSHARE_RANGE => unshare,
        mode::COLLAPSE_RANGE => collapse,
        mode::INSERT_RANGE => insert,
        _ => return Err(EOPNOTSUPP),
    };
    let _lock = inode.lock_exclusive();
    check_changeable(inode)?;
    inode.wait_for_direct_io();
    file.modified()?;
    let _mapping = inode.lock_mapping();
    // What was done shows, also if something failed then.
    operation(inode, &range).and(refresh(inode))?;
    sync_if_asked(file)
}

/// Does something to the blocks from `from` to `to`, step by step, each of which says how far it got.
fn in_steps(
    inode: &Inode,
    from: u64,
    to: u64,
    step: impl Fn(&Volume, InodeId, FileBlock, u64) -> engine::Result<Done<FileBlock>>,
) -> Result {
    let mut at = from;
    while at < to {
        if is_killed() {
            return Err(EINTR);
        }
        let next = change(inode, |volume, id| step(volume, id, FileBlock(at), to - at))?;
        at = next.0.max(at.saturating_add(1));
    }
    Ok(())
}

/// Grows the file to the end of the range, unless its size is to stay.
fn extend(inode: &Inode, range: &Range) -> Result {
    if range.keep_size {
        return Ok(());
    }
    grow(inode, range.end)
}

fn check_size(inode: &Inode, range: &Range) -> Result {
    if range.keep_size || range.end <= inode.size() {
        return Ok(());
    }
    inode.check_new_size(range.end)
}

/// Gives every block of the range a place.
fn allocate(inode: &Inode, range: &Range) -> Result {
    check_size(inode, range)?;
    let (first, last) = (block_of(range.pos), block_after(range.end));
    in_steps(inode, first, last, Volume::prealloc)?;
    extend(inode, range)
}

/// Takes away the blocks of the range; it reads as zeros.
fn punch(inode: &Inode, range: &Range) -> Result {
    let size = inode.size();
    let end = if range.end >= size {
        bytes_of(block_after(range.end))
    } else {
        range.end
    };
    let (first, last) = (block_after(range.pos), block_of(end));
    if first > last {
        return zero_part(inode, range.pos, end);
    }
    zero_part(inode, range.pos, bytes_of(first))?;
    zero_part(inode, bytes_of(last), end)?;
    drop_blocks(inode, first, last)?;
    in_steps(inode, first, last, Volume::punch)
}

/// Zeros part of a block, as far as the file goes.
fn zero_part(inode: &Inode, pos: u64, end: u64) -> Result {
    let end = end.min(inode.size());
    iomap::zero_range::<Oxfs, File>(inode, pos, end.saturating_sub(pos))
}

/// Has the range read as zeros without writing them.
fn zero(inode: &Inode, range: &Range) -> Result {
    check_size(inode, range)?;
    punch(inode, range)?;
    allocate(inode, range)
}

/// Gives the file blocks of its own in the range.
fn unshare(inode: &Inode, range: &Range) -> Result {
    check_size(inode, range)?;
    // The private header page of a swapfile hides that the file's own one is shared.
    let (first, last) = (block_of(range.pos), block_after(range.end));
    data::prepare_write(inode, first, last.saturating_sub(first))?;
    iomap::unshare::<Oxfs, File>(inode, range.pos, range.end - range.pos)?;
    inode.write_range(range.pos, range.end)?;
    allocate(inode, range)
}

/// Whether the range is of whole blocks.
fn check_whole(range: &Range) -> Result {
    if range.keep_size || (range.pos | range.end) % BLOCK != 0 {
        return Err(EINVAL);
    }
    Ok(())
}

/// Writes out what is behind `pos` and drops it from the page cache: it will be elsewhere.
fn flush_behind(inode: &Inode, pos: u64) -> Result {
    inode.write_range(pos, u64::MAX)?;
    inode.drop_cached(pos, u64::MAX);
    let start = block_of(pos);
    data::forget(inode, start, u64::MAX - start)
}

/// Cuts the range out of the file; what is behind it moves there.
fn collapse(inode: &Inode, range: &Range) -> Result {
    check_whole(range)?;
    let size = inode.size();
    if range.end >= size {
        return Err(EINVAL);
    }
    flush_behind(inode, range.pos)?;
    let (first, mut from) = (block_of(range.pos), block_of(range.end));
    let len = from - first;
    in_steps(inode, first, from, Volume::punch)?;
    while from < MAX_FILE_BLOCKS {
        from = change(inode, |volume, id| {
            volume.move_down(id, FileBlock(from), len)
        })?
        .0;
    }
    cut(inode, size - (range.end - range.pos))
}

/// Makes room for the range; what was there moves behind it.
fn insert(inode: &Inode, range: &Range) -> Result {
    check_whole(range)?;
    let len = range.end - range.pos;
    let size = inode.size();
    if range.pos >= size {
        return Err(EINVAL);
    }
    let new_size = size
        .checked_add(len)
        .filter(|size| *size <= MAX_FILE_SIZE)
        .ok_or(EFBIG)?;
    inode.check_new_size(new_size)?;
    flush_behind(inode, range.pos)?;
    // The size first: what has moved must not be behind the end if the power fails.
    grow(inode, new_size)?;
    flush_behind(inode, range.pos)?;
    let moved = move_up(inode, block_of(range.pos), block_of(len));
    if moved.is_err() && is_empty_from(inode, block_after(size))? {
        cut(inode, size)?;
    }
    moved
}

/// Moves what is behind block `start` back by `len` blocks.
fn move_up(inode: &Inode, start: u64, len: u64) -> Result {
    let mut to = MAX_FILE_BLOCKS;
    while to > start {
        to = change(inode, |volume, id| {
            volume.move_up(id, FileBlock(start), FileBlock(to), len)
        })?
        .0;
    }
    Ok(())
}

/// Whether the file has no blocks from `start` on.
fn is_empty_from(inode: &Inode, start: u64) -> Result<bool> {
    let mapping = map(inode, start, MAX_FILE_BLOCKS - start)?;
    Ok(mapping.backing == Backing::Hole && mapping.start.0 + mapping.len == MAX_FILE_BLOCKS)
}
