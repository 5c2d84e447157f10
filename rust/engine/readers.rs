// SPDX-License-Identifier: GPL-2.0

//! Freed blocks wait for the readers that may still read them.
//!
//! A direct read looks up a mapping and reads the blocks without a lock. They may be freed
//! meanwhile, and must not carry other data before the read has ended. Time is cut into epochs;
//! every commit that freed blocks ends one. Blocks that were freed in an epoch are released when no
//! reader of that epoch or an earlier one is left.

use super::error::Result;
use super::types::Run;
use crate::platform::{mutex, Map, Mutex, Vec, VecExt};

#[derive(Default)]
struct Inner {
    epoch: u64,
    /// Readers that began in an epoch.
    reading: Map<u64, u64>,
    /// What waits, by epoch, oldest first.
    waiting: Vec<(u64, Run)>,
}

/// The readers of a volume.
pub struct Readers(Mutex<Inner>);

/// A reader that began; to be given back to [`Readers::end`].
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Readers {
    /// No readers.
    pub fn new() -> Result<Self> {
        Ok(Self(mutex!(Inner::default(), "oxfs readers")?))
    }

    /// A read begins, before it looks up what to read.
    pub fn begin(&self) -> Result<Ticket> {
        let mut inner = self.0.lock();
        let epoch = inner.epoch;
        let before = inner.reading.get(&epoch).copied().unwrap_or(0);
        inner.reading.insert(epoch, before + 1)?;
        Ok(Ticket(epoch))
    }

    /// A read ended: what can be released now.
    pub fn end(&self, ticket: Ticket) -> Vec<Run> {
        let mut inner = self.0.lock();
        let left = inner.reading.get_mut(&ticket.0).map_or(0, |count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == 0 {
            inner.reading.remove(&ticket.0);
        }
        inner.take_ready()
    }

    /// Blocks were freed, durably: what can be released now.
    pub fn freed(&self, runs: &[Run]) -> Result<Vec<Run>> {
        let mut inner = self.0.lock();
        let epoch = inner.epoch;
        for run in runs {
            inner.waiting.try_push((epoch, *run))?;
        }
        inner.epoch = epoch.wrapping_add(1);
        Ok(inner.take_ready())
    }
}

impl Inner {
    fn take_ready(&mut self) -> Vec<Run> {
        let oldest = self.reading.first().map_or(u64::MAX, |(epoch, _)| epoch);
        let mut ready = Vec::new();
        let mut rest = Vec::new();
        for &(epoch, run) in self.waiting.iter() {
            // What finds no memory waits for the next time.
            let stays = epoch >= oldest || ready.try_push(run).is_err();
            if stays && rest.try_push((epoch, run)).is_err() {
                return Vec::new();
            }
        }
        self.waiting = rest;
        ready
    }
}
