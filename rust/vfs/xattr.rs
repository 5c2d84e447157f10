// SPDX-License-Identifier: GPL-2.0

//! Extended attributes in the namespaces `user.`, `trusted.` and `security.`; those with access
//! control lists, in `system.`, are only listed here ([`super::acl`]).
//!
//! C header: [`include/linux/xattr.h`](srctree/include/linux/xattr.h)

use super::acl;
use super::dentry::Dentry;
use super::fs_type::FileSystem;
use super::inode::Inode;
use crate::bindings;
use core::marker::PhantomData;
use kernel::error::from_result;
use kernel::prelude::*;

/// Whether an attribute must, must not, or may exist before it is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// It may exist.
    Any,
    /// It must not exist.
    Create,
    /// It must exist.
    Replace,
}

/// Extended attributes. Names are whole, with the namespace.
#[vtable]
pub trait XattrOperations<F: FileSystem> {
    /// Appends the value of `name`. `ENODATA` when there is none.
    fn get(inode: &Inode<F>, name: &[u8], value: &mut KVVec<u8>) -> Result;

    /// Sets, or removes when `value` is `None`. The inode is locked.
    fn set(inode: &Inode<F>, name: &[u8], value: Option<&[u8]>, mode: XattrMode) -> Result;

    /// Appends all names, each with a NUL after it.
    fn list(inode: &Inode<F>, names: &mut KVVec<u8>) -> Result;
}

/// The table of `F`, for `s_xattr`.
pub(super) const fn table<F: FileSystem>() -> *const *const bindings::xattr_handler {
    (&raw const Shims::<F>::TABLE.0).cast()
}

/// The functions of `struct xattr_handler` for filesystem `F`.
struct Shims<F: FileSystem>(PhantomData<F>);

/// A list of handlers that ends with null.
struct Handlers([*const bindings::xattr_handler; 4]);

// SAFETY: The handlers are constants.
unsafe impl Sync for Handlers {}

impl<F: FileSystem> Shims<F> {
    const USER: bindings::xattr_handler = Self::handler(c"user.");
    const TRUSTED: bindings::xattr_handler = Self::handler(c"trusted.");
    const SECURITY: bindings::xattr_handler = Self::handler(c"security.");

    const TABLE: &'static Handlers = &Handlers([
        &Self::USER,
        &Self::TRUSTED,
        &Self::SECURITY,
        core::ptr::null(),
    ]);

    const fn handler(prefix: &'static CStr) -> bindings::xattr_handler {
        bindings::xattr_handler {
            prefix: kernel::str::as_char_ptr_in_const_context(prefix),
            get: Some(Self::get),
            set: Some(Self::set),
            ..pin_init::zeroed()
        }
    }

    /// # Safety
    ///
    /// Called by the VFS with a ready inode, the part of the name after the prefix, and a buffer
    /// of `size` bytes, which may be null when `size` is 0.
    unsafe extern "C" fn get(
        handler: *const bindings::xattr_handler,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const c_char,
        buffer: *mut c_void,
        size: usize,
    ) -> c_int {
        from_result(|| {
            let mut value = KVVec::new();
            // SAFETY: By the contract of this function; the name is part of a whole one.
            unsafe {
                let name = CStr::from_char_ptr(bindings::xattr_full_name(handler, name));
                F::Xattrs::get(Inode::from_ptr(inode), name.to_bytes(), &mut value)?;
                copy_out(&value, buffer.cast(), size)
            }
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with a locked inode, the part of the name after the prefix, and a value
    /// of `size` bytes, or null to remove it.
    unsafe extern "C" fn set(
        handler: *const bindings::xattr_handler,
        _idmap: *mut bindings::mnt_idmap,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const c_char,
        value: *const c_void,
        size: usize,
        flags: c_int,
    ) -> c_int {
        from_result(|| {
            let mode = match flags as u32 {
                bindings::XATTR_CREATE => XattrMode::Create,
                bindings::XATTR_REPLACE => XattrMode::Replace,
                _ => XattrMode::Any,
            };
            // SAFETY: By the contract of this function.
            unsafe {
                let name = CStr::from_char_ptr(bindings::xattr_full_name(handler, name));
                let value = (!value.is_null())
                    .then(|| core::slice::from_raw_parts(value.cast::<u8>(), size));
                F::Xattrs::set(Inode::from_ptr(inode), name.to_bytes(), value, mode)?;
            }
            Ok(0)
        })
    }
}

/// Copies `value` to the buffer if there is one, and returns its length.
///
/// # Safety
///
/// `buffer` has `size` bytes, or `size` is 0.
unsafe fn copy_out(value: &[u8], buffer: *mut u8, size: usize) -> Result<c_int> {
    if size != 0 {
        if value.len() > size {
            return Err(ERANGE);
        }
        // SAFETY: The buffer is large enough, and not the value's.
        unsafe { core::ptr::copy_nonoverlapping(value.as_ptr(), buffer, value.len()) };
    }
    Ok(c_int::try_from(value.len())?)
}

/// `listxattr` of the inode operations.
///
/// # Safety
///
/// Called by the VFS with a referenced, positive dentry of `F`, and a buffer of `size` bytes,
/// which may be null when `size` is 0.
pub(super) unsafe extern "C" fn list<F: FileSystem>(
    dentry: *mut bindings::dentry,
    buffer: *mut c_char,
    size: usize,
) -> isize {
    let result = from_result(|| {
        // SAFETY: By the contract of this function.
        let inode = unsafe { Dentry::<F>::from_ptr(dentry) }
            .inode()
            .ok_or(ENOENT)?;
        let mut all = KVVec::new();
        F::Xattrs::list(inode, &mut all)?;
        // SAFETY: It looks at the current task only; the namespace is always there.
        let trusted = unsafe {
            bindings::ns_capable_noaudit(
                &raw mut bindings::init_user_ns,
                bindings::CAP_SYS_ADMIN as c_int,
            )
        };
        let mut shown = KVVec::new();
        for name in all.split_inclusive(|byte| *byte == 0) {
            let visible = name.starts_with(b"user.")
                || name.starts_with(acl::PREFIX)
                || name.starts_with(b"security.")
                || (trusted && name.starts_with(b"trusted."));
            if visible {
                shown.extend_from_slice(name, GFP_KERNEL)?;
            }
        }
        // SAFETY: By the contract of this function.
        unsafe { copy_out(&shown, buffer.cast(), size) }
    });
    result as isize
}
