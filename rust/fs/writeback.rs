// SPDX-License-Identifier: GPL-2.0

//! Where dirty data goes, and what happens to the mapping when it is there.
//!
//! Blocks that are the file's own are overwritten in place; others go to new places, which are
//! mapped when the data is there: a crash shows the old content or the new.

use super::data::{self, block_after, block_of, bytes_of, Blocks, DirectPiece, FileData, Held};
use super::file::File;
use super::inode::InodeExt;
use super::iomap::map;
use super::{Inode, Oxfs};
use crate::engine::data::Written;
use crate::engine::types::{Attr, Backing, BlockNr, FileBlock, Run};
use crate::vfs::direct::{DirectIo, Ended};
use crate::vfs::iomap::{Extent, Place};
use crate::vfs::workqueue::WorkQueue;
use crate::vfs::writeback::{Completions, IoEnd, Writeback};
use kernel::prelude::*;

/// Most blocks that get a place at a time: 128 MiB.
const MAX_STAGE: u64 = 32768;

#[vtable]
impl Writeback<Oxfs> for File {
    fn map(inode: &Inode, pos: u64, len: u64) -> Result<Extent> {
        let file = inode.data().file()?;
        let (start, len) = (block_of(pos), block_after(len));
        let mut blocks = file.blocks();
        file.mapping_changed();
        let place = choose(inode, file, &mut blocks, start, len)?;
        let (place, shared, len) = match place {
            Chosen::InPlace { at, len } => (Place::Mapped(bytes_of(at.0)), false, len),
            Chosen::Unwritten { at, len } => (Place::Unwritten(Some(bytes_of(at.0))), false, len),
            Chosen::New(run) => (Place::Mapped(bytes_of(run.start.0)), true, run.len),
        };
        Ok(Extent {
            start: bytes_of(start),
            len: bytes_of(len),
            place,
            shared,
            reserved: false,
            uncommitted: false,
            cookie: file.sequence(),
        })
    }

    fn abandon(inode: &Inode, extent: &Extent) {
        let (start, len) = (block_of(extent.start), block_after(extent.len));
        if let (true, Place::Mapped(addr)) = (extent.shared, extent.place) {
            let _ = data::unstage(inode, Run::new(BlockNr(block_of(addr)), len));
        }
        if let Ok(file) = inode.data().file() {
            let mut blocks = file.blocks();
            let _ = blocks.stop_writing(start, len);
            blocks.settle(start, len);
            file.mapping_changed();
        }
    }

    fn discard(inode: &Inode, pos: u64, len: u64) {
        // It fails only where memory is short: the space stays reserved until the inode goes.
        let _ = data::forget(inode, block_of(pos), block_after(len));
    }

    fn submit(inode: &Inode, io: &IoEnd) -> bool {
        let Ok(file) = inode.data().file() else {
            return true;
        };
        if io.shared || io.unwritten || file.is_beyond_disk_size(io.start.saturating_add(io.len)) {
            return true;
        }
        file.overwritten();
        false
    }

    fn complete(inode: &Inode, io: &IoEnd) -> Result {
        let file = inode.data().file()?;
        let start = block_of(io.start);
        let end = io.start.saturating_add(io.len);
        let len = block_after(end).saturating_sub(start).max(1);
        let at = BlockNr(block_of(io.addr));
        let mut blocks = file.blocks();
        let result = io.result.and_then(|()| {
            let place = if io.shared {
                Written::Staged(at)
            } else {
                Written::InPlace
            };
            finish(inode, file, start, len, place, Some(end))
        });
        if io.result.is_err() && io.shared {
            let _ = data::unstage(inode, Run::new(at, len));
        }
        if !io.shared {
            file.overwritten();
        }
        if io.shared || io.unwritten {
            let _ = blocks.stop_writing(start, len);
        }
        // Not new to the file any more, even if they are dirty again.
        blocks.settle(start, len);
        file.mapping_changed();
        result
    }

    fn completions(inode: &Inode) -> Option<&Completions<Oxfs, File>> {
        inode.data().file().ok().map(FileData::completions)
    }

    fn queue(inode: &Inode) -> &WorkQueue {
        inode.super_block().data().io_queue()
    }
}

enum Chosen {
    /// The file's own blocks, with data.
    InPlace { at: BlockNr, len: u64 },
    /// The file's own blocks, never written.
    Unwritten { at: BlockNr, len: u64 },
    /// Staged blocks.
    New(Run),
}

/// Chooses where dirty blocks from `start` go, for at most `len` of them, and puts them under
/// writeback.
fn choose(
    inode: &Inode,
    file: &FileData,
    blocks: &mut Blocks,
    start: u64,
    len: u64,
) -> Result<Chosen> {
    if let Some(run) = take_staged(blocks, start, len)? {
        return Ok(Chosen::New(run));
    }
    // All that is delayed here, so that it gets one place.
    let delayed = blocks.delayed_at(start, MAX_STAGE);
    if delayed == 0 {
        return choose_unannounced(inode, file, blocks, start);
    }
    let mapping = map(inode, start, delayed)?;
    let count = mapping.len.min(len);
    if let Some(chosen) = choose_own(inode, blocks, start, count, mapping.backing)? {
        return Ok(chosen);
    }
    hold_blocks(inode, blocks, start, mapping.len)?;
    stage(inode, blocks, start, mapping.len, len)
}

/// The blocks that the file has there, if they are its own and no direct write has another place for
/// them.
fn choose_own(
    inode: &Inode,
    blocks: &mut Blocks,
    start: u64,
    count: u64,
    backing: Backing,
) -> Result<Option<Chosen>> {
    match backing {
        _ if blocks.has_direct(start, count) => Ok(None),
        Backing::Written { at, shared: false } => {
            data::undelay(inode, blocks, start, count)?;
            Ok(Some(Chosen::InPlace { at, len: count }))
        }
        Backing::Prealloc { at, shared: false } => {
            blocks.start_writing(start, count).map_err(|_| ENOMEM)?;
            data::undelay(inode, blocks, start, count)?;
            Ok(Some(Chosen::Unwritten { at, len: count }))
        }
        _ => Ok(None),
    }
}

/// The same for a block that is dirty, but was not announced: its page was pinned, for a device to
/// write to, when it was made clean, and was made dirty again when that was done. That may be at any
/// time, also while somebody who stopped all writers gives the block another owner or moves it. So it
/// goes to a new place; only where there is none left it goes where it was, rather than nowhere.
fn choose_unannounced(
    inode: &Inode,
    file: &FileData,
    blocks: &mut Blocks,
    start: u64,
) -> Result<Chosen> {
    if file.is_pinned() {
        // It is the swap core's by now.
        return Err(EIO);
    }
    if !file.is_plain() {
        inode.join(|volume, id| volume.prepare_write(id, FileBlock(start), 1))?;
    }
    let backing = map(inode, start, 1)?.backing;
    let held = Held::Blocks(1);
    if let Err(error) = held.reserve(inode) {
        let own = match error == ENOSPC {
            true => choose_own(inode, blocks, start, 1, backing)?,
            false => None,
        };
        return own.ok_or(error);
    }
    if blocks.delay(start, held, backing == Backing::Hole).is_err() {
        held.release(inode)?;
        return Err(ENOMEM);
    }
    stage(inode, blocks, start, 1, 1)
}

/// Takes the staged place of `start` and the blocks behind it, and puts them under writeback.
fn take_staged(blocks: &mut Blocks, start: u64, len: u64) -> Result<Option<Run>> {
    let count = blocks.staged_at(start, len);
    if count == 0 {
        return Ok(None);
    }
    blocks.start_writing(start, count).map_err(|_| ENOMEM)?;
    blocks.take_staged(start, count).map_err(|_| {
        let _ = blocks.stop_writing(start, count);
        ENOMEM
    })
}

/// Reserves space for delayed blocks that were to be written in place, where a direct write has
/// another place for them now.
fn hold_blocks(inode: &Inode, blocks: &mut Blocks, start: u64, len: u64) -> Result {
    let count = blocks.count_in_place(start, len);
    if count == 0 {
        return Ok(());
    }
    Held::Blocks(count).reserve(inode)?;
    if blocks.hold_blocks(start, len).is_err() {
        Held::Blocks(count).release(inode)?;
        return Err(ENOMEM);
    }
    Held::InPlace(count).release(inode)
}

/// Gives `want` delayed blocks from `start`, or the first of them, a place, and puts up to `len`
/// under writeback.
fn stage(inode: &Inode, blocks: &mut Blocks, start: u64, want: u64, len: u64) -> Result<Chosen> {
    let run = inode.query(|volume, id| volume.stage(id, FileBlock(start), want))?;
    let now = Run::new(run.start, run.len.min(len));
    let rest = Run::new(BlockNr(run.start.0 + now.len), run.len - now.len);
    let after = start + now.len;
    // What may find no memory comes first, so that the blocks are delayed as before if it does.
    let taken = blocks
        .start_writing(start, now.len)
        .and_then(|()| blocks.stage(after, rest))
        .and_then(|()| blocks.undelay(start, run.len));
    if taken.is_err() {
        let _ = blocks.take_staged(after, rest.len);
        let _ = blocks.stop_writing(start, now.len);
        data::unstage(inode, run)?;
        Held::Blocks(run.len).reserve(inode)?;
        return Err(ENOMEM);
    }
    Ok(Chosen::New(now))
}

/// Enters what was written into the mapping. The caller holds the lock of the file's blocks. If
/// this fails, some of the blocks may be mapped, so none are given back.
fn finish(
    inode: &Inode,
    file: &FileData,
    start: u64,
    len: u64,
    written: Written,
    size: Option<u64>,
) -> Result {
    let attr: Attr =
        inode.join(|volume, id| volume.finish_write(id, FileBlock(start), len, written, size))?;
    file.set_disk_size(attr.size);
    inode.set_sectors(attr.blocks.saturating_mul(8));
    Ok(())
}

#[vtable]
impl DirectIo<Oxfs> for File {
    fn read_begins(inode: &Inode, token: usize) -> Result {
        data::keep_freed(inode, &mut inode.data().file()?.blocks(), token)
    }

    fn read_ended(inode: &Inode, token: usize) {
        let Ok(file) = inode.data().file() else {
            return;
        };
        let ticket = file.blocks().take_reader(token);
        if let Some(ticket) = ticket {
            data::end_read(inode, ticket);
        }
    }

    fn ended(inode: &Inode, write: &Ended) -> Result {
        let result = map_direct(inode, write);
        inode.super_block().data().writes().end();
        result
    }
}

/// Maps what a direct write has written. In process context: where nobody waits for it, all blocks are
/// told to be shared.
fn map_direct(inode: &Inode, write: &Ended) -> Result {
    let file = inode.data().file()?;
    let end = write.pos.saturating_add(write.len);
    let grows = write.len > 0 && end > inode.size();
    let mut blocks = file.blocks();
    let in_place = blocks.take_reader(write.token);
    if in_place.is_some() {
        file.overwritten();
    }
    let mut result = write.result;
    // Somebody may be reading what was there into the page cache.
    let mut replaced = None;
    if blocks.has_place(write.token) {
        match inode.query(|volume, _| volume.begin_read()) {
            Ok(ticket) => replaced = Some(ticket),
            Err(error) => result = result.and(Err(error)),
        }
    }
    let size = grows.then_some(end);
    while let Some(piece) = blocks.take_direct(write.token) {
        let written = if result.is_ok() { block_of(end) } else { 0 };
        let one = finish_direct(inode, file, &piece, written, size);
        result = result.and(one);
    }
    if result.is_ok() && write.len > 0 && (write.unwritten || grows) {
        let start = block_of(write.pos);
        let len = block_after(end).saturating_sub(start);
        result = finish(inode, file, start, len, Written::InPlace, size);
    }
    if write.unwritten || grows || replaced.is_some() {
        file.mapping_changed();
    }
    drop(blocks);
    if result.is_ok() && grows {
        inode.set_size(end);
    }
    if let Some(ticket) = replaced {
        inode.wait_for_reads(write.pos, end);
        data::end_read(inode, ticket);
    }
    if let Some(ticket) = in_place {
        data::end_read(inode, ticket);
    }
    result
}

/// Maps what a direct write has written of a piece, up to block `end`, and gives the rest back. The
/// file's size on disk grows with it, up to `size`.
fn finish_direct(
    inode: &Inode,
    file: &FileData,
    piece: &DirectPiece,
    end: u64,
    size: Option<u64>,
) -> Result {
    let written = end.saturating_sub(piece.start).min(piece.run.len);
    let rest = Run::new(
        BlockNr(piece.run.start.0 + written),
        piece.run.len - written,
    );
    if rest.len > 0 {
        data::unstage(inode, rest)?;
    }
    if written == 0 {
        return Ok(());
    }
    let place = Written::Staged(piece.run.start);
    finish(inode, file, piece.start, written, place, size)
}
