// SPDX-License-Identifier: GPL-2.0

//! Bringing what has no place in a smaller volume elsewhere, with all its owners.
//!
//! There is no map from blocks to their owners, so a step reads all trees. It takes a window, some
//! of the leaving blocks from the last one in use down, and
//!
//! 1. *surveys* who points into it: runs of data, and which nodes will have to be written anew:
//!    those in the window, those that point into it, and those above these;
//! 2. takes new blocks for the data and copies it;
//! 3. writes the nodes anew, children first, in one change of the trees, and commits.
//!
//! What is shared stays shared: a node is written anew once, however many trees it belongs to, and
//! the new one takes over its owners; so does the new place of data. That is why one step has to do
//! all owners of a block, and why a window is made smaller until its nodes fit into memory.
//!
//! All writers are stopped, and nothing is dirty, so that nothing changes between the three. Readers
//! are not stopped: what they looked up before holds the same until the fence is taken away.

use super::device::{BlockDevice, Write};
use super::error::{Error, Result};
use super::extent::{self, Extent, ExtentState};
use super::format::{item_kind, Geometry, MAX_LEVELS};
use super::node::{self, Key, Ptr};
use super::ranges::RangeSet;
use super::space::Leaving;
use super::store::Clean;
use super::subvolume::TOP;
use super::tree::{Bounds, NodeRef, Root, TreeId, View};
use super::tree_write::Txn;
use super::types::{BlockNr, Run, SubvolId};
use super::volume::{check_writable, Cost, Volume, FOREST_ITEMS};
use crate::platform::{zeroed_block, Block, Box, Map, Vec, VecExt};
use zerocopy::IntoBytes;

/// Blocks that one step moves, about: 256 MiB.
const MOST_BLOCKS: u64 = 65536;
/// Nodes that one step writes, about: 32 MiB.
const MOST_NODES: u64 = 8192;
/// Blocks that are copied at a time.
const BATCH: usize = 64;
/// The trees that are not a subvolume's.
const OWN_TREES: [TreeId; 4] = [TreeId::Forest, TreeId::Space, TreeId::Refs, TreeId::Swap];

/// Who points into the window. The state lock is taken for one node at a time: who waits for it goes
/// before the next one is read.
struct Survey<'a, D> {
    volume: &'a Volume<D>,
    window: Leaving,
    /// Nodes that there may be to write, at most.
    most: u64,
    /// Whether who asked for it is not being killed.
    goes_on: &'a dyn Fn() -> bool,
    /// Blocks of files.
    data: RangeSet,
    /// Those with content.
    written: RangeSet,
    /// Blocks that extents name, each as often as it is named.
    named: u64,
    /// Nodes that are to be written anew.
    nodes: RangeSet,
    /// Shared nodes that stay as they are.
    staying: RangeSet,
    /// How many of the above have more than one owner.
    shared: u64,
    /// Parts of extents that move while others stay: each makes two more items at most.
    cut: u64,
    /// The trees with such nodes, but for the next.
    trees: Vec<TreeId>,
    /// Keys that lead through nodes in the window, of trees that change as others do.
    ways: Vec<(TreeId, Key)>,
    /// `State::changes`.
    changes: u64,
}

impl<'a, D: BlockDevice> Survey<'a, D> {
    fn new(
        volume: &'a Volume<D>,
        window: Leaving,
        most: u64,
        goes_on: &'a dyn Fn() -> bool,
    ) -> Self {
        Self {
            volume,
            window,
            most,
            goes_on,
            data: RangeSet::new(),
            written: RangeSet::new(),
            named: 0,
            nodes: RangeSet::new(),
            staying: RangeSet::new(),
            shared: 0,
            cut: 0,
            trees: Vec::new(),
            ways: Vec::new(),
            changes: volume.state.read().changes,
        }
    }

    /// Looks at all trees; `false` if there are more nodes to write than there may be.
    fn all(&mut self) -> Result<bool> {
        let volume = self.volume;
        for tree in OWN_TREES {
            let root = volume.query(|view| view.state.root(tree))?;
            self.tree(tree, root)?;
        }
        let mut from = TOP;
        while let Some((id, item)) = volume.query(|view| view.next_forest_item(from))? {
            self.tree(TreeId::Subvol(id), item.root.into())?;
            from = SubvolId(id.0.saturating_add(1));
        }
        if self.is_too_large() {
            return Ok(false);
        }
        match self.data.is_empty() && self.trees.is_empty() && self.ways.is_empty() {
            true => Err(Error::corrupt(BlockNr(0), "block in use without an owner")),
            false => Ok(true),
        }
    }

    fn is_too_large(&self) -> bool {
        self.nodes.total() > self.most
    }

    fn leaves(&self, block: BlockNr) -> bool {
        self.window.first(Run::new(block, 1)).is_some()
    }

    /// Looks at a tree.
    fn tree(&mut self, tree: TreeId, root: Root) -> Result<()> {
        if usize::from(root.level) >= MAX_LEVELS {
            return Err(Error::corrupt(root.ptr.block, "tree too high"));
        }
        if self.node(tree, root.ptr, root.level, None)? {
            self.trees.try_push(tree)?;
        }
        Ok(())
    }

    /// Reads a node. Nothing is dirty.
    fn read(&self, tree: TreeId, ptr: Ptr, level: u8, bounds: Option<Bounds>) -> Result<Clean> {
        self.volume.query(|view| {
            let node = match bounds {
                Some(bounds) => view.child(tree, ptr, level, bounds)?,
                None => view.node(tree, ptr, level)?,
            };
            match node {
                NodeRef::Clean(node) => Ok(node),
                NodeRef::Dirty(_) => Err(Error::Busy),
            }
        })
    }

    /// Looks at a node and what is below it; whether it is to be written anew.
    fn node(&mut self, tree: TreeId, ptr: Ptr, level: u8, bounds: Option<Bounds>) -> Result<bool> {
        if self.nodes.overlaps(ptr.block.0, 1) || self.is_too_large() {
            return Ok(true);
        }
        if self.staying.overlaps(ptr.block.0, 1) {
            return Ok(false);
        }
        if !(self.goes_on)() {
            return Err(Error::Interrupted);
        }
        let node = self.read(tree, ptr, level, bounds)?;
        let leaves = self.leaves(ptr.block);
        if matches!(tree, TreeId::Forest | TreeId::Space | TreeId::Refs) {
            return self.plain_node((tree, leaves), &node, bounds);
        }
        let mut changes = leaves;
        for i in 0..node::count(&node) {
            changes |= match node::child(&node, i).filter(|_| level > 0) {
                Some((_, child)) => {
                    let bounds = bounds.unwrap_or(Bounds::ALL).of_child(&node, i);
                    self.node(tree, child, level - 1, Some(bounds))?
                }
                None => self.item(&node, i)?,
            };
        }
        let shared = matches!(tree, TreeId::Subvol(_))
            && self
                .volume
                .query(|view| view.owners(Run::new(ptr.block, 1)))?
                .0
                > 1;
        match (changes, shared) {
            (true, _) => self.nodes.insert(ptr.block.0, 1)?,
            (false, true) => self.staying.insert(ptr.block.0, 1)?,
            (false, false) => 0,
        };
        self.shared = self.shared.saturating_add(u64::from(changes && shared));
        Ok(changes)
    }

    /// The same in a tree whose nodes have one owner, and no blocks in their items.
    fn plain_node(
        &mut self,
        (tree, leaves): (TreeId, bool),
        node: &Block,
        bounds: Option<Bounds>,
    ) -> Result<bool> {
        let level = node::level(node);
        if leaves {
            let key = match level {
                0 => node::leaf_key(node, 0),
                _ => node::child(node, 0).map(|(key, _)| key),
            };
            self.ways.try_push((tree, key.unwrap_or(Key::MIN)))?;
        }
        for i in 0..node::count(node) {
            let Some((_, child)) = node::child(node, i).filter(|_| level > 0) else {
                break;
            };
            let bounds = bounds.unwrap_or(Bounds::ALL).of_child(node, i);
            self.node(tree, child, level - 1, Some(bounds))?;
        }
        // Copying the way to it does what there is to do.
        Ok(false)
    }

    /// Looks at an item; whether it points into the window.
    fn item(&mut self, leaf: &Block, i: usize) -> Result<bool> {
        let Some(extent) = extent_at(self.volume.store.geometry(), leaf, i)? else {
            return Ok(false);
        };
        let Some(run) = extent.run() else {
            return Ok(false);
        };
        let mut at = run.start.0;
        let (mut moving, mut parts) = (0u64, 0u64);
        while let Some(part) = self
            .window
            .first(Run::new(BlockNr(at), run.end().saturating_sub(at)))
        {
            self.data.insert(part.start.0, part.len)?;
            if extent.state == ExtentState::Written {
                self.written.insert(part.start.0, part.len)?;
            }
            moving = moving.saturating_add(part.len);
            parts = parts.saturating_add(1);
            at = part.end();
        }
        self.named = self.named.saturating_add(moving);
        if moving < run.len {
            self.cut = self.cut.saturating_add(parts);
        }
        Ok(moving != 0)
    }

    /// How many nodes there are to write, if the data goes to so many runs.
    fn cost(&self, view: View<'_, D>, pieces: u64) -> Result<Cost> {
        let (mut at, mut runs, mut shared) = (0, 0u64, self.shared);
        while let Some((start, len)) = self.data.first(at, u64::MAX) {
            runs += 1;
            let run = Run::new(BlockNr(start), len);
            shared = shared.saturating_add(view.shared_pieces(run, len as usize)? as u64);
            at = start.saturating_add(len);
        }
        let nodes = self.nodes.total();
        let trees = self.trees.len() as u64;
        // More items, where a run is in more pieces than before or is cut off from what stays. Leaves may
        // be full: each new item can split one; and a root that is split gets another above it.
        let split = if pieces > runs { self.named } else { 0 };
        let items = self.cut.saturating_mul(2).saturating_add(split);
        let more = match items {
            0 => 0,
            _ => nodes
                .min(items)
                .saturating_add(items / 64)
                .saturating_add(trees),
        };
        let forest = trees / FOREST_ITEMS + 1;
        let ways = (self.ways.len() as u64).saturating_mul(MAX_LEVELS as u64);
        Ok(view.state.cost_to_move(
            view.store.geometry(),
            nodes
                .saturating_add(more)
                .saturating_add(ways)
                .saturating_add(forest),
            shared.saturating_mul(2),
        ))
    }
}

/// The extent in slot `i` of a leaf, if that is one.
fn extent_at(geometry: Geometry, leaf: &Block, i: usize) -> Result<Option<Extent>> {
    match node::leaf_key(leaf, i) {
        Some(key) if matches!(key.kind, item_kind::EXTENT | item_kind::SWAP) => {
            extent::decode(geometry, &key, node::leaf_data(leaf, i)).map(Some)
        }
        _ => Ok(None),
    }
}

/// The last `len` blocks of a run, or all.
fn last_of(run: Run, len: u64) -> Run {
    let len = len.min(run.len);
    Run::new(BlockNr(run.end() - len), len)
}

/// Where data goes: old block to length and new block.
#[derive(Default)]
struct Moves(Map<u64, Run>);

impl Moves {
    /// Where the first blocks of `run` are to be found, and whether that is a new place.
    fn first(&self, run: Run) -> (Run, bool) {
        if let Some((start, to)) = self.0.at_or_before(&run.start.0) {
            let skip = run.start.0.saturating_sub(start);
            if skip < to.len {
                let at = BlockNr(to.start.0 + skip);
                return (Run::new(at, run.len.min(to.len - skip)), true);
            }
        }
        let next = self
            .0
            .at_or_after(&run.start.0)
            .map_or(u64::MAX, |(start, _)| start);
        let len = next.saturating_sub(run.start.0).min(run.len);
        (Run::new(run.start, len), false)
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Moves some of what is in the way of a resize that was begun. All writers are stopped, and
    /// nothing is dirty. It is durable when this returns: whether there is more.
    ///
    /// `NoSpace` if there is no room for it, `Busy` if an active swapfile is in the way, `Interrupted`
    /// as soon as it is not to go on.
    pub fn move_step(&self, goes_on: &dyn Fn() -> bool) -> Result<bool> {
        self.commit()?;
        let Some(leaving) = self.state.read().space.leaving() else {
            return Ok(false);
        };
        self.check_swap_leaving(leaving)?;
        let window = {
            let mut state = self.state.write();
            check_writable(&state)?;
            let (_, window) = state.space.last_leaving(&self.store, MOST_BLOCKS)?;
            window.map(|run| last_of(run, state.space.window()))
        };
        let Some(mut window) = window else {
            return Ok(false);
        };
        while !self.move_window(leaving.within(window), window.len == 1, goes_on)? {
            window = last_of(window, window.len.div_ceil(4));
        }
        let mut state = self.state.write();
        // All trees were read for each try: the next step begins with about what fitted.
        state.space.set_window(window.len.saturating_mul(2));
        Ok(state.space.last_leaving(&self.store, 1)?.1.is_some())
    }

    /// Moves what is in a window; `false` if that is too much at a time, unless it is the `last` try.
    fn move_window(&self, window: Leaving, last: bool, goes_on: &dyn Fn() -> bool) -> Result<bool> {
        let most = if last { u64::MAX } else { MOST_NODES };
        let mut survey = Survey::new(self, window, most, goes_on);
        let fits = survey.all().inspect_err(|error| self.note(*error))?;
        if !fits {
            return Ok(false);
        }
        match self.relocate(&survey) {
            // What a smaller window needs may be there.
            Err(Error::NoSpace) if !last => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }

    /// Moves what a survey found.
    fn relocate(&self, survey: &Survey<'_, D>) -> Result<()> {
        let moves = self.take_places(survey)?;
        let mut done = false;
        let result = self.copy(survey, &moves).and_then(|()| {
            let cost = self.query(|view| survey.cost(view, moves.0.len() as u64))?;
            self.update(cost, |txn| {
                if txn.state.changes != survey.changes {
                    return Err(Error::Busy);
                }
                done = true;
                txn.relocate(survey, &moves)
            })
        });
        if !done {
            for (_, to) in moves.0.iter() {
                self.unstage(*to);
            }
        }
        result?;
        self.commit()
    }

    /// Takes blocks for the data.
    fn take_places(&self, survey: &Survey<'_, D>) -> Result<Moves> {
        let mut state = self.state.write();
        if !state.has_room_to_move(self.store.geometry(), survey.data.total()) {
            return Err(Error::NoSpace);
        }
        let (mut moves, mut at) = (Moves::default(), 0);
        while let Some((start, len)) = survey.data.first(at, u64::MAX) {
            let taken = state.space.stage(&self.store, None, len).and_then(|to| {
                let kept = moves.0.insert(start, to);
                kept.inspect_err(|_| state.space.unstage(to))?;
                Ok(to.len)
            });
            match taken {
                Ok(len) => at = start + len,
                Err(error) => {
                    for (_, to) in moves.0.iter() {
                        state.space.unstage(*to);
                    }
                    return Err(error);
                }
            }
        }
        Ok(moves)
    }

    /// Copies the content of what has some.
    fn copy(&self, survey: &Survey<'_, D>, moves: &Moves) -> Result<()> {
        let mut blocks: Vec<(BlockNr, Box<Block>)> = Vec::with_room(BATCH)?;
        let mut at = 0;
        while let Some((start, len)) = survey.written.first(at, u64::MAX) {
            let (to, _) = moves.first(Run::new(BlockNr(start), len));
            for i in 0..to.len {
                let mut data = zeroed_block()?;
                self.store.dev.read(BlockNr(start + i), &mut data)?;
                blocks.try_push((BlockNr(to.start.0 + i), data))?;
                if blocks.len() == BATCH {
                    self.write_copies(&mut blocks)?;
                }
            }
            at = start.saturating_add(to.len);
        }
        self.write_copies(&mut blocks)
    }

    fn write_copies(&self, blocks: &mut Vec<(BlockNr, Box<Block>)>) -> Result<()> {
        let mut writes = Vec::with_room(blocks.len())?;
        for (block, data) in blocks.iter() {
            writes.try_push(Write {
                block: *block,
                data,
            })?;
        }
        self.store.dev.write(&writes)?;
        drop(writes);
        blocks.clear();
        Ok(())
    }
}

/// Nodes that are written anew.
struct Rewrite<'a, D> {
    survey: &'a Survey<'a, D>,
    moves: &'a Moves,
    tree: TreeId,
    /// What became of shared nodes.
    done: Map<u64, Nodes>,
    /// Whether there was one in this tree.
    shared: bool,
}

/// Nodes of one level next to each other, with the first key of each but the first, which keeps
/// the slot that its forerunner had.
type Nodes = Vec<(Key, Ptr)>;

impl<D: BlockDevice> Txn<'_, D> {
    fn relocate(&mut self, survey: &Survey<'_, D>, moves: &Moves) -> Result<()> {
        self.state.changes += 1;
        for (_, to) in moves.0.iter() {
            self.state.space.map(*to)?;
        }
        let mut rewrite = Rewrite {
            survey,
            moves,
            tree: TreeId::Swap,
            done: Map::new(),
            shared: false,
        };
        for &tree in survey.trees.iter() {
            if let TreeId::Subvol(id) = tree {
                self.open(id)?;
            }
            rewrite.tree = tree;
            rewrite.shared = false;
            self.rewrite_tree(&mut rewrite)?;
            if let (TreeId::Subvol(id), true) = (tree, rewrite.shared) {
                // What has other owners is never newer than that.
                let generation = self.state.generation;
                self.subvol_mut(id)?.last_snapshot = generation;
            }
        }
        for (from, to) in moves.0.iter() {
            let from = Run::new(BlockNr(*from), to.len);
            self.move_owners(from, to.start)?;
            self.state.space.unmap(self.store, from)?;
        }
        for (tree, key) in survey.ways.iter() {
            self.own_way(*tree, key)?;
        }
        Ok(())
    }

    fn rewrite_tree(&mut self, rewrite: &mut Rewrite<'_, D>) -> Result<()> {
        let tree = rewrite.tree;
        let root = self.state.root(tree)?;
        let mut nodes = self.rewrite(rewrite, root.ptr, root.level)?;
        let mut level = root.level;
        while nodes.len() > 1 {
            level += 1;
            if usize::from(level) >= MAX_LEVELS {
                return Err(Error::corrupt(root.ptr.block, "tree too high"));
            }
            let mut above = Nodes::new();
            for (i, (key, ptr)) in nodes.iter().enumerate() {
                let key = if i == 0 { Key::MIN } else { *key };
                self.append_child(tree, level, &mut above, key, *ptr)?;
            }
            nodes = above;
        }
        let Some((_, ptr)) = nodes.first().copied() else {
            return Err(Error::corrupt(root.ptr.block, "tree without a node"));
        };
        self.set_root(tree, Root { ptr, level })
    }

    /// Writes a node anew, and what is below it; as more than one if there is more to say.
    fn rewrite(&mut self, rewrite: &mut Rewrite<'_, D>, ptr: Ptr, level: u8) -> Result<Nodes> {
        let tree = rewrite.tree;
        let mut nodes = Nodes::new();
        if let Some(done) = rewrite.done.get(&ptr.block.0) {
            rewrite.shared = true;
            nodes.try_extend(done)?;
            return Ok(nodes);
        }
        let mut old = zeroed_block()?;
        old.copy_from_slice(&self.view().node(tree, ptr, level)?[..]);
        if node::count(&old) == 0 {
            self.room(tree, level, &mut nodes, Key::MIN, 0)?;
        }
        for i in 0..node::count(&old) {
            match level {
                0 => self.rewrite_item(rewrite, &old, i, &mut nodes)?,
                _ => self.rewrite_child(rewrite, (&old, level), i, &mut nodes)?,
            }
        }
        let owners = match tree {
            TreeId::Subvol(_) => self.view().owners(Run::new(ptr.block, 1))?.0,
            _ => 1,
        };
        if owners > 1 {
            self.forget_owners(ptr.block)?;
            for (_, new) in nodes.iter() {
                self.put_owners(new.block, owners)?;
            }
            let mut done = Nodes::new();
            done.try_extend(&nodes)?;
            rewrite.done.insert(ptr.block.0, done)?;
            rewrite.shared = true;
        }
        self.free_node(ptr)?;
        Ok(nodes)
    }

    fn rewrite_child(
        &mut self,
        rewrite: &mut Rewrite<'_, D>,
        (old, level): (&Block, u8),
        i: usize,
        nodes: &mut Nodes,
    ) -> Result<()> {
        let tree = rewrite.tree;
        let Some((key, child)) = node::child(old, i) else {
            return Ok(());
        };
        if !rewrite.survey.nodes.overlaps(child.block.0, 1) {
            return self.append_child(tree, level, nodes, key, child);
        }
        let new = self.rewrite(rewrite, child, level.saturating_sub(1))?;
        for (i, (own, ptr)) in new.iter().enumerate() {
            let key = if i == 0 { key } else { *own };
            self.append_child(tree, level, nodes, key, *ptr)?;
        }
        Ok(())
    }

    fn rewrite_item(
        &mut self,
        rewrite: &Rewrite<'_, D>,
        old: &Block,
        i: usize,
        nodes: &mut Nodes,
    ) -> Result<()> {
        let tree = rewrite.tree;
        let Some(key) = node::leaf_key(old, i) else {
            return Ok(());
        };
        let extent = extent_at(self.store.geometry(), old, i)?;
        let Some((extent, run)) = extent.and_then(|extent| Some((extent, extent.run()?))) else {
            return self.append_item(tree, nodes, key, node::leaf_data(old, i));
        };
        let (mut at, mut pending): (u64, Option<Extent>) = (0, None);
        while at < run.len {
            let rest = Run::new(BlockNr(run.start.0 + at), run.len - at);
            let (place, _) = rewrite.moves.first(rest);
            let part = Extent {
                start: extent.start + at,
                len: place.len,
                at: place.start,
                ..extent
            };
            at += place.len;
            pending = match pending {
                Some(before) if before.continues(&part) => Some(Extent {
                    len: before.len + part.len,
                    ..before
                }),
                Some(before) => {
                    self.append_extent(tree, nodes, key, &before)?;
                    Some(part)
                }
                None => Some(part),
            };
        }
        match pending {
            Some(last) => self.append_extent(tree, nodes, key, &last),
            None => Ok(()),
        }
    }

    fn append_extent(
        &mut self,
        tree: TreeId,
        nodes: &mut Nodes,
        key: Key,
        extent: &Extent,
    ) -> Result<()> {
        let key = Key::new(key.object, key.kind, extent.start);
        self.append_item(tree, nodes, key, extent.item().as_bytes())
    }

    /// Puts an item behind all others.
    fn append_item(
        &mut self,
        tree: TreeId,
        nodes: &mut Nodes,
        key: Key,
        data: &[u8],
    ) -> Result<()> {
        let block = self.room(tree, 0, nodes, key, data.len())?;
        let leaf = self.dirty_mut(block)?;
        node::leaf_insert(leaf, node::count(leaf), key, data);
        Ok(())
    }

    /// Puts a child behind all others.
    fn append_child(
        &mut self,
        tree: TreeId,
        level: u8,
        nodes: &mut Nodes,
        key: Key,
        ptr: Ptr,
    ) -> Result<()> {
        let block = self.room(tree, level, nodes, key, 0)?;
        let inner = self.dirty_mut(block)?;
        node::inner_insert(inner, node::count(inner), key, ptr);
        Ok(())
    }

    /// The node that what comes next goes to: the last one, or another after it.
    fn room(
        &mut self,
        tree: TreeId,
        level: u8,
        nodes: &mut Nodes,
        key: Key,
        len: usize,
    ) -> Result<BlockNr> {
        if let Some((_, last)) = nodes.last() {
            let node = self.dirty(last.block)?;
            let fits = match level {
                0 => node::leaf_fits(node, len),
                _ => node::inner_fits(node),
            };
            if fits {
                return Ok(last.block);
            }
        }
        let ptr = self.new_node(tree, level)?;
        nodes.try_push((key, ptr))?;
        Ok(ptr.block)
    }
}
