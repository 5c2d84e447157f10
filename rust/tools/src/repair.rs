// SPDX-License-Identifier: GPL-2.0

//! Repairs a volume as far as that takes no guess: checks it, puts right what the checker found, and
//! checks again. What is put right is one transaction ([`crate::engine::repair`]), so that a repair
//! that is interrupted leaves the volume as it was; where one fault hid another the next round is
//! one more transaction.

use crate::check::{examine, Report};
use crate::engine::device::{BlockDevice, Write};
use crate::engine::error::{Error, Result};
use crate::engine::repair;
use crate::engine::types::{BlockNr, Run, Time};
use crate::platform::Block;
use std::fmt::Display;

/// Rounds after which what is left stays as it is.
const ROUNDS: usize = 64;

/// What a repair found and did.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// What was wrong before.
    pub before: Report,
    /// What is wrong now.
    pub after: Report,
    /// Why the last round changed nothing, if it failed.
    pub failed: Option<Error>,
}

/// The engine takes a device; a repair lends it one.
struct Lent<'a>(&'a dyn BlockDevice);

impl BlockDevice for Lent<'_> {
    fn name(&self) -> &dyn Display {
        self.0.name()
    }

    fn blocks(&self) -> u64 {
        self.0.blocks()
    }

    fn read(&self, block: BlockNr, data: &mut Block) -> Result<()> {
        self.0.read(block, data)
    }

    fn write(&self, writes: &[Write<'_>]) -> Result<()> {
        self.0.write(writes)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    fn write_durable(&self, write: Write<'_>) -> Result<()> {
        self.0.write_durable(write)
    }

    fn discard(&self, run: Run) {
        self.0.discard(run);
    }
}

/// Checks and repairs the volume on `dev`. An error means that there is none, or that it cannot be
/// read at all.
pub fn repair(
    dev: &dyn BlockDevice,
    time: Time,
    progress: &mut dyn FnMut(u64),
) -> Result<Repaired> {
    let (before, mut rebuild) = examine(dev, progress)?;
    let mut after = before.clone();
    for _ in 0..ROUNDS {
        if after.is_clean() || !after.can_mend() {
            break;
        }
        if let Err(error) = repair::repair(Lent(dev), rebuild, &after.mends, time) {
            return Ok(Repaired {
                before,
                after,
                failed: Some(error),
            });
        }
        let last = after;
        (after, rebuild) = examine(dev, progress)?;
        // One fault may have been behind another.
        if after.total() > last.total() || after.faults == last.faults {
            break;
        }
    }
    Ok(Repaired {
        before,
        after,
        failed: None,
    })
}
