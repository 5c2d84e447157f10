// SPDX-License-Identifier: GPL-2.0

//! Requests about the whole filesystem: label, FITRIM, shutdown.

use super::{Oxfs, SuperBlock};
use crate::engine::format::GROUP_BLOCKS;
use crate::engine::types::{BLOCK_SHIFT, BLOCK_SIZE};
use crate::vfs::file::OpenFile;
use crate::vfs::ioctl::{IoctlOperations, LABEL_SIZE};
use kernel::prelude::*;
use kernel::uaccess::UserPtr;

/// Answers to ioctls.
pub struct Operations;

#[vtable]
impl IoctlOperations<Oxfs> for Operations {
    fn label(sb: &SuperBlock) -> Result<[u8; LABEL_SIZE]> {
        let mut label = sb.data().volume().label();
        // A label of a foreign program may fill the field.
        label[LABEL_SIZE - 1] = 0;
        Ok(label)
    }

    fn set_label(sb: &SuperBlock, label: &[u8; LABEL_SIZE]) -> Result {
        let done = sb.data().join(sb, |volume| volume.set_label(label))?;
        sb.data()
            .query(|volume| volume.sync_to(done.generation).map(drop))
    }

    fn request(file: &OpenFile<Oxfs>, command: u32, argument: UserPtr) -> Result {
        super::request::request(file, command, argument)
    }

    fn trim(sb: &SuperBlock, start: u64, len: u64, min: u64) -> Result<u64> {
        let volume = sb.data().volume();
        let first = start >> BLOCK_SHIFT;
        if len < BLOCK_SIZE as u64 || first >= volume.statfs().blocks {
            return Err(EINVAL);
        }
        // Groups are trimmed as a whole: those that begin in the range, and the first.
        let end = start
            .saturating_add(len)
            .div_ceil(BLOCK_SIZE as u64)
            .div_ceil(GROUP_BLOCKS);
        let min = min.div_ceil(BLOCK_SIZE as u64);
        let mut trimmed = 0u64;
        for group in first / GROUP_BLOCKS..end.min(volume.groups()) {
            let blocks = sb.data().query(|volume| volume.trim_group(group, min))?;
            trimmed = trimmed.saturating_add(blocks);
            if kernel::current!().signal_pending() {
                return Err(ERESTARTSYS);
            }
        }
        Ok(trimmed.saturating_mul(BLOCK_SIZE as u64))
    }

    fn shut_down(sb: &SuperBlock, commit: bool) -> Result {
        if commit {
            sb.data().commit()?;
        }
        sb.data().volume().shut_down("shut down on request");
        Ok(())
    }
}
