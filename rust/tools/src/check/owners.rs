// SPDX-License-Identifier: GPL-2.0

//! How many owners each block has: a bitmap for each group in use tells "at least one", a list of
//! runs the further ones. Compared with the refs tree. Another bitmap tells nodes from data: no block is
//! both.

use super::{Checker, SharedRun};
use crate::engine::bitmap;
use crate::engine::format::GROUP_BLOCKS;
use crate::platform::Block;
use std::collections::HashMap;

/// Owners counted so far.
#[derive(Default)]
pub struct Owners {
    seen: HashMap<u64, Box<Block>>,
    nodes: HashMap<u64, Box<Block>>,
    /// Runs with one more owner each, in the order of finding.
    again: Vec<(u64, u64)>,
}

impl Owners {
    /// Gives `[start, start + len)`, which is in one group, one more owner. Whether it is the first
    /// for each of the blocks.
    pub fn add(&mut self, start: u64, len: u64) -> bool {
        let group = start / GROUP_BLOCKS;
        let bits = self
            .seen
            .entry(group)
            .or_insert_with(|| Box::new([0; 4096]));
        let first = group * GROUP_BLOCKS;
        let (from, end) = ((start - first) as usize, (start - first + len) as usize);
        let mut at = from;
        let mut all_new = true;
        while at < end {
            let seen = bitmap::next_set(bits, at).min(end);
            if seen == end {
                break;
            }
            let until = bitmap::next_clear(bits, seen).min(end);
            self.again
                .push((first + seen as u64, (until - seen) as u64));
            all_new = false;
            at = until;
        }
        bitmap::set(bits, from, end);
        all_new
    }

    /// Gives a node one more owner: whether it is the first, or `None` if the block is not a node to
    /// another owner.
    pub fn add_node(&mut self, at: u64) -> Option<bool> {
        let (group, bit) = (at / GROUP_BLOCKS, (at % GROUP_BLOCKS) as usize);
        let first = self.add(at, 1);
        let nodes = self.nodes.entry(group);
        let bits = nodes.or_insert_with(|| Box::new([0; 4096]));
        let known = bitmap::ones_in(bits, bit, bit + 1) != 0;
        bitmap::set(bits, bit, bit + 1);
        (first || known).then_some(first)
    }

    /// Whether one of `[start, start + len)`, which is in one group, is a node.
    pub fn has_node(&self, start: u64, len: u64) -> bool {
        let from = (start % GROUP_BLOCKS) as usize;
        let bits = self.nodes.get(&(start / GROUP_BLOCKS));
        bits.is_some_and(|bits| bitmap::next_set(bits, from) < from + len as usize)
    }

    /// The groups that have blocks with an owner.
    pub fn groups(&self) -> impl Iterator<Item = u64> + '_ {
        self.seen.keys().copied()
    }

    /// The blocks of `group` that have an owner.
    pub fn bits(&self, group: u64) -> Option<&Block> {
        self.seen.get(&group).map(|bits| &**bits)
    }

    /// The runs with two owners or more: start, length, owners; ascending.
    pub fn shared(&self) -> Vec<(u64, u64, u64)> {
        let mut edges: Vec<(u64, i64)> = Vec::with_capacity(self.again.len() * 2);
        for &(start, len) in &self.again {
            edges.push((start, 1));
            edges.push((start + len, -1));
        }
        edges.sort_unstable();
        let mut runs: Vec<(u64, u64, u64)> = Vec::new();
        let (mut at, mut more) = (0, 0i64);
        for (edge, change) in edges {
            if more > 0 && edge > at {
                push_run(&mut runs, at, edge - at, 1 + more as u64);
            }
            at = edge;
            more += change;
        }
        runs
    }
}

/// Appends a run, as part of the last one if it goes on there with the same count.
fn push_run(runs: &mut Vec<(u64, u64, u64)>, start: u64, len: u64, count: u64) {
    match runs.last_mut() {
        Some(last) if last.0 + last.1 == start && last.2 == count => last.1 += len,
        _ => runs.push((start, len, count)),
    }
}

/// The count of `at` in ascending `runs`, and where that ends. `next` is the first run not before it.
fn count_at(runs: &[(u64, u64, u64)], next: &mut usize, at: u64) -> (u64, u64) {
    while runs.get(*next).is_some_and(|run| run.0 + run.1 <= at) {
        *next += 1;
    }
    match runs.get(*next) {
        Some(&(start, len, count)) if start <= at => (count, start + len),
        Some(&(start, ..)) => (1, start),
        None => (1, u64::MAX),
    }
}

impl Checker<'_> {
    /// Compares the owners that were found with the refs tree, run by run.
    pub fn compare_refs(&mut self) {
        let found = self.owners.shared();
        self.report.shared_runs = found.len() as u64;
        if self.incomplete {
            return;
        }
        let mut said = Vec::new();
        for &SharedRun {
            start, len, count, ..
        } in &self.refs
        {
            push_run(&mut said, start, len, count);
        }
        let (mut i, mut j, mut at) = (0, 0, 0);
        while at < self.geometry.blocks {
            let (owners, owners_end) = count_at(&found, &mut i, at);
            let (count, count_end) = count_at(&said, &mut j, at);
            let end = owners_end.min(count_end).min(self.geometry.blocks);
            if owners != count {
                let node = self.refs_node(at);
                let what = format!(
                    "blocks {at}+{} have {owners} owners, the refs tree says {count}",
                    end - at
                );
                self.fault("block-owners", node, what);
            }
            at = end;
        }
    }

    /// Whether the refs tree says that all of `[start, start + len)` have more than one owner, or for
    /// one block whether it has.
    pub fn said_shared(&self, start: u64, len: u64) -> bool {
        let mut at = start;
        let mut next = self.refs.partition_point(|run| run.start + run.len <= at);
        while let Some(run) = self.refs.get(next).filter(|run| run.start <= at) {
            at = run.start + run.len;
            if at >= start + len {
                return true;
            }
            next += 1;
        }
        false
    }

    /// The leaf of the refs tree that speaks about `block`.
    fn refs_node(&self, block: u64) -> u64 {
        let after = self.refs.partition_point(|run| run.start <= block);
        after
            .checked_sub(1)
            .and_then(|i| self.refs.get(i))
            .map_or(0, |run| run.node)
    }

    /// Blocks in the swap tree have one owner.
    pub fn swap_is_private(&mut self) {
        let shared = self.owners.shared();
        let runs = std::mem::take(&mut self.swap);
        for run in &runs {
            let first = shared.partition_point(|s| s.0 + s.1 <= run.start);
            if shared.get(first).is_some_and(|s| s.0 < run.start + run.len) {
                let what = format!(
                    "{}: swap blocks {}+{} have another owner",
                    run.id, run.start, run.len
                );
                self.fault("swap-shared", run.node, what);
            }
        }
        self.swap = runs;
    }
}

#[cfg(test)]
mod tests {
    use super::Owners;

    #[test]
    fn counts_by_runs() {
        let mut owners = Owners::default();
        assert!(owners.add(100, 50));
        assert!(owners.shared().is_empty());
        assert!(!owners.add(120, 60));
        assert!(!owners.add(110, 20));
        assert!(owners.add(40_000, 1));
        assert_eq!(owners.add_node(140), None);
        assert_eq!(
            (owners.add_node(7), owners.add_node(7)),
            (Some(true), Some(false))
        );
        assert!(owners.has_node(0, 8) && !owners.has_node(0, 7) && !owners.has_node(8, 100));
        let shared = [
            (7, 1, 2),
            (110, 10, 2),
            (120, 10, 3),
            (130, 10, 2),
            (140, 1, 3),
            (141, 9, 2),
        ];
        assert_eq!(owners.shared(), shared);
    }
}
