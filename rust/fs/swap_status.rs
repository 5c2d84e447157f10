// SPDX-License-Identifier: GPL-2.0

//! What is told about active swapfiles: remembered when they are activated, in memory only.

use crate::engine::types::InodeId;
use crate::platform::{mutex, Map, Mutex, NoMemory};
use kernel::prelude::*;

/// An active swapfile.
#[derive(Clone, Copy)]
pub struct Status {
    /// Pages, the header included.
    pub pages: u64,
    /// Runs that they are in.
    pub extents: u32,
    /// Blocks that were allocated for it.
    pub new_blocks: u64,
    /// Blocks that it had to itself.
    pub kept_blocks: u64,
    /// Blocks that it had to itself and that were replaced so that runs are longer.
    pub moved_blocks: u64,
    /// Large folios are swapped whole.
    pub whole: bool,
    /// The block of the header.
    pub first_block: u64,
}

/// The active swapfiles of a mounted volume, by `st_ino`.
pub struct ActiveSwap(Mutex<Map<u64, Status>>);

impl ActiveSwap {
    /// None so far.
    pub fn new() -> Result<Self> {
        let map = mutex!(Map::new(), "oxfs active swap").map_err(|NoMemory| ENOMEM)?;
        Ok(Self(map))
    }

    /// `id` was activated. Where memory is short nothing is told about it.
    pub fn remember(&self, id: InodeId, status: Status) {
        let _ = self.0.lock().insert(id.st_ino(), status);
    }

    /// `id` is not active.
    pub fn forget(&self, id: InodeId) {
        self.0.lock().remove(&id.st_ino());
    }

    /// The first whose `st_ino` is at least `from`.
    pub fn next(&self, from: u64) -> Option<(InodeId, Status)> {
        let all = self.0.lock();
        let (st_ino, status) = all.at_or_after(&from)?;
        Some((InodeId::from_st_ino(st_ino), *status))
    }
}
