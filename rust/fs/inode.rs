// SPDX-License-Identifier: GPL-2.0

//! Inodes between engine and VFS: finding them, keeping their attributes the same on both sides,
//! and letting go of them.
//!
//! The engine's attributes are what is stored. The VFS changes times on its own, in memory, and
//! has them stored later ([`super::attr::push_times`]); everything else is changed in the engine
//! first and then [`apply`]ed. `i_size` of a regular file is the page cache's; the engine's
//! follows when data is mapped.

use super::data::{self, FileData};
use super::errno::to_errno;
use super::subvolume::Member;
use super::{attr, dir, file, namei, Inode, Oxfs, SuperBlock, Volume};
use crate::engine;
use crate::engine::subvolume::root_of;
use crate::engine::types::{
    Attr, Done, FileType, Generation, InodeId, MAX_FILE_SIZE, MAX_INO, MAX_SUBVOL,
};
use crate::platform::{mutex, Mutex, NoMemory};
use crate::vfs::inode::{self, Get, Kind, NewInode};
use crate::vfs::{dir as vfs_dir, inode_ops};
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{ordering::Relaxed, Atomic};

/// The filesystem's data of an inode.
pub struct Data {
    /// Which inode of the volume it is.
    pub id: InodeId,
    /// The last transaction that changed it.
    changed: Atomic<u64>,
    /// Its attributes as the engine last told them.
    stored: Mutex<Attr>,
    /// What a regular file has more.
    file: Option<FileData>,
    member: Member,
}

impl Data {
    /// The data of an inode with these attributes.
    pub fn new(id: InodeId, attr: &Attr, member: Member) -> Result<Self> {
        let file = match FileType::from_mode(attr.mode) {
            Some(FileType::Regular) => Some(FileData::new()?),
            _ => None,
        };
        let stored = mutex!(*attr, "oxfs inode").map_err(|NoMemory| ENOMEM)?;
        Ok(Self {
            id,
            changed: Atomic::new(0),
            stored,
            file,
            member,
        })
    }

    /// The same data under another number and with other attributes of the same type.
    pub fn with(mut self, id: InodeId, attr: &Attr) -> Self {
        self.id = id;
        *self.stored.lock() = *attr;
        self
    }

    /// Its place in its subvolume.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The state of a regular file's content.
    pub fn file(&self) -> Result<&FileData> {
        self.file.as_ref().ok_or(EINVAL)
    }

    /// The attributes as they are stored, or will be by the next commit.
    pub fn stored(&self) -> Attr {
        *self.stored.lock()
    }

    /// Runs `change` while no [`apply`] does.
    pub fn alone<T>(&self, change: impl FnOnce() -> T) -> T {
        let _stored = self.stored.lock();
        change()
    }

    /// Remembers that transaction `generation` changed the inode.
    pub fn note(&self, generation: Generation) {
        let mut old = self.changed.load(Relaxed);
        while old < generation.0 {
            match self.changed.cmpxchg(old, generation.0, Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// The last transaction that changed the inode: fsync waits for it.
    pub fn changed(&self) -> Generation {
        Generation(self.changed.load(Relaxed))
    }
}

/// The engine's operations on one inode.
pub trait InodeExt {
    /// Reads from the engine.
    fn query<T>(&self, read: impl FnOnce(&Volume, InodeId) -> engine::Result<T>) -> Result<T>;

    /// Changes the inode in the engine: one step, see [`super::super_block::State::join_raw`].
    fn join_raw<T>(
        &self,
        change: impl FnOnce(&Volume, InodeId) -> engine::Result<Done<T>>,
    ) -> engine::Result<T>;

    /// [`Self::join_raw`] with an error number.
    fn join<T>(
        &self,
        change: impl FnOnce(&Volume, InodeId) -> engine::Result<Done<T>>,
    ) -> Result<T>;

    /// Makes the last change of the inode durable.
    fn sync_changes(&self) -> Result;
}

impl InodeExt for Inode {
    fn query<T>(&self, read: impl FnOnce(&Volume, InodeId) -> engine::Result<T>) -> Result<T> {
        let id = self.data().id;
        self.super_block().data().query(|volume| read(volume, id))
    }

    fn join_raw<T>(
        &self,
        change: impl FnOnce(&Volume, InodeId) -> engine::Result<Done<T>>,
    ) -> engine::Result<T> {
        let (sb, id) = (self.super_block(), self.data().id);
        let done = sb.data().join_raw(sb, |volume| change(volume, id))?;
        self.data().note(done.generation);
        Ok(done.value)
    }

    fn join<T>(
        &self,
        change: impl FnOnce(&Volume, InodeId) -> engine::Result<Done<T>>,
    ) -> Result<T> {
        self.join_raw(change).map_err(to_errno)
    }

    fn sync_changes(&self) -> Result {
        let changed = self.data().changed();
        self.super_block()
            .data()
            .query(|volume| volume.sync_to(changed).map(drop))
    }
}

/// The inode `id` of `sb`, from memory or from the volume. `ENOENT` when there is none.
pub fn get(sb: &SuperBlock, id: InodeId) -> Result<ARef<Inode>> {
    if id.ino > MAX_INO || id.subvol > MAX_SUBVOL {
        return Err(EUCLEAN);
    }
    let filling = match inode::get(sb, id.st_ino())? {
        Get::Ready(inode) => return Ok(inode),
        Get::Fill(filling) => filling,
    };
    let member = sb.data().enter(id.subvol)?;
    // What the inode's last change was is forgotten by now; it may not be durable yet.
    let (attr, last) = sb
        .data()
        .query(|volume| Ok((volume.inode(id)?, volume.last_change())))?;
    if attr.nlink == 0 {
        // It is on its way out: nobody has it open, or it would have been in memory.
        return Err(ENOENT);
    }
    let data = Data::new(id, &attr, member)?;
    data.note(last);
    if let Some(file) = &data.file {
        // Nor is what was overwritten, which no transaction waits for.
        file.overwritten();
    }
    let new = filling.fill(data);
    set_up(&new, &attr)?;
    Ok(new.ready())
}

/// Gives a new inode its operations and attributes.
pub fn set_up(new: &NewInode<Oxfs>, attr: &Attr) -> Result {
    let kind = match FileType::from_mode(attr.mode) {
        Some(FileType::Regular) if attr.size <= MAX_FILE_SIZE => Kind::Regular(
            inode_ops::table::<Oxfs, namei::Regular>(),
            file::ops(),
            file::mapping_ops(),
        ),
        Some(FileType::Directory) => Kind::Directory(
            inode_ops::table::<Oxfs, namei::Directory>(),
            vfs_dir::table::<Oxfs, dir::Operations>(),
        ),
        Some(FileType::Symlink) => Kind::Symlink(inode_ops::table::<Oxfs, namei::Symlink>()),
        Some(FileType::Regular) | None => {
            let state = new.inode().super_block().data();
            state.damage(new.inode().data().id, "mode or size");
            return Err(EUCLEAN);
        }
        Some(_) => Kind::Special(inode_ops::table::<Oxfs, namei::Special>(), attr.rdev),
    };
    new.set_kind(attr.mode, kind);
    new.set_generation(attr.generation as u32);
    let inode = new.inode();
    inode.set_size(attr.size);
    inode.set_sectors(attr.blocks.saturating_mul(8));
    inode.set_times(&attr::times_of(attr));
    apply(inode, attr);
    Ok(())
}

/// Takes over attributes that the engine returned. Times that the VFS has changed meanwhile stay,
/// unless the engine changed them to later ones. Size and blocks of a regular file stay: they belong to the
/// data path.
///
/// Two changes of an inode may come here in another order than they were made in: not all of them
/// hold the inode's lock (storing times, moving a directory). The engine counts changes; of two,
/// the later one's attributes win.
pub fn apply(inode: &Inode, attr: &Attr) {
    let mut stored = inode.data().stored.lock();
    if (attr.change.wrapping_sub(stored.change) as i64) < 0 {
        return;
    }
    let old = core::mem::replace(&mut *stored, *attr);
    let seen = inode.times();
    let mut times = seen;
    let (old_times, new_times) = (attr::times_of(&old), attr::times_of(attr));
    for (now, old, new) in [
        (&mut times.atime, old_times.atime, new_times.atime),
        (&mut times.mtime, old_times.mtime, new_times.mtime),
        (&mut times.ctime, old_times.ctime, new_times.ctime),
    ] {
        // Not over a later one: the VFS may have set it since the change was made.
        if old != new && (*now == old || (now.sec, now.nsec) < (new.sec, new.nsec)) {
            *now = new;
        }
    }
    inode.change_times(&seen, &times);
    let data = inode.data();
    // The volume does not say that the root of a deleted subvolume has no name.
    let has_name = !data.member().is_deleted() || data.id != root_of(data.id.subvol);
    let nlink = if has_name { attr.nlink } else { 0 };
    inode.set_attributes(attr.mode, attr.uid, attr.gid, nlink);
    attr::apply_flags(inode, attr.flags);
    if !inode.is_reg() {
        inode.set_size(attr.size);
        inode.set_sectors(attr.blocks.saturating_mul(8));
    }
}

/// The inode leaves memory; when it has no name any more, its content and itself are freed.
pub fn evict(inode: &Inode) {
    if inode.data().file.is_some() {
        data::evict(inode);
    }
    let (sb, member) = (inode.super_block(), inode.data().member());
    // A deleted subvolume goes as a whole.
    if inode.nlink() == 0 && !member.is_deleted() {
        free(inode);
    }
    if member.leave() {
        sb.wake_background();
    }
}

/// Frees an inode that has no name.
fn free(inode: &Inode) {
    let sb = inode.super_block();
    let id = inode.data().id;
    if let Err(error) = sb.data().finish_orphan(sb, id) {
        // It stays an orphan: who next makes the volume writable goes on.
        if error != engine::Error::ReadOnly {
            sb.data()
                .complain(format_args!("{id} could not be freed"), error);
        }
    }
}
