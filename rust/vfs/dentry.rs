// SPDX-License-Identifier: GPL-2.0

//! Directory entries as the VFS caches them: a name in a directory, and the inode behind it.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use super::fs_type::FileSystem;
use super::inode::Inode;
use crate::bindings;
use core::marker::PhantomData;
use kernel::types::Opaque;

/// A cached name.
///
/// # Invariants
///
/// Only seen by reference, for the time of an operation that the VFS called with it: its name and
/// parent do not change in that time (the parent's lock is held, or the name is being looked up).
#[repr(transparent)]
pub struct Dentry<F: FileSystem> {
    dentry: Opaque<bindings::dentry>,
    _type: PhantomData<fn() -> F>,
}

impl<F: FileSystem> Dentry<F> {
    /// # Safety
    ///
    /// `dentry` is referenced, of filesystem `F`, and its name stable, for `'a`.
    pub(super) unsafe fn from_ptr<'a>(dentry: *mut bindings::dentry) -> &'a Self {
        // SAFETY: `Self` is transparent over it.
        unsafe { &*dentry.cast_const().cast() }
    }

    /// The name, without a slash or NUL in it.
    pub fn name(&self) -> &[u8] {
        // SAFETY: By the type invariant the name is stable and as long as it says.
        unsafe {
            let name = &(*self.dentry.get()).__bindgen_anon_1.d_name;
            let len = name.__bindgen_anon_1.__bindgen_anon_1.len as usize;
            core::slice::from_raw_parts(name.name, len)
        }
    }

    /// The name as the VFS has it, stable and valid as long as `self`.
    pub(super) fn qstr(&self) -> *const bindings::qstr {
        // SAFETY: The dentry is live.
        unsafe { (&raw const (*self.dentry.get()).__bindgen_anon_1.d_name).cast() }
    }

    /// The inode that the name stands for, if it exists.
    pub fn inode(&self) -> Option<&Inode<F>> {
        // SAFETY: While the parent is locked, a dentry does not change between having an inode
        // and not; and one that has an inode keeps it while it is referenced. Inodes in the dentry
        // cache are ready.
        unsafe {
            let inode = (*self.dentry.get()).d_inode;
            (!inode.is_null()).then(|| Inode::from_ptr(inode))
        }
    }
}
