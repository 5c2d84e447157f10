// SPDX-License-Identifier: GPL-2.0

//! Swapfiles: making one private, in metadata only, and giving it back.
//!
//! The range of a swapfile that the kernel swaps to lives in the swap tree, which no snapshot
//! shares; the subvolume tree keeps its own header page and a promise without blocks. Activation
//! moves the range there: blocks that belong to this file alone stay where they are, the others get
//! new ones, and only the header page is copied. A second activation finds everything in place.
//!
//! Where free space allows it, no boundary between two runs is inside an aligned chunk of 512 pages
//! (what a huge page covers), but for the one behind the header page.
//!
//! While it is active nothing changes the mapping (`State::swapping`). When it is not, the range
//! reads as zeros, and whoever wants to change it moves it back first ([`Volume::restore_swap`]).

use super::data::STEP;
use super::device::{BlockDevice, Write};
use super::error::{Error, Result};
use super::extent::{Extent, ExtentState, Place};
use super::format::{item_kind, subvolume_flag};
use super::node::Key;
use super::tree::{TreeId, View};
use super::tree_write::Txn;
use super::types::{
    BlockNr, Done, FileBlock, InodeId, Run, CHUNK_BLOCKS, INODE_SWAP, MAX_FILE_BLOCKS,
};
use super::volume::{check_writable, Cost, Volume};
use super::{inode, swap_plan};
use crate::platform::{log, Block};
use swap_plan::{Chunk, Piece};

/// What an activation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activation {
    /// Blocks that were given to the file: the header page's, and those that others own or that
    /// nobody had.
    pub new_blocks: u64,
    /// Blocks that stayed where they were.
    pub kept_blocks: u64,
    /// Blocks that were the file's own but lay scattered inside a chunk.
    pub moved_blocks: u64,
}

/// A run of an active swapfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapRun {
    /// The first page of the file.
    pub page: u64,
    /// The blocks behind it and the pages after it.
    pub run: Run,
}

/// An activation that is under way.
struct Work {
    id: InodeId,
    pages: u64,
    /// Of the reservation, what is not used.
    reserved: u64,
    /// Whether scattered chunks get new blocks.
    whole: bool,
    /// Staged blocks for the chunks to come.
    pool: Option<Run>,
    report: Activation,
}

/// Drops the private blocks of `id` from `from` on, at most `budget` runs; whether none is left.
pub(super) fn drop_from<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    from: FileBlock,
    budget: usize,
) -> Result<bool> {
    if inode::load(txn.view(), id)?.flags & INODE_SWAP == 0 {
        return Ok(true);
    }
    let (reached, _) = txn.drop_extents(Place::swap(id), from.0, MAX_FILE_BLOCKS, budget)?;
    let done = reached >= MAX_FILE_BLOCKS;
    if done && from.0 == 0 {
        txn.set_swap_flag(id, false)?;
    }
    Ok(done)
}

impl<D: BlockDevice> Txn<'_, D> {
    /// `SwapActive` if the file is an active swapfile.
    pub(super) fn check_not_swapping(&self, id: InodeId) -> Result<()> {
        match self.state.swapping.contains(&id.st_ino()) {
            true => Err(Error::SwapActive),
            false => Ok(()),
        }
    }

    fn set_swap_flag(&mut self, id: InodeId, set: bool) -> Result<()> {
        let mut attr = inode::load(self.view(), id)?;
        let flags = if set {
            attr.flags | INODE_SWAP
        } else {
            attr.flags & !INODE_SWAP
        };
        if flags == attr.flags {
            return Ok(());
        }
        attr.flags = flags;
        inode::store(self, id, &attr)
    }

    /// Moves runs back to the subvolume tree; whether none is left.
    fn restore_step(&mut self, id: InodeId) -> Result<bool> {
        let (swap, file) = (Place::swap(id), Place::file(id));
        for _ in 0..STEP / 4 {
            let Some(extent) = self.view().extent(swap, 0)? else {
                self.set_swap_flag(id, false)?;
                return Ok(true);
            };
            if extent.state == ExtentState::Written {
                // The header page: the subvolume tree has its own.
                self.drop_extents(swap, extent.start, extent.end(), 1)?;
                continue;
            }
            let (reached, dropped) =
                self.drop_extents(file, extent.start, extent.end(), STEP / 4)?;
            let part = extent.part(extent.start, reached);
            if part.len == 0 {
                return Ok(false);
            }
            self.cut_extent(swap, part.start, part.end())?;
            let generation = self.state.generation;
            self.add_extent(file, Extent { generation, ..part })?;
            self.count_blocks(id, part.len, dropped)?;
        }
        Ok(false)
    }

    /// Puts blocks that are the file's own into the swap tree, as they are.
    /// Where the next piece begins; `from` if they are not its own any more.
    fn keep_piece(&mut self, work: &mut Work, at: BlockNr, from: u64, to: u64) -> Result<u64> {
        // A snapshot may have come since they were looked at.
        let (piece, end) = self.view().swap_piece(work.id, from, to)?;
        if piece != Piece::Own(at) || end != to {
            return Ok(from);
        }
        let (swap, file) = (Place::swap(work.id), Place::file(work.id));
        let len = to - from;
        self.cut_extent(file, from, to)?;
        let generation = self.state.generation;
        let state = ExtentState::Prealloc;
        let extent = Extent {
            start: from,
            len,
            at,
            generation,
            state,
        };
        self.add_extent(swap, extent)?;
        self.add_extent(
            file,
            Extent {
                at: BlockNr(0),
                state: ExtentState::Unbacked,
                ..extent
            },
        )?;
        work.report.kept_blocks += len;
        Ok(to)
    }

    /// Puts staged blocks behind `[from, from + run.len)`, as far as one step goes.
    fn back_piece(&mut self, work: &mut Work, run: Run, from: u64) -> Result<u64> {
        let (swap, file) = (Place::swap(work.id), Place::file(work.id));
        let to = from + run.len;
        let (mut reached, mut dropped) = self.drop_extents(file, from, to, STEP)?;
        if reached > from {
            let (swapped, _) = self.drop_extents(swap, from, reached, STEP)?;
            // What the swap tree still has there is done in the next step; so is the file's part.
            if swapped < reached {
                dropped = dropped.saturating_sub(reached - swapped);
                self.promise(work.id, swapped, reached)?;
                reached = swapped;
            }
        }
        if reached == from {
            return Ok(from);
        }
        let part = Run::new(run.start, reached - from);
        self.state.changes += 1;
        self.state.space.map(part)?;
        let generation = self.state.generation;
        let state = ExtentState::Prealloc;
        self.add_extent(
            swap,
            Extent {
                start: from,
                len: part.len,
                at: part.start,
                generation,
                state,
            },
        )?;
        self.promise(work.id, from, reached)?;
        self.count_blocks(work.id, part.len, dropped)?;
        Ok(reached)
    }

    /// The subvolume tree promises `[from, to)`.
    fn promise(&mut self, id: InodeId, from: u64, to: u64) -> Result<()> {
        let extent = Extent {
            start: from,
            len: to - from,
            at: BlockNr(0),
            generation: self.state.generation,
            state: ExtentState::Unbacked,
        };
        self.add_extent(Place::file(id), extent)
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Takes staged blocks out of the reservation: one run of up to `want`.
    fn stage_swap(&self, work: &mut Work, want: u64) -> Result<Run> {
        let want = want.min(work.reserved);
        if want == 0 {
            return Err(Error::NoSpace);
        }
        let mut state = self.state.write();
        check_writable(&state)?;
        let run = state.space.stage(&self.store, None, want)?;
        state.space.unreserve(run.len);
        work.reserved -= run.len;
        Ok(run)
    }

    /// Gives staged blocks back to the reservation.
    fn unstage_swap(&self, work: &mut Work, run: Run) {
        let mut state = self.state.write();
        state.space.unstage(run);
        state.space.reserve(run.len);
        work.reserved += run.len;
    }

    /// A staged run for a whole chunk of `len` blocks, if free space has one. What the run has
    /// beyond it is kept for the next chunk.
    fn stage_chunk(&self, work: &mut Work, len: u64) -> Result<Option<Run>> {
        let mut pool = work.pool.take();
        if let Some(small) = pool.take_if(|pool| pool.len < len) {
            self.unstage_swap(work, small);
        }
        let pool = match pool {
            Some(pool) => pool,
            None => self.stage_swap(work, work.reserved.max(len))?,
        };
        if pool.len < len {
            self.unstage_swap(work, pool);
            return Ok(None);
        }
        let rest = Run::new(BlockNr(pool.start.0 + len), pool.len - len);
        work.pool = (rest.len > 0).then_some(rest);
        Ok(Some(Run::new(pool.start, len)))
    }

    /// Marks a file as an active swapfile, or takes the mark away. `Busy` if it has the mark.
    pub fn set_swapping(&self, id: InodeId, active: bool) -> Result<()> {
        let mut state = self.state.write();
        if !active {
            state.swapping.remove(&id.st_ino());
            return Ok(());
        }
        let flags = state.subvol(id.subvol)?.item.flags.get();
        match state.swapping.contains(&id.st_ino()) || flags & subvolume_flag::DROPPING != 0 {
            true => Err(Error::Busy),
            false => Ok(state.swapping.insert(id.st_ino(), ()).map(drop)?),
        }
    }

    /// The first of the file's first `pages` blocks that is a hole.
    pub fn first_hole(&self, id: InodeId, pages: u64) -> Result<Option<FileBlock>> {
        let mut at = 0;
        while at < pages {
            match self.query(|view| view.swap_piece(id, at, pages))? {
                (Piece::Hole, _) => return Ok(Some(FileBlock(at))),
                (_, end) => at = end,
            }
        }
        Ok(None)
    }

    /// Makes the first `pages` blocks of a file its own, in the swap tree, and durable; `header` is
    /// the content of its first page. The file is marked ([`Volume::set_swapping`]), has no holes
    /// there, and everything of it is on the device.
    ///
    /// `NoSpace` before anything was changed. After another error a part of the range may be
    /// private already and read as zeros; a later activation goes on from there.
    pub fn swap_activate(&self, id: InodeId, pages: u64, header: &Block) -> Result<Activation> {
        if !(2..=MAX_FILE_BLOCKS).contains(&pages) {
            return Err(Error::Invalid("less than one page to swap to"));
        }
        let need = self.swap_need(id, pages)?;
        let (reserved, whole) = match self.reserve_runs(need.whole) {
            Ok(()) => (need.whole, true),
            Err(Error::NoSpace) => (self.reserve_least(id, need.least)?, false),
            Err(error) => return Err(error),
        };
        let report = Activation::default();
        let mut work = Work {
            id,
            pages,
            reserved,
            whole,
            pool: None,
            report,
        };
        let result = self.make_private(&mut work, header);
        if let Some(pool) = work.pool {
            self.unstage(pool);
        }
        self.unreserve(work.reserved);
        result?;
        self.commit()?;
        Ok(work.report)
    }

    /// Reserves `blocks`, if need be by taking them from swapfiles that are not active.
    fn reserve_least(&self, id: InodeId, blocks: u64) -> Result<u64> {
        loop {
            match self.reserve_runs(blocks) {
                Ok(()) => return Ok(blocks),
                Err(Error::NoSpace) if self.take_over(id)? => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the blocks of a swapfile that is not active: its range is a promise without blocks
    /// then, as in a snapshot. Whether there was one.
    fn take_over(&self, except: InodeId) -> Result<bool> {
        let mut victim = None;
        self.query(|view| {
            view.scan(TreeId::Swap, &Key::MIN, &Key::MAX, |key, _| {
                if key.kind != item_kind::SWAP {
                    return Err(Error::corrupt(BlockNr(0), "kind of a swap item"));
                }
                let active = view.state.swapping.contains(&key.object);
                if active || key.object == except.st_ino() {
                    return Ok(core::ops::ControlFlow::Continue(()));
                }
                victim = Some(InodeId::from_st_ino(key.object));
                Ok(core::ops::ControlFlow::Break(()))
            })
        })?;
        let Some(victim) = victim else {
            return Ok(false);
        };
        log(format_args!(
            "({}): swapfile {victim} is not active and gives its blocks to {except}",
            self.store.dev.name()
        ));
        let mut from = 0;
        while from < MAX_FILE_BLOCKS {
            let place = Place::swap(victim);
            let cost = Cost::frees(STEP);
            let step = self.update(cost, |txn| {
                // It may have become active meanwhile, and keeps what it has then.
                if txn.state.swapping.contains(&victim.st_ino()) {
                    return Ok(MAX_FILE_BLOCKS);
                }
                Ok(txn.drop_extents(place, from, MAX_FILE_BLOCKS, STEP)?.0)
            })?;
            from = step.value;
        }
        self.commit()?;
        Ok(true)
    }

    fn make_private(&self, work: &mut Work, header: &Block) -> Result<()> {
        self.private_header(work, header)?;
        let mut at = 1;
        while at < work.pages {
            let chunk = Chunk::of(at, work.pages);
            at = self.private_chunk(work, chunk)?;
        }
        Ok(())
    }

    /// Gives the file a header page of its own.
    fn private_header(&self, work: &mut Work, header: &Block) -> Result<()> {
        let (swap, id) = (Place::swap(work.id), work.id);
        if self.query(|view| view.extent_in(swap, 0, 1))?.is_some() {
            return Ok(());
        }
        let run = self.stage_swap(work, 1)?;
        let block = run.start;
        if let Err(error) = self.store.dev.write(&[Write {
            block,
            data: header,
        }]) {
            self.unstage(run);
            return Err(error);
        }
        work.report.new_blocks += 1;
        let mapped = self.update(Cost::maps(1), |txn| {
            txn.set_swap_flag(id, true)?;
            txn.state.changes += 1;
            txn.state.space.map(run)?;
            let generation = txn.state.generation;
            let header = Extent {
                start: 0,
                len: 1,
                at: block,
                generation,
                state: ExtentState::Written,
            };
            txn.write_extent(swap, &header)
        });
        if let Err(error) = mapped {
            self.unstage(run);
            return Err(error);
        }
        Ok(())
    }

    /// Makes a chunk, or the rest of one, the file's own; where the next begins.
    fn private_chunk(&self, work: &mut Work, chunk: Chunk) -> Result<u64> {
        let survey = self.query(|view| view.survey(work.id, chunk))?;
        if survey.private {
            return Ok(chunk.end);
        }
        let one_run = survey.foreign == 0 && survey.runs == 1;
        let run = if one_run || !work.whole {
            None
        } else {
            self.stage_chunk(work, chunk.pages())?
        };
        let Some(run) = run else {
            return self.private_pieces(work, chunk);
        };
        work.report.new_blocks += survey.foreign;
        work.report.moved_blocks += chunk.pages() - survey.foreign;
        self.back_all(work, run, chunk.start)?;
        Ok(chunk.end)
    }

    /// Puts a staged run behind the file's blocks from `from` on.
    fn back_all(&self, work: &mut Work, run: Run, from: u64) -> Result<()> {
        let mut at = from;
        while at < from + run.len {
            let used = at - from;
            let rest = Run::new(BlockNr(run.start.0 + used), run.len - used);
            match self.update(Cost::maps(STEP), |txn| txn.back_piece(work, rest, at)) {
                Ok(done) => at = done.value,
                Err(error) => {
                    self.unstage(rest);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Makes a chunk the file's own piece by piece: its own blocks stay.
    fn private_pieces(&self, work: &mut Work, chunk: Chunk) -> Result<u64> {
        let mut at = chunk.start;
        while at < chunk.end {
            let (piece, end) = self.query(|view| view.swap_piece(work.id, at, chunk.end))?;
            at = match piece {
                Piece::Private(_) => end,
                Piece::Own(block) => {
                    let cost = Cost::maps(2);
                    self.update(cost, |txn| txn.keep_piece(work, block, at, end))?
                        .value
                }
                Piece::Foreign => {
                    let want = end - at;
                    let run = self.stage_swap(work, want)?;
                    work.report.new_blocks += run.len;
                    self.back_all(work, run, at)?;
                    at + run.len
                }
                Piece::Hole => return Err(Error::Invalid("swapfile has holes")),
            };
        }
        Ok(chunk.end)
    }

    /// The run of an active swapfile's blocks from page `page` on, up to page `pages` - 1: as long
    /// as the blocks follow each other.
    pub fn swap_run(&self, id: InodeId, page: u64, pages: u64) -> Result<Option<SwapRun>> {
        self.query(|view| {
            let place = Place::swap(id);
            let Some(first) = view.extent_in(place, page, pages)? else {
                return Ok(None);
            };
            if first.start != page {
                return Err(Error::corrupt(first.at, "gap in a swapfile's runs"));
            }
            let mut run = Run::new(first.at, first.len);
            while let Some(next) = view.extent_in(place, page + run.len, pages)? {
                if next.start != page + run.len || next.at.0 != run.end() {
                    break;
                }
                run.len += next.len;
            }
            Ok(Some(SwapRun { page, run }))
        })
    }

    /// Whether a boundary after `page` pages is one where a huge page may end: aligned, or behind
    /// the header page.
    pub fn is_swap_boundary(page: u64) -> bool {
        page == 1 || page % CHUNK_BLOCKS == 0
    }

    /// Moves the private range of a file, which is not an active swapfile, back to its subvolume
    /// tree, as blocks that read as zeros. `SwapActive` if it is active.
    pub fn restore_swap(&self, id: InodeId) -> Result<()> {
        while self.inode(id)?.flags & INODE_SWAP != 0 {
            let step = self.update(Cost::frees(STEP), |txn| {
                txn.check_not_swapping(id)?;
                txn.restore_step(id)
            })?;
            if step.value {
                break;
            }
        }
        Ok(())
    }

    /// Makes sure that a write to `[start, start + len)` goes to the subvolume tree's blocks: moves
    /// a private range back, or, for the header page alone, drops the private copy of that.
    pub fn prepare_write(&self, id: InodeId, start: FileBlock, len: u64) -> Result<Done<()>> {
        if self.inode(id)?.flags & INODE_SWAP == 0 {
            return self.query(|view| {
                Ok(Done {
                    value: (),
                    generation: view.state.durable,
                })
            });
        }
        if start.0.saturating_add(len) > 1 {
            self.restore_swap(id)?;
        }
        self.update(Cost::FREES, |txn| {
            txn.check_not_swapping(id)?;
            txn.drop_extents(Place::swap(id), 0, 1, 1).map(drop)
        })
    }

    fn swap_need(&self, id: InodeId, pages: u64) -> Result<swap_plan::Need> {
        let mut need = swap_plan::Need::default();
        let header = self.query(|view| view.extent_in(Place::swap(id), 0, 1))?;
        need.add(u64::from(header.is_none()), u64::from(header.is_none()));
        let mut at = 1;
        while at < pages {
            let chunk = Chunk::of(at, pages);
            let survey = self.query(|view| view.survey(id, chunk))?;
            if !survey.private {
                let whole = if survey.foreign == 0 && survey.runs == 1 {
                    0
                } else {
                    chunk.pages()
                };
                need.add(whole, survey.foreign);
            }
            at = chunk.end;
        }
        Ok(need)
    }
}

impl<D: BlockDevice> View<'_, D> {
    /// What is behind block `at` of a file that is to be a swapfile, and where that ends.
    pub(super) fn swap_piece(&self, id: InodeId, at: u64, end: u64) -> Result<(Piece, u64)> {
        let swapped = self.extent_in(Place::swap(id), at, end)?;
        let end = match swapped {
            Some(extent) if extent.start == at => {
                return Ok((Piece::Private(extent.at), extent.end()))
            }
            Some(extent) => extent.start,
            None => end,
        };
        let Some(extent) = self.extent_in(Place::file(id), at, end)? else {
            return Ok((Piece::Hole, end));
        };
        if extent.start > at {
            return Ok((Piece::Hole, extent.start));
        }
        if extent.run().is_none() {
            return Ok((Piece::Foreign, extent.end()));
        }
        let (shared, alike) = self.extent_shared(id, &extent)?;
        let end = at + alike.min(extent.len);
        Ok((
            if shared {
                Piece::Foreign
            } else {
                Piece::Own(extent.at)
            },
            end,
        ))
    }
}
