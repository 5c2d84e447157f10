// SPDX-License-Identifier: GPL-2.0

//! Making and removing names. (`rename` has a file of its own.)
//!
//! Each operation looks at everything first and changes the tree after: what can be refused leaves
//! the transaction as it was.

use super::device::BlockDevice;
use super::dir::{self, Entry};
use super::error::{Error, Result};
use super::inode::{self, NewInode};
use super::subvolume::root_of;
use super::tree::View;
use super::tree_write::Txn;
use super::types::{Attr, BlockNr, Done, FileType, InodeId, SubvolId, Time, MAX_LINKS};
use super::volume::{Cost, Volume};
use super::{orphan, symlink, xattr};

/// What `create` made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// The new inode.
    pub id: InodeId,
    /// Its attributes.
    pub attr: Attr,
    /// Those of the directory.
    pub dir: Attr,
}

/// What `link` changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linked {
    /// The attributes of the inode with one more name.
    pub target: Attr,
    /// Those of the directory.
    pub dir: Attr,
}

/// What `unlink` or `rmdir` changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unlinked {
    /// The inode with one name less. If it has none left it is an orphan: `finish_orphan` once it
    /// is not open any more.
    pub id: InodeId,
    /// Its attributes.
    pub target: Attr,
    /// Those of the directory.
    pub dir: Attr,
}

/// Making a name touches two inodes, entry, parent, orphan, four pieces of a symbolic link's
/// target, and the attributes.
fn cost_of(new: &NewInode<'_>) -> Cost {
    Cost::takes(9_usize.saturating_add(new.xattrs.len()))
}
/// Another name touches two inodes, entry, parent and orphan.
const LINK: Cost = Cost::takes(5);
/// Removing one touches two inodes, entry, parent and orphan.
const REMOVE: Cost = Cost::frees(5);

/// The attributes of the directory `dir`, whose names can change.
pub(super) fn live_dir<D: BlockDevice>(view: View<'_, D>, dir: InodeId) -> Result<Attr> {
    view.check_changeable(dir.subvol)?;
    let attr = inode::load(view, dir)?;
    match inode::file_type(&attr)? {
        FileType::Directory if attr.nlink != 0 => Ok(attr),
        FileType::Directory => Err(Error::NotFound),
        _ => Err(Error::NotDirectory),
    }
}

/// The inode of an entry of `dir`, which must be of the entry's type and have a name.
pub(super) fn target<D: BlockDevice>(
    view: View<'_, D>,
    dir: InodeId,
    entry: Entry,
) -> Result<(InodeId, Attr)> {
    let id = InodeId {
        ino: entry.ino,
        ..dir
    };
    let bad = |rule| Error::corrupt(BlockNr(0), rule);
    let attr = match inode::load(view, id) {
        Err(Error::NotFound) => return Err(bad("entry without an inode")),
        other => other?,
    };
    if inode::file_type(&attr)? != entry.kind {
        return Err(bad("entry with another type than its inode"));
    }
    if attr.nlink == 0 {
        return Err(bad("entry of an inode with link count 0"));
    }
    Ok((id, attr))
}

/// Adds to or takes from the link count and the size of a directory.
pub(super) fn adjust_dir(attr: &mut Attr, links: i32, size: i64) -> Result<()> {
    let bad = |rule| Error::corrupt(BlockNr(0), rule);
    if links > 0 && attr.nlink.saturating_add(links.unsigned_abs()) > MAX_LINKS {
        return Err(Error::TooManyLinks);
    }
    let nlink = attr.nlink.checked_add_signed(links).filter(|&n| n >= 2);
    attr.nlink = nlink.ok_or(bad("link count of a directory"))?;
    let size = attr
        .size
        .checked_add_signed(size)
        .filter(|&n| n <= i64::MAX as u64);
    attr.size = size.ok_or(bad("size of a directory"))?;
    Ok(())
}

/// Takes one name from an inode: a directory has only that one.
pub(super) fn drop_link(attr: &mut Attr, kind: FileType, time: Time) {
    attr.nlink = match kind {
        FileType::Directory => 0,
        _ => attr.nlink.saturating_sub(1),
    };
    inode::changed(attr, time);
}

/// Writes an inode that lost a name; one that has none left becomes an orphan.
pub(super) fn store_unlinked<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    attr: &Attr,
) -> Result<()> {
    inode::store(txn, id, attr)?;
    if attr.nlink == 0 {
        orphan::put(txn, id, orphan::NO_NAME)?;
    }
    Ok(())
}

pub(super) fn create<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    dir: InodeId,
    name: &[u8],
    new: &NewInode<'_>,
) -> Result<Created> {
    let mut dir_attr = live_dir(txn.view(), dir)?;
    let cookie = dir::vacancy(txn.view(), dir, name)?;
    let is_dir = FileType::from_mode(new.mode) == Some(FileType::Directory);
    let attr = inode::fresh(new, if is_dir { 2 } else { 1 })?;
    let kind = inode::file_type(&attr)?;
    adjust_dir(&mut dir_attr, i32::from(is_dir), name.len() as i64)?;
    inode::touch(&mut dir_attr, new.time);

    let id = inode::allocate(txn, dir.subvol)?;
    inode::store(txn, id, &attr)?;
    if let Some(target) = new.symlink {
        symlink::put(txn, id, target)?;
    }
    xattr::put_new(txn, id, new.xattrs)?;
    dir::put(
        txn,
        dir,
        Entry {
            cookie,
            ino: id.ino,
            kind,
        },
        name,
    )?;
    inode::store(txn, dir, &dir_attr)?;
    Ok(Created {
        id,
        attr,
        dir: dir_attr,
    })
}

/// Not inlined: with all of its callers it would need much of the stack.
#[inline(never)]
fn link<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    dir: InodeId,
    name: &[u8],
    time: Time,
) -> Result<Linked> {
    let mut dir_attr = live_dir(txn.view(), dir)?;
    let mut attr = inode::load(txn.view(), id)?;
    let kind = inode::file_type(&attr)?;
    if kind == FileType::Directory {
        return Err(Error::IsDirectory);
    }
    if attr.nlink >= MAX_LINKS {
        return Err(Error::TooManyLinks);
    }
    let cookie = dir::vacancy(txn.view(), dir, name)?;
    adjust_dir(&mut dir_attr, 0, name.len() as i64)?;
    inode::touch(&mut dir_attr, time);
    inode::changed(&mut attr, time);
    let had_none = attr.nlink == 0;
    attr.nlink = attr.nlink.saturating_add(1);

    dir::put(
        txn,
        dir,
        Entry {
            cookie,
            ino: id.ino,
            kind,
        },
        name,
    )?;
    if had_none {
        orphan::remove(txn, id)?;
    }
    inode::store(txn, id, &attr)?;
    inode::store(txn, dir, &dir_attr)?;
    Ok(Linked {
        target: attr,
        dir: dir_attr,
    })
}

fn remove<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    dir: InodeId,
    name: &[u8],
    want_dir: bool,
    time: Time,
    busy: &mut Option<InodeId>,
) -> Result<Unlinked> {
    let mut dir_attr = live_dir(txn.view(), dir)?;
    let entry = dir::entry(txn.view(), dir, name)?;
    match (entry.kind == FileType::Directory, want_dir) {
        (true, false) => return Err(Error::IsDirectory),
        (false, true) => return Err(Error::NotDirectory),
        _ => {}
    }
    let (id, mut attr) = target(txn.view(), dir, entry)?;
    if let Some(subvol) = want_dir
        .then(|| txn.view().subvolume_at(id))
        .transpose()?
        .flatten()
    {
        txn.open(subvol)?;
        return match dir::is_empty(txn.view(), root_of(subvol))? {
            true => txn.remove_subvolume(dir, (name, entry), subvol, time, busy),
            false => Err(Error::NotEmpty),
        };
    }
    if want_dir && !dir::is_empty(txn.view(), id)? {
        return Err(Error::NotEmpty);
    }
    adjust_dir(&mut dir_attr, -i32::from(want_dir), -(name.len() as i64))?;
    inode::touch(&mut dir_attr, time);
    drop_link(&mut attr, entry.kind, time);

    dir::remove(txn, dir, entry)?;
    store_unlinked(txn, id, &attr)?;
    inode::store(txn, dir, &dir_attr)?;
    Ok(Unlinked {
        id,
        target: attr,
        dir: dir_attr,
    })
}

/// A symbolic link has a target, and nothing else has one; attributes fit.
pub(super) fn check_new(new: &NewInode<'_>) -> Result<()> {
    xattr::check_new(new.xattrs)?;
    let is_link = FileType::from_mode(new.mode) == Some(FileType::Symlink);
    match new.symlink {
        Some(target) if is_link => symlink::check(target),
        None if !is_link => Ok(()),
        _ => Err(Error::Invalid("target of a symbolic link")),
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Makes an inode and its name: [`Error::Exists`], [`Error::NotFound`] when `dir` was removed,
    /// [`Error::TooManyLinks`].
    pub fn create(&self, dir: InodeId, name: &[u8], new: &NewInode<'_>) -> Result<Done<Created>> {
        dir::check_name(name)?;
        check_new(new)?;
        self.update(cost_of(new), |txn| create(txn, dir, name, new))
    }

    /// Makes an inode without a name (O_TMPFILE): an orphan until it is linked.
    pub fn tmpfile(&self, subvol: SubvolId, new: &NewInode<'_>) -> Result<Done<(InodeId, Attr)>> {
        check_new(new)?;
        if FileType::from_mode(new.mode) == Some(FileType::Directory) {
            return Err(Error::IsDirectory);
        }
        self.update(cost_of(new), |txn| {
            let attr = inode::fresh(new, 0)?;
            let id = inode::allocate(txn, subvol)?;
            inode::store(txn, id, &attr)?;
            if let Some(target) = new.symlink {
                symlink::put(txn, id, target)?;
            }
            xattr::put_new(txn, id, new.xattrs)?;
            orphan::put(txn, id, orphan::NO_NAME)?;
            Ok((id, attr))
        })
    }

    /// Gives `target`, which is no directory, another name.
    pub fn link(
        &self,
        target: InodeId,
        dir: InodeId,
        name: &[u8],
        time: Time,
    ) -> Result<Done<Linked>> {
        dir::check_name(name)?;
        if target.subvol != dir.subvol {
            return Err(Error::CrossSubvolume);
        }
        self.update(LINK, |txn| link(txn, target, dir, name, time))
    }

    /// Removes a name of something that is no directory.
    pub fn unlink(&self, dir: InodeId, name: &[u8], time: Time) -> Result<Done<Unlinked>> {
        dir::check_name(name)?;
        let mut busy = None;
        self.update(REMOVE, |txn| remove(txn, dir, name, false, time, &mut busy))
    }

    /// Removes an empty directory, or deletes an empty subvolume.
    pub fn rmdir(&self, dir: InodeId, name: &[u8], time: Time) -> Result<Done<Unlinked>> {
        dir::check_name(name)?;
        let mut busy = None;
        let result = self.update(REMOVE, |txn| remove(txn, dir, name, true, time, &mut busy));
        self.log_busy(busy, "its subvolume cannot be removed");
        result
    }
}
