// SPDX-License-Identifier: GPL-2.0

//! `swapon` and `swapoff`.
//!
//! Any file without holes will do: what others own too is replaced by blocks of its own, in
//! metadata only. From then on swap I/O goes to the device, past this module.

use super::data::{bytes_of, FileData};
use super::inode::InodeExt;
use super::{Inode, Oxfs, Volume};
use crate::engine::swap_plan::{Activation, PlannedRun};
use crate::engine::types::MAX_FILE_SIZE;
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
}
