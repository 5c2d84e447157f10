// SPDX-License-Identifier: GPL-2.0

//! Swapfiles: what a filesystem tells the swap core about one, and swap I/O for files that it
//! would do wrongly.
//!
//! The swap core writes a page where the file's swap extents say, on the block device. A *large*
//! folio it treats as if its pages were contiguous there:
//!
//! - It gives large folios slots only when `SWP_BLKDEV` is set, which it does for block devices.
//!   The flag is tested in three places (`mm/swapfile.c` of 7.3): `claim_swapfile()` sets
//!   it, `cluster_alloc_swap_entry()` refuses large folios without it, `swap_range_free()` calls
//!   the disk's `swap_slot_free_notify` with it, which takes slots for sectors. So a file may have
//!   it when no extent ends inside an aligned range of 512 pages and the disk has no such
//!   function: [`SwapInfo::allow_whole_folios`].
//! - On synchronous devices (`BLK_FEAT_SYNCHRONOUS`: pmem, brd, zram) it swaps *in* large folios
//!   from any file (`do_swap_page()` in `mm/memory.c`, `shmem_swapin_folio()` in `mm/shmem.c`),
//!   from the first page's sector on. When an extent ends inside, that reads wrong memory:
//!   [`SwapInfo::split_reads`] installs operations that read extent by extent.
//!
//! C headers: [`include/linux/swap.h`](srctree/include/linux/swap.h),
//! [`include/linux/swap_ops.h`](srctree/include/linux/swap_ops.h)

use crate::bindings;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

/// Pages, and also blocks of 4096 bytes.
const PAGE_SHIFT: u32 = 12;
/// Sectors of 512 bytes in a page.
const SECTORS: u64 = 8;

/// Whether this kernel series' uses of `SWP_BLKDEV` were read and are as this module says.
pub const fn whole_folios_audited() -> bool {
    bindings::LINUX_VERSION_CODE >> 8 == 0x0703
}

/// A swap device that is being set up.
///
/// # Invariants
///
/// Only seen by reference, during `swap_activate`, when nobody else sees the device.
#[repr(transparent)]
pub struct SwapInfo(Opaque<bindings::swap_info_struct>);

impl SwapInfo {
    /// # Safety
    ///
    /// `sis` is a swap device that is being set up, seen by the caller only, for `'a`.
    pub(super) unsafe fn from_ptr<'a>(sis: *mut bindings::swap_info_struct) -> &'a mut Self {
        // SAFETY: By this function's contract; `Self` is transparent.
        unsafe { &mut *sis.cast() }
    }

    /// How many pages the swap header says there are, header included; no more than the file has.
    pub fn max_pages(&self) -> u64 {
        // SAFETY: By the type invariant.
        u64::from(unsafe { (*self.0.get()).max })
    }

    /// How many pages have an extent: the first that has none.
    fn next_page(&self) -> usize {
        let mut next = 0;
        // SAFETY: By the type invariant; the nodes of the tree are members of extents.
        unsafe {
            let mut node = (*self.0.get()).swap_extent_root.rb_node;
            while !node.is_null() {
                let extent = extent_of(node);
                next = (*extent).start_page.saturating_add((*extent).nr_pages);
                node = (*node).rb_right;
            }
        }
        next
    }

    /// Says that the next `pages` pages are on the device from page `at` on; page 0 comes first.
    /// Whether it is an extent of its own, and not the continuation of the last.
    pub fn add_extent(&mut self, pages: u64, at: u64) -> Result<bool> {
        // SAFETY: By the type invariant. Extents are without gaps, as the callee insists.
        let added = unsafe {
            bindings::add_swap_extent(self.0.get(), self.next_page(), pages as usize, at)
        };
        if added < 0 {
            return Err(Error::from_errno(added));
        }
        Ok(added != 0)
    }

    /// Sets how many pages there are, header included.
    pub fn set_pages(&mut self, pages: u64) -> Result {
        let pages = u32::try_from(pages).map_err(|_| EINVAL)?;
        // SAFETY: By the type invariant.
        unsafe {
            (*self.0.get()).max = pages;
            (*self.0.get()).pages = pages.checked_sub(1).ok_or(EINVAL)?;
        }
        Ok(())
    }

    fn bdev(&self) -> *mut bindings::block_device {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.get()).bdev }
    }

    /// Whether the swap core swaps in large folios from this device, whatever the extents.
    pub fn is_synchronous(&self) -> bool {
        // SAFETY: The device of a mounted filesystem is live.
        unsafe { bindings::oxfs_helper_bdev_synchronous(self.bdev()) }
    }

    /// Whether the disk wants to hear of freed slots, which for a file would be wrong sectors.
    pub fn has_slot_notify(&self) -> bool {
        // SAFETY: The device of a mounted filesystem is live, as is its disk.
        unsafe {
            (*(*(*self.bdev()).bd_disk).fops)
                .swap_slot_free_notify
                .is_some()
        }
    }

    /// Lets the swap core write large folios as a whole. No extent may end inside an aligned
    /// range of 512 pages, but for the header page's.
    pub fn allow_whole_folios(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.get()).flags |= bindings::SWP_BLKDEV as usize }
    }

    /// Has large folios read extent by extent.
    pub fn split_reads(&mut self) {
        // SAFETY: By the type invariant. The kernel sets the operations of every device to the
        // same table before it asks the filesystem.
        unsafe {
            let sis = self.0.get();
            BASE.store((*sis).ops.cast(), Ordering::Release);
            (*sis).ops = (&raw const SPLIT_OPS).cast_mut().cast();
        }
    }
}

/// The operations that the kernel presets: those of block devices.
static BASE: AtomicPtr<bindings::swap_ops> = AtomicPtr::new(ptr::null_mut());

/// Does what [`BASE`] does, but for reads that an extent ends in.
static SPLIT_OPS: bindings::swap_ops = bindings::swap_ops {
    flags: 0,
    can_merge: Some(never_merge),
    submit_write: Some(submit_write),
    submit_read: Some(submit_read),
};

/// The extent that `node` is part of.
///
/// # Safety
///
/// `node` is part of a swap device's tree of extents.
unsafe fn extent_of(node: *mut bindings::rb_node) -> *const bindings::swap_extent {
    // SAFETY: By this function's contract.
    unsafe {
        node.byte_sub(core::mem::offset_of!(bindings::swap_extent, rb_node))
            .cast()
    }
}

/// Where `page` of a swap device is on the block device, and how many pages are contiguous there.
///
/// # Safety
///
/// `sis` is an active swap device, whose extents do not change.
unsafe fn find_extent(
    sis: *const bindings::swap_info_struct,
    page: u64,
) -> Option<(bindings::sector_t, u64)> {
    // SAFETY: By this function's contract the tree does not change; its nodes are members of
    // extents.
    unsafe {
        let mut node = (*sis).swap_extent_root.rb_node;
        while !node.is_null() {
            let extent = extent_of(node);
            let (start, pages) = ((*extent).start_page as u64, (*extent).nr_pages as u64);
            if page < start {
                node = (*node).rb_left;
            } else if page - start >= pages {
                node = (*node).rb_right;
            } else {
                let inside = page - start;
                return Some(((*extent).start_block + inside, pages - inside));
            }
        }
    }
    None
}

/// One folio at a time, so that a request never covers more than one.
///
/// # Safety
///
/// Called by the swap core only.
unsafe extern "C" fn never_merge(
    _folio: *mut bindings::folio,
    _prev: *mut bindings::folio,
    _prev_size: usize,
    _rw: i32,
) -> bool {
    false
}

/// # Safety
///
/// Called by the swap core only, with one folio of one page: large ones are written to devices
/// with `SWP_BLKDEV` only, and this table is for others.
unsafe extern "C" fn submit_write(ctx: *mut bindings::swap_io_ctx) {
    // SAFETY: By this function's contract, and `BASE` was set before this table was installed.
    unsafe {
        if let Some(submit) = (*BASE.load(Ordering::Acquire)).submit_write {
            submit(ctx);
        }
    }
}

/// # Safety
///
/// Called by the swap core only, with one locked folio in the swap cache.
unsafe extern "C" fn submit_read(ctx: *mut bindings::swap_io_ctx) {
    // SAFETY: By this function's contract; `BASE` was set before this table was installed; the
    // device is in use, so its extents do not change.
    unsafe {
        let (sio, sis) = ((*ctx).sio, (*ctx).sis);
        let folio = (*sio).bvecs[0].bv_page.cast::<bindings::folio>();
        let first = bindings::oxfs_helper_folio_swp_offset(folio) as u64;
        let pages = u64::try_from((*sio).len).unwrap_or(0) >> PAGE_SHIFT;
        if find_extent(sis, first).is_some_and(|(_, contiguous)| contiguous >= pages) {
            if let Some(submit) = (*BASE.load(Ordering::Acquire)).submit_read {
                submit(ctx);
            }
            return;
        }
        let result = read_split(sis, folio, first, pages);
        complete_read(ctx, result);
    }
}

/// Reads a folio, extent by extent, and waits.
///
/// # Safety
///
/// `sis` is an active swap device, `folio` a locked folio of `pages` pages whose first is `first`
/// of the device.
unsafe fn read_split(
    sis: *const bindings::swap_info_struct,
    folio: *mut bindings::folio,
    first: u64,
    pages: u64,
) -> Result {
    let mut done = 0;
    while done < pages {
        // SAFETY: By this function's contract.
        let (at, contiguous) = unsafe { find_extent(sis, first + done) }.ok_or(EIO)?;
        let count = contiguous.min(pages - done);
        let mut vec = bindings::bio_vec {
            bv_page: folio.cast(),
            bv_len: (count << PAGE_SHIFT) as u32,
            bv_offset: (done << PAGE_SHIFT) as u32,
        };
        let mut bio = MaybeUninit::<bindings::bio>::uninit();
        // SAFETY: The bio and its vector live until the I/O has ended; the memory is a locked
        // folio's.
        unsafe {
            let bio = bio.as_mut_ptr();
            bindings::bio_init(bio, (*sis).bdev, &mut vec, 1, bindings::req_op_REQ_OP_READ);
            (*bio).bi_iter.bi_size = vec.bv_len;
            (*bio).bi_iter.bi_sector = at * SECTORS;
            let errno = bindings::submit_bio_wait(bio);
            bindings::bio_uninit(bio);
            to_result(errno)?;
        }
        done += count;
    }
    Ok(())
}

/// Ends a read: marks the folio up to date or not, unlocks it, frees the request.
///
/// # Safety
///
/// `ctx` holds a read that is done and that nobody else ends.
unsafe fn complete_read(ctx: *mut bindings::swap_io_ctx, result: Result) {
    let mut iter = MaybeUninit::<bindings::iov_iter>::uninit();
    // SAFETY: By this function's contract. The callee sets the function that ends a request, which
    // is all that is wanted of it: the swap core has no other way to end one.
    unsafe {
        let sio = (*ctx).sio;
        let len = (*sio).len;
        bindings::swap_fs_prepare_rw(ctx, bindings::READ as i32, iter.as_mut_ptr());
        let iocb = (&raw mut (*sio).__bindgen_anon_1).cast::<bindings::kiocb>();
        let count = match result {
            Ok(()) => len as isize,
            Err(e) => e.to_errno() as isize,
        };
        if let Some(complete) = (*iocb).ki_complete {
            complete(iocb, count);
        }
    }
}
