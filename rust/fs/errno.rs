// SPDX-License-Identifier: GPL-2.0

//! The one place where the engine's reasons become error numbers.

use crate::engine;
use kernel::error::Error;
use kernel::prelude::*;

/// The error number that a caller of the kernel gets for `error`.
pub fn to_errno(error: engine::Error) -> Error {
    use engine::Error as E;
    match error {
        E::NoMemory => ENOMEM,
        E::NoSpace => ENOSPC,
        E::Io(_) => EIO,
        E::Corrupt { .. } => EUCLEAN,
        E::NotOxfs => EINVAL,
        E::Unsupported(_) => EOPNOTSUPP,
        E::ReadOnly => EROFS,
        E::NotFound => ENOENT,
        E::Exists => EEXIST,
        E::NotEmpty => ENOTEMPTY,
        E::NotDirectory => ENOTDIR,
        E::IsDirectory => EISDIR,
        E::NameTooLong => ENAMETOOLONG,
        E::TooManyLinks => EMLINK,
        E::FileTooBig => EFBIG,
        E::CrossSubvolume => EXDEV,
        E::SwapActive => ETXTBSY,
        E::Busy => EBUSY,
        E::Interrupted => EINTR,
        E::Invalid(_) => EINVAL,
        E::NoAttribute => ENODATA,
        E::Range => ERANGE,
    }
}
