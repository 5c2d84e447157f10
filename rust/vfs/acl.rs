// SPDX-License-Identifier: GPL-2.0

//! POSIX access control lists. The VFS interprets and caches them; a filesystem stores them as the
//! extended attributes that they are to programs.
//!
//! C headers: [`include/linux/posix_acl.h`](srctree/include/linux/posix_acl.h),
//! [`include/linux/posix_acl_xattr.h`](srctree/include/linux/posix_acl_xattr.h)

use super::dentry::Dentry;
use super::fs_type::FileSystem;
use super::inode::Inode;
use super::inode_ops::InodeOperations;
use super::log;
use super::xattr::XattrOperations;
use crate::bindings;
use kernel::error::{from_err_ptr, from_result, to_result};
use kernel::prelude::*;

/// What the names of attributes with lists begin with.
pub(super) const PREFIX: &[u8] = b"system.posix_acl_";

/// The attribute with a list of type `ACL_TYPE_*`.
pub(super) fn attribute(kind: c_int) -> Result<&'static [u8]> {
    match kind as u32 {
        bindings::ACL_TYPE_ACCESS => Ok(b"system.posix_acl_access"),
        bindings::ACL_TYPE_DEFAULT => Ok(b"system.posix_acl_default"),
        _ => Err(EINVAL),
    }
}

/// A list as an attribute's value.
///
/// # Safety
///
/// `acl` is a list that does not change during the call.
pub(super) unsafe fn encode(acl: *const bindings::posix_acl) -> Result<KVec<u8>> {
    let mut size = 0;
    // SAFETY: By the contract of this function; the namespace is always there. The memory is from
    // kmalloc(), `size` bytes of it, and ours.
    unsafe {
        let user_ns = &raw mut bindings::init_user_ns;
        let value = bindings::posix_acl_to_xattr(user_ns, acl, &mut size, bindings::GFP_KERNEL);
        if value.is_null() {
            return Err(ENOMEM);
        }
        Ok(KVec::from_raw_parts(value.cast(), size, size))
    }
}

/// The list of type `kind`, with a reference to it, or null.
fn load<F: FileSystem>(inode: &Inode<F>, kind: c_int) -> Result<*mut bindings::posix_acl> {
    let mut value = KVVec::new();
    match F::Xattrs::get(inode, attribute(kind)?, &mut value) {
        Err(error) if error == ENODATA => return Ok(core::ptr::null_mut()),
        other => other?,
    }
    // SAFETY: The function checks the value; the namespace is always there.
    let acl = unsafe {
        let user_ns = &raw mut bindings::init_user_ns;
        bindings::posix_acl_from_xattr(user_ns, value.as_ptr().cast(), value.len())
    };
    from_err_ptr(acl).map_err(|error| {
        if error == ENOMEM {
            return error;
        }
        let (device, ino) = (inode.super_block().id(), inode.ino());
        log::damage(
            &device,
            format_args!("inode {ino} has a damaged access control list"),
        );
        EUCLEAN
    })
}

/// `get_inode_acl` of the inode operations.
///
/// # Safety
///
/// Called by the VFS with a ready and referenced inode of `F`, except in an RCU path walk.
pub(super) unsafe extern "C" fn get<F: FileSystem>(
    inode: *mut bindings::inode,
    kind: c_int,
    rcu: bool,
) -> *mut bindings::posix_acl {
    if rcu {
        return ECHILD.to_ptr();
    }
    // SAFETY: By the contract of this function.
    load::<F>(unsafe { Inode::from_ptr(inode) }, kind).unwrap_or_else(|error| error.to_ptr())
}

/// `set_acl` of the inode operations.
///
/// # Safety
///
/// Called by the VFS with a referenced, positive dentry of `F` whose inode is locked, and a list
/// that is valid for the call, or null.
pub(super) unsafe extern "C" fn set<F: FileSystem, T: InodeOperations<F>>(
    map: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    acl: *mut bindings::posix_acl,
    kind: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: By the contract of this function.
        let dentry = unsafe { Dentry::<F>::from_ptr(dentry) };
        let inode = dentry.inode().ok_or(ENOENT)?;
        let (mut acl, mut permissions) = (acl, None);
        if kind as u32 == bindings::ACL_TYPE_ACCESS && !acl.is_null() {
            let mut mode = 0;
            // SAFETY: By the contract of this function. A list that says no more than permission
            // bits becomes null; the caller keeps its reference.
            to_result(unsafe {
                bindings::posix_acl_update_mode(map, inode.as_ptr(), &mut mode, &mut acl)
            })?;
            permissions = Some(u32::from(mode) & 0o7777);
        }
        let value = match acl.is_null() {
            true => KVec::new(),
            // SAFETY: By the contract of this function.
            false => unsafe { encode(acl)? },
        };
        T::set_acl(inode, attribute(kind)?, &value, permissions)?;
        // SAFETY: The inode is live; the function takes a reference of its own.
        unsafe { bindings::set_cached_acl(inode.as_ptr(), kind, acl) };
        Ok(0)
    })
}
