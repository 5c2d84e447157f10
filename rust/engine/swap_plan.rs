// SPDX-License-Identifier: GPL-2.0

//! What the activation of a swapfile will do, worked out before it changes anything: every run of
//! the file as it will be, its new blocks already taken. Whoever drops the plan has changed nothing.
//! [`Plan::apply`] carries it out.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::extent::Place;
use super::tree::View;
use super::types::{BlockNr, FileBlock, InodeId, Run, CHUNK_BLOCKS, MAX_FILE_BLOCKS};
use super::volume::{check_writable, Cost, Volume};
use crate::platform::{MutexGuard, Vec, VecExt};

/// Pages of a file between two boundaries that a huge page respects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    /// The first page.
    start: u64,
    /// The page after the last.
    end: u64,
}

impl Chunk {
    /// The rest, from page `at` on, of the chunk that it is in, in a file of `pages` pages.
    fn of(at: u64, pages: u64) -> Self {
        let end = (at / CHUNK_BLOCKS + 1)
            .saturating_mul(CHUNK_BLOCKS)
            .min(pages);
        Self { start: at, end }
    }

    /// Number of pages.
    fn pages(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What is behind some pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Blocks in the swap tree.
    Private(BlockNr),
    /// Blocks in the subvolume tree that nobody else owns.
    Own(BlockNr),
    /// Blocks that others own as well, or none.
    Foreign,
    /// Nothing.
    Hole,
}

/// What is behind a chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Survey {
    /// Whether all of it is in the swap tree.
    private: bool,
    /// Number of runs that the blocks that can stay are in.
    runs: u64,
    /// Pages that need new blocks.
    foreign: u64,
}

impl Survey {
    /// Whether everything can stay where it is, for a large folio as well.
    fn stays(&self) -> bool {
        self.private || (self.foreign == 0 && self.runs == 1)
    }
}

/// Blocks that an activation takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Need {
    /// When scattered chunks are brought together.
    whole: u64,
    /// At least.
    least: u64,
    /// Runs of it, whose items take nodes.
    runs: u64,
}

/// What an activation does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activation {
    /// Blocks that are given to the file: the header page's, and those that others own or that
    /// nobody had.
    pub new_blocks: u64,
    /// Blocks that stay where they are.
    pub kept_blocks: u64,
    /// Blocks that were the file's own but lay scattered inside a chunk.
    pub moved_blocks: u64,
}

/// Where the blocks of a run are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the swap tree.
    Private,
    /// In the subvolume tree.
    Own,
    /// Nowhere: they are taken in memory.
    Staged,
}

/// A run of the swapfile as it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRun {
    /// The first page of the file.
    pub page: u64,
    /// The blocks behind it and the pages after it.
    pub run: Run,
    pub(super) origin: Origin,
}

/// A plan. While it exists nobody makes blocks of the volume shared: what it found to be the
/// file's own stays so.
pub struct Plan<'a, D: BlockDevice> {
    pub(super) volume: &'a Volume<D>,
    pub(super) id: InodeId,
    pub(super) runs: Vec<PlannedRun>,
    pub(super) report: Activation,
    /// Blocks that are promised and not taken.
    reserved: u64,
    /// Blocks that were taken for the chunks to come.
    pool: Option<Run>,
    _sharing: MutexGuard<'a, ()>,
}

impl<D: BlockDevice> Drop for Plan<'_, D> {
    fn drop(&mut self) {
        self.unreserve();
        if let Some(pool) = self.pool.take() {
            self.volume.unstage(pool);
        }
        for planned in self.runs.iter() {
            if planned.origin == Origin::Staged {
                self.volume.unstage(planned.run);
            }
        }
    }
}

impl<D: BlockDevice> Plan<'_, D> {
    /// The runs, from page 0 on, without gaps. Two may continue each other.
    pub fn runs(&self) -> &[PlannedRun] {
        &self.runs
    }

    /// Gives back what is promised and not taken.
    pub(super) fn unreserve(&mut self) {
        self.volume.unreserve(self.reserved);
        self.reserved = 0;
    }

    /// Takes promised blocks: one run of up to `want`.
    fn stage(&mut self, want: u64) -> Result<Run> {
        let want = want.min(self.reserved);
        if want == 0 {
            return Err(Error::NoSpace);
        }
        let volume = self.volume;
        let mut state = volume.state.write();
        check_writable(&state)?;
        let run = state.space.stage(&volume.store, None, want)?;
        state.space.unreserve(run.len);
        self.reserved -= run.len;
        Ok(run)
    }

    /// Makes blocks that were taken promised ones again.
    fn unstage(&mut self, run: Run) {
        let mut state = self.volume.state.write();
        state.space.unstage(run);
        state.space.reserve(run.len);
        self.reserved += run.len;
    }

    /// A run for a whole chunk of `len` blocks, if free space has one. What the run has beyond it
    /// is kept for the next chunk.
    fn stage_chunk(&mut self, len: u64) -> Result<Option<Run>> {
        let mut pool = self.pool.take();
        if let Some(small) = pool.take_if(|pool| pool.len < len) {
            self.unstage(small);
        }
        let pool = match pool {
            Some(pool) => pool,
            None => self.stage(self.reserved.max(len))?,
        };
        if pool.len < len {
            self.unstage(pool);
            return Ok(None);
        }
        let rest = Run::new(BlockNr(pool.start.0 + len), pool.len - len);
        self.pool = (rest.len > 0).then_some(rest);
        Ok(Some(Run::new(pool.start, len)))
    }

    /// Adds the next run.
    fn add(&mut self, page: u64, run: Run, origin: Origin) -> Result<()> {
        let last = self.runs.last_mut().filter(|last| {
            // The header page is copied, so it stays alone.
            last.page > 0 && last.origin == origin && last.run.end() == run.start.0
        });
        match last {
            Some(last) => last.run.len += run.len,
            None => {
                let planned = PlannedRun { page, run, origin };
                let added = self.runs.try_push(planned);
                if added.is_err() && origin == Origin::Staged {
                    self.volume.unstage(run);
                }
                added?;
            }
        }
        Ok(())
    }

    /// Plans the header page, which the swap tree has a copy of.
    fn add_header(&mut self) -> Result<()> {
        let swap = Place::swap(self.id);
        let found = self.volume.query(|view| view.extent_in(swap, 0, 1))?;
        if let Some(run) = found.and_then(|header| header.run()) {
            return self.add(0, run, Origin::Private);
        }
        let run = self.stage(1)?;
        self.report.new_blocks += 1;
        self.add(0, run, Origin::Staged)
    }

    /// Plans a chunk: as it is if a large folio may be swapped there, else in one new run if that
    /// is wanted and free space has one, else piece by piece.
    fn add_chunk(&mut self, chunk: Chunk, whole: bool) -> Result<()> {
        let survey = self.volume.query(|view| view.survey(self.id, chunk))?;
        let run = if survey.stays() || !whole {
            None
        } else {
            self.stage_chunk(chunk.pages())?
        };
        let Some(run) = run else {
            return self.add_pieces(chunk);
        };
        self.report.new_blocks += survey.foreign;
        self.report.moved_blocks += chunk.pages() - survey.foreign;
        self.add(chunk.start, run, Origin::Staged)
    }

    /// Plans a chunk whose own blocks stay.
    fn add_pieces(&mut self, chunk: Chunk) -> Result<()> {
        let mut at = chunk.start;
        while at < chunk.end {
            let found = |view: View<'_, D>| view.swap_piece(self.id, at, chunk.end);
            let (piece, end) = self.volume.query(found)?;
            let len = end - at;
            at += match piece {
                Piece::Private(block) => {
                    self.add(at, Run::new(block, len), Origin::Private)?;
                    len
                }
                Piece::Own(block) => {
                    self.report.kept_blocks += len;
                    self.add(at, Run::new(block, len), Origin::Own)?;
                    len
                }
                Piece::Foreign => {
                    let run = self.stage(len)?;
                    self.report.new_blocks += run.len;
                    self.add(at, run, Origin::Staged)?;
                    run.len
                }
                Piece::Hole => return Err(Error::Invalid("swapfile has holes")),
            };
        }
        Ok(())
    }
}

impl<D: BlockDevice> Volume<D> {
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

    /// Plans how the first `pages` blocks of a file become its own. The file is marked
    /// ([`Volume::set_swapping`]), has no holes there, and everything of it is on the device;
    /// nobody changes it while the plan exists.
    ///
    /// `NoSpace` when there is none, also not in swapfiles that are not active.
    pub fn plan_swap(&self, id: InodeId, pages: u64) -> Result<Plan<'_, D>> {
        if !(2..=MAX_FILE_BLOCKS).contains(&pages) {
            return Err(Error::Invalid("less than one page to swap to"));
        }
        let sharing = self.sharing.lock();
        let need = self.swap_need(id, pages)?;
        let (reserved, whole) = match self.reserve_runs(need.whole) {
            Ok(()) => (need.whole, true),
            Err(Error::NoSpace) => (self.reserve_least(id, need.least)?, false),
            Err(error) => return Err(error),
        };
        let mut plan = Plan {
            volume: self,
            id,
            runs: Vec::new(),
            report: Activation::default(),
            reserved,
            pool: None,
            _sharing: sharing,
        };
        plan.add_header()?;
        let mut at = 1;
        while at < pages {
            let chunk = Chunk::of(at, pages);
            plan.add_chunk(chunk, whole)?;
            at = chunk.end;
        }
        if let Some(pool) = plan.pool.take() {
            plan.unstage(pool);
        }
        plan.unreserve();
        // An item for each run, in leaves that are half full at least. The steps may use a part of
        // the reserve, since they let go of what others own too.
        if !self.has_room_for(Cost::frees((need.runs / 128) as usize)) {
            return Err(Error::NoSpace);
        }
        Ok(plan)
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

    /// What making the first `pages` blocks private takes.
    fn swap_need(&self, id: InodeId, pages: u64) -> Result<Need> {
        let header = self.query(|view| view.extent_in(Place::swap(id), 0, 1))?;
        let mut need = Need {
            whole: u64::from(header.is_none()),
            least: u64::from(header.is_none()),
            runs: 1,
        };
        let mut at = 1;
        while at < pages {
            let chunk = Chunk::of(at, pages);
            let survey = self.query(|view| view.survey(id, chunk))?;
            if !survey.private {
                need.runs = need.runs.saturating_add(survey.runs.saturating_add(1));
                need.least = need.least.saturating_add(survey.foreign);
            }
            if !survey.stays() {
                need.whole = need.whole.saturating_add(chunk.pages());
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
        let Some(whole) = self.extent(Place::file(id), at)? else {
            return Ok((Piece::Hole, end));
        };
        if whole.start > at {
            return Ok((Piece::Hole, whole.start.min(end)));
        }
        let part = whole.part(at, end);
        if part.run().is_none() {
            return Ok((Piece::Foreign, part.end()));
        }
        let (shared, alike) = self.extent_shared(id, &whole, &part)?;
        let end = at + alike.min(part.len);
        Ok((
            if shared {
                Piece::Foreign
            } else {
                Piece::Own(part.at)
            },
            end,
        ))
    }

    /// Looks at a chunk of a file that is to be a swapfile.
    fn survey(&self, id: InodeId, chunk: Chunk) -> Result<Survey> {
        let mut survey = Survey {
            private: true,
            ..Survey::default()
        };
        let (mut at, mut next) = (chunk.start, None);
        while at < chunk.end {
            let (piece, end) = self.swap_piece(id, at, chunk.end)?;
            survey.private &= matches!(piece, Piece::Private(_));
            match piece {
                Piece::Private(block) | Piece::Own(block) => {
                    survey.runs += u64::from(next != Some(block.0));
                    next = Some(block.0 + (end - at));
                }
                Piece::Foreign | Piece::Hole => {
                    survey.foreign += end - at;
                    next = None;
                }
            }
            at = end;
        }
        Ok(survey)
    }
}
