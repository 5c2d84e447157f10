// SPDX-License-Identifier: GPL-2.0

//! What is between a regular file's page cache and its blocks: the state that an inode keeps of
//! data that is on its way.
//!
//! A block of a file is in at most one of the first two, and perhaps in the third:
//!
//! - *delayed*: dirty, and not under way so far. Where the file has blocks of its own they are
//!   written *in place*: whoever is about to make blocks shared has them written first, so only what
//!   mapping them may take is reserved. Everywhere else the block's space is.
//! - *staged*: dirty, and writeback has already got a place for it, together with that of a
//!   neighbour; it is used when the block's own turn comes.
//! - *writing*: under writeback to a place that is not mapped yet, or is mapped as never written.
//!
//! Direct writes keep the places that they got until their I/O ends; they are told apart by a
//! token, since nothing forbids two at the same block.
//!
//! Locks: [`FileData::blocks`] ranks below folio locks and above joining a transaction. Every
//! change that could make a mapping wrong that iomap holds increments the sequence, under it.

use super::inode::InodeExt;
use super::{file::File, Inode, Oxfs};
use crate::engine::ranges::RangeSet;
use crate::engine::readers::Ticket;
use crate::engine::types::{BlockNr, FileBlock, Generation, Run};
use crate::platform::{mutex, Map, Mutex, MutexGuard, NoMemory, Vec, VecExt};
use crate::vfs::nofs;
use crate::vfs::writeback::Completions;
use core::ops::{Deref, DerefMut};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};

/// Bytes to blocks, rounded down.
pub fn block_of(bytes: u64) -> u64 {
    bytes >> crate::engine::types::BLOCK_SHIFT
}

/// Bytes to blocks, rounded up.
pub fn block_after(bytes: u64) -> u64 {
    block_of(bytes.saturating_add(BLOCK - 1))
}

/// Blocks to bytes.
pub fn bytes_of(blocks: u64) -> u64 {
    blocks.saturating_mul(BLOCK)
}

/// Bytes in a block.
pub const BLOCK: u64 = crate::engine::types::BLOCK_SIZE as u64;

/// The state of an inode's data.
pub struct FileData {
    blocks: Mutex<Blocks>,
    sequence: Atomic<u64>,
    pinned: Atomic<i32>,
    /// Counts I/O that changed data in place.
    overwrites: Atomic<u64>,
    /// What `overwrites` was when a flush began that all of them had ended before.
    flushed: Atomic<u64>,
    /// The last transaction that was durable when a sync of this file ended.
    synced: Atomic<u64>,
    /// The size on disk, as far as known; never more than it is.
    disk_size: Atomic<u64>,
    /// Whether the volume is known to hold no private range of an inactive swapfile for it, and
    /// nothing that a truncate has to drop yet.
    plain: Atomic<i32>,
    completions: Completions<Oxfs, File>,
}

/// Blocks on their way to the disk.
#[derive(Default)]
pub struct Blocks {
    delayed: RangeSet,
    /// Those of them that are to be written in place.
    in_place: RangeSet,
    staged: Map<u64, Run>,
    writing: RangeSet,
    /// Those of the above where the file has nothing so far: they add to `st_blocks`.
    fresh: RangeSet,
    direct: Vec<DirectPiece>,
    /// Direct reads, and direct writes in place, that are under way, and what keeps their blocks.
    readers: Vec<(usize, Option<Ticket>)>,
}

/// [`Blocks`], locked. What is allocated meanwhile does not wait for writeback, whose completion
/// needs the lock.
pub struct LockedBlocks<'a> {
    // Dropped in this order.
    guard: MutexGuard<'a, Blocks>,
    _scope: nofs::Scope,
}

impl Deref for LockedBlocks<'_> {
    type Target = Blocks;

    fn deref(&self) -> &Blocks {
        &self.guard
    }
}

impl DerefMut for LockedBlocks<'_> {
    fn deref_mut(&mut self) -> &mut Blocks {
        &mut self.guard
    }
}

/// A place that a direct write got.
#[derive(Debug, Clone, Copy)]
pub struct DirectPiece {
    /// Whose it is.
    pub token: usize,
    /// The first file block.
    pub start: u64,
    /// The place.
    pub run: Run,
}

/// What dirty blocks hold of the volume's space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Blocks.
    Blocks(u64),
    /// What mapping them may take: they have their place.
    InPlace(u64),
}

impl Held {
    /// Reserves it.
    pub fn reserve(self, inode: &Inode) -> Result {
        inode.query(|volume, _| match self {
            Self::Blocks(count) => volume.reserve(count),
            Self::InPlace(count) => volume.reserve_in_place(count),
        })
    }

    /// Gives it back.
    pub fn release(self, inode: &Inode) -> Result {
        match self {
            Self::Blocks(0) | Self::InPlace(0) => return Ok(()),
            _ => {}
        }
        inode.query(|volume, _| {
            match self {
                Self::Blocks(count) => volume.unreserve(count),
                Self::InPlace(count) => volume.unreserve_in_place(count),
            }
            Ok(())
        })
    }

    /// The same for `count` blocks.
    pub fn of(self, count: u64) -> Self {
        match self {
            Self::Blocks(_) => Self::Blocks(count),
            Self::InPlace(_) => Self::InPlace(count),
        }
    }
}

/// What is known about a block that may be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Clean,
    /// Delayed or staged.
    Dirty,
    /// Writing, and not dirty again.
    Writing,
}

impl FileData {
    /// That of an inode nothing of whose data is in memory.
    pub fn new() -> Result<Self> {
        Ok(Self {
            blocks: mutex!(Blocks::default(), "oxfs file blocks").map_err(|_| ENOMEM)?,
            sequence: Atomic::new(0u64),
            pinned: Atomic::new(0i32),
            overwrites: Atomic::new(0u64),
            flushed: Atomic::new(0u64),
            synced: Atomic::new(0u64),
            disk_size: Atomic::new(0u64),
            plain: Atomic::new(0i32),
            completions: Completions::new()?,
        })
    }

    /// Waits for the lock.
    pub fn blocks(&self) -> LockedBlocks<'_> {
        let scope = nofs::Scope::enter();
        LockedBlocks {
            guard: self.blocks.lock(),
            _scope: scope,
        }
    }

    /// Says that mappings which were looked up before are not to be used. The caller holds the
    /// lock.
    pub fn mapping_changed(&self) {
        self.sequence.fetch_add(1u64, Full);
    }

    /// What tells mappings looked up now from those before a change.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Acquire)
    }

    /// Where completions gather.
    pub fn completions(&self) -> &Completions<Oxfs, File> {
        &self.completions
    }

    /// Blocks that are dirty where the file has none.
    pub fn delayed_blocks(&self) -> u64 {
        self.blocks().fresh.total()
    }

    /// Pins the file as an active swapfile; `false` if it is one.
    pub fn pin(&self) -> bool {
        self.pinned.cmpxchg(0, 1, Full).is_ok()
    }

    /// Takes the pin away.
    pub fn unpin(&self) {
        self.pinned.store(0, Release);
    }

    /// Whether the file is, or is becoming, an active swapfile.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Acquire) != 0
    }

    /// Whether writes can go to the file's blocks without [`prepare_write`].
    pub fn is_plain(&self) -> bool {
        self.plain.load(Acquire) != 0
    }

    /// Sets what [`Self::is_plain`] says.
    pub fn set_plain(&self, plain: bool) {
        self.plain.store(i32::from(plain), Release);
    }

    /// Data was, or is about to be, overwritten in place.
    pub fn overwritten(&self) {
        self.overwrites.fetch_add(1u64, Full);
    }

    /// How often data was overwritten in place.
    pub fn overwrites(&self) -> u64 {
        self.overwrites.load(Acquire)
    }

    /// Whether there may be overwrites that were not flushed.
    pub fn needs_flush(&self) -> bool {
        self.overwrites() > self.flushed.load(Acquire)
    }

    /// The device's cache was flushed after the first `overwrites` had ended.
    pub fn flushed(&self, overwrites: u64) {
        // Two at a time may leave the smaller: a flush too many.
        self.flushed.store(overwrites, Release);
    }

    /// Whether the change of transaction `last`, and all before, are known to be durable.
    pub fn is_durable(&self, last: Generation) -> bool {
        last.0 <= self.synced.load(Acquire)
    }

    /// Transaction `last` is durable, as a whole: nothing is changed in it any more.
    pub fn set_durable(&self, last: Generation) {
        // Two at a time may leave the smaller: a sync too many.
        self.synced.store(last.0, Release);
    }

    /// Whether the size on disk may have to grow to cover `end`.
    pub fn is_beyond_disk_size(&self, end: u64) -> bool {
        end > self.disk_size.load(Relaxed)
    }

    /// The size on disk is `size`.
    pub fn set_disk_size(&self, size: u64) {
        self.disk_size.store(size, Relaxed);
    }
}

impl Blocks {
    /// What is known about block `start`, and for how many of the `len` from there it holds.
    pub fn state(&self, start: u64, len: u64) -> (State, u64) {
        let mut clean = len;
        match self.delayed.first(start, len) {
            Some((at, n)) if at == start => return (State::Dirty, n),
            Some((at, _)) => clean = clean.min(at - start),
            None => {}
        }
        match self.first_staged(start, clean) {
            Some((at, run)) if at == start => return (State::Dirty, run.len),
            Some((at, _)) => clean = clean.min(at - start),
            None => {}
        }
        match self.writing.first(start, clean) {
            Some((at, n)) if at == start => (State::Writing, n),
            Some((at, _)) => (State::Clean, at - start),
            None => (State::Clean, clean),
        }
    }

    /// The staged piece, clipped to `[start, start + len)`, that is at `start` or after it.
    fn first_staged(&self, start: u64, len: u64) -> Option<(u64, Run)> {
        let end = start.saturating_add(len);
        if let Some((at, run)) = self.staged.at_or_before(&start) {
            let skip = start - at;
            if run.len > skip && len > 0 {
                let run = Run::new(BlockNr(run.start.0 + skip), (run.len - skip).min(len));
                return Some((start, run));
            }
        }
        let (at, run) = self.staged.at_or_after(&start)?;
        (at < end).then(|| (at, Run::new(run.start, run.len.min(end - at))))
    }

    /// Makes blocks from `start`, none of which is dirty and which hold `held`, delayed. `fresh`: the
    /// file has nothing there.
    pub fn delay(&mut self, start: u64, held: Held, fresh: bool) -> Result<(), NoMemory> {
        let (Held::Blocks(len) | Held::InPlace(len)) = held;
        if fresh {
            self.fresh.insert(start, len)?;
        }
        if let Held::InPlace(_) = held {
            self.in_place.insert(start, len)?;
        }
        let delayed = self.delayed.insert(start, len);
        if delayed.is_err() {
            // What nobody looks at when the block is not delayed.
            let _ = self.in_place.remove(start, len);
        }
        delayed.map(drop)
    }

    /// The delayed blocks from `start` on.
    pub fn delayed_at(&self, start: u64, len: u64) -> u64 {
        match self.delayed.first(start, len) {
            Some((at, n)) if at == start => n,
            _ => 0,
        }
    }

    /// Takes blocks out of the delayed ones. Returns what they held: blocks, and in place.
    pub fn undelay(&mut self, start: u64, len: u64) -> Result<[Held; 2], NoMemory> {
        let in_place = self.in_place.remove(start, len)?;
        let delayed = self.delayed.remove(start, len)?;
        let blocks = delayed.saturating_sub(in_place);
        Ok([Held::Blocks(blocks), Held::InPlace(in_place)])
    }

    /// How many of the delayed blocks in a range have no space reserved.
    pub fn count_in_place(&self, start: u64, len: u64) -> u64 {
        self.in_place.count(start, len)
    }

    /// Delayed blocks hold space now that were to be written in place.
    pub fn hold_blocks(&mut self, start: u64, len: u64) -> Result<(), NoMemory> {
        self.in_place.remove(start, len).map(drop)
    }

    /// The file's dirty blocks from `start` on are no longer new to it.
    pub fn settle(&mut self, start: u64, len: u64) {
        // A failure shows in st_blocks only.
        let _ = self.fresh.remove(start, len);
    }

    /// Puts the place of `run.len` dirty blocks from `start` aside.
    pub fn stage(&mut self, start: u64, run: Run) -> Result<(), NoMemory> {
        if run.len > 0 {
            self.staged.insert(start, run)?;
        }
        Ok(())
    }

    /// How many blocks from `start` on, of which it is the first, have a staged place that is
    /// contiguous.
    pub fn staged_at(&self, start: u64, len: u64) -> u64 {
        match self.first_staged(start, len) {
            Some((at, run)) if at == start => run.len,
            _ => 0,
        }
    }

    /// Takes the staged place of block `start` and as many of the `len - 1` after it as are
    /// contiguous there.
    pub fn take_staged(&mut self, start: u64, len: u64) -> Result<Option<Run>, NoMemory> {
        let Some((at, whole)) = self.staged.at_or_before(&start).map(|(at, run)| (at, *run)) else {
            return Ok(None);
        };
        let skip = start - at;
        if whole.len <= skip || len == 0 {
            return Ok(None);
        }
        let take = (whole.len - skip).min(len);
        let rest = whole.len - skip - take;
        if rest > 0 {
            let after = Run::new(BlockNr(whole.start.0 + skip + take), rest);
            self.staged.insert(start + take, after)?;
        }
        if skip > 0 {
            if let Some(run) = self.staged.get_mut(&at) {
                run.len = skip;
            }
        } else {
            self.staged.remove(&at);
        }
        Ok(Some(Run::new(BlockNr(whole.start.0 + skip), take)))
    }

    /// Blocks go under writeback.
    pub fn start_writing(&mut self, start: u64, len: u64) -> Result<(), NoMemory> {
        self.writing.insert(start, len).map(|_| ())
    }

    /// Their writeback has ended.
    pub fn stop_writing(&mut self, start: u64, len: u64) -> Result<(), NoMemory> {
        self.writing.remove(start, len).map(|_| ())
    }

    /// A direct write got a place.
    pub fn add_direct(&mut self, piece: DirectPiece) -> Result<(), NoMemory> {
        self.direct.try_push(piece)
    }

    /// It has ended: what kept its blocks, if it was not taken before.
    pub fn take_reader(&mut self, token: usize) -> Option<Ticket> {
        let index = self
            .readers
            .iter()
            .position(|(reader, _)| *reader == token)?;
        self.readers.take_at(index)?.1
    }

    /// Whether direct writes have places for any of the blocks.
    pub fn has_direct(&self, start: u64, len: u64) -> bool {
        let end = start.saturating_add(len);
        self.direct
            .iter()
            .any(|piece| piece.start < end && piece.start.saturating_add(piece.run.len) > start)
    }

    /// Whether the direct write `token` has a place.
    pub fn has_place(&self, token: usize) -> bool {
        self.direct.iter().any(|piece| piece.token == token)
    }

    /// Takes one of the places of the direct write `token`.
    pub fn take_direct(&mut self, token: usize) -> Option<DirectPiece> {
        let index = self.direct.iter().position(|piece| piece.token == token)?;
        self.direct.take_at(index)
    }
}

/// Has nothing get other content that loses an owner from now on, before the direct read or write
/// `token` gives its ticket back.
pub fn keep_freed(inode: &Inode, blocks: &mut Blocks, token: usize) -> Result {
    if blocks.readers.iter().any(|(reader, _)| *reader == token) {
        return Ok(());
    }
    // What may find no memory comes first: a ticket has to be given back.
    blocks.readers.try_push((token, None)).map_err(|_| ENOMEM)?;
    match inode.query(|volume, _| volume.begin_read()) {
        Ok(ticket) => {
            if let Some((_, slot)) = blocks.readers.last_mut() {
                *slot = Some(ticket);
            }
            Ok(())
        }
        Err(e) => {
            blocks.take_reader(token);
            Err(e)
        }
    }
}

/// What lost an owner since then may get other content.
pub fn end_read(inode: &Inode, ticket: Ticket) {
    // It cannot fail.
    let _ = inode.query(|volume, _| {
        volume.end_read(ticket);
        Ok(())
    });
}

/// Gives back the space of dirty blocks that will not be written: they are gone from the page
/// cache, or their writeback failed. Not for blocks that are under writeback.
pub fn forget(inode: &Inode, start: u64, len: u64) -> Result {
    let file = inode.data().file()?;
    let mut blocks = file.blocks();
    file.mapping_changed();
    give_up_staged(inode, &mut blocks, start, len)?;
    blocks.settle(start, len);
    undelay(inode, &mut blocks, start, len).map(drop)
}

/// Gives back the places that dirty blocks have already, and returns how many there were.
fn give_up_staged(inode: &Inode, blocks: &mut Blocks, start: u64, len: u64) -> Result<u64> {
    let mut count = 0;
    while let Some((at, run)) = blocks.first_staged(start, len) {
        let Some(run) = blocks.take_staged(at, run.len).map_err(|_| ENOMEM)? else {
            break;
        };
        unstage(inode, run)?;
        count += run.len;
    }
    Ok(count)
}

/// Gives back what delayed blocks hold, and returns how many there were.
pub fn undelay(inode: &Inode, blocks: &mut Blocks, start: u64, len: u64) -> Result<u64> {
    let mut count = 0;
    for held in blocks.undelay(start, len).map_err(|_| ENOMEM)? {
        let (Held::Blocks(n) | Held::InPlace(n)) = held;
        count += n;
        held.release(inode)?;
    }
    Ok(count)
}

/// Gives back the space of blocks that were about to become dirty and did not; also where the writeback
/// of a neighbour has got them a place meanwhile.
pub fn release(inode: &Inode, start: u64, len: u64) -> Result {
    let file = inode.data().file()?;
    let mut blocks = file.blocks();
    file.mapping_changed();
    let staged = give_up_staged(inode, &mut blocks, start, len)?;
    if undelay(inode, &mut blocks, start, len)? + staged > 0 {
        blocks.settle(start, len);
    }
    Ok(())
}

/// Before blocks are written of what may be an inactive swapfile, or was not truncated to the end:
/// takes its private range, or header page, back, and drops what is behind the end.
pub fn prepare_write(inode: &Inode, start: u64, len: u64) -> Result {
    let file = inode.data().file()?;
    if file.is_plain() {
        return Ok(());
    }
    let _blocks = file.blocks();
    inode.join(|volume, id| volume.prepare_write(id, FileBlock(start), len))?;
    // The header page alone leaves the rest as it is.
    file.set_plain(start.saturating_add(len) > 1);
    file.mapping_changed();
    Ok(())
}

/// Gives back a place that was staged and not used.
pub fn unstage(inode: &Inode, run: Run) -> Result {
    inode.query(|volume, _| {
        volume.unstage(run);
        Ok(())
    })
}

/// The inode goes away, its page cache is empty: nothing stays reserved for it.
pub fn evict(inode: &Inode) {
    // It fails only where memory is short: space is lost until the next mount, which finds it.
    let _ = forget(inode, 0, u64::MAX);
}
