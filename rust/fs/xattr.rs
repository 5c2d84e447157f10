// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use super::inode::apply;
use super::namei::stamped;
use super::subvolume::check_writable;
use super::{Inode, InodeExt, Oxfs};
use crate::engine::inode::NewXattr;
use crate::engine::xattr::XattrMode as Mode;
use crate::vfs::xattr::{XattrMode, XattrOperations};
use kernel::prelude::*;

/// Stores an access control list, or takes it away when it is empty, with the permission bits.
pub fn set_acl(inode: &Inode, name: &[u8], acl: &[u8], permissions: Option<u32>) -> Result {
    check_writable(inode)?;
    let acl = NewXattr { name, value: acl };
    let attr = stamped([Some(inode)], |time| {
        inode.join(|volume, id| volume.set_acl(id, acl, permissions, time))
    })?;
    apply(inode, &attr);
    Ok(())
}

/// Operations on extended attributes.
pub struct Operations;

#[vtable]
impl XattrOperations<Oxfs> for Operations {
    fn get(inode: &Inode, name: &[u8], value: &mut KVVec<u8>) -> Result {
        inode.query(|volume, id| volume.get_xattr(id, name, value))
    }

    fn set(inode: &Inode, name: &[u8], value: Option<&[u8]>, mode: XattrMode) -> Result {
        let mode = match mode {
            XattrMode::Any => Mode::Any,
            XattrMode::Create => Mode::Create,
            XattrMode::Replace => Mode::Replace,
        };
        check_writable(inode)?;
        let attr = stamped([Some(inode)], |time| {
            inode.join(|volume, id| volume.set_xattr(id, name, value, mode, time))
        })?;
        apply(inode, &attr);
        Ok(())
    }

    fn list(inode: &Inode, names: &mut KVVec<u8>) -> Result {
        inode.query(|volume, id| volume.list_xattr(id, names))
    }
}
