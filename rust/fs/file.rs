// SPDX-License-Identifier: GPL-2.0

//! Regular files: reading, writing, syncing.

use super::data::{self, block_after, block_of, BLOCK};
use super::inode::InodeExt;
use super::subvolume::check_writable;
use super::truncate::clear_tail;
use super::{fallocate, remap, swap, Inode, Oxfs};
use crate::vfs::aops::{self, MappingOperations};
use crate::vfs::direct::{self, How};
use crate::vfs::file::{self, FileOperations, Iocb, Iter, OpenFile, Seek};
use crate::vfs::inode_lock::{Exclusive, Shared};
use crate::vfs::iomap;
use crate::vfs::mmap::Mmap;
use crate::vfs::swap::SwapInfo;
use crate::vfs::{FileOps, MappingOps};
use kernel::prelude::*;

/// The operations of regular files.
pub struct File;

/// Those of open files.
pub fn ops() -> FileOps<Oxfs> {
    file::table::<Oxfs, File>()
}

/// Those of the page cache.
pub fn mapping_ops() -> MappingOps<Oxfs> {
    aops::table::<Oxfs, File>()
}

#[vtable]
impl Mmap<Oxfs> for File {
    fn may_write(inode: &Inode) -> bool {
        check_changeable(inode).is_ok()
    }

    fn make_room(inode: &Inode) -> bool {
        // What is dirty holds space that it does not need when it is written.
        Self::may_write(inode) && inode.write_range(0, u64::MAX).is_ok()
    }
}

#[vtable]
impl MappingOperations<Oxfs> for File {
    fn swap_activate(info: &mut SwapInfo, file: &OpenFile<Oxfs>) -> Result<(u32, u64)> {
        swap::activate(info, file)
    }

    fn swap_deactivate(file: &OpenFile<Oxfs>) {
        swap::deactivate(file.inode());
    }
}

#[vtable]
impl FileOperations<Oxfs> for File {
    fn read(inode: &Inode, iocb: &mut Iocb<Oxfs>, iter: &mut Iter) -> Result<usize> {
        if !iocb.is_direct() {
            return iocb.read_cached(iter);
        }
        if iter.count() == 0 {
            return Ok(0);
        }
        if iocb.must_not_wait() {
            return Err(EAGAIN);
        }
        iocb.accessed();
        direct::read::<Oxfs, File>(inode, iocb, iter)
    }

    fn write(inode: &Inode, iocb: &mut Iocb<Oxfs>, iter: &mut Iter) -> Result<usize> {
        // Only what is in the page cache can be had without waiting: locks, and mappings, may take long.
        if iocb.must_not_wait() {
            return Err(EAGAIN);
        }
        let _under_way = inode.super_block().data().writes().begin()?;
        if iocb.is_direct() {
            return write_direct(inode, iocb, iter);
        }
        let count = write_cached(inode, iocb, iter)?;
        make_durable(iocb, count)
    }

    fn seek(file: &OpenFile<Oxfs>, pos: i64, what: Seek) -> Result<i64> {
        match what {
            Seek::Data => iomap::seek_data::<Oxfs, File>(file.inode(), pos),
            Seek::Hole => iomap::seek_hole::<Oxfs, File>(file.inode(), pos),
        }
    }

    fn fsync(file: &OpenFile<Oxfs>, start: i64, end: i64, data_only: bool) -> Result {
        let inode = file.inode();
        let data = inode.data().file()?;
        let before = data.overwrites();
        file.write_and_wait(start, end)?;
        if !data_only {
            super::attr::push_times(inode)?;
        }
        let last = inode.data().changed();
        if !data.is_durable(last) {
            data.set_durable(inode.query(|volume, _| volume.sync_to(last))?);
        }
        // That transaction may have begun to commit before an overwrite ended.
        if data.needs_flush() {
            inode.query(|volume, _| volume.flush())?;
            if start == 0 && end == i64::MAX {
                data.flushed(before);
            }
        }
        Ok(())
    }

    fn fallocate(file: &OpenFile<Oxfs>, mode: u32, pos: u64, len: u64) -> Result {
        fallocate::fallocate(file, mode, pos, len)
    }

    fn remap(
        src: &OpenFile<Oxfs>,
        from: i64,
        dst: &OpenFile<Oxfs>,
        to: i64,
        len: i64,
        flags: u32,
    ) -> Result<i64> {
        remap::remap(src, from, dst, to, len, flags)
    }
}

/// Refuses changes of a file that is becoming a swapfile, which the VFS does not know yet.
pub fn check_not_pinned(inode: &Inode) -> Result {
    if inode.data().file()?.is_pinned() {
        return Err(ETXTBSY);
    }
    Ok(())
}

/// After a change of the file's blocks: makes it durable if the file wants that.
pub fn sync_if_asked(file: &OpenFile<Oxfs>) -> Result {
    match file.is_synchronous() {
        true => file.inode().sync_changes(),
        false => Ok(()),
    }
}

/// Refuses changes of a file in a read-only subvolume, and those that [`check_not_pinned`] does.
pub fn check_changeable(inode: &Inode) -> Result {
    check_writable(inode)?;
    check_not_pinned(inode)
}

/// What has to be done under the inode's exclusive lock before a write at `iocb.pos()`.
/// Returns how many bytes may be written.
fn prepare_write(inode: &Inode, iocb: &mut Iocb<Oxfs>, iter: &mut Iter) -> Result<usize> {
    let count = iocb.check_write(iter)?;
    if count == 0 {
        return Ok(0);
    }
    check_changeable(inode)?;
    if iocb.pos() > inode.size() {
        inode.wait_for_direct_io();
        let _mapping = inode.lock_mapping();
        clear_tail(inode, iocb.pos())?;
    }
    iocb.modified()?;
    Ok(count)
}

/// Writes through the page cache.
fn write_cached(inode: &Inode, iocb: &mut Iocb<Oxfs>, iter: &mut Iter) -> Result<usize> {
    match try_write_cached(inode, iocb, iter) {
        // What is dirty holds space that it does not need when it is written.
        Err(e) if e == ENOSPC => {
            inode.write_range(0, u64::MAX)?;
            try_write_cached(inode, iocb, iter)
        }
        result => result,
    }
}

fn try_write_cached(inode: &Inode, iocb: &mut Iocb<Oxfs>, iter: &mut Iter) -> Result<usize> {
    let _lock = inode.lock_exclusive();
    if prepare_write(inode, iocb, iter)? == 0 {
        return Ok(0);
    }
    iocb.write_cached::<File>(iter)
}

/// The inode's lock, as a direct write needs it.
enum Lock<'a> {
    Exclusive(Exclusive<'a, Oxfs>),
    Shared { _lock: Shared<'a, Oxfs> },
}

/// After a write through the page cache: makes it durable if the file wants that. iomap does so for
/// direct writes.
fn make_durable(iocb: &mut Iocb<Oxfs>, count: usize) -> Result<usize> {
    if count == 0 {
        return Ok(0);
    }
    iocb.write_sync(count)
}

/// Writes around the page cache, as far as that goes.
fn write_direct(inode: &Inode, iocb: &mut Iocb<Oxfs>, iter: &mut Iter) -> Result<usize> {
    let written = try_write_direct(inode, iocb, iter)?;
    if iter.count() == 0 {
        return Ok(written);
    }
    let cached = write_cached(inode, iocb, iter);
    let count = iocb.finish_fallback(iter, written, cached)?;
    make_durable(iocb, count)
}

/// Whether a direct write could meet others in a block, or moves the end of the file: such go one
/// at a time.
fn goes_alone(inode: &Inode, iocb: &Iocb<Oxfs>, iter: &Iter) -> bool {
    let count = iter.count() as u64;
    let whole = (iocb.pos() | count) % BLOCK == 0;
    !whole || iocb.pos().saturating_add(count) > inode.size()
}

/// Takes the lock and prepares the write; `None`: there is nothing to write.
fn lock_direct<'a>(
    inode: &'a Inode,
    iocb: &mut Iocb<Oxfs>,
    iter: &mut Iter,
) -> Result<Option<Lock<'a>>> {
    // Taking away set-user-id needs the exclusive lock.
    let may_share = |iocb: &Iocb<Oxfs>, iter: &Iter| {
        !goes_alone(inode, iocb, iter) && inode.has_no_privileges()
    };
    if may_share(iocb, iter) {
        let lock = inode.lock_shared();
        if iocb.check_write(iter)? == 0 {
            return Ok(None);
        }
        if may_share(iocb, iter) {
            check_changeable(inode)?;
            iocb.modified()?;
            return Ok(Some(Lock::Shared { _lock: lock }));
        }
    }
    let lock = inode.lock_exclusive();
    let count = prepare_write(inode, iocb, iter)?;
    Ok((count > 0).then_some(Lock::Exclusive(lock)))
}

fn try_write_direct(inode: &Inode, iocb: &mut Iocb<Oxfs>, iter: &mut Iter) -> Result<usize> {
    let Some(mut lock) = lock_direct(inode, iocb, iter)? else {
        return Ok(0);
    };
    let alone = goes_alone(inode, iocb, iter);
    if alone {
        inode.wait_for_direct_io();
    } else if let Lock::Exclusive(exclusive) = lock {
        lock = Lock::Shared {
            _lock: exclusive.downgrade(),
        };
    }
    // Nobody takes it back: that takes the lock exclusively.
    let (start, end) = (iocb.pos(), iocb.pos().saturating_add(iter.count() as u64));
    data::prepare_write(inode, block_of(start), block_after(end) - block_of(start))?;
    let result = write_with_memory(iocb, iter, alone);
    drop(lock);
    result
}

/// Brings the memory in, and writes from it, in turn: until it is written, or the rest has to go another
/// way. The caller holds the inode's lock: it is one write.
fn write_with_memory(iocb: &mut Iocb<Oxfs>, iter: &mut Iter, alone: bool) -> Result<usize> {
    let (mut written, mut tries) = (0, 0);
    while iter.count() > 0 && tries < direct::TRIES && iter.bring_in(direct::WINDOW) > 0 {
        let left = iter.count();
        let how = How {
            wait: alone,
            whole_blocks: (iocb.pos() | left as u64) % BLOCK == 0,
        };
        match direct::write::<Oxfs, File>(iocb, iter, how, written) {
            Ok(_) if iter.count() == left => break,
            Ok(count) => written = count,
            // What was brought in is gone again.
            Err(e) if e == EFAULT => tries += 1,
            Err(e) if e == ENOTBLK => break,
            error => return error,
        }
    }
    Ok(written)
}

/// Shows what a change of the mapping did to the attributes. The caller holds the inode's lock
/// exclusively.
pub fn refresh(inode: &Inode) -> Result {
    let _blocks = inode.data().file()?.blocks();
    let attr = inode.query(|volume, id| volume.inode(id))?;
    super::inode::apply(inode, &attr);
    inode.set_sectors(attr.blocks.saturating_mul(8));
    Ok(())
}

/// One step of a change of the mapping, with everything that goes with it.
pub fn change<T>(
    inode: &Inode,
    step: impl FnOnce(
        &super::Volume,
        crate::engine::types::InodeId,
    ) -> crate::engine::error::Result<crate::engine::types::Done<T>>,
) -> Result<T> {
    let file = inode.data().file()?;
    let _blocks = file.blocks();
    let result = inode.join(step);
    file.mapping_changed();
    result
}

/// Drops the page cache of the blocks from `start` to `end` (exclusive), and what was reserved
/// for what was dirty there. The caller holds both locks exclusively.
pub fn drop_blocks(inode: &Inode, start: u64, end: u64) -> Result {
    inode.drop_cached(data::bytes_of(start), data::bytes_of(end));
    data::forget(inode, start, end.saturating_sub(start))
}
