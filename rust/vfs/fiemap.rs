// SPDX-License-Identifier: GPL-2.0

//! FIEMAP: what a file's blocks are, for user space.
//!
//! C header: [`include/linux/fiemap.h`](srctree/include/linux/fiemap.h)

use super::fs_type::FileSystem;
use super::inode::Inode;
use super::iomap::pos_to_c;
use crate::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The extent is the last of the file.
pub const LAST: u32 = bindings::FIEMAP_EXTENT_LAST;
/// The address is not known.
pub const UNKNOWN: u32 = bindings::FIEMAP_EXTENT_UNKNOWN;
/// Blocks are still to be given.
pub const DELALLOC: u32 = bindings::FIEMAP_EXTENT_DELALLOC;
/// The blocks were never written: they read as zeros.
pub const UNWRITTEN: u32 = bindings::FIEMAP_EXTENT_UNWRITTEN;
/// Others own the blocks too.
pub const SHARED: u32 = bindings::FIEMAP_EXTENT_SHARED;

/// A FIEMAP request with room for its answers.
///
/// # Invariants
///
/// Only seen by reference, for the time of the call that the VFS made with it.
#[repr(transparent)]
pub struct FiemapInfo(Opaque<bindings::fiemap_extent_info>);

/// An extent for user space. Bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reported {
    /// Where in the file.
    pub start: u64,
    /// Where on the device; 0 when unknown.
    pub addr: u64,
    /// How long.
    pub len: u64,
    /// [`LAST`] and the like.
    pub flags: u32,
}

impl FiemapInfo {
    /// # Safety
    ///
    /// `info` is the request of a running FIEMAP call, which lasts for `'a`, and used by nobody
    /// else.
    pub(super) unsafe fn from_ptr<'a>(info: *mut bindings::fiemap_extent_info) -> &'a mut Self {
        // SAFETY: By this function's contract; `Self` is transparent.
        unsafe { &mut *info.cast() }
    }

    /// Checks the request, clips its length to what a file can have and, when it says so, writes
    /// out what is dirty. Returns the length.
    pub fn prepare<F: FileSystem>(
        &mut self,
        inode: &Inode<F>,
        start: u64,
        len: u64,
    ) -> Result<u64> {
        let mut len = len;
        // SAFETY: By the type invariant, and the inode is live.
        to_result(unsafe {
            bindings::fiemap_prep(inode.as_ptr(), self.0.get(), start, &mut len, 0)
        })?;
        pos_to_c(len)?;
        Ok(len)
    }

    /// Answers with one more extent. `Ok(true)`: there is no room for others.
    pub fn add(&mut self, extent: &Reported) -> Result<bool> {
        // SAFETY: By the type invariant.
        let full = unsafe {
            bindings::fiemap_fill_next_extent(
                self.0.get(),
                extent.start,
                extent.addr,
                extent.len,
                extent.flags,
            )
        };
        match full {
            0 => Ok(false),
            1 => Ok(true),
            errno => Err(Error::from_errno(errno)),
        }
    }
}
