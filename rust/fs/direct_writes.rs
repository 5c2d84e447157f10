// SPDX-License-Identifier: GPL-2.0

//! Direct writes under way, for who gives blocks more owners, or moves them.
//!
//! A direct write may go to the blocks that the file has. Programs, and most of the kernel, keep the
//! filesystem from freezing meanwhile. Some of the kernel's own writers do not (NVMe and SCSI targets,
//! zloop): their writes are waited for here, and new ones wait.

use crate::platform::{mutex, Mutex, MutexGuard, NoMemory};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Release};
use kernel::time::{delay::fsleep, Delta};

/// How often [`DirectWrites::stop`] looks, a millisecond between: one of the writes may itself wait for
/// a thaw that comes only afterwards.
const LOOKS: u32 = 2000;

/// Counts them.
///
/// Locks: the gate ranks above the engine's. Who waits for it may hold an inode's lock, and is not
/// counted meanwhile.
pub struct DirectWrites {
    under_way: Atomic<i64>,
    stopped: Atomic<i32>,
    gate: Mutex<()>,
}

/// None is under way, and none begins until this is dropped.
pub struct Stopped<'a> {
    writes: &'a DirectWrites,
    _gate: MutexGuard<'a, ()>,
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.writes.stopped.store(0, Release);
    }
}

impl DirectWrites {
    /// None is under way.
    pub fn new() -> Result<Self> {
        Ok(Self {
            under_way: Atomic::new(0i64),
            stopped: Atomic::new(0i32),
            gate: mutex!((), "oxfs direct writes").map_err(|NoMemory| ENOMEM)?,
        })
    }

    /// One begins: [`Self::end`] follows. May sleep.
    pub fn begin(&self) {
        loop {
            // Counted first: either it is seen by who stops writes, or it sees that they are stopped.
            self.under_way.fetch_add(1i64, Full);
            if self.stopped.load(Acquire) == 0 {
                return;
            }
            self.end();
            drop(self.gate.lock());
        }
    }

    /// One has ended. In any context.
    pub fn end(&self) {
        self.under_way.fetch_add(-1i64, Full);
    }

    /// Has those that begin wait, and waits for those that have begun; `None` if one of them does not
    /// end.
    pub fn stop(&self) -> Option<Stopped<'_>> {
        let gate = self.gate.lock();
        self.stopped.xchg(1i32, Full);
        let stopped = Stopped {
            writes: self,
            _gate: gate,
        };
        for _ in 0..LOOKS {
            if self.under_way.load(Acquire) == 0 {
                return Some(stopped);
            }
            fsleep(Delta::from_millis(1));
        }
        None
    }
}
