// SPDX-License-Identifier: GPL-2.0

//! Two files locked against each other's changes, for clone and dedupe.

use super::file::OpenFile;
use super::fs_type::FileSystem;
use super::inode::Inode;
use crate::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::NotThreadSafe;

/// Compare, and share only what is equal.
pub const DEDUPE: u32 = bindings::REMAP_FILE_DEDUP;
/// Less than was asked for may be shared.
pub const CAN_SHORTEN: u32 = bindings::REMAP_FILE_CAN_SHORTEN;

/// Both files' inode locks and mapping locks, held exclusively until dropped.
pub struct Pair<'a, F: FileSystem> {
    src: &'a OpenFile<F>,
    dst: &'a OpenFile<F>,
    _task: NotThreadSafe,
}

impl<'a, F: FileSystem> Pair<'a, F> {
    /// Waits for the locks of both; they may be the same file.
    pub fn lock(src: &'a OpenFile<F>, dst: &'a OpenFile<F>) -> Self {
        let (a, b) = (src.inode(), dst.inode());
        // SAFETY: Both inodes are live regular files; the callees put them in order.
        unsafe {
            bindings::lock_two_nondirectories(a.as_ptr(), b.as_ptr());
            bindings::filemap_invalidate_lock_two(a.mapping(), b.mapping());
        }
        Self {
            src,
            dst,
            _task: NotThreadSafe,
        }
    }

    /// The source's inode.
    pub fn src(&self) -> &'a Inode<F> {
        self.src.inode()
    }

    /// The destination's inode.
    pub fn dst(&self) -> &'a Inode<F> {
        self.dst.inode()
    }

    /// Checks the request, waits for direct I/O, writes out both ranges, compares them for
    /// [`DEDUPE`], updates the destination's times otherwise. Returns how much is to be shared;
    /// 0: nothing. Refuses active swapfiles.
    pub fn prepare(&self, from: i64, to: i64, len: i64, flags: u32) -> Result<i64> {
        let mut len = len;
        // SAFETY: Both files are open and locked, as the callee wants it.
        to_result(unsafe {
            bindings::generic_remap_file_range_prep(
                self.src.as_ptr(),
                from,
                self.dst.as_ptr(),
                to,
                &mut len,
                flags,
            )
        })?;
        Ok(len)
    }
}

impl<F: FileSystem> Drop for Pair<'_, F> {
    fn drop(&mut self) {
        let (a, b) = (self.src(), self.dst());
        // SAFETY: The value's existence proves that the locks are held.
        unsafe {
            bindings::filemap_invalidate_unlock_two(a.mapping(), b.mapping());
            bindings::unlock_two_nondirectories(a.as_ptr(), b.as_ptr());
        }
    }
}
