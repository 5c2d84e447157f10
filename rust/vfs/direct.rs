// SPDX-License-Identifier: GPL-2.0

//! Direct I/O through iomap.
//!
//! C header: [`include/linux/iomap.h`](srctree/include/linux/iomap.h)

use super::file::{Iocb, Iter};
use super::fs_type::FileSystem;
use super::inode::Inode;
use super::iomap::{count_result, Mapper, Tables};
use super::writeback::{self, Writeback};
use crate::bindings;
use core::marker::PhantomData;
use core::num::NonZero;
use core::ptr;
use kernel::prelude::*;

/// A direct write whose I/O has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What [`super::iomap::Request::token`] was for its mappings.
    pub token: usize,
    /// Where in the file, in bytes.
    pub pos: u64,
    /// How many bytes were written.
    pub len: u64,
    /// Whether all I/O worked.
    pub result: Result,
    /// Some of it went to blocks that were never written.
    pub unwritten: bool,
    /// Some of it went to new blocks ([`super::iomap::Extent::shared`]).
    pub copied: bool,
}

/// A filesystem's side of direct I/O.
#[vtable]
pub trait DirectIo<F: FileSystem>: Mapper<F> + Writeback<F> {
    /// A read begins: blocks that are freed from now on are not to be used again before
    /// [`Self::read_ended`] is called with the same token. May sleep.
    fn read_begins(inode: &Inode<F>, token: usize) -> Result;

    /// A read has ended. Called at least once, in process context.
    fn read_ended(inode: &Inode<F>, token: usize);

    /// The I/O has ended: map what was written, or give the blocks back. Called once for each write
    /// that a mapping was asked for.
    ///
    /// May be called in interrupt context, and must not sleep then, when nothing was `copied`
    /// or `unwritten`, all I/O worked, and the write did not go beyond the end of the file.
    fn ended(inode: &Inode<F>, write: &Ended) -> Result;
}

/// How a direct write is to be done.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// Return only when it is done.
    pub wait: bool,
    /// It is one of whole blocks, and ends at a block's end also if it ends early.
    pub whole_blocks: bool,
}

/// What a direct write tells [`Mapper::begin`], by way of iomap's iterator.
pub(super) struct Submission {
    /// [`super::iomap::Request::token`].
    pub(super) token: Option<NonZero<usize>>,
    /// Whether it was asked for a mapping before.
    pub(super) begun: bool,
}

struct Ops<F, T>(PhantomData<(F, T)>);

impl<F: FileSystem, T: DirectIo<F>> Ops<F, T> {
    const TABLE: &'static bindings::iomap_dio_ops = &bindings::iomap_dio_ops {
        end_io: Some(Self::end_io),
        submit_io: None,
        bio_set: ptr::null_mut(),
    };

    /// # Safety
    ///
    /// Called by iomap only, for a write that [`write`] began on a file of `F`.
    unsafe extern "C" fn end_io(
        iocb: *mut bindings::kiocb,
        size: isize,
        error: i32,
        flags: u32,
    ) -> i32 {
        // SAFETY: By this function's contract.
        let (inode, pos) = unsafe {
            (
                Inode::<F>::from_file((*iocb).ki_filp),
                (*iocb).ki_pos as u64,
            )
        };
        let write = Ended {
            token: iocb as usize,
            pos,
            len: u64::try_from(size).unwrap_or(0),
            result: kernel::error::to_result(error),
            unwritten: flags & bindings::IOMAP_DIO_UNWRITTEN != 0,
            copied: flags & bindings::IOMAP_DIO_COW != 0,
        };
        match T::ended(inode, &write) {
            Ok(()) => 0,
            Err(e) => e.to_errno(),
        }
    }
}

/// Operations of a read that nobody waits for: it is completed on the work queue.
struct ReadOps<F, T>(PhantomData<(F, T)>);

impl<F: FileSystem, T: DirectIo<F>> ReadOps<F, T> {
    const TABLE: &'static bindings::iomap_dio_ops = &bindings::iomap_dio_ops {
        end_io: Some(Self::end_io),
        submit_io: Some(Self::submit_io),
        bio_set: (&raw const bindings::iomap_ioend_bioset).cast_mut(),
    };

    /// # Safety
    ///
    /// Called by iomap only, for a read that [`read`] began on a file of `F`, with a bio of
    /// `iomap_ioend_bioset`.
    unsafe extern "C" fn submit_io(
        iter: *const bindings::iomap_iter,
        bio: *mut bindings::bio,
        pos: i64,
    ) {
        // SAFETY: By this function's contract. A regular file has completions.
        unsafe {
            bindings::iomap_init_ioend(
                (*iter).inode,
                bio,
                pos,
                bindings::IOMAP_IOEND_DIRECT as u16,
            );
            (*bio).bi_end_io = Some(writeback::Tables::<F, T>::end_io);
            bindings::submit_bio(bio);
        }
    }

    /// # Safety
    ///
    /// Called by iomap only, for a read that [`read`] began on a file of `F`, in process context.
    unsafe extern "C" fn end_io(
        iocb: *mut bindings::kiocb,
        _size: isize,
        error: i32,
        _flags: u32,
    ) -> i32 {
        // SAFETY: By this function's contract.
        let inode = unsafe { Inode::<F>::from_file((*iocb).ki_filp) };
        T::read_ended(inode, iocb as usize);
        error
    }
}

/// Reads into user memory without the page cache. The caller holds the inode's lock, shared.
/// `Err(EIOCBQUEUED)`: it goes on by itself.
pub fn read<F: FileSystem, T: DirectIo<F>>(
    inode: &Inode<F>,
    iocb: &mut Iocb<F>,
    iter: &mut Iter,
) -> Result<usize> {
    let token = iocb.as_ptr() as usize;
    let ops = if iocb.is_waited_for() {
        ptr::null()
    } else {
        // Completion goes through a work queue, so there is nothing to poll for.
        iocb.stop_polling();
        ReadOps::<F, T>::TABLE
    };
    T::read_begins(inode, token)?;
    // SAFETY: Both are valid for the call that they came with.
    let result = count_result(unsafe {
        bindings::iomap_dio_rw(
            iocb.as_ptr(),
            iter.as_ptr(),
            Tables::<F, T>::OPS,
            ops,
            0,
            ptr::null_mut(),
            0,
        )
    });
    // One that goes on may have ended, and its token be that of another, already.
    if !matches!(result, Err(e) if e == EIOCBQUEUED) {
        T::read_ended(inode, token);
    }
    result
}

/// Writes from user memory without the page cache. The caller holds the inode's lock.
/// `Err(EIOCBQUEUED)`: it goes on by itself. `Err(ENOTBLK)`, or less written than asked for: the
/// rest has to go through the page cache.
pub fn write<F: FileSystem, T: DirectIo<F>>(
    iocb: &mut Iocb<F>,
    iter: &mut Iter,
    how: How,
) -> Result<usize> {
    let mut flags = 0;
    let mut submission = Submission {
        token: None,
        begun: false,
    };
    if how.wait {
        flags |= bindings::IOMAP_DIO_FORCE_WAIT;
    }
    if how.whole_blocks {
        flags |= bindings::IOMAP_DIO_FSBLOCK_ALIGNED;
        submission.token = NonZero::new(iocb.as_ptr() as usize);
    }
    // SAFETY: Both are valid for the call that they came with; mappings are asked for during this call only.
    count_result(unsafe {
        bindings::iomap_dio_rw(
            iocb.as_ptr(),
            iter.as_ptr(),
            Tables::<F, T>::OPS,
            Ops::<F, T>::TABLE,
            flags,
            (&raw mut submission).cast(),
            0,
        )
    })
}
