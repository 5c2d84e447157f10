// SPDX-License-Identifier: GPL-2.0

//! `swapon` and `swapoff`.
//!
//! Any file without holes will do: what others own too is replaced by blocks of its own, in
//! metadata only. From then on swap I/O goes to the device, past this module.
//!
//! # Who keeps others off an active swapfile
//!
//! Every way in which blocks of a file could move, be shared, freed or written by somebody else. *Pin*
//! is [`FileData::pin`], taken under the mapping's lock before the activation looks at anything: it
//! stands in for `S_SWAPFILE`, which the VFS sets when the activation is done. Tests are those in
//! `qemu/tests`.
//!
//! | way in | guard | test |
//! |---|---|---|
//! | FICLONE, FICLONERANGE, FIDEDUPERANGE, either side | `generic_remap_file_range_prep` (`IS_SWAPFILE`, both inodes locked); pin in `remap` | swap-table, snap-races |
//! | copy_file_range, either side | VFS `generic_copy_file_checks`; its writes as below | swap-table |
//! | fallocate, every mode | VFS `vfs_fallocate`; pin in `fallocate` | swap-table |
//! | truncate, O_TRUNC to the same or less | `setattr_prepare` (`inode_newsize_ok`); pin in `truncate` | swap-table, snap-races |
//! | truncate to more | `truncate::set_size`: the VFS lets it through | swap-table |
//! | write, O_DIRECT, splice, aio, io_uring | `generic_write_checks` and pin, under the inode's lock; direct writes under way are waited for | swap-table, snap-races |
//! | new shared writable mapping | VFS `do_mmap` | swap-table |
//! | store through an older mapping | VFS `do_page_mkwrite`; pin in `may_write`; what was dirty is written before the plan | swap-table |
//! | writeback | nothing is dirty after the pin; a page dirtied before is written out first | swap-table |
//! | unlink, rename of it, over it, exchange | VFS `may_delete`, `vfs_rename` (EPERM); unlinked before: VFS `swapon` (`d_unlinked`) | swap-table, snap-races |
//! | chattr flags about storage (+C, +c), extent size hints | `attr::set_file_flags`, the `fileattr_set` shim | swap-table |
//! | chattr +i, +a; chmod, chown, xattr, times, link | allowed: no block changes. (swapoff opens the file for writing, so it wants -i -a first) | swap-table, snap-swap |
//! | second swapon | VFS (`IS_SWAPFILE`); pin in the window of swapoff | swap-table |
//! | snapshot of its subvolume | by construction: the swap tree is no part of it; an activation is one join, so a snapshot comes before or after it ([`super::barrier`]) | snap-swap, snap-races |
//! | deletion of its subvolume, also by rmdir | engine, `remove_subvolume` (EBUSY); `set_swapping` refuses one that was deleted; both under the state lock | snap-swap, snap-races |
//! | its subvolume becomes read-only | engine, `set_subvolume_read_only` (EBUSY); `set_swapping` refuses one that is | snap-readonly, snap-races |
//! | rename of its subvolume, set-default | allowed: no block changes | snap-swap |
//! | dropping of other subvolumes | counts in the refs tree; swap runs have one owner, the swap tree | snap-swap, snap-races |
//! | taking over the blocks of inactive swapfiles | engine, `take_over`: none in the list of active ones | swap-refuse |
//! | eviction of the inode | swapon holds the file open | |
//! | FITRIM | engine: free blocks only; bitmaps have swap runs as mapped | swap-table |
//! | discard by swapon --discard | the swap core's, of its own extents | swap-activate |
//! | freeze, thaw | allowed: swap I/O is on the device, no operation of this module | swap-table, snap-races |
//! | hibernation: its image, and the mark of it in the header | the swap core's slots; the header page has the address that `resume_offset=` says while the swapfile is active; nothing is written after the image was taken ([`crate::vfs::workqueue`]) | `qemu/hibernate`, snap-suspend |
//! | FS_IOC_SHUTDOWN | allowed: changes are refused, swap I/O goes on; swapoff works, for `SB_RDONLY` stays clear | snap-swap |
//! | umount, remount read-only | VFS: the file is open for writing (EBUSY) | swap-table, snap-races |
//! | the volume becomes larger | allowed: no block of a file moves, but where the super block's mirrors come to be (then as below) | resize |
//! | the volume becomes smaller | engine, `check_swap_leaving` (EBUSY, the log names the file) before anything moves and before each step, while an activation, which is one join, is neither under way nor can begin ([`super::resize`]); otherwise its blocks stay | resize |
//! | scrub, fsck, defragmentation of a mounted volume | there is none that moves or writes data | |

use super::data::{bytes_of, FileData};
use super::inode::InodeExt;
use super::swap_status::Status;
use super::{Inode, Oxfs, Volume};
use crate::engine::swap_plan::{Activation, PlannedRun};
use crate::engine::types::{Backing, FileBlock, MAX_FILE_SIZE};
use crate::vfs::file::OpenFile;
use crate::vfs::log;
use crate::vfs::swap::{whole_folios_audited, SwapInfo};
use core::fmt;
use kernel::prelude::*;

/// The extents of a swapfile, as far as the swap core cares.
struct Extents {
    count: u32,
    /// Distance on the device, in pages.
    span: u64,
    /// Whether none ends where a huge page could go on.
    aligned: bool,
}

/// Makes the file private and describes it to the swap core. The inode's lock is held
/// exclusively. Returns the number of extents and their span.
pub fn activate(info: &mut SwapInfo, file: &OpenFile<Oxfs>) -> Result<(u32, u64)> {
    let inode = file.inode();
    let data = inode.data().file()?;
    {
        let _mapping = inode.lock_mapping();
        if !data.pin() {
            return Err(EBUSY);
        }
    }
    let result = make_ready(info, file);
    if let Err(e) = result {
        // EBUSY is for the pin of somebody else, who keeps it.
        deactivate(inode);
        return Err(e);
    }
    result
}

/// The file is an ordinary one again. Its swap range reads as zeros.
pub fn deactivate(inode: &Inode) {
    let state = inode.super_block().data();
    state.active_swap().forget(inode.data().id);
    // It cannot fail: it takes something out of a list in memory.
    let _ = inode.query(|volume, id| volume.set_swapping(id, false));
    if let Ok(data) = inode.data().file() {
        data.unpin();
    }
}

fn refuse(inode: &Inode, why: fmt::Arguments<'_>) -> Error {
    let sb = inode.super_block();
    log::error(
        &sb.id(),
        format_args!("swapon: inode {}: {why}", inode.ino()),
    );
    EINVAL
}

fn make_ready(info: &mut SwapInfo, file: &OpenFile<Oxfs>) -> Result<(u32, u64)> {
    let inode = file.inode();
    let data = inode.data().file()?;
    inode.wait_for_direct_io();
    inode.write_range(0, MAX_FILE_SIZE)?;
    let pages = info.max_pages();
    if !inode.is_reg() {
        return Err(refuse(inode, format_args!("not a regular file")));
    }
    if pages < 2 {
        return Err(refuse(inode, format_args!("less than one page to swap to")));
    }
    if let Some(hole) = inode.query(|volume, id| volume.first_hole(id, pages))? {
        return Err(refuse(
            inode,
            format_args!("hole at offset {}", bytes_of(hole.0)),
        ));
    }
    let mut header = crate::platform::zeroed_block().map_err(|_| ENOMEM)?;
    inode.read_first_page(file, &mut header)?;
    inode.query(|volume, id| volume.set_swapping(id, true))?;
    let (done, extents) = make_private(inode, data, info, &header)?;
    let whole = choose_io(info, &extents);
    report(inode, pages, &done, &extents, whole);
    super::file::refresh(inode)?;
    Ok((extents.count, extents.span))
}

/// Gives the file blocks of its own, and drops from the page cache what they do not hold any more.
/// Whatever may fail comes before the first change: then the file is as it was.
fn make_private(
    inode: &Inode,
    data: &FileData,
    info: &mut SwapInfo,
    header: &crate::platform::Block,
) -> Result<(Activation, Extents)> {
    let _mapping = inode.lock_mapping();
    let pages = info.max_pages();
    // Nothing may still read blocks that are about to be somebody else's.
    inode.drop_cached(bytes_of(1), bytes_of(pages));
    let sb = inode.super_block();
    let id = inode.data().id;
    let activated = sb.data().join(sb, |volume: &Volume| {
        let plan = volume.plan_swap(id, pages)?;
        match describe(info, plan.runs()) {
            Ok(extents) => Ok(Ok((plan.apply(header)?, extents))),
            Err(error) => Ok(Err(error)),
        }
    });
    let _blocks = data.blocks();
    data.set_plain(false);
    data.mapping_changed();
    drop(_blocks);
    inode.drop_cached(bytes_of(1), bytes_of(pages));
    activated?
}

/// Tells the swap core the extents that the file will have.
fn describe(info: &mut SwapInfo, runs: &[PlannedRun]) -> Result<Extents> {
    let mut extents = Extents {
        count: 0,
        span: 0,
        aligned: true,
    };
    let (mut lowest, mut highest) = (u64::MAX, 0);
    let (mut pages, mut next) = (0, 0);
    for planned in runs {
        let (first, len) = (planned.run.start.0, planned.run.len);
        extents.aligned &= first == next || Volume::is_swap_boundary(planned.page);
        extents.count += u32::from(info.add_extent(len, first)?);
        // The header page is not swapped to.
        lowest = lowest.min(first + u64::from(planned.page == 0));
        highest = highest.max(first + len - 1);
        pages = planned.page + len;
        next = first + len;
    }
    extents.span = (highest + 1).saturating_sub(lowest);
    info.set_pages(pages)?;
    Ok(extents)
}

/// How large folios are swapped.
#[derive(Clone, Copy)]
enum Whole {
    Yes,
    No(&'static str),
    /// Not out, but in, extent by extent.
    Split,
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("large folios are swapped whole"),
            Self::No(why) => write!(f, "large folios are split ({why})"),
            Self::Split => f.write_str(
                "large folios are split, and read extent by extent (synchronous device, \
                 extents are not aligned)",
            ),
        }
    }
}

/// Chooses how large folios are swapped, never wrongly.
fn choose_io(info: &mut SwapInfo, extents: &Extents) -> Whole {
    if !extents.aligned {
        if info.is_synchronous() {
            info.split_reads();
            return Whole::Split;
        }
        return Whole::No("extents are not aligned");
    }
    if !whole_folios_audited() {
        return Whole::No("not known to be safe with this kernel");
    }
    if info.has_slot_notify() {
        return Whole::No("the disk wants to hear of freed slots");
    }
    if crate::module_parameters::swap_whole_folios.value() == 0 {
        return Whole::No("swap_whole_folios is off");
    }
    info.allow_whole_folios();
    Whole::Yes
}

fn report(inode: &Inode, pages: u64, done: &Activation, extents: &Extents, whole: Whole) {
    let sb = inode.super_block();
    log::info(
        &sb.id(),
        format_args!(
            "swapon: inode {}: {pages} pages in {} extents, {} blocks kept, {} new, {} moved; \
             {whole}",
            inode.ino(),
            extents.count,
            done.kept_blocks,
            done.new_blocks,
            done.moved_blocks,
        ),
    );
    let header = inode.query(|volume, id| volume.map(id, FileBlock(0), 1));
    let status = Status {
        pages,
        extents: extents.count,
        new_blocks: done.new_blocks,
        kept_blocks: done.kept_blocks,
        moved_blocks: done.moved_blocks,
        whole: matches!(whole, Whole::Yes),
        first_block: match header.map(|mapping| mapping.backing) {
            Ok(Backing::Written { at, .. }) => at.0,
            _ => crate::uapi::NONE,
        },
    };
    let state = sb.data();
    state.active_swap().remember(inode.data().id, status);
}
