// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use super::attr::to_engine;
use super::inode::apply;
use super::subvolume::check_writable;
use super::{Inode, InodeExt, Oxfs};
use crate::engine::xattr::XattrMode as Mode;
use crate::vfs::xattr::{XattrMode, XattrOperations};
use kernel::prelude::*;

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
        let before = inode.times();
        let time = to_engine(inode.touch());
        let attr = inode
            .join(|volume, id| volume.set_xattr(id, name, value, mode, time))
            .inspect_err(|_| inode.set_times(&before))?;
        apply(inode, &attr);
        Ok(())
    }

    fn list(inode: &Inode, names: &mut KVVec<u8>) -> Result {
        inode.query(|volume, id| volume.list_xattr(id, names))
    }
}
