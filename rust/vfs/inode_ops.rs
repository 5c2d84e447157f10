// SPDX-License-Identifier: GPL-2.0

//! Inode operations: names, attributes, links.
//!
//! One trait serves all kinds of inodes; a kind implements the operations that it has, and the
//! others are not in its table.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h), `struct inode_operations`

use super::attr::{FileFlags, SetAttr, Stat};
use super::dentry::Dentry;
use super::fiemap::FiemapInfo;
use super::fs_type::FileSystem;
use super::inode::{self, IdMap, Inode, InodeOps, NewInode};
use super::{acl, xattr};
use crate::bindings;
use core::marker::PhantomData;
use kernel::build_error;
use kernel::error::{from_result, to_result, VTABLE_DEFAULT_ERROR};
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// What rename(2) does when the new name exists, or must exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// It must not exist.
    NoReplace,
    /// The two names change places.
    Exchange,
}

/// Operations of an inode. All are called in process context and may sleep.
#[vtable]
pub trait InodeOperations<F: FileSystem> {
    /// Fails when nobody may change the inode, whatever its permissions are. Asked where files are
    /// opened for writing, names are changed and times are updated; does not sleep.
    fn check_writable(_inode: &Inode<F>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The inode of a name, if it exists. `dir` is locked, shared.
    fn lookup(_dir: &Inode<F>, _name: &Dentry<F>) -> Result<Option<ARef<Inode<F>>>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a regular file. `dir` is locked; `name` does not exist.
    fn create(_map: &IdMap, _dir: &Inode<F>, _name: &Dentry<F>, _mode: u32) -> Result<NewInode<F>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a directory. `dir` is locked; `name` does not exist.
    fn mkdir(_map: &IdMap, _dir: &Inode<F>, _name: &Dentry<F>, _mode: u32) -> Result<NewInode<F>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a device, FIFO or socket, with the device's major number in the upper 32 bits of
    /// `rdev`. `dir` is locked; `name` does not exist.
    fn mknod(
        _map: &IdMap,
        _dir: &Inode<F>,
        _name: &Dentry<F>,
        _mode: u32,
        _rdev: u64,
    ) -> Result<NewInode<F>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a symbolic link to `target`. `dir` is locked; `name` does not exist.
    fn symlink(
        _map: &IdMap,
        _dir: &Inode<F>,
        _name: &Dentry<F>,
        _target: &CStr,
    ) -> Result<NewInode<F>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a file without a name.
    fn tmpfile(_map: &IdMap, _dir: &Inode<F>, _mode: u32) -> Result<NewInode<F>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Gives `target` another name. `dir` and `target` are locked; `name` does not exist.
    fn link(_target: &Inode<F>, _dir: &Inode<F>, _name: &Dentry<F>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Removes a name that is not a directory's. `dir` and the inode are locked.
    fn unlink(_dir: &Inode<F>, _name: &Dentry<F>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Removes an empty directory. `dir` and the inode are locked.
    fn rmdir(_dir: &Inode<F>, _name: &Dentry<F>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Renames. `whiteout`: the old name then is that of a character device with number 0, which says
    /// that there is nothing. Both directories and the inodes behind the names are locked.
    fn rename(
        _map: &IdMap,
        _old_dir: &Inode<F>,
        _old: &Dentry<F>,
        _new_dir: &Inode<F>,
        _new: &Dentry<F>,
        _mode: RenameMode,
        _whiteout: bool,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Appends the target of a symbolic link.
    fn read_link(_inode: &Inode<F>, _target: &mut KVVec<u8>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes attributes; the checks that are common to all filesystems are done. The inode is
    /// locked.
    fn setattr(_map: &IdMap, _inode: &Inode<F>, _attr: &mut SetAttr<'_, F>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Stores an access control list as the attribute `name`, or takes it away when it is empty,
    /// together with the permission bits that go with it, if those change. The inode is locked.
    fn set_acl(_inode: &Inode<F>, _name: &[u8], _acl: &[u8], _permissions: Option<u32>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds to `stat` what the `struct inode` does not hold.
    fn getattr(_inode: &Inode<F>, _stat: &mut Stat) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// `FS_*_FL` flags and project id.
    fn flags(_inode: &Inode<F>) -> Result<FileFlags> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets flags and project id; permission was checked. The inode is locked.
    fn set_flags(_inode: &Inode<F>, _flags: &FileFlags) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Tells where `len` bytes from `start` lie.
    fn fiemap(_inode: &Inode<F>, _info: &mut FiemapInfo, _start: u64, _len: u64) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The table of `T`.
pub const fn table<F: FileSystem, T: InodeOperations<F>>() -> InodeOps<F> {
    // SAFETY: Each function of the table does what `struct inode_operations` asks of it, for
    // inodes of `F`.
    unsafe { InodeOps::new(&Shims::<F, T>::TABLE) }
}

/// The functions of `struct inode_operations` for `T`.
///
/// All of them are called by the VFS, in process context, with inodes of `F` that are ready and
/// referenced, dentries that are referenced and whose names are stable, and an id mapping that is
/// valid for the call. The locks are those that the trait tells.
struct Shims<F: FileSystem, T: InodeOperations<F>>(PhantomData<(F, T)>);

/// `Some(function)` when `has` says that the implementation has it.
macro_rules! when {
    ($has:expr, $function:expr) => {
        if $has {
            Some($function)
        } else {
            None
        }
    };
}

impl<F: FileSystem, T: InodeOperations<F>> Shims<F, T> {
    const TABLE: bindings::inode_operations = bindings::inode_operations {
        permission: when!(T::HAS_CHECK_WRITABLE, Self::permission),
        update_time: when!(T::HAS_CHECK_WRITABLE, Self::update_time),
        lookup: when!(T::HAS_LOOKUP, Self::lookup),
        create: when!(T::HAS_CREATE, Self::create),
        mkdir: when!(T::HAS_MKDIR, Self::mkdir),
        mknod: when!(T::HAS_MKNOD, Self::mknod),
        symlink: when!(T::HAS_SYMLINK, Self::symlink),
        tmpfile: when!(T::HAS_TMPFILE, Self::tmpfile),
        link: when!(T::HAS_LINK, Self::link),
        unlink: when!(T::HAS_UNLINK, Self::unlink),
        rmdir: when!(T::HAS_RMDIR, Self::rmdir),
        rename: when!(T::HAS_RENAME, Self::rename),
        get_link: when!(T::HAS_READ_LINK, Self::get_link),
        setattr: when!(T::HAS_SETATTR, Self::setattr),
        getattr: when!(T::HAS_GETATTR, Self::getattr),
        get_inode_acl: when!(T::HAS_SET_ACL, acl::get::<F>),
        set_acl: when!(T::HAS_SET_ACL, acl::set::<F, T>),
        listxattr: Some(xattr::list::<F>),
        fileattr_get: when!(T::HAS_FLAGS, Self::fileattr_get),
        fileattr_set: when!(T::HAS_SET_FLAGS, Self::fileattr_set),
        fiemap: when!(T::HAS_FIEMAP, Self::fiemap),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// See [`Shims`]; with `MAY_NOT_BLOCK` in `mask` in an RCU path walk, where the inode may be
    /// on its way out.
    unsafe extern "C" fn permission(
        map: *mut bindings::mnt_idmap,
        inode: *mut bindings::inode,
        mask: c_int,
    ) -> c_int {
        // Devices, FIFOs and sockets are only named by the filesystem.
        const OURS: [u32; 3] = [bindings::S_IFREG, bindings::S_IFDIR, bindings::S_IFLNK];
        from_result(|| {
            let wants = |what: u32| mask as u32 & what != 0;
            // SAFETY: The type bits of a `struct inode` do not change, and its memory is there
            // until a grace period has passed.
            let kind = u32::from(unsafe { (*inode).i_mode }) & bindings::S_IFMT;
            if wants(bindings::MAY_WRITE) && OURS.contains(&kind) {
                // The filesystem's data of the inode is only there for who has a reference.
                if wants(bindings::MAY_NOT_BLOCK) {
                    return Err(ECHILD);
                }
                // SAFETY: By the contract of this function.
                T::check_writable(unsafe { Inode::from_ptr(inode) })?;
            }
            // SAFETY: By the contract of this function.
            to_result(unsafe { bindings::generic_permission(map, inode, mask) })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`].
    unsafe extern "C" fn update_time(
        inode: *mut bindings::inode,
        kind: bindings::fs_update_time,
        flags: c_uint,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function.
            unsafe {
                T::check_writable(Inode::from_ptr(inode))?;
                to_result(bindings::generic_update_time(inode, kind, flags))?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`].
    unsafe extern "C" fn lookup(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        _flags: c_uint,
    ) -> *mut bindings::dentry {
        // SAFETY: By the contract of this function; `dentry` is in lookup.
        let found = unsafe { T::lookup(Inode::from_ptr(dir), Dentry::from_ptr(dentry)) };
        match found {
            // SAFETY: d_splice_alias() takes over the reference.
            Ok(Some(inode)) => unsafe {
                bindings::d_splice_alias(ARef::into_raw(inode).as_ptr().cast(), dentry)
            },
            // SAFETY: A null inode makes a negative dentry.
            Ok(None) => unsafe { bindings::d_splice_alias(core::ptr::null_mut(), dentry) },
            Err(error) => error.to_ptr(),
        }
    }

    /// Ties a new inode to its name and unlocks it.
    ///
    /// # Safety
    ///
    /// `dentry` is negative and its parent is locked.
    unsafe fn instantiate(dentry: *mut bindings::dentry, new: Result<NewInode<F>>) -> c_int {
        from_result(|| {
            let inode = new?.into_raw();
            // SAFETY: The inode is locked by us; the dentry takes over the reference.
            unsafe { bindings::d_instantiate_new(dentry, inode.as_ptr()) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`].
    unsafe extern "C" fn create(
        map: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
    ) -> c_int {
        // SAFETY: By the contract of this function.
        unsafe {
            let name = Dentry::from_ptr(dentry);
            let mode = bindings::S_IFREG | (u32::from(mode) & 0o7777);
            let new = T::create(IdMap::from_ptr(map), Inode::from_ptr(dir), name, mode);
            Self::instantiate(dentry, new)
        }
    }

    /// # Safety
    ///
    /// See [`Shims`].
    unsafe extern "C" fn mkdir(
        map: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
    ) -> *mut bindings::dentry {
        // SAFETY: By the contract of this function.
        let result = unsafe {
            let name = Dentry::from_ptr(dentry);
            let mode = bindings::S_IFDIR | (u32::from(mode) & 0o7777);
            let new = T::mkdir(IdMap::from_ptr(map), Inode::from_ptr(dir), name, mode);
            Self::instantiate(dentry, new)
        };
        // Null: the VFS goes on with its own dentry.
        to_result(result).map_or_else(|error| error.to_ptr(), |()| core::ptr::null_mut())
    }

    /// # Safety
    ///
    /// See [`Shims`].
    unsafe extern "C" fn mknod(
        map: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: bindings::umode_t,
        dev: bindings::dev_t,
    ) -> c_int {
        // SAFETY: By the contract of this function.
        unsafe {
            let (map, dir, name) = (
                IdMap::from_ptr(map),
                Inode::from_ptr(dir),
                Dentry::from_ptr(dentry),
            );
            let new = T::mknod(map, dir, name, u32::from(mode), inode::device_from_c(dev));
            Self::instantiate(dentry, new)
        }
    }

    /// # Safety
    ///
    /// See [`Shims`]; `target` is a string.
    unsafe extern "C" fn symlink(
        map: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        target: *const c_char,
    ) -> c_int {
        // SAFETY: By the contract of this function.
        unsafe {
            let (map, dir, name) = (
                IdMap::from_ptr(map),
                Inode::from_ptr(dir),
                Dentry::from_ptr(dentry),
            );
            let new = T::symlink(map, dir, name, CStr::from_char_ptr(target));
            Self::instantiate(dentry, new)
        }
    }

    /// # Safety
    ///
    /// See [`Shims`]; `file` is being opened, with a negative dentry of its own.
    unsafe extern "C" fn tmpfile(
        map: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        file: *mut bindings::file,
        mode: bindings::umode_t,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function. The dentry takes over the reference.
            unsafe {
                let mode = bindings::S_IFREG | (u32::from(mode) & 0o7777);
                let new = T::tmpfile(IdMap::from_ptr(map), Inode::from_ptr(dir), mode)?;
                let inode = ARef::into_raw(new.ready())
                    .as_ptr()
                    .cast::<bindings::inode>();
                // d_tmpfile() takes the name away that a new inode has.
                bindings::set_nlink(inode, 1);
                bindings::d_tmpfile(file, inode);
                let dentry = (*file).__bindgen_anon_1.f_path.dentry;
                to_result(bindings::finish_open(file, dentry, None))?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`].
    unsafe extern "C" fn link(
        old: *mut bindings::dentry,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function. The new dentry is given a reference.
            unsafe {
                let target = Dentry::<F>::from_ptr(old).inode().ok_or(ENOENT)?;
                T::link(target, Inode::from_ptr(dir), Dentry::from_ptr(dentry))?;
                let target = ARef::into_raw(ARef::from(target));
                bindings::d_instantiate(dentry, target.as_ptr().cast());
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`].
    unsafe extern "C" fn unlink(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function.
            unsafe { T::unlink(Inode::from_ptr(dir), Dentry::from_ptr(dentry))? };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`].
    unsafe extern "C" fn rmdir(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function.
            unsafe { T::rmdir(Inode::from_ptr(dir), Dentry::from_ptr(dentry))? };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`].
    unsafe extern "C" fn rename(
        map: *mut bindings::mnt_idmap,
        old_dir: *mut bindings::inode,
        old: *mut bindings::dentry,
        new_dir: *mut bindings::inode,
        new: *mut bindings::dentry,
        flags: c_uint,
    ) -> c_int {
        from_result(|| {
            let mode = match flags & !bindings::RENAME_WHITEOUT {
                0 => RenameMode::Replace,
                bindings::RENAME_NOREPLACE => RenameMode::NoReplace,
                bindings::RENAME_EXCHANGE => RenameMode::Exchange,
                _ => return Err(EINVAL),
            };
            // SAFETY: By the contract of this function.
            unsafe {
                let (old_dir, new_dir) = (Inode::from_ptr(old_dir), Inode::from_ptr(new_dir));
                let (old, new) = (Dentry::from_ptr(old), Dentry::from_ptr(new));
                let whiteout = flags & bindings::RENAME_WHITEOUT != 0;
                T::rename(
                    IdMap::from_ptr(map),
                    old_dir,
                    old,
                    new_dir,
                    new,
                    mode,
                    whiteout,
                )?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`], except that `dentry` is null when the caller must not sleep (RCU walk).
    unsafe extern "C" fn get_link(
        dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        done: *mut bindings::delayed_call,
    ) -> *const c_char {
        if dentry.is_null() {
            return ECHILD.to_ptr();
        }
        // SAFETY: By the contract of this function.
        match unsafe { Self::read_link(Inode::from_ptr(inode)) } {
            // SAFETY: `done` is the caller's; the string is freed by kfree_link() then.
            Ok(target) => unsafe {
                let (text, _, _) = target.into_raw_parts();
                (*done).fn_ = Some(bindings::kfree_link);
                (*done).arg = text.cast();
                text.cast_const().cast()
            },
            Err(error) => error.to_ptr(),
        }
    }

    /// The target as a C string in memory from kmalloc().
    fn read_link(inode: &Inode<F>) -> Result<KVec<u8>> {
        let mut target = KVVec::new();
        T::read_link(inode, &mut target)?;
        if target.contains(&0) {
            return Err(EUCLEAN);
        }
        let mut text =
            KVec::with_capacity(target.len().checked_add(1).ok_or(EUCLEAN)?, GFP_KERNEL)?;
        text.extend_from_slice(&target, GFP_KERNEL)?;
        text.push(0, GFP_KERNEL)?;
        Ok(text)
    }

    /// # Safety
    ///
    /// See [`Shims`]; `attr` is the caller's. The inode is locked.
    unsafe extern "C" fn setattr(
        map: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut bindings::iattr,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function; a dentry that is changed has an inode.
            unsafe {
                to_result(bindings::setattr_prepare(map, dentry, attr))?;
                let inode = Dentry::<F>::from_ptr(dentry).inode().ok_or(ENOENT)?;
                let mut change = SetAttr::new(map, inode, attr);
                T::setattr(IdMap::from_ptr(map), inode, &mut change)?;
                if (*attr).ia_valid & bindings::ATTR_MODE != 0 {
                    // The list's mask follows the group's bits.
                    to_result(bindings::posix_acl_chmod(map, dentry, inode.mode() as u16))?;
                }
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`]; `path` and `stat` are the caller's.
    unsafe extern "C" fn getattr(
        map: *mut bindings::mnt_idmap,
        path: *const bindings::path,
        stat: *mut bindings::kstat,
        mask: u32,
        _flags: c_uint,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function; a path has an inode.
            unsafe {
                let inode = Dentry::<F>::from_ptr((*path).dentry)
                    .inode()
                    .ok_or(ENOENT)?;
                bindings::generic_fillattr(map, mask, inode.as_ptr(), stat);
                T::getattr(inode, Stat::from_ptr(stat))?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`]; `out` is the caller's.
    unsafe extern "C" fn fileattr_get(
        dentry: *mut bindings::dentry,
        out: *mut kernel::bindings::file_kattr,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function.
            unsafe {
                let inode = Dentry::<F>::from_ptr(dentry).inode().ok_or(ENOENT)?;
                T::flags(inode)?.write(out.cast());
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`]; `attr` is the caller's. The inode is locked.
    unsafe extern "C" fn fileattr_set(
        _map: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut kernel::bindings::file_kattr,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function.
            unsafe {
                let inode = Dentry::<F>::from_ptr(dentry).inode().ok_or(ENOENT)?;
                let flags = FileFlags::read(attr.cast()).map_err(|error| {
                    // What cannot be set is about how data is stored, which swap in use relies on.
                    if inode.is_swapfile() {
                        ETXTBSY
                    } else {
                        error
                    }
                })?;
                T::set_flags(inode, &flags)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Shims`]; `info` is the caller's.
    unsafe extern "C" fn fiemap(
        inode: *mut bindings::inode,
        info: *mut kernel::bindings::fiemap_extent_info,
        start: u64,
        len: u64,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function.
            unsafe {
                let info = FiemapInfo::from_ptr(info.cast());
                T::fiemap(Inode::from_ptr(inode), info, start, len)?;
            }
            Ok(0)
        })
    }
}
