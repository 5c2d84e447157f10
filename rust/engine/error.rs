// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, as values with a reason. The glue turns them into errnos in one place,
//! the tools print them.

use super::types::BlockNr;
use crate::platform::NoMemory;
use core::fmt;

/// The engine's result.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// An allocation failed. ENOMEM.
    NoMemory,
    /// No space, after everything that can be given back was. ENOSPC.
    NoSpace,
    /// The device could not read or write a block. EIO.
    Io(BlockNr),
    /// A metadata block breaks a rule of the format. EUCLEAN.
    Corrupt {
        /// The block, or 0 when the fault is not in one block.
        block: BlockNr,
        /// The rule.
        rule: &'static str,
    },
    /// The device holds no oxfs. EINVAL.
    NotOxfs,
    /// The format, or the request, needs something that this version does not have. EOPNOTSUPP for
    /// a request; a mount says EINVAL.
    Unsupported(&'static str),
    /// The volume was mounted read-only, or a fault made it refuse changes. EROFS.
    ReadOnly,
    /// No such name or inode. ENOENT.
    NotFound,
    /// The name exists. EEXIST.
    Exists,
    /// The directory has entries. ENOTEMPTY.
    NotEmpty,
    /// A directory is needed. ENOTDIR.
    NotDirectory,
    /// A directory will not do. EISDIR.
    IsDirectory,
    /// The name is longer than 255 bytes. ENAMETOOLONG.
    NameTooLong,
    /// The inode has as many names as it may have. EMLINK.
    TooManyLinks,
    /// The offset is beyond what a file can have. EFBIG.
    FileTooBig,
    /// Names in two subvolumes. EXDEV.
    CrossSubvolume,
    /// An active swapfile is in the way. ETXTBSY.
    SwapActive,
    /// In use. EBUSY.
    Busy,
    /// Who asked for it is being killed. EINTR.
    Interrupted,
    /// The request makes no sense, with the reason. EINVAL.
    Invalid(&'static str),
    /// No such extended attribute. ENODATA.
    NoAttribute,
    /// The buffer is too small for the value. ERANGE.
    Range,
}

impl From<NoMemory> for Error {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl Error {
    /// Whether it is about the device, or about what is on it: a volume in use logs that by itself.
    pub fn is_logged(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Corrupt { .. })
    }

    /// The same; a fault whose block was not known is in `block`.
    pub fn in_block(self, block: BlockNr) -> Self {
        match self {
            Self::Corrupt {
                block: BlockNr(0),
                rule,
            } => Self::Corrupt { block, rule },
            other => other,
        }
    }

    /// A fault in `block`.
    pub fn corrupt(block: BlockNr, rule: &'static str) -> Self {
        Self::Corrupt { block, rule }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("out of memory"),
            Self::NoSpace => f.write_str("no space left on device"),
            Self::Io(block) => write!(f, "input/output error at block {block}"),
            Self::Corrupt { block, rule } => write!(f, "corrupt: block {block}: {rule}"),
            Self::NotOxfs => f.write_str("not an oxfs volume"),
            Self::Unsupported(what) => write!(f, "unsupported: {what}"),
            Self::ReadOnly => f.write_str("read-only volume"),
            Self::NotFound => f.write_str("no such file or directory"),
            Self::Exists => f.write_str("file exists"),
            Self::NotEmpty => f.write_str("directory not empty"),
            Self::NotDirectory => f.write_str("not a directory"),
            Self::IsDirectory => f.write_str("is a directory"),
            Self::NameTooLong => f.write_str("file name too long"),
            Self::TooManyLinks => f.write_str("too many links"),
            Self::FileTooBig => f.write_str("file too large"),
            Self::CrossSubvolume => f.write_str("the names are in two subvolumes"),
            Self::SwapActive => f.write_str("active swapfile"),
            Self::Busy => f.write_str("busy"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Invalid(why) => write!(f, "invalid: {why}"),
            Self::NoAttribute => f.write_str("no such attribute"),
            Self::Range => f.write_str("buffer too small"),
        }
    }
}
