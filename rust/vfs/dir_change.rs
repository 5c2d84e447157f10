// SPDX-License-Identifier: GPL-2.0

//! Names in an open directory that are made or removed by an ioctl: what the VFS does before and
//! after the operations of its own, such as `mkdir` and `rmdir`.
//!
//! C header: [`include/linux/namei.h`](srctree/include/linux/namei.h)

use super::dentry::Dentry;
use super::file::OpenFile;
use super::fs_type::FileSystem;
use super::inode::{IdMap, Inode};
use super::super_block::SuperBlock;
use crate::bindings;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::types::NotThreadSafe;

/// Write access to the mount of an open file, and protection from freezing, until dropped. Ranks
/// above all locks.
pub struct WriteAccess<'a, F: FileSystem>(&'a OpenFile<F>, NotThreadSafe);

impl<F: FileSystem> Drop for WriteAccess<'_, F> {
    fn drop(&mut self) {
        // SAFETY: The value's existence proves that there is access.
        unsafe { bindings::mnt_drop_write_file(self.0.as_ptr()) }
    }
}

/// A file that a program has open, kept open until dropped.
///
/// # Invariants
///
/// It is a file of `F`, and a reference to it is owned.
pub struct OwnedFile<F: FileSystem>(NonNull<bindings::file>, PhantomData<F>);

impl<F: FileSystem> Deref for OwnedFile<F> {
    type Target = OpenFile<F>;

    fn deref(&self) -> &OpenFile<F> {
        // SAFETY: By the type invariant.
        unsafe { OpenFile::from_ptr(self.0.as_ptr()) }
    }
}

impl<F: FileSystem> Drop for OwnedFile<F> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::fput(self.0.as_ptr()) }
    }
}

impl<F: FileSystem> OpenFile<F> {
    fn map(&self) -> *mut bindings::mnt_idmap {
        // SAFETY: By the type invariant the file is open.
        unsafe { bindings::oxfs_helper_file_mnt_idmap(self.as_ptr()) }
    }

    /// How the file's mount maps ids.
    pub fn id_map(&self) -> &IdMap {
        // SAFETY: A mount keeps its mapping, and an open file its mount.
        unsafe { IdMap::from_ptr(self.map()) }
    }

    /// Waits while the filesystem is frozen. `EROFS` when the mount is read-only.
    pub fn write_access(&self) -> Result<WriteAccess<'_, F>> {
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::mnt_want_write_file(self.as_ptr()) })?;
        Ok(WriteAccess(self, NotThreadSafe))
    }

    /// Has the next lookup of `name` in this directory ask the filesystem: it was made, and may be
    /// remembered as one that does not exist. The caller holds the directory's lock exclusively, so
    /// that no lookup is under way.
    pub fn forget_name(&self, name: &[u8]) -> Result {
        let mut text = qstr(name)?;
        // SAFETY: The directory is open, the name valid for the call; a dentry that is found comes with
        // a reference.
        unsafe {
            let dir = (*self.as_ptr()).__bindgen_anon_1.f_path.dentry;
            let found = from_err_ptr(bindings::try_lookup_noperm(&mut text, dir))?;
            if !found.is_null() {
                bindings::d_drop(found);
                bindings::dput(found);
            }
        }
        Ok(())
    }

    /// The file that the calling program has open as `fd`. `EXDEV` when it is of another
    /// filesystem.
    pub fn other(&self, fd: i64) -> Result<OwnedFile<F>> {
        let fd = u32::try_from(fd).map_err(|_| EBADF)?;
        // SAFETY: It looks at the current task only.
        let file = NonNull::new(unsafe { bindings::fget(fd) }).ok_or(EBADF)?;
        // SAFETY: The file is open and the reference ours. Inodes of one super block are of one type.
        unsafe {
            let sb: *const SuperBlock<F> = self.inode().super_block();
            if (*(*file.as_ptr()).f_inode).i_sb.cast_const().cast() != sb {
                bindings::fput(file.as_ptr());
                return Err(EXDEV);
            }
        }
        Ok(OwnedFile(file, PhantomData))
    }
}

/// A name in an open directory, which is locked exclusively until dropped.
///
/// # Invariants
///
/// `dentry` is referenced, and its parent, the directory of `dir`, locked.
pub struct LockedName<'a, F: FileSystem> {
    dir: &'a OpenFile<F>,
    dentry: NonNull<bindings::dentry>,
    _task: NotThreadSafe,
}

/// A function that locks a directory and looks a name up in it.
type Start = unsafe extern "C" fn(
    *mut bindings::mnt_idmap,
    *mut bindings::dentry,
    *mut bindings::qstr,
) -> *mut bindings::dentry;

impl<'a, F: FileSystem> LockedName<'a, F> {
    fn start(dir: &'a OpenFile<F>, name: &[u8], start: Start) -> Result<Self> {
        if !dir.inode().is_dir() {
            return Err(ENOTDIR);
        }
        let mut text = qstr(name)?;
        // SAFETY: The directory is open; the name is valid for the call, which checks what is in it.
        let dentry = from_err_ptr(unsafe {
            let parent = (*dir.as_ptr()).__bindgen_anon_1.f_path.dentry;
            start(dir.map(), parent, &mut text)
        })?;
        Ok(Self {
            dir,
            dentry: NonNull::new(dentry).ok_or(ENOENT)?,
            _task: NotThreadSafe,
        })
    }

    /// A name that the caller may make and that does not exist. `access` is to the directory.
    pub fn to_make(access: &'a WriteAccess<'_, F>, name: &[u8]) -> Result<Self> {
        let name = Self::start(access.0, name, bindings::start_creating_killable)?;
        // SAFETY: By the type invariants.
        to_result(unsafe {
            bindings::may_create_dentry(
                name.dir.map(),
                name.dir.inode().as_ptr(),
                name.dentry.as_ptr(),
            )
        })?;
        Ok(name)
    }

    /// A name of a directory that the caller may remove.
    pub fn to_remove(access: &'a WriteAccess<'_, F>, name: &[u8]) -> Result<Self> {
        let name = Self::start(access.0, name, bindings::start_removing_killable)?;
        // SAFETY: By the type invariants.
        to_result(unsafe {
            bindings::may_delete_dentry(
                name.dir.map(),
                name.dir.inode().as_ptr(),
                name.dentry.as_ptr(),
                true,
            )
        })?;
        Ok(name)
    }

    /// A name, whether or not it exists.
    pub fn any(dir: &'a OpenFile<F>, name: &[u8]) -> Result<Self> {
        Self::start(dir, name, bindings::start_creating_killable)
    }

    /// The directory.
    pub fn dir(&self) -> &Inode<F> {
        self.dir.inode()
    }

    /// The name, as operations of the VFS are given it.
    pub fn dentry(&self) -> &Dentry<F> {
        // SAFETY: By the type invariants nobody changes the name.
        unsafe { Dentry::from_ptr(self.dentry.as_ptr()) }
    }

    /// The inode that the name stands for, if it exists.
    pub fn inode(&self) -> Option<&Inode<F>> {
        self.dentry().inode()
    }

    /// Tells those who watch the directory that there is a new directory in it.
    pub fn announce(&self) {
        if self.inode().is_some() {
            // SAFETY: By the type invariants; the dentry has an inode.
            unsafe {
                bindings::oxfs_helper_fsnotify_mkdir(self.dir().as_ptr(), self.dentry.as_ptr());
            }
        }
    }

    /// Has `remove` take away the directory that the name stands for, with all that is in it, and
    /// the name; it is given the directory of the name and the other one, both locked. Afterwards
    /// nothing below can be reached by name, and mounts there are gone.
    pub fn remove(self, remove: impl FnOnce(&Inode<F>, &Inode<F>) -> Result) -> Result {
        let inode = ARef::from(self.inode().ok_or(ENOENT)?);
        {
            let _lock = inode.lock_exclusive();
            remove(self.dir(), &inode)?;
            inode.set_flags(bindings::S_DEAD, bindings::S_DEAD);
        }
        // SAFETY: By the type invariants; the dentry has an inode.
        unsafe {
            bindings::d_invalidate(self.dentry.as_ptr());
            bindings::oxfs_helper_d_delete_notify(self.dir().as_ptr(), self.dentry.as_ptr());
        }
        Ok(())
    }
}

impl<F: FileSystem> Drop for LockedName<'_, F> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; it unlocks the parent and drops the reference.
        unsafe { bindings::end_dirop(self.dentry.as_ptr()) }
    }
}

/// A name as the VFS wants it; it is only valid as long as `name`.
pub(super) fn qstr(name: &[u8]) -> Result<bindings::qstr> {
    let mut text: bindings::qstr = pin_init::zeroed();
    text.__bindgen_anon_1.__bindgen_anon_1.len =
        u32::try_from(name.len()).map_err(|_| ENAMETOOLONG)?;
    text.name = name.as_ptr();
    Ok(text)
}
