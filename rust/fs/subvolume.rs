// SPDX-License-Identifier: GPL-2.0

//! Subvolumes while the filesystem is mounted: who is in which, whether it may change, and what
//! becomes of one that was deleted.
//!
//! Every inode in memory is a [`Member`] of its subvolume. A deleted subvolume gets no new members:
//! lookups in it end. Files that are still open go on working, as deleted files do, and leave memory
//! when they are closed. When the last
//! inode has left memory the background work gives the space back, in steps, each a transaction of
//! its own; at the next mount it goes on where this one stopped. (btrfs does the same with its dead
//! roots.)
//!
//! That a subvolume is read-only is looked at wherever something begins to change it: when a file is
//! opened for writing and when names change by the `permission` operation, and in writes, truncation,
//! attributes, extended attributes, `fallocate`, clones into it and stores to shared mappings by
//! [`check_writable`], for what was opened before. It becomes read-only while all writers are
//! stopped and nothing is dirty (see `barrier`), so no change that began before comes after.

use super::errno::to_errno;
use super::{Inode, SuperBlock, Volume};
use crate::engine;
use crate::engine::types::SubvolId;
use crate::platform::{mutex, Map, Mutex, NoMemory};
use crate::vfs::background::{Left, Turn};
use crate::vfs::nofs;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Release};
use kernel::sync::Arc;

/// A subvolume that inodes in memory are in, or were.
struct Subvolume {
    read_only: Atomic<i32>,
    deleted: Atomic<i32>,
    members: Atomic<i64>,
}

impl Subvolume {
    fn is_deleted(&self) -> bool {
        self.deleted.load(Acquire) != 0
    }

    /// Whether the space of a deleted one may be given back.
    fn is_deserted(&self) -> bool {
        self.is_deleted() && self.members.load(Acquire) == 0
    }
}

/// That an inode in memory is in a subvolume.
pub struct Member {
    subvolume: Arc<Subvolume>,
    left: Atomic<i32>,
}

impl Member {
    /// Whether nothing in the subvolume may change.
    pub fn is_read_only(&self) -> bool {
        self.subvolume.read_only.load(Acquire) != 0
    }

    /// Whether the subvolume was deleted.
    pub fn is_deleted(&self) -> bool {
        self.subvolume.is_deleted()
    }

    /// The inode is not used any more. `true` if it was the last of a deleted subvolume.
    pub fn leave(&self) -> bool {
        if self.left.xchg(1i32, Full) == 0 {
            self.subvolume.members.fetch_add(-1i64, Full);
        }
        self.subvolume.is_deserted()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // What was never an inode: nobody waits for it.
        self.leave();
    }
}

/// The subvolumes that have, or had, inodes in memory.
pub struct Subvolumes(Mutex<Map<u64, Arc<Subvolume>>>);

impl Subvolumes {
    /// None so far.
    pub fn new() -> Result<Self> {
        let map = mutex!(Map::new(), "oxfs subvolumes").map_err(|NoMemory| ENOMEM)?;
        Ok(Self(map))
    }

    /// Makes an inode that is to be in memory a member of subvolume `id`. `ENOENT` when that was
    /// deleted.
    pub fn enter(&self, volume: &Volume, id: SubvolId) -> Result<Member> {
        let _scope = nofs::Scope::enter();
        let mut all = self.0.lock();
        let known = all.get(&id.0).cloned();
        let subvolume = match known {
            Some(subvolume) => subvolume,
            None => {
                // Under the lock: whoever changes it looks for it here afterwards.
                let info = volume.subvolume(id).map_err(to_errno)?;
                volume.open_subvolume(id).map_err(to_errno)?;
                let subvolume = Arc::new(
                    Subvolume {
                        read_only: Atomic::new(i32::from(info.read_only)),
                        deleted: Atomic::new(i32::from(info.dropping)),
                        members: Atomic::new(0i64),
                    },
                    GFP_KERNEL,
                )?;
                all.insert(id.0, subvolume.clone())
                    .map_err(|NoMemory| ENOMEM)?;
                subvolume
            }
        };
        if subvolume.is_deleted() {
            return Err(ENOENT);
        }
        subvolume.members.fetch_add(1i64, Full);
        Ok(Member {
            subvolume,
            left: Atomic::new(0i32),
        })
    }

    fn get(&self, id: SubvolId) -> Option<Arc<Subvolume>> {
        self.0.lock().get(&id.0).cloned()
    }

    /// The volume says that subvolume `id` is read-only, or is not.
    pub fn set_read_only(&self, id: SubvolId, read_only: bool) {
        if let Some(subvolume) = self.get(id) {
            subvolume.read_only.store(i32::from(read_only), Release);
        }
    }

    /// The volume says that subvolume `id` was deleted.
    pub fn set_deleted(&self, id: SubvolId) {
        // Under the lock: nobody enters it after this.
        if let Some(subvolume) = self.0.lock().get(&id.0) {
            subvolume.deleted.xchg(1i32, Full);
        }
    }

    /// Whether inodes of it are in memory.
    fn is_in_use(&self, id: SubvolId) -> bool {
        self.get(id)
            .is_some_and(|subvolume| !subvolume.is_deserted())
    }

    /// It is gone, and its number is not used again.
    fn forget(&self, id: SubvolId) {
        self.0.lock().remove(&id.0);
    }
}

/// `EROFS` when nothing in the inode's subvolume may change.
pub fn check_writable(inode: &Inode) -> Result {
    match inode.data().member().is_read_only() {
        true => Err(EROFS),
        false => Ok(()),
    }
}

/// What is left to do when the volume says that subvolume `id` was deleted: its inodes are to leave
/// memory. No lock of the VFS is held that one of them could need to go.
pub fn abandon(sb: &SuperBlock, id: SubvolId) {
    sb.data().subvolumes().set_deleted(id);
    prune(sb, id);
    sb.wake_background();
}

fn prune(sb: &SuperBlock, id: SubvolId) {
    sb.prune(|st_ino| engine::types::InodeId::from_st_ino(st_ino).subvol == id);
}

/// Gives the space of deleted subvolumes back that nobody uses any more. What is in use, or whose
/// space could not be given back, is left for later.
pub fn drop_deleted(sb: &SuperBlock, turn: &Turn<'_>) -> Left {
    let state = sb.data();
    let (mut from, mut left) = (SubvolId(0), Left::Nothing);
    loop {
        let id = match state.query_raw(|volume| volume.next_dropping(from)) {
            Ok(Some(id)) => id,
            Ok(None) => return left,
            Err(error) => {
                state.complain(format_args!("cannot look for deleted subvolumes"), error);
                return Left::Nothing;
            }
        };
        if state.subvolumes().is_in_use(id) {
            // A lookup that began before it was deleted may have come after the first time.
            prune(sb, id);
            left = Left::Later;
        } else {
            match drop_one(sb, turn, id) {
                Ok(true) => {}
                Ok(false) => return Left::More,
                // What refuses all changes has been logged.
                Err(engine::Error::ReadOnly) => return Left::Nothing,
                Err(error) => {
                    state.complain(
                        format_args!("the space of subvolume {id} is not given back yet"),
                        error,
                    );
                    left = Left::Later;
                }
            }
        }
        from = SubvolId(id.0.saturating_add(1));
    }
}

/// Gives the space of one back; `false` if some is left for the next turn.
fn drop_one(sb: &SuperBlock, turn: &Turn<'_>, id: SubvolId) -> engine::Result<bool> {
    let state = sb.data();
    while !turn.is_over() {
        match state.try_join_raw(sb, |volume| volume.drop_step(id)) {
            None => return Ok(false),
            Some(step) => {
                if step?.value {
                    state.subvolumes().forget(id);
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
