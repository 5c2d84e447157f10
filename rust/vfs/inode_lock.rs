// SPDX-License-Identifier: GPL-2.0

//! The two locks that order changes of a file's content.
//!
//! - The inode's lock (`i_rwsem`): held exclusively by writes and by what changes the mapping,
//!   shared by direct I/O.
//! - The mapping's lock (`invalidate_lock`), which ranks below: held shared by whoever brings
//!   pages into the page cache or makes them writable, exclusively by whoever takes blocks away.
//!
//! Rank: freeze protection > inode's lock > `mmap_lock` > mapping's lock > folio locks.

use super::fs_type::FileSystem;
use super::inode::Inode;
use crate::bindings;
use kernel::types::NotThreadSafe;

/// The inode's lock, held exclusively until dropped.
pub struct Exclusive<'a, F: FileSystem>(&'a Inode<F>, NotThreadSafe);

/// The inode's lock, held shared until dropped.
pub struct Shared<'a, F: FileSystem>(&'a Inode<F>, NotThreadSafe);

/// The mapping's lock, held exclusively until dropped.
pub struct MappingExclusive<'a, F: FileSystem>(&'a Inode<F>, NotThreadSafe);

impl<F: FileSystem> Inode<F> {
    fn rwsem(&self) -> *mut bindings::rw_semaphore {
        // SAFETY: The inode is live; only the field's address is taken.
        unsafe { &raw mut (*self.as_ptr()).i_rwsem }
    }

    pub(super) fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: The inode is live, and `i_mapping` of a regular file never changes.
        unsafe { (*self.as_ptr()).i_mapping }
    }

    pub(super) fn invalidate_lock(&self) -> *mut bindings::rw_semaphore {
        // SAFETY: A live inode's mapping is live; only the field's address is taken.
        unsafe { &raw mut (*self.mapping()).invalidate_lock }
    }

    /// Waits for the inode's lock, exclusively.
    pub fn lock_exclusive(&self) -> Exclusive<'_, F> {
        // SAFETY: The semaphore is initialised with the inode.
        unsafe { bindings::down_write(self.rwsem()) };
        Exclusive(self, NotThreadSafe)
    }

    /// Waits for the inode's lock, shared.
    pub fn lock_shared(&self) -> Shared<'_, F> {
        // SAFETY: The semaphore is initialised with the inode.
        unsafe { bindings::down_read(self.rwsem()) };
        Shared(self, NotThreadSafe)
    }

    /// Waits for the mapping's lock, exclusively. The caller holds the inode's lock.
    pub fn lock_mapping(&self) -> MappingExclusive<'_, F> {
        // SAFETY: The semaphore is initialised with the inode.
        unsafe { bindings::down_write(self.invalidate_lock()) };
        MappingExclusive(self, NotThreadSafe)
    }

    /// Waits until no direct I/O to the file is under way. The caller holds the inode's lock, so
    /// that none starts.
    pub fn wait_for_direct_io(&self) {
        // SAFETY: The inode is live.
        unsafe { bindings::inode_dio_wait(self.as_ptr()) }
    }
}

impl<'a, F: FileSystem> Exclusive<'a, F> {
    /// Keeps the lock shared; nobody gets it exclusively in between.
    pub fn downgrade(self) -> Shared<'a, F> {
        let inode = self.0;
        core::mem::forget(self);
        // SAFETY: The guard that was forgotten proves that it is held exclusively.
        unsafe { bindings::downgrade_write(inode.rwsem()) };
        Shared(inode, NotThreadSafe)
    }
}

impl<F: FileSystem> Drop for Exclusive<'_, F> {
    fn drop(&mut self) {
        // SAFETY: The guard's existence proves that it is held exclusively.
        unsafe { bindings::up_write(self.0.rwsem()) }
    }
}

impl<F: FileSystem> Drop for Shared<'_, F> {
    fn drop(&mut self) {
        // SAFETY: The guard's existence proves that it is held shared.
        unsafe { bindings::up_read(self.0.rwsem()) }
    }
}

impl<F: FileSystem> Drop for MappingExclusive<'_, F> {
    fn drop(&mut self) {
        // SAFETY: The guard's existence proves that it is held exclusively.
        unsafe { bindings::up_write(self.0.invalidate_lock()) }
    }
}
