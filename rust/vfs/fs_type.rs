// SPDX-License-Identifier: GPL-2.0

//! Filesystem types: what `mount -t NAME` finds.
//!
//! A filesystem is a type that implements [`FileSystem`]. A `static` [`Type`] of it is registered
//! by the module's init function and unregistered when the [`Registration`] is dropped.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::export::ExportOperations;
use super::fc::{self, ContextOperations};
use super::inode::Cache;
use super::ioctl::IoctlOperations;
use super::super_block::{self, SuperOperations};
use super::xattr::XattrOperations;
use crate::bindings;
use core::marker::PhantomData;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::SetOnce;
use kernel::types::Opaque;

/// A filesystem on a block device: its names, its data types and its operations.
pub trait FileSystem: Sized + Send + Sync + 'static {
    /// The name, as in `/proc/filesystems`.
    const NAME: &'static CStr;
    /// The name of the inode cache, as in `/proc/slabinfo`.
    const CACHE_NAME: &'static CStr;
    /// `f_type` of statfs(2).
    const MAGIC: u64;
    /// Bytes in a block: the page size.
    const BLOCK_SIZE: u32;
    /// The size in bytes that no file may exceed.
    const MAX_FILE_SIZE: u64;

    /// The filesystem's data of a mounted super block.
    type Super: Send + Sync;
    /// The filesystem's data of an inode.
    type Inode: Send + Sync;
    /// What mount options are collected in.
    type Options: Send + 'static;

    /// Mount and remount.
    type Context: ContextOperations<Self>;
    /// Operations of the super block.
    type SuperOps: SuperOperations<Self>;
    /// Extended attributes.
    type Xattrs: XattrOperations<Self>;
    /// File handles.
    type Export: ExportOperations<Self>;
    /// Requests about the whole filesystem.
    type Ioctl: IoctlOperations<Self>;
}

/// A filesystem type, for a `static`: the kernel keeps its address.
///
/// # Invariants
///
/// `cache` is set before the type is registered.
#[repr(C)]
pub struct Type<F: FileSystem> {
    fs: Opaque<bindings::file_system_type>,
    cache: SetOnce<Cache<F>>,
}

// SAFETY: The kernel's list of filesystem types has its own lock; `cache` is `Sync`.
unsafe impl<F: FileSystem> Sync for Type<F> {}

impl<F: FileSystem> Type<F> {
    /// A type that is not registered yet.
    pub const fn new() -> Self {
        let fs = bindings::file_system_type {
            name: kernel::str::as_char_ptr_in_const_context(F::NAME),
            fs_flags: (bindings::FS_REQUIRES_DEV | bindings::FS_ALLOW_IDMAP | bindings::FS_MGTIME)
                as i32,
            init_fs_context: Some(fc::Shims::<F>::init),
            kill_sb: Some(super_block::Shims::<F>::kill),
            owner: super::THIS_MODULE,
            ..pin_init::zeroed()
        };
        Self {
            fs: Opaque::new(fs),
            cache: SetOnce::new(),
        }
    }

    /// Makes the type known to mount(2). To be called once, when the module is loaded.
    pub fn register(&'static self) -> Result<Registration<F>> {
        if self.cache.as_ref().is_some() || !self.cache.populate(Cache::new(F::CACHE_NAME)?) {
            return Err(EBUSY);
        }
        // SAFETY: The type is static and complete.
        let result = to_result(unsafe { bindings::register_filesystem(self.fs.get()) });
        if result.is_err() {
            self.destroy_cache();
        }
        result.map(|()| Registration(self, PhantomData))
    }

    fn destroy_cache(&self) {
        if let Some(cache) = self.cache.as_ref() {
            // SAFETY: The type is not registered and the module is on its way out: no super
            // block is there that could allocate inodes, nor will there be one.
            unsafe { cache.destroy() };
        }
    }

    /// The inode cache of the type of `sb`.
    ///
    /// # Safety
    ///
    /// `sb` is a live super block of `F`.
    pub(super) unsafe fn cache_of<'a>(sb: *mut bindings::super_block) -> Option<&'a Cache<F>> {
        // SAFETY: The type of a super block of `F` is the `fs` of a static `Self`, at its start.
        unsafe { (*(*sb).s_type.cast::<Self>()).cache.as_ref() }
    }
}

/// A registered filesystem type. The module that owns it cannot be unloaded while one is mounted.
pub struct Registration<F: FileSystem>(&'static Type<F>, PhantomData<F>);

impl<F: FileSystem> Drop for Registration<F> {
    fn drop(&mut self) {
        // SAFETY: The type is registered. It fails only for types that are not.
        unsafe { bindings::unregister_filesystem(self.0.fs.get()) };
        self.0.destroy_cache();
    }
}
