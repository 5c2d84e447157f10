// SPDX-License-Identifier: GPL-2.0

//! A volume in a file or on a block device.

use crate::engine::device::{BlockDevice, Write};
use crate::engine::error::{Error, Result};
use crate::engine::types::{BlockNr, Run, BLOCK_SHIFT, BLOCK_SIZE};
use crate::platform::Block;
use rustix::fs::{Advice, FallocateFlags, OFlags};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// How a [`FileDevice`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading, also while it is mounted.
    Read,
    /// For reading, and a block device must not be in use.
    ReadExclusive,
    /// For writing, and a block device must not be in use.
    WriteExclusive,
}

/// A file or a block device as a device of 4096-byte blocks.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    name: String,
    blocks: u64,
    /// Bytes behind the last whole block.
    rest: usize,
    is_block_device: bool,
}

impl FileDevice {
    /// Opens `path`. A block device that is mounted or otherwise held gives `EBUSY` unless `access`
    /// is [`Access::Read`]: the kernel's rule for O_EXCL on a block device (`open(2)`).
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file or a block device",
            ));
        }
        let is_block_device = kind.is_block_device();
        let exclusive = is_block_device && access != Access::Read;
        let flags = if exclusive {
            OFlags::EXCL
        } else {
            OFlags::empty()
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(access == Access::WriteExclusive)
            .custom_flags(flags.bits() as i32)
            .open(path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        if is_block_device && !exclusive {
            // A mounted volume is written past the device's page cache, which may be old.
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        }
        Ok(Self {
            file,
            name: path.display().to_string(),
            blocks: bytes >> BLOCK_SHIFT,
            rest: bytes as usize % BLOCK_SIZE,
            is_block_device,
        })
    }

    /// Clears what is behind the last whole block, which is no part of the device to others here.
    pub fn clear_rest(&self) -> Result<()> {
        let at = self.blocks << BLOCK_SHIFT;
        let zeros = [0; BLOCK_SIZE];
        let done = self.file.write_all_at(&zeros[..self.rest], at);
        done.map_err(|_| Error::Io(BlockNr(self.blocks)))
    }

    fn offset(&self, block: BlockNr) -> Result<u64> {
        if block.0 >= self.blocks {
            return Err(Error::Io(block));
        }
        Ok(block.0 * BLOCK_SIZE as u64)
    }
}

impl BlockDevice for FileDevice {
    fn name(&self) -> &dyn Display {
        &self.name
    }

    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&self, block: BlockNr, data: &mut Block) -> Result<()> {
        let offset = self.offset(block)?;
        self.file
            .read_exact_at(data, offset)
            .map_err(|_| Error::Io(block))
    }

    fn write(&self, writes: &[Write<'_>]) -> Result<()> {
        for write in writes {
            let offset = self.offset(write.block)?;
            self.file
                .write_all_at(write.data, offset)
                .map_err(|_| Error::Io(write.block))?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(|_| Error::Io(BlockNr(0)))
    }

    fn write_durable(&self, write: Write<'_>) -> Result<()> {
        self.write(&[write])?;
        self.flush()
    }

    fn discard(&self, run: Run) {
        // Only a file: a hole there reads as zeros. Block devices are left as they are.
        if !self.is_block_device && run.end() <= self.blocks {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (offset, len) = (run.start.0 << BLOCK_SHIFT, run.len << BLOCK_SHIFT);
            let _ = rustix::fs::fallocate(&self.file, flags, offset, len);
        }
    }
}
