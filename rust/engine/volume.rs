// SPDX-License-Identifier: GPL-2.0

//! A mounted volume: what is in memory, and the two ways to it, [`Volume::query`] and
//! [`Volume::update`].
//!
//! An update is one bounded step under the state lock, held exclusively: commits see all of it or
//! nothing. Queries share the lock. A commit takes it twice, briefly: to close the running
//! transaction, and to release what it freed; its I/O is done without it.
//!
//! Lock order: sharing > committer > state > node cache. Readers (`Readers`) is innermost.

use super::data::STEP;
use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{ForestItem, Geometry};
use super::ranges::RangeSet;
use super::readers::Readers;
use super::space::Space;
use super::store::Store;
use super::tree::{Root, TreeId, View};
use super::tree_write::Txn;
use super::types::{BlockNr, Done, Generation, InodeId, SubvolId};
use crate::platform::{log, Block, Box, Map, Mutex, RwLock};
use core::mem::size_of;

/// A subvolume in memory.
pub struct Subvol {
    /// Its tree.
    pub root: Root,
    /// The generation of its last snapshot; blocks that are newer have no other owner by it.
    pub last_snapshot: Generation,
    /// The number of its next inode.
    pub next_ino: u64,
    /// What else the forest tree says.
    pub item: ForestItem,
    /// Whether the forest item is to be written.
    pub dirty: bool,
}

impl Subvol {
    /// What the forest tree is to say of it.
    pub(super) fn forest_item(&self) -> ForestItem {
        ForestItem {
            root: self.root.into(),
            last_snapshot: self.last_snapshot.0.into(),
            next_ino: self.next_ino.into(),
            ..self.item
        }
    }
}

/// Blocks of dirty data for which one node is promised.
const NODE_BLOCKS: u64 = 16;
/// The same, where they will be mapped in long runs.
const NODE_BLOCKS_OF_RUNS: u64 = 64;

/// Ways from a root to a leaf that a small change goes.
const PATHS: u64 = 4;
/// Items of a leaf that is full of extents.
const LEAF_EXTENTS: u64 = 74;
/// Slots of an inner node.
const INNER_SLOTS: u64 = 122;
/// Items of a full leaf of the refs tree.
const REFS_ITEMS: u64 = 106;
/// Items of a leaf of the forest tree that is half full.
pub(super) const FOREST_ITEMS: u64 = 13;

const _: () = {
    use super::format::{ExtentItem, InnerSlot, LeafSlot, NodeHeader, RefsItem};
    let room = 4096 - size_of::<NodeHeader>() as u64;
    let slot = size_of::<LeafSlot>() as u64;
    assert!(LEAF_EXTENTS == room / (slot + size_of::<ExtentItem>() as u64));
    assert!(INNER_SLOTS == room / size_of::<InnerSlot>() as u64);
    assert!(REFS_ITEMS == room / (slot + size_of::<RefsItem>() as u64));
};

/// How often a change that finds no room is tried, with a commit before each further time.
const ROUNDS: usize = 3;

/// Faults of the volume that are logged.
const MAX_TOLD: usize = 64;

/// Everything that the state lock protects.
pub struct State {
    /// The running transaction.
    pub generation: Generation,
    /// The last transaction that is durable.
    pub durable: Generation,
    /// Root of the forest tree.
    pub forest: Root,
    /// Root of the space tree.
    pub space_root: Root,
    /// Root of the refs tree.
    pub refs: Root,
    /// Root of the swap tree.
    pub swap: Root,
    /// Subvolumes in use.
    pub subvols: Map<u64, Subvol>,
    /// Nodes that the running transaction wrote, by block.
    pub dirty: Map<u64, Box<Block>>,
    /// Free space.
    pub space: Space,
    /// Blocks whose count fell to 1 in the running transaction.
    pub unshared: RangeSet,
    /// The same, of the transaction that is being committed and of older ones, as long as there are
    /// readers that began before.
    pub fallen: Map<u64, RangeSet>,
    /// Counts changes to the trees; an update that fails after one has broken the volume.
    pub changes: u64,
    /// `changes` when the running transaction began.
    pub committed_changes: u64,
    /// The super block, as last written or to be written.
    pub super_block: Box<Block>,
    /// Active swapfiles, by `st_ino`.
    pub swapping: Map<u64, ()>,
    /// No changes: mounted so.
    pub read_only: bool,
    /// No changes: why.
    pub fault: Option<&'static str>,
    /// Blocks, or inodes, and the broken rules that the log has of them.
    pub told: Map<(u64, &'static str), ()>,
}

impl State {
    /// The root of a tree.
    pub fn root(&self, tree: TreeId) -> Result<Root> {
        Ok(match tree {
            TreeId::Forest => self.forest,
            TreeId::Space => self.space_root,
            TreeId::Refs => self.refs,
            TreeId::Swap => self.swap,
            TreeId::Subvol(id) => self.subvol(id)?.root,
        })
    }

    /// A subvolume that was opened.
    pub fn subvol(&self, id: SubvolId) -> Result<&Subvol> {
        self.subvols.get(&id.0).ok_or(Error::NotFound)
    }

    /// Whether there is something to commit.
    pub fn is_dirty(&self) -> bool {
        self.changes != self.committed_changes
    }

    /// Whether there was ever more than one subvolume: before that no node is shared.
    fn may_share_nodes(&self) -> bool {
        self.subvolumes_ever() > 1
    }

    /// Subvolumes that there ever were.
    fn subvolumes_ever(&self) -> u64 {
        super::super_block::parse(&self.super_block).map_or(1, |sb| sb.next_subvolume.get())
    }

    /// Blocks that are kept back so that a full volume can still delete, and commit. Deleting what a
    /// snapshot has as well takes blocks: half of it is more than [`State::sharing_cost`].
    pub(super) fn metadata_reserve(&self, geometry: Geometry) -> u64 {
        let geometry = self.smaller(geometry);
        match self.may_share_nodes() {
            true => Self::shared_reserve(geometry),
            false => (geometry.blocks / 32).clamp(768, 4096),
        }
    }

    /// The size that a volume of this size is getting, if that is less.
    fn smaller(&self, geometry: Geometry) -> Geometry {
        let resizing = self.space.resizing();
        resizing
            .filter(|to| to.blocks < geometry.blocks)
            .unwrap_or(geometry)
    }

    /// The same once nodes may be shared. The first snapshot needs that much.
    fn shared_reserve(geometry: Geometry) -> u64 {
        (geometry.blocks / 12).clamp(768, 8192)
    }

    /// Free blocks that are to be had: not what was promised to data and to mapping it, nor the part
    /// `keep` of the reserve, nor what the commit takes. Only the mapping itself, and what is the
    /// way out of everything, may use the nodes that were promised.
    fn spare(&self, geometry: Geometry, keep: Keep, paths: u64) -> u64 {
        let promised = match keep {
            Keep::Promised | Keep::Nothing => 0,
            _ => self.promised_nodes(),
        };
        let reserve = match keep {
            Keep::Shared => Self::shared_reserve(self.smaller(geometry)),
            _ => self.metadata_reserve(geometry),
        };
        self.space
            .free()
            .saturating_sub(self.space.reserved())
            .saturating_sub(promised)
            .saturating_sub(keep.of(reserve))
            .saturating_sub(self.commit_cost(geometry))
            .saturating_sub(self.sharing_cost(geometry, paths))
    }

    /// Nodes that mapping all data on its way may take: each dirty block on its own, in the middle of
    /// what others share, and what has its new place in longer runs. At least one step of it.
    fn promised_nodes(&self) -> u64 {
        let dirty = self.space.reserved().saturating_add(self.space.in_place());
        match (dirty, self.space.staged()) {
            (0, 0) => 0,
            (dirty, staged) => {
                let nodes = dirty / NODE_BLOCKS + staged / NODE_BLOCKS_OF_RUNS;
                nodes.saturating_add(Cost::maps(STEP).nodes)
            }
        }
    }

    /// Whether, with the fence for another size put up, everything that was promised is still to be
    /// had, and `blocks` that have to go elsewhere.
    pub(super) fn has_room_behind_fence(&self, now: Geometry, blocks: u64) -> bool {
        (blocks == 0 && self.space.fenced() == 0) || self.has_room_to_move(now, blocks.max(1))
    }

    /// Whether `blocks` that are in the way of another size, and nodes for them, are to be had.
    pub(super) fn has_room_to_move(&self, now: Geometry, blocks: u64) -> bool {
        let need = blocks.saturating_add(blocks / NODE_BLOCKS_OF_RUNS);
        self.spare(now, self.keep_to_move(now), PATHS) >= need
    }

    /// A volume that becomes larger will have more than it uses up for that.
    fn keep_to_move(&self, now: Geometry) -> Keep {
        match self.space.resizing() {
            Some(to) if to.blocks > now.blocks => Keep::Quarter,
            _ => Keep::All,
        }
    }

    /// What writing so many nodes anew takes, for another size, and counting so many runs that are
    /// shared.
    pub(super) fn cost_to_move(&self, now: Geometry, nodes: u64, shared: u64) -> Cost {
        Cost {
            nodes: nodes.saturating_add(48),
            paths: PATHS + shared / 64,
            keep: self.keep_to_move(now),
        }
    }

    /// Blocks that may be out of reach for a while without anybody missing them.
    pub(super) fn discardable(&self, geometry: Geometry) -> usize {
        (self.spare(geometry, Keep::All, PATHS) / 2).min(2048) as usize
    }

    /// Blocks that copying shared nodes may take in the refs tree, on `paths` ways from a root to a
    /// leaf; the copies themselves are not counted here.
    ///
    /// All that a copy points to gains an owner. Each of these runs may be in a leaf of its own of
    /// the refs tree, which is copied, and split if it is full. But no more leaves are copied than
    /// there are, and no more are full than the volume's blocks can fill. (An extent counts as one
    /// run. It may be many if parts of it were cloned one by one: those are next to each other.)
    fn sharing_cost(&self, geometry: Geometry, paths: u64) -> u64 {
        if !self.may_share_nodes() {
            return 0;
        }
        // On each way a leaf, the neighbour that it may be merged with, and their parent; the two
        // levels above have a node or two on all ways.
        let runs = paths * (2 * LEAF_EXTENTS + INNER_SLOTS) + 2 * INNER_SLOTS;
        let level = self.refs.level;
        let leaves = INNER_SLOTS
            .saturating_pow(u32::from(level))
            .min(geometry.blocks / (REFS_ITEMS / 2) + 1);
        let nodes = leaves + leaves / (INNER_SLOTS / 2) + u64::from(level) + 1;
        let full = nodes.min(geometry.blocks / REFS_ITEMS + 1);
        runs.min(nodes) + runs.min(full) + runs / (REFS_ITEMS / 2) + 8
    }

    /// Blocks that the commit of the running transaction may still take: a path in every tree, the
    /// forest's leaves of all subvolumes in use, and every node of the space tree, since each copy
    /// may free a block of one more group.
    fn commit_cost(&self, geometry: Geometry) -> u64 {
        let leaves = geometry.groups() / 43;
        let space = leaves + leaves / 60 + u64::from(self.space_root.level) + 2;
        let forest = (self.subvols.len() as u64).min(self.subvolumes_ever() / FOREST_ITEMS + 1);
        32 + space.saturating_mul(2) + forest
    }
}

/// What an update may take, and how much of the metadata reserve it leaves to others. So the
/// reserve is never used up by what does not give space back: what is there can be changed, then
/// names can be removed, then what they named can be dropped, and at last snapshots. What dirty data
/// was promised it gets, whichever of these came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Blocks for nodes, at most.
    nodes: u64,
    /// Ways from a root of a subvolume to a leaf, whose nodes may be shared.
    paths: u64,
    keep: Keep,
}

/// Parts of the metadata reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// All of what is kept back once nodes may be shared.
    Shared,
    All,
    ThreeQuarters,
    Half,
    Quarter,
    /// Nothing: what it takes was promised before.
    Promised,
    Nothing,
}

impl Keep {
    /// The part of a reserve of `blocks`.
    fn of(self, blocks: u64) -> u64 {
        match self {
            Self::Shared | Self::All => blocks,
            Self::ThreeQuarters => blocks / 4 * 3,
            Self::Half => blocks / 2,
            Self::Quarter => blocks / 4,
            Self::Promised | Self::Nothing => 0,
        }
    }
}

impl Cost {
    /// An update of a few items.
    pub const SMALL: Self = Self::takes(0);
    /// An update of a few items that are there already.
    pub const CHANGES: Self = Self::of(0, Keep::ThreeQuarters);
    /// An update of a few items that gives space back.
    pub const FREES: Self = Self::frees(0);

    const fn of(items: usize, keep: Keep) -> Self {
        Self {
            nodes: 48 + items as u64 * 4,
            // Many items are next to each other.
            paths: PATHS + items as u64 / 16,
            keep,
        }
    }

    /// An update of up to `items` items that makes something.
    pub const fn takes(items: usize) -> Self {
        Self::of(items, Keep::All)
    }

    /// An update that makes a subvolume, its name, and so many extended attributes.
    pub const fn subvolume(xattrs: usize) -> Self {
        Self::of(xattrs.saturating_add(9), Keep::Shared)
    }

    /// An update of up to `items` items that maps what was promised before.
    pub const fn maps(items: usize) -> Self {
        Self::of(items, Keep::Promised)
    }

    /// An update of up to `items` items that leads to space being given back.
    pub const fn frees(items: usize) -> Self {
        Self::of(items, Keep::Half)
    }

    /// An update of up to `items` items that gives space back when it is durable, unless a snapshot
    /// has it as well.
    pub const fn finishes(items: usize) -> Self {
        Self::of(items, Keep::Quarter)
    }

    /// An update of up to `items` items that deletes a snapshot or drops it: the way out when
    /// nothing else has room.
    pub const fn drops(items: usize) -> Self {
        Self::of(items, Keep::Nothing)
    }

    /// The same for an update that goes `paths` ways to a leaf.
    pub const fn on_paths(self, paths: u64) -> Self {
        Self { paths, ..self }
    }
}

/// Space, for `statfs`. In blocks of 4096 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    /// Size of the volume.
    pub blocks: u64,
    /// Blocks that nothing maps.
    pub free: u64,
    /// Blocks that data can have.
    pub available: u64,
    /// The volume's uuid.
    pub uuid: [u8; 16],
}

/// A mounted volume.
pub struct Volume<D> {
    /// The device and the nodes that were read from it.
    pub(super) store: Store<D>,
    /// Everything that changes.
    pub(super) state: RwLock<State>,
    /// Held by who makes blocks shared wholesale, and by who has planned with what is not.
    pub(super) sharing: Mutex<()>,
    /// Held by the one commit that is under way.
    pub(super) committer: Mutex<()>,
    /// Who reads blocks that may be freed meanwhile.
    pub(super) readers: Readers,
    /// Key of the hashes of names.
    pub(super) hash_seed: [u8; 16],
}

impl<D: BlockDevice> Volume<D> {
    /// The device.
    pub fn device(&self) -> &D {
        &self.store.dev
    }

    /// Key of the hashes of names.
    pub fn hash_seed(&self) -> &[u8; 16] {
        &self.hash_seed
    }

    /// The answer of an operation that had nothing to change: there is no transaction to wait for.
    pub(super) fn unchanged<T>(&self, value: T) -> Done<T> {
        let generation = self.state.read().durable;
        Done { value, generation }
    }

    /// Reads from the volume.
    pub fn query<R>(&self, read: impl FnOnce(View<'_, D>) -> Result<R>) -> Result<R> {
        let result = {
            let state = self.state.read();
            read(View {
                store: &self.store,
                state: &state,
            })
        };
        result.inspect_err(|error| self.note(*error))
    }

    /// Changes the volume: one step that a commit sees whole or not at all.
    ///
    /// `change` may fail as long as it changed nothing, and may then run again after a commit that
    /// was made to get free space; once it changed a tree, an error means that the volume in memory
    /// is half changed, and it refuses every further change (EROFS).
    pub fn update<R>(
        &self,
        cost: Cost,
        mut change: impl FnMut(&mut Txn<'_, D>) -> Result<R>,
    ) -> Result<Done<R>> {
        for _ in 0..ROUNDS {
            match self.try_update(cost, &mut change) {
                Ok(None) => self.commit()?,
                Ok(Some(done)) => return Ok(done),
                Err(error) => {
                    self.note(error);
                    return Err(error);
                }
            }
        }
        Err(Error::NoSpace)
    }

    /// Makes a change if there is room for it; `None` if a commit may give room.
    pub(super) fn try_update<R>(
        &self,
        cost: Cost,
        change: &mut impl FnMut(&mut Txn<'_, D>) -> Result<R>,
    ) -> Result<Option<Done<R>>> {
        let mut state = self.state.write();
        check_writable(&state)?;
        if !self.has_room(&state, cost) {
            return match state.space.pinned() {
                0 => Err(Error::NoSpace),
                _ => Ok(None),
            };
        }
        let before = state.changes;
        let generation = state.generation;
        let result = change(&mut Txn {
            store: &self.store,
            state: &mut state,
        });
        if let (Err(error), true) = (&result, state.changes != before) {
            self.stop(&mut state, "a change failed half way", Some(*error));
        }
        result.map(|value| Some(Done { value, generation }))
    }

    /// Whether a change can take the blocks that it may need. What was promised to data is never
    /// taken: a commit gives the rest back.
    fn has_room(&self, state: &State, cost: Cost) -> bool {
        state.spare(self.store.geometry(), cost.keep, cost.paths) >= cost.nodes
    }

    /// Whether a change could take now what `cost` says.
    pub(super) fn has_room_for(&self, cost: Cost) -> bool {
        self.has_room(&self.state.read(), cost)
    }

    /// Promises `blocks` for data that will be staged later, and what mapping it may take.
    pub fn reserve(&self, blocks: u64) -> Result<()> {
        self.reserve_with(blocks, NODE_BLOCKS)
    }

    /// Promises `blocks` that will be mapped in long runs.
    pub(super) fn reserve_runs(&self, blocks: u64) -> Result<()> {
        self.reserve_with(blocks, NODE_BLOCKS_OF_RUNS)
    }

    /// Promises `blocks` if, besides, a node for each `node_blocks` of them is free.
    fn reserve_with(&self, blocks: u64, node_blocks: u64) -> Result<()> {
        if blocks == 0 {
            return check_writable(&self.state.read());
        }
        let need = blocks.saturating_add(blocks / node_blocks);
        for _ in 0..ROUNDS {
            {
                let mut state = self.state.write();
                check_writable(&state)?;
                if state.spare(self.store.geometry(), Keep::All, PATHS) >= need {
                    state.space.reserve(blocks);
                    return Ok(());
                }
                if state.space.pinned() == 0 {
                    return Err(Error::NoSpace);
                }
            }
            self.commit()?;
        }
        Err(Error::NoSpace)
    }

    /// `blocks` of data will be written where they are, which must happen before anybody else may
    /// own the blocks as well: promises what it may take to say that they are written. So also a
    /// full volume lets its files be overwritten, and what was allocated before be written.
    ///
    /// `NoSpace` when too much of it is dirty, or when so many single blocks in the middle of what
    /// was allocated were written that their extents have used up a quarter of the reserve.
    pub fn reserve_in_place(&self, blocks: u64) -> Result<()> {
        let mut state = self.state.write();
        check_writable(&state)?;
        let cost = Cost::maps(STEP);
        let spare = state.spare(self.store.geometry(), Keep::ThreeQuarters, cost.paths);
        if spare < cost.nodes.saturating_add(blocks / NODE_BLOCKS) {
            return Err(Error::NoSpace);
        }
        state.space.add_in_place(blocks);
        Ok(())
    }

    /// The blocks were written where they are, or never will be.
    pub fn unreserve_in_place(&self, blocks: u64) {
        self.state.write().space.remove_in_place(blocks);
    }

    /// Takes a promise back.
    pub fn unreserve(&self, blocks: u64) {
        self.state.write().space.unreserve(blocks);
    }

    /// Space, for `statfs`.
    pub fn statfs(&self) -> StatFs {
        let state = self.state.read();
        let space = &state.space;
        let free = space
            .free()
            .saturating_add(space.pinned())
            .saturating_sub(space.reserved());
        let reserve = state.metadata_reserve(self.store.geometry());
        StatFs {
            blocks: self.store.geometry().blocks,
            free,
            available: free.saturating_sub(reserve),
            uuid: super::super_block::parse(&state.super_block).map_or([0; 16], |s| s.uuid),
        }
    }

    /// Whether every change is refused because of a fault, and why.
    pub fn fault(&self) -> Option<&'static str> {
        self.state.read().fault
    }

    /// Refuses every further change.
    pub fn shut_down(&self, reason: &'static str) {
        self.stop(&mut self.state.write(), reason, None);
    }

    /// Refuses every further change, and says so, once.
    pub(super) fn stop(&self, state: &mut State, reason: &'static str, error: Option<Error>) {
        if state.fault.is_some() {
            return;
        }
        state.fault = Some(reason);
        let device = self.store.dev.name();
        match error {
            Some(error) => {
                tell(state, error);
                log(format_args!(
                    "({device}): {reason} ({error}), no more changes"
                ));
            }
            None => log(format_args!("({device}): {reason}, no more changes")),
        }
    }

    /// Logs what nobody expects, and stops changes after damage. Damage is met again and again: each
    /// is told once.
    pub(super) fn note(&self, error: Error) {
        let device = self.store.dev.name();
        match error {
            Error::Corrupt { .. } => {
                let mut state = self.state.write();
                if state.fault.is_none() {
                    self.stop(&mut state, "damage found", Some(error));
                } else if tell(&mut state, error) {
                    log(format_args!("({device}): {error}"));
                }
            }
            Error::Io(_) => log(format_args!("({device}): {error}")),
            _ => {}
        }
    }

    /// Whether the log does not have this about an inode yet: for damage that only the caller can see.
    pub fn is_news(&self, id: InodeId, rule: &'static str) -> bool {
        let fault = Error::corrupt(BlockNr(id.st_ino()), rule);
        tell(&mut self.state.write(), fault)
    }

    /// Number of nodes and bitmaps that the running transaction changed.
    pub fn dirty_blocks(&self) -> usize {
        let state = self.state.read();
        state.dirty.len().saturating_add(state.space.dirty_groups())
    }

    /// Number of nodes that memory pressure may take.
    pub fn cached_nodes(&self) -> usize {
        self.store.cached()
    }

    /// Drops up to `want` nodes from the cache and returns how many.
    pub fn shrink_cache(&self, want: usize) -> usize {
        self.store.shrink(want)
    }
}

/// Whether the log does not have this damage yet, and may have more. It is going to.
fn tell(state: &mut State, error: Error) -> bool {
    let Error::Corrupt { block, rule } = error else {
        return true;
    };
    let fault = (block.0, rule);
    if state.told.contains(&fault) || state.told.len() >= MAX_TOLD {
        return false;
    }
    // Without memory it is told again.
    let _ = state.told.insert(fault, ());
    true
}

/// Whether the volume may change.
pub(super) fn check_writable(state: &State) -> Result<()> {
    match state.read_only || state.fault.is_some() {
        true => Err(Error::ReadOnly),
        false => Ok(()),
    }
}
