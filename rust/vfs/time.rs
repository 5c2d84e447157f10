// SPDX-License-Identifier: GPL-2.0

//! Time stamps of inodes.
//!
//! C header: [`include/linux/time64.h`](srctree/include/linux/time64.h)

use crate::bindings;

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds within the second: 0 to 999,999,999.
    pub nsec: u32,
}

impl Timespec {
    pub(super) fn from_c(time: bindings::timespec64) -> Self {
        // The kernel keeps `tv_nsec` below a second.
        Self {
            sec: time.tv_sec,
            nsec: time.tv_nsec as u32,
        }
    }

    pub(super) fn to_c(self) -> bindings::timespec64 {
        bindings::timespec64 {
            tv_sec: self.sec,
            tv_nsec: self.nsec as isize,
        }
    }
}

/// The three time stamps that the VFS keeps in an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// Last access.
    pub atime: Timespec,
    /// Last change of the content.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
}

impl Times {
    /// # Safety
    ///
    /// `inode` is live.
    pub(super) unsafe fn read(inode: *mut bindings::inode) -> Self {
        // SAFETY: By the contract of this function.
        unsafe {
            Self {
                atime: Timespec {
                    sec: (&raw const (*inode).i_atime_sec).read_volatile(),
                    nsec: (&raw const (*inode).i_atime_nsec).read_volatile(),
                },
                mtime: Timespec {
                    sec: (&raw const (*inode).i_mtime_sec).read_volatile(),
                    nsec: (&raw const (*inode).i_mtime_nsec).read_volatile(),
                },
                ctime: Self::ctime(inode),
            }
        }
    }

    /// # Safety
    ///
    /// `inode` is live.
    unsafe fn ctime(inode: *mut bindings::inode) -> Timespec {
        // The nanoseconds carry a flag of the multigrain time stamps, which the helper masks.
        // SAFETY: By the contract of this function.
        Timespec::from_c(unsafe { bindings::oxfs_helper_inode_get_ctime(inode) })
    }

    /// Sets those times that are not the same as in `seen`. Others may have changed meanwhile, and
    /// stay.
    ///
    /// # Safety
    ///
    /// `inode` is live.
    pub(super) unsafe fn write(&self, seen: &Self, inode: *mut bindings::inode) {
        // SAFETY: By the contract of this function.
        unsafe {
            if self.atime != seen.atime {
                (&raw mut (*inode).i_atime_sec).write_volatile(self.atime.sec);
                (&raw mut (*inode).i_atime_nsec).write_volatile(self.atime.nsec);
            }
            if self.mtime != seen.mtime {
                (&raw mut (*inode).i_mtime_sec).write_volatile(self.mtime.sec);
                (&raw mut (*inode).i_mtime_nsec).write_volatile(self.mtime.nsec);
            }
            // Storing the same time again would forget that somebody has looked at it.
            if self.ctime != seen.ctime && Self::ctime(inode) != self.ctime {
                bindings::inode_set_ctime_to_ts(inode, self.ctime.to_c());
            }
        }
    }
}
