// SPDX-License-Identifier: GPL-2.0

//! Attributes on their way between the VFS and a filesystem: what stat(2) tells, what chmod(2)
//! and its relatives ask for, and the flags of chattr(1).
//!
//! C headers: [`include/linux/stat.h`](srctree/include/linux/stat.h),
//! [`include/linux/fileattr.h`](srctree/include/linux/fileattr.h)

use super::fs_type::FileSystem;
use super::inode::Inode;
use super::time::{Times, Timespec};
use crate::bindings;
use kernel::prelude::*;
use kernel::types::Opaque;

/// A change of attributes that the VFS has checked.
///
/// # Invariants
///
/// The pointers are valid for `'a`, and the inode is locked exclusively.
pub struct SetAttr<'a, F: FileSystem> {
    map: *mut bindings::mnt_idmap,
    inode: &'a Inode<F>,
    attr: *mut bindings::iattr,
}

/// Owner, mode and times of an inode, to go back to them.
#[derive(Clone, Copy)]
pub struct Saved {
    mode: u32,
    uid: u32,
    gid: u32,
    times: Times,
}

impl<'a, F: FileSystem> SetAttr<'a, F> {
    /// # Safety
    ///
    /// As the type invariants say.
    pub(super) unsafe fn new(
        map: *mut bindings::mnt_idmap,
        inode: &'a Inode<F>,
        attr: *mut bindings::iattr,
    ) -> Self {
        Self { map, inode, attr }
    }

    fn valid(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { (*self.attr).ia_valid }
    }

    /// The new size, if it is to change.
    pub fn size(&self) -> Option<u64> {
        if self.valid() & bindings::ATTR_SIZE == 0 {
            return None;
        }
        // SAFETY: By the type invariant. setattr_prepare() refused negative sizes.
        Some(u64::try_from(unsafe { (*self.attr).ia_size }).unwrap_or(0))
    }

    /// Whether anything but the size changes.
    pub fn has_attributes(&self) -> bool {
        const OURS: u32 = bindings::ATTR_MODE
            | bindings::ATTR_UID
            | bindings::ATTR_GID
            | bindings::ATTR_ATIME
            | bindings::ATTR_MTIME
            | bindings::ATTR_CTIME;
        self.valid() & OURS != 0
    }

    /// A truncation that changed the size sets the times of change, as POSIX has it, whether or
    /// not the caller asked for it.
    pub fn touch(&mut self) {
        // SAFETY: By the type invariant; the VFS has put the time now in both.
        unsafe { (*self.attr).ia_valid |= bindings::ATTR_MTIME | bindings::ATTR_CTIME };
    }

    /// Applies the change, without the size, to the `struct inode`, and returns what to go back
    /// to with [`Self::undo`] if it cannot be stored.
    pub fn apply(&self) -> Saved {
        let inode = self.inode;
        let saved = Saved {
            mode: inode.mode(),
            uid: inode.uid(),
            gid: inode.gid(),
            times: inode.times(),
        };
        // SAFETY: By the type invariants.
        unsafe { bindings::setattr_copy(self.map, inode.as_ptr(), self.attr) };
        saved
    }

    /// Takes back what [`Self::apply`] did.
    pub fn undo(&self, saved: &Saved) {
        let inode = self.inode;
        inode.set_attributes(saved.mode, saved.uid, saved.gid, inode.nlink());
        inode.set_times(&saved.times);
    }
}

/// What stat(2) will tell.
#[repr(transparent)]
pub struct Stat(Opaque<bindings::kstat>);

impl Stat {
    /// # Safety
    ///
    /// `stat` is filled in as generic_fillattr() does, and only used by the caller during `'a`.
    pub(super) unsafe fn from_ptr<'a>(stat: *mut bindings::kstat) -> &'a mut Self {
        // SAFETY: `Self` is transparent over it.
        unsafe { &mut *stat.cast() }
    }

    fn get(&mut self) -> &mut bindings::kstat {
        // SAFETY: The invariant of `from_ptr`: nobody else uses it.
        unsafe { &mut *self.0.get() }
    }

    /// Sets the time of creation.
    pub fn set_btime(&mut self, time: Timespec) {
        let stat = self.get();
        stat.btime = time.to_c();
        stat.result_mask |= bindings::STATX_BTIME;
    }

    /// Sets the subvolume's number.
    pub fn set_subvolume(&mut self, subvolume: u64) {
        let stat = self.get();
        stat.subvol = subvolume;
        stat.result_mask |= bindings::STATX_SUBVOL;
    }

    /// Adds blocks, in sectors of 512 bytes.
    pub fn add_sectors(&mut self, sectors: u64) {
        let stat = self.get();
        stat.blocks = stat.blocks.saturating_add(sectors);
    }

    /// Sets the alignment of direct I/O: of memory, and of offsets in the file, in bytes.
    pub fn set_direct_io(&mut self, memory: u32, offset: u32) {
        let stat = self.get();
        stat.dio_mem_align = memory;
        stat.dio_offset_align = offset;
        stat.result_mask |= bindings::STATX_DIOALIGN;
    }

    /// Tells which of the `FS_*_FL` flags are set, of those that statx(2) shows.
    pub fn set_flags(&mut self, flags: u32) {
        const SHOWN: [(u32, u32); 3] = [
            (bindings::FS_IMMUTABLE_FL, bindings::STATX_ATTR_IMMUTABLE),
            (bindings::FS_APPEND_FL, bindings::STATX_ATTR_APPEND),
            (bindings::FS_NODUMP_FL, bindings::STATX_ATTR_NODUMP),
        ];
        let stat = self.get();
        for (flag, attribute) in SHOWN {
            if flags & flag != 0 {
                stat.attributes |= u64::from(attribute);
            }
            stat.attributes_mask |= u64::from(attribute);
        }
    }
}

/// Flags of chattr(1) and the project id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileFlags {
    /// `FS_*_FL`.
    pub flags: u32,
    /// The project id; `None`: stays as it is.
    pub project: Option<u32>,
}

impl FileFlags {
    /// # Safety
    ///
    /// `out` is only used by the caller.
    pub(super) unsafe fn write(&self, out: *mut bindings::file_kattr) {
        // SAFETY: By the contract of this function.
        unsafe {
            bindings::fileattr_fill_flags(out, self.flags);
            (*out).fsx_projid = self.project.unwrap_or(0);
        }
    }

    /// # Safety
    ///
    /// `attr` is valid and not changed during the call.
    pub(super) unsafe fn read(attr: *const bindings::file_kattr) -> Result<Self> {
        // SAFETY: By the contract of this function.
        let attr = unsafe { &*attr };
        if !attr.fsx_valid() {
            return Ok(Self {
                flags: attr.flags,
                project: None,
            });
        }
        // The VFS has translated the flags that both interfaces have.
        if attr.fsx_extsize != 0
            || attr.fsx_cowextsize != 0
            || attr.fsx_xflags & !bindings::OXFS_FS_XFLAG_COMMON != 0
        {
            return Err(EOPNOTSUPP);
        }
        Ok(Self {
            flags: attr.flags,
            project: Some(attr.fsx_projid),
        })
    }
}
