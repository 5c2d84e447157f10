// SPDX-License-Identifier: GPL-2.0

//! A moment in which nobody writes: all writers are stopped, everything dirty is written, the
//! filesystem does what needs that in [`SuperOperations::freeze`], and the writers go on.
//!
//! It is done there and not between freezing and thawing, because a freeze of the user's may begin
//! while this one is in force, and would then see the device change; a user who comes earlier waits
//! until the operation is over. When the user's freeze was there first the operation is not called
//! at all: the caller has to see whether its work was done.
//!
//! [`SuperOperations::freeze`]: super::super_block::SuperOperations::freeze

use super::file::OpenFile;
use super::fs_type::FileSystem;
use super::super_block::SuperBlock;
use crate::bindings;
use core::ptr;
use kernel::error::to_result;
use kernel::prelude::*;

/// Whether the calling task is to stop, because the system is being suspended. A task that was waiting
/// for write access then may be given it, and keep it until the system is resumed: who stopped writers
/// would wait for that long, which the suspension does not.
pub fn is_suspending() -> bool {
    // SAFETY: It looks at the current task only.
    unsafe { bindings::oxfs_helper_freezing() }
}

/// Waits until the system has been resumed, if it is being suspended. No lock is held.
pub fn wait_for_resume() {
    // SAFETY: The task may sleep.
    unsafe { bindings::oxfs_helper_try_to_freeze() }
}

impl<F: FileSystem> SuperBlock<F> {
    /// Whether it is at the point of being frozen where writers and page faults are stopped, and what
    /// is dirty is written. To be asked by [`SuperOperations::sync`], which is called then.
    ///
    /// [`SuperOperations::sync`]: super::super_block::SuperOperations::sync
    pub fn is_freezing(&self) -> bool {
        self.freeze_level() == bindings::SB_FREEZE_PAGEFAULT
    }

    /// Whether what is dirty has to stay so, because everything is stopped, also
    /// [`SuperBlock::start_intwrite`]. Who asks for a file of its own waits for the thaw instead.
    ///
    /// What can be dirty then is what those have written to whom nobody stops: devices, in pinned pages,
    /// and the kernel's targets. To write it back takes a change of the volume, which waits for the thaw.
    /// That waits for `s_umount`, which the flusher and `sync(2)` hold. (They also wait for the end of what
    /// began to be written just before everything was stopped; this is not looked after.)
    ///
    /// # Safety
    ///
    /// `wbc` is what the VFS wants to be written back now, of an inode of this super block.
    pub(super) unsafe fn has_to_stay_dirty(&self, wbc: *const bindings::writeback_control) -> bool {
        if self.freeze_level() < bindings::SB_FREEZE_FS {
            return false;
        }
        // SAFETY: By the contract of this function.
        let (mode, for_sync) = unsafe { ((*wbc).sync_mode, (*wbc).for_sync()) };
        if mode != bindings::writeback_sync_modes_WB_SYNC_ALL || for_sync != 0 {
            return true;
        }
        drop(self.start_intwrite());
        false
    }

    fn freeze_level(&self) -> u32 {
        // SAFETY: A load of one word, which changes with `s_umount` held exclusively.
        u32::from(unsafe { (&raw const (*self.as_ptr()).s_writers.frozen).read_volatile() })
    }
}

impl<F: FileSystem> OpenFile<F> {
    fn sb(&self) -> *mut bindings::super_block {
        self.inode().super_block().as_ptr()
    }

    /// Writes out everything that is dirty, and waits, while others go on making things dirty. No
    /// lock of the VFS is held.
    pub fn flush_filesystem(&self) -> Result {
        let sb = self.sb();
        // SAFETY: An open file keeps its super block active; the callee wants `s_umount` held.
        to_result(unsafe {
            bindings::down_read(&raw mut (*sb).s_umount);
            let result = bindings::sync_filesystem(sb);
            bindings::up_read(&raw mut (*sb).s_umount);
            result
        })
    }

    /// Stops all writers, and lets them go on. `EBUSY` while somebody else in the kernel does so.
    /// Neither write access nor any lock of the VFS is held: writers that are being waited for may
    /// need it. Not to be called while [`is_suspending`].
    pub fn stop_writers(&self) -> Result {
        let sb = self.sb();
        let who = bindings::freeze_holder_FREEZE_HOLDER_KERNEL;
        // SAFETY: As above; what was frozen is thawed again by the same holder.
        unsafe {
            to_result(bindings::freeze_super(sb, who, ptr::null()))?;
            to_result(bindings::thaw_super(sb, who, ptr::null()))
        }
    }
}
