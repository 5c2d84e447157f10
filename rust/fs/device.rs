// SPDX-License-Identifier: GPL-2.0

//! The engine's block device over the kernel's.

use crate::engine::device::{BlockDevice, Write};
use crate::engine::types::{BlockNr, Run};
use crate::engine::{Error, Result};
use crate::platform::Block;
use crate::vfs::block;
use crate::vfs::super_block::Name;
use core::fmt::Display;
use kernel::error::code::ENOMEM;

/// A mounted block device.
pub struct Device {
    device: block::Device,
    name: Name,
}

impl Device {
    /// `device`, called `name` in the log.
    pub fn new(device: block::Device, name: Name) -> Self {
        Self { device, name }
    }
}

/// What went wrong at `block`.
fn failed(error: kernel::error::Error, block: BlockNr) -> Error {
    match error {
        error if error == ENOMEM => Error::NoMemory,
        _ => Error::Io(block),
    }
}

impl BlockDevice for Device {
    fn name(&self) -> &dyn Display {
        &self.name
    }

    fn blocks(&self) -> u64 {
        self.device.blocks()
    }

    fn read(&self, block: BlockNr, data: &mut Block) -> Result<()> {
        self.device
            .read(block.0, data)
            .map_err(|error| failed(error, block))
    }

    fn write(&self, writes: &[Write<'_>]) -> Result<()> {
        let first = writes.first().map_or(BlockNr(0), |write| write.block);
        let writes = writes.iter().map(|write| (write.block.0, write.data));
        self.device
            .write(writes)
            .map_err(|error| failed(error, first))
    }

    fn flush(&self) -> Result<()> {
        self.device
            .flush()
            .map_err(|error| failed(error, BlockNr(0)))
    }

    fn write_durable(&self, write: Write<'_>) -> Result<()> {
        let result = self.device.write_durable(write.block.0, write.data);
        result.map_err(|error| failed(error, write.block))
    }

    fn discard(&self, run: Run) {
        self.device.discard(run.start.0, run.len);
    }
}
