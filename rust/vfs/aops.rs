// SPDX-License-Identifier: GPL-2.0

//! The page cache of regular files: the address space operations table, and what a filesystem
//! does to the page cache.
//!
//! C header: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use super::file::OpenFile;
use super::fs_type::FileSystem;
use super::inode::{Inode, MappingOps};
use super::iomap::{pos_to_c, Mapper, Tables};
use super::swap::SwapInfo;
use super::writeback::{write_pages, Writeback};
use crate::bindings;
use core::marker::PhantomData;
use core::ptr;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;

/// What a regular file's page cache needs from a filesystem.
#[vtable]
pub trait MappingOperations<F: FileSystem>: Mapper<F> + Writeback<F> {
    /// Makes the file ready for `info.max_pages()` pages of swap and describes its extents.
    /// Returns how many extents there are, and the distance on the device that they cover, in
    /// pages.
    ///
    /// The inode's lock is held exclusively, and nothing else: no freeze protection.
    fn swap_activate(info: &mut SwapInfo, file: &OpenFile<F>) -> Result<(u32, u64)>;

    /// The file is not used for swapping any more, or activation failed after
    /// [`Self::swap_activate`]. No locks are held.
    fn swap_deactivate(file: &OpenFile<F>);
}

/// The address space operations table for `T`.
pub const fn table<F: FileSystem, T: MappingOperations<F>>() -> MappingOps<F> {
    // SAFETY: The shims below are written for the page caches of files of `F`.
    unsafe { MappingOps::new(Shims::<F, T>::TABLE) }
}

struct Shims<F, T>(PhantomData<(F, T)>);

impl<F: FileSystem, T: MappingOperations<F>> Shims<F, T> {
    const TABLE: &'static bindings::address_space_operations =
        &bindings::address_space_operations {
            read_folio: Some(Self::read_folio),
            readahead: Some(Self::readahead),
            writepages: Some(Self::writepages),
            dirty_folio: Some(bindings::iomap_dirty_folio),
            release_folio: Some(bindings::iomap_release_folio),
            invalidate_folio: Some(bindings::iomap_invalidate_folio),
            migrate_folio: Some(bindings::filemap_migrate_folio),
            is_partially_uptodate: Some(bindings::iomap_is_partially_uptodate),
            error_remove_folio: Some(bindings::generic_error_remove_folio),
            swap_activate: Some(Self::swap_activate),
            swap_deactivate: Some(Self::swap_deactivate),
            ..pin_init::zeroed()
        };

    /// # Safety
    ///
    /// Called by the page cache only, with a locked folio of a file of `F`, which the callee
    /// unlocks.
    unsafe extern "C" fn read_folio(
        _file: *mut bindings::file,
        folio: *mut bindings::folio,
    ) -> i32 {
        let mut context = bindings::iomap_read_folio_ctx {
            ops: &raw const bindings::iomap_bio_read_ops,
            cur_folio: folio,
            ..pin_init::zeroed()
        };
        // SAFETY: By this function's contract.
        unsafe { bindings::iomap_read_folio(Tables::<F, T>::OPS, &mut context, ptr::null_mut()) };
        0
    }

    /// # Safety
    ///
    /// Called by the page cache only, for a file of `F`.
    unsafe extern "C" fn readahead(rac: *mut bindings::readahead_control) {
        let mut context = bindings::iomap_read_folio_ctx {
            ops: &raw const bindings::iomap_bio_read_ops,
            rac,
            ..pin_init::zeroed()
        };
        // SAFETY: By this function's contract.
        unsafe { bindings::iomap_readahead(Tables::<F, T>::OPS, &mut context, ptr::null_mut()) }
    }

    /// # Safety
    ///
    /// Called by writeback only, for a file of `F`.
    unsafe extern "C" fn writepages(
        mapping: *mut bindings::address_space,
        wbc: *mut bindings::writeback_control,
    ) -> i32 {
        // SAFETY: By this function's contract.
        unsafe { write_pages::<F, T>(mapping, wbc) }
    }

    /// # Safety
    ///
    /// Called by swapon(2) only, with the lock of the file's inode held exclusively.
    unsafe extern "C" fn swap_activate(
        sis: *mut bindings::swap_info_struct,
        file: *mut bindings::file,
        span: *mut bindings::sector_t,
    ) -> i32 {
        // SAFETY: By this function's contract; nobody else sees `sis` yet.
        let (info, file) = unsafe { (SwapInfo::from_ptr(sis), OpenFile::<F>::from_ptr(file)) };
        match T::swap_activate(info, file) {
            Ok((extents, pages)) => {
                // SAFETY: By this function's contract.
                unsafe { *span = pages };
                i32::try_from(extents).unwrap_or(i32::MAX)
            }
            Err(e) => e.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the swap code only, for a file that was activated.
    unsafe extern "C" fn swap_deactivate(file: *mut bindings::file) {
        // SAFETY: By this function's contract.
        T::swap_deactivate(unsafe { OpenFile::<F>::from_ptr(file) })
    }
}

impl<F: FileSystem> Inode<F> {
    /// Writes out what is dirty in the bytes from `start` to `end` (inclusive) and waits.
    pub fn write_range(&self, start: u64, end: u64) -> Result {
        let end = i64::try_from(end).unwrap_or(i64::MAX);
        // SAFETY: The inode and its mapping are live.
        to_result(unsafe {
            bindings::filemap_write_and_wait_range(self.mapping(), pos_to_c(start)?, end)
        })
    }

    /// Drops the pages of the bytes from `start` to `end` (exclusive), waiting for their
    /// writeback; the rest of pages that are only partly inside is zeroed there. The caller holds
    /// the mapping's lock exclusively.
    pub fn drop_cached(&self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let start = i64::try_from(start).unwrap_or(i64::MAX);
        let last = i64::try_from(end - 1).unwrap_or(i64::MAX);
        // SAFETY: The inode is live.
        unsafe { bindings::truncate_pagecache_range(self.as_ptr(), start, last) }
    }

    /// Sets the size, and drops the pages beyond it. The caller holds both locks exclusively.
    pub fn truncate_cached(&self, size: u64) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        // SAFETY: The inode is live.
        unsafe { bindings::truncate_setsize(self.as_ptr(), size) }
    }

    /// After the size grew from `from` to `to`: makes the next store to the page of the old end
    /// fault, so that its block is asked for.
    pub fn size_extended(&self, from: u64, to: u64) {
        let (from, to) = (
            i64::try_from(from).unwrap_or(i64::MAX),
            i64::try_from(to).unwrap_or(i64::MAX),
        );
        // SAFETY: The inode is live.
        unsafe { bindings::pagecache_isize_extended(self.as_ptr(), from, to) }
    }

    /// Whether a write has no privileges (set-user-id, capabilities) to take away.
    pub fn has_no_privileges(&self) -> bool {
        self.flags() & bindings::S_NOSEC != 0
    }

    /// Checks a larger size against the limits of the caller and the filesystem.
    pub fn check_new_size(&self, size: u64) -> Result {
        // SAFETY: The inode is live.
        to_result(unsafe { bindings::inode_newsize_ok(self.as_ptr(), pos_to_c(size)?) })
    }

    /// Copies the start of the file, as much as fits in a page, through the page cache.
    pub fn read_first_page(&self, file: &OpenFile<F>, data: &mut [u8; 4096]) -> Result {
        // SAFETY: The file is open, and its mapping can read.
        let folio = from_err_ptr(unsafe {
            bindings::oxfs_helper_read_mapping_folio(self.mapping(), 0, file.as_ptr())
        })?;
        // SAFETY: The folio is referenced and up to date, and at least a page long.
        unsafe {
            bindings::oxfs_helper_memcpy_from_folio(data.as_mut_ptr().cast(), folio, 0, data.len());
            bindings::oxfs_helper_folio_put(folio);
        }
        Ok(())
    }
}
