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
use core::ptr;
use kernel::prelude::*;

/// A direct write whose I/O has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What [`DirectWrite::token`] was for its mappings.
    pub token: usize,
    /// Where in the file, in bytes.
    pub pos: u64,
    /// How many bytes were written.
    pub len: u64,
    /// Whether all I/O worked.
    pub result: Result,
    /// Some of it went to blocks that were never written.
    pub unwritten: bool,
}

/// A filesystem's side of direct I/O.
#[vtable]
pub trait DirectIo<F: FileSystem>: Mapper<F> + Writeback<F> {
    /// A read begins: blocks that lose an owner from now on are not to get other content before
    /// [`Self::read_ended`] is called with the same token. That does not take longer than the device. May
    /// sleep.
    fn read_begins(inode: &Inode<F>, token: usize) -> Result;

    /// A read has ended. Called at least once, in process context.
    fn read_ended(inode: &Inode<F>, token: usize);

    /// The I/O has ended: map what was written, or give the blocks back. Called once for each write
    /// that a mapping was asked for.
    ///
    /// Called in process context, if the mappings of a write that [`DirectWrite::goes_on`] were said to be
    /// shared ([`super::iomap::Extent::shared`]).
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
#[derive(Debug, Clone, Copy)]
pub struct DirectWrite {
    /// Tells it from all others that are under way.
    pub token: usize,
    /// [`How::whole_blocks`].
    pub whole_blocks: bool,
    /// Nobody waits for its end.
    pub goes_on: bool,
    /// This is its first mapping. Whatever comes of that, [`DirectIo::ended`] follows.
    pub first: bool,
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

/// How much memory is brought in before I/O; what it does not find then is brought in after that.
pub const WINDOW: usize = 1 << 22;
/// How often that is tried when nothing comes of it: it may be gone again before it is used.
pub const TRIES: u32 = 3;

/// Reads into user memory without the page cache. `Err(EIOCBQUEUED)`: it goes on by itself.
///
/// Memory is brought in before, with no lock held: how long that takes may be up to another filesystem, or
/// to the end of a freeze of this one, and what is kept for the read would be kept for as long. So a read
/// of more than is brought in at once may see a write in part.
pub fn read<F: FileSystem, T: DirectIo<F>>(
    inode: &Inode<F>,
    iocb: &mut Iocb<F>,
    iter: &mut Iter,
) -> Result<usize> {
    let (mut done, mut tries) = (0, 0);
    let mut at_end = iocb.pos() >= inode.size();
    while iter.count() > 0 && !at_end {
        if tries == TRIES {
            return iocb.read_rest(iter, done);
        }
        if iter.bring_in(WINDOW) == 0 {
            return if done > 0 { Ok(done) } else { Err(EFAULT) };
        }
        match read_what_is_there::<F, T>(inode, iocb, iter, done) {
            Ok((count, end)) => {
                at_end = end || count == done;
                done = count;
            }
            // What was brought in is gone again.
            Err(e) if e == EFAULT => tries += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads after `done` bytes, as far as there is memory for it: `Err(EFAULT)`, or less than asked for.
/// Returns the sum, and whether that is the end of the file: who appends to it comes later, and a read
/// that ended within a sector cannot go on.
fn read_what_is_there<F: FileSystem, T: DirectIo<F>>(
    inode: &Inode<F>,
    iocb: &mut Iocb<F>,
    iter: &mut Iter,
    done: usize,
) -> Result<(usize, bool)> {
    let _lock = inode.lock_shared();
    let token = iocb.as_ptr() as usize;
    let ops = if iocb.is_waited_for() {
        ptr::null()
    } else {
        // Completion goes through a work queue, so there is nothing to poll for.
        iocb.stop_polling();
        ReadOps::<F, T>::TABLE
    };
    T::read_begins(inode, token)?;
    // SAFETY: Both are valid for the call that they came with. Zeros for holes are stored here, too.
    let result = iter.without_faults(|iter| unsafe {
        bindings::oxfs_helper_pagefault_disable();
        let result = bindings::iomap_dio_rw(
            iocb.as_ptr(),
            iter.as_ptr(),
            Tables::<F, T>::OPS,
            ops,
            bindings::IOMAP_DIO_PARTIAL,
            ptr::null_mut(),
            done,
        );
        bindings::oxfs_helper_pagefault_enable();
        count_result(result)
    });
    // One that goes on may have ended, and its token be that of another, already.
    if !matches!(result, Err(e) if e == EIOCBQUEUED) {
        T::read_ended(inode, token);
    }
    Ok((result?, iocb.pos() >= inode.size()))
}

/// Writes from user memory without the page cache, after `done` bytes, as far as the memory is there:
/// `Err(EFAULT)`, or less than asked for. Returns the sum, or 0. The caller holds the inode's lock.
/// `Err(EIOCBQUEUED)`: it goes on by itself. `Err(ENOTBLK)`, or less written although the memory is
/// there: the rest has to go through the page cache.
pub fn write<F: FileSystem, T: DirectIo<F>>(
    iocb: &mut Iocb<F>,
    iter: &mut Iter,
    how: How,
    done: usize,
) -> Result<usize> {
    let mut flags = bindings::IOMAP_DIO_PARTIAL;
    let mut request = DirectWrite {
        token: iocb.as_ptr() as usize,
        whole_blocks: how.whole_blocks,
        goes_on: !how.wait && !iocb.is_waited_for(),
        first: true,
    };
    // Those of whole blocks end in process context, and the others are waited for.
    iocb.stop_polling();
    if how.wait {
        flags |= bindings::IOMAP_DIO_FORCE_WAIT;
    }
    if how.whole_blocks {
        flags |= bindings::IOMAP_DIO_FSBLOCK_ALIGNED;
    }
    // SAFETY: Both are valid for the call that they came with; mappings are asked for during this call only.
    iter.without_faults(|iter| unsafe {
        count_result(bindings::iomap_dio_rw(
            iocb.as_ptr(),
            iter.as_ptr(),
            Tables::<F, T>::OPS,
            Ops::<F, T>::TABLE,
            flags,
            (&raw mut request).cast(),
            done,
        ))
    })
}
