// SPDX-License-Identifier: GPL-2.0

//! Snapshots of subvolumes, and dropping them.
//!
//! A snapshot is a new forest item that points to the same root, which gains an owner: nothing else
//! is copied or counted, however large the subvolume is. From then on whoever changes a shared node
//! copies it (see `tree_write`). The swap tree is no part of it: where the source has swap space the
//! snapshot has a promise without blocks.
//!
//! Dropping goes from the left: each step takes leaves away whose items nobody else owns, or lets go
//! of a shared subtree as a whole, and leaves a smaller tree, so that a crash costs nothing.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::extent::Place;
use super::format::{item_kind, subvolume_flag, ForestItem};
use super::node::{self, Key};
use super::super_block;
use super::tree::{Root, TreeId};
use super::tree_write::Txn;
use super::types::{BlockNr, Done, InodeId, Run, SubvolId, Time, MAX_FILE_BLOCKS, MAX_SUBVOL};
use super::volume::{Cost, Subvol, Volume};

/// Subtrees or leaves that one step of dropping takes away.
const STEP: usize = 8;
/// Items that one leaf of extents may release.
const LEAF_ITEMS: usize = 32;

/// What a new snapshot is called and may do.
#[derive(Debug, Clone, Copy)]
pub struct NewSnapshot {
    /// The subvolume that it is of.
    pub source: SubvolId,
    /// Whether it may be changed.
    pub read_only: bool,
    /// Its uuid: random.
    pub uuid: [u8; 16],
    /// Now.
    pub time: Time,
}

impl<D: BlockDevice> Txn<'_, D> {
    fn next_subvolume(&mut self) -> Result<SubvolId> {
        let sb = super_block::parse_mut(&mut self.state.super_block)?;
        let id = sb.next_subvolume.get();
        if id > MAX_SUBVOL.0 {
            return Err(Error::NoSpace);
        }
        sb.next_subvolume = (id + 1).into();
        Ok(SubvolId(id))
    }

    fn snapshot(&mut self, new: &NewSnapshot) -> Result<SubvolId> {
        let generation = self.state.generation;
        let source = self.state.subvol(new.source)?;
        if source.item.flags.get() & subvolume_flag::DROPPING != 0 {
            return Err(Error::NotFound);
        }
        let (root, next_ino) = (source.root, source.next_ino);
        let flags = match new.read_only {
            true => subvolume_flag::READ_ONLY,
            false => 0,
        };
        let id = self.next_subvolume()?;
        self.share(Run::new(root.ptr.block, 1))?;
        self.subvol_mut(new.source)?.last_snapshot = generation;
        let item = ForestItem {
            flags: flags.into(),
            parent: new.source.0.into(),
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
        Ok(id)
    }

    /// Takes one leaf or one shared subtree away; `true` when the tree is gone.
    fn drop_left(&mut self, id: SubvolId) -> Result<bool> {
        let tree = TreeId::Subvol(id);
        let root = self.state.root(tree)?;
        if root.level == 0 || self.view().node_shared(tree, root.ptr)? {
            self.drop_node(tree, root)?;
            return Ok(true);
        }
        // The way down the left side, up to the first node that can go as a whole.
        let mut parent = self.own_root(tree)?;
        loop {
            let (_, child) = self.first_child(parent)?;
            let level = self.level_of(parent)? - 1;
            if level == 0 || self.view().node_shared(tree, child)? {
                self.drop_node(tree, Root { ptr: child, level })?;
                return self.forget_first(tree, parent);
            }
            parent = self.own_first(tree, parent)?;
        }
    }

    /// Lets go of a node: of a shared one as a whole, of a leaf with everything that it points to.
    fn drop_node(&mut self, tree: TreeId, root: Root) -> Result<()> {
        if self.view().node_shared(tree, root.ptr)? {
            return self.release(Run::new(root.ptr.block, 1));
        }
        let view = self.view();
        let leaf = view.node(tree, root.ptr, root.level)?;
        let mut runs = crate::platform::Vec::new();
        for i in 0..node::count(&leaf) {
            let key = node::leaf_key(&leaf, i).filter(|key| key.kind == item_kind::EXTENT);
            if let Some(key) = key {
                let data = node::leaf_data(&leaf, i);
                let extent = super::extent::decode(self.store.geometry, &key, data)?;
                if let Some(run) = extent.run() {
                    crate::platform::VecExt::try_push(&mut runs, run)?;
                }
            }
        }
        drop(leaf);
        for run in runs.iter() {
            self.release(*run)?;
        }
        self.free_node(root.ptr)
    }

    fn remove_subvolume(&mut self, id: SubvolId) -> Result<()> {
        self.state.subvols.remove(&id.0);
        self.remove(TreeId::Forest, &Key::new(id.0, item_kind::FOREST, 0))?;
        Ok(())
    }

    /// Drops swap space of the files of a subvolume; whether none is left.
    fn drop_swap(&mut self, id: SubvolId) -> Result<bool> {
        let inode = |ino| InodeId {
            subvol: id,
            ino: super::types::Ino(ino),
        };
        let first = Key::new(inode(0).st_ino(), 0, 0);
        let last = Key::new(inode(super::types::MAX_INO.0).st_ino(), u8::MAX, u64::MAX);
        let found = self
            .view()
            .first(TreeId::Swap, &first, &last, |key, _| match key.kind {
                item_kind::SWAP => Ok(key.object),
                _ => Err(Error::corrupt(BlockNr(0), "kind of a swap item")),
            })?;
        let Some(st_ino) = found else {
            return Ok(true);
        };
        let place = Place::swap(InodeId::from_st_ino(st_ino));
        self.drop_extents(place, 0, MAX_FILE_BLOCKS, STEP)?;
        Ok(false)
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Makes a snapshot. The caller has written the source's data and lets nobody overwrite any in
    /// place meanwhile; it commits when that may go on.
    pub fn snapshot(&self, new: &NewSnapshot) -> Result<Done<SubvolId>> {
        self.open_subvolume(new.source)?;
        self.update(Cost::SMALL, |txn| txn.snapshot(new))
    }

    /// Marks a subvolume as being dropped: `Busy` for the default one, and while it has an active
    /// swapfile. [`Volume::drop_step`] does the rest.
    pub fn delete_subvolume(&self, id: SubvolId) -> Result<Done<()>> {
        self.open_subvolume(id)?;
        if id == self.default_subvolume() {
            return Err(Error::Busy);
        }
        self.update(Cost::FREES, |txn| {
            if txn.state.has_active_swapfile(id) {
                return Err(Error::Busy);
            }
            let subvol = txn.subvol_mut(id)?;
            let flags = subvol.item.flags.get() | subvolume_flag::DROPPING;
            subvol.item.flags = flags.into();
            Ok(())
        })
    }

    /// One step of dropping a subvolume that is marked; loop until the value is true.
    pub fn drop_step(&self, id: SubvolId) -> Result<Done<bool>> {
        self.open_subvolume(id)?;
        self.update(Cost::drops(LEAF_ITEMS), |txn| {
            let flags = txn.state.subvol(id)?.item.flags.get();
            if flags & subvolume_flag::DROPPING == 0 {
                return Err(Error::Invalid("the subvolume is in use"));
            }
            if !txn.drop_swap(id)? {
                return Ok(false);
            }
            let gone = txn.drop_left(id)?;
            if gone {
                txn.remove_subvolume(id)?;
            }
            Ok(gone)
        })
    }

    /// The next subvolume that is being dropped, from `from` on.
    pub fn next_dropping(&self, from: SubvolId) -> Result<Option<SubvolId>> {
        let mut found = None;
        self.query(|view| {
            let first = Key::new(from.0, item_kind::FOREST, 0);
            view.scan(TreeId::Forest, &first, &Key::MAX, |key, data| {
                let item = super::mount::forest_item(view, data)?;
                if item.flags.get() & subvolume_flag::DROPPING == 0 {
                    return Ok(core::ops::ControlFlow::Continue(()));
                }
                found = Some(SubvolId(key.object));
                Ok(core::ops::ControlFlow::Break(()))
            })
        })?;
        Ok(found)
    }
}
