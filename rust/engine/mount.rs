// SPDX-License-Identifier: GPL-2.0

//! Opening a volume, and closing it.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{
    item_kind, state as volume_state, ForestItem, Geometry, SpaceItem, MAX_GENERATION,
};
use super::node::Key;
use super::ranges::RangeSet;
use super::readers::Readers;
use super::space::Space;
use super::store::Store;
use super::subvolume::TOP;
use super::super_block;
use super::tree::{TreeId, View};
use super::tree_write::Txn;
use super::types::{BlockNr, Done, Generation, SubvolId, FIRST_INO, MAX_INO, MAX_SUBVOL};
use super::volume::{Cost, State, Subvol, Volume};
use crate::platform::{mutex, random_u64, rwlock, Block, Box, Map};
use core::ops::ControlFlow;
use zerocopy::FromBytes;

/// How to mount.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountOptions {
    /// Write nothing.
    pub read_only: bool,
}

impl<D: BlockDevice> Volume<D> {
    /// Opens the volume on `dev`.
    ///
    /// `NotOxfs`, `Unsupported` and `Invalid` say why it is none of ours or cannot be used;
    /// `Corrupt` and `Io` that it is damaged. Nothing is written, nor logged: that is for the caller.
    pub fn mount(dev: D, options: &MountOptions) -> Result<Self> {
        let (block, geometry) = super_block::read_newest(&dev, options.read_only)?;
        let at = BlockNr(super_block::parse(&block)?.block.get());
        let volume = Self::assemble(dev, geometry, block, options)?;
        load_space(&volume.store, &mut volume.state.write())?;
        let missing = |rule| {
            move |error| match error {
                Error::NotFound => Error::corrupt(at, rule),
                other => other,
            }
        };
        volume
            .open(TOP)
            .map_err(missing("no top level subvolume"))?;
        let default = volume.open(volume.default_subvolume());
        default.map_err(missing("no default subvolume"))?;
        Ok(volume)
    }

    /// A volume of which only the super block is known.
    pub(super) fn assemble(
        dev: D,
        geometry: Geometry,
        block: Box<Block>,
        options: &MountOptions,
    ) -> Result<Self> {
        let sb = super_block::parse(&block)?;
        let hash_seed = sb.hash_seed;
        let store = Store::new(dev, geometry, sb.metadata_uuid)?;
        let state = new_state(block, Space::new(geometry)?, options.read_only)?;
        Ok(Self {
            store,
            state: rwlock!(state, "oxfs state")?,
            sharing: mutex!((), "oxfs sharing")?,
            committer: mutex!((), "oxfs committer")?,
            readers: Readers::new()?,
            hash_seed,
        })
    }

    /// The subvolume that a mount shows.
    pub fn default_subvolume(&self) -> SubvolId {
        let state = self.state.read();
        let id = super_block::parse(&state.super_block).map_or(0, |sb| sb.default_subvolume.get());
        SubvolId(id)
    }

    /// Makes a subvolume usable. `NotFound` if there is none with that number.
    pub fn open_subvolume(&self, id: SubvolId) -> Result<()> {
        if self.state.read().subvols.contains(&id.0) {
            return Ok(());
        }
        self.open(id).inspect_err(|error| self.note(*error))
    }

    fn open(&self, id: SubvolId) -> Result<()> {
        let mut state = self.state.write();
        let mut txn = Txn {
            store: &self.store,
            state: &mut state,
        };
        txn.open(id)
    }

    /// Makes a volume read-only, after a commit, or writable.
    pub fn remount(&self, read_only: bool) -> Result<()> {
        let (was_read_only, whole) = {
            let state = self.state.read();
            (state.read_only, state.fault.is_none())
        };
        if read_only && !was_read_only && whole {
            self.commit_clean()?;
        }
        let mut state = self.state.write();
        if !read_only {
            super_block::check_may_write(super_block::parse(&state.super_block)?)?;
        }
        if !read_only && state.fault.is_some() {
            return Err(Error::ReadOnly);
        }
        state.read_only = read_only;
        if !read_only {
            clear_clean_mark(&mut state.super_block)?;
        }
        Ok(())
    }

    /// The last commit; nothing is written after it.
    pub fn unmount(&self) -> Result<()> {
        let writable = {
            let state = self.state.read();
            !state.read_only && state.fault.is_none()
        };
        if writable {
            self.commit_clean()?;
            self.state.write().read_only = true;
        }
        Ok(())
    }

    /// Commits with the clean mark set, which a writable volume's commits clear. The mark is
    /// information: no mount needs it.
    fn commit_clean(&self) -> Result<()> {
        self.commit()?;
        {
            let mut state = self.state.write();
            let sb = super_block::parse_mut(&mut state.super_block)?;
            sb.state = (sb.state.get() | volume_state::CLEAN).into();
            state.changes += 1;
        }
        self.commit()
    }

    /// The label: UTF-8 without zero bytes, up to 256 bytes.
    pub fn label(&self) -> [u8; 256] {
        let state = self.state.read();
        super_block::parse(&state.super_block).map_or([0; 256], |sb| sb.label)
    }

    /// Sets the label to what is before the first zero byte: UTF-8, up to 255 bytes.
    pub fn set_label(&self, label: &[u8; 256]) -> Result<Done<()>> {
        let len = label.iter().position(|byte| *byte == 0);
        let text = len.and_then(|len| label.get(..len)).unwrap_or(&[]);
        if len.is_none() || core::str::from_utf8(text).is_err() {
            return Err(Error::Invalid("label"));
        }
        let mut clean = [0; 256];
        if let Some(room) = clean.get_mut(..text.len()) {
            room.copy_from_slice(text);
        }
        self.update(Cost::SMALL, |txn| {
            txn.state.changes += 1;
            super_block::parse_mut(&mut txn.state.super_block)?.label = clean;
            Ok(())
        })
    }
}

impl<D: BlockDevice> Txn<'_, D> {
    /// Makes a subvolume usable, which changes nothing on the volume.
    pub(super) fn open(&mut self, id: SubvolId) -> Result<()> {
        if !self.state.subvols.contains(&id.0) {
            let subvol = load_subvolume(self.view(), id)?;
            self.state.subvols.insert(id.0, subvol)?;
        }
        Ok(())
    }
}

fn new_state(mut super_block: Box<Block>, space: Space, read_only: bool) -> Result<State> {
    if !read_only {
        clear_clean_mark(&mut super_block)?;
    }
    let sb = super_block::parse(&super_block)?;
    let durable = Generation(sb.generation.get());
    // No generation is used twice, even if this mount's commits are lost with its disk's cache.
    let jump = 1 + (random_u64() & u64::from(u32::MAX));
    let generation = durable.0.checked_add(jump).filter(|g| *g < MAX_GENERATION);
    let at = BlockNr(sb.block.get());
    Ok(State {
        generation: Generation(generation.ok_or(Error::corrupt(at, "generation too high"))?),
        durable,
        forest: sb.forest.into(),
        space_root: sb.space.into(),
        refs: sb.refs.into(),
        swap: sb.swap.into(),
        subvols: Map::new(),
        dirty: Map::new(),
        space,
        unshared: RangeSet::new(),
        fallen: Map::new(),
        changes: 0,
        committed_changes: 0,
        super_block,
        swapping: Map::new(),
        read_only,
        fault: None,
        told: Map::new(),
    })
}

fn clear_clean_mark(super_block: &mut Block) -> Result<()> {
    let sb = super_block::parse_mut(super_block)?;
    sb.state = (sb.state.get() & !volume_state::CLEAN).into();
    Ok(())
}

fn load_space<D: BlockDevice>(store: &Store<D>, state: &mut State) -> Result<()> {
    let mut items = Map::new();
    let at = state.space_root.ptr.block;
    let groups = store.geometry().groups();
    View { store, state }.scan(TreeId::Space, &Key::MIN, &Key::MAX, |key, data| {
        let item = SpaceItem::read_from_bytes(data)
            .ok()
            .filter(|_| key.kind == item_kind::SPACE && key.offset == 0)
            .ok_or(Error::corrupt(at, "space item"))?;
        if key.object >= groups {
            let rule = "space item of a group that does not exist";
            return Err(Error::corrupt(at, rule));
        }
        items.insert(key.object, item)?;
        Ok(ControlFlow::Continue(()))
    })?;
    for (group, item) in items.iter() {
        state
            .space
            .load_item(*group, *item)
            .map_err(|rule| Error::corrupt(at, rule))?;
    }
    // A group whose item is missing would pass for one that is all free.
    let sb = super_block::parse(&state.super_block)?;
    match state.space.unmapped() == sb.free_blocks.get() {
        true => Ok(()),
        false => Err(Error::corrupt(at, "free blocks of all groups")),
    }
}

/// The item of a subvolume.
pub(super) fn forest_item<D: BlockDevice>(view: View<'_, D>, data: &[u8]) -> Result<ForestItem> {
    let bad = Error::corrupt(view.state.forest.ptr.block, "forest item");
    let item = ForestItem::read_from_bytes(data).map_err(|_| bad)?;
    let (home, ino) = (item.home_subvolume.get(), item.home_ino.get());
    // The root of a subvolume is nobody's home: every step of a way up has a name, so that it ends.
    let may_be_home = home <= MAX_SUBVOL.0 && (FIRST_INO.0..=MAX_INO.0).contains(&ino);
    if item.next_ino.get() < FIRST_INO.0 || (ino != 0 && !may_be_home) {
        return Err(bad);
    }
    Ok(item)
}

fn load_subvolume<D: BlockDevice>(view: View<'_, D>, id: SubvolId) -> Result<Subvol> {
    let at = view.state.forest.ptr.block;
    let key = Key::new(id.0, item_kind::FOREST, 0);
    let item = view
        .get(TreeId::Forest, &key, |data| forest_item(view, data))?
        .ok_or(Error::NotFound)?;
    if id > MAX_SUBVOL {
        return Err(Error::corrupt(at, "number of a subvolume"));
    }
    Ok(Subvol {
        root: item.root.into(),
        last_snapshot: Generation(item.last_snapshot.get()),
        next_ino: item.next_ino.get(),
        item,
        dirty: false,
    })
}
