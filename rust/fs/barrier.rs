// SPDX-License-Identifier: GPL-2.0

//! What can only be done while nobody writes: snapshots, making a subvolume read-only, and moving
//! blocks that are in the way of a smaller size.
//!
//! The request is left in the super block's state, all writers are stopped, and the `freeze`
//! operation, which comes when everything dirty has been written, answers it and commits. So no
//! write to blocks that will be shared is under way, whichever way it takes: `write` and `O_DIRECT`
//! (also asynchronous ones, which keep the filesystem from freezing until their end; those of the
//! kernel's targets, which do not, are stopped by [`super::writes`]), stores to mapped pages (written and
//! write-protected again), writeback (done), swap activation (a join).
//! An active swapfile is not in the way: its blocks are no part of a snapshot, and swap I/O goes on.
//!
//! Writers wait for no longer than the commit that this takes, for what is dirty is written before,
//! while they still run; and for those of them that had begun. As with every freeze, one that waits for
//! something else, as for a page of a FUSE file that it writes from, has the others wait as well.
//!
//! Locks: one request at a time (`turn`) > freezing, `s_umount` > the engine's. No lock of an inode
//! is held, nor write access to the mount: who is stopped may wait for either. When a freeze of
//! somebody else is in force the request is not answered, and is made again when that ends; the turn
//! is given up meanwhile.

use super::super_block::State;
use super::writes::Writes;
use super::{Oxfs, Volume};
use crate::engine;
use crate::engine::snapshot::NewSnapshot;
use crate::engine::subvolume::TOP;
use crate::engine::types::{Attr, Ino, InodeId, SubvolId, Time};
use crate::platform::{mutex, Mutex, NoMemory};
use crate::vfs::file::{is_killed, OpenFile};
use crate::vfs::freeze::{is_suspending, wait_for_resume};
use kernel::prelude::*;
use kernel::task::Task;

/// A request.
pub enum Request {
    /// A snapshot of a subvolume under a name in a directory.
    Snapshot {
        /// Of which.
        source: SubvolId,
        /// Where.
        dir: InodeId,
        /// The name.
        name: KVec<u8>,
        /// Whether it is to be read-only.
        read_only: bool,
        /// Its uuid.
        uuid: [u8; 16],
        /// Now.
        time: Time,
    },
    /// A subvolume becomes read-only, or writable.
    SetReadOnly(SubvolId, bool),
    /// A step of moving what is beyond the new end of the volume.
    Move,
}

/// What came of it.
pub struct Done {
    /// The subvolume, of a snapshot the new one.
    pub subvol: SubvolId,
    /// The attributes of the directory that a snapshot hangs in.
    pub dir: Option<Attr>,
    /// Files without a name in a writable snapshot, which nobody can have open.
    pub orphans: KVVec<Ino>,
    /// Whether there is more to move.
    pub more: bool,
}

enum Slot {
    Empty,
    /// By which task.
    Asked(Request, usize),
    Answered(engine::Result<Done>),
}

/// Where requests wait.
pub struct Barrier {
    turn: Mutex<()>,
    slot: Mutex<Slot>,
}

impl Barrier {
    /// Without a request.
    pub fn new() -> Result<Self> {
        let failed = |NoMemory| ENOMEM;
        Ok(Self {
            turn: mutex!((), "oxfs barrier turn").map_err(failed)?,
            slot: mutex!(Slot::Empty, "oxfs barrier slot").map_err(failed)?,
        })
    }

    /// Stops writers, those that freezing does not stop, if the calling task has made a request. Not in a
    /// freeze of somebody else: until who asked takes the request back, and has writers go on, it may
    /// have to wait for one of them.
    pub fn stop_writers(&self, writes: &Writes) {
        if matches!(*self.slot.lock(), Slot::Asked(_, asker) if asker == this_task()) {
            writes.stop();
            writes.wait_for_end();
        }
    }

    /// Takes back what is in the slot; writers go on.
    fn take(&self, writes: &Writes) -> Slot {
        let mut slot = self.slot.lock();
        writes.resume();
        core::mem::replace(&mut *slot, Slot::Empty)
    }

    /// Answers the request, if there is one. All writers are stopped, and nothing is dirty.
    pub fn answer(&self, state: &State) {
        let mut slot = self.slot.lock();
        if let Slot::Asked(request, _) = &*slot {
            if !state.writes().are_stopped() {
                // A freeze of somebody else, or who waited for that was killed. It is asked again.
                return;
            }
            let answer = state.query_raw(|volume| carry_out(volume, request));
            if let (Ok(done), Request::SetReadOnly(_, read_only)) = (&answer, request) {
                state.subvolumes().set_read_only(done.subvol, *read_only);
            }
            *slot = Slot::Answered(answer);
        }
    }

    /// Has the request answered on the filesystem of `file`. No lock and no write access is held.
    pub fn ask(&self, file: &OpenFile<Oxfs>, mut request: Request) -> Result<engine::Result<Done>> {
        loop {
            match self.in_turn(file, request)? {
                Slot::Answered(answer) => return Ok(answer),
                Slot::Asked(unanswered, _) => request = unanswered,
                // Only who has the turn takes something out.
                Slot::Empty => return Err(EINVAL),
            }
            // These waits do not keep the system from being suspended; one for the turn of a task that
            // waits here would.
            wait_for_resume();
            drop(file.write_access()?);
            if is_killed() {
                return Err(EINTR);
            }
        }
    }

    /// Makes the request once, and returns what became of it: nothing while somebody else holds the
    /// filesystem frozen, or the system is being suspended.
    fn in_turn(&self, file: &OpenFile<Oxfs>, request: Request) -> Result<Slot> {
        let _turn = self.turn.lock();
        file.flush_filesystem()?;
        let asked = Slot::Asked(request, this_task());
        if is_suspending() {
            return Ok(asked);
        }
        *self.slot.lock() = asked;
        let stopped = file.stop_writers();
        let slot = self.take(file.inode().super_block().data().writes());
        match stopped {
            // Another part of the kernel holds it frozen, as for hibernation.
            Err(error) if error == EBUSY => Ok(slot),
            // Also if it was carried out, but what followed failed: the commit.
            Err(error) => Err(error),
            Ok(()) => Ok(slot),
        }
    }
}

/// Tells the calling task from all others.
fn this_task() -> usize {
    Task::current_raw() as usize
}

fn carry_out(volume: &Volume, request: &Request) -> engine::Result<Done> {
    let mut orphans = KVVec::new();
    match request {
        Request::Snapshot {
            source,
            dir,
            name,
            read_only,
            uuid,
            time,
        } => {
            let made = volume.snapshot(&NewSnapshot {
                source: *source,
                dir: *dir,
                name,
                read_only: *read_only,
                uuid: *uuid,
                time: *time,
            })?;
            let subvol = made.value.id.subvol;
            if !read_only {
                collect_orphans(volume, subvol, &mut orphans);
            }
            Ok(Done {
                subvol,
                dir: Some(made.value.dir),
                orphans,
                more: false,
            })
        }
        Request::SetReadOnly(subvol, read_only) => {
            volume.set_subvolume_read_only(*subvol, *read_only)?;
            Ok(Done {
                subvol: *subvol,
                dir: None,
                orphans,
                more: false,
            })
        }
        Request::Move => Ok(Done {
            subvol: TOP,
            dir: None,
            orphans,
            more: volume.move_step(&|| !is_killed())?,
        }),
    }
}

/// The files without a name that a snapshot took over from its source. Those that are not found
/// now are found by the next mount.
fn collect_orphans(volume: &Volume, subvol: SubvolId, orphans: &mut KVVec<Ino>) {
    let mut after = None;
    while let Ok(Some(ino)) = volume.orphan_next(subvol, after) {
        if orphans.push(ino, GFP_KERNEL).is_err() {
            return;
        }
        after = Some(ino);
    }
}
