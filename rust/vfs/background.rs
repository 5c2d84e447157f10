// SPDX-License-Identifier: GPL-2.0

//! What a mounted filesystem does when nobody waits for it: one piece of work for each super block,
//! on a queue of its own, which ends before the filesystem's data goes.
//!
//! Suspending waits until no freezable work runs: it is done in short turns, and does not wait for
//! anybody who stays stopped meanwhile, such as the thawing of the filesystem.

use super::fs_type::FileSystem;
use super::super_block::{SuperBlock, SuperOperations};
use super::workqueue::WorkQueue;
use crate::bindings;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full};
use kernel::time::{Delta, Instant, Monotonic};
use kernel::types::Opaque;

/// How long a turn lasts.
const TURN: Delta = Delta::from_millis(100);
/// Milliseconds from one turn to the next.
const SOON: u32 = 10;
/// Milliseconds after which what could not be done is tried again.
const LATER: u32 = 30_000;

/// What is left when the background work returns.
pub enum Left {
    /// Nothing that is known of.
    Nothing,
    /// More of the same.
    More,
    /// What cannot be done yet.
    Later,
}

/// One call of [`SuperOperations::background`].
pub struct Turn<'a> {
    stopping: &'a Atomic<i32>,
    started: Instant<Monotonic>,
}

impl Turn<'_> {
    /// Whether it is to return: the work is being stopped, or it is time for the next turn.
    pub fn is_over(&self) -> bool {
        self.stopping.load(Acquire) != 0 || self.started.elapsed() > TURN
    }
}

/// The filesystem's data of a super block, and its background work.
///
/// # Invariants
///
/// It does not move. `work` is initialised and only queued on `queue`, whose end waits for it. The
/// queue is the first field, and so the first to be dropped. `sb` is valid until then.
pub(super) struct Mounted<F: FileSystem> {
    queue: WorkQueue,
    work: Opaque<bindings::delayed_work>,
    stopping: Atomic<i32>,
    sb: *mut bindings::super_block,
    pub(super) data: F::Super,
}

impl<F: FileSystem> Mounted<F> {
    /// The data of `sb` with its work, which is stopped.
    ///
    /// # Safety
    ///
    /// `sb` outlives the result.
    pub(super) unsafe fn new(
        sb: *mut bindings::super_block,
        name: &dyn core::fmt::Display,
        data: F::Super,
    ) -> Result<KBox<Self>> {
        let name_of_type = F::NAME.to_str().map_err(|_| EINVAL)?;
        let mounted = KBox::new(
            Self {
                queue: WorkQueue::new(name_of_type, name)?,
                work: Opaque::uninit(),
                stopping: Atomic::new(1i32),
                sb,
                data,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The box is where it will stay, and nobody knows it yet.
        unsafe { bindings::oxfs_helper_init_delayed_work(mounted.work.get(), Some(Self::run)) };
        Ok(mounted)
    }

    /// # Safety
    ///
    /// Called by the queue with the `work` of a `Self`.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: The `work_struct` is in the delayed work, and that is in a `Self`, which is live
        // until the queue has ended.
        let this = unsafe {
            let delayed = kernel::container_of!(work, bindings::delayed_work, work);
            &*kernel::container_of!(Opaque::cast_from(delayed), Self, work)
        };
        if this.stops() {
            return;
        }
        let turn = Turn {
            stopping: &this.stopping,
            started: Instant::now(),
        };
        // SAFETY: By the type invariant; the data is there as long as `this`.
        let left = F::SuperOps::background(unsafe { SuperBlock::from_ptr(this.sb) }, &turn);
        if !this.stops() {
            match left {
                Left::Nothing => {}
                Left::More => this.queue_after(SOON),
                Left::Later => this.queue_after(LATER),
            }
        }
    }

    fn stops(&self) -> bool {
        self.stopping.load(Acquire) != 0
    }

    /// Has it run now, also if it was to run later.
    fn queue(&self) {
        // SAFETY: By the type invariant. What runs is queued once more.
        unsafe {
            bindings::mod_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                self.queue.as_ptr(),
                self.work.get(),
                0,
            );
        }
    }

    /// Has it run after some time, unless it is queued already.
    fn queue_after(&self, milliseconds: u32) {
        // SAFETY: By the type invariant.
        unsafe {
            bindings::queue_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                self.queue.as_ptr(),
                self.work.get(),
                bindings::__msecs_to_jiffies(milliseconds),
            );
        }
    }

    pub(super) fn stop(&self) {
        self.stopping.xchg(1i32, Full);
        // SAFETY: By the type invariant.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }

    /// As [`Self::stop`], but what runs may go on for a while.
    fn pause(&self) {
        self.stopping.xchg(1i32, Full);
        // SAFETY: By the type invariant.
        unsafe { bindings::cancel_delayed_work(self.work.get()) };
    }
}

impl<F: FileSystem> SuperBlock<F> {
    /// Has [`SuperOperations::background`] called, now and whenever it is woken.
    pub fn start_background(&self) {
        self.mounted().stopping.xchg(0i32, Full);
        self.mounted().queue();
    }

    /// Has it called soon, unless it is stopped. If it is running it will be called again.
    pub fn wake_background(&self) {
        if !self.mounted().stops() {
            self.mounted().queue();
        }
    }

    /// Waits until it does not run, and lets nobody wake it.
    pub fn stop_background(&self) {
        self.mounted().stop();
    }

    /// Has it end soon, and lets nobody wake it. For when the filesystem is frozen: it may be waiting for
    /// the thaw, as may whatever lets an inode go.
    pub fn pause_background(&self) {
        self.mounted().pause();
    }
}
