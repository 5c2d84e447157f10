// SPDX-License-Identifier: GPL-2.0

//! Inode items: attributes on disk and in memory, and the numbers of new inodes.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{item_kind, DiskTime, InodeItem};
use super::node::Key;
use super::tree::{TreeId, View};
use super::tree_write::Txn;
use super::types::{
    Attr, AttrChange, BlockNr, Done, FileType, Ino, InodeId, SubvolId, Time, INODE_OWN,
    MAX_FILE_SIZE, MAX_INO, MAX_LINKS, MODE_TYPE,
};
use super::volume::{Cost, State, Volume};
use crate::platform::random_u64;
use zerocopy::{FromBytes, IntoBytes};

/// What a new inode is made of.
#[derive(Debug, Clone, Copy)]
pub struct NewInode<'a> {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device file: major in the upper 32 bits.
    pub rdev: u64,
    /// Project id.
    pub project: u32,
    /// `FS_*_FL` flags.
    pub flags: u64,
    /// Now: all four times.
    pub time: Time,
    /// Target of a symbolic link, and only of that.
    pub symlink: Option<&'a [u8]>,
    /// Extended attributes that it has from the beginning: access control lists, security labels.
    pub xattrs: &'a [NewXattr<'a>],
}

/// An extended attribute of a new inode.
#[derive(Debug, Clone, Copy)]
pub struct NewXattr<'a> {
    /// Its name, with the prefix.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

/// The key of an inode's item.
pub(super) fn key(ino: Ino) -> Key {
    Key::new(ino.0, item_kind::INODE, 0)
}

fn time(disk: &DiskTime) -> Result<Time> {
    let time = Time {
        sec: disk.sec.get() as i64,
        nsec: disk.nsec.get(),
    };
    if time.nsec >= 1_000_000_000 {
        return Err(Error::corrupt(BlockNr(0), "nanoseconds of an inode"));
    }
    Ok(time)
}

fn disk_time(time: Time) -> DiskTime {
    DiskTime {
        sec: (time.sec as u64).into(),
        nsec: time.nsec.into(),
    }
}

/// The attributes in an inode item.
pub(super) fn decode(data: &[u8]) -> Result<Attr> {
    let bad = |rule| Error::corrupt(BlockNr(0), rule);
    let item = InodeItem::read_from_bytes(data).map_err(|_| bad("size of an inode item"))?;
    let attr = Attr {
        mode: item.mode.get(),
        uid: item.uid.get(),
        gid: item.gid.get(),
        nlink: item.nlink.get(),
        size: item.size.get(),
        blocks: item.blocks.get(),
        rdev: item.rdev.get(),
        flags: item.flags.get(),
        generation: item.generation.get(),
        project: item.project.get(),
        change: item.change.get(),
        atime: time(&item.atime)?,
        mtime: time(&item.mtime)?,
        ctime: time(&item.ctime)?,
        btime: time(&item.btime)?,
    };
    if FileType::from_mode(attr.mode).is_none() || attr.mode >> 16 != 0 {
        return Err(bad("mode of an inode"));
    }
    if attr.size > MAX_FILE_SIZE || attr.blocks > MAX_FILE_SIZE {
        return Err(bad("size of an inode"));
    }
    if attr.nlink > MAX_LINKS {
        return Err(bad("link count of an inode"));
    }
    Ok(attr)
}

/// The item for `attr`.
pub(super) fn encode(attr: &Attr) -> InodeItem {
    InodeItem {
        size: attr.size.into(),
        blocks: attr.blocks.into(),
        rdev: attr.rdev.into(),
        flags: attr.flags.into(),
        generation: attr.generation.into(),
        change: attr.change.into(),
        mode: attr.mode.into(),
        uid: attr.uid.into(),
        gid: attr.gid.into(),
        nlink: attr.nlink.into(),
        project: attr.project.into(),
        atime: disk_time(attr.atime),
        mtime: disk_time(attr.mtime),
        ctime: disk_time(attr.ctime),
        btime: disk_time(attr.btime),
    }
}

/// The attributes of `id`, or [`Error::NotFound`].
pub(super) fn load<D: BlockDevice>(view: View<'_, D>, id: InodeId) -> Result<Attr> {
    view.get(TreeId::Subvol(id.subvol), &key(id.ino), decode)?
        .ok_or(Error::NotFound)
}

/// Writes the attributes of `id`.
pub(super) fn store<D: BlockDevice>(txn: &mut Txn<'_, D>, id: InodeId, attr: &Attr) -> Result<()> {
    txn.put(
        TreeId::Subvol(id.subvol),
        &key(id.ino),
        encode(attr).as_bytes(),
    )
}

/// The type in the mode of a decoded inode.
pub(super) fn file_type(attr: &Attr) -> Result<FileType> {
    FileType::from_mode(attr.mode).ok_or(Error::corrupt(BlockNr(0), "mode of an inode"))
}

/// Counts a change that `time` dates: what a directory shows after one of its names changed.
pub(super) fn touch(attr: &mut Attr, time: Time) {
    attr.mtime = time;
    changed(attr, time);
}

/// Counts a change of the inode itself.
pub(super) fn changed(attr: &mut Attr, time: Time) {
    attr.ctime = time;
    attr.change = attr.change.wrapping_add(1);
}

/// The attributes of a new inode with `nlink` names.
pub(super) fn fresh(new: &NewInode<'_>, nlink: u32) -> Result<Attr> {
    if FileType::from_mode(new.mode).is_none() || new.mode >> 16 != 0 {
        return Err(Error::Invalid("mode"));
    }
    Ok(Attr {
        mode: new.mode,
        uid: new.uid,
        gid: new.gid,
        nlink,
        size: new.symlink.map_or(0, |target| target.len() as u64),
        blocks: 0,
        rdev: new.rdev,
        flags: new.flags & !INODE_OWN,
        generation: random_u64(),
        project: new.project,
        change: 1,
        atime: new.time,
        mtime: new.time,
        ctime: new.time,
        btime: new.time,
    })
}

/// The number of the next inode; `NoSpace` when all are used up.
pub(super) fn next(state: &State, subvol: SubvolId) -> Result<Ino> {
    match Ino(state.subvol(subvol)?.next_ino) {
        ino if ino <= MAX_INO => Ok(ino),
        _ => Err(Error::NoSpace),
    }
}

/// Takes the number of a new inode. Numbers are never used twice in a subvolume.
pub(super) fn allocate<D: BlockDevice>(txn: &mut Txn<'_, D>, subvol: SubvolId) -> Result<InodeId> {
    let ino = next(txn.state, subvol)?;
    txn.subvol_mut(subvol)?.next_ino = ino.0.saturating_add(1);
    Ok(InodeId { subvol, ino })
}

/// Sets the permission bits, if they change.
pub(super) fn set_permissions(attr: &mut Attr, mode: Option<u32>) {
    if let Some(mode) = mode {
        attr.mode = (attr.mode & MODE_TYPE) | (mode & 0o7777);
    }
}

/// Sets what `change` holds.
fn apply(attr: &mut Attr, change: &AttrChange) {
    fn set<T: Copy>(field: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *field = value;
        }
    }
    set_permissions(attr, change.mode);
    if let Some(flags) = change.flags {
        attr.flags = (flags & !INODE_OWN) | (attr.flags & INODE_OWN);
    }
    set(&mut attr.uid, change.uid);
    set(&mut attr.gid, change.gid);
    set(&mut attr.project, change.project);
    set(&mut attr.atime, change.atime);
    set(&mut attr.mtime, change.mtime);
    set(&mut attr.ctime, change.ctime);
    match change.change {
        Some(value) => attr.change = value,
        // An access alone is no change of the file (inode_query_iversion).
        None if change.ctime.is_some() => attr.change = attr.change.wrapping_add(1),
        None => {}
    }
}

impl<D: BlockDevice> Volume<D> {
    /// The attributes of `id`. [`Error::NotFound`] when there is no such inode.
    pub fn inode(&self, id: InodeId) -> Result<Attr> {
        self.query(|view| load(view, id))
    }

    /// Sets the times, unless the inode was changed since its change cookie was `seen`: times that
    /// were read before such a change would take it back. Returns the attributes, whose cookie
    /// tells whether it did.
    pub fn set_times(
        &self,
        id: InodeId,
        seen: u64,
        [atime, mtime, ctime]: [Time; 3],
    ) -> Result<Done<Attr>> {
        self.update(Cost::CHANGES, |txn| {
            let mut attr = load(txn.view(), id)?;
            if attr.change == seen {
                attr.atime = atime;
                attr.mtime = mtime;
                changed(&mut attr, ctime);
                store(txn, id, &attr)?;
            }
            Ok(attr)
        })
    }

    /// Sets attributes and returns them all.
    pub fn set_attr(&self, id: InodeId, change: &AttrChange) -> Result<Done<Attr>> {
        let times = [change.atime, change.mtime, change.ctime];
        if times
            .into_iter()
            .flatten()
            .any(|time| time.nsec >= 1_000_000_000)
        {
            return Err(Error::Invalid("nanoseconds"));
        }
        self.update(Cost::CHANGES, |txn| {
            let mut attr = load(txn.view(), id)?;
            apply(&mut attr, change);
            store(txn, id, &attr)?;
            Ok(attr)
        })
    }
}
