// SPDX-License-Identifier: GPL-2.0

//! What a new inode has from the beginning, beside what its maker says: access control lists by
//! the default list of its directory, and labels of security modules. They have to be stored
//! together with the inode, or it would be seen without them after a crash.

use super::acl;
use super::dentry::Dentry;
use super::fs_type::FileSystem;
use super::inode::{Fresh, Inode};
use crate::bindings;
use kernel::error::{from_result, to_result};
use kernel::prelude::*;

/// An extended attribute.
pub struct Xattr {
    /// The name, with its prefix.
    pub name: KVec<u8>,
    /// The value.
    pub value: KVec<u8>,
}

impl Xattr {
    fn new(name: &[&[u8]], value: KVec<u8>) -> Result<Self> {
        let mut whole = KVec::new();
        for part in name {
            whole.extend_from_slice(part, GFP_KERNEL)?;
        }
        Ok(Self { name: whole, value })
    }
}

/// What a new inode has from the beginning.
pub struct Inherited {
    /// Type and permission bits, after default list and umask.
    pub mode: u32,
    /// Attributes to be stored with the inode.
    pub xattrs: KVec<Xattr>,
}

impl<F: FileSystem> Fresh<F> {
    /// What the inode gets in `dir`, as `name` if it has one. [`Self::owner`] comes before.
    pub fn inherit(&self, dir: &Inode<F>, name: Option<&Dentry<F>>) -> Result<Inherited> {
        let mut xattrs = KVec::new();
        self.inherit_lists(dir, &mut xattrs)?;
        self.label(dir, name, &mut xattrs)?;
        // SAFETY: The inode is ours.
        let mode = u32::from(unsafe { (*self.as_ptr()).i_mode });
        Ok(Inherited { mode, xattrs })
    }

    /// Without a default list it is the umask that takes permissions away.
    fn inherit_lists(&self, dir: &Inode<F>, xattrs: &mut KVec<Xattr>) -> Result {
        let (inode, dir) = (self.as_ptr(), dir.as_ptr());
        let (mut default, mut access) = (core::ptr::null_mut(), core::ptr::null_mut());
        // SAFETY: The directory is live, and the inode is ours: the lists, or that there are none,
        // are put into its cache, which owns them.
        unsafe {
            let mode = &raw mut (*inode).i_mode;
            to_result(bindings::posix_acl_create(
                dir,
                mode,
                &mut default,
                &mut access,
            ))?;
            (*inode).i_default_acl = default;
            (*inode).i_acl = access;
        }
        let lists = [
            (bindings::ACL_TYPE_DEFAULT, default),
            (bindings::ACL_TYPE_ACCESS, access),
        ];
        for (kind, list) in lists.into_iter().filter(|(_, list)| !list.is_null()) {
            // SAFETY: The inode, which is ours, has a reference to the list.
            let value = unsafe { acl::encode(list)? };
            let xattr = Xattr::new(&[acl::attribute(kind as c_int)?], value)?;
            xattrs.push(xattr, GFP_KERNEL)?;
        }
        Ok(())
    }

    fn label(&self, dir: &Inode<F>, name: Option<&Dentry<F>>, xattrs: &mut KVec<Xattr>) -> Result {
        let name = name.map_or(core::ptr::null(), Dentry::qstr);
        // SAFETY: The inode is ours, directory and name are live; `collect` is given what it wants.
        to_result(unsafe {
            bindings::oxfs_helper_security_inode_init_security(
                self.as_ptr(),
                dir.as_ptr(),
                name,
                Some(collect),
                core::ptr::from_mut(xattrs).cast(),
            )
        })
    }
}

/// Takes labels over.
///
/// # Safety
///
/// Called by security_inode_init_security() with an array that ends with a null name, and the
/// vector that [`Fresh::label`] gave it.
unsafe extern "C" fn collect(
    _inode: *mut bindings::inode,
    labels: *const bindings::xattr,
    xattrs: *mut c_void,
) -> c_int {
    from_result(|| {
        // SAFETY: By the contract of this function.
        let xattrs = unsafe { &mut *xattrs.cast::<KVec<Xattr>>() };
        let mut label = labels;
        // SAFETY: By the contract of this function; names are strings without the prefix.
        while let Some(entry) = unsafe { label.as_ref() }.filter(|entry| !entry.name.is_null()) {
            // SAFETY: As above; the value has this length, or is null without one.
            let (name, value) = unsafe {
                let name = CStr::from_char_ptr(entry.name).to_bytes();
                let value: &[u8] = match entry.value.is_null() {
                    true => &[],
                    false => core::slice::from_raw_parts(entry.value.cast(), entry.value_len),
                };
                (name, value)
            };
            // EVM signs the inode number as well, which the inode has not got yet. It signs when
            // the first attribute is set, as on filesystems that ask no security module here.
            if name != b"evm" {
                let mut copy = KVec::new();
                copy.extend_from_slice(value, GFP_KERNEL)?;
                xattrs.push(Xattr::new(&[b"security.", name], copy)?, GFP_KERNEL)?;
            }
            // SAFETY: The entry with the null name is still to come.
            label = unsafe { label.add(1) };
        }
        Ok(0)
    })
}
