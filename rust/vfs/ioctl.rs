// SPDX-License-Identifier: GPL-2.0

//! The ioctls of files and directories that are about the whole filesystem. Those about one inode
//! (flags, project, extents, clones) come as operations of their own.
//!
//! C header: [`include/uapi/linux/fs.h`](srctree/include/uapi/linux/fs.h)

use super::file::OpenFile;
use super::fs_type::FileSystem;
use super::super_block::SuperBlock;
use crate::bindings;
use kernel::error::from_result;
use kernel::ioctl::{_IOR, _IOW, _IOWR};
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

/// Bytes in a label, the last of which is 0.
pub const LABEL_SIZE: usize = 256;

/// What whoever is allowed to administer the system may ask of a filesystem.
#[vtable]
pub trait IoctlOperations<F: FileSystem> {
    /// The label, with a zero byte after it.
    fn label(sb: &SuperBlock<F>) -> Result<[u8; LABEL_SIZE]>;

    /// Sets the label: what is before the first zero byte.
    fn set_label(sb: &SuperBlock<F>, label: &[u8; LABEL_SIZE]) -> Result;

    /// Does what the filesystem's own request `command` asks for. `ENOTTY` if there is no such one.
    /// No locks are held; nothing has been checked but that the file is open.
    fn request(file: &OpenFile<F>, command: u32, argument: UserPtr) -> Result;

    /// Discards free runs of `min` bytes or more that begin within `len` bytes from `start`, and
    /// returns how many bytes that was.
    fn trim(sb: &SuperBlock<F>, start: u64, len: u64, min: u64) -> Result<u64>;

    /// Refuses all changes from now on, after a commit if `commit` says so. For tests of what a
    /// crash leaves behind.
    fn shut_down(sb: &SuperBlock<F>, commit: bool) -> Result;
}

/// `struct fstrim_range`: start, length and smallest run, in bytes; the length comes back as what
/// was discarded.
type TrimRange = [u64; 3];

const FITRIM: u32 = _IOWR::<TrimRange>(b'X' as u32, 121);
const FS_IOC_GETFSLABEL: u32 = _IOR::<[u8; LABEL_SIZE]>(0x94, 49);
const FS_IOC_SETFSLABEL: u32 = _IOW::<[u8; LABEL_SIZE]>(0x94, 50);
const FS_IOC_SHUTDOWN: u32 = _IOR::<u32>(b'X' as u32, 125);
/// Flag of `FS_IOC_SHUTDOWN`: what was not committed is lost.
const SHUTDOWN_NOLOGFLUSH: u32 = bindings::FS_SHUTDOWN_FLAGS_NOLOGFLUSH;

/// `unlocked_ioctl` of files and directories.
///
/// # Safety
///
/// Called by the VFS with an open file of `F`, in the context of a user's task.
pub(super) unsafe extern "C" fn ioctl<F: FileSystem>(
    file: *mut bindings::file,
    command: c_uint,
    argument: c_ulong,
) -> c_long {
    let result = from_result(|| {
        // SAFETY: By the contract of this function.
        let file = unsafe { OpenFile::<F>::from_ptr(file) };
        let sb = file.inode().super_block();
        let argument = UserPtr::from_addr(argument);
        match command {
            FS_IOC_GETFSLABEL => label(sb, argument)?,
            FS_IOC_SETFSLABEL => set_label(file, argument)?,
            FITRIM => trim(sb, argument)?,
            FS_IOC_SHUTDOWN => shut_down(file, argument)?,
            _ => F::Ioctl::request(file, command, argument)?,
        }
        Ok(0)
    });
    result as c_long
}

/// `EPERM` unless the calling task may administer the system.
pub fn admin() -> Result {
    // SAFETY: It looks at the current task only.
    match unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as c_int) } {
        true => Ok(()),
        false => Err(EPERM),
    }
}

fn label<F: FileSystem>(sb: &SuperBlock<F>, argument: UserPtr) -> Result {
    let label = F::Ioctl::label(sb)?;
    UserSlice::new(argument, LABEL_SIZE)
        .writer()
        .write_slice(&label)
}

fn set_label<F: FileSystem>(file: &OpenFile<F>, argument: UserPtr) -> Result {
    admin()?;
    let mut label = [0; LABEL_SIZE];
    UserSlice::new(argument, LABEL_SIZE)
        .reader()
        .read_slice(&mut label)?;
    if !label.contains(&0) {
        return Err(EINVAL);
    }
    let _access = file.write_access()?;
    F::Ioctl::set_label(file.inode().super_block(), &label)
}

fn trim<F: FileSystem>(sb: &SuperBlock<F>, argument: UserPtr) -> Result {
    admin()?;
    // SAFETY: The device is open while the filesystem is mounted.
    if unsafe { bindings::oxfs_helper_bdev_max_discard_sectors(sb.bdev()) } == 0 {
        return Err(EOPNOTSUPP);
    }
    let (mut reader, mut writer) =
        UserSlice::new(argument, core::mem::size_of::<TrimRange>()).reader_writer();
    let [start, len, min]: TrimRange = reader.read()?;
    let trimmed = F::Ioctl::trim(sb, start, len, min)?;
    writer.write(&[start, trimmed, min])
}

fn shut_down<F: FileSystem>(file: &OpenFile<F>, argument: UserPtr) -> Result {
    admin()?;
    let sb = file.inode().super_block();
    let flags: u32 = UserSlice::new(argument, core::mem::size_of::<u32>())
        .reader()
        .read()?;
    match flags {
        bindings::FS_SHUTDOWN_FLAGS_DEFAULT => {
            file.flush_filesystem()?;
            F::Ioctl::shut_down(sb, true)
        }
        bindings::FS_SHUTDOWN_FLAGS_LOGFLUSH => F::Ioctl::shut_down(sb, true),
        SHUTDOWN_NOLOGFLUSH => F::Ioctl::shut_down(sb, false),
        _ => Err(EINVAL),
    }
}
