// SPDX-License-Identifier: GPL-2.0

//! Names: looking them up, making, removing and renaming them; and which operations each type of
//! inode has.
//!
//! A change is made in the engine, in one step; then the VFS's inodes get the attributes that came
//! out of it. Nothing that can fail comes after the engine's step: a new inode is allocated first.

use super::attr::{self, to_engine};
use super::inode::{self, apply, Data};
use super::{fiemap, subvolume, xattr, Inode, InodeExt, Oxfs, Volume};
use crate::engine;
use crate::engine::inode::{NewInode as Make, NewXattr};
use crate::engine::namei::Unlinked;
use crate::engine::rename::{Rename, RenameFlags};
use crate::engine::types::{
    Attr, Done, FileType, Generation, InodeId, Time, MAX_NAME, MAX_SYMLINK,
};
use crate::vfs::attr::{FileFlags, SetAttr, Stat};
use crate::vfs::dentry::Dentry;
use crate::vfs::fiemap::FiemapInfo;
use crate::vfs::inherit::Inherited;
use crate::vfs::inode::{Fresh, IdMap, NewInode};
use crate::vfs::inode_ops::{InodeOperations, RenameMode};
use crate::vfs::time::Times;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// Operations of directories.
pub struct Directory;
/// Operations of regular files.
pub struct Regular;
/// Operations of symbolic links.
pub struct Symlink;
/// Operations of devices, FIFOs and sockets.
pub struct Special;

/// What is to be made, beside its type.
#[derive(Clone, Copy)]
struct New<'a> {
    mode: u32,
    rdev: u64,
    symlink: Option<&'a [u8]>,
}

/// Runs `change` with the time now, which becomes the change time of `inodes`; they get their old
/// ones back when it fails.
///
/// Each is stamped on its own: one whose time somebody has looked at gets a time that differs from
/// what was seen, and the latest of them is everybody's.
pub fn stamped<T, const N: usize>(
    inodes: [Option<&Inode>; N],
    change: impl FnOnce(Time) -> Result<T>,
) -> Result<T> {
    let stamped = inodes.map(|inode| inode.map(|inode| (inode, inode.times(), inode.touch())));
    let now = stamped
        .iter()
        .flatten()
        .map(|(_, _, stamp)| *stamp)
        .max_by_key(|time| (time.sec, time.nsec))
        .map_or(Time::default(), to_engine);
    let result = change(now);
    if result.is_err() {
        for (inode, before, stamp) in stamped.into_iter().flatten() {
            let seen = inode.times();
            // Others may have changed it meanwhile: not all of these inodes are locked.
            if seen.ctime == stamp {
                let ctime = before.ctime;
                inode.change_times(&seen, &Times { ctime, ..seen });
            }
        }
    }
    result
}

/// What a new inode has by who makes it where.
pub struct Origin {
    uid: u32,
    gid: u32,
    project: u32,
    flags: u64,
    inherited: Inherited,
}

impl Origin {
    /// That of `fresh` with type and permissions `mode`, as `name` of `dir` if it has one. Its group
    /// may be that of `owner`.
    pub fn new(
        fresh: &Fresh<Oxfs>,
        map: &IdMap,
        owner: Option<&Inode>,
        (dir, name): (&Inode, Option<&Dentry<Oxfs>>),
        mode: u32,
    ) -> Result<Self> {
        let (_, uid, gid) = fresh.owner(map, owner, mode);
        let inherited = fresh.inherit(dir, name)?;
        let is_dir = FileType::from_mode(mode) == Some(FileType::Directory);
        let (flags, project) = attr::inherited(dir, is_dir);
        Ok(Self {
            uid,
            gid,
            project,
            flags,
            inherited,
        })
    }

    /// The attributes as the engine wants them.
    pub fn xattrs(&self) -> Result<KVec<NewXattr<'_>>> {
        let all = &self.inherited.xattrs;
        let mut xattrs = KVec::with_capacity(all.len(), GFP_KERNEL)?;
        for xattr in all {
            let (name, value) = (&xattr.name[..], &xattr.value[..]);
            xattrs.push(NewXattr { name, value }, GFP_KERNEL)?;
        }
        Ok(xattrs)
    }

    /// The inode, made at `time`.
    pub fn inode<'a>(&self, xattrs: &'a [NewXattr<'a>], time: Time) -> Make<'a> {
        Make {
            mode: self.inherited.mode,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            project: self.project,
            flags: self.flags,
            time,
            symlink: None,
            xattrs,
        }
    }
}

/// Makes an inode for `dir`, with a `name` there or without: in the engine by `make`, which returns
/// its number and attributes and those of the directory if it changed, and in memory.
fn make(
    map: &IdMap,
    dir: &Inode,
    new: New<'_>,
    name: Option<&Dentry<Oxfs>>,
    make: impl FnOnce(&Volume, &Make<'_>) -> engine::Result<Done<(InodeId, Attr, Option<Attr>)>>,
) -> Result<NewInode<Oxfs>> {
    let sb = dir.super_block();
    let fresh = Fresh::new(sb)?;
    let origin = Origin::new(&fresh, map, Some(dir), (dir, name), new.mode)?;
    let xattrs = origin.xattrs()?;
    let blank = Attr {
        mode: origin.inherited.mode,
        ..Attr::default()
    };
    let member = sb.data().enter(dir.data().id.subvol)?;
    let data = Data::new(dir.data().id, &blank, member)?;
    let own = to_engine(fresh.touch());
    let made = stamped([name.map(|_| dir)], |time| {
        let New { rdev, symlink, .. } = new;
        let what = Make {
            rdev,
            symlink,
            ..origin.inode(&xattrs, if name.is_some() { time } else { own })
        };
        sb.data().join(sb, |volume| make(volume, &what))
    })?;
    let (id, attr, dir_attr) = made.value;
    if let Some(dir_attr) = dir_attr {
        dir.data().note(made.generation);
        apply(dir, &dir_attr);
    }
    let new = fresh.insert(id.st_ino(), data.with(id, &attr))?;
    inode::set_up(&new, &attr)?;
    new.inode().data().note(made.generation);
    Ok(new)
}

/// Makes an inode with the name `name` in `dir`.
fn create(map: &IdMap, dir: &Inode, name: &Dentry<Oxfs>, new: New<'_>) -> Result<NewInode<Oxfs>> {
    let dir_id = dir.data().id;
    let new = make(map, dir, new, Some(name), |volume, what| {
        let done = volume.create(dir_id, name.name(), what)?;
        let made = done.value;
        Ok(Done {
            value: (made.id, made.attr, Some(made.dir)),
            generation: done.generation,
        })
    })?;
    sync_if_asked(dir)?;
    Ok(new)
}

/// Takes over what became of an inode in transaction `generation`.
pub fn changed(inode: &Inode, attr: &Attr, generation: Generation) {
    inode.data().note(generation);
    apply(inode, attr);
}

/// As [`changed`], of what was renamed: where that is the root of a subvolume, it is the directory
/// which stands for it that has changed.
fn renamed_to(inode: &Inode, (id, attr): &(InodeId, Attr), generation: Generation) {
    match inode.data().id == *id {
        true => changed(inode, attr, generation),
        false => inode.data().note(generation),
    }
}

/// Removes the name `name` from `dir` by `remove`.
fn remove(
    dir: &Inode,
    name: &Dentry<Oxfs>,
    remove: impl FnOnce(&Volume, InodeId, &[u8], Time) -> engine::Result<Done<Unlinked>>,
) -> Result {
    let target = name.inode().ok_or(ENOENT)?;
    let sb = dir.super_block();
    let done = stamped([Some(dir), Some(target)], |time| {
        sb.data().join(sb, |volume| {
            remove(volume, dir.data().id, name.name(), time)
        })
    })?;
    // An empty subvolume is deleted, whether or not that can be made durable.
    if done.value.id.subvol != dir.data().id.subvol {
        subvolume::abandon(sb, done.value.id.subvol);
    }
    changed(dir, &done.value.dir, done.generation);
    changed(target, &done.value.target, done.generation);
    sync_if_asked(dir)
}

/// Makes a change of `dir` durable before it returns, where the mount or a flag asks for that.
pub fn sync_if_asked(dir: &Inode) -> Result {
    match dir.is_dirsync() {
        true => dir.sync_changes(),
        false => Ok(()),
    }
}

/// What a rename leaves in the old place if it is asked to. It is not brought into memory.
fn origin_of_whiteout(map: &IdMap, dir: &Inode, name: &Dentry<Oxfs>) -> Result<Origin> {
    let fresh = Fresh::new(dir.super_block())?;
    let mode = u32::from(FileType::CharDevice as u8) << 12;
    Origin::new(&fresh, map, Some(dir), (dir, Some(name)), mode)
}

#[vtable]
impl InodeOperations<Oxfs> for Directory {
    fn check_writable(inode: &Inode) -> Result {
        subvolume::check_writable(inode)
    }

    fn lookup(dir: &Inode, name: &Dentry<Oxfs>) -> Result<Option<ARef<Inode>>> {
        if name.name().len() > MAX_NAME {
            return Err(ENAMETOOLONG);
        }
        // Not even that a name does not exist is to be remembered: it would keep the directory.
        if dir.data().member().is_deleted() {
            return Err(ENOENT);
        }
        let Some((id, _)) = dir.query(|volume, dir| volume.lookup(dir, name.name()))? else {
            return Ok(None);
        };
        match inode::get(dir.super_block(), id) {
            Ok(inode) => Ok(Some(inode)),
            Err(error) if error == ENOENT => {
                // Deleted meanwhile, or before by way of another mount.
                if id.subvol != dir.data().id.subvol || dir.data().member().is_deleted() {
                    return Err(ENOENT);
                }
                dir.super_block()
                    .data()
                    .damage(id, "named, and does not exist");
                Err(EUCLEAN)
            }
            Err(error) => Err(error),
        }
    }

    fn create(map: &IdMap, dir: &Inode, name: &Dentry<Oxfs>, mode: u32) -> Result<NewInode<Oxfs>> {
        create(
            map,
            dir,
            name,
            New {
                mode,
                rdev: 0,
                symlink: None,
            },
        )
    }

    fn mkdir(map: &IdMap, dir: &Inode, name: &Dentry<Oxfs>, mode: u32) -> Result<NewInode<Oxfs>> {
        create(
            map,
            dir,
            name,
            New {
                mode,
                rdev: 0,
                symlink: None,
            },
        )
    }

    fn mknod(
        map: &IdMap,
        dir: &Inode,
        name: &Dentry<Oxfs>,
        mode: u32,
        rdev: u64,
    ) -> Result<NewInode<Oxfs>> {
        create(
            map,
            dir,
            name,
            New {
                mode,
                rdev,
                symlink: None,
            },
        )
    }

    fn symlink(
        map: &IdMap,
        dir: &Inode,
        name: &Dentry<Oxfs>,
        target: &CStr,
    ) -> Result<NewInode<Oxfs>> {
        let target = target.to_bytes();
        if target.len() > MAX_SYMLINK {
            return Err(ENAMETOOLONG);
        }
        let mode = 0o777 | (u32::from(FileType::Symlink as u8) << 12);
        create(
            map,
            dir,
            name,
            New {
                mode,
                rdev: 0,
                symlink: Some(target),
            },
        )
    }

    fn tmpfile(map: &IdMap, dir: &Inode, mode: u32) -> Result<NewInode<Oxfs>> {
        let subvol = dir.data().id.subvol;
        make(
            map,
            dir,
            New {
                mode,
                rdev: 0,
                symlink: None,
            },
            None,
            |volume, what| {
                let done = volume.tmpfile(subvol, what)?;
                let (id, attr) = done.value;
                Ok(Done {
                    value: (id, attr, None),
                    generation: done.generation,
                })
            },
        )
    }

    fn link(target: &Inode, dir: &Inode, name: &Dentry<Oxfs>) -> Result {
        let (id, dir_id) = (target.data().id, dir.data().id);
        let sb = dir.super_block();
        let done = stamped([Some(dir), Some(target)], |time| {
            sb.data()
                .join(sb, |volume| volume.link(id, dir_id, name.name(), time))
        })?;
        changed(dir, &done.value.dir, done.generation);
        changed(target, &done.value.target, done.generation);
        sync_if_asked(dir)
    }

    fn unlink(dir: &Inode, name: &Dentry<Oxfs>) -> Result {
        remove(dir, name, |volume, dir, name, time| {
            volume.unlink(dir, name, time)
        })
    }

    fn rmdir(dir: &Inode, name: &Dentry<Oxfs>) -> Result {
        remove(dir, name, |volume, dir, name, time| {
            volume.rmdir(dir, name, time)
        })
    }

    fn rename(
        map: &IdMap,
        old_dir: &Inode,
        old: &Dentry<Oxfs>,
        new_dir: &Inode,
        new: &Dentry<Oxfs>,
        mode: RenameMode,
        whiteout: bool,
    ) -> Result {
        let moved = old.inode().ok_or(ENOENT)?;
        let whiteout = match whiteout {
            true => Some(origin_of_whiteout(map, old_dir, old)?),
            false => None,
        };
        let xattrs = match &whiteout {
            Some(origin) => origin.xattrs()?,
            None => KVec::new(),
        };
        let (sb, other) = (old_dir.super_block(), new.inode());
        // Of a subvolume it is the directory that stands for it that changes, not its root, which
        // may be read-only.
        let own = |inode: &&Inode, dir: &Inode| inode.data().id.subvol == dir.data().id.subvol;
        let changing = [
            Some(old_dir),
            Some(new_dir),
            Some(moved).filter(|inode| own(inode, old_dir)),
            other.filter(|inode| own(inode, new_dir)),
        ];
        let done = stamped(changing, |time| {
            let what = Rename {
                old_dir: old_dir.data().id,
                old_name: old.name(),
                new_dir: new_dir.data().id,
                new_name: new.name(),
                flags: match mode {
                    RenameMode::Replace => RenameFlags::Replace,
                    RenameMode::NoReplace => RenameFlags::NoReplace,
                    RenameMode::Exchange => RenameFlags::Exchange,
                },
                whiteout: whiteout.as_ref().map(|origin| origin.inode(&xattrs, time)),
                time,
            };
            sb.data().join(sb, |volume| volume.rename(&what))
        })?;
        let (value, generation) = (&done.value, done.generation);
        changed(old_dir, &value.old_dir, generation);
        changed(new_dir, &value.new_dir, generation);
        renamed_to(moved, &value.moved, generation);
        if let (Some(other), Some(replaced)) = (other, &value.replaced) {
            renamed_to(other, replaced, generation);
        }
        sync_if_asked(old_dir)?;
        sync_if_asked(new_dir)
    }

    fn setattr(_map: &IdMap, inode: &Inode, change: &mut SetAttr<'_, Oxfs>) -> Result {
        attr::set(inode, change)
    }

    fn set_acl(inode: &Inode, name: &[u8], acl: &[u8], permissions: Option<u32>) -> Result {
        xattr::set_acl(inode, name, acl, permissions)
    }

    fn getattr(inode: &Inode, stat: &mut Stat) -> Result {
        attr::get(inode, stat)
    }

    fn flags(inode: &Inode) -> Result<FileFlags> {
        attr::file_flags(inode)
    }

    fn set_flags(inode: &Inode, flags: &FileFlags) -> Result {
        attr::set_file_flags(inode, flags)
    }
}

#[vtable]
impl InodeOperations<Oxfs> for Regular {
    fn check_writable(inode: &Inode) -> Result {
        subvolume::check_writable(inode)
    }

    fn setattr(_map: &IdMap, inode: &Inode, change: &mut SetAttr<'_, Oxfs>) -> Result {
        attr::set(inode, change)
    }

    fn set_acl(inode: &Inode, name: &[u8], acl: &[u8], permissions: Option<u32>) -> Result {
        xattr::set_acl(inode, name, acl, permissions)
    }

    fn getattr(inode: &Inode, stat: &mut Stat) -> Result {
        attr::get(inode, stat)
    }

    fn flags(inode: &Inode) -> Result<FileFlags> {
        attr::file_flags(inode)
    }

    fn set_flags(inode: &Inode, flags: &FileFlags) -> Result {
        attr::set_file_flags(inode, flags)
    }

    fn fiemap(inode: &Inode, info: &mut FiemapInfo, start: u64, len: u64) -> Result {
        fiemap::fiemap(inode, info, start, len)
    }
}

#[vtable]
impl InodeOperations<Oxfs> for Symlink {
    fn check_writable(inode: &Inode) -> Result {
        subvolume::check_writable(inode)
    }

    fn read_link(inode: &Inode, target: &mut KVVec<u8>) -> Result {
        inode.query(|volume, id| volume.read_link(id, target))
    }

    fn setattr(_map: &IdMap, inode: &Inode, change: &mut SetAttr<'_, Oxfs>) -> Result {
        attr::set(inode, change)
    }

    fn getattr(inode: &Inode, stat: &mut Stat) -> Result {
        attr::get(inode, stat)
    }
}

#[vtable]
impl InodeOperations<Oxfs> for Special {
    fn check_writable(inode: &Inode) -> Result {
        subvolume::check_writable(inode)
    }

    fn setattr(_map: &IdMap, inode: &Inode, change: &mut SetAttr<'_, Oxfs>) -> Result {
        attr::set(inode, change)
    }

    fn set_acl(inode: &Inode, name: &[u8], acl: &[u8], permissions: Option<u32>) -> Result {
        xattr::set_acl(inode, name, acl, permissions)
    }

    fn getattr(inode: &Inode, stat: &mut Stat) -> Result {
        attr::get(inode, stat)
    }
}
