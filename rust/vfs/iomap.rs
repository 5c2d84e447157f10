// SPDX-License-Identifier: GPL-2.0

//! iomap: the kernel's file I/O over a filesystem's mapping.
//!
//! A filesystem implements [`Mapper`], which says what is behind a stretch of a file and reserves
//! space for what is about to be written; the kernel does the page cache, direct I/O, zeroing,
//! seeking. Mappings are valid for a moment only: they carry a cookie, and the kernel asks
//! [`Mapper::is_valid`] with the folio locked before it uses one.
//!
//! C header: [`include/linux/iomap.h`](srctree/include/linux/iomap.h)

use super::direct::DirectWrite;
use super::fs_type::FileSystem;
use super::inode::Inode;
use crate::bindings;
use core::marker::PhantomData;
use core::ptr;
use kernel::error::to_result;
use kernel::prelude::*;

/// What is behind a stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing: reads as zeros.
    Hole,
    /// Dirty in the page cache, with space reserved, without blocks so far.
    Delayed,
    /// Data at this byte of the device.
    Mapped(u64),
    /// Blocks at this byte of the device, if any, that were never written: reads as zeros.
    Unwritten(Option<u64>),
}

/// A stretch of a file and what is behind it. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts in the file.
    pub start: u64,
    /// How long it is, at least 1.
    pub len: u64,
    /// What is there.
    pub place: Place,
    /// Others own the blocks too; for writing: the write goes to new blocks.
    pub shared: bool,
    /// Space was reserved for this answer: what is not made dirty goes back to
    /// [`Mapper::release`].
    pub reserved: bool,
    /// The mapping is not durable yet: a data-integrity write has to sync it too.
    pub uncommitted: bool,
    /// For [`Mapper::is_valid`].
    pub cookie: u64,
}

impl Extent {
    /// The extent as iomap has it.
    pub(super) fn store<F: FileSystem>(&self, inode: &Inode<F>, iomap: &mut bindings::iomap) {
        let (kind, addr) = match self.place {
            Place::Hole => (bindings::IOMAP_HOLE, None),
            Place::Delayed => (bindings::IOMAP_DELALLOC, None),
            Place::Mapped(addr) => (bindings::IOMAP_MAPPED, Some(addr)),
            Place::Unwritten(addr) => (bindings::IOMAP_UNWRITTEN, addr),
        };
        let mut flags = 0;
        if self.shared {
            flags |= bindings::IOMAP_F_SHARED;
        }
        if self.reserved {
            flags |= bindings::IOMAP_F_NEW;
        }
        if self.uncommitted {
            flags |= bindings::IOMAP_F_DIRTY;
        }
        iomap.type_ = kind as u16;
        iomap.addr = addr.unwrap_or(u64::MAX);
        iomap.offset = i64::try_from(self.start).unwrap_or(i64::MAX);
        iomap.length = self.len;
        iomap.flags = flags as u16;
        // SAFETY: The inode's super block is live.
        iomap.bdev = unsafe { (*(*inode.as_ptr()).i_sb).s_bdev };
        iomap.validity_cookie = self.cookie;
    }
}

/// What iomap wants to know, and why. Bytes.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Where in the file.
    pub pos: u64,
    /// How much from there, at least 1.
    pub len: u64,
    /// The direct write that it is for.
    pub direct_write: Option<DirectWrite>,
    flags: u32,
}

impl Request {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Data will be written.
    pub fn is_write(&self) -> bool {
        self.has(bindings::IOMAP_WRITE)
    }

    /// Zeros will be written where there is data.
    pub fn is_zero(&self) -> bool {
        self.has(bindings::IOMAP_ZERO)
    }

    /// For FIEMAP and seeking.
    pub fn is_report(&self) -> bool {
        self.has(bindings::IOMAP_REPORT)
    }

    /// Shared blocks will be made private.
    pub fn is_unshare(&self) -> bool {
        self.has(bindings::IOMAP_UNSHARE)
    }
}

/// What a [`Mapper`] answers.
pub struct Answer {
    /// What is there, or what will be.
    pub extent: Extent,
    /// Where to read old data from, when that is not `extent`: copy on write.
    pub source: Option<Extent>,
}

/// A filesystem's mapping of files to blocks.
#[vtable]
pub trait Mapper<F: FileSystem>: 'static {
    /// What is behind the start of the request; for writing, with space reserved. The extent
    /// contains `request.pos`.
    ///
    /// Reading: called with a folio locked, or with the inode's lock shared for direct I/O.
    /// Writing: with the inode's lock held (exclusively unless direct), or with a folio and the
    /// mapping's lock (shared) for a page fault. May sleep.
    fn begin(inode: &Inode<F>, request: &Request) -> Result<Answer>;

    /// Whether an extent with this cookie may still be used. Called with a folio locked.
    fn is_valid(inode: &Inode<F>, cookie: u64) -> bool;

    /// Gives back what [`Mapper::begin`] reserved for `len` bytes from `pos`: no dirty page needs
    /// it. Called with the mapping's lock exclusively, perhaps with a folio locked.
    fn release(inode: &Inode<F>, pos: u64, len: u64);
}

/// The C tables for a [`Mapper`].
pub(super) struct Tables<F, T>(PhantomData<(F, T)>);

impl<F: FileSystem, T: Mapper<F>> Tables<F, T> {
    /// `iomap_ops`.
    pub(super) const OPS: &'static bindings::iomap_ops = &bindings::iomap_ops {
        iomap_begin: Some(Self::begin),
        iomap_end: Some(Self::end),
        iomap_next: None,
    };

    /// `iomap_write_ops`.
    pub(super) const WRITE_OPS: &'static bindings::iomap_write_ops = &bindings::iomap_write_ops {
        get_folio: None,
        put_folio: None,
        iomap_valid: Some(Self::valid),
        read_folio_range: None,
    };

    /// # Safety
    ///
    /// Called by iomap only: `inode` is an inode of `F`, and `iomap` and `srcmap` are zeroed
    /// members of one `iomap_iter`, for this call.
    unsafe extern "C" fn begin(
        inode: *mut bindings::inode,
        pos: i64,
        len: i64,
        flags: u32,
        iomap: *mut bindings::iomap,
        srcmap: *mut bindings::iomap,
    ) -> i32 {
        // SAFETY: By this function's contract.
        let inode = unsafe { Inode::<F>::from_ptr(inode) };
        // SAFETY: As above: `iomap` is the member of an iterator. Its private pointer is to a direct write
        // that lasts as long as the iterator, or null.
        let write = unsafe {
            let iter = iomap.byte_sub(core::mem::offset_of!(bindings::iomap_iter, iomap));
            let private = (*iter.cast::<bindings::iomap_iter>()).private;
            private.cast::<DirectWrite>().as_mut()
        };
        let direct_write = write.map(|write| {
            let now = *write;
            write.first = false;
            now
        });
        let request = Request {
            pos: pos as u64,
            len: len as u64,
            direct_write,
            flags,
        };
        match T::begin(inode, &request) {
            Ok(answer) => {
                // SAFETY: As above; the two are distinct.
                answer.extent.store(inode, unsafe { &mut *iomap });
                if let Some(source) = answer.source {
                    // SAFETY: As above.
                    source.store(inode, unsafe { &mut *srcmap });
                }
                0
            }
            Err(e) => e.to_errno(),
        }
    }

    /// Gives back the space that was reserved for what a short write did not make dirty.
    ///
    /// # Safety
    ///
    /// As for [`Self::begin`], after it.
    unsafe extern "C" fn end(
        inode: *mut bindings::inode,
        pos: i64,
        len: i64,
        written: isize,
        flags: u32,
        iomap: *mut bindings::iomap,
    ) -> i32 {
        // SAFETY: By this function's contract.
        let (reserved, delayed) = unsafe {
            (
                u32::from((*iomap).flags) & bindings::IOMAP_F_NEW != 0,
                u32::from((*iomap).type_) == bindings::IOMAP_DELALLOC,
            )
        };
        if !reserved || !delayed {
            return 0;
        }
        // SAFETY: By this function's contract.
        let block = 1i64 << unsafe { (*inode).i_blkbits };
        let round_up = |n: i64| n.saturating_add(block - 1) & !(block - 1);
        let written = i64::try_from(written).unwrap_or(0).max(0);
        let start = if written == 0 {
            pos & !(block - 1)
        } else {
            round_up(pos.saturating_add(written))
        };
        let end = round_up(pos.saturating_add(len));
        if start >= end {
            return 0;
        }
        // A fault makes dirty what it asked for, so it does not come here; zeroing and unsharing
        // are done under the lock.
        let locked = flags & (bindings::IOMAP_ZERO | bindings::IOMAP_UNSHARE) != 0;
        // SAFETY: By this function's contract.
        let inode = unsafe { Inode::<F>::from_ptr(inode) };
        let _guard = (!locked).then(|| inode.lock_mapping());
        // SAFETY: The mapping's lock is held exclusively, as the callee wants it.
        unsafe {
            bindings::iomap_write_delalloc_release(
                inode.as_ptr(),
                start,
                end,
                flags,
                iomap,
                Some(Self::punch),
            )
        };
        0
    }

    /// # Safety
    ///
    /// Called by [`Self::end`] through iomap only, with an inode of `F`.
    unsafe extern "C" fn punch(
        inode: *mut bindings::inode,
        offset: i64,
        len: i64,
        _iomap: *mut bindings::iomap,
    ) {
        // SAFETY: By this function's contract.
        let inode = unsafe { Inode::<F>::from_ptr(inode) };
        T::release(inode, offset as u64, len as u64);
    }

    /// # Safety
    ///
    /// Called by iomap only, with an inode of `F` and an extent that [`Self::begin`] filled in.
    unsafe extern "C" fn valid(inode: *mut bindings::inode, iomap: *const bindings::iomap) -> bool {
        // SAFETY: By this function's contract.
        let (inode, cookie) = unsafe { (Inode::<F>::from_ptr(inode), (*iomap).validity_cookie) };
        T::is_valid(inode, cookie)
    }
}

/// A byte position as C has it.
pub(super) fn pos_to_c(pos: u64) -> Result<i64> {
    i64::try_from(pos).map_err(|_| EFBIG)
}

/// Zeros `len` bytes from `pos` in the page cache, where there is data. The caller holds the
/// inode's lock and the mapping's lock, both exclusively.
pub fn zero_range<F: FileSystem, T: Mapper<F>>(inode: &Inode<F>, pos: u64, len: u64) -> Result {
    if len == 0 {
        return Ok(());
    }
    // SAFETY: The inode is live, the tables are those of its filesystem.
    to_result(unsafe {
        bindings::iomap_zero_range(
            inode.as_ptr(),
            pos_to_c(pos)?,
            pos_to_c(len)?,
            ptr::null_mut(),
            Tables::<F, T>::OPS,
            Tables::<F, T>::WRITE_OPS,
            ptr::null_mut(),
        )
    })
}

/// Reads what is shared in `len` bytes from `pos` into the page cache and makes it dirty, so that
/// writeback gives it blocks of its own. Both locks are held exclusively.
pub fn unshare<F: FileSystem, T: Mapper<F>>(inode: &Inode<F>, pos: u64, len: u64) -> Result {
    // SAFETY: The inode is live, the tables are those of its filesystem.
    to_result(unsafe {
        bindings::iomap_file_unshare(
            inode.as_ptr(),
            pos_to_c(pos)?,
            pos_to_c(len)?,
            Tables::<F, T>::OPS,
            Tables::<F, T>::WRITE_OPS,
        )
    })
}

/// Where the next hole is at `pos` or after it; the end of the file counts as one.
pub fn seek_hole<F: FileSystem, T: Mapper<F>>(inode: &Inode<F>, pos: i64) -> Result<i64> {
    // SAFETY: The inode is live, the table is that of its filesystem.
    seek_result(unsafe { bindings::iomap_seek_hole(inode.as_ptr(), pos, Tables::<F, T>::OPS) })
}

/// Where the next data is at `pos` or after it.
pub fn seek_data<F: FileSystem, T: Mapper<F>>(inode: &Inode<F>, pos: i64) -> Result<i64> {
    // SAFETY: The inode is live, the table is that of its filesystem.
    seek_result(unsafe { bindings::iomap_seek_data(inode.as_ptr(), pos, Tables::<F, T>::OPS) })
}

fn seek_result(pos: i64) -> Result<i64> {
    if pos < 0 {
        return Err(Error::from_errno(pos as i32));
    }
    Ok(pos)
}

/// A byte count as C has it: negative is an error.
pub(super) fn count_result(count: isize) -> Result<usize> {
    usize::try_from(count).map_err(|_| Error::from_errno(count as i32))
}

/// A byte count or an error as C wants it.
pub(super) fn count_to_c(count: Result<usize>) -> isize {
    match count {
        Ok(n) => n as isize,
        Err(e) => e.to_errno() as isize,
    }
}
