// SPDX-License-Identifier: GPL-2.0

//! Scopes in which the task's allocations do not enter filesystems to reclaim memory.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::types::NotThreadSafe;

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
