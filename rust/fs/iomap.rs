// SPDX-License-Identifier: GPL-2.0

//! What iomap is told about a file: the volume's mapping, and over it what is on its way.

use super::data::{
    self, block_after, block_of, bytes_of, DirectPiece, FileData, Held, State, BLOCK,
};
use super::file::File;
use super::inode::InodeExt;
use super::{Inode, Oxfs};
use crate::engine::types::{Backing, FileBlock, Mapping, Run};
use crate::vfs::direct::DirectWrite;
use crate::vfs::iomap::{Answer, Extent, Mapper, Place, Request};
use kernel::prelude::*;

/// Most blocks that one step of a buffered write reserves: what it does not use, it gives back.
const MAX_RESERVE: u64 = 2048;
/// Most blocks that a direct write gets at a time.
const MAX_DIRECT: u64 = 8192;

#[vtable]
impl Mapper<Oxfs> for File {
    fn begin(inode: &Inode, request: &Request) -> Result<Answer> {
        let start = block_of(request.pos);
        let len = block_after(request.pos.saturating_add(request.len)).saturating_sub(start);
        if let Some(write) = request.direct_write {
            return begin_direct(inode, request, &write, start, len.max(1));
        }
        if request.is_write() || request.is_zero() {
            return begin_dirty(inode, request, start, len.clamp(1, MAX_RESERVE));
        }
        if request.is_report() {
            return begin_report(inode, start, len.max(1));
        }
        let file = inode.data().file()?;
        let sequence = file.sequence();
        let mapping = map(inode, start, len.max(1))?;
        Ok(plain(extent(&mapping, sequence)))
    }

    fn is_valid(inode: &Inode, cookie: u64) -> bool {
        inode
            .data()
            .file()
            .is_ok_and(|file| file.sequence() == cookie)
    }

    fn release(inode: &Inode, pos: u64, len: u64) {
        let start = block_of(pos);
        let end = block_after(pos.saturating_add(len));
        // It fails only where memory is short: the space stays reserved until the inode goes.
        let _ = data::release(inode, start, end.saturating_sub(start));
    }
}

/// What the volume has at block `start`.
pub fn map(inode: &Inode, start: u64, len: u64) -> Result<Mapping> {
    inode.query(|volume, id| volume.map(id, FileBlock(start), len))
}

fn plain(extent: Extent) -> Answer {
    Answer {
        extent,
        source: None,
    }
}

/// A mapping in iomap's terms.
fn extent(mapping: &Mapping, cookie: u64) -> Extent {
    let (place, shared) = match mapping.backing {
        Backing::Hole => (Place::Hole, false),
        Backing::Unbacked => (Place::Unwritten(None), false),
        Backing::Prealloc { at, shared } => (Place::Unwritten(Some(bytes_of(at.0))), shared),
        Backing::Written { at, shared } => (Place::Mapped(bytes_of(at.0)), shared),
    };
    Extent {
        start: bytes_of(mapping.start.0),
        len: bytes_of(mapping.len),
        place,
        shared,
        reserved: false,
        uncommitted: false,
        cookie,
    }
}

/// For FIEMAP and seeking: dirty data in a hole is data.
fn begin_report(inode: &Inode, start: u64, len: u64) -> Result<Answer> {
    let file = inode.data().file()?;
    let blocks = file.blocks();
    let (state, len) = blocks.state(start, len);
    let mapping = map(inode, start, len)?;
    let mut extent = extent(&mapping, file.sequence());
    let empty = matches!(mapping.backing, Backing::Hole | Backing::Unbacked);
    if empty && state != State::Clean {
        extent.place = Place::Delayed;
    }
    Ok(plain(extent))
}

/// For writing and zeroing in the page cache, and for making shared blocks private.
fn begin_dirty(inode: &Inode, request: &Request, start: u64, len: u64) -> Result<Answer> {
    let file = inode.data().file()?;
    loop {
        if let Some(answer) = without_reserving(inode, file, request, start, len)? {
            return Ok(answer);
        }
        if let Some(answer) = try_delay(inode, file, start, len)? {
            return Ok(answer);
        }
    }
}

/// Reserves space for blocks that are not dirty; `None` if they have become so meanwhile, or what
/// the file has there has changed.
fn try_delay(inode: &Inode, file: &FileData, start: u64, len: u64) -> Result<Option<Answer>> {
    data::prepare_write(inode, start, len)?;
    let seen = map(inode, start, len)?;
    let held = reserve(inode, &seen)?;
    let answer = delay(inode, file, start, held);
    if !matches!(answer, Ok(Some(_))) {
        held.release(inode)?;
    }
    answer
}

/// Makes blocks delayed for which `held` is reserved, and gives the rest of it back.
fn delay(inode: &Inode, file: &FileData, start: u64, held: Held) -> Result<Option<Answer>> {
    let (Held::Blocks(len) | Held::InPlace(len)) = held;
    let mut blocks = file.blocks();
    let (state, clean) = blocks.state(start, len);
    if state == State::Dirty {
        // A page fault was faster.
        return Ok(None);
    }
    let mapping = map(inode, start, clean)?;
    let in_place = mapping.backing.is_exclusive();
    if matches!(held, Held::InPlace(_)) && !in_place {
        return Ok(None);
    }
    let fresh = state == State::Clean && mapping.backing == Backing::Hole;
    blocks
        .delay(start, held.of(mapping.len), fresh)
        .map_err(|_| ENOMEM)?;
    let answer = delayed_answer(&mapping, true, file.sequence());
    held.of(len - mapping.len).release(inode)?;
    Ok(Some(answer))
}

/// The answer where nothing has to be reserved: the block is dirty already, or there is nothing
/// to zero, or nothing to make private.
fn without_reserving(
    inode: &Inode,
    file: &FileData,
    request: &Request,
    start: u64,
    len: u64,
) -> Result<Option<Answer>> {
    let blocks = file.blocks();
    let (state, len) = blocks.state(start, len);
    if state == State::Dirty {
        let mapping = map(inode, start, len)?;
        let mut answer = delayed_answer(&mapping, false, file.sequence());
        if request.is_unshare() {
            // Writeback will make it private.
            answer.extent.shared = false;
            answer.source = None;
        }
        return Ok(Some(answer));
    }
    if !request.is_unshare() && !request.is_zero() {
        return Ok(None);
    }
    let mapping = map(inode, start, len)?;
    let nothing = match mapping.backing {
        Backing::Written { shared, .. } => request.is_unshare() && !shared,
        // The pages are in the cache, with data.
        _ => state == State::Clean || request.is_unshare(),
    };
    let mut extent = extent(&mapping, file.sequence());
    extent.shared &= !nothing;
    Ok(nothing.then(|| plain(extent)))
}

/// Reserves what making the blocks of a mapping dirty takes, or the first of them.
fn reserve(inode: &Inode, mapping: &Mapping) -> Result<Held> {
    let held = match mapping.backing.is_exclusive() {
        true => Held::InPlace(mapping.len),
        false => Held::Blocks(mapping.len),
    };
    reserve_some(inode, held)
}

/// Reserves `held`, or what one block takes.
fn reserve_some(inode: &Inode, held: Held) -> Result<Held> {
    match held.reserve(inode) {
        Ok(()) => Ok(held),
        Err(e) if e == ENOSPC => held.of(1).reserve(inode).map(|()| held.of(1)),
        Err(e) => Err(e),
    }
}

/// Dirty blocks, over what the volume has there.
fn delayed_answer(mapping: &Mapping, reserved: bool, cookie: u64) -> Answer {
    let source = extent(mapping, cookie);
    let has_data = matches!(source.place, Place::Mapped(_));
    Answer {
        extent: Extent {
            place: Place::Delayed,
            shared: has_data && source.shared,
            reserved,
            ..source
        },
        source: has_data.then_some(source),
    }
}

/// For direct writes: in place where the blocks are the file's own, else a place of its own that
/// is mapped when the I/O has ended.
fn begin_direct(
    inode: &Inode,
    request: &Request,
    write: &DirectWrite,
    start: u64,
    len: u64,
) -> Result<Answer> {
    if write.first {
        inode.super_block().data().writes().goes_on();
    }
    if !write.first && request.pos % BLOCK != 0 {
        // It was there, and stopped where the memory does: iomap would zero what it has just written of
        // a block that was never written.
        return Err(EFAULT);
    }
    let file = inode.data().file()?;
    // Blocks of the file's own are written without a reservation, where this would be found.
    inode.query(|volume, _| volume.check_writable())?;
    let len = {
        let mut blocks = file.blocks();
        let (state, len) = blocks.state(start, len);
        if state != State::Clean {
            // A store to a memory mapping came in between.
            return Err(ENOTBLK);
        }
        let mapping = map(inode, start, len)?;
        match mapping.backing {
            backing if backing.is_exclusive() => {
                let mut extent = extent(&mapping, file.sequence());
                let grows = request.pos.saturating_add(request.len) > inode.size();
                extent.uncommitted = grows || !file.is_durable(inode.data().changed());
                // They may be the file's no more when the data gets there: another direct write may end
                // first that has a place for them. Then they must not be anybody else's.
                data::keep_freed(inode, &mut blocks, write.token)?;
                // Has the end of it told in process context.
                extent.shared = write.goes_on;
                return Ok(plain(extent));
            }
            _ => mapping.len.min(MAX_DIRECT),
        }
    };
    // Part of a block has to go together with the rest of it. This also holds for the whole blocks of
    // a write that begins or ends inside of one: it may end early inside of any.
    if !write.whole_blocks {
        return Err(ENOTBLK);
    }
    let run = match place_direct(inode, file, write.token, start, len) {
        // This very write may keep what could be used.
        Err(e) if e == ENOSPC => return Err(ENOTBLK),
        run => run?,
    };
    Ok(plain(Extent {
        start: bytes_of(start),
        len: bytes_of(run.len),
        place: Place::Mapped(bytes_of(run.start.0)),
        shared: true,
        reserved: true,
        uncommitted: true,
        cookie: file.sequence(),
    }))
}

/// Gets a place for a direct write.
fn place_direct(inode: &Inode, file: &FileData, token: usize, start: u64, len: u64) -> Result<Run> {
    let held = reserve_some(inode, Held::Blocks(len))?;
    let (Held::Blocks(reserved) | Held::InPlace(reserved)) = held;
    let run = match inode.query(|volume, id| volume.stage(id, FileBlock(start), reserved)) {
        Ok(run) => run,
        Err(e) => {
            held.release(inode)?;
            return Err(e);
        }
    };
    held.of(reserved.saturating_sub(run.len)).release(inode)?;
    let added = add_direct(inode, file, DirectPiece { token, start, run });
    if added.is_err() {
        data::unstage(inode, run)?;
    }
    added.map(|()| run)
}

/// Notes the place of a direct write, unless the file's blocks there have become its own meanwhile: then
/// a store to a memory mapping may be on its way to them, and they must stay the file's.
fn add_direct(inode: &Inode, file: &FileData, piece: DirectPiece) -> Result {
    let mut blocks = file.blocks();
    let (state, len) = blocks.state(piece.start, piece.run.len);
    let mapping = map(inode, piece.start, len)?;
    if state != State::Clean || mapping.len < piece.run.len || mapping.backing.is_exclusive() {
        return Err(ENOTBLK);
    }
    blocks.add_direct(piece).map_err(|_| ENOMEM)
}
