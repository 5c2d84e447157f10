// SPDX-License-Identifier: GPL-2.0

//! FITRIM: telling the device which blocks are free.

use super::device::BlockDevice;
use super::error::Result;
use super::types::Run;
use super::volume::{check_writable, Volume};

impl<D: BlockDevice> Volume<D> {
    /// Number of groups of 32768 blocks; [`Volume::trim_group`] takes one of them.
    pub fn groups(&self) -> u64 {
        self.store.geometry().groups()
    }

    /// Discards the free runs of a group that have `min` blocks or more; how many blocks that was.
    /// While a run is discarded nobody gets blocks of it.
    pub fn trim_group(&self, group: u64, min: u64) -> Result<u64> {
        let (mut from, mut trimmed) = (0, 0);
        let min = usize::try_from(min).unwrap_or(usize::MAX).max(1);
        while let Some(run) = self.next_free(group, from, min)? {
            self.store.dev.discard(run);
            self.unstage(run);
            trimmed += run.len;
            from = (run.end() - group * super::format::GROUP_BLOCKS) as usize;
        }
        Ok(trimmed)
    }

    fn next_free(&self, group: u64, from: usize, min: usize) -> Result<Option<Run>> {
        let mut state = self.state.write();
        check_writable(&state)?;
        let most = state.discardable(self.store.geometry());
        state
            .space
            .take_for_discard(&self.store, group, from, min, most)
    }
}
