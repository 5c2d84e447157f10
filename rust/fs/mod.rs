// SPDX-License-Identifier: GPL-2.0

//! The glue: what the kernel asks of a filesystem, answered by the engine.
//!
//! Everything here is safe code, and nothing here knows the format. Each module answers one table of
//! the VFS:
//!
//! | table | modules |
//! |---|---|
//! | mount, super block | [`mount`], [`super_block`], [`device`], [`export`], [`ioctl`], [`resize`] |
//! | subvolumes | [`subvolume`], [`barrier`], [`request`] |
//! | inodes, names | [`inode`], [`namei`], [`dir`], [`attr`], [`xattr`] |
//! | file content | [`data`], [`file`], [`iomap`], [`writeback`], [`writes`], [`truncate`], [`fallocate`], [`remap`], [`fiemap`], [`swap`], [`swap_status`] |
//!
//! The engine is called through [`super_block::State::query`], which reads, and
//! [`super_block::State::join`], which changes.

use crate::engine::format::STATFS_MAGIC;
use crate::engine::types::MAX_FILE_SIZE;
use crate::vfs;
use crate::vfs::fs_type::Type;
use kernel::prelude::*;

pub mod attr;
pub mod barrier;
pub mod data;
pub mod device;
pub mod dir;
pub mod errno;
pub mod export;
pub mod fallocate;
pub mod fiemap;
pub mod file;
pub mod inode;
pub mod ioctl;
pub mod iomap;
pub mod mount;
pub mod namei;
pub mod remap;
pub mod request;
pub mod resize;
pub mod subvolume;
pub mod super_block;
pub mod swap;
pub mod swap_status;
pub mod truncate;
pub mod writeback;
pub mod writes;
pub mod xattr;

pub use inode::InodeExt;

/// An inode of this filesystem.
pub type Inode = vfs::Inode<Oxfs>;
/// A mounted volume, to the VFS.
pub type SuperBlock = vfs::SuperBlock<Oxfs>;
/// A mounted volume, to the engine.
pub type Volume = crate::engine::Volume<device::Device>;

/// The filesystem.
pub struct Oxfs;

/// Its type, to be registered when the module is loaded.
pub static TYPE: Type<Oxfs> = Type::new();

impl vfs::FileSystem for Oxfs {
    const NAME: &'static CStr = c"oxfs";
    const CACHE_NAME: &'static CStr = c"oxfs_inode_cache";
    const MAGIC: u64 = STATFS_MAGIC as u64;
    const BLOCK_SIZE: u32 = 4096;
    const MAX_FILE_SIZE: u64 = MAX_FILE_SIZE;

    type Super = super_block::State;
    type Inode = inode::Data;
    type Options = mount::Options;

    type Context = mount::Context;
    type SuperOps = super_block::Operations;
    type Xattrs = xattr::Operations;
    type Export = export::Operations;
    type Ioctl = ioctl::Operations;
}
