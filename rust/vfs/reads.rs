// SPDX-License-Identifier: GPL-2.0

//! Waiting for reads into the page cache.
//!
//! A folio is in the page cache, and locked, before the filesystem is asked where to read it from,
//! and stays locked until the read has ended. So whoever has changed where file content is, and then
//! sees every folio unlocked once, knows that nobody reads from the old place any more.

use super::fs_type::FileSystem;
use super::inode::Inode;
use super::super_block::SuperBlock;
use crate::bindings;
use kernel::ffi::c_ulong;

impl<F: FileSystem> SuperBlock<F> {
    /// Waits until the reads that are under way have ended. The caller holds no lock of a folio, and
    /// nothing that a read may wait for.
    pub fn wait_for_reads(&self) {
        let mut last = None;
        while let Some(inode) = self.next_inode(last.as_ref(), &|_| true) {
            inode.wait_for_reads(0, u64::MAX);
            last = Some(inode);
        }
    }
}

impl<F: FileSystem> Inode<F> {
    /// The same for the bytes from `start` to `end` (exclusive) of a file.
    pub fn wait_for_reads(&self, start: u64, end: u64) {
        let page = |pos: u64| (pos >> bindings::PAGE_SHIFT) as c_ulong;
        if start < end {
            // SAFETY: The inode is live, and with it its mapping.
            unsafe {
                bindings::oxfs_helper_wait_for_folios(self.mapping(), page(start), page(end - 1))
            };
        }
    }
}
