// SPDX-License-Identifier: GPL-2.0

//! Open regular files: the file operations table, and what its functions are called with.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::fs_type::FileSystem;
use super::inode::{FileOps, Inode};
use super::iomap::{count_result, count_to_c, Mapper, Tables};
use super::mmap::{self, Mmap};
use crate::bindings;
use core::marker::PhantomData;
use core::ptr;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

/// An open file of `F`.
///
/// # Invariants
///
/// Only seen by reference, while the file is open.
#[repr(transparent)]
pub struct OpenFile<F: FileSystem>(Opaque<bindings::file>, PhantomData<fn() -> F>);

impl<F: FileSystem> OpenFile<F> {
    /// # Safety
    ///
    /// `file` is a file of `F` that stays open for `'a`.
    pub(super) unsafe fn from_ptr<'a>(file: *mut bindings::file) -> &'a Self {
        // SAFETY: By this function's contract; `Self` is transparent.
        unsafe { &*file.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::file {
        self.0.get()
    }

    /// The file's inode.
    pub fn inode(&self) -> &Inode<F> {
        // SAFETY: By the type invariant.
        unsafe { Inode::from_file(self.as_ptr()) }
    }

    /// Before the content changes: takes set-user-id and the like away and updates the times.
    /// The caller holds the inode's lock exclusively.
    pub fn modified(&self) -> Result {
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::file_modified(self.as_ptr()) })
    }

    /// Whether what is changed through this file is to be durable when the call returns: `O_DSYNC`,
    /// `chattr +S`, or the mount option `sync`.
    pub fn is_synchronous(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::oxfs_helper_file_synchronous(self.as_ptr()) }
    }

    /// Writes out what is dirty in the bytes from `start` to `end` (inclusive) and waits. Reports
    /// an error of earlier writeback once.
    pub fn write_and_wait(&self, start: i64, end: i64) -> Result {
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::file_write_and_wait_range(self.as_ptr(), start, end) })
    }
}

/// A read or write of an open file of `F`.
///
/// # Invariants
///
/// Only seen by reference, for the time of the call that the VFS made with it.
#[repr(transparent)]
pub struct Iocb<F: FileSystem>(Opaque<bindings::kiocb>, PhantomData<fn() -> F>);

impl<F: FileSystem> Iocb<F> {
    pub(super) fn as_ptr(&mut self) -> *mut bindings::kiocb {
        self.0.get()
    }

    fn file_ptr(&self) -> *mut bindings::file {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.get()).ki_filp }
    }

    /// Where in the file.
    pub fn pos(&self) -> u64 {
        // SAFETY: By the type invariant.
        u64::try_from(unsafe { (*self.0.get()).ki_pos }).unwrap_or(0)
    }

    /// Whether the page cache is to be avoided.
    pub fn is_direct(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.get()).ki_flags & bindings::IOCB_DIRECT as i32 != 0 }
    }

    /// Whether the caller would rather be told `EAGAIN` than wait for anything.
    pub fn must_not_wait(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.get()).ki_flags & bindings::OXFS_IOCB_NOWAIT as i32 != 0 }
    }

    /// Whether the caller waits for the end, so that it is not told of it.
    pub(super) fn is_waited_for(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.get()).ki_complete.is_none() }
    }

    /// Nobody is to poll for the end.
    pub(super) fn stop_polling(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.get()).ki_flags &= !(bindings::OXFS_IOCB_HIPRI as i32) }
    }

    /// Checks a write against limits, and refuses an active swapfile; moves to the end of the
    /// file for `O_APPEND` and clips `iter`. Returns what is left to write. The caller holds the
    /// inode's lock.
    pub fn check_write(&mut self, iter: &mut Iter) -> Result<usize> {
        // SAFETY: By the type invariants.
        count_result(unsafe { bindings::generic_write_checks(self.as_ptr(), iter.as_ptr()) })
    }

    /// As [`OpenFile::modified`].
    pub fn modified(&mut self) -> Result {
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::kiocb_modified(self.as_ptr()) })
    }

    /// Updates the time of the last access.
    pub fn accessed(&self) {
        // SAFETY: The file is open.
        unsafe { bindings::oxfs_helper_file_accessed(self.file_ptr()) }
    }

    /// After `count` bytes were written: makes them durable if the file wants that.
    pub fn write_sync(&mut self, count: usize) -> Result<usize> {
        // SAFETY: By the type invariant.
        count_result(unsafe {
            bindings::oxfs_helper_generic_write_sync(self.as_ptr(), count as isize)
        })
    }

    /// Reads through the page cache.
    pub fn read_cached(&mut self, iter: &mut Iter) -> Result<usize> {
        // SAFETY: By the type invariants.
        count_result(unsafe { bindings::generic_file_read_iter(self.as_ptr(), iter.as_ptr()) })
    }

    /// Reads the rest through the page cache, after `done` bytes that did not go through it.
    pub(super) fn read_rest(&mut self, iter: &mut Iter, done: usize) -> Result<usize> {
        // SAFETY: By the type invariants.
        count_result(unsafe { bindings::filemap_read(self.as_ptr(), iter.as_ptr(), done as isize) })
    }

    /// Writes through the page cache. The caller holds the inode's lock exclusively.
    pub fn write_cached<T: Mapper<F>>(&mut self, iter: &mut Iter) -> Result<usize> {
        // SAFETY: By the type invariants; the tables are those of the file's filesystem.
        count_result(unsafe {
            bindings::iomap_file_buffered_write(
                self.as_ptr(),
                iter.as_ptr(),
                Tables::<F, T>::OPS,
                Tables::<F, T>::WRITE_OPS,
                ptr::null_mut(),
            )
        })
    }

    /// After `direct` bytes went around the page cache and `cached` through it: writes the latter
    /// out and drops them from it. Returns how many of all are written.
    pub fn finish_fallback(
        &mut self,
        iter: &mut Iter,
        direct: usize,
        cached: Result<usize>,
    ) -> Result<usize> {
        // SAFETY: By the type invariants.
        count_result(unsafe {
            bindings::direct_write_fallback(
                self.as_ptr(),
                iter.as_ptr(),
                direct as isize,
                count_to_c(cached),
            )
        })
    }
}

/// The memory of a read or write.
///
/// # Invariants
///
/// Only seen by reference, for the time of the call that the VFS made with it.
#[repr(transparent)]
pub struct Iter(Opaque<bindings::iov_iter>);

impl Iter {
    pub(super) fn as_ptr(&mut self) -> *mut bindings::iov_iter {
        self.0.get()
    }

    /// How many bytes are left.
    pub fn count(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { bindings::oxfs_helper_iov_iter_count(self.0.get()) }
    }

    /// Has the next `size` bytes brought to memory, ready for a device. Returns how many are there.
    pub fn bring_in(&mut self, size: usize) -> usize {
        let size = size.min(self.count());
        // SAFETY: By the type invariant.
        if !unsafe { bindings::oxfs_helper_user_backed_iter(self.0.get()) } {
            return size;
        }
        // SAFETY: As above. The copy is for looking at the same memory.
        let mut iter = unsafe { self.0.get().read() };
        let mut there = 0;
        while there < size {
            let mut pages = [ptr::null_mut(); 32];
            let (mut list, mut offset) = (pages.as_mut_ptr(), 0);
            // SAFETY: The list has room for that many pages.
            let found = count_result(unsafe {
                bindings::iov_iter_extract_pages(
                    &mut iter,
                    &mut list,
                    size - there,
                    pages.len() as u32,
                    0,
                    &mut offset,
                )
            });
            let Ok(count @ 1..) = found else {
                break;
            };
            // SAFETY: Those pages were pinned, as they are for user memory.
            unsafe {
                bindings::unpin_user_pages(list, (offset + count).div_ceil(bindings::PAGE_SIZE))
            };
            there += count;
        }
        there
    }

    /// Calls `work`, in which memory that is not there is `EFAULT`.
    pub(super) fn without_faults(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<usize>,
    ) -> Result<usize> {
        // SAFETY: By the type invariant; nobody else uses it during the call.
        unsafe { (*self.0.get()).nofault = true };
        let result = work(self);
        // I/O that goes on by itself may have ended, and taken it along.
        if !matches!(result, Err(e) if e == EIOCBQUEUED) {
            // SAFETY: As above.
            unsafe { (*self.0.get()).nofault = false };
        }
        result
    }
}

/// What `fallocate(2)` can be asked for.
pub mod mode {
    use crate::bindings;

    /// Blocks for the whole range.
    pub const ALLOCATE: u32 = 0;
    /// With others: the size stays.
    pub const KEEP_SIZE: u32 = bindings::FALLOC_FL_KEEP_SIZE;
    /// No blocks in the range.
    pub const PUNCH_HOLE: u32 = bindings::FALLOC_FL_PUNCH_HOLE;
    /// The range out of the file.
    pub const COLLAPSE_RANGE: u32 = bindings::FALLOC_FL_COLLAPSE_RANGE;
    /// Zeros in the range.
    pub const ZERO_RANGE: u32 = bindings::FALLOC_FL_ZERO_RANGE;
    /// A hole between what is before and behind.
    pub const INSERT_RANGE: u32 = bindings::FALLOC_FL_INSERT_RANGE;
    /// Blocks of its own for the whole range.
    pub const UNSHARE_RANGE: u32 = bindings::FALLOC_FL_UNSHARE_RANGE;
}

/// What `lseek` looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The next data.
    Data,
    /// The next hole.
    Hole,
}

/// Operations of open regular files.
#[vtable]
pub trait FileOperations<F: FileSystem>: Mmap<F> {
    /// Reads. No locks are held.
    fn read(inode: &Inode<F>, iocb: &mut Iocb<F>, iter: &mut Iter) -> Result<usize>;

    /// Writes. Freeze protection is held, no locks.
    fn write(inode: &Inode<F>, iocb: &mut Iocb<F>, iter: &mut Iter) -> Result<usize>;

    /// Where the next data or hole is. No locks are held.
    fn seek(file: &OpenFile<F>, pos: i64, what: Seek) -> Result<i64>;

    /// Makes the bytes from `start` to `end` (inclusive) durable; with `data_only` nothing that
    /// is not needed to read them. No locks are held.
    fn fsync(file: &OpenFile<F>, start: i64, end: i64, data_only: bool) -> Result;

    /// `fallocate(2)` with `mode`; the VFS has checked flags and range, and refused active
    /// swapfiles. Freeze protection is held, no locks.
    fn fallocate(file: &OpenFile<F>, mode: u32, pos: u64, len: u64) -> Result;

    /// Makes `len` bytes (0: to the end) at `to` in `dst` share blocks with those at `from` in
    /// `src`. Returns how many do. Freeze protection is held, no locks.
    fn remap(
        src: &OpenFile<F>,
        from: i64,
        dst: &OpenFile<F>,
        to: i64,
        len: i64,
        flags: u32,
    ) -> Result<i64>;
}

/// The file operations table for `T`.
pub const fn table<F: FileSystem, T: FileOperations<F>>() -> FileOps<F> {
    // SAFETY: The shims below are written for the files of `F`.
    unsafe { FileOps::new(Shims::<F, T>::TABLE) }
}

struct Shims<F, T>(PhantomData<(F, T)>);

impl<F: FileSystem, T: FileOperations<F>> Shims<F, T> {
    const TABLE: &'static bindings::file_operations = &bindings::file_operations {
        owner: super::THIS_MODULE,
        fop_flags: bindings::OXFS_FOP_DIO_PARALLEL_WRITE,
        llseek: Some(Self::llseek),
        unlocked_ioctl: Some(super::ioctl::ioctl::<F>),
        compat_ioctl: bindings::compat_ptr_ioctl,
        read_iter: Some(Self::read_iter),
        write_iter: Some(Self::write_iter),
        iopoll: Some(bindings::iocb_bio_iopoll),
        mmap_prepare: Some(mmap::Shims::<F, T>::prepare),
        open: Some(Self::open),
        fsync: Some(Self::fsync),
        get_unmapped_area: Some(bindings::thp_get_unmapped_area),
        splice_read: Some(bindings::filemap_splice_read),
        splice_write: Some(bindings::iter_file_splice_write),
        setlease: Some(bindings::generic_setlease),
        fallocate: Some(Self::fallocate),
        remap_file_range: Some(Self::remap_file_range),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the VFS only, for a file of `F` that is being opened.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> i32 {
        // SAFETY: By this function's contract nobody else uses the file yet.
        unsafe {
            (*file).f_mode |= bindings::OXFS_FMODE_CAN_ODIRECT | bindings::OXFS_FMODE_NOWAIT;
            bindings::generic_file_open(inode, file)
        }
    }

    /// # Safety
    ///
    /// Called by the VFS only, with an open file of `F`.
    unsafe extern "C" fn llseek(file: *mut bindings::file, pos: i64, whence: i32) -> i64 {
        let what = match whence as u32 {
            bindings::SEEK_DATA => Seek::Data,
            bindings::SEEK_HOLE => Seek::Hole,
            // SAFETY: By this function's contract.
            _ => return unsafe { bindings::generic_file_llseek(file, pos, whence) },
        };
        // SAFETY: By this function's contract.
        let open = unsafe { OpenFile::<F>::from_ptr(file) };
        match T::seek(open, pos, what) {
            // SAFETY: By this function's contract.
            Ok(pos) => unsafe {
                let max = (*(*open.inode().as_ptr()).i_sb).s_maxbytes;
                bindings::vfs_setpos(file, pos, max)
            },
            Err(e) => i64::from(e.to_errno()),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS only, with a read of a file of `F`.
    unsafe extern "C" fn read_iter(
        iocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: Whoever submits the I/O, be it read(2), aio or io_uring, keeps the file open until
        // this function returns, also when the I/O goes on and ends before that.
        let inode = unsafe { Inode::from_file((*iocb).ki_filp) };
        // SAFETY: By this function's contract both are ours for the time of the call; the types
        // are transparent.
        let (iocb, iter) = unsafe { (&mut *iocb.cast(), &mut *iter.cast()) };
        count_to_c(T::read(inode, iocb, iter))
    }

    /// # Safety
    ///
    /// Called by the VFS only, with a write of a file of `F`.
    unsafe extern "C" fn write_iter(
        iocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: As for reading.
        let inode = unsafe { Inode::from_file((*iocb).ki_filp) };
        // SAFETY: As for reading.
        let (iocb, iter) = unsafe { (&mut *iocb.cast(), &mut *iter.cast()) };
        count_to_c(T::write(inode, iocb, iter))
    }

    /// # Safety
    ///
    /// Called by the VFS only, with an open file of `F`.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        start: i64,
        end: i64,
        datasync: i32,
    ) -> i32 {
        // SAFETY: By this function's contract.
        let file = unsafe { OpenFile::<F>::from_ptr(file) };
        result_to_c(T::fsync(file, start, end, datasync != 0))
    }

    /// # Safety
    ///
    /// Called by the VFS only, with an open file of `F`; `pos` and `len` are not negative.
    unsafe extern "C" fn fallocate(
        file: *mut bindings::file,
        mode: i32,
        pos: i64,
        len: i64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let file = unsafe { OpenFile::<F>::from_ptr(file) };
        result_to_c(T::fallocate(file, mode as u32, pos as u64, len as u64)) as isize
    }

    /// # Safety
    ///
    /// Called by the VFS only, with two open files of one super block of `F`.
    unsafe extern "C" fn remap_file_range(
        src: *mut bindings::file,
        from: i64,
        dst: *mut bindings::file,
        to: i64,
        len: i64,
        flags: u32,
    ) -> i64 {
        // SAFETY: By this function's contract.
        let (src, dst) = unsafe { (OpenFile::<F>::from_ptr(src), OpenFile::<F>::from_ptr(dst)) };
        match T::remap(src, from, dst, to, len, flags) {
            Ok(len) => len,
            Err(e) => i64::from(e.to_errno()),
        }
    }
}

/// Whether the calling task is being killed: what takes long ends early then.
pub fn is_killed() -> bool {
    // SAFETY: It looks at the current task only.
    unsafe { bindings::oxfs_helper_fatal_signal_pending() }
}

/// A result as C wants it.
pub(super) fn result_to_c(result: Result) -> i32 {
    match result {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}
