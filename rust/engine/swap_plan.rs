// SPDX-License-Identifier: GPL-2.0

//! What the activation of a swapfile finds, chunk by chunk, before it changes anything.

use super::device::BlockDevice;
use super::error::Result;
use super::tree::View;
use super::types::{BlockNr, InodeId, CHUNK_BLOCKS};

/// Pages of a file between two boundaries that a huge page respects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The first page.
    pub start: u64,
    /// The page after the last.
    pub end: u64,
}

impl Chunk {
    /// The rest, from page `at` on, of the chunk that it is in, in a file of `pages` pages.
    pub fn of(at: u64, pages: u64) -> Self {
        let end = (at / CHUNK_BLOCKS + 1)
            .saturating_mul(CHUNK_BLOCKS)
            .min(pages);
        Self { start: at, end }
    }

    /// Number of pages.
    pub fn pages(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What is behind some pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
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
pub struct Survey {
    /// Whether all of it is in the swap tree.
    pub private: bool,
    /// Number of runs that the blocks that can stay are in.
    pub runs: u64,
    /// Pages that need new blocks.
    pub foreign: u64,
}

/// Blocks that an activation takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// When scattered chunks are brought together.
    pub whole: u64,
    /// At least.
    pub least: u64,
}

impl Need {
    /// Adds those of a chunk.
    pub fn add(&mut self, whole: u64, least: u64) {
        self.whole = self.whole.saturating_add(whole);
        self.least = self.least.saturating_add(least);
    }
}

impl<D: BlockDevice> View<'_, D> {
    /// Looks at a chunk of a file that is to be a swapfile.
    pub(super) fn survey(&self, id: InodeId, chunk: Chunk) -> Result<Survey> {
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
