// SPDX-License-Identifier: GPL-2.0

//! Writeback of the page cache through iomap, and its completion in process context.
//!
//! [`Writeback::map`] decides, folio by folio, where dirty blocks go; the kernel builds I/O from
//! the answers. What needs a change of the mapping when the I/O ends (new blocks, blocks that
//! were never written, a larger size) is completed on a work queue with a rescuer: first
//! [`Writeback::complete`], then the end of writeback, so that whoever waits for writeback finds
//! the mapping changed.
//!
//! Completions of one inode gather in a list, so that neighbours are completed together.

use super::fs_type::FileSystem;
use super::inode::Inode;
use super::iomap::{Extent, Place};
use super::nofs;
use super::workqueue::WorkQueue;
use crate::bindings;
use core::marker::{PhantomData, PhantomPinned};
use core::pin::Pin;
use core::ptr;
use kernel::prelude::*;
use kernel::sync::static_lock_class;
use kernel::types::Opaque;

/// A piece of writeback whose I/O has ended. Bytes.
#[derive(Debug, Clone, Copy)]
pub struct IoEnd {
    /// Where in the file; a multiple of the block size.
    pub start: u64,
    /// How long; ends at the end of the file when that is in the last block.
    pub len: u64,
    /// Where on the device.
    pub addr: u64,
    /// [`Extent::shared`] of the extents it was built from.
    pub shared: bool,
    /// It went to blocks that were never written.
    pub unwritten: bool,
    /// Whether the data made it to the device.
    pub result: Result,
}

/// A filesystem's side of writeback. Ranges are whole blocks, in bytes.
#[vtable]
pub trait Writeback<F: FileSystem>: Sized + 'static {
    /// Where the dirty blocks at `pos` go: an extent that starts there and is no longer than
    /// `len`; a hole is not written. What is answered is under way until [`Writeback::complete`]
    /// or [`Writeback::abandon`] is called for it, unless it needs no completion.
    ///
    /// Called with the folio locked and in a NOFS scope. May sleep.
    fn map(inode: &Inode<F>, pos: u64, len: u64) -> Result<Extent>;

    /// No I/O will be done for `extent`, which [`Writeback::map`] answered.
    fn abandon(inode: &Inode<F>, extent: &Extent);

    /// The dirty data of the range is lost: give back its space. Called with the folio locked.
    fn discard(inode: &Inode<F>, pos: u64, len: u64);

    /// The I/O is about to be submitted: whether [`Writeback::complete`] is to be called.
    fn submit(inode: &Inode<F>, io: &IoEnd) -> bool;

    /// The I/O has ended: map what was written, or give the blocks back. Called in process
    /// context and in a NOFS scope, without locks. An error is reported to whoever syncs the file.
    fn complete(inode: &Inode<F>, io: &IoEnd) -> Result;

    /// Where completions of `inode` gather: every regular file has its own.
    fn completions(inode: &Inode<F>) -> Option<&Completions<F, Self>>;

    /// The queue that they run on; it has a rescuer.
    fn queue(inode: &Inode<F>) -> &WorkQueue;
}

/// # Invariants
///
/// `lock`, `list` and `work` are initialised in place. `list` holds `iomap_ioend`s by `io_list`,
/// under `lock`, and `work` is queued exactly when something is put on an empty list: so a queued
/// work finds something there, whose I/O keeps the inode alive.
struct Gathering {
    lock: Opaque<bindings::spinlock_t>,
    list: Opaque<bindings::list_head>,
    work: Opaque<bindings::work_struct>,
    _pin: PhantomPinned,
}

/// Where the completions of the writeback of an inode of `F` gather.
pub struct Completions<F, T>(Pin<KBox<Gathering>>, PhantomData<fn() -> (F, T)>);

// SAFETY: All fields are used under the lock, or by the work queue.
unsafe impl<F, T> Send for Completions<F, T> {}
// SAFETY: As above.
unsafe impl<F, T> Sync for Completions<F, T> {}

impl<F: FileSystem, T: Writeback<F>> Completions<F, T> {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let gathering = KBox::new(
            Gathering {
                lock: Opaque::uninit(),
                list: Opaque::uninit(),
                work: Opaque::uninit(),
                _pin: PhantomPinned,
            },
            GFP_KERNEL,
        )?;
        let gathering = KBox::into_pin(gathering);
        let list = gathering.list.get();
        // SAFETY: The fields are pinned, and nobody else sees them yet; list heads are plain
        // pointers.
        unsafe {
            bindings::__spin_lock_init(
                gathering.lock.get(),
                c"oxfs_completions".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
            (*list).next = list;
            (*list).prev = list;
            bindings::init_work_with_key(
                gathering.work.get(),
                Some(Worker::<F, T>::run),
                false,
                c"oxfs_completions".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
        }
        Ok(Self(gathering, PhantomData))
    }

    /// Adds `ioend`.
    ///
    /// # Safety
    ///
    /// `ioend` is an ended I/O that is on no list, and the caller gives it up.
    unsafe fn add(&self, ioend: *mut bindings::iomap_ioend, queue: &WorkQueue) {
        let list = self.0.list.get();
        // SAFETY: The lock is initialised.
        let flags = unsafe { bindings::oxfs_helper_spin_lock_irqsave(self.0.lock.get()) };
        // SAFETY: The list is initialised and locked, and `ioend` is ours.
        unsafe {
            let entry = &raw mut (*ioend).io_list;
            let was_empty = (*list).next == list;
            let last = (*list).prev;
            (*entry).next = list;
            (*entry).prev = last;
            (*last).next = entry;
            (*list).prev = entry;
            if was_empty {
                bindings::queue_work_on(
                    bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32,
                    queue.as_ptr(),
                    self.0.work.get(),
                );
            }
            bindings::oxfs_helper_spin_unlock_irqrestore(self.0.lock.get(), flags);
        }
    }
}

/// Moves all of `from` to the empty head `to`.
///
/// # Safety
///
/// Both are initialised list heads that nobody else uses meanwhile; `from` is not empty.
unsafe fn splice(from: *mut bindings::list_head, to: *mut bindings::list_head) {
    // SAFETY: By this function's contract.
    unsafe {
        (*to).next = (*from).next;
        (*to).prev = (*from).prev;
        (*(*to).next).prev = to;
        (*(*to).prev).next = to;
        (*from).next = from;
        (*from).prev = from;
    }
}

struct Worker<F, T>(PhantomData<(F, T)>);

impl<F: FileSystem, T: Writeback<F>> Worker<F, T> {
    /// Completes what has gathered.
    ///
    /// # Safety
    ///
    /// Called by the work queue only, with the `work` of a [`Gathering`] of an inode of `F`.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        let _scope = nofs::Scope::enter();
        let mut ready = bindings::list_head {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
        };
        let ready = &raw mut ready;
        // SAFETY: By the type invariant something is on the list, so the inode and this structure
        // are alive until it is completed; nothing of the structure is used after that.
        unsafe {
            let gathering = work
                .byte_sub(core::mem::offset_of!(Gathering, work))
                .cast::<Gathering>();
            let lock = (*gathering).lock.get();
            let flags = bindings::oxfs_helper_spin_lock_irqsave(lock);
            splice((*gathering).list.get(), ready);
            bindings::oxfs_helper_spin_unlock_irqrestore(lock, flags);
            bindings::iomap_sort_ioends(ready);
        }
        loop {
            // SAFETY: `ready` is an initialised list that only we use; its entries are I/Os that
            // we own.
            unsafe {
                let entry = (*ready).next;
                if entry == ready {
                    break;
                }
                let (next, prev) = ((*entry).next, (*entry).prev);
                (*prev).next = next;
                (*next).prev = prev;
                let ioend = entry
                    .byte_sub(core::mem::offset_of!(bindings::iomap_ioend, io_list))
                    .cast::<bindings::iomap_ioend>();
                bindings::iomap_ioend_try_merge(ioend, ready);
                Self::complete(ioend);
            }
        }
    }

    /// # Safety
    ///
    /// `ioend` is an ended I/O of an inode of `F`, owned by the caller, who gives it up.
    unsafe fn complete(ioend: *mut bindings::iomap_ioend) {
        // SAFETY: By this function's contract; what is under way keeps the inode.
        let (inode, mut errno, io) = unsafe {
            let inode = Inode::<F>::from_ptr((*ioend).io_inode);
            let errno = bindings::blk_status_to_errno((*ioend).io_bio.bi_status);
            (inode, errno, io_end(ioend, kernel::error::to_result(errno)))
        };
        // SAFETY: As above.
        let direct = unsafe { u32::from((*ioend).io_flags) & bindings::IOMAP_IOEND_DIRECT != 0 };
        if !direct {
            errno = super::file::result_to_c(T::complete(inode, &io));
        }
        // SAFETY: Called in process context, once.
        unsafe { bindings::iomap_finish_ioends(ioend, errno) }
    }
}

/// # Safety
///
/// `ioend` is valid.
unsafe fn io_end(ioend: *const bindings::iomap_ioend, result: Result) -> IoEnd {
    // SAFETY: By this function's contract.
    let ioend = unsafe { &*ioend };
    let flags = u32::from(ioend.io_flags);
    IoEnd {
        start: ioend.io_offset as u64,
        len: ioend.io_size as u64,
        addr: ioend.io_sector << bindings::SECTOR_SHIFT,
        shared: flags & bindings::IOMAP_IOEND_SHARED != 0,
        unwritten: flags & bindings::IOMAP_IOEND_UNWRITTEN != 0,
        result,
    }
}

pub(super) struct Tables<F, T>(PhantomData<(F, T)>);

impl<F: FileSystem, T: Writeback<F>> Tables<F, T> {
    const OPS: &'static bindings::iomap_writeback_ops = &bindings::iomap_writeback_ops {
        writeback_range: Some(Self::range),
        writeback_submit: Some(Self::submit),
    };

    /// # Safety
    ///
    /// Called by iomap only, with a context that [`write_pages`] made and a locked folio.
    unsafe extern "C" fn range(
        wpc: *mut bindings::iomap_writepage_ctx,
        folio: *mut bindings::folio,
        pos: u64,
        len: u32,
        end: u64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let inode = unsafe { Inode::<F>::from_ptr((*wpc).inode) };
        // SAFETY: As above. A folio's size is a power of two, and its place a multiple of that.
        let size = unsafe { bindings::oxfs_helper_folio_size(folio) } as u64;
        let rest = size - (pos & (size - 1));
        let done = T::map(inode, pos, u64::from(len)).and_then(|extent| {
            // SAFETY: As above.
            extent.store(inode, unsafe { &mut (*wpc).iomap });
            // SAFETY: As above; the answer covers `pos`.
            let done =
                unsafe { bindings::iomap_add_to_ioend(wpc, folio, pos as i64, end as i64, len) };
            if done < 0 && extent.place != Place::Hole {
                T::abandon(inode, &extent);
            }
            super::iomap::count_result(done)
        });
        if done.is_err() {
            T::discard(inode, pos, rest);
        }
        super::iomap::count_to_c(done)
    }

    /// # Safety
    ///
    /// Called by iomap only, with a context that [`write_pages`] made and that holds an I/O.
    unsafe extern "C" fn submit(wpc: *mut bindings::iomap_writepage_ctx, error: i32) -> i32 {
        // SAFETY: By this function's contract.
        unsafe {
            let ioend = (*wpc).wb_ctx.cast::<bindings::iomap_ioend>();
            let inode = Inode::<F>::from_ptr((*ioend).io_inode);
            if T::submit(inode, &io_end(ioend, Ok(()))) && T::completions(inode).is_some() {
                (*ioend).io_bio.bi_end_io = Some(Self::end_io);
                // We go to a work queue ourselves.
                (*ioend).io_bio.bi_flags &= !(1 << bindings::BIO_COMPLETE_IN_TASK);
            }
            bindings::iomap_ioend_writeback_submit(wpc, error)
        }
    }

    /// Has an ended I/O completed on the work queue.
    ///
    /// # Safety
    ///
    /// Called by the block layer only, with the bio of an ioend of an inode of `F` that has
    /// completions. Any context.
    pub(super) unsafe extern "C" fn end_io(bio: *mut bindings::bio) {
        // SAFETY: By this function's contract the bio is that of an ioend, which we own now.
        unsafe {
            let ioend = bio
                .byte_sub(core::mem::offset_of!(bindings::iomap_ioend, io_bio))
                .cast::<bindings::iomap_ioend>();
            let inode = Inode::<F>::from_ptr((*ioend).io_inode);
            // There are some: `submit` has looked.
            if let Some(completions) = T::completions(inode) {
                completions.add(ioend, T::queue(inode));
            }
        }
    }
}

/// Writes dirty pages.
///
/// # Safety
///
/// `mapping` is the page cache of an inode of `F`, and `wbc` is valid for this call.
pub(super) unsafe fn write_pages<F: FileSystem, T: Writeback<F>>(
    mapping: *mut bindings::address_space,
    wbc: *mut bindings::writeback_control,
) -> i32 {
    // SAFETY: By this function's contract.
    let host = unsafe { (*mapping).host };
    // SAFETY: As above; a page cache is of an inode that is ready.
    let sb = unsafe { Inode::<F>::from_ptr(host) }.super_block();
    // SAFETY: By this function's contract.
    if unsafe { sb.has_to_stay_dirty(wbc) } {
        // The VFS sees that the pages are.
        return 0;
    }
    let _scope = nofs::Scope::enter();
    let mut context = bindings::iomap_writepage_ctx {
        inode: host,
        wbc,
        ops: Tables::<F, T>::OPS,
        ..pin_init::zeroed()
    };
    // SAFETY: By this function's contract.
    unsafe { bindings::iomap_writepages(&mut context) }
}
