// SPDX-License-Identifier: GPL-2.0

//! Numbers that must not be mistaken for each other, and the values that callers see.

use core::fmt;

/// Bytes in a block, the unit of allocation and of every tree node.
pub const BLOCK_SIZE: usize = 4096;
/// `BLOCK_SIZE` as a power of two.
pub const BLOCK_SHIFT: u32 = 12;

/// log2 of the file pages in a chunk: what a swapped huge page covers.
pub const CHUNK_BLOCKS: u64 = 512;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A block of the device, counted from its start.
    BlockNr
}
number! {
    /// A block of a file, counted from its start.
    FileBlock
}
number! {
    /// A transaction: every metadata block names the one that wrote it.
    Generation
}
number! {
    /// An inode number inside one subvolume.
    Ino
}
number! {
    /// A subvolume. The first is 0.
    SubvolId
}

/// The root directory of every subvolume.
pub const ROOT_INO: Ino = Ino(2);
/// The first inode number that files get.
pub const FIRST_INO: Ino = Ino(16);
/// Inode numbers take 40 bits of `st_ino`.
pub const MAX_INO: Ino = Ino((1 << 40) - 1);
/// Subvolume numbers take 24 bits of `st_ino`.
pub const MAX_SUBVOL: SubvolId = SubvolId((1 << 24) - 1);
/// Longest name of a directory entry, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const MAX_SYMLINK: usize = 4095;
/// Most names that an inode may have.
pub const MAX_LINKS: u32 = u32::MAX - 1;
/// Largest file, in bytes: `i64::MAX` rounded down to a block.
pub const MAX_FILE_SIZE: u64 = (i64::MAX as u64) & !(BLOCK_SIZE as u64 - 1);
/// Blocks of the largest file.
pub const MAX_FILE_BLOCKS: u64 = MAX_FILE_SIZE >> BLOCK_SHIFT;

/// An inode of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId {
    /// The subvolume that it lives in.
    pub subvol: SubvolId,
    /// Its number there.
    pub ino: Ino,
}

impl InodeId {
    /// What `stat` shows: `subvolume:24 | ino:40`.
    pub fn st_ino(self) -> u64 {
        (self.subvol.0 << 40) | (self.ino.0 & MAX_INO.0)
    }

    /// The inode that `stat` shows as `st_ino`.
    pub fn from_st_ino(st_ino: u64) -> Self {
        Self {
            subvol: SubvolId(st_ino >> 40),
            ino: Ino(st_ino & MAX_INO.0),
        }
    }
}

impl fmt::Display for InodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {} of subvolume {}", self.ino, self.subvol)
    }
}

/// A run of device blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The first block.
    pub start: BlockNr,
    /// Number of blocks.
    pub len: u64,
}

impl Run {
    /// A run of `len` blocks from `start`.
    pub fn new(start: BlockNr, len: u64) -> Self {
        Self { start, len }
    }

    /// The first block after the run.
    pub fn end(self) -> u64 {
        self.start.0.saturating_add(self.len)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks {}+{}", self.start, self.len)
    }
}

/// A moment: seconds and nanoseconds (0 to 999,999,999) since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}

/// What a directory entry names, as in `d_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileType {
    /// FIFO.
    Fifo = 1,
    /// Character device.
    CharDevice = 2,
    /// Directory.
    Directory = 4,
    /// Block device.
    BlockDevice = 6,
    /// Regular file.
    Regular = 8,
    /// Symbolic link.
    Symlink = 10,
    /// Socket.
    Socket = 12,
}

/// The bits of a mode that hold the file's type, `S_IFMT`.
pub const MODE_TYPE: u32 = 0o170000;

impl FileType {
    /// The type with this `d_type` value.
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Fifo,
            2 => Self::CharDevice,
            4 => Self::Directory,
            6 => Self::BlockDevice,
            8 => Self::Regular,
            10 => Self::Symlink,
            12 => Self::Socket,
            _ => return None,
        })
    }

    /// The type in the `S_IFMT` bits of a mode.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Self::from_u8(((mode & MODE_TYPE) >> 12) as u8)
    }
}

/// The attributes of an inode, as the volume holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attr {
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names; for a directory 2 plus its subdirectories.
    pub nlink: u32,
    /// Bytes; for a directory the sum of its names' lengths; for a symbolic link that of its target.
    pub size: u64,
    /// Blocks of 4096 bytes that are mapped or promised.
    pub blocks: u64,
    /// Device number of a device file: major in the upper 32 bits. See also [`INODE_SUBVOLUME`].
    pub rdev: u64,
    /// `FS_*_FL` flags (`linux/fs.h`) that are set, and [`INODE_OWN`].
    pub flags: u64,
    /// Random number that tells this inode from another of the same number (NFS).
    pub generation: u64,
    /// Project id.
    pub project: u32,
    /// Change cookie (`i_version`).
    pub change: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

/// Flag of an inode: the swap tree may hold blocks of it. Not an `FS_*_FL` flag.
pub const INODE_SWAP: u64 = 1 << 63;

/// Flag of a directory: it was made to stand for the subvolume whose number is in `rdev`, and does
/// so if it is that one's home. Not an `FS_*_FL` flag.
pub const INODE_SUBVOLUME: u64 = 1 << 62;
/// The flags that are the engine's own.
pub const INODE_OWN: u64 = INODE_SWAP | INODE_SUBVOLUME;

/// A change of attributes: what is `Some` is set. Sizes change by `truncate` and by writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttrChange {
    /// Permission bits; the type stays.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// `FS_*_FL` flags, all of them; those of [`INODE_OWN`] stay as they are.
    pub flags: Option<u64>,
    /// Project id.
    pub project: Option<u32>,
    /// Change cookie.
    pub change: Option<u64>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of the content.
    pub mtime: Option<Time>,
    /// Last change of the inode.
    pub ctime: Option<Time>,
}

/// What an operation did, and the transaction that holds it: wait for it with `Volume::sync_to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done<T> {
    /// The result.
    pub value: T,
    /// The transaction.
    pub generation: Generation,
}

/// A stretch of a file, and what is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// First file block.
    pub start: FileBlock,
    /// Number of blocks, at least 1.
    pub len: u64,
    /// What is there.
    pub backing: Backing,
}

/// What is behind a stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Nothing: reads as zeros, counts nowhere.
    Hole,
    /// A promise without blocks: reads as zeros, counts in `st_blocks`.
    Unbacked,
    /// Blocks that were never written through the filesystem: reads as zeros without I/O.
    Prealloc {
        /// The first block.
        at: BlockNr,
        /// Whether somebody else owns the blocks too: they must not be written in place.
        shared: bool,
    },
    /// Blocks with data.
    Written {
        /// The first block.
        at: BlockNr,
        /// Whether somebody else owns the blocks too: they must not be written in place.
        shared: bool,
    },
}

impl Backing {
    /// Whether there are blocks that nobody else owns, which may be written in place.
    pub fn is_exclusive(self) -> bool {
        matches!(
            self,
            Self::Prealloc { shared: false, .. } | Self::Written { shared: false, .. }
        )
    }
}
