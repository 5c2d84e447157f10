// SPDX-License-Identifier: GPL-2.0

//! The one thing below the engine: a block device. The kernel's is a disk, the tools' a file,
//! the tests' a simulated disk that loses power.

use super::error::Result;
use super::types::{BlockNr, Run};
use crate::platform::Block;
use core::fmt::Display;

/// A block to be written.
pub struct Write<'a> {
    /// Where.
    pub block: BlockNr,
    /// What.
    pub data: &'a Block,
}

/// A device of 4096-byte blocks with a volatile write cache.
pub trait BlockDevice: Send + Sync {
    /// The device's name for log lines.
    fn name(&self) -> &dyn Display;

    /// Size in blocks, rounded down.
    fn blocks(&self) -> u64;

    /// Reads one block. `Error::Io` names the block that failed.
    fn read(&self, block: BlockNr, data: &mut Block) -> Result<()>;

    /// Writes all of `writes`, in any order, and waits. They are durable only after a `flush`.
    fn write(&self, writes: &[Write<'_>]) -> Result<()>;

    /// Makes everything that was written before durable.
    fn flush(&self) -> Result<()>;

    /// Writes one block so that it is durable on return (FUA). Of what was written before it says
    /// nothing: that takes a `flush`.
    fn write_durable(&self, write: Write<'_>) -> Result<()>;

    /// Tells the device that the blocks' content is not needed any more. Advice: no error.
    fn discard(&self, run: Run);
}
