// SPDX-License-Identifier: GPL-2.0

//! Attributes: stat, chmod, chown, utimes, truncate's first step, and the flags of chattr.

use super::inode::apply;
use super::subvolume::check_writable;
use super::{truncate, Inode, InodeExt, Oxfs};
use crate::engine::types::{Attr, AttrChange, Time};
use crate::vfs::attr::{FileFlags, SetAttr, Stat};
use crate::vfs::flags;
use crate::vfs::time::{Times, Timespec};
use kernel::prelude::*;

/// A time as the engine has it.
pub fn to_engine(time: Timespec) -> Time {
    Time {
        sec: time.sec,
        nsec: time.nsec,
    }
}

/// A time as the VFS has it.
pub fn to_vfs(time: Time) -> Timespec {
    Timespec {
        sec: time.sec,
        nsec: time.nsec,
    }
}

/// The times of an inode that the VFS keeps.
pub fn times_of(attr: &Attr) -> Times {
    Times {
        atime: to_vfs(attr.atime),
        mtime: to_vfs(attr.mtime),
        ctime: to_vfs(attr.ctime),
    }
}

/// Stores the times that the VFS has changed in memory. Needs no lock of the inode: what another
/// task changes meanwhile is not taken back.
pub fn push_times(inode: &Inode) -> Result {
    loop {
        // In this order: times that are read after the cookie are not older than it.
        let stored = inode.data().stored();
        let times = inode.times();
        if times == times_of(&stored) {
            return Ok(());
        }
        let new = [times.atime, times.mtime, times.ctime].map(to_engine);
        let attr = inode.join(|volume, id| volume.set_times(id, stored.change, new))?;
        apply(inode, &attr);
        if times_of(&attr) == times {
            return Ok(());
        }
    }
}

/// Makes the last change of the inode durable, and times that only the VFS knows.
pub fn sync(inode: &Inode) -> Result {
    push_times(inode)?;
    inode.sync_changes()
}

/// Changes attributes as chmod, chown, utimes and truncate ask for. The inode is locked.
pub fn set(inode: &Inode, change: &mut SetAttr<'_, Oxfs>) -> Result {
    check_writable(inode)?;
    if let Some(size) = change.size() {
        let old = inode.size();
        truncate::set_size(inode, size)?;
        if size != old {
            change.touch();
        }
    }
    if !change.has_attributes() {
        return Ok(());
    }
    // The VFS knows how ids are mapped and which bits go with which; what comes out is stored.
    let (saved, wanted) = inode.data().alone(|| (change.apply(), attributes(inode)));
    let stored = inode.join(|volume, id| volume.set_attr(id, &wanted));
    let attr = stored.inspect_err(|_| inode.data().alone(|| change.undo(&saved)))?;
    apply(inode, &attr);
    Ok(())
}

/// Mode, owners and times as the VFS has them.
fn attributes(inode: &Inode) -> AttrChange {
    let times = inode.times();
    AttrChange {
        mode: Some(inode.mode()),
        uid: Some(inode.uid()),
        gid: Some(inode.gid()),
        atime: Some(to_engine(times.atime)),
        mtime: Some(to_engine(times.mtime)),
        ctime: Some(to_engine(times.ctime)),
        ..AttrChange::default()
    }
}

/// What stat(2) tells beyond what the VFS knows.
pub fn get(inode: &Inode, stat: &mut Stat) -> Result {
    let stored = inode.data().stored();
    stat.set_btime(to_vfs(stored.btime));
    stat.set_subvolume(inode.data().id.subvol.0);
    stat.set_flags(stored.flags as u32);
    if let Ok(file) = inode.data().file() {
        stat.add_sectors(file.delayed_blocks().saturating_mul(8));
        let (memory, offset) = inode.super_block().direct_io_alignment();
        stat.set_direct_io(memory, offset);
    }
    Ok(())
}

/// Flags of chattr(1) that are kept, for files of every type.
const KEPT: u32 = flags::SYNC | flags::IMMUTABLE | flags::APPEND | flags::NODUMP | flags::NOATIME;
/// The same, that only directories have.
const KEPT_DIR: u32 = flags::DIRSYNC | flags::PROJINHERIT;
/// Flags that a new inode takes over from its directory.
const INHERITED: u32 = flags::SYNC | flags::NODUMP | flags::NOATIME;

/// Flags and project of a new inode in `dir`.
pub fn inherited(dir: &Inode, is_dir: bool) -> (u64, u32) {
    let stored = dir.data().stored();
    let mask = if is_dir {
        INHERITED | KEPT_DIR
    } else {
        INHERITED
    };
    let project = if stored.flags as u32 & flags::PROJINHERIT != 0 {
        stored.project
    } else {
        0
    };
    (u64::from(stored.flags as u32 & mask), project)
}

/// The flags and the project of an inode.
pub fn file_flags(inode: &Inode) -> Result<FileFlags> {
    let stored = inode.data().stored();
    Ok(FileFlags {
        flags: stored.flags as u32,
        project: Some(stored.project),
    })
}

/// Sets flags and project. The inode is locked.
pub fn set_file_flags(inode: &Inode, new: &FileFlags) -> Result {
    check_writable(inode)?;
    let known = if inode.is_dir() {
        KEPT | KEPT_DIR
    } else {
        KEPT
    };
    if new.flags & !known != 0 {
        // The other flags are about how data is stored, which swap in use relies on.
        return Err(if inode.is_swapfile() {
            ETXTBSY
        } else {
            EOPNOTSUPP
        });
    }
    let change = AttrChange {
        flags: Some(u64::from(new.flags)),
        project: new.project,
        ctime: Some(to_engine(inode.touch())),
        ..AttrChange::default()
    };
    let attr = inode.join(|volume, id| volume.set_attr(id, &change))?;
    apply(inode, &attr);
    Ok(())
}

/// Tells the VFS about the flags that it enforces.
pub fn apply_flags(inode: &Inode, stored: u64) {
    let stored = stored as u32;
    let enforced = flags::ENFORCED;
    let set = enforced.iter().filter(|(flag, _)| stored & flag != 0);
    let set = set.fold(0, |all, (_, bit)| all | bit);
    let mask = enforced.iter().fold(0, |all, (_, bit)| all | bit);
    inode.set_flags(set, mask);
}
