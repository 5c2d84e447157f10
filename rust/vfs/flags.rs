// SPDX-License-Identifier: GPL-2.0

//! Flags of chattr(1), and those of them that the VFS enforces.
//!
//! C header: [`include/uapi/linux/fs.h`](srctree/include/uapi/linux/fs.h)

use crate::bindings;

/// Writes are synchronous.
pub const SYNC: u32 = bindings::FS_SYNC_FL;
/// Nothing changes.
pub const IMMUTABLE: u32 = bindings::FS_IMMUTABLE_FL;
/// Only appending changes.
pub const APPEND: u32 = bindings::FS_APPEND_FL;
/// Not to be dumped.
pub const NODUMP: u32 = bindings::FS_NODUMP_FL;
/// Access times are not kept.
pub const NOATIME: u32 = bindings::FS_NOATIME_FL;
/// Changes of the directory are synchronous.
pub const DIRSYNC: u32 = bindings::FS_DIRSYNC_FL;
/// New inodes take over the project of the directory.
pub const PROJINHERIT: u32 = bindings::FS_PROJINHERIT_FL;

/// The flags that the VFS enforces, and the bit of `i_flags` for each.
pub const ENFORCED: [(u32, u32); 5] = [
    (SYNC, bindings::S_SYNC),
    (IMMUTABLE, bindings::S_IMMUTABLE),
    (APPEND, bindings::S_APPEND),
    (NOATIME, bindings::S_NOATIME),
    (DIRSYNC, bindings::S_DIRSYNC),
];
