// SPDX-License-Identifier: GPL-2.0

//! Operations of open directories: readdir, seek, fsync.
//!
//! Positions 0 and 1 are `.` and `..`; every other entry has a position of its own from 2 on,
//! which does not change while the entry exists.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::fs_type::FileSystem;
use super::inode::{FileOps, Inode};
use super::ioctl;
use crate::bindings;
use core::marker::PhantomData;
use kernel::error::from_result;
use kernel::prelude::*;

/// Operations of a directory.
#[vtable]
pub trait DirOperations<F: FileSystem> {
    /// Emits the entries from `out.position()` on, until there is no more room. The directory is
    /// locked, shared; no lock that a page fault may need is to be held while emitting.
    fn read(dir: &Inode<F>, out: &mut Emitter<'_>) -> Result;

    /// Makes the directory durable.
    fn sync(dir: &Inode<F>) -> Result;
}

/// Where the entries of a directory go.
///
/// # Invariants
///
/// `ctx` is valid for `'a` and not used by anybody else.
pub struct Emitter<'a> {
    ctx: *mut bindings::dir_context,
    _ctx: PhantomData<&'a mut bindings::dir_context>,
}

impl Emitter<'_> {
    /// The position to go on from.
    pub fn position(&self) -> u64 {
        // SAFETY: By the type invariant.
        u64::try_from(unsafe { (*self.ctx).pos }).unwrap_or(u64::MAX)
    }

    /// Emits an entry at `position`, of type `kind` (`DT_*`). `false` when there is no more room:
    /// then the entry has not been taken.
    pub fn emit(&mut self, name: &[u8], ino: u64, kind: u8, position: u64) -> bool {
        let (Ok(position), Ok(len)) = (i64::try_from(position), c_int::try_from(name.len())) else {
            return false;
        };
        // SAFETY: By the type invariant; the name is `len` bytes long.
        unsafe {
            (*self.ctx).pos = position;
            let taken = bindings::oxfs_helper_dir_emit(
                self.ctx,
                name.as_ptr().cast(),
                len,
                ino,
                u32::from(kind),
            );
            if taken {
                (*self.ctx).pos = position.saturating_add(1);
            }
            taken
        }
    }
}

/// The table of `T`.
pub const fn table<F: FileSystem, T: DirOperations<F>>() -> FileOps<F> {
    // SAFETY: Each function of the table does what `struct file_operations` asks of it, for
    // directories of `F`.
    unsafe { FileOps::new(&Shims::<F, T>::TABLE) }
}

/// The functions of `struct file_operations` for directories.
struct Shims<F: FileSystem, T: DirOperations<F>>(PhantomData<(F, T)>);

impl<F: FileSystem, T: DirOperations<F>> Shims<F, T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: super::THIS_MODULE,
        llseek: Some(Self::llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(Self::iterate),
        unlocked_ioctl: Some(ioctl::ioctl::<F>),
        compat_ioctl: bindings::compat_ptr_ioctl,
        fsync: Some(Self::fsync),
        // No leases: a directory also changes by ioctls, and nothing here takes leases back.
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the VFS with an open directory, its inode locked shared, and the caller's `ctx`.
    unsafe extern "C" fn iterate(
        file: *mut bindings::file,
        ctx: *mut bindings::dir_context,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function.
            unsafe {
                if bindings::oxfs_helper_dir_emit_dots(file, ctx) {
                    let mut out = Emitter {
                        ctx,
                        _ctx: PhantomData,
                    };
                    T::read(Inode::from_file(file), &mut out)?;
                }
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with an open directory.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // Positions are not bytes: the size of the directory does not limit them.
        // SAFETY: By the contract of this function.
        unsafe { bindings::generic_file_llseek_size(file, offset, whence, i64::MAX, i64::MAX) }
    }

    /// # Safety
    ///
    /// Called by the VFS with an open directory, no locks held.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        _start: bindings::loff_t,
        _end: bindings::loff_t,
        _datasync: c_int,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the contract of this function.
            T::sync(unsafe { Inode::from_file(file) })?;
            Ok(0)
        })
    }
}
