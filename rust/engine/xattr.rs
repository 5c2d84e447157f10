// SPDX-License-Identifier: GPL-2.0

//! Extended attributes: name and value together in one item, so both have to fit there.

use super::device::BlockDevice;
use super::dir::{probe, seed, Slot};
use super::error::{Error, Result};
use super::format::{item_kind, XattrItem, MAX_ITEM};
use super::hash::siphash;
use super::inode::{self, NewXattr};
use super::node::Key;
use super::tree::{TreeId, View};
use super::tree_write::Txn;
use super::types::{Attr, BlockNr, Done, Ino, InodeId, Time};
use super::volume::{Cost, Volume};
use crate::platform::{Vec, VecExt};
use core::mem::size_of;
use core::ops::ControlFlow;
use zerocopy::{FromBytes, IntoBytes};

const HEAD: usize = size_of::<XattrItem>();
/// Longest name, with its prefix, in bytes.
const MAX_XATTR_NAME: usize = 255;
/// Most attributes of a new inode: two access control lists, and what security modules have.
const MAX_NEW: usize = 16;

/// Most bytes of a list of names: XATTR_LIST_MAX.
const MAX_LIST: usize = 65536;

/// What setting an attribute expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// That it is not there: XATTR_CREATE.
    Create,
    /// That it is there: XATTR_REPLACE.
    Replace,
    /// Nothing.
    Any,
}

fn first_key(seed: &[u8; 16], ino: Ino, name: &[u8]) -> Key {
    Key::new(ino.0, item_kind::XATTR, siphash(seed, name) & !0xff)
}

/// Name and value in an XATTR item.
pub(super) fn decode(data: &[u8]) -> Result<(&[u8], &[u8])> {
    let bad = Error::corrupt(BlockNr(0), "size of an extended attribute");
    let (head, rest) = XattrItem::read_from_prefix(data).map_err(|_| bad)?;
    let (name, value) = rest
        .split_at_checked(usize::from(head.name_len))
        .ok_or(bad)?;
    if name.is_empty() || name.contains(&0) || head.reserved != 0 {
        return Err(Error::corrupt(BlockNr(0), "name of an extended attribute"));
    }
    Ok((name, value))
}

/// The key of the attribute `name` of `id`, or the one that it would get.
fn find<D: BlockDevice>(view: View<'_, D>, id: InodeId, name: &[u8]) -> Result<Slot<u64>> {
    let first = first_key(&seed(view)?, id.ino, name);
    probe(view, TreeId::Subvol(id.subvol), first, |key, data| {
        Ok((decode(data)?.0 == name).then_some(key.offset))
    })
}

fn put<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    offset: u64,
    name: &[u8],
    value: &[u8],
) -> Result<()> {
    let mut item: Vec<u8> = VecExt::with_room(MAX_ITEM)?;
    let name_len = u8::try_from(name.len()).map_err(|_| Error::Range)?;
    item.try_extend(
        XattrItem {
            name_len,
            reserved: 0,
        }
        .as_bytes(),
    )?;
    item.try_extend(name)?;
    item.try_extend(value)?;
    let key = Key::new(id.ino.0, item_kind::XATTR, offset);
    txn.put(TreeId::Subvol(id.subvol), &key, &item)
}

fn check(name: &[u8], value: Option<&[u8]>) -> Result<()> {
    if name.is_empty() || name.len() > MAX_XATTR_NAME || name.contains(&0) {
        return Err(Error::Range);
    }
    let len = value.map_or(0, <[u8]>::len);
    if len > MAX_ITEM.saturating_sub(HEAD).saturating_sub(name.len()) {
        // As ext4 says of a value that does not fit.
        return Err(Error::NoSpace);
    }
    Ok(())
}

/// Whether a new inode can have these attributes.
pub(super) fn check_new(xattrs: &[NewXattr<'_>]) -> Result<()> {
    if xattrs.len() > MAX_NEW {
        return Err(Error::NoSpace);
    }
    xattrs
        .iter()
        .try_for_each(|xattr| check(xattr.name, Some(xattr.value)))
}

/// Gives the new inode `id` these attributes, which were checked.
pub(super) fn put_new<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    xattrs: &[NewXattr<'_>],
) -> Result<()> {
    xattrs.iter().try_for_each(|xattr| {
        match find(txn.view(), id, xattr.name)? {
            Slot::Found(offset) | Slot::Free(offset) => {
                put(txn, id, offset, xattr.name, xattr.value)
            }
            // Impossible: a slot is a matter of 256 names.
            Slot::Full => Err(Error::NoSpace),
        }
    })
}

fn set<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    name: &[u8],
    value: Option<&[u8]>,
    mode: XattrMode,
    time: Time,
) -> Result<Attr> {
    let mut attr = inode::load(txn.view(), id)?;
    let slot = find(txn.view(), id, name)?;
    let offset = match (slot, mode) {
        (Slot::Found(_), XattrMode::Create) => return Err(Error::Exists),
        (Slot::Free(_) | Slot::Full, XattrMode::Replace) => return Err(Error::NoAttribute),
        (Slot::Full, _) => return Err(Error::NoSpace),
        (Slot::Free(_), _) if value.is_none() => return Err(Error::NoAttribute),
        (Slot::Found(offset) | Slot::Free(offset), _) => offset,
    };
    inode::changed(&mut attr, time);
    match value {
        Some(value) => put(txn, id, offset, name, value)?,
        None => {
            let key = Key::new(id.ino.0, item_kind::XATTR, offset);
            txn.remove(TreeId::Subvol(id.subvol), &key)?;
        }
    }
    inode::store(txn, id, &attr)?;
    Ok(attr)
}

/// As [`set`] with any mode, together with the permission bits, and an attribute that is removed
/// need not be there.
fn set_acl<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    acl: NewXattr<'_>,
    permissions: Option<u32>,
    time: Time,
) -> Result<Attr> {
    let mut attr = inode::load(txn.view(), id)?;
    let slot = find(txn.view(), id, acl.name)?;
    inode::changed(&mut attr, time);
    inode::set_permissions(&mut attr, permissions);
    match (slot, acl.value.is_empty()) {
        (Slot::Full, false) => return Err(Error::NoSpace),
        (Slot::Found(offset) | Slot::Free(offset), false) => {
            put(txn, id, offset, acl.name, acl.value)?;
        }
        (Slot::Found(offset), true) => {
            let key = Key::new(id.ino.0, item_kind::XATTR, offset);
            txn.remove(TreeId::Subvol(id.subvol), &key)?;
        }
        (Slot::Free(_) | Slot::Full, true) => {}
    }
    inode::store(txn, id, &attr)?;
    Ok(attr)
}

impl<D: BlockDevice> Volume<D> {
    /// Appends the value of the attribute `name` (with its prefix) of `id`.
    pub fn get_xattr(&self, id: InodeId, name: &[u8], value: &mut Vec<u8>) -> Result<()> {
        check(name, None)?;
        self.query(|view| {
            let first = first_key(&seed(view)?, id.ino, name);
            let slot = probe(view, TreeId::Subvol(id.subvol), first, |_, data| {
                let (its_name, its_value) = decode(data)?;
                if its_name != name {
                    return Ok(None);
                }
                value.try_extend(its_value)?;
                Ok(Some(()))
            })?;
            match slot {
                Slot::Found(()) => Ok(()),
                _ => Err(Error::NoAttribute),
            }
        })
    }

    /// Sets the attribute `name` (with its prefix), or removes it when `value` is `None`.
    /// [`Error::NoSpace`] when name and value are larger than an item can be, 1,298 bytes.
    pub fn set_xattr(
        &self,
        id: InodeId,
        name: &[u8],
        value: Option<&[u8]>,
        mode: XattrMode,
        time: Time,
    ) -> Result<Done<Attr>> {
        check(name, value)?;
        self.update(
            if value.is_some() {
                Cost::SMALL
            } else {
                Cost::FREES
            },
            |txn| set(txn, id, name, value, mode, time),
        )
    }

    /// Sets an access control list together with the permission bits that go with it, if those
    /// change: both or none are there after a crash. Without a value it is removed, if it is there.
    /// Errors as of [`Self::set_xattr`].
    pub fn set_acl(
        &self,
        id: InodeId,
        acl: NewXattr<'_>,
        permissions: Option<u32>,
        time: Time,
    ) -> Result<Done<Attr>> {
        check(acl.name, Some(acl.value))?;
        let cost = match acl.value.is_empty() {
            true => Cost::FREES,
            false => Cost::SMALL,
        };
        self.update(cost, |txn| set_acl(txn, id, acl, permissions, time))
    }

    /// Appends the names of all attributes of `id`, each with a zero byte after it; not many more than
    /// the 65,536 bytes that `listxattr` can tell.
    pub fn list_xattr(&self, id: InodeId, names: &mut Vec<u8>) -> Result<()> {
        let first = Key::new(id.ino.0, item_kind::XATTR, 0);
        let last = Key {
            offset: u64::MAX,
            ..first
        };
        self.query(|view| {
            view.scan(TreeId::Subvol(id.subvol), &first, &last, |_, data| {
                names.try_extend(decode(data)?.0)?;
                names.try_push(0)?;
                Ok(match names.len() > MAX_LIST {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                })
            })
        })
    }
}
