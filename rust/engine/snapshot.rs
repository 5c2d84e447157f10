// SPDX-License-Identifier: GPL-2.0

//! Snapshots of subvolumes.
//!
//! A snapshot is a new forest item that points to the same root, which gains an owner: nothing else
//! is copied or counted, however large the subvolume is. From then on whoever changes a shared node
//! copies it (see `tree_write`). The swap tree is no part of it: where the source has swap space the
//! snapshot has a promise without blocks.

use super::device::BlockDevice;
use super::error::Result;
use super::format::subvolume_flag;
use super::inode;
use super::namei::Created;
use super::subvolume::Place;
use super::tree_write::Txn;
use super::types::{Done, InodeId, Run, SubvolId, Time, ROOT_INO};
use super::volume::{Cost, Subvol, Volume};
use super::{dir, format::ForestItem};

/// A snapshot to make.
#[derive(Debug, Clone, Copy)]
pub struct NewSnapshot<'a> {
    /// The subvolume that it is of.
    pub source: SubvolId,
    /// The directory that it hangs in, of the source or of another subvolume.
    pub dir: InodeId,
    /// Its name there.
    pub name: &'a [u8],
    /// Whether it may not be changed.
    pub read_only: bool,
    /// Its uuid: random.
    pub uuid: [u8; 16],
    /// Now.
    pub time: Time,
}

impl<D: BlockDevice> Txn<'_, D> {
    fn snapshot(&mut self, new: &NewSnapshot<'_>) -> Result<Created> {
        let place = Place::vacant(self.view(), new.dir, new.name)?;
        self.open(new.source)?;
        self.view().check_live(new.source)?;
        let top = InodeId {
            subvol: new.source,
            ino: ROOT_INO,
        };
        let attr = inode::load(self.view(), top)?;
        let id = self.next_subvolume()?;

        // The source's root is shared before the entry is made: a snapshot that hangs in its own
        // source does not show itself.
        let generation = self.state.generation;
        let source = self.subvol_mut(new.source)?;
        source.last_snapshot = generation;
        let (root, next_ino, parent_uuid) = (source.root, source.next_ino, source.item.uuid);
        self.share(Run::new(root.ptr.block, 1))?;
        let flags = match new.read_only {
            true => subvolume_flag::READ_ONLY,
            false => 0,
        };
        let item = ForestItem {
            flags: flags.into(),
            parent: new.source.0.into(),
            parent_uuid,
            uuid: new.uuid,
            created_sec: (new.time.sec as u64).into(),
            created_nsec: new.time.nsec.into(),
            ..ForestItem::default()
        };
        let subvol = Subvol {
            root,
            last_snapshot: generation,
            next_ino,
            item,
            dirty: true,
        };
        self.state.subvols.insert(id.0, subvol)?;
        let dir = self.hang(place, new.name, id, &attr, new.time)?;
        let id = InodeId {
            subvol: id,
            ino: ROOT_INO,
        };
        Ok(Created { id, attr, dir })
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Makes a snapshot and its name, in one step: the attributes are those of its root directory
    /// and of the directory that it hangs in. The caller has written the source's data and lets
    /// nobody overwrite any in place meanwhile; it commits when that may go on.
    pub fn snapshot(&self, new: &NewSnapshot<'_>) -> Result<Done<Created>> {
        dir::check_name(new.name)?;
        let _sharing = self.sharing.lock();
        self.update(Cost::subvolume(0), |txn| txn.snapshot(new))
    }
}
