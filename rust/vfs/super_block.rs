// SPDX-License-Identifier: GPL-2.0

//! Super blocks: a mounted filesystem, its data and its operations.
//!
//! The filesystem's data is set by `fill_super` and dropped in `put_super`, when all inodes are
//! gone and the device is still open; when a mount fails before there is a root, in `kill_sb`.
//!
//! C header: [`include/linux/fs/super.h`](srctree/include/linux/fs/super.h)

use super::background::{Left, Mounted, Turn};
use super::block::Device;
use super::fs_type::{FileSystem, Type};
use super::inode::{self, Inode};
use super::nofs;
use super::seq_file::{Place, SeqFile};
use super::{export, log, xattr};
use crate::bindings;
use core::fmt;
use core::marker::PhantomData;
use kernel::error::{from_result, to_result};
use kernel::prelude::*;
use kernel::types::{NotThreadSafe, Opaque};

/// What statfs(2) tells, in blocks of [`FileSystem::BLOCK_SIZE`].
pub struct StatFs {
    /// Size.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks that can be used for files.
    pub available: u64,
    /// Inodes that can be there at all.
    pub files: u64,
    /// Inodes that can still be made.
    pub files_free: u64,
    /// Longest name, in bytes.
    pub name_max: u32,
}

/// Operations of a super block.
#[vtable]
pub trait SuperOperations<F: FileSystem> {
    /// Takes over what the VFS changed in the inode (its times). `wait`: for sync(2).
    fn write_inode(inode: &Inode<F>, wait: bool) -> Result;

    /// Whether an inode that nobody uses is to leave memory at once, with what is dirty in it,
    /// though it has a name. Called with a spin lock held.
    fn is_doomed(inode: &Inode<F>) -> bool;

    /// The last reference is gone, and the inode is leaving memory; the page cache is already
    /// empty. When it has no name, its content goes too. May sleep.
    fn evict(inode: &Inode<F>);

    /// The filesystem is being unmounted: all inodes are gone. Last chance to write.
    fn put_super(sb: &SuperBlock<F>);

    /// Makes everything durable when `wait`; else may start to.
    fn sync(sb: &SuperBlock<F>, wait: bool) -> Result;

    /// Does what there is to do in the background, until its turn is over, and says what is left.
    /// Does not wait for a frozen filesystem: [`SuperBlock::try_start_intwrite`]. See
    /// [`super::background`].
    fn background(sb: &SuperBlock<F>, turn: &Turn<'_>) -> Left;

    /// Writes have stopped; make the device consistent. Internal writers ([`IntWrite`]) are
    /// stopped too.
    fn freeze(sb: &SuperBlock<F>) -> Result;

    /// Writes go on after this.
    fn unfreeze(sb: &SuperBlock<F>) -> Result;

    /// The device is gone: nothing more can be written.
    fn shut_down(sb: &SuperBlock<F>);

    /// Space.
    fn statfs(sb: &SuperBlock<F>) -> Result<StatFs>;

    /// Shows the options of a mount, each with a comma before it, for `/proc/mounts`. `root` is
    /// what is mounted. Locks of mount namespaces are held: whoever reads that file waits.
    fn show_options(root: &Place<F>, out: &mut SeqFile) -> Result;

    /// Objects that `free_cached` could free. Takes no lock: called under memory pressure, also
    /// by tasks that hold the filesystem's locks.
    fn count_cached(sb: &SuperBlock<F>) -> usize;

    /// Frees about `count` cached objects and returns how many it did.
    fn free_cached(sb: &SuperBlock<F>, count: usize) -> usize;
}

/// A mounted filesystem of type `F`.
///
/// # Invariants
///
/// `s_fs_info` is a `KBox<Mounted<F>>`. References live in operations that the VFS calls, in
/// inodes, and in the background work; all end before `put_super` drops it.
#[repr(transparent)]
pub struct SuperBlock<F: FileSystem> {
    sb: Opaque<bindings::super_block>,
    _type: PhantomData<fn() -> F>,
}

// SAFETY: `struct super_block` is made for sharing; `F::Super` is `Sync`.
unsafe impl<F: FileSystem> Sync for SuperBlock<F> {}

impl<F: FileSystem> SuperBlock<F> {
    /// The super block behind `sb`.
    ///
    /// # Safety
    ///
    /// `sb` is of type `F`, has its data, and keeps it for `'a`.
    pub(super) unsafe fn from_ptr<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: `Self` is transparent over it.
        unsafe { &*sb.cast_const().cast() }
    }

    /// The C object.
    pub fn as_ptr(&self) -> *mut bindings::super_block {
        self.sb.get()
    }

    /// The filesystem's data.
    pub fn data(&self) -> &F::Super {
        &self.mounted().data
    }

    pub(super) fn mounted(&self) -> &Mounted<F> {
        // SAFETY: By the type invariant.
        unsafe { &*(*self.as_ptr()).s_fs_info.cast_const().cast() }
    }

    /// The block device, for the tables of C that want it.
    pub(super) fn bdev(&self) -> *mut bindings::block_device {
        // SAFETY: It does not change while the filesystem is mounted.
        unsafe { (*self.as_ptr()).s_bdev }
    }

    /// Whether the whole filesystem is mounted read-only.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: A load of one word that is changed atomically.
        unsafe {
            (&raw const (*self.as_ptr()).s_flags).read_volatile() & bindings::OXFS_SB_RDONLY != 0
        }
    }

    /// The device's name, for the log.
    pub fn id(&self) -> Name {
        // SAFETY: The super block is live.
        unsafe { Name::of(self.as_ptr()) }
    }

    /// What direct I/O must be aligned to, in bytes: memory, and offsets.
    pub fn direct_io_alignment(&self) -> (u32, u32) {
        // SAFETY: The device is open while the filesystem is mounted.
        unsafe {
            (
                bindings::oxfs_helper_bdev_dma_alignment(self.bdev()).saturating_add(1),
                bindings::oxfs_helper_bdev_logical_block_size(self.bdev()),
            )
        }
    }

    /// Keeps the filesystem from being frozen while metadata changes. Waits while it is frozen.
    /// Not to be nested: a freezing task between the two would wait for ever.
    pub fn start_intwrite(&self) -> IntWrite<'_, F> {
        // SAFETY: The super block is live for as long as the guard.
        unsafe { bindings::oxfs_helper_sb_start_intwrite(self.as_ptr()) };
        IntWrite(self, NotThreadSafe)
    }

    /// As [`Self::start_intwrite`], but `None` while the filesystem is frozen, or is being.
    pub fn try_start_intwrite(&self) -> Option<IntWrite<'_, F>> {
        // SAFETY: As above.
        let started = unsafe { bindings::oxfs_helper_sb_start_intwrite_trylock(self.as_ptr()) };
        // Not `then_some`: dropping one that was not started would end it.
        started.then(|| IntWrite(self, NotThreadSafe))
    }
}

/// Proof that the filesystem is not frozen, ranking below all locks of the VFS.
pub struct IntWrite<'a, F: FileSystem>(&'a SuperBlock<F>, NotThreadSafe);

impl<F: FileSystem> Drop for IntWrite<'_, F> {
    fn drop(&mut self) {
        // SAFETY: Only made where the same task has started it.
        unsafe { bindings::oxfs_helper_sb_end_intwrite(self.0.as_ptr()) }
    }
}

/// The name of a super block's device, such as `vda`.
#[derive(Clone, Copy)]
pub struct Name([u8; 32]);

impl Name {
    /// # Safety
    ///
    /// `sb` is a live super block.
    unsafe fn of(sb: *mut bindings::super_block) -> Self {
        // SAFETY: `s_id` is set before a filesystem sees the super block, and does not change.
        Self(unsafe { (*sb).s_id })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|byte| *byte == 0).next().unwrap_or(&[]);
        f.write_str(core::str::from_utf8(name).unwrap_or("?"))
    }
}

/// A super block that has no data yet.
pub struct NewSuper<F: FileSystem> {
    sb: *mut bindings::super_block,
    _type: PhantomData<F>,
}

impl<F: FileSystem> NewSuper<F> {
    /// Sets what does not depend on what is on the device.
    ///
    /// # Safety
    ///
    /// `sb` is a new super block of `F` with its device open, and outlives the result.
    pub(super) unsafe fn prepare(sb: *mut bindings::super_block) -> Result<Self> {
        // SAFETY: By the contract of this function; the tables are static.
        unsafe {
            // Nothing of the device's page cache may hide or overwrite what is written past it.
            to_result(bindings::sync_blockdev((*sb).s_bdev))?;
            bindings::invalidate_bdev((*sb).s_bdev);
            if bindings::sb_set_blocksize(sb, F::BLOCK_SIZE as c_int) == 0 {
                let device = Name::of(sb);
                log::error(
                    &device,
                    format_args!("cannot mount: the device's blocks are too large"),
                );
                return Err(EINVAL);
            }
            (*sb).s_magic = F::MAGIC as c_ulong;
            (*sb).s_maxbytes = i64::try_from(F::MAX_FILE_SIZE)?;
            (*sb).s_time_gran = 1;
            (*sb).s_op = &Shims::<F>::TABLE;
            (*sb).s_export_op = export::table::<F>().cast();
            (*sb).s_xattr = xattr::table::<F>();
            // iomap accounts what it writes to the cgroup that made it dirty.
            (*sb).s_iflags |= bindings::SB_I_CGROUPWB as c_ulong;
            (*sb).s_flags |= bindings::OXFS_SB_POSIXACL;
        }
        Ok(Self {
            sb,
            _type: PhantomData,
        })
    }

    /// The block device.
    pub fn device(&self) -> Device {
        // SAFETY: The device is open for this super block until after its data is dropped.
        unsafe { Device::new((*self.sb).s_bdev) }
    }

    /// The device's name, for the log.
    pub fn id(&self) -> Name {
        // SAFETY: The super block is live.
        unsafe { Name::of(self.sb) }
    }

    fn flags(&self) -> c_ulong {
        // SAFETY: The super block is ours.
        unsafe { (*self.sb).s_flags }
    }

    /// Whether it is mounted read-only, or the device cannot be written.
    pub fn is_read_only(&self) -> bool {
        self.flags() & bindings::OXFS_SB_RDONLY != 0
    }

    /// Whether nothing is to be logged when the device holds another filesystem.
    pub fn is_silent(&self) -> bool {
        self.flags() & bindings::OXFS_SB_SILENT != 0
    }

    /// Sets the filesystem's UUID.
    pub fn set_uuid(&self, uuid: &[u8; 16]) {
        // SAFETY: The super block is ours; 16 bytes are copied.
        unsafe { bindings::oxfs_helper_super_set_uuid(self.sb, uuid.as_ptr(), 16) }
    }
}

/// Gives `sb` its data.
///
/// # Safety
///
/// `sb` is a new super block of `F` that outlives `'a`.
pub(super) unsafe fn install<'a, F: FileSystem>(
    sb: *mut bindings::super_block,
    data: F::Super,
) -> Result<&'a SuperBlock<F>> {
    // SAFETY: The super block drops its data before it goes; nobody else sees it yet.
    unsafe {
        let mounted = Mounted::<F>::new(sb, &Name::of(sb), data)?;
        (*sb).s_fs_info = KBox::into_raw(mounted).cast();
        Ok(SuperBlock::from_ptr(sb))
    }
}

/// The functions of `struct super_operations` for filesystem `F`.
pub(super) struct Shims<F: FileSystem>(PhantomData<F>);

impl<F: FileSystem> Shims<F> {
    const TABLE: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(Self::alloc_inode),
        destroy_inode: Some(Self::destroy_inode),
        free_inode: Some(Self::free_inode),
        write_inode: Some(Self::write_inode),
        drop_inode: Some(Self::drop_inode),
        evict_inode: Some(Self::evict_inode),
        put_super: Some(Self::put_super),
        sync_fs: Some(Self::sync_fs),
        freeze_fs: Some(Self::freeze_fs),
        unfreeze_fs: Some(Self::unfreeze_fs),
        shutdown: Some(Self::shutdown),
        statfs: Some(Self::statfs),
        show_options: Some(Self::show_options),
        nr_cached_objects: Some(Self::nr_cached_objects),
        free_cached_objects: Some(Self::free_cached_objects),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the VFS with a live super block of `F`.
    unsafe extern "C" fn alloc_inode(sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: By the contract of this function.
        unsafe { Type::<F>::cache_of(sb).map_or(core::ptr::null_mut(), |cache| cache.alloc(sb)) }
    }

    /// # Safety
    ///
    /// Called by the VFS, in process context, with an inode that was evicted.
    unsafe extern "C" fn destroy_inode(inode: *mut bindings::inode) {
        // SAFETY: Path walks under RCU may still read the `struct inode`, never the data.
        unsafe { inode::drop_data::<F>(inode) }
    }

    /// # Safety
    ///
    /// Called by RCU, in a soft interrupt, after `destroy_inode` and a grace period.
    unsafe extern "C" fn free_inode(inode: *mut bindings::inode) {
        // SAFETY: The data was dropped and the last user is gone.
        unsafe { inode::free(inode) }
    }

    /// # Safety
    ///
    /// Called by writeback with a referenced or otherwise pinned inode (`I_SYNC`), no locks held.
    unsafe extern "C" fn write_inode(
        inode: *mut bindings::inode,
        wbc: *mut bindings::writeback_control,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The inode is kept for the call.
            if let Some(inode) = unsafe { inode::if_ready::<F>(inode) } {
                // SAFETY: `wbc` is valid for the call.
                if unsafe { inode.super_block().has_to_stay_dirty(wbc) } {
                    // The VFS has called it clean.
                    inode.mark_dirty();
                    return Ok(0);
                }
                // SAFETY: As above.
                let mode = unsafe { (*wbc).sync_mode };
                let wait = mode == bindings::writeback_sync_modes_WB_SYNC_ALL;
                F::SuperOps::write_inode(inode, wait)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with an inode whose last reference is going, `i_lock` held.
    unsafe extern "C" fn drop_inode(inode: *mut bindings::inode) -> c_int {
        // SAFETY: By the contract of this function.
        let drop = unsafe {
            bindings::oxfs_helper_inode_generic_drop(inode)
                || inode::if_ready::<F>(inode).is_some_and(|inode| F::SuperOps::is_doomed(inode))
        };
        c_int::from(drop)
    }

    /// # Safety
    ///
    /// Called by the VFS with an inode that has no references and is marked `I_FREEING`.
    unsafe extern "C" fn evict_inode(inode: *mut bindings::inode) {
        // SAFETY: The inode is ours until `clear_inode` is done.
        unsafe {
            bindings::truncate_inode_pages_final(&raw mut (*inode).i_data);
            if let Some(inode) = inode::if_ready::<F>(inode) {
                F::SuperOps::evict(inode);
            }
            bindings::clear_inode(inode);
        }
    }

    /// # Safety
    ///
    /// Called by the VFS once, when all inodes are evicted, `s_umount` held.
    unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
        // SAFETY: There is a root, so there is data. Nobody uses it after this.
        unsafe {
            F::SuperOps::put_super(SuperBlock::from_ptr(sb));
            bindings::invalidate_bdev((*sb).s_bdev);
            Self::drop_data(sb);
        }
    }

    /// # Safety
    ///
    /// Nobody uses the data of `sb`.
    unsafe fn drop_data(sb: *mut bindings::super_block) {
        // SAFETY: The data is a box made by `install`, if it is there.
        unsafe {
            let mounted = (*sb).s_fs_info.cast::<Mounted<F>>();
            (*sb).s_fs_info = core::ptr::null_mut();
            if !mounted.is_null() {
                (*mounted).stop();
                drop(KBox::<Mounted<F>>::from_raw(mounted));
            }
        }
    }

    /// `kill_sb` of the filesystem type.
    ///
    /// # Safety
    ///
    /// Called by the VFS when the last user of the super block is gone, `s_umount` held.
    pub(super) unsafe extern "C" fn kill(sb: *mut bindings::super_block) {
        // SAFETY: Without a root `put_super` is not called, and no inode was ever found; with one
        // there is data. Inodes that the background work holds would be busy after unmounting.
        unsafe {
            match (*sb).s_root.is_null() {
                true => Self::drop_data(sb),
                false => SuperBlock::<F>::from_ptr(sb).stop_background(),
            }
            bindings::kill_block_super(sb);
        }
    }

    /// # Safety
    ///
    /// Called by the VFS with `s_umount` held, on an active super block.
    unsafe extern "C" fn sync_fs(sb: *mut bindings::super_block, wait: c_int) -> c_int {
        from_result(|| {
            // SAFETY: The super block is active.
            F::SuperOps::sync(unsafe { SuperBlock::from_ptr(sb) }, wait != 0)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with `s_umount` held and all freeze levels taken.
    unsafe extern "C" fn freeze_fs(sb: *mut bindings::super_block) -> c_int {
        from_result(|| {
            // SAFETY: The super block is active.
            F::SuperOps::freeze(unsafe { SuperBlock::from_ptr(sb) })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As `freeze_fs`, before the freeze levels are let go.
    unsafe extern "C" fn unfreeze_fs(sb: *mut bindings::super_block) -> c_int {
        from_result(|| {
            // SAFETY: The super block is active.
            F::SuperOps::unfreeze(unsafe { SuperBlock::from_ptr(sb) })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called when the device is removed, with `s_umount` held shared, on an active super block.
    unsafe extern "C" fn shutdown(sb: *mut bindings::super_block) {
        // SAFETY: The super block is active.
        F::SuperOps::shut_down(unsafe { SuperBlock::from_ptr(sb) });
    }

    /// # Safety
    ///
    /// Called by the VFS with a referenced dentry and a buffer of zeros.
    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        out: *mut kernel::bindings::kstatfs,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The dentry's super block is active; the buffer is the caller's.
            unsafe {
                let sb = (*dentry).d_sb;
                let stat = F::SuperOps::statfs(SuperBlock::from_ptr(sb))?;
                let out = &mut *out.cast::<bindings::kstatfs>();
                out.f_type = F::MAGIC as c_long;
                out.f_bsize = F::BLOCK_SIZE as c_long;
                out.f_frsize = F::BLOCK_SIZE as c_long;
                out.f_blocks = stat.blocks;
                out.f_bfree = stat.free;
                out.f_bavail = stat.available;
                out.f_files = stat.files;
                out.f_ffree = stat.files_free;
                out.f_namelen = stat.name_max as c_long;
                let (mut low, mut high) = (0, 0);
                for (index, byte) in (*sb).s_uuid.b.iter().enumerate() {
                    let word: &mut u32 = if index % 8 < 4 { &mut low } else { &mut high };
                    *word = word.rotate_left(8) ^ u32::from(*byte);
                }
                out.f_fsid.val = [low as i32, high as i32];
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with an open sequence file and the root of a mount.
    unsafe extern "C" fn show_options(
        seq: *mut bindings::seq_file,
        root: *mut bindings::dentry,
    ) -> c_int {
        from_result(|| {
            // SAFETY: Both are valid for the call; what is mounted exists.
            unsafe {
                F::SuperOps::show_options(Place::from_ptr(root), SeqFile::from_ptr(seq))?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the super block's shrinker, which ends before `kill_sb`; the super block may not
    /// have its data yet.
    unsafe extern "C" fn nr_cached_objects(
        sb: *mut bindings::super_block,
        _sc: *mut bindings::shrink_control,
    ) -> c_long {
        // SAFETY: The shrinker looks only at super blocks that are `SB_BORN`, which have data.
        let count = F::SuperOps::count_cached(unsafe { SuperBlock::from_ptr(sb) });
        c_long::try_from(count).unwrap_or(c_long::MAX)
    }

    /// # Safety
    ///
    /// As `nr_cached_objects`, with `s_umount` held shared.
    unsafe extern "C" fn free_cached_objects(
        sb: *mut bindings::super_block,
        sc: *mut bindings::shrink_control,
    ) -> c_long {
        let _scope = nofs::Scope::enter();
        // SAFETY: As in `nr_cached_objects`; `sc` is valid for the call.
        let freed = unsafe { F::SuperOps::free_cached(SuperBlock::from_ptr(sb), (*sc).nr_to_scan) };
        c_long::try_from(freed).unwrap_or(c_long::MAX)
    }
}
