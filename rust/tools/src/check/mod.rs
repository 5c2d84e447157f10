// SPDX-License-Identifier: GPL-2.0

//! The checker: reads a whole volume, without the engine's transactions, caches and allocator, and
//! names every rule that it finds broken.
//!
//! It shares with the engine what belongs to the format (layout, node rules, checksums) and nothing
//! of what the engine keeps in memory. Order of work:
//!
//! 1. [`supers`]: the super block that a mount would take.
//! 2. [`walk`]: every tree from its root; each block that something points to is counted
//!    ([`owners`]); items are taken apart by [`files`] (subvolume trees) and here (the others).
//! 3. The counts against the refs tree and the bitmaps ([`space`]), names against inodes ([`names`]),
//!    subvolumes against the directories that stand for them ([`homes`]).
//!
//! Memory grows with what the volume holds (names, shared runs, groups in use), not with its size.

mod files;
mod homes;
mod names;
mod owners;
mod rebuild;
mod space;
mod supers;
mod walk;
mod ways;

use crate::engine::device::BlockDevice;
use crate::engine::error::Error;
use crate::engine::format::{
    extent_state, item_kind, tree_kind, ExtentItem, ForestItem, Geometry, RefsItem, RootItem,
    SpaceItem, SuperBlock, GROUP_BLOCKS,
};
use crate::engine::node::Key;
use crate::engine::repair::{Mend, Rebuild};
use crate::engine::types::{
    Ino, InodeId, SubvolId, FIRST_INO, MAX_FILE_BLOCKS, MAX_INO, MAX_SUBVOL,
};
use owners::Owners;
use std::collections::HashMap;
use std::fmt;
use walk::Item;
use zerocopy::FromBytes;

/// Faults that are kept; more are only counted.
const MAX_FAULTS: usize = 10_000;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The rule's name.
    pub rule: &'static str,
    /// The block that shows it, or 0.
    pub block: u64,
    /// What was found.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: block {}: {}", self.rule, self.block, self.what)
    }
}

/// What the checker found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Broken rules, in the order of finding.
    pub faults: Vec<Fault>,
    /// How many more there are.
    pub more_faults: u64,
    /// What is not a fault and may be good to know.
    pub notes: Vec<String>,
    /// Inodes.
    pub inodes: u64,
    /// Directories among them.
    pub directories: u64,
    /// Tree nodes, each counted once.
    pub nodes: u64,
    /// Blocks of the volume.
    pub blocks: u64,
    /// Blocks that nothing points to.
    pub free: u64,
    /// Runs of blocks with more than one owner.
    pub shared_runs: u64,
    /// The generation that was checked.
    pub generation: u64,
    /// Bitmaps, the space tree or the refs tree are not what the owners of the blocks say.
    pub rebuild: bool,
    /// What else can be put right without a guess.
    pub mends: Vec<Mend>,
    /// An inode, or who owns blocks, was not understood: nothing may be put right.
    pub unknown: bool,
}

impl Report {
    /// Whether no rule is broken.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// How many rules are broken.
    pub fn total(&self) -> u64 {
        self.faults.len() as u64 + self.more_faults
    }

    /// Whether something can be put right.
    pub fn can_mend(&self) -> bool {
        !self.unknown && (self.rebuild || !self.mends.is_empty())
    }

    fn mend(&mut self, mend: Mend) {
        if self.mends.len() < MAX_FAULTS {
            self.mends.push(mend);
        }
    }

    fn fault(&mut self, rule: &'static str, block: u64, what: impl fmt::Display) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault {
                rule,
                block,
                what: what.to_string(),
            });
        } else {
            self.more_faults += 1;
        }
    }
}

/// A run in the swap tree.
struct SwapRun {
    id: InodeId,
    at: u64,
    start: u64,
    len: u64,
    node: u64,
}

/// A run in the refs tree.
struct SharedRun {
    start: u64,
    len: u64,
    count: u64,
    node: u64,
}

struct Checker<'a> {
    dev: &'a dyn BlockDevice,
    geometry: Geometry,
    sb: SuperBlock,
    report: Report,
    owners: Owners,
    /// A node could not be read: what is below it is unknown.
    incomplete: bool,
    /// Nodes of the space tree and the refs tree.
    derived: Vec<u64>,
    progress: &'a mut dyn FnMut(u64),
    refs: Vec<SharedRun>,
    swap: Vec<SwapRun>,
    space: HashMap<u64, (SpaceItem, u64)>,
    forest: Vec<(u64, ForestItem)>,
    /// Directories that were made to stand for a subvolume, other than in one that is being dropped.
    stands: HashMap<InodeId, homes::Stand>,
    /// The last snapshot of the subvolume that is being walked.
    last_snapshot: u64,
}

/// Checks the volume on `dev`. An error means that there is none, or that it cannot be read at all.
pub fn check(dev: &dyn BlockDevice) -> Result<Report, Error> {
    examine(dev, &mut |_| {}).map(|(report, _)| report)
}

/// Checks the volume on `dev`, tells `progress` how many nodes were read so far, and returns also
/// what the space tree and the refs tree are to be made from if they are wrong.
pub fn examine(
    dev: &dyn BlockDevice,
    progress: &mut dyn FnMut(u64),
) -> Result<(Report, Option<Rebuild>), Error> {
    let mut report = Report::default();
    let sb = supers::read(dev, &mut report)?;
    let geometry = Geometry::of_volume(sb.blocks.get())
        .ok_or(Error::corrupt(sb_block(&sb), "size in the super block"))?;
    report.blocks = geometry.blocks;
    report.generation = sb.generation.get();
    let mut checker = Checker {
        dev,
        geometry,
        sb,
        report,
        owners: Owners::default(),
        incomplete: false,
        derived: Vec::new(),
        progress,
        refs: Vec::new(),
        swap: Vec::new(),
        space: HashMap::new(),
        forest: Vec::new(),
        stands: HashMap::new(),
        last_snapshot: 0,
    };
    // No mount would take it.
    checker.report.unknown = checker.cut_off();
    checker.trees();
    checker.subvolumes();
    let before = checker.report.total();
    checker.compare_refs();
    checker.compare_space();
    checker.report.rebuild |= checker.report.total() > before;
    checker.swap_is_private();
    let rebuild = match checker.report.rebuild && !checker.report.unknown {
        true => checker.rebuild(),
        false => None,
    };
    checker.report.unknown |= checker.report.rebuild && rebuild.is_none();
    Ok((checker.report, rebuild))
}

fn sb_block(sb: &SuperBlock) -> crate::engine::types::BlockNr {
    crate::engine::types::BlockNr(sb.block.get())
}

impl Checker<'_> {
    /// Whether the super block claims more blocks than the device has. What is beyond its end is
    /// not looked for.
    fn cut_off(&self) -> bool {
        self.geometry.blocks > self.dev.blocks()
    }

    /// Number of groups that the device has a block of.
    fn groups(&self) -> u64 {
        let there = self.dev.blocks().div_ceil(GROUP_BLOCKS);
        self.geometry.groups().min(there)
    }

    /// Whether trees and files may use these blocks.
    fn may_hold(&self, start: u64, len: u64) -> bool {
        self.geometry.may_hold(start, len) && start + len <= self.dev.blocks()
    }

    fn fault(&mut self, rule: &'static str, block: u64, what: impl fmt::Display) {
        self.report.fault(rule, block, what);
    }

    /// Walks the trees that are not of a subvolume.
    fn trees(&mut self) {
        let sb = self.sb;
        let trees: [(u8, RootItem); 4] = [
            (tree_kind::FOREST, sb.forest),
            (tree_kind::SPACE, sb.space),
            (tree_kind::REFS, sb.refs),
            (tree_kind::SWAP, sb.swap),
        ];
        for (tree, root) in trees {
            let before = self.report.total();
            self.walk(
                tree,
                root,
                &mut |checker, item| match (tree, item.key.kind) {
                    (tree_kind::FOREST, item_kind::FOREST) => checker.forest_item(item),
                    (tree_kind::SPACE, item_kind::SPACE) => checker.space_item(item),
                    (tree_kind::REFS, item_kind::REFS) => checker.refs_item(item),
                    (tree_kind::SWAP, item_kind::SWAP) => checker.swap_item(item),
                    _ => checker.unknown_item(item),
                },
            );
            // These two follow from the others.
            let derived = [tree_kind::SPACE, tree_kind::REFS].contains(&tree);
            self.report.rebuild |= derived && self.report.total() > before;
        }
    }

    fn unknown_item(&mut self, item: &Item<'_>) {
        let Key {
            object,
            kind,
            offset,
        } = item.key;
        let what = format!("item ({object}, {kind}, {offset}) does not belong in this tree");
        self.fault("item-kind", item.node, what);
        self.report.unknown = true;
    }

    fn forest_item(&mut self, item: &Item<'_>) {
        let Ok(forest) = ForestItem::read_from_bytes(item.data) else {
            self.report.unknown = true;
            return self.fault("item-size", item.node, "forest item");
        };
        let id = item.key.object;
        if item.key.offset != 0 || id > MAX_SUBVOL.0 || id >= self.sb.next_subvolume.get() {
            let what = format!("subvolume {id} is beyond the next number");
            self.fault("forest-number", item.node, what);
            if item.key.offset == 0 && id < MAX_SUBVOL.0 {
                self.report.mend(Mend::NextSubvolume(id + 1));
            }
        }
        if forest.flags.get() & !3 != 0 {
            self.fault(
                "forest-flags",
                item.node,
                format!("subvolume {id}: unknown flags"),
            );
        }
        if forest.next_ino.get() < FIRST_INO.0 {
            let what = format!("subvolume {id}: next inode is one of the reserved");
            self.fault("forest-inode", item.node, what);
            // No mount would take it, nor a repair.
            self.report.unknown = true;
        }
        if forest.last_snapshot.get() > self.sb.generation.get() {
            let what = format!("subvolume {id}: last snapshot is in the future");
            self.fault("forest-generation", item.node, what);
        }
        self.forest.push((id, forest));
    }

    fn space_item(&mut self, item: &Item<'_>) {
        let Ok(space) = SpaceItem::read_from_bytes(item.data) else {
            return self.fault("item-size", item.node, "space item");
        };
        let group = item.key.object;
        if item.key.offset != 0 || group >= self.groups() || space.place > 1 {
            let what = format!("group {group} of {}", self.groups());
            return self.fault("space-group", item.node, what);
        }
        self.space.insert(group, (space, item.node));
    }

    fn refs_item(&mut self, item: &Item<'_>) {
        let Ok(refs) = RefsItem::read_from_bytes(item.data) else {
            return self.fault("item-size", item.node, "refs item");
        };
        let (start, len, count) = (item.key.object, refs.len.get(), u64::from(refs.count.get()));
        if item.key.offset != 0 || !self.may_hold(start, len) {
            let what = format!("blocks {start}+{len} cannot have owners");
            return self.fault("refs-run", item.node, what);
        }
        if count < 2 {
            let what = format!("blocks {start}+{len} with {count} owners have no place here");
            return self.fault("refs-count", item.node, what);
        }
        if let Some(last) = self.refs.last() {
            if last.start + last.len > start {
                let what = format!("blocks {start}+{len} overlap {}+{}", last.start, last.len);
                return self.fault("refs-overlap", item.node, what);
            }
        }
        self.refs.push(SharedRun {
            start,
            len,
            count,
            node: item.node,
        });
    }

    fn swap_item(&mut self, item: &Item<'_>) {
        let id = InodeId::from_st_ino(item.key.object);
        let at = item.key.offset;
        let Some(extent) = self.extent(item, &id) else {
            return;
        };
        if extent.state == extent_state::UNBACKED {
            let what = format!("{id}: file block {at} without blocks");
            self.report.unknown = true;
            return self.fault("swap-state", item.node, what);
        }
        let (start, len) = (extent.at.get(), extent.len.get());
        let overlap = self
            .swap
            .last()
            .is_some_and(|last| last.id == id && last.at + last.len > at);
        if overlap {
            let what = format!("{id}: file block {at} overlaps the run before");
            self.fault("swap-overlap", item.node, what);
        }
        self.swap.push(SwapRun {
            id,
            at,
            start,
            len,
            node: item.node,
        });
    }

    /// The runs of the swap tree from inode `first` to inode `last`.
    fn swap_runs(&self, first: InodeId, last: InodeId) -> &[SwapRun] {
        // Ascending, as the tree has them.
        let from = self.swap.partition_point(|run| run.id < first);
        let rest = self.swap.get(from..).unwrap_or(&[]);
        rest.get(..rest.partition_point(|run| run.id <= last))
            .unwrap_or(&[])
    }

    /// Those of the files of a subvolume.
    fn swap_of(&self, subvol: SubvolId) -> &[SwapRun] {
        let inode = |ino| InodeId { subvol, ino };
        self.swap_runs(inode(Ino(0)), inode(MAX_INO))
    }

    /// Checks an extent item by itself and counts its blocks.
    fn extent(&mut self, item: &Item<'_>, id: &InodeId) -> Option<ExtentItem> {
        let extent = self.whole_extent(item, id);
        // What it is about has an owner that is not known.
        self.report.unknown |= extent.is_none();
        extent
    }

    fn whole_extent(&mut self, item: &Item<'_>, id: &InodeId) -> Option<ExtentItem> {
        let Ok(extent) = ExtentItem::read_from_bytes(item.data) else {
            self.fault("item-size", item.node, format!("{id}: extent item"));
            return None;
        };
        let (start, len) = (extent.at.get(), extent.len.get());
        let at = item.key.offset;
        let has_place = self.may_hold(start, len);
        let mut bad = |rule, what: &str| {
            let what = format!("{id}: file block {at}, blocks {start}+{len}: {what}");
            self.report.fault(rule, item.node, what);
        };
        let end = at
            .checked_add(len)
            .filter(|&end| len > 0 && end <= MAX_FILE_BLOCKS);
        if end.is_none() {
            bad("extent-length", "length");
            return None;
        }
        if extent.flags != 0 {
            bad("extent-flags", "unknown flags");
        }
        if extent.generation.get() > self.sb.generation.get() {
            bad("extent-generation", "generation is in the future");
        }
        match extent.state {
            extent_state::UNBACKED if start == 0 => {}
            extent_state::UNBACKED => bad("extent-state", "promise with an address"),
            extent_state::WRITTEN | extent_state::PREALLOC => {
                if !has_place {
                    bad("extent-run", "not blocks that a file can have");
                    return None;
                }
                if item.counted {
                    self.owners.add(start, len);
                    if self.owners.has_node(start, len) {
                        self.node_and_data(item.node, start);
                    }
                }
            }
            _ => {
                bad("extent-state", "unknown state");
                return None;
            }
        }
        Some(extent)
    }

    fn subvolumes(&mut self) {
        let forest = std::mem::take(&mut self.forest);
        let default = self.sb.default_subvolume.get();
        let alive = |(id, item): &(u64, ForestItem)| *id == default && item.flags.get() & 2 == 0;
        if !self.incomplete && !forest.iter().any(alive) {
            self.fault("forest-default", 0, format!("no subvolume {default}"));
        }
        for (id, item) in &forest {
            self.subvolume(*id, item);
        }
        if self.incomplete {
            return;
        }
        self.homes(&forest);
        let lost: Vec<_> = self
            .swap
            .iter()
            .filter(|run| {
                let subvol = run.id.subvol.0;
                forest.binary_search_by_key(&subvol, |(id, _)| *id).is_err()
            })
            .map(|run| (run.node, run.id))
            .collect();
        for (node, id) in lost {
            self.fault("swap-owner", node, format!("{id}: no such subvolume"));
            self.report.mend(Mend::SwapGone(id));
        }
    }
}
