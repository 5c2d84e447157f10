// SPDX-License-Identifier: GPL-2.0

//! Directories: names and their cookies, and the way back from an inode to its names.
//!
//! An entry's cookie is `1 hash:54 seq:8` (63 bits), with the keyed hash of its name; names with
//! the same hash differ in `seq`. The cookie is the entry's key, its place in readdir and the
//! position that NFS and telldir keep: inserting and removing other names moves nothing. `i64::MAX`
//! is never a cookie: it is the end of a directory.
//!
//! Every name has a PARENT item at its inode, with the key `hash:56 seq:8` of directory and cookie.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{item_kind, DirentItem, ParentItem, MAX_ITEM};
use super::hash::siphash;
use super::inode;
use super::node::Key;
use super::subvolume::TOP;
use super::super_block;
use super::tree::{TreeId, View};
use super::tree_write::Txn;
use super::types::{BlockNr, FileType, Ino, InodeId, MAX_INO, MAX_NAME, ROOT_INO};
use super::volume::Volume;
use crate::platform::{Vec, VecExt};
use core::mem::size_of;
use core::ops::{ControlFlow, Deref};
use zerocopy::{FromBytes, IntoBytes};

const COOKIE_BASE: u64 = 1 << 62;
const HASH_MASK: u64 = (1 << 54) - 1;
/// The last of the cookies or PARENT offsets that share a hash.
const SEQ_MASK: u64 = 0xff;
/// The greatest cookie: the position after it is still less than `i64::MAX`.
const MAX_COOKIE: u64 = i64::MAX as u64 - 2;

/// A name of up to 255 bytes, kept where it stands.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    bytes: [u8; MAX_NAME],
}

impl Name {
    /// A copy of `name`, or `None` when it is too long.
    pub fn new(name: &[u8]) -> Option<Self> {
        let len = u8::try_from(name.len()).ok()?;
        let mut bytes = [0; MAX_NAME];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { len, bytes })
    }
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

/// An entry of a directory.
#[derive(Clone, Copy)]
pub struct DirEntry {
    /// Its name.
    pub name: Name,
    /// The inode.
    pub id: InodeId,
    /// The inode's type.
    pub kind: FileType,
    /// Its place: reading goes on at `cookie + 1`.
    pub cookie: u64,
}

/// What a directory says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) cookie: u64,
    pub(super) ino: Ino,
    pub(super) kind: FileType,
}

/// The result of looking for something among items whose keys share a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot<T> {
    /// There it is.
    Found(T),
    /// Not there; it would get this offset.
    Free(u64),
    /// Not there, and all 256 offsets are taken.
    Full,
}

/// Whether `name` can be the name of a file.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > MAX_NAME {
        return Err(Error::NameTooLong);
    }
    if !is_name(name) {
        return Err(Error::Invalid("name"));
    }
    Ok(())
}

fn is_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == 0 || byte == b'/')
}

/// The key of the volume's hashes of names.
pub(super) fn seed<D: BlockDevice>(view: View<'_, D>) -> Result<[u8; 16]> {
    Ok(super_block::parse(&view.state.super_block)?.hash_seed)
}

/// The first of the cookies that `name` may get under the hash key `seed`.
pub(super) fn first_cookie(seed: &[u8; 16], name: &[u8]) -> u64 {
    // The greatest hash would reach i64::MAX.
    let hash = (siphash(seed, name) & HASH_MASK).min(HASH_MASK - 1);
    COOKIE_BASE | (hash << 8)
}

/// The first of the offsets that the PARENT item of an entry may get.
fn first_parent(seed: &[u8; 16], dir: Ino, cookie: u64) -> u64 {
    let item = ParentItem {
        dir: dir.0.into(),
        cookie: cookie.into(),
    };
    siphash(seed, item.as_bytes()) & !SEQ_MASK
}

/// The entry in a DIRENT item, and its name.
pub(super) fn decode<'a>(key: &Key, data: &'a [u8]) -> Result<(Entry, &'a [u8])> {
    let bad = |rule| Error::corrupt(BlockNr(0), rule);
    let (item, name) =
        DirentItem::read_from_prefix(data).map_err(|_| bad("size of a directory entry"))?;
    if item.flags != 0 {
        return Err(bad("flags of a directory entry"));
    }
    let kind = FileType::from_u8(item.kind).ok_or(bad("type of a directory entry"))?;
    let ino = Ino(item.ino.get());
    if !(ROOT_INO..=MAX_INO).contains(&ino) {
        return Err(bad("inode number of a directory entry"));
    }
    if !is_name(name) {
        return Err(bad("name of a directory entry"));
    }
    if !(COOKIE_BASE..=MAX_COOKIE).contains(&key.offset) {
        return Err(bad("cookie of a directory entry"));
    }
    Ok((
        Entry {
            cookie: key.offset,
            ino,
            kind,
        },
        name,
    ))
}

/// The entry in a PARENT item: directory and cookie.
pub(super) fn decode_parent(data: &[u8]) -> Result<(Ino, u64)> {
    let bad = |rule| Error::corrupt(BlockNr(0), rule);
    let item = ParentItem::read_from_bytes(data).map_err(|_| bad("size of a parent item"))?;
    let dir = Ino(item.dir.get());
    if !(ROOT_INO..=MAX_INO).contains(&dir) {
        return Err(bad("directory of a parent item"));
    }
    Ok((dir, item.cookie.get()))
}

/// Looks among the keys `(object, kind, first..=first + 255)` for the item that `found` accepts.
pub(super) fn probe<D: BlockDevice, T>(
    view: View<'_, D>,
    tree: TreeId,
    first: Key,
    mut found: impl FnMut(&Key, &[u8]) -> Result<Option<T>>,
) -> Result<Slot<T>> {
    let last = Key {
        offset: first.offset | SEQ_MASK,
        ..first
    };
    // Some(n): every offset before n is taken.
    let mut free = Some(first.offset);
    let mut gap = None;
    let mut hit = None;
    view.scan(tree, &first, &last, |key, data| {
        if gap.is_none() && free != Some(key.offset) {
            gap = free;
        }
        free = (key.offset < last.offset).then(|| key.offset.saturating_add(1));
        hit = found(key, data)?;
        Ok(if hit.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(match (hit, gap.or(free)) {
        (Some(value), _) => Slot::Found(value),
        (None, Some(offset)) => Slot::Free(offset),
        (None, None) => Slot::Full,
    })
}

/// Looks for `name` in `dir`.
pub(super) fn find<D: BlockDevice>(
    view: View<'_, D>,
    dir: InodeId,
    name: &[u8],
) -> Result<Slot<Entry>> {
    let cookie = first_cookie(&seed(view)?, name);
    let first = Key::new(dir.ino.0, item_kind::DIRENT, cookie);
    probe(view, TreeId::Subvol(dir.subvol), first, |key, data| {
        let (entry, its_name) = decode(key, data)?;
        Ok((its_name == name).then_some(entry))
    })
}

/// The entry `name` of `dir`, or [`Error::NotFound`].
pub(super) fn entry<D: BlockDevice>(view: View<'_, D>, dir: InodeId, name: &[u8]) -> Result<Entry> {
    match find(view, dir, name)? {
        Slot::Found(entry) => Ok(entry),
        _ => Err(Error::NotFound),
    }
}

/// The cookie that a new name of `dir` gets. [`Error::Exists`] when the name is there.
pub(super) fn vacancy<D: BlockDevice>(view: View<'_, D>, dir: InodeId, name: &[u8]) -> Result<u64> {
    match find(view, dir, name)? {
        Slot::Found(_) => Err(Error::Exists),
        Slot::Free(cookie) => Ok(cookie),
        Slot::Full => Err(Error::NoSpace),
    }
}

/// Whether `dir` has no entry.
pub(super) fn is_empty<D: BlockDevice>(view: View<'_, D>, dir: InodeId) -> Result<bool> {
    let mut empty = true;
    let first = Key::new(dir.ino.0, item_kind::DIRENT, 0);
    let last = Key {
        offset: u64::MAX,
        ..first
    };
    view.scan(TreeId::Subvol(dir.subvol), &first, &last, |_, _| {
        empty = false;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(empty)
}

/// Looks for the PARENT item of `ino` that belongs to the entry at `cookie` of `dir`.
pub(super) fn find_parent<D: BlockDevice>(
    view: View<'_, D>,
    dir: InodeId,
    cookie: u64,
    ino: Ino,
) -> Result<Slot<u64>> {
    let offset = first_parent(&seed(view)?, dir.ino, cookie);
    let first = Key::new(ino.0, item_kind::PARENT, offset);
    probe(view, TreeId::Subvol(dir.subvol), first, |key, data| {
        Ok((decode_parent(data)? == (dir.ino, cookie)).then_some(key.offset))
    })
}

/// Writes the entry `name` of `dir` and the PARENT item at its inode. Replaces the entry that has
/// this cookie, but not the PARENT item of its inode: `remove_parent` before.
pub(super) fn put<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    dir: InodeId,
    entry: Entry,
    name: &[u8],
) -> Result<()> {
    let parent = match find_parent(txn.view(), dir, entry.cookie, entry.ino)? {
        Slot::Found(_) => return Err(Error::corrupt(BlockNr(0), "parent item without an entry")),
        Slot::Full => return Err(Error::NoSpace),
        Slot::Free(offset) => offset,
    };
    let tree = TreeId::Subvol(dir.subvol);
    let mut value = [0; size_of::<DirentItem>() + MAX_NAME];
    let item = DirentItem {
        ino: entry.ino.0.into(),
        kind: entry.kind as u8,
        flags: 0,
    };
    let end = size_of::<DirentItem>().saturating_add(name.len());
    let value = value.get_mut(..end).ok_or(Error::NameTooLong)?;
    let (head, tail) = value.split_at_mut(size_of::<DirentItem>());
    head.copy_from_slice(item.as_bytes());
    tail.copy_from_slice(name);
    txn.put(
        tree,
        &Key::new(dir.ino.0, item_kind::DIRENT, entry.cookie),
        value,
    )?;
    let item = ParentItem {
        dir: dir.ino.0.into(),
        cookie: entry.cookie.into(),
    };
    txn.put(
        tree,
        &Key::new(entry.ino.0, item_kind::PARENT, parent),
        item.as_bytes(),
    )
}

const _: () = assert!(size_of::<DirentItem>() + MAX_NAME <= MAX_ITEM);

/// Removes the PARENT item that belongs to `entry` of `dir`.
pub(super) fn remove_parent<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    dir: InodeId,
    entry: Entry,
) -> Result<()> {
    let Slot::Found(offset) = find_parent(txn.view(), dir, entry.cookie, entry.ino)? else {
        return Err(Error::corrupt(BlockNr(0), "entry without a parent item"));
    };
    let key = Key::new(entry.ino.0, item_kind::PARENT, offset);
    txn.remove(TreeId::Subvol(dir.subvol), &key).map(drop)
}

/// Removes `entry` of `dir` and its PARENT item.
pub(super) fn remove<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    dir: InodeId,
    entry: Entry,
) -> Result<()> {
    remove_parent(txn, dir, entry)?;
    let key = Key::new(dir.ino.0, item_kind::DIRENT, entry.cookie);
    txn.remove(TreeId::Subvol(dir.subvol), &key).map(drop)
}

/// The directory that `dir` is in; the root of a subvolume is in itself.
pub(super) fn parent<D: BlockDevice>(view: View<'_, D>, dir: InodeId) -> Result<InodeId> {
    if dir.ino == ROOT_INO {
        return Ok(dir);
    }
    let first = Key::new(dir.ino.0, item_kind::PARENT, 0);
    let last = Key {
        offset: u64::MAX,
        ..first
    };
    let mut found = None;
    view.scan(TreeId::Subvol(dir.subvol), &first, &last, |_, data| {
        found = Some(decode_parent(data)?.0);
        Ok(ControlFlow::Break(()))
    })?;
    found
        .map(|ino| InodeId { ino, ..dir })
        .ok_or(Error::NotFound)
}

impl<D: BlockDevice> Volume<D> {
    /// The inode that `name` of `dir` names; the root of a subvolume that hangs there.
    pub fn lookup(&self, dir: InodeId, name: &[u8]) -> Result<Option<(InodeId, FileType)>> {
        if name.len() > MAX_NAME {
            return Err(Error::NameTooLong);
        }
        let found = self.query(|view| {
            Ok(match find(view, dir, name)? {
                Slot::Found(entry) => Some((view.resolve(dir, &entry)?, entry.kind)),
                _ => None,
            })
        })?;
        if let Some((id, _)) = found.filter(|(id, _)| id.subvol != dir.subvol) {
            self.open_subvolume(id.subvol)?;
        }
        Ok(found)
    }

    /// Appends up to `max` entries of `dir` with a cookie of `from` or more to `entries`, in
    /// ascending order of the cookies. None is added at the end of the directory.
    pub fn readdir(
        &self,
        dir: InodeId,
        from: u64,
        max: usize,
        entries: &mut Vec<DirEntry>,
    ) -> Result<()> {
        let first = Key::new(dir.ino.0, item_kind::DIRENT, from);
        let last = Key {
            offset: u64::MAX,
            ..first
        };
        let mut left = max;
        self.query(|view| {
            view.scan(TreeId::Subvol(dir.subvol), &first, &last, |key, data| {
                let Some(less) = left.checked_sub(1) else {
                    return Ok(ControlFlow::Break(()));
                };
                left = less;
                let (entry, name) = decode(key, data)?;
                let name = Name::new(name).ok_or(Error::NameTooLong)?;
                let id = view.resolve(dir, &entry)?;
                let (kind, cookie) = (entry.kind, entry.cookie);
                entries.try_push(DirEntry {
                    name,
                    id,
                    kind,
                    cookie,
                })?;
                Ok(ControlFlow::Continue(()))
            })
        })
    }

    /// The directory that the directory `dir` is in, for the root of a subvolume the one that the
    /// subvolume hangs in; the top level is in itself. `NotFound` when it was removed.
    pub fn parent(&self, dir: InodeId) -> Result<InodeId> {
        let mut dir = dir;
        if dir.ino == ROOT_INO && dir.subvol != TOP {
            dir = self.query(|view| view.home(dir.subvol)?.ok_or(Error::NotFound))?;
            self.open_subvolume(dir.subvol)?;
        }
        self.query(|view| {
            if inode::file_type(&inode::load(view, dir)?)? != FileType::Directory {
                return Err(Error::NotDirectory);
            }
            parent(view, dir)
        })
    }
}
