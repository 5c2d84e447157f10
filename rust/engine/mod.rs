// SPDX-License-Identifier: GPL-2.0

//! The filesystem itself: format, trees, space, transactions, files, directories, swap.
//!
//! No kernel types, safe code only: the same files are compiled into the module and into the host
//! crate. Below it are a block device ([`device`]) and the platform (memory, locks, checksums).
//!
//! | layer | modules |
//! |---|---|
//! | what it is | [`types`], [`error`], [`format`] |
//! | blocks | [`device`], [`super_block`], [`bitmap`], [`space`], [`readers`] |
//! | trees | [`node`], [`store`], [`tree`], [`tree_write`], [`refs`] |
//! | transactions | [`volume`], [`commit`], [`mount`], [`mkfs`] |
//! | files | [`inode`], [`extent`], [`data`], [`reflink`], [`swap`], [`swap_plan`], [`swap_apply`], [`discard`], [`orphan`] |
//! | subvolumes | [`subvolume`], [`snapshot`], [`dropping`] |
//! | another size | [`resize`], [`relocate`] |
//! | repair, on the host only | `repair` |
//! | names | [`dir`], [`path`], [`namei`], [`rename`], [`symlink`], [`xattr`], [`hash`] |

pub mod bitmap;
pub mod commit;
pub mod data;
pub mod device;
pub mod dir;
pub mod discard;
pub mod dropping;
pub mod error;
pub mod extent;
pub mod format;
pub mod hash;
pub mod inode;
pub mod mkfs;
pub mod mount;
pub mod namei;
pub mod node;
pub mod orphan;
pub mod path;
pub mod ranges;
pub mod readers;
pub mod reflink;
pub mod refs;
pub mod relocate;
pub mod rename;
#[cfg(not(MODULE))]
pub mod repair;
pub mod resize;
pub mod snapshot;
pub mod space;
pub mod store;
pub mod subvolume;
pub mod super_block;
pub mod swap;
pub mod swap_apply;
pub mod swap_plan;
pub mod symlink;
pub mod tree;
pub mod tree_write;
pub mod types;
pub mod usage;
pub mod volume;
pub mod xattr;

pub use device::BlockDevice;
pub use error::{Error, Result};
pub use tree::{TreeId, View};
pub use tree_write::Txn;
pub use volume::{Cost, Volume};
