// SPDX-License-Identifier: GPL-2.0

//! Block devices, past the page cache: reads and writes of blocks of 4096 bytes in the caller's
//! memory, flush and discard. Nothing here fails for want of memory: a commit that did would be the
//! volume's last.
//!
//! C headers: [`include/linux/bio.h`](srctree/include/linux/bio.h),
//! [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use super::nofs::GFP_NOFAIL;
use crate::bindings;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::atomic::{
    ordering::{Acquire, Full, Relaxed, Release},
    Atomic,
};
use kernel::sync::Completion;

/// Bytes in a block.
pub const BLOCK_SIZE: usize = 4096;

/// A block's bytes.
pub type Block = [u8; BLOCK_SIZE];

/// The block device of a mounted filesystem.
///
/// # Invariants
///
/// Holds a reference to the device's memory. The device is open while the filesystem's data of
/// the super block lives, which is where this value is kept.
pub struct Device {
    bdev: NonNull<bindings::block_device>,
}

// SAFETY: Block devices are used from all tasks at once.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

/// `kobject` of the device inside a block device, which counts its references.
fn device_of(bdev: NonNull<bindings::block_device>) -> *mut bindings::device {
    // SAFETY: The field is inside the object; no reference is made.
    unsafe { &raw mut (*bdev.as_ptr()).bd_device }
}

impl Device {
    /// # Safety
    ///
    /// `bdev` is open, and stays so until the filesystem's data is dropped.
    pub(super) unsafe fn new(bdev: *mut bindings::block_device) -> Self {
        // SAFETY: An open device is not null and has a reference to take another from.
        unsafe {
            let bdev = NonNull::new_unchecked(bdev);
            bindings::get_device(device_of(bdev));
            Self { bdev }
        }
    }

    /// The C object.
    pub fn as_ptr(&self) -> *mut bindings::block_device {
        self.bdev.as_ptr()
    }

    /// Size in blocks, rounded down.
    pub fn blocks(&self) -> u64 {
        // SAFETY: The device is open.
        unsafe { bindings::oxfs_helper_bdev_nr_bytes(self.as_ptr()) / BLOCK_SIZE as u64 }
    }

    /// Whether the device has zones, and so cannot be written at will.
    pub fn is_zoned(&self) -> bool {
        // SAFETY: The device is open.
        unsafe { bindings::oxfs_helper_bdev_is_zoned(self.as_ptr()) }
    }

    /// Reads one block and waits.
    pub fn read(&self, block: u64, data: &mut Block) -> Result {
        let op = bindings::req_op_REQ_OP_READ | bindings::OXFS_REQ_META;
        if is_direct(data) {
            // SAFETY: The memory is ours until the call returns, and directly mapped.
            return unsafe { self.transfer(block, data.as_mut_ptr(), op) };
        }
        let mut bounce = KBox::new([0u8; BLOCK_SIZE], GFP_NOFAIL)?;
        // SAFETY: As above.
        unsafe { self.transfer(block, bounce.as_mut_ptr(), op)? };
        data.copy_from_slice(&*bounce);
        Ok(())
    }

    /// Writes one block past the device's cache, and waits.
    pub fn write_durable(&self, block: u64, data: &Block) -> Result {
        let op = bindings::req_op_REQ_OP_WRITE
            | bindings::OXFS_REQ_META
            | bindings::OXFS_REQ_SYNC
            | bindings::OXFS_REQ_FUA;
        if is_direct(data) {
            // SAFETY: A write only reads the memory, which is directly mapped.
            return unsafe { self.transfer(block, data.as_ptr().cast_mut(), op) };
        }
        let mut bounce = KBox::new(*data, GFP_NOFAIL)?;
        // SAFETY: As above.
        unsafe { self.transfer(block, bounce.as_mut_ptr(), op) }
    }

    /// # Safety
    ///
    /// `data` points to a block in directly mapped memory that is valid, for a read exclusively,
    /// during the call.
    unsafe fn transfer(&self, block: u64, data: *mut u8, op: u32) -> Result {
        let sector = sector_of(block)?;
        // SAFETY: The device is open; the memory is as the contract says.
        to_result(unsafe {
            bindings::bdev_rw_virt(self.as_ptr(), sector, data.cast(), BLOCK_SIZE, op)
        })
    }

    /// Makes durable what was written before.
    pub fn flush(&self) -> Result {
        // SAFETY: The device is open.
        to_result(unsafe { bindings::blkdev_issue_flush(self.as_ptr()) })
    }

    /// Tells the device that the content of `count` blocks is not needed. Whether it can do
    /// anything with that does not matter.
    pub fn discard(&self, block: u64, count: u64) {
        let (Ok(sector), Ok(sectors)) = (sector_of(block), sector_of(count)) else {
            return;
        };
        // SAFETY: The device is open.
        unsafe {
            if bindings::oxfs_helper_bdev_max_discard_sectors(self.as_ptr()) != 0 {
                bindings::blkdev_issue_discard(
                    self.as_ptr(),
                    sector,
                    sectors,
                    bindings::GFP_KERNEL,
                );
            }
        }
    }

    /// Writes all blocks that `writes` yields, in any order, and waits for all of them. The
    /// first error is returned, after everything has ended.
    pub fn write<'a>(&self, writes: impl Iterator<Item = (u64, &'a Block)>) -> Result {
        let mut batch = Batch::new(self)?;
        let mut result = Ok(());
        for (block, data) in writes {
            result = batch.add(block, data);
            if result.is_err() {
                break;
            }
        }
        let done = batch.finish();
        result.and(done)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::put_device(device_of(self.bdev)) }
    }
}

/// The first sector of a block.
fn sector_of(block: u64) -> Result<u64> {
    block.checked_mul(8).ok_or(EIO)
}

/// Whether a device can transfer to or from this memory as it is: in the direct map, and aligned
/// as every device accepts.
fn is_direct(data: &Block) -> bool {
    let address = data.as_ptr();
    // SAFETY: The address is only looked at.
    let mapped = unsafe { bindings::is_vmalloc_or_module_addr(address.cast()) } != 0;
    !mapped && address as usize % 512 == 0
}

/// What the completions of a batch of writes tell its issuer.
#[pin_data]
struct Ending {
    /// Writes under way, and one for the issuer.
    pending: Atomic<i32>,
    /// The first error, or 0.
    error: Atomic<i32>,
    #[pin]
    done: Completion,
}

/// Writes under way.
///
/// # Invariants
///
/// Every bio that was submitted and has not ended points to `ending`, which is waited for before
/// it is dropped, as are `bounces` and the caller's blocks.
struct Batch<'a> {
    device: &'a Device,
    ending: Pin<KBox<Ending>>,
    bounces: KVec<KBox<Block>>,
    bio: Option<NonNull<bindings::bio>>,
    next: u64,
    finished: bool,
}

/// Blocks in one bio at most.
const BIO_BLOCKS: u16 = 256;

impl<'a> Batch<'a> {
    fn new(device: &'a Device) -> Result<Self> {
        let ending = KBox::pin_init(
            pin_init!(Ending {
                pending: Atomic::new(1),
                error: Atomic::new(0),
                done <- Completion::new(),
            }),
            GFP_NOFAIL,
        )?;
        Ok(Self {
            device,
            ending,
            bounces: KVec::new(),
            bio: None,
            next: 0,
            finished: false,
        })
    }

    /// Adds a block to the batch.
    fn add(&mut self, block: u64, data: &'a Block) -> Result {
        let mut address = data.as_ptr();
        if !is_direct(data) {
            self.bounces
                .push(KBox::new(*data, GFP_NOFAIL)?, GFP_NOFAIL)?;
            address = self
                .bounces
                .last()
                .map_or(address, |bounce| bounce.as_ptr());
        }
        let bio = match self.bio {
            Some(bio) if block == self.next && has_room(bio) => bio,
            _ => {
                self.submit();
                self.start(block)?
            }
        };
        // SAFETY: There is room for one more segment, and the memory is directly mapped.
        unsafe {
            bindings::bio_add_virt_nofail(
                bio.as_ptr(),
                address.cast_mut().cast(),
                BLOCK_SIZE as u32,
            );
        }
        self.next = block.saturating_add(1);
        Ok(())
    }

    /// Begins a bio at `block`.
    fn start(&mut self, block: u64) -> Result<NonNull<bindings::bio>> {
        let sector = sector_of(block)?;
        let op = bindings::req_op_REQ_OP_WRITE | bindings::OXFS_REQ_META | bindings::OXFS_REQ_SYNC;
        // SAFETY: The device is open. Bios come from a pool and the earlier ones of this task
        // are submitted, so that this waits but does not fail.
        let bio = unsafe {
            bindings::bio_alloc_bioset(
                self.device.as_ptr(),
                BIO_BLOCKS,
                op,
                bindings::OXFS_GFP_NOIO,
                &raw mut bindings::fs_bio_set,
            )
        };
        let bio = NonNull::new(bio).ok_or(ENOMEM)?;
        // SAFETY: The bio is ours until it is submitted.
        unsafe {
            (*bio.as_ptr()).bi_iter.bi_sector = sector;
            (*bio.as_ptr()).bi_end_io = Some(write_ended);
            (*bio.as_ptr()).bi_private = (&raw const *self.ending).cast_mut().cast();
        }
        self.bio = Some(bio);
        Ok(bio)
    }

    /// Sends the bio that is being filled.
    fn submit(&mut self) {
        if let Some(bio) = self.bio.take() {
            self.ending.pending.fetch_add(1, Relaxed);
            // SAFETY: The bio is complete; its memory and `ending` outlive it.
            unsafe { bindings::submit_bio(bio.as_ptr()) };
        }
    }

    /// Waits for everything.
    fn finish(mut self) -> Result {
        self.wait();
        to_result(self.ending.error.load(Acquire))
    }

    fn wait(&mut self) {
        if self.finished {
            return;
        }
        self.submit();
        self.finished = true;
        if self.ending.pending.fetch_sub(1, Full) != 1 {
            self.ending.done.wait_for_completion();
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.wait();
    }
}

fn has_room(bio: NonNull<bindings::bio>) -> bool {
    // SAFETY: The bio is ours, not submitted.
    unsafe { (*bio.as_ptr()).bi_vcnt < (*bio.as_ptr()).bi_max_vecs }
}

/// A write of a batch has ended.
///
/// # Safety
///
/// Called by the block layer, maybe in interrupt context, with a bio that `Batch::start` made.
unsafe extern "C" fn write_ended(bio: *mut bindings::bio) {
    // SAFETY: The issuer waits until `pending` is 0, so `ending` lives until the last line.
    unsafe {
        let ending = (*bio).bi_private.cast::<Ending>();
        let error = bindings::blk_status_to_errno((*bio).bi_status);
        if error != 0 {
            // Only the first error is kept.
            let _ = (*ending).error.cmpxchg(0, error, Release);
        }
        bindings::bio_put(bio);
        if (*ending).pending.fetch_sub(1, Full) == 1 {
            (*ending).done.complete_all();
        }
    }
}
