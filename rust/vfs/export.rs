// SPDX-License-Identifier: GPL-2.0

//! File handles: names of inodes that outlive the dentry cache, for NFS and
//! open_by_handle_at(2). A handle holds inode number and generation of a file, and of its parent
//! where that is asked for.
//!
//! C header: [`include/linux/exportfs.h`](srctree/include/linux/exportfs.h)

use super::file::result_to_c;
use super::fs_type::FileSystem;
use super::inode::Inode;
use super::super_block::SuperBlock;
use crate::bindings;
use core::marker::PhantomData;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// How inodes are found again.
#[vtable]
pub trait ExportOperations<F: FileSystem> {
    /// The inode with this number, if it exists and has this generation. `ESTALE` otherwise.
    fn find(sb: &SuperBlock<F>, ino: u64, generation: u32) -> Result<ARef<Inode<F>>>;

    /// The parent of a directory.
    fn parent(dir: &Inode<F>) -> Result<ARef<Inode<F>>>;

    /// Makes what was changed of the inode, or of the names in it, durable: NFS promises that.
    fn commit_metadata(inode: &Inode<F>) -> Result;
}

/// The table of `F`, for `s_export_op`.
pub(super) const fn table<F: FileSystem>() -> *const bindings::export_operations {
    &Shims::<F>::TABLE
}

/// Words of a handle: inode number (two words) and generation.
const FILE_WORDS: usize = 3;
/// Words of a handle with the parent's, after the file's.
const PARENT_WORDS: usize = 6;
const TYPE_FILE: u32 = bindings::fid_type_FILEID_INO64_GEN;
const TYPE_PARENT: u32 = bindings::fid_type_FILEID_INO64_GEN_PARENT;

/// The functions of `struct export_operations` for filesystem `F`.
struct Shims<F: FileSystem>(PhantomData<F>);

impl<F: FileSystem> Shims<F> {
    const TABLE: bindings::export_operations = bindings::export_operations {
        encode_fh: Some(Self::encode_fh),
        fh_to_dentry: Some(Self::fh_to_dentry),
        fh_to_parent: Some(Self::fh_to_parent),
        get_parent: Some(Self::get_parent),
        commit_metadata: Some(Self::commit_metadata),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by exportfs with referenced inodes of `F` (`parent` may be null) and room for
    /// `*max` words.
    unsafe extern "C" fn encode_fh(
        inode: *mut bindings::inode,
        words: *mut u32,
        max: *mut c_int,
        parent: *mut bindings::inode,
    ) -> c_int {
        let (len, kind) = if parent.is_null() {
            (FILE_WORDS, TYPE_FILE)
        } else {
            (PARENT_WORDS, TYPE_PARENT)
        };
        // SAFETY: By the contract of this function.
        unsafe {
            let room = usize::try_from(*max).unwrap_or(0);
            *max = len as c_int;
            if room < len {
                return bindings::fid_type_FILEID_INVALID as c_int;
            }
            let words = core::slice::from_raw_parts_mut(words, len);
            for (chunk, inode) in words.chunks_exact_mut(FILE_WORDS).zip([inode, parent]) {
                let ino = (*inode).i_ino;
                chunk.copy_from_slice(&[ino as u32, (ino >> 32) as u32, (*inode).i_generation]);
            }
        }
        kind as c_int
    }

    /// The inode that the words from `from` tell, as a dentry.
    ///
    /// # Safety
    ///
    /// `sb` is active, `fid` has `len` words.
    unsafe fn decode(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        from: usize,
    ) -> *mut bindings::dentry {
        // SAFETY: By the contract of this function.
        let words = unsafe {
            core::slice::from_raw_parts(
                fid.cast_const().cast::<u32>(),
                usize::try_from(len).unwrap_or(0),
            )
        };
        let Some(&[low, high, generation]) = words.get(from..from + FILE_WORDS) else {
            return core::ptr::null_mut();
        };
        let ino = u64::from(high) << 32 | u64::from(low);
        // SAFETY: The super block is active.
        let found = F::Export::find(unsafe { SuperBlock::from_ptr(sb) }, ino, generation);
        Self::alias(found)
    }

    fn alias(found: Result<ARef<Inode<F>>>) -> *mut bindings::dentry {
        match found {
            // SAFETY: The dentry takes over the reference.
            Ok(inode) => unsafe { bindings::d_obtain_alias(ARef::into_raw(inode).as_ptr().cast()) },
            Err(error) => error.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// Called by exportfs with an active super block and a handle of `len` words.
    unsafe extern "C" fn fh_to_dentry(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut bindings::dentry {
        if kind as u32 != TYPE_FILE && kind as u32 != TYPE_PARENT {
            return core::ptr::null_mut();
        }
        // SAFETY: By the contract of this function.
        unsafe { Self::decode(sb, fid, len, 0) }
    }

    /// # Safety
    ///
    /// As `fh_to_dentry`.
    unsafe extern "C" fn fh_to_parent(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut bindings::dentry {
        if kind as u32 != TYPE_PARENT {
            return core::ptr::null_mut();
        }
        // SAFETY: By the contract of this function.
        unsafe { Self::decode(sb, fid, len, FILE_WORDS) }
    }

    /// # Safety
    ///
    /// Called by exportfs with a referenced dentry of a directory.
    unsafe extern "C" fn get_parent(child: *mut bindings::dentry) -> *mut bindings::dentry {
        // SAFETY: By the contract of this function; the dentry has an inode.
        Self::alias(F::Export::parent(unsafe {
            Inode::from_ptr((*child).d_inode)
        }))
    }

    /// # Safety
    ///
    /// Called by nfsd with a referenced inode, which may be locked.
    unsafe extern "C" fn commit_metadata(inode: *mut bindings::inode) -> c_int {
        // SAFETY: By the contract of this function.
        result_to_c(F::Export::commit_metadata(unsafe {
            Inode::from_ptr(inode)
        }))
    }
}
