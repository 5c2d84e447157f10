// SPDX-License-Identifier: GPL-2.0

//! Sequence files: what the lines of `/proc/mounts` are written to.
//!
//! C header: [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

use super::fs_type::FileSystem;
use super::inode::Inode;
use crate::bindings;
use core::fmt;
use core::marker::PhantomData;
use kernel::prelude::*;
use kernel::types::Opaque;

/// A place in the tree of names, whose own name may change.
///
/// # Invariants
///
/// Only seen by reference, and referenced as long: a dentry of `F` that has an inode.
#[repr(transparent)]
pub struct Place<F: FileSystem>(Opaque<bindings::dentry>, PhantomData<fn() -> F>);

impl<F: FileSystem> Place<F> {
    /// # Safety
    ///
    /// `dentry` is as the type invariant says, for `'a`.
    pub(super) unsafe fn from_ptr<'a>(dentry: *mut bindings::dentry) -> &'a Self {
        // SAFETY: `Self` is transparent over it.
        unsafe { &*dentry.cast_const().cast() }
    }

    /// The inode.
    pub fn inode(&self) -> &Inode<F> {
        // SAFETY: By the type invariant; a dentry that is referenced keeps its inode.
        unsafe { Inode::from_ptr((*self.0.get()).d_inode) }
    }
}

/// A sequence file that is being shown. Text that does not fit makes the kernel show it again
/// with a larger buffer, so writing never fails.
#[repr(transparent)]
pub struct SeqFile(Opaque<bindings::seq_file>);

impl SeqFile {
    /// # Safety
    ///
    /// `seq` is an open sequence file that only the caller uses during `'a`.
    pub(super) unsafe fn from_ptr<'a>(seq: *mut bindings::seq_file) -> &'a mut Self {
        // SAFETY: `Self` is transparent over it.
        unsafe { &mut *seq.cast() }
    }

    /// Writes the path, from the filesystem's root, of the first directory on the way up from
    /// `place`, itself included, that `is` accepts; the root itself, if there is no other. What has a
    /// meaning in `/proc/mounts` becomes octal numbers.
    pub fn write_path<F: FileSystem>(&mut self, place: &Place<F>, is: impl Fn(&Inode<F>) -> bool) {
        // SAFETY: The dentry is referenced, and so is each that the next is looked up from.
        unsafe {
            let mut at = bindings::oxfs_helper_dget(place.0.get());
            loop {
                let up = bindings::dget_parent(at);
                if up == at || is(Inode::from_ptr((*at).d_inode)) {
                    bindings::dput(up);
                    break;
                }
                bindings::dput(at);
                at = up;
            }
            bindings::seq_dentry(self.0.get(), at, c" \t\n\\#,".as_char_ptr());
            bindings::dput(at);
        }
    }
}

impl fmt::Write for SeqFile {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: The file is ours; the text is read only.
        unsafe { bindings::seq_write(self.0.get(), text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}
