// SPDX-License-Identifier: GPL-2.0

//! Taking inodes out of memory that nobody uses.

use super::fs_type::FileSystem;
use super::inode::{self, Inode};
use super::super_block::SuperBlock;
use crate::bindings;
use core::ptr::NonNull;
use kernel::sync::aref::ARef;

impl<F: FileSystem> SuperBlock<F> {
    /// Lets go of the inodes whose number `chosen` accepts, and of cached names for them, as far as
    /// nobody uses them; those that somebody does leave memory when he does not any more. May sleep;
    /// `chosen` must not.
    pub fn prune(&self, chosen: impl Fn(u64) -> bool) {
        let mut last = None;
        while let Some(inode) = self.next_inode(last.as_ref(), &chosen) {
            // SAFETY: The inode is referenced.
            unsafe {
                bindings::d_mark_dontcache(inode.as_ptr());
                bindings::d_prune_aliases(inode.as_ptr());
            }
            // Not before: the reference keeps it on the list, for the next to be found.
            last = Some(inode);
        }
    }

    /// The next inode that is chosen, on the list of all of them. Others are passed by with the list's
    /// lock held, as the kernel's own walks do: a reference to one might be its last, and what comes
    /// of that is not for every caller.
    pub(super) fn next_inode(
        &self,
        after: Option<&ARef<Inode<F>>>,
        chosen: &impl Fn(u64) -> bool,
    ) -> Option<ARef<Inode<F>>> {
        let sb = self.as_ptr();
        let mut found = None;
        // SAFETY: The lock keeps the list as it is and what is on it in memory. An inode that is
        // referenced is on it.
        unsafe {
            let lock = &raw mut (*sb).s_inode_list_lock;
            bindings::spin_lock(lock);
            let head = &raw mut (*sb).s_inodes;
            let mut at = after.map_or(head, |inode| &raw mut (*inode.as_ptr()).i_sb_list);
            loop {
                at = (*at).next;
                if at == head {
                    break;
                }
                let inode = kernel::container_of!(at, bindings::inode, i_sb_list);
                if chosen((*inode).i_ino) {
                    found = Self::hold(inode);
                    if found.is_some() {
                        break;
                    }
                }
            }
            bindings::spin_unlock(lock);
        }
        found
    }

    /// A reference to an inode that is ready and stays in memory.
    ///
    /// # Safety
    ///
    /// `inode` is on the super block's list, whose lock is held.
    unsafe fn hold(inode: *mut bindings::inode) -> Option<ARef<Inode<F>>> {
        // SAFETY: By the contract of this function. An inode is locked before it is ready, so that
        // one which is ready, and then is not locked, is not being made.
        unsafe {
            inode::if_ready::<F>(inode)?;
            if bindings::oxfs_helper_inode_is_new(inode) {
                return None;
            }
            // Its lock ranks below that of the list.
            let inode = NonNull::new(bindings::igrab(inode))?;
            Some(ARef::from_raw(inode.cast()))
        }
    }
}
