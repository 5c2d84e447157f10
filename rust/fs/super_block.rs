// SPDX-License-Identifier: GPL-2.0

//! A mounted volume: access to the engine, and when it commits.
//!
//! Commits start every `commit=` seconds, when much metadata is dirty, and by fsync, sync, freeze
//! and unmount. The engine always runs in a NOFS scope: it allocates memory under its locks, and
//! reclaim may need them.

use super::barrier::Barrier;
use super::errno::to_errno;
use super::resize::Resizing;
use super::subvolume::{self, Member, Subvolumes};
use super::swap_status::ActiveSwap;
use super::writes::Writes;
use super::{mount, Inode, Oxfs, SuperBlock, Volume};
use crate::engine;
use crate::engine::subvolume::root_of;
use crate::engine::types::{InodeId, SubvolId, MAX_NAME};
use crate::vfs::background::{Left, Turn};
use crate::vfs::seq_file::{Place, SeqFile};
use crate::vfs::super_block::{IntWrite, Name, StatFs, SuperOperations};
use crate::vfs::workqueue::{Tick, Timer, WorkQueue};
use crate::vfs::{inode, log, nofs};
use core::fmt::{self, Write};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::Relaxed, Atomic};
use kernel::sync::Arc;

/// Dirty blocks of metadata that make a commit start at once: 16 MiB of them.
const COMMIT_BLOCKS: usize = 4096;
/// Those that make whoever adds to them wait for a commit: 64 MiB.
const WAIT_BLOCKS: usize = 16384;

/// What the commit timer needs: it may run while the rest comes and goes.
struct Core {
    volume: Volume,
    name: Name,
    /// Milliseconds between commits.
    interval: Atomic<u32>,
}

impl Tick for Core {
    fn tick(&self) -> u32 {
        let _scope = nofs::Scope::enter();
        // The engine has logged what failed, and refuses changes from then on.
        let _ = self.volume.commit_changes();
        self.interval.load(Relaxed)
    }
}

/// The filesystem's data of a super block.
pub struct State {
    timer: Pin<KBox<Timer<Core>>>,
    io_queue: WorkQueue,
    core: Arc<Core>,
    subvolumes: Subvolumes,
    barrier: Barrier,
    writes: Writes,
    resizing: Resizing,
    active_swap: ActiveSwap,
}

impl State {
    /// The state of a volume that was opened. Not inlined: what reads the device should not stand on
    /// a stack frame with copies of all of it.
    #[inline(never)]
    pub fn new(volume: Volume, name: Name, options: &mount::Options) -> Result<Self> {
        let interval = Atomic::new(options.commit_ms());
        let core = Arc::new(
            Core {
                volume,
                name,
                interval,
            },
            GFP_KERNEL,
        )?;
        let commits = Arc::new(WorkQueue::new("oxfs-commit", &name)?, GFP_KERNEL)?;
        let timer = Timer::new(commits, core.clone())?;
        let io_queue = WorkQueue::new("oxfs-io", &name)?;
        Ok(Self {
            timer,
            io_queue,
            core,
            subvolumes: Subvolumes::new()?,
            barrier: Barrier::new()?,
            writes: Writes::new(),
            resizing: Resizing::new(),
            active_swap: ActiveSwap::new()?,
        })
    }

    /// The volume, for what neither allocates nor sleeps long. Everything else goes through
    /// [`Self::query`] and [`Self::join`].
    pub fn volume(&self) -> &Volume {
        &self.core.volume
    }

    /// The device's name, for the log.
    pub fn name(&self) -> &Name {
        &self.core.name
    }

    /// Where I/O is completed.
    pub fn io_queue(&self) -> &WorkQueue {
        &self.io_queue
    }

    /// The subvolumes that inodes in memory are in.
    pub fn subvolumes(&self) -> &Subvolumes {
        &self.subvolumes
    }

    /// Makes an inode that is to be in memory a member of a subvolume.
    pub fn enter(&self, subvol: SubvolId) -> Result<Member> {
        self.subvolumes.enter(&self.core.volume, subvol)
    }

    /// The active swapfiles.
    pub fn active_swap(&self) -> &ActiveSwap {
        &self.active_swap
    }

    /// Where requests wait for all writers to be stopped.
    pub fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// The writes under way.
    pub fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Whether the volume is getting another size.
    pub fn resizing(&self) -> &Resizing {
        &self.resizing
    }

    /// Reads from the engine, or changes what only lives in memory.
    pub fn query_raw<T>(
        &self,
        read: impl FnOnce(&Volume) -> engine::Result<T>,
    ) -> engine::Result<T> {
        let _scope = nofs::Scope::enter();
        read(&self.core.volume)
    }

    /// Logs what could not be done and why, unless the engine did.
    pub fn complain(&self, what: fmt::Arguments<'_>, why: engine::Error) {
        if !why.is_logged() {
            log::error(self.name(), format_args!("{what}: {why}"));
        }
    }

    /// Logs damage that the engine does not see, once for each inode.
    pub fn damage(&self, id: InodeId, rule: &'static str) {
        if self.query_raw(|volume| Ok(volume.is_news(id, rule))) == Ok(true) {
            log::error(self.name(), format_args!("corrupt: {id}: {rule}"));
        }
    }

    /// [`Self::query_raw`] with an error number.
    pub fn query<T>(&self, read: impl FnOnce(&Volume) -> engine::Result<T>) -> Result<T> {
        self.query_raw(read).map_err(to_errno)
    }

    /// Changes the volume: one bounded step. Waits while the filesystem is frozen. Joins do not
    /// nest, and `change` waits for nothing above the engine: no data I/O, folio, inode lock or
    /// user memory.
    pub fn join_raw<T>(
        &self,
        sb: &SuperBlock,
        change: impl FnOnce(&Volume) -> engine::Result<T>,
    ) -> engine::Result<T> {
        self.joined(sb.start_intwrite(), change)
    }

    /// [`Self::join_raw`] that does not wait: `None` while the filesystem is frozen, or is being.
    pub fn try_join_raw<T>(
        &self,
        sb: &SuperBlock,
        change: impl FnOnce(&Volume) -> engine::Result<T>,
    ) -> Option<engine::Result<T>> {
        Some(self.joined(sb.try_start_intwrite()?, change))
    }

    fn joined<T>(
        &self,
        frozen: IntWrite<'_, Oxfs>,
        change: impl FnOnce(&Volume) -> engine::Result<T>,
    ) -> engine::Result<T> {
        let scope = nofs::Scope::enter();
        let result = change(&self.core.volume);
        let dirty = self.core.volume.dirty_blocks();
        if dirty > WAIT_BLOCKS {
            // A failure is found, and logged, by whoever needs the commit.
            let _ = self.core.volume.commit();
        }
        drop(scope);
        drop(frozen);
        if dirty > COMMIT_BLOCKS {
            self.timer.start(0);
        }
        result
    }

    /// [`Self::join_raw`] with an error number.
    pub fn join<T>(
        &self,
        sb: &SuperBlock,
        change: impl FnOnce(&Volume) -> engine::Result<T>,
    ) -> Result<T> {
        self.join_raw(sb, change).map_err(to_errno)
    }

    /// Makes everything durable.
    pub fn commit(&self) -> Result {
        self.query(|volume| volume.commit())
    }

    /// Takes over new options.
    pub fn set_options(&self, options: &mount::Options) {
        self.core.interval.store(options.commit_ms(), Relaxed);
    }

    /// The options in force.
    pub fn options(&self) -> mount::Options {
        mount::Options::from_commit_ms(self.core.interval.load(Relaxed))
    }

    /// Frees what files without a name, and truncations, left behind in all subvolumes that may
    /// change when the volume was last writable.
    pub fn finish_all_orphans(&self, sb: &SuperBlock) {
        let mut from = SubvolId(0);
        loop {
            match self.query_raw(|volume| volume.next_subvolume(from)) {
                Ok(Some(info)) => {
                    if !info.dropping && !info.read_only {
                        self.finish_orphans(sb, info.id);
                    }
                    from = SubvolId(info.id.0.saturating_add(1));
                }
                Ok(None) => return,
                Err(error) => {
                    self.complain(format_args!("cannot read the list of subvolumes"), error);
                    return;
                }
            }
        }
    }

    /// Starts to commit from time to time.
    pub fn start_commits(&self) {
        self.timer.start(self.core.interval.load(Relaxed));
    }

    /// Stops that, and waits for a commit that is under way.
    pub fn stop_commits(&self) {
        self.timer.stop();
    }

    /// The same in one subvolume. What cannot be freed stays for the next time.
    fn finish_orphans(&self, sb: &SuperBlock, subvol: SubvolId) {
        let mut after = None;
        let (mut done, mut left) = (0u64, 0u64);
        if let Err(error) = self.query_raw(|volume| volume.open_subvolume(subvol)) {
            self.complain(format_args!("cannot open subvolume {subvol}"), error);
            return;
        }
        loop {
            let ino = match self.query_raw(|volume| volume.orphan_next(subvol, after)) {
                Ok(Some(ino)) => ino,
                Ok(None) => break,
                Err(error) => {
                    self.complain(format_args!("cannot read orphans"), error);
                    break;
                }
            };
            after = Some(ino);
            let id = InodeId { subvol, ino };
            if is_open(sb, id) {
                continue;
            }
            match self.finish_orphan(sb, id) {
                Ok(()) => done = done.saturating_add(1),
                Err(_) => left = left.saturating_add(1),
            }
        }
        if done != 0 {
            log::info(
                self.name(),
                format_args!("{done} deleted or cut files finished"),
            );
        }
        // What stops all changes was logged.
        if left != 0 && self.volume().fault().is_none() {
            log::error(
                self.name(),
                format_args!("{left} deleted or cut files cannot be finished"),
            );
        }
    }

    /// Frees an inode that has no name, or what a truncation left behind.
    pub fn finish_orphan(&self, sb: &SuperBlock, id: InodeId) -> engine::Result<()> {
        while !self.join_raw(sb, |volume| volume.finish_orphan(id))?.value {}
        Ok(())
    }
}

/// Whether `id` has no name and is in use all the same, as when an emergency made the mount read-only:
/// it is freed when its last user is done.
fn is_open(sb: &SuperBlock, id: InodeId) -> bool {
    inode::find(sb, id.st_ino()).is_some_and(|inode| inode.nlink() == 0)
}

/// Operations of the super block.
pub struct Operations;

#[vtable]
impl SuperOperations<Oxfs> for Operations {
    fn write_inode(inode: &Inode, _wait: bool) -> Result {
        super::attr::push_times(inode)
    }

    fn is_doomed(inode: &Inode) -> bool {
        inode.data().member().is_deleted()
    }

    fn background(sb: &SuperBlock, turn: &Turn<'_>) -> Left {
        subvolume::drop_deleted(sb, turn)
    }

    fn evict(inode: &Inode) {
        super::inode::evict(inode);
    }

    fn put_super(sb: &SuperBlock) {
        let state = sb.data();
        state.stop_commits();
        state.io_queue().flush();
        // A commit that fails says so itself.
        let _ = state.query_raw(|volume| volume.unmount());
    }

    fn sync(sb: &SuperBlock, wait: bool) -> Result {
        let state = sb.data();
        // That is asked first, before what is dirty is written for good: not later.
        if !wait && sb.is_freezing() {
            state.barrier().stop_writers(state.writes());
        }
        match wait {
            true if !sb.is_read_only() => state.commit(),
            _ => Ok(()),
        }
    }

    fn freeze(sb: &SuperBlock) -> Result {
        let state = sb.data();
        state.stop_commits();
        if sb.is_read_only() {
            return Ok(());
        }
        sb.pause_background();
        state.barrier().answer(state);
        state.commit().inspect_err(|_| {
            state.start_commits();
            sb.start_background();
        })
    }

    fn unfreeze(sb: &SuperBlock) -> Result {
        if !sb.is_read_only() {
            sb.data().start_commits();
            sb.start_background();
        }
        Ok(())
    }

    fn shut_down(sb: &SuperBlock) {
        sb.data().volume().shut_down("the device is gone");
    }

    fn statfs(sb: &SuperBlock) -> Result<StatFs> {
        let stat = sb.data().volume().statfs();
        Ok(StatFs {
            blocks: stat.blocks,
            free: stat.free,
            available: stat.available,
            // Inodes are made as needed: there is no number of them.
            files: 0,
            files_free: 0,
            name_max: MAX_NAME as u32,
        })
    }

    fn show_options(root: &Place<Oxfs>, out: &mut SeqFile) -> Result {
        let inode = root.inode();
        let options = inode.super_block().data().options();
        if options.commit != mount::Options::COMMIT {
            write!(out, ",commit={}", options.commit)?;
        }
        let id = inode.data().id.subvol;
        write!(out, ",subvolid={id}")?;
        // One that was deleted has no path.
        if !inode.data().member().is_deleted() {
            out.write_str(",subvol=")?;
            // Nothing is read from the device for it: the dentry cache knows the way.
            out.write_path(root, |inode| inode.data().id == root_of(id));
        }
        Ok(())
    }

    fn count_cached(sb: &SuperBlock) -> usize {
        sb.data().volume().cached_nodes()
    }

    fn free_cached(sb: &SuperBlock, count: usize) -> usize {
        sb.data().volume().shrink_cache(count)
    }
}
