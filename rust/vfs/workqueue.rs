// SPDX-License-Identifier: GPL-2.0

//! Work queues of a filesystem's own: with a thread in reserve, so that work that frees memory
//! gets done when no new thread can be made.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;
use kernel::workqueue::Queue;

/// A work queue with a rescuer (`WQ_MEM_RECLAIM`). Work that is queued when it is dropped is done
/// first. None is done while the system is suspended (`WQ_FREEZABLE`): a filesystem must not
/// change after a hibernation image was taken, which has the older state of it in it.
///
/// # Invariants
///
/// The pointer is to a work queue that this value owns.
pub struct WorkQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: Work queues are used from all tasks at once.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// A queue called `name`-`device` in `ps`.
    pub fn new(name: &str, device: &dyn fmt::Display) -> Result<Self> {
        let name = kernel::str::CString::try_from_fmt(format_args!("{name}-{device}"))?;
        // SAFETY: The format takes one string, which the function copies.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                bindings::wq_flags_WQ_MEM_RECLAIM
                    | bindings::wq_flags_WQ_FREEZABLE
                    | bindings::wq_flags_WQ_UNBOUND,
                0,
                name.as_char_ptr(),
            )
        };
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// The C object.
    pub fn as_ptr(&self) -> *mut bindings::workqueue_struct {
        self.0.as_ptr()
    }

    /// Waits until what is queued now is done.
    pub fn flush(&self) {
        // SAFETY: The queue is live.
        unsafe { bindings::__flush_workqueue(self.as_ptr()) }
    }
}

impl Deref for WorkQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: The queue lives as long as `self`.
        unsafe { Queue::from_raw(self.as_ptr()) }
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: The queue is ours; it is drained first.
        unsafe { bindings::destroy_workqueue(self.as_ptr()) }
    }
}

/// What a [`Timer`] does when its time has come.
pub trait Tick: Send + Sync + 'static {
    /// Does it, on the queue's thread, and returns after how many milliseconds to come back.
    fn tick(&self) -> u32;
}

/// Work that comes back, on a queue.
///
/// # Invariants
///
/// `work` is queued, or runs, only while the value lives: dropping it cancels and waits.
#[pin_data(PinnedDrop)]
pub struct Timer<T: Tick> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    queue: Arc<WorkQueue>,
    target: Arc<T>,
}

// SAFETY: The work queue has its own locks; `T` is `Send` and `Sync`.
unsafe impl<T: Tick> Send for Timer<T> {}
// SAFETY: As above.
unsafe impl<T: Tick> Sync for Timer<T> {}

impl<T: Tick> Timer<T> {
    /// A timer that is not started, for `target` on `queue`.
    pub fn new(queue: Arc<WorkQueue>, target: Arc<T>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                work <- Opaque::ffi_init(|work: *mut bindings::delayed_work| {
                    // SAFETY: The memory is ours and pinned.
                    unsafe { bindings::oxfs_helper_init_delayed_work(work, Some(Self::run)) }
                }),
                queue,
                target,
            }),
            GFP_KERNEL,
        )
    }

    /// Starts it, or sets its next time if it has been started.
    pub fn start(&self, milliseconds: u32) {
        // SAFETY: The work is initialised and the queue is live.
        unsafe {
            bindings::mod_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                self.queue.as_ptr(),
                self.work.get(),
                bindings::__msecs_to_jiffies(milliseconds),
            );
        }
    }

    /// Stops it, and waits until it does not run. Not to be called from `tick`.
    pub fn stop(&self) {
        // The work may queue itself once more while it is cancelled: the kernel prevents that.
        // SAFETY: The work is initialised.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }

    /// # Safety
    ///
    /// Called by the queue with the `work` of a `Self`.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: The `work_struct` is the first field of the delayed work, which is in a `Self`
        // that lives until the work has ended.
        let this = unsafe {
            let delayed = kernel::container_of!(work, bindings::delayed_work, work);
            &*kernel::container_of!(Opaque::cast_from(delayed), Self, work)
        };
        let next = this.target.tick();
        // A plain queueing, which does nothing when the timer was set anew meanwhile or is being
        // cancelled.
        // SAFETY: As in `start`.
        unsafe {
            bindings::queue_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                this.queue.as_ptr(),
                this.work.get(),
                bindings::__msecs_to_jiffies(next),
            );
        }
    }
}

#[pinned_drop]
impl<T: Tick> PinnedDrop for Timer<T> {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}
