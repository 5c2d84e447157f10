// SPDX-License-Identifier: GPL-2.0

//! Mount contexts: how mount(2) and fsconfig(2) parse options, make a super block, and change
//! one that is mounted.
//!
//! C header: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h)

use super::dir_change;
use super::fs_type::FileSystem;
use super::inode::Inode;
use super::super_block::{self, NewSuper, SuperBlock};
use crate::bindings;
use core::marker::PhantomData;
use core::ptr;
use kernel::error::{from_err_ptr, from_result, to_result};
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// How a filesystem is mounted and its mount is changed.
#[vtable]
pub trait ContextOperations<F: FileSystem> {
    /// The options before any is parsed: those of `current` for a remount, else the defaults.
    fn options(current: Option<&SuperBlock<F>>) -> Result<F::Options>;

    /// Takes the option `key` or `key=value`. `ENOPARAM` when there is no such option, `EINVAL` when
    /// it cannot have this value; the user is told about both.
    fn parse(options: &mut F::Options, key: &CStr, value: Option<&CStr>) -> Result;

    /// Reads the device. What went wrong has been logged when this fails, unless
    /// [`NewSuper::is_silent`]. `s_umount` is held.
    fn fill_super(sb: &NewSuper<F>, options: &F::Options) -> Result<F::Super>;

    /// The root directory of the filesystem. Called once, after `fill_super`.
    fn root(sb: &SuperBlock<F>) -> Result<ARef<Inode<F>>>;

    /// The way from there to what `options` ask to mount: names with slashes between. No locks are
    /// held.
    fn way(sb: &SuperBlock<F>, options: &F::Options) -> Result<KVVec<u8>>;

    /// Whether `root`, which that way led to, may be mounted.
    fn check_way(root: &Inode<F>, options: &F::Options) -> Result;

    /// The super block is complete: the last step that may fail. `put_super` follows when it does.
    fn mounted(sb: &SuperBlock<F>) -> Result;

    /// Applies `options` to a mounted filesystem and makes it read-only or writable. `s_umount` is
    /// held exclusively; when going read-only nobody has a file open for writing, and `synced`
    /// says whether everything was written.
    fn reconfigure(
        sb: &SuperBlock<F>,
        options: &F::Options,
        read_only: bool,
        synced: Result,
    ) -> Result;
}

/// The functions of `struct fs_context_operations` for filesystem `F`.
pub(super) struct Shims<F: FileSystem>(PhantomData<F>);

impl<F: FileSystem> Shims<F> {
    const TABLE: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Self::free),
        parse_param: Some(Self::parse_param),
        get_tree: Some(Self::get_tree),
        reconfigure: Some(Self::reconfigure),
        ..pin_init::zeroed()
    };

    /// `init_fs_context`: a new context.
    ///
    /// # Safety
    ///
    /// Called by the VFS with a new context of this filesystem type; `root` is set when it is for
    /// a remount, and then its super block is active.
    pub(super) unsafe extern "C" fn init(fc: *mut kernel::bindings::fs_context) -> c_int {
        // The type is opaque there.
        let fc = fc.cast::<bindings::fs_context>();
        from_result(|| {
            // SAFETY: `fc` is valid and ours to fill in.
            let root = unsafe { (*fc).root };
            let current = if root.is_null() {
                None
            } else {
                // SAFETY: The context holds a reference to `root`, whose super block is active.
                Some(unsafe { SuperBlock::<F>::from_ptr((*root).d_sb) })
            };
            let options = KBox::new(F::Context::options(current)?, GFP_KERNEL)?;
            // SAFETY: As above.
            unsafe {
                (*fc).fs_private = KBox::into_raw(options).cast();
                (*fc).ops = &Self::TABLE;
            }
            Ok(0)
        })
    }

    /// The options that `init` put into the context.
    ///
    /// # Safety
    ///
    /// `fc` is a context that `init` succeeded for, and nobody else uses it during `'a`.
    unsafe fn options<'a>(fc: *mut bindings::fs_context) -> &'a mut F::Options {
        // SAFETY: By the contract of this function.
        unsafe { &mut *(*fc).fs_private.cast() }
    }

    /// # Safety
    ///
    /// Called by the VFS once for each context; `fs_private` is null when `init` failed.
    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: The box was made by `init`.
        unsafe {
            let options = (*fc).fs_private.cast::<F::Options>();
            if !options.is_null() {
                drop(KBox::<F::Options>::from_raw(options));
            }
        }
    }

    /// # Safety
    ///
    /// Called by the VFS with the context locked (`uapi_mutex`) or private to a mount(2) call.
    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The key is a string; the value is one when its type says so.
            let (key, value) = unsafe {
                let value = ((*param).type_() == bindings::fs_value_type_fs_value_is_string)
                    .then(|| CStr::from_char_ptr((*param).__bindgen_anon_1.string));
                (CStr::from_char_ptr((*param).key), value)
            };
            // SAFETY: The VFS serialises the operations of a context.
            let result = F::Context::parse(unsafe { Self::options(fc) }, key, value);
            if result == Err(EINVAL) {
                // SAFETY: The context is valid; the format takes one string.
                unsafe {
                    bindings::logfc(
                        (*fc).log.log,
                        (*fc).log.prefix,
                        b'e',
                        c"Bad value for '%s'".as_char_ptr(),
                        key.as_char_ptr(),
                    );
                }
            }
            result?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with a context whose options are complete.
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // SAFETY: `fill_super` is what get_tree_bdev() expects. When it succeeds the context has
            // the root of an active super block, and `s_umount` is held. A lookup may wait for
            // tasks that wait for the end of a freeze, and so for `s_umount`; the super block
            // stays active without it.
            unsafe {
                to_result(bindings::get_tree_bdev(fc, Some(Self::fill_super)))?;
                let top = (*fc).root;
                let sb = (*top).d_sb;
                bindings::up_write(&raw mut (*sb).s_umount);
                let root = Self::walk(top, Self::options(fc));
                bindings::down_write(&raw mut (*sb).s_umount);
                bindings::dput(top);
                match root {
                    Ok(root) => (*fc).root = root,
                    Err(error) => {
                        (*fc).root = ptr::null_mut();
                        bindings::deactivate_locked_super(sb);
                        return Err(error);
                    }
                }
            }
            Ok(0)
        })
    }

    /// Walks from `top` to what `options` ask to mount, and returns a reference to it. The dentry
    /// cache then knows the whole way, so that `/proc/self/mountinfo` shows it (`d_obtain_root`
    /// would make a root of it that has no name). Symbolic links are not followed.
    ///
    /// # Safety
    ///
    /// `top` is the root of an active super block of `F`.
    unsafe fn walk(
        top: *mut bindings::dentry,
        options: &F::Options,
    ) -> Result<*mut bindings::dentry> {
        // SAFETY: By the contract of this function; the reference to each directory is kept until
        // the next one is found.
        unsafe {
            let way = F::Context::way(SuperBlock::from_ptr((*top).d_sb), options)?;
            let mut at = bindings::oxfs_helper_dget(top);
            for name in way.split(|byte| *byte == b'/') {
                if !name.is_empty() && name != b"." {
                    let next = Self::step(at, name);
                    bindings::dput(at);
                    at = next?;
                }
            }
            F::Context::check_way(Inode::from_ptr((*at).d_inode), options)
                .inspect_err(|_| bindings::dput(at))?;
            Ok(at)
        }
    }

    /// The inode that `name` of the directory `at` stands for, as a referenced dentry.
    ///
    /// # Safety
    ///
    /// `at` is referenced and has an inode of `F`.
    unsafe fn step(at: *mut bindings::dentry, name: &[u8]) -> Result<*mut bindings::dentry> {
        if name.len() > bindings::NAME_MAX as usize {
            return Err(ENAMETOOLONG);
        }
        let mut name = dir_change::qstr(name)?;
        // SAFETY: By the contract of this function; `..` is refused by the callee.
        unsafe {
            if !Inode::<F>::from_ptr((*at).d_inode).is_dir() {
                return Err(ENOTDIR);
            }
            from_err_ptr(bindings::lookup_noperm_positive_unlocked(&mut name, at))
        }
    }

    /// # Safety
    ///
    /// Called by get_tree_bdev() with a new super block, its device open for it, `s_umount` held
    /// exclusively.
    unsafe extern "C" fn fill_super(
        sb: *mut bindings::super_block,
        fc: *mut bindings::fs_context,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The super block is new and ours; the context is not used elsewhere.
            unsafe {
                let options = Self::options(fc);
                let new = NewSuper::<F>::prepare(sb)?;
                let data = F::Context::fill_super(&new, options)?;
                let sb = super_block::install(sb, data)?;
                let root = F::Context::root(sb)?;
                // The reference goes to the root dentry, or is dropped when there is none.
                let inode = ARef::into_raw(root).cast().as_ptr();
                (*sb.as_ptr()).s_root = bindings::d_make_root(inode);
                if (*sb.as_ptr()).s_root.is_null() {
                    return Err(ENOMEM);
                }
                F::Context::mounted(sb)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with `s_umount` of the context's root held exclusively.
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // SAFETY: The context holds its root, whose super block is active.
            unsafe {
                let sb = (*(*fc).root).d_sb;
                let synced = to_result(bindings::sync_filesystem(sb));
                // Only what is in the mask was asked for.
                let current = SuperBlock::<F>::from_ptr(sb).is_read_only();
                let asked = (*fc).sb_flags_mask as c_ulong & bindings::OXFS_SB_RDONLY != 0;
                let wanted = (*fc).sb_flags as c_ulong & bindings::OXFS_SB_RDONLY != 0;
                let read_only = if asked { wanted } else { current };
                let options = Self::options(fc);
                F::Context::reconfigure(SuperBlock::from_ptr(sb), options, read_only, synced)?;
            }
            Ok(0)
        })
    }
}
