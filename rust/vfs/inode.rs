// SPDX-License-Identifier: GPL-2.0

//! Inodes: a reference-counted `struct inode` together with the filesystem's own data, in one
//! slab object.
//!
//! Life of an inode:
//!
//! 1. [`Fresh`]: allocated, seen by nobody. Filesystem data is put in.
//! 2. [`NewInode`]: hashed under its number and locked by `I_NEW`: whoever else looks the number
//!    up waits. Here the operation tables are attached and the attributes are set.
//! 3. [`Inode`]: ready. References are counted ([`ARef`]).
//! 4. Last reference gone and unlinked, or memory is wanted: `evict_inode`, then the filesystem's
//!    data is dropped in `destroy_inode`, both in process context; the memory is freed after an
//!    RCU grace period.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/slab.h`](srctree/include/linux/slab.h)

use super::fs_type::FileSystem;
use super::super_block::SuperBlock;
use super::time;
use crate::bindings;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::aref::{ARef, AlwaysRefCounted};
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::types::Opaque;

/// An object of the inode cache.
///
/// # Invariants
///
/// `data` is initialised exactly when `ready` is true. `ready` is set once, while the inode is locked
/// by `I_NEW`, and cleared in `destroy_inode`, when nobody can reach it any more.
#[repr(C)]
pub(super) struct Slot<F: FileSystem> {
    inode: Opaque<bindings::inode>,
    ready: Atomic<bool>,
    data: MaybeUninit<F::Inode>,
}

/// The slab cache of a filesystem type's inodes.
pub(super) struct Cache<F: FileSystem> {
    cache: NonNull<bindings::kmem_cache>,
    _type: PhantomData<fn() -> F>,
}

// SAFETY: A `kmem_cache` is used from all CPUs; the pointer is owned by this value.
unsafe impl<F: FileSystem> Send for Cache<F> {}
// SAFETY: As above.
unsafe impl<F: FileSystem> Sync for Cache<F> {}

impl<F: FileSystem> Cache<F> {
    /// Creates the cache, called `name` in `/proc/slabinfo`.
    pub(super) fn new(name: &'static CStr) -> Result<Self> {
        let mut args = bindings::kmem_cache_args {
            align: core::mem::align_of::<Slot<F>>() as u32,
            ctor: Some(Self::construct),
            ..Default::default()
        };
        // SAFETY: The arguments are valid, and `name` lives for ever.
        let cache = unsafe {
            bindings::__kmem_cache_create_args(
                name.as_char_ptr(),
                u32::try_from(core::mem::size_of::<Slot<F>>())?,
                &mut args,
                bindings::OXFS_SLAB_INODE_FLAGS,
            )
        };
        let cache = NonNull::new(cache).ok_or(ENOMEM)?;
        Ok(Self {
            cache,
            _type: PhantomData,
        })
    }

    /// The slab constructor: prepares what stays valid from one use of an object to the next.
    ///
    /// # Safety
    ///
    /// Called by the slab allocator only, with an object of this cache that nobody uses.
    unsafe extern "C" fn construct(object: *mut c_void) {
        let slot = object.cast::<Slot<F>>();
        // SAFETY: The object is ours and large enough for a `Slot`.
        unsafe {
            (&raw mut (*slot).ready).write(Atomic::new(false));
            bindings::inode_init_once(Opaque::cast_into(&raw const (*slot).inode));
        }
    }

    /// Allocates an object for `sb`; null when memory is short.
    ///
    /// # Safety
    ///
    /// `sb` is a live super block.
    pub(super) unsafe fn alloc(&self, sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: The cache and the super block's list are live.
        unsafe {
            bindings::kmem_cache_alloc_lru_noprof(
                self.cache.as_ptr(),
                &raw mut (*sb).s_inode_lru,
                bindings::GFP_KERNEL,
            )
        }
        .cast()
    }

    /// Destroys the cache, after the grace periods that freed inodes may still wait for.
    ///
    /// # Safety
    ///
    /// No inode is live, and none will be allocated.
    pub(super) unsafe fn destroy(&self) {
        // SAFETY: By the contract of this function; the barrier waits for the last `free`.
        unsafe {
            bindings::rcu_barrier();
            bindings::kmem_cache_destroy(self.cache.as_ptr());
        }
    }
}

/// Gives an inode's memory back to its cache. Never sleeps.
///
/// # Safety
///
/// `inode` came from [`Cache::alloc`], its data was dropped, and nobody uses it.
pub(super) unsafe fn free(inode: *mut bindings::inode) {
    // The super block, and with it the way to the cache, may be gone by now; kfree() finds the
    // cache by the address.
    // SAFETY: By the contract of this function.
    unsafe { bindings::kfree(inode.cast()) }
}

/// Drops the filesystem's data of an inode that is going away.
///
/// # Safety
///
/// `inode` is an inode of `F` that nobody else can reach (`destroy_inode`).
pub(super) unsafe fn drop_data<F: FileSystem>(inode: *mut bindings::inode) {
    let slot = inode.cast::<Slot<F>>();
    // SAFETY: Nobody else can reach the slot; by its invariant the data is there when `ready`.
    unsafe {
        if (*slot).ready.load(Acquire) {
            (*slot).ready.store(false, Release);
            (*slot).data.assume_init_drop();
        }
    }
}

/// The inode of `inode` if it ever became ready.
///
/// # Safety
///
/// `inode` is a live inode of `F`, and stays so for `'a`.
pub(super) unsafe fn if_ready<'a, F: FileSystem>(
    inode: *mut bindings::inode,
) -> Option<&'a Inode<F>> {
    // SAFETY: Every inode of `F` lies in a `Slot`, and what is ready stays so while it is live.
    if unsafe { (*inode.cast::<Slot<F>>()).ready.load(Acquire) } {
        // SAFETY: As the contract of this function says; it is ready.
        Some(unsafe { Inode::from_ptr(inode) })
    } else {
        None
    }
}

/// An inode of filesystem `F`.
///
/// # Invariants
///
/// It is the `inode` of a [`Slot`] of `F` that is ready.
#[repr(transparent)]
pub struct Inode<F: FileSystem> {
    inode: Opaque<bindings::inode>,
    _type: PhantomData<fn() -> F>,
}

// SAFETY: `struct inode` has its own locks, and the methods here that touch unlocked fields say
// how they are protected. `F::Inode` is `Send` and `Sync`.
unsafe impl<F: FileSystem> Send for Inode<F> {}
// SAFETY: As above.
unsafe impl<F: FileSystem> Sync for Inode<F> {}

// SAFETY: `ihold` and `iput` count references to an inode.
unsafe impl<F: FileSystem> AlwaysRefCounted for Inode<F> {
    fn inc_ref(&self) {
        // SAFETY: A shared reference proves that the count is not zero.
        unsafe { bindings::ihold(self.as_ptr()) }
    }

    unsafe fn dec_ref(inode: NonNull<Self>) {
        // SAFETY: The caller owns a count.
        unsafe { bindings::iput(inode.as_ptr().cast()) }
    }
}

impl<F: FileSystem> Inode<F> {
    /// The inode behind `inode`.
    ///
    /// # Safety
    ///
    /// `inode` is a ready inode of `F` that stays valid for `'a`.
    pub(super) unsafe fn from_ptr<'a>(inode: *mut bindings::inode) -> &'a Self {
        // SAFETY: `Self` is transparent over `struct inode`.
        unsafe { &*inode.cast_const().cast() }
    }

    /// The inode of an open file.
    ///
    /// # Safety
    ///
    /// `file` is an open file of `F` that stays open for `'a`.
    pub(super) unsafe fn from_file<'a>(file: *const bindings::file) -> &'a Self {
        // SAFETY: An open file's inode does not change and is kept; only ready ones are opened.
        unsafe { Self::from_ptr((*file).f_inode) }
    }

    /// The C object.
    pub fn as_ptr(&self) -> *mut bindings::inode {
        self.inode.get()
    }

    /// The filesystem's data.
    pub fn data(&self) -> &F::Inode {
        let slot = self.as_ptr().cast_const().cast::<Slot<F>>();
        // SAFETY: By the type invariant the slot is ready, so the data is initialised; it is not
        // dropped before nobody can reach the inode.
        unsafe { (*slot).data.assume_init_ref() }
    }

    /// The super block that the inode belongs to.
    pub fn super_block(&self) -> &SuperBlock<F> {
        // SAFETY: `i_sb` never changes, and a super block outlives its inodes.
        unsafe { SuperBlock::from_ptr((*self.as_ptr()).i_sb) }
    }

    /// The inode number.
    pub fn ino(&self) -> u64 {
        // SAFETY: It never changes once the inode is hashed.
        unsafe { (*self.as_ptr()).i_ino }
    }

    /// Type and permission bits.
    pub fn mode(&self) -> u32 {
        // SAFETY: The type never changes; permission bits are one aligned 16-bit load.
        u32::from(unsafe { (&raw const (*self.as_ptr()).i_mode).read_volatile() })
    }

    fn has_type(&self, kind: u32) -> bool {
        self.mode() & bindings::S_IFMT == kind
    }

    /// Whether this is a regular file.
    pub fn is_reg(&self) -> bool {
        self.has_type(bindings::S_IFREG)
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.has_type(bindings::S_IFDIR)
    }

    /// Number of names.
    pub fn nlink(&self) -> u32 {
        // SAFETY: An aligned 32-bit load of a field that is changed under the inode's lock.
        unsafe { (&raw const (*self.as_ptr()).__bindgen_anon_1.i_nlink).read_volatile() }
    }

    /// `S_*` flags.
    pub fn flags(&self) -> u32 {
        // SAFETY: An aligned 32-bit load; the VFS reads it so.
        unsafe { (&raw const (*self.as_ptr()).i_flags).read_volatile() }
    }

    /// Whether changes of the directory are to be durable when they return (`dirsync`, `sync`).
    pub fn is_dirsync(&self) -> bool {
        // SAFETY: The inode is live.
        unsafe { bindings::oxfs_helper_is_dirsync(self.as_ptr()) }
    }

    /// Whether the file is an active swapfile, as far as the VFS knows.
    pub fn is_swapfile(&self) -> bool {
        self.flags() & bindings::S_SWAPFILE != 0
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        // SAFETY: The inode is live.
        let size = unsafe { bindings::oxfs_helper_i_size_read(self.as_ptr()) };
        u64::try_from(size).unwrap_or(0)
    }

    /// Sets the size in bytes. The caller holds the inode's lock exclusively.
    pub fn set_size(&self, size: u64) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        // SAFETY: The inode is live.
        unsafe { bindings::oxfs_helper_i_size_write(self.as_ptr(), size) }
    }

    /// Sets the space that the file takes, in sectors of 512 bytes.
    pub fn set_sectors(&self, sectors: u64) {
        // SAFETY: The inode is live; the helper takes `i_lock`.
        unsafe { bindings::oxfs_helper_inode_set_blocks(self.as_ptr(), sectors) }
    }

    /// Sets the change time to now and returns it. The caller holds the inode's lock exclusively.
    pub fn touch(&self) -> time::Timespec {
        // SAFETY: The inode is live.
        time::Timespec::from_c(unsafe { bindings::inode_set_ctime_current(self.as_ptr()) })
    }

    /// The time now, in the granularity that the filesystem has.
    pub fn now(&self) -> time::Timespec {
        // SAFETY: The inode is live.
        time::Timespec::from_c(unsafe { bindings::current_time(self.as_ptr()) })
    }

    /// The times of last access, content change and inode change.
    pub fn times(&self) -> time::Times {
        // SAFETY: The inode is live. Torn pairs of seconds and nanoseconds are possible, as they
        // are for `stat`.
        unsafe { time::Times::read(self.as_ptr()) }
    }

    /// Sets those of the times that differ from `seen`, what [`Self::times`] returned before.
    pub fn change_times(&self, seen: &time::Times, times: &time::Times) {
        // SAFETY: The inode is live.
        unsafe { times.write(seen, self.as_ptr()) }
    }

    /// Sets the times.
    pub fn set_times(&self, times: &time::Times) {
        self.change_times(&self.times(), times);
    }

    /// Has the VFS write the inode itself back, at some time.
    pub(super) fn mark_dirty(&self) {
        let flags = bindings::OXFS_I_DIRTY_SYNC;
        // SAFETY: The inode is live.
        unsafe { bindings::__mark_inode_dirty(self.as_ptr(), flags) };
    }

    /// Sets permission bits, owners and number of names as they are on disk. The caller holds the
    /// inode's lock, or is the only one to see the inode.
    pub fn set_attributes(&self, mode: u32, uid: u32, gid: u32, nlink: u32) {
        let inode = self.as_ptr();
        // SAFETY: The inode is live and the caller keeps other writers out; the type bits stay. Lookups
        // read without a lock, as they do when chmod or chown set them: what is right is not written.
        unsafe {
            let kind = u32::from((*inode).i_mode) & bindings::S_IFMT;
            let mode = (kind | (mode & 0o7777)) as u16;
            if (*inode).i_mode != mode {
                (*inode).i_mode = mode;
            }
            if bindings::oxfs_helper_i_uid_read(inode) != uid {
                bindings::oxfs_helper_i_uid_write(inode, uid);
            }
            if bindings::oxfs_helper_i_gid_read(inode) != gid {
                bindings::oxfs_helper_i_gid_write(inode, gid);
            }
            // `set_nlink` keeps the super block's count of unlinked inodes right in both
            // directions, except that it warns when a name comes back to an inode that is being
            // freed, which cannot be: it is referenced.
            if (*inode).__bindgen_anon_1.i_nlink != nlink {
                bindings::set_nlink(inode, nlink);
            }
        }
    }

    /// Sets the `S_*` flags in `mask` to those in `flags`; others (`S_SWAPFILE`) stay.
    pub fn set_flags(&self, flags: u32, mask: u32) {
        // SAFETY: The inode is live; the function changes the bits in `mask` atomically.
        unsafe { bindings::inode_set_flags(self.as_ptr(), flags, mask) }
    }

    /// The owner as the filesystem stores it.
    pub fn uid(&self) -> u32 {
        // SAFETY: The inode is live.
        unsafe { bindings::oxfs_helper_i_uid_read(self.as_ptr()) }
    }

    /// The group as the filesystem stores it.
    pub fn gid(&self) -> u32 {
        // SAFETY: The inode is live.
        unsafe { bindings::oxfs_helper_i_gid_read(self.as_ptr()) }
    }
}

/// The inode with number `ino`, from memory or to be filled in.
pub enum Get<F: FileSystem> {
    /// It was there.
    Ready(ARef<Inode<F>>),
    /// It was not: fill it in. Others that want it wait.
    Fill(Filling<F>),
}

/// Looks for inode `ino` of `sb` in memory, and makes a locked one when it is not there.
pub fn get<F: FileSystem>(sb: &SuperBlock<F>, ino: u64) -> Result<Get<F>> {
    // SAFETY: The super block is live.
    let inode = unsafe { bindings::iget_locked(sb.as_ptr(), ino) };
    let inode = NonNull::new(inode).ok_or(ENOMEM)?;
    // SAFETY: The inode is ours (referenced); `I_NEW` is set only for its creator, us.
    if unsafe { bindings::oxfs_helper_inode_is_new(inode.as_ptr()) } {
        return Ok(Get::Fill(Filling {
            inode,
            _type: PhantomData,
        }));
    }
    // SAFETY: `iget_locked` gave us a reference.
    unsafe { referenced(inode) }.map(Get::Ready).ok_or(ESTALE)
}

/// Inode `ino` of `sb`, if it is in memory. Waits for one that is being filled in or freed.
pub fn find<F: FileSystem>(sb: &SuperBlock<F>, ino: u64) -> Option<ARef<Inode<F>>> {
    // SAFETY: The super block is live.
    let inode = NonNull::new(unsafe { bindings::ilookup(sb.as_ptr(), ino) })?;
    // SAFETY: `ilookup` gave us a reference.
    unsafe { referenced(inode) }
}

/// The inode, unless it is a bad one, whose filling failed after it was found.
///
/// # Safety
///
/// It is one of `F` that is not new, with a reference, which becomes the result's.
unsafe fn referenced<F: FileSystem>(inode: NonNull<bindings::inode>) -> Option<ARef<Inode<F>>> {
    // SAFETY: By the contract of this function, it is live. A bad one is not ready.
    if unsafe { if_ready::<F>(inode.as_ptr()) }.is_none() {
        // SAFETY: By the contract of this function.
        unsafe { bindings::iput(inode.as_ptr()) };
        return None;
    }
    // SAFETY: By the contract of this function.
    Some(unsafe { ARef::from_raw(inode.cast()) })
}

/// An inode that is hashed and locked, without the filesystem's data. Dropping it makes the
/// lookup fail for those that wait.
pub struct Filling<F: FileSystem> {
    inode: NonNull<bindings::inode>,
    _type: PhantomData<fn() -> F>,
}

impl<F: FileSystem> Filling<F> {
    /// Puts the filesystem's data in.
    pub fn fill(self, data: F::Inode) -> NewInode<F> {
        let this = ManuallyDrop::new(self);
        // SAFETY: The inode is new and locked by us: nobody else touches the slot.
        unsafe { put_data::<F>(this.inode, data) };
        NewInode {
            inode: this.inode,
            _type: PhantomData,
        }
    }
}

impl<F: FileSystem> Drop for Filling<F> {
    fn drop(&mut self) {
        // SAFETY: The inode is new, locked and referenced by us; this gives up all three.
        unsafe { bindings::iget_failed(self.inode.as_ptr()) }
    }
}

/// # Safety
///
/// `inode` is an inode of `F` that is not ready, and locked by the caller with `I_NEW`.
unsafe fn put_data<F: FileSystem>(inode: NonNull<bindings::inode>, data: F::Inode) {
    let slot = inode.as_ptr().cast::<Slot<F>>();
    // SAFETY: By the contract of this function.
    unsafe {
        (*slot).data.write(data);
        (*slot).ready.store(true, Release);
    }
}

/// An allocated inode without a number, seen by nobody.
pub struct Fresh<F: FileSystem> {
    inode: NonNull<bindings::inode>,
    _type: PhantomData<fn() -> F>,
}

impl<F: FileSystem> Fresh<F> {
    /// Allocates an inode of `sb`.
    pub fn new(sb: &SuperBlock<F>) -> Result<Self> {
        // SAFETY: The super block is live.
        let inode = unsafe { bindings::new_inode(sb.as_ptr()) };
        Ok(Self {
            inode: NonNull::new(inode).ok_or(ENOMEM)?,
            _type: PhantomData,
        })
    }

    /// Owner, group and mode of a new inode in `dir`, as the caller's credentials, the mount's
    /// id mapping and a set-group-id directory have it: (mode, uid, gid) to be stored.
    pub fn owner(&self, idmap: &IdMap, dir: Option<&Inode<F>>, mode: u32) -> (u32, u32, u32) {
        let inode = self.inode.as_ptr();
        let dir = dir.map_or(core::ptr::null(), |dir| dir.as_ptr().cast_const());
        // SAFETY: The inode is ours, the directory is live.
        unsafe {
            bindings::inode_init_owner(idmap.as_ptr(), inode, dir, mode as u16);
            (
                u32::from((*inode).i_mode),
                bindings::oxfs_helper_i_uid_read(inode),
                bindings::oxfs_helper_i_gid_read(inode),
            )
        }
    }

    /// The C object, which is ours alone.
    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.inode.as_ptr()
    }

    /// Sets the change time to now and returns it.
    pub fn touch(&self) -> time::Timespec {
        // SAFETY: The inode is ours.
        time::Timespec::from_c(unsafe { bindings::inode_set_ctime_current(self.inode.as_ptr()) })
    }

    /// Gives the inode its number and data, and hashes it, locked.
    pub fn insert(self, ino: u64, data: F::Inode) -> Result<NewInode<F>> {
        let inode = self.inode.as_ptr();
        // SAFETY: The inode is ours and not hashed. On success it is locked, and the reference
        // that `self` held goes to the result; on failure `self` still holds it.
        unsafe {
            (*inode).i_ino = ino;
            to_result(bindings::insert_inode_locked(inode)).map_err(|_| ESTALE)?;
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: Until it is unlocked nobody else looks at the slot.
        unsafe { put_data::<F>(this.inode, data) };
        Ok(NewInode {
            inode: this.inode,
            _type: PhantomData,
        })
    }
}

impl<F: FileSystem> Drop for Fresh<F> {
    fn drop(&mut self) {
        // SAFETY: We own the only reference. `set_nlink(1)` was done by `inode_init_always`; the
        // inode is unhashed, so that `iput` evicts it at once, without its data.
        unsafe { bindings::iput(self.inode.as_ptr()) }
    }
}

/// An inode that is hashed, locked by `I_NEW`, and has its data. Dropping it makes the lookup
/// fail for those that wait.
pub struct NewInode<F: FileSystem> {
    inode: NonNull<bindings::inode>,
    _type: PhantomData<fn() -> F>,
}

/// What kind of inode it is to become, with its operations.
pub enum Kind<F: FileSystem> {
    /// A regular file.
    Regular(InodeOps<F>, FileOps<F>, MappingOps<F>),
    /// A directory.
    Directory(InodeOps<F>, FileOps<F>),
    /// A symbolic link.
    Symlink(InodeOps<F>),
    /// A device, FIFO or socket, with the device number: major in the upper 32 bits.
    Special(InodeOps<F>, u64),
}

impl<F: FileSystem> NewInode<F> {
    /// The inode.
    pub fn inode(&self) -> &Inode<F> {
        // SAFETY: It has its data.
        unsafe { Inode::from_ptr(self.inode.as_ptr()) }
    }

    /// Makes it a `kind` with the permissions in `mode`, and for a special one the type in it.
    pub fn set_kind(&self, mode: u32, kind: Kind<F>) {
        let inode = self.inode.as_ptr();
        let file_type = match kind {
            Kind::Regular(..) => bindings::S_IFREG,
            Kind::Directory(..) => bindings::S_IFDIR,
            Kind::Symlink(_) => bindings::S_IFLNK,
            Kind::Special(..) => mode & bindings::S_IFMT,
        };
        let mode = file_type | (mode & 0o7777);
        // SAFETY: The inode is locked by us, nobody else looks at these fields yet; the tables
        // live for ever.
        unsafe {
            (*inode).i_mode = mode as u16;
            match kind {
                Kind::Regular(iop, fop, aop) => {
                    (*inode).i_op = iop.0;
                    (*inode).__bindgen_anon_3.i_fop = fop.0;
                    (*inode).i_data.a_ops = aop.0;
                    bindings::oxfs_helper_mapping_set_large_folios((*inode).i_mapping);
                }
                Kind::Directory(iop, fop) => {
                    (*inode).i_op = iop.0;
                    // Path walks are spared the `permission` operation where everybody may pass.
                    (*inode).i_opflags |= bindings::IOP_FASTPERM_MAY_EXEC as u16;
                    (*inode).__bindgen_anon_3.i_fop = fop.0;
                }
                Kind::Symlink(iop) => (*inode).i_op = iop.0,
                Kind::Special(iop, rdev) => {
                    (*inode).i_op = iop.0;
                    bindings::init_special_inode(inode, mode as u16, device_to_c(rdev));
                }
            }
        }
    }

    /// Sets the number that tells uses of an inode number apart.
    pub fn set_generation(&self, generation: u32) {
        // SAFETY: The inode is locked by us.
        unsafe { (*self.inode.as_ptr()).i_generation = generation }
    }

    /// Unlocks it: it is ready.
    pub fn ready(self) -> ARef<Inode<F>> {
        let inode = self.into_raw();
        // SAFETY: The inode is locked by us, complete, and the reference is ours.
        unsafe {
            bindings::unlock_new_inode(inode.as_ptr());
            ARef::from_raw(inode.cast())
        }
    }

    /// The C object, still locked, with its reference.
    pub(super) fn into_raw(self) -> NonNull<bindings::inode> {
        ManuallyDrop::new(self).inode
    }
}

impl<F: FileSystem> Drop for NewInode<F> {
    fn drop(&mut self) {
        // SAFETY: The inode is locked and referenced by us; this gives up both.
        unsafe { bindings::iget_failed(self.inode.as_ptr()) }
    }
}

/// A device number as the kernel holds it: 12 bits major, 20 bits minor.
fn device_to_c(rdev: u64) -> bindings::dev_t {
    let (major, minor) = ((rdev >> 32) as u32, rdev as u32);
    ((major & 0xfff) << 20) | (minor & 0xf_ffff)
}

/// A device number with the major in the upper 32 bits.
pub(super) fn device_from_c(dev: bindings::dev_t) -> u64 {
    (u64::from(dev >> 20) << 32) | u64::from(dev & 0xf_ffff)
}

/// Operations of an inode of `F`.
pub struct InodeOps<F: FileSystem>(&'static bindings::inode_operations, PhantomData<fn() -> F>);

/// Operations of an open file of `F`.
pub struct FileOps<F: FileSystem>(&'static bindings::file_operations, PhantomData<fn() -> F>);

/// Operations of the page cache of a file of `F`.
pub struct MappingOps<F: FileSystem>(
    &'static bindings::address_space_operations,
    PhantomData<fn() -> F>,
);

impl<F: FileSystem> InodeOps<F> {
    /// # Safety
    ///
    /// Every function of the table is correct for the inodes of `F`.
    pub(super) const unsafe fn new(table: &'static bindings::inode_operations) -> Self {
        Self(table, PhantomData)
    }
}

impl<F: FileSystem> FileOps<F> {
    /// # Safety
    ///
    /// Every function of the table is correct for the files of `F`.
    pub(super) const unsafe fn new(table: &'static bindings::file_operations) -> Self {
        Self(table, PhantomData)
    }
}

impl<F: FileSystem> MappingOps<F> {
    /// # Safety
    ///
    /// Every function of the table is correct for the page caches of files of `F`.
    pub(super) const unsafe fn new(table: &'static bindings::address_space_operations) -> Self {
        Self(table, PhantomData)
    }
}

/// How a mount maps user and group ids.
///
/// # Invariants
///
/// Only seen by reference, for the time of an operation that the VFS called with it.
#[repr(transparent)]
pub struct IdMap(Opaque<bindings::mnt_idmap>);

impl IdMap {
    /// # Safety
    ///
    /// `idmap` is valid for `'a`.
    pub(super) unsafe fn from_ptr<'a>(idmap: *mut bindings::mnt_idmap) -> &'a Self {
        // SAFETY: `Self` is transparent over it.
        unsafe { &*idmap.cast_const().cast() }
    }

    /// The C object.
    pub fn as_ptr(&self) -> *mut bindings::mnt_idmap {
        self.0.get()
    }
}
