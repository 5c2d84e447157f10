// SPDX-License-Identifier: GPL-2.0

//! Writes under way, for who gives blocks more owners, or moves them ([`super::barrier`]).
//!
//! Freezing stops writers, but only those that ask whether the filesystem is frozen. Some of the
//! kernel's own do not (NVMe and SCSI targets, zloop). So all of them are counted, and stopped here, at
//! the point of freezing where all others have ended, what is dirty is about to be written, and the end
//! of a write can still change the volume.

use crate::vfs::wait::{wait_killable, wake_up};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full};

/// Writers go on; they are being stopped; none is under way.
const GO: i32 = 0;
const STOPPING: i32 = 1;
const STOPPED: i32 = 2;

/// Counts writes.
pub struct Writes {
    under_way: Atomic<i64>,
    state: Atomic<i32>,
}

/// A write that is under way, until dropped.
pub struct UnderWay<'a>(&'a Writes);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writes {
    /// None is under way.
    pub fn new() -> Self {
        Self {
            under_way: Atomic::new(0i64),
            state: Atomic::new(GO),
        }
    }

    /// One begins; waits while they are stopped. The caller holds no lock of the filesystem. `EINTR` after
    /// a fatal signal.
    pub fn begin(&self) -> Result<UnderWay<'_>> {
        loop {
            // Counted first: either who stops writes sees it, or it sees that they are stopped.
            self.under_way.fetch_add(1i64, Full);
            let write = UnderWay(self);
            if self.state.load(Acquire) == GO {
                return Ok(write);
            }
            drop(write);
            wait_killable(self, || self.state.load(Acquire) == GO)?;
        }
    }

    /// One that has begun goes on by itself, until [`Self::end`].
    pub fn goes_on(&self) {
        self.under_way.fetch_add(1i64, Full);
    }

    /// It has ended. In any context.
    pub fn end(&self) {
        if self.under_way.fetch_add(-1i64, Full) == 1 && self.state.load(Acquire) == STOPPING {
            wake_up(self);
        }
    }

    /// Has those that begin wait, until [`Self::resume`].
    pub fn stop(&self) {
        let _ = self.state.cmpxchg(GO, STOPPING, Full);
    }

    /// Waits for those that had begun when they were stopped, unless they may go on meanwhile; for what
    /// they wait must not wait for the caller. A fatal signal ends it before that.
    pub fn wait_for_end(&self) {
        let _ = wait_killable(self, || {
            self.state.load(Acquire) != STOPPING
                || self.under_way.load(Acquire) == 0
                    && self.state.cmpxchg(STOPPING, STOPPED, Full).is_ok()
        });
    }

    /// Whether none is under way, nor begins.
    pub fn are_stopped(&self) -> bool {
        self.state.load(Acquire) == STOPPED
    }

    /// Writes go on.
    pub fn resume(&self) {
        self.state.xchg(GO, Full);
        wake_up(self);
    }
}
