// SPDX-License-Identifier: GPL-2.0

//! How allocations behave: scopes in which the task's do not enter filesystems to reclaim memory,
//! and allocations that wait for memory.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::alloc::Flags;
use kernel::types::NotThreadSafe;

/// `GFP_KERNEL | __GFP_NOFAIL`: the allocator waits for memory as long as it takes. For what must
/// not fail half way, as changes of metadata and their commit. The `kernel` crate has no such flag.
pub const GFP_NOFAIL: Flags = {
    // SAFETY: `Flags` is a `u32` and, by the sizes that the compiler compares here, nothing else;
    // every combination of bits is one of flags.
    unsafe { core::mem::transmute::<u32, Flags>(bindings::OXFS_GFP_NOFAIL) }
};

/// While it lives, every allocation of this task is `GFP_NOFS`, whatever its flags say. Scopes
/// nest; they end in the reverse order of their beginning, as values on a stack do.
#[must_use = "the scope ends when this is dropped"]
pub struct Scope {
    flags: u32,
    _task: NotThreadSafe,
}

impl Scope {
    /// Begins a scope.
    pub fn enter() -> Self {
        // SAFETY: It changes a flag of the current task, in process context.
        let flags = unsafe { bindings::oxfs_helper_memalloc_nofs_save() };
        Self {
            flags,
            _task: NotThreadSafe,
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: The value cannot have left the task that entered.
        unsafe { bindings::oxfs_helper_memalloc_nofs_restore(self.flags) }
    }
}
