// SPDX-License-Identifier: GPL-2.0

//! Blocks that lost owners wait for the readers that may still read them.
//!
//! A direct read looks up a mapping and reads the blocks without a lock. They may be freed
//! meanwhile, or be left to another owner who writes to them in place, and must not carry other data
//! before the read has ended. The same holds for a direct write in place: another write that has a
//! place for the same block may end first. Time is cut into epochs; every commit ends one. What lost
//! owners in an epoch is let go of when no reader of that epoch or an earlier one is left. So a reader
//! is somebody who waits for the device, not for anybody's memory.

use super::error::Result;
use super::types::{Generation, Run};
use crate::platform::{mutex, Map, Mutex, Vec};

/// What a transaction freed. What it left to a single owner is in the volume's state.
pub struct Freed {
    /// Which transaction.
    pub generation: Generation,
    /// The blocks.
    pub runs: Vec<Run>,
}

#[derive(Default)]
struct Inner {
    epoch: u64,
    /// Readers that began in an epoch.
    reading: Map<u64, u64>,
    /// What was freed in an epoch, and waits.
    waiting: Map<u64, Freed>,
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

    /// A read ended: some of what can be released now; [`Readers::ready`] has more.
    pub fn end(&self, ticket: Ticket) -> Option<Freed> {
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

    /// A transaction is durable.
    pub fn freed(&self, freed: Freed) -> Result<()> {
        let mut inner = self.0.lock();
        let epoch = inner.epoch;
        inner.waiting.insert(epoch, freed)?;
        inner.epoch = epoch.wrapping_add(1);
        Ok(())
    }

    /// Some of what can be released now; `None`: there is nothing.
    pub fn ready(&self) -> Option<Freed> {
        self.0.lock().take_ready()
    }
}

impl Inner {
    fn take_ready(&mut self) -> Option<Freed> {
        let (epoch, _) = self.waiting.first()?;
        match self.reading.first() {
            Some((oldest, _)) if oldest <= epoch => None,
            _ => self.waiting.remove(&epoch),
        }
    }
}
