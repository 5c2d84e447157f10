// SPDX-License-Identifier: GPL-2.0

//! Safe Rust over the kernel's C interface for filesystems, as far as the `kernel` crate does not
//! cover it. Everything unsafe of the module is here and in the kernel half of `platform`.
//!
//! A filesystem implements [`FileSystem`] and the traits of its tables ([`fc::ContextOperations`],
//! [`super_block::SuperOperations`], [`inode_ops::InodeOperations`] and so on: one `#[vtable]`
//! trait for each table of C functions), and registers a [`fs_type::Type`].
//!
//! Locks rank `sb_start_write` > `i_rwsem` > `mmap_lock` > `invalidate_lock` > folio lock >
//! `sb_start_intwrite` ([`super_block::IntWrite`]) > the filesystem's own.

pub mod acl;
pub mod aops;
pub mod attr;
pub mod background;
pub mod block;
pub mod dentry;
pub mod dir;
pub mod dir_change;
pub mod direct;
pub mod export;
pub mod fc;
pub mod fiemap;
pub mod file;
pub mod flags;
pub mod freeze;
pub mod fs_type;
pub mod inherit;
pub mod inode;
pub mod inode_lock;
pub mod inode_ops;
pub mod ioctl;
pub mod iomap;
pub mod log;
pub mod mmap;
pub mod nofs;
pub mod prune;
pub mod reads;
pub mod remap;
pub mod seq_file;
pub mod super_block;
pub mod swap;
pub mod time;
pub mod wait;
pub mod workqueue;
pub mod writeback;
pub mod xattr;

pub use fs_type::FileSystem;
pub use inode::{FileOps, Inode, MappingOps};
pub use super_block::SuperBlock;

/// The module, as the owner of tables that C code calls.
const THIS_MODULE: *mut crate::bindings::module =
    <crate::LocalModule as kernel::ModuleMetadata>::THIS_MODULE.as_ptr();
