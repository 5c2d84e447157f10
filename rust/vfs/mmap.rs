// SPDX-License-Identifier: GPL-2.0

//! Memory mappings of files.

use super::fs_type::FileSystem;
use super::inode::Inode;
use super::iomap::{Mapper, Tables};
use crate::bindings;
use core::marker::PhantomData;
use core::ptr;
use kernel::prelude::*;

/// A filesystem's side of memory mappings.
#[vtable]
pub trait Mmap<F: FileSystem>: Mapper<F> {
    /// Whether a page of the file may become writable. Called with the mapping's lock shared:
    /// whoever holds it exclusively decides for all later faults.
    fn may_write(inode: &Inode<F>) -> bool;

    /// A page could not become writable, perhaps for lack of space: whether it is worth another
    /// try now. Called without the mapping's lock.
    fn make_room(inode: &Inode<F>) -> bool;
}

/// The mapping's lock, held shared.
struct FaultLock<'a, F: FileSystem>(&'a Inode<F>);

impl<'a, F: FileSystem> FaultLock<'a, F> {
    fn new(inode: &'a Inode<F>) -> Self {
        // SAFETY: The semaphore is initialised with the inode.
        unsafe { bindings::down_read(inode.invalidate_lock()) };
        Self(inode)
    }
}

impl<F: FileSystem> Drop for FaultLock<'_, F> {
    fn drop(&mut self) {
        // SAFETY: The guard's existence proves that it is held shared.
        unsafe { bindings::up_read(self.0.invalidate_lock()) }
    }
}

pub(super) struct Shims<F, T>(PhantomData<(F, T)>);

impl<F: FileSystem, T: Mmap<F>> Shims<F, T> {
    const VM_OPS: &'static bindings::vm_operations_struct = &bindings::vm_operations_struct {
        fault: Some(bindings::filemap_fault),
        map_pages: Some(bindings::filemap_map_pages),
        page_mkwrite: Some(Self::page_mkwrite),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the memory manager only, with a mapping of a file of `F` that is being set up.
    pub(super) unsafe extern "C" fn prepare(desc: *mut bindings::vm_area_desc) -> i32 {
        // SAFETY: By this function's contract.
        unsafe {
            bindings::oxfs_helper_file_accessed((*desc).file);
            (*desc).vm_ops = Self::VM_OPS;
        }
        0
    }

    /// # Safety
    ///
    /// Called by the memory manager only, for a page of a shared mapping of a file of `F`; the
    /// `mmap_lock` or the mapping's own lock is held, the page is referenced.
    unsafe extern "C" fn page_mkwrite(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: By this function's contract.
        let file = unsafe { (*(*vmf).__bindgen_anon_1.vma).vm_file };
        // SAFETY: A mapping keeps its file open.
        let inode = unsafe { Inode::<F>::from_file(file) };
        let sb = inode.super_block().as_ptr();
        // SAFETY: The super block is live.
        unsafe { bindings::oxfs_helper_sb_start_pagefault(sb) };
        // SAFETY: The file is open. Its error is of no concern to a store.
        unsafe { bindings::file_update_time(file) };
        // SAFETY: By this function's contract.
        let mut result = unsafe { Self::make_writable(inode, vmf) };
        if result == bindings::OXFS_VM_FAULT_SIGBUS && T::make_room(inode) {
            // SAFETY: By this function's contract; the page is not locked after a failure.
            result = unsafe { Self::make_writable(inode, vmf) };
        }
        // SAFETY: Started above.
        unsafe { bindings::oxfs_helper_sb_end_pagefault(sb) };
        result
    }

    /// # Safety
    ///
    /// `vmf` is that of a call of `page_mkwrite` for a file of `inode`.
    unsafe fn make_writable(
        inode: &Inode<F>,
        vmf: *mut bindings::vm_fault,
    ) -> bindings::vm_fault_t {
        let _lock = FaultLock::new(inode);
        if !T::may_write(inode) {
            return bindings::OXFS_VM_FAULT_SIGBUS;
        }
        // SAFETY: `vmf` is valid, and the table is that of the file's filesystem.
        unsafe { bindings::iomap_page_mkwrite(vmf, Tables::<F, T>::OPS, ptr::null_mut()) }
    }
}
