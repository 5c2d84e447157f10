// SPDX-License-Identifier: GPL-2.0

//! Making a mounted filesystem larger or smaller.
//!
//! Larger needs nobody to stop. To make it smaller, what is beyond its new end is moved by the engine
//! in steps; for the time of each all writers are stopped ([`super::barrier`]), as for a snapshot, and
//! between two of them they go on. A fatal signal ends it. Whatever ends it before the size changes
//! leaves the filesystem with the size that it had.
//!
//! Nothing here knows of addresses for longer than an I/O, and only reads go on while writers are
//! stopped. A read that looked its address up before a step may read the old blocks after it: nobody
//! gets these before the end, and then direct reads are waited for by the engine, and others here,
//! by the folios that they lock. An active swapfile does not move.

use super::barrier::Request;
use super::data::{block_of, bytes_of};
use super::request::{ask, check_unused};
use super::super_block::State;
use super::{Oxfs, SuperBlock};
use crate::engine::resize::Next;
use crate::uapi;
use crate::vfs::file::{is_killed, OpenFile};
use crate::vfs::ioctl::admin;
use crate::vfs::log;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full};
use kernel::time::{delay::fsleep, Delta};

/// Whether a resize is under way.
pub struct Resizing(Atomic<i32>);

/// The one that is.
struct Turn<'a>(&'a Resizing);

impl Resizing {
    /// None is.
    pub fn new() -> Self {
        Self(Atomic::new(0i32))
    }

    fn begin(&self) -> Result<Turn<'_>> {
        match self.0.cmpxchg(0, 1, Full) {
            Ok(_) => Ok(Turn(self)),
            Err(_) => Err(EINPROGRESS),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0 .0.xchg(0i32, Full);
    }
}

/// Gives the filesystem of `file` another size.
pub fn resize(file: &OpenFile<Oxfs>, what: &mut uapi::Resize) -> Result {
    admin()?;
    check_unused(0, &what.reserved)?;
    drop(file.write_access()?);
    let sb = file.inode().super_block();
    let state = sb.data();
    let _turn = state.resizing().begin()?;
    let before = state.volume().statfs().blocks;
    let wanted = match what.size {
        uapi::NONE => state.query(|volume| Ok(volume.device_blocks()))?,
        size => block_of(size),
    };
    let blocks = state.join(sb, |volume| volume.begin_resize(wanted))?;
    if let Err(error) = carry_out(file, sb, state) {
        sb.wait_for_reads();
        state.query(|volume| {
            volume.cancel_resize();
            Ok(())
        })?;
        return Err(error);
    }
    what.size = bytes_of(blocks);
    if blocks != before {
        let [before, after] = [bytes_of(before), what.size];
        log::info(
            state.name(),
            format_args!("resized from {before} to {after} bytes"),
        );
    }
    Ok(())
}

fn carry_out(file: &OpenFile<Oxfs>, sb: &SuperBlock, state: &State) -> Result {
    loop {
        if is_killed() {
            return Err(EINTR);
        }
        let next = {
            let _access = file.write_access()?;
            state.join(sb, |volume| volume.finish_resize())?
        };
        match next {
            Next::Done => return Ok(()),
            Next::Move => {
                while ask(file, Request::Move)?.more {
                    if is_killed() {
                        return Err(EINTR);
                    }
                }
                sb.wait_for_reads();
            }
            Next::Wait => {
                // Also what has its place there and was not written yet.
                file.flush_filesystem()?;
                state.commit()?;
                fsleep(Delta::from_millis(20));
            }
        }
    }
}
