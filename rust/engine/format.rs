// SPDX-License-Identifier: GPL-2.0

//! The format on disk. Every number is little endian; a block has 4096 bytes.
//!
//! | where | what |
//! |---|---|
//! | block 16 | super block, slot A |
//! | block 1024 | super block, slot B |
//! | size - 17, size - 1025 | the mirrors of A and B |
//! | group + 0, group + 256 | the two places of a group's bitmap (group 0: blocks 17 and 1025) |
//! | anywhere else | tree nodes and file data |
//!
//! A group is 32768 blocks. Its bitmap has one bit a block, set when the block is mapped; blocks
//! beyond the end of the device, super blocks and the two places are always set. A last group with
//! fewer than 2048 blocks is not used.
//!
//! The keys of all trees are `(object u64, kind u8, offset u64)`, ordered in that order:
//!
//! | tree | key | value |
//! |---|---|---|
//! | forest | `(subvolume, FOREST, 0)` | [`ForestItem`] |
//! | space | `(group, SPACE, 0)` | [`SpaceItem`]; absent: the group is all free |
//! | refs | `(first block, REFS, 0)` | [`RefsItem`] |
//! | swap | `(subvolume:24 ino:40, SWAP, file block)` | [`ExtentItem`] |
//! | subvolume | `(ino, INODE, 0)` | [`InodeItem`] |
//! | subvolume | `(ino, DIRENT, cookie)` | [`DirentItem`], then the name |
//! | subvolume | `(ino, XATTR, hash:56 seq:8)` | [`XattrItem`], then the name, then the value |
//! | subvolume | `(ino, PARENT, hash:56 seq:8)` | [`ParentItem`] |
//! | subvolume | `(ino, EXTENT, file block)` | [`ExtentItem`] |
//! | subvolume | `(ino, SYMLINK, chunk)` | up to [`SYMLINK_CHUNK`] bytes of the target |
//! | subvolume | `(0, ORPHAN, ino)` | [`OrphanItem`] |
#![cfg_attr(not(MODULE), doc = include_str!("FORMAT.md"))]

use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive as disk;

/// First bytes of a super block after its checksum.
pub const SUPER_MAGIC: [u8; 12] = *b"oxfs\xf0\x9f\x90\x82vol1";
/// `statfs` magic: "oxfs", as `stat -f` prints it.
pub const STATFS_MAGIC: u32 = 0x6f78_6673;
/// First bytes of a tree node after its checksum.
pub const NODE_MAGIC: u32 = 0x6e78_6f31;
/// The version of the format that this code reads and writes.
pub const VERSION: u32 = 1;
/// Checksum type: crc32c.
pub const CHECKSUM_CRC32C: u8 = 1;

/// Blocks of a group.
pub const GROUP_BLOCKS: u64 = 32768;
/// A last group with fewer blocks than this is left unused.
pub const MIN_GROUP_BLOCKS: u64 = 2048;
/// Smallest volume, in blocks: 16 MiB.
pub const MIN_BLOCKS: u64 = 4096;
/// Largest volume, in blocks: 2^50 bytes.
pub const MAX_BLOCKS: u64 = 1 << 38;
/// The super block slots.
pub const SUPER_SLOTS: [u64; 2] = [16, 1024];
/// Bytes of a symbolic link's target in one item.
pub const SYMLINK_CHUNK: usize = 1024;
/// Largest value of an item, in bytes: a third of a node.
pub const MAX_ITEM: usize = 1300;
/// No generation is this high: 2^62 leaves room to count without overflow.
pub const MAX_GENERATION: u64 = 1 << 62;
/// Most levels of a tree.
pub const MAX_LEVELS: usize = 10;

/// The trees, as written in their nodes.
pub mod tree_kind {
    /// Subvolume id to root.
    pub const FOREST: u8 = 1;
    /// Group to bitmap.
    pub const SPACE: u8 = 2;
    /// Blocks with more than one owner.
    pub const REFS: u8 = 3;
    /// Private blocks of swapfiles.
    pub const SWAP: u8 = 4;
    /// Inodes, directories, extents.
    pub const SUBVOLUME: u8 = 5;
}

/// The kinds of items.
pub mod item_kind {
    /// Forest tree: a subvolume.
    pub const FOREST: u8 = 1;
    /// Space tree: a group.
    pub const SPACE: u8 = 2;
    /// Refs tree: a run of shared blocks.
    pub const REFS: u8 = 3;
    /// Swap tree: a run of a swapfile's blocks.
    pub const SWAP: u8 = 4;
    /// An inode whose content is to be dropped.
    pub const ORPHAN: u8 = 8;
    /// An inode.
    pub const INODE: u8 = 16;
    /// A name in a directory.
    pub const DIRENT: u8 = 17;
    /// An extended attribute.
    pub const XATTR: u8 = 18;
    /// Where an inode has a name.
    pub const PARENT: u8 = 19;
    /// A piece of a symbolic link's target.
    pub const SYMLINK: u8 = 20;
    /// A run of a file's blocks.
    pub const EXTENT: u8 = 24;
}

/// Feature words: a bit that this code does not know means, in `compat` nothing, in `ro_compat`
/// mount with `ro` only, in `incompat` do not mount.
pub mod feature {
    /// Known bits of `ro_compat`.
    pub const RO_COMPAT: u64 = 0;
    /// Known bits of `incompat`.
    pub const INCOMPAT: u64 = 0;
}

/// States of a volume, bits of `SuperBlock::state`.
pub mod state {
    /// Unmounted in order.
    pub const CLEAN: u32 = 1;
    /// Damage was found.
    pub const ERROR: u32 = 2;
}

/// A pointer to a tree's root node.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct RootItem {
    /// The node.
    pub block: U64,
    /// The generation that wrote it.
    pub generation: U64,
    /// Its level: 0 is a leaf.
    pub level: u8,
    /// Zeros.
    pub reserved: [u8; 7],
}

/// The super block.
#[derive(
    Clone,
    Copy,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct SuperBlock {
    /// crc32c of the rest of the block.
    pub crc: U32,
    /// [`SUPER_MAGIC`].
    pub magic: [u8; 12],
    /// The volume's uuid, which users see and may change.
    pub uuid: [u8; 16],
    /// The uuid that every metadata block carries.
    pub metadata_uuid: [u8; 16],
    /// Where this copy belongs.
    pub block: U64,
    /// [`VERSION`].
    pub version: U32,
    /// [`CHECKSUM_CRC32C`].
    pub checksum: u8,
    /// log2 of the block size: 12.
    pub block_shift: u8,
    /// log2 of the node size: 12.
    pub node_shift: u8,
    /// log2 of the blocks of a group: 15.
    pub group_shift: u8,
    /// Size of the volume in blocks.
    pub blocks: U64,
    /// The transaction that this super block ends.
    pub generation: U64,
    /// Bits of [`state`].
    pub state: U32,
    /// Zeros.
    pub reserved0: U32,
    /// Features that old code may ignore.
    pub compat: U64,
    /// Features that old code may ignore when it only reads.
    pub ro_compat: U64,
    /// Features that old code must refuse.
    pub incompat: U64,
    /// Key of the hashes of names.
    pub hash_seed: [u8; 16],
    /// The subvolume that a mount without `subvol=` shows.
    pub default_subvolume: U64,
    /// The number of the next subvolume.
    pub next_subvolume: U64,
    /// The forest tree.
    pub forest: RootItem,
    /// The space tree.
    pub space: RootItem,
    /// The refs tree.
    pub refs: RootItem,
    /// The swap tree.
    pub swap: RootItem,
    /// The root of an fsync log: zeros in version 1.
    pub log: RootItem,
    /// Free blocks, as of this generation.
    pub free_blocks: U64,
    /// This device's number and the number of devices: 0 and 1 in version 1.
    pub device: U32,
    /// See `device`.
    pub devices: U32,
    /// UTF-8, ended by a zero byte if shorter.
    pub label: [u8; 256],
    /// Zeros.
    pub reserved: [u8; 3560],
}

/// The head of every tree node.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct NodeHeader {
    /// crc32c of the rest of the block.
    pub crc: U32,
    /// [`NODE_MAGIC`].
    pub magic: U32,
    /// `SuperBlock::metadata_uuid`.
    pub uuid: [u8; 16],
    /// Where this node belongs.
    pub block: U64,
    /// The transaction that wrote it.
    pub generation: U64,
    /// The subvolume that wrote it: information only, a shared node has many owners.
    pub owner: U64,
    /// One of [`tree_kind`].
    pub tree: u8,
    /// Distance to the leaves: 0 is a leaf.
    pub level: u8,
    /// Number of slots.
    pub count: U16,
    /// Leaf: where the values begin; they fill the block from there to its end.
    pub data_start: U16,
    /// Zeros.
    pub reserved: [u8; 10],
}

/// A key on disk.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct DiskKey {
    /// First part.
    pub object: U64,
    /// Third part.
    pub offset: U64,
    /// Second part: one of [`item_kind`].
    pub kind: u8,
}

/// A slot of a leaf.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct LeafSlot {
    /// The item's key.
    pub key: DiskKey,
    /// Zero.
    pub reserved: u8,
    /// Where its value begins in the block.
    pub at: U16,
    /// Bytes of its value.
    pub len: U16,
}

/// A slot of an inner node. All keys below it are `key` or more, and less than the next slot's.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct InnerSlot {
    /// Lower bound of the keys below.
    pub key: DiskKey,
    /// The node below.
    pub child: U64,
    /// The generation that wrote it.
    pub generation: U64,
}

/// Forest tree: a subvolume.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct ForestItem {
    /// Its tree.
    pub root: RootItem,
    /// Bit 0: read-only. Bit 1: being dropped.
    pub flags: U64,
    /// The subvolume that it is a snapshot of, or `u64::MAX`.
    pub parent: U64,
    /// The generation of its last snapshot, as source or as copy; 0 if there is none.
    pub last_snapshot: U64,
    /// The number of its next inode.
    pub next_ino: U64,
    /// Its home: the subvolume in which a directory stands for it. See `subvolume.rs`.
    pub home_subvolume: U64,
    /// The directory there; 0 if it has no home.
    pub home_ino: U64,
    /// Blocks that dropping it let go of so far.
    pub dropped: U64,
    /// Its uuid.
    pub uuid: [u8; 16],
    /// When it was made: seconds.
    pub created_sec: U64,
    /// When it was made: nanoseconds.
    pub created_nsec: U32,
    /// Zeros.
    pub reserved: U32,
    /// The uuid of the subvolume that it is a snapshot of, or zeros.
    pub parent_uuid: [u8; 16],
}

/// Flags of a subvolume.
pub mod subvolume_flag {
    /// Nothing in it may change.
    pub const READ_ONLY: u64 = 1;
    /// It is being dropped: only its tree's structure is whole.
    pub const DROPPING: u64 = 2;
}

/// Space tree: a group.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct SpaceItem {
    /// The transaction that wrote the bitmap.
    pub generation: U64,
    /// crc32c of metadata uuid, block and generation (u64 each) and bitmap.
    pub crc: U32,
    /// Free blocks.
    pub free: U32,
    /// At least the length of the longest free run.
    pub longest: U32,
    /// Which of the group's two places holds the bitmap: 0 or 1.
    pub place: u8,
    /// Zeros.
    pub reserved: [u8; 3],
}

/// Refs tree: a run of blocks with the same number of owners, 2 or more.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct RefsItem {
    /// Number of blocks.
    pub len: U64,
    /// Number of owners.
    pub count: U32,
    /// Zeros.
    pub reserved: U32,
}

/// States of an extent.
pub mod extent_state {
    /// Blocks with data.
    pub const WRITTEN: u8 = 1;
    /// Blocks that read as zeros.
    pub const PREALLOC: u8 = 2;
    /// No blocks (`at` is 0), reads as zeros, counts in `st_blocks`.
    pub const UNBACKED: u8 = 3;
}

/// A run of a file's blocks, in a subvolume tree or the swap tree.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct ExtentItem {
    /// The first block.
    pub at: U64,
    /// Number of blocks.
    pub len: U64,
    /// The transaction that mapped it.
    pub generation: U64,
    /// One of [`extent_state`].
    pub state: u8,
    /// Zero; another value is an incompat feature.
    pub flags: u8,
    /// Zeros.
    pub reserved: [u8; 6],
}

/// A time on disk.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct DiskTime {
    /// Seconds since 1970, signed (two's complement).
    pub sec: U64,
    /// Nanoseconds, less than 10^9.
    pub nsec: U32,
}

/// An inode.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct InodeItem {
    /// Bytes.
    pub size: U64,
    /// Blocks mapped or promised.
    pub blocks: U64,
    /// Device number: major in the upper 32 bits. Of a directory that stands for a subvolume, that
    /// one's number.
    pub rdev: U64,
    /// `FS_*_FL` flags; bit 63: the swap tree may hold blocks of it; bit 62: it was made to stand
    /// for a subvolume.
    pub flags: U64,
    /// Random.
    pub generation: U64,
    /// Change cookie.
    pub change: U64,
    /// As in `st_mode`.
    pub mode: U32,
    /// Owner.
    pub uid: U32,
    /// Group.
    pub gid: U32,
    /// Number of names.
    pub nlink: U32,
    /// Project id.
    pub project: U32,
    /// Last access.
    pub atime: DiskTime,
    /// Last change of the content.
    pub mtime: DiskTime,
    /// Last change of the inode.
    pub ctime: DiskTime,
    /// Creation.
    pub btime: DiskTime,
}

/// A name in a directory; the name follows.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct DirentItem {
    /// The inode.
    pub ino: U64,
    /// `d_type`.
    pub kind: u8,
    /// Zero; another value is an incompat feature.
    pub flags: u8,
}

/// An extended attribute; the name and the value follow.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct XattrItem {
    /// Bytes of the name, with its prefix.
    pub name_len: u8,
    /// Zero.
    pub reserved: u8,
}

/// Where an inode has a name.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct ParentItem {
    /// The directory.
    pub dir: U64,
    /// The entry's cookie there.
    pub cookie: U64,
}

/// An inode whose content beyond `size` is to be dropped.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    disk::FromBytes,
    disk::IntoBytes,
    disk::Immutable,
    disk::KnownLayout,
    disk::Unaligned,
)]
#[repr(C)]
pub struct OrphanItem {
    /// Bytes to keep; `u64::MAX`: the inode has no name and goes as well.
    pub size: U64,
}

const _: () = {
    assert!(size_of::<SuperBlock>() == 4096);
    assert!(offset_of!(SuperBlock, hash_seed) == 112);
    assert!(offset_of!(SuperBlock, forest) == 144);
    assert!(offset_of!(SuperBlock, reserved) == 536);
    assert!(size_of::<NodeHeader>() == 64);
    assert!(offset_of!(NodeHeader, data_start) == 52);
    assert!(size_of::<DiskKey>() == 17);
    assert!(size_of::<LeafSlot>() == 22);
    assert!(size_of::<InnerSlot>() == 33);
    assert!(size_of::<RootItem>() == 24);
    assert!(size_of::<ForestItem>() == 128);
    assert!(size_of::<SpaceItem>() == 24);
    assert!(size_of::<RefsItem>() == 16);
    assert!(size_of::<ExtentItem>() == 32);
    assert!(size_of::<InodeItem>() == 116);
    assert!(offset_of!(InodeItem, atime) == 68);
    assert!(size_of::<DirentItem>() == 10);
    assert!(size_of::<XattrItem>() == 2);
    assert!(size_of::<ParentItem>() == 16);
    assert!(size_of::<OrphanItem>() == 8);
};

/// A block number or a size of a volume says where everything fixed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks of the volume.
    pub blocks: u64,
}

impl Geometry {
    /// The volume that fits a device of `blocks` blocks, or `None` if it is too small or too large.
    pub fn for_device(blocks: u64) -> Option<Self> {
        let rest = blocks % GROUP_BLOCKS;
        let whole = blocks - rest;
        let blocks = if rest < MIN_GROUP_BLOCKS {
            whole
        } else {
            blocks
        };
        Self::of_volume(blocks)
    }

    /// The geometry of a volume of `blocks` blocks, or `None` if no volume has that size.
    pub fn of_volume(blocks: u64) -> Option<Self> {
        let rest = blocks % GROUP_BLOCKS;
        let odd = rest != 0 && rest < MIN_GROUP_BLOCKS;
        (!odd && (MIN_BLOCKS..=MAX_BLOCKS).contains(&blocks)).then_some(Self { blocks })
    }

    /// Number of groups.
    pub fn groups(self) -> u64 {
        self.blocks.div_ceil(GROUP_BLOCKS)
    }

    /// Blocks that trees and files may use.
    pub fn usable(self) -> u64 {
        let fixed = SUPER_SLOTS[0] + self.super_copies().len() as u64 + 2 * self.groups();
        self.blocks.saturating_sub(fixed)
    }

    /// Blocks of `group` that exist.
    pub fn group_len(self, group: u64) -> u64 {
        self.blocks
            .saturating_sub(group.saturating_mul(GROUP_BLOCKS))
            .min(GROUP_BLOCKS)
    }

    /// The two blocks that may hold the bitmap of `group`.
    pub fn bitmap_places(self, group: u64) -> [u64; 2] {
        let first = group.saturating_mul(GROUP_BLOCKS);
        match group {
            0 => [SUPER_SLOTS[0] + 1, SUPER_SLOTS[1] + 1],
            _ => [first, first.saturating_add(256)],
        }
    }

    /// The mirror of super block slot 0 or 1.
    pub fn mirror(self, slot: usize) -> u64 {
        let back = if slot == 0 {
            SUPER_SLOTS[0]
        } else {
            SUPER_SLOTS[1]
        };
        self.blocks.saturating_sub(back + 1)
    }

    /// All four copies of the super block.
    pub fn super_copies(self) -> [u64; 4] {
        [
            SUPER_SLOTS[0],
            SUPER_SLOTS[1],
            self.mirror(0),
            self.mirror(1),
        ]
    }

    /// Whether trees and files may use `[start, start + len)`: inside the volume, no fixed block.
    pub fn may_hold(self, start: u64, len: u64) -> bool {
        let Some(end) = start.checked_add(len) else {
            return false;
        };
        if start <= SUPER_SLOTS[0] || end > self.blocks || len == 0 {
            return false;
        }
        let hits = |block: u64| start <= block && block < end;
        let (first, last) = (start / GROUP_BLOCKS, (end - 1) / GROUP_BLOCKS);
        // A run may be long, but no run spans a group's first block.
        first == last
            && !self.bitmap_places(first).into_iter().any(hits)
            && !self.super_copies().into_iter().any(hits)
    }
}
