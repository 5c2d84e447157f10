// SPDX-License-Identifier: GPL-2.0

//! Waiting for what another task, or the end of I/O, makes true.
//!
//! The wait queues are the kernel's own, which are shared by all and found by the address of a key.
//!
//! C header: [`include/linux/wait_bit.h`](srctree/include/linux/wait_bit.h)

use crate::bindings;
use core::ptr;
use kernel::ffi::{c_int, c_void};
use kernel::prelude::*;
use kernel::task::might_sleep;
use kernel::types::Opaque;

fn address<T>(key: &T) -> *mut c_void {
    ptr::from_ref(key).cast_mut().cast()
}

/// Waits until `condition` holds, which does not sleep. Who makes it hold then calls [`wake_up`] with the
/// same key. `EINTR` after a fatal signal. The caller may sleep.
pub fn wait_killable<T>(key: &T, condition: impl Fn() -> bool) -> Result {
    might_sleep();
    let key = address(key);
    let entry = Opaque::<bindings::wait_bit_queue_entry>::uninit();
    // SAFETY: The entry is memory of ours. The key is only compared.
    let queue = unsafe {
        bindings::init_wait_var_entry(entry.get(), key, 0);
        bindings::__var_waitqueue(key)
    };
    // SAFETY: A field of the entry, which is initialised.
    let wait = unsafe { &raw mut (*entry.get()).wq_entry };
    let result = loop {
        // SAFETY: Both are initialised, and the entry stays where it is until it is taken out below.
        let signal = unsafe {
            bindings::prepare_to_wait_event(queue, wait, bindings::TASK_KILLABLE as c_int)
        };
        if condition() {
            break Ok(());
        }
        if signal != 0 {
            break Err(EINTR);
        }
        // SAFETY: The task may sleep, by the contract of this function.
        unsafe { bindings::schedule() };
    };
    // SAFETY: As above.
    unsafe { bindings::finish_wait(queue, wait) };
    result
}

/// Has those look who wait with this key. In any context; after a fully ordered operation that made hold
/// what they wait for.
pub fn wake_up<T>(key: &T) {
    // SAFETY: The key is only compared.
    unsafe { bindings::wake_up_var(address(key)) }
}
