// SPDX-License-Identifier: GPL-2.0

//! Walking a tree: every node is read from the device, checked by itself and against its parent.

use super::Checker;
use crate::engine::error::Error;
use crate::engine::format::{tree_kind, RootItem, MAX_LEVELS};
use crate::engine::node::{self, Identity, Key, Ptr};
use crate::engine::types::{BlockNr, Generation};
use crate::platform::Block;

/// An item of a tree.
pub struct Item<'a> {
    /// The leaf's block.
    pub node: u64,
    /// Its key.
    pub key: Key,
    /// Its value.
    pub data: &'a [u8],
    /// Whether this walk is the first to reach the leaf: what a shared node points to counts once.
    pub counted: bool,
    /// Whether the leaf or a node on the way to it has more than one owner.
    pub shared: bool,
}

/// What is known of a node before it is read.
#[derive(Clone, Copy)]
struct Expected {
    ptr: Ptr,
    level: u8,
    lower: Key,
    upper: Option<Key>,
    is_root: bool,
    counted: bool,
    shared: bool,
}

type Visit<'v, 'a> = &'v mut dyn FnMut(&mut Checker<'a>, &Item<'_>);

fn key_of(block: &Block, i: usize) -> Option<Key> {
    match node::level(block) {
        0 => node::leaf_key(block, i),
        _ => node::child(block, i).map(|(key, _)| key),
    }
}

/// Whether a tree follows from what the others say.
fn is_derived(tree: u8) -> bool {
    [tree_kind::SPACE, tree_kind::REFS].contains(&tree)
}

impl<'a> Checker<'a> {
    /// Shows all items of the tree at `root` in ascending order. Says whether all could be read.
    pub fn walk(&mut self, tree: u8, root: RootItem, visit: Visit<'_, 'a>) -> bool {
        let ptr = Ptr {
            block: BlockNr(root.block.get()),
            generation: Generation(root.generation.get()),
        };
        if usize::from(root.level) >= MAX_LEVELS {
            self.incomplete = true;
            self.report.unknown |= !is_derived(tree);
            self.fault("tree-height", ptr.block.0, format!("{} levels", root.level));
            return false;
        }
        let expected = Expected {
            ptr,
            level: root.level,
            lower: Key::MIN,
            upper: None,
            is_root: true,
            counted: true,
            shared: false,
        };
        let complete = self.walk_node(tree, expected, visit);
        self.incomplete |= !complete;
        self.report.unknown |= !complete && !is_derived(tree);
        complete
    }

    fn walk_node(&mut self, tree: u8, mut expected: Expected, visit: Visit<'_, 'a>) -> bool {
        let at = expected.ptr.block.0;
        if !self.may_hold(at, 1) {
            self.fault("node-place", at, "pointer to a place for no node");
            return false;
        }
        if expected.counted {
            expected.counted = self.owners.add_node(at).unwrap_or_else(|| {
                self.node_and_data(at, at);
                // What is below it was not counted yet.
                true
            });
            self.report.nodes += u64::from(expected.counted);
            if is_derived(tree) {
                self.derived.push(at);
            }
            if self.report.nodes % 1024 == 0 {
                (self.progress)(self.report.nodes);
            }
        }
        if tree == tree_kind::SUBVOLUME {
            expected.shared |= self.said_shared(at, 1);
            self.not_after_snapshot(
                "node-snapshot",
                at,
                expected.ptr.generation.0,
                expected.shared,
            );
        }
        let Some(block) = self.read_node(tree, &expected) else {
            return false;
        };
        let mut complete = true;
        for i in 0..node::count(&block) {
            if expected.level == 0 {
                let Some(key) = node::leaf_key(&block, i) else {
                    break;
                };
                let data = node::leaf_data(&block, i);
                visit(
                    self,
                    &Item {
                        node: at,
                        key,
                        data,
                        counted: expected.counted,
                        shared: expected.shared,
                    },
                );
            } else {
                let Some((lower, ptr)) = node::child(&block, i) else {
                    break;
                };
                let upper = node::child(&block, i + 1).map_or(expected.upper, |(key, _)| Some(key));
                let level = expected.level - 1;
                let child = Expected {
                    ptr,
                    level,
                    lower,
                    upper,
                    is_root: false,
                    ..expected
                };
                complete &= self.walk_node(tree, child, visit);
            }
        }
        complete
    }

    /// A block in `[start, ...)` is a node, and something points to it as data: which of the two it
    /// was is not known.
    pub fn node_and_data(&mut self, node: u64, start: u64) {
        self.report.unknown = true;
        self.fault(
            "node-data",
            node,
            format!("block {start} is a node and data"),
        );
    }

    /// What other trees share was there when the subvolume's last snapshot was taken: that newer
    /// things belong to it alone is what writing in place relies on.
    pub fn not_after_snapshot(
        &mut self,
        rule: &'static str,
        at: u64,
        generation: u64,
        shared: bool,
    ) {
        if shared && generation > self.last_snapshot {
            let last = self.last_snapshot;
            let what = format!("shared, of generation {generation}, last snapshot {last}");
            self.fault(rule, at, what);
        }
    }

    fn read_node(&mut self, tree: u8, expected: &Expected) -> Option<Box<Block>> {
        let at = expected.ptr.block;
        let mut block = Box::new([0; 4096]);
        if let Err(error) = self.dev.read(at, &mut block) {
            self.fault("node-unreadable", at.0, error);
            return None;
        }
        let uuid = &self.sb.metadata_uuid;
        let id = Identity {
            uuid,
            ptr: expected.ptr,
            tree,
            level: expected.level,
        };
        if let Err(error) = node::check(&block, id) {
            let rule = match error {
                Error::Corrupt { rule, .. } => rule,
                _ => "node",
            };
            self.fault("node-damaged", at.0, rule);
            return None;
        }
        if expected.ptr.generation.0 > self.sb.generation.get() {
            self.fault("node-generation", at.0, "written in the future");
            self.report.unknown |= !is_derived(tree);
        }
        let n = node::count(&block);
        let in_bounds = match (key_of(&block, 0), key_of(&block, n.wrapping_sub(1))) {
            (Some(first), Some(last)) => {
                first >= expected.lower && expected.upper.is_none_or(|upper| last < upper)
            }
            _ => expected.is_root && expected.level == 0,
        };
        if !in_bounds {
            self.fault(
                "node-bounds",
                at.0,
                "keys beyond the parent's bounds, or no key",
            );
            return None;
        }
        Some(block)
    }
}
