// SPDX-License-Identifier: GPL-2.0

//! Free space of a volume that gets another size.
//!
//! Blocks that the other size has no place for are *leaving*: those beyond its end, and those that
//! become a mirror of the super block. A fence keeps the free ones from use, and those that become
//! free; when nothing else is among them the size can change. Leaving blocks are in the last group
//! that both sizes have, the *edge*, and in the groups behind it.

use super::{capacity, empty_bitmap, Group, Space};
use crate::engine::bitmap::{self, BITS};
use crate::engine::device::BlockDevice;
use crate::engine::error::{Error, Result};
use crate::engine::format::{Geometry, GROUP_BLOCKS};
use crate::engine::store::Store;
use crate::engine::types::{BlockNr, Run};
use crate::platform::{zeroed_block, Block, Box, Vec, VecExt};

/// Blocks of a volume that one of another size has no place for.
#[derive(Debug, Clone, Copy)]
pub struct Leaving([Run; 3]);

impl Leaving {
    /// What leaves a volume that gets another size.
    pub fn new(from: Geometry, to: Geometry) -> Self {
        let beyond = Run::new(BlockNr(to.blocks), from.blocks.saturating_sub(to.blocks));
        let mirror = |slot| {
            let at = to.mirror(slot);
            Run::new(BlockNr(at), u64::from(from.may_hold(at, 1)))
        };
        Self([beyond, mirror(0), mirror(1)])
    }

    /// Those of them that are in `window`.
    pub fn within(self, window: Run) -> Self {
        Self(self.0.map(|run| overlap(run, window)))
    }

    /// The first run of them that is in `run`.
    pub fn first(&self, run: Run) -> Option<Run> {
        let parts = self.0.into_iter().map(|part| overlap(part, run));
        parts.filter(|part| part.len > 0).min()
    }
}

fn overlap(a: Run, b: Run) -> Run {
    let start = a.start.max(b.start);
    Run::new(start, a.end().min(b.end()).saturating_sub(start.0))
}

/// What keeps leaving blocks from use.
pub(super) struct Fence {
    to: Geometry,
    /// The edge.
    pub(super) edge: usize,
    leaving: Leaving,
    /// Blocks of the edge that are busy for the fence only.
    held: Box<Block>,
    /// Most blocks that the next step looks at.
    window: u64,
}

impl Fence {
    /// Clears bits of the edge in `busy`, but for those that are leaving; how many.
    pub(super) fn clear(&mut self, busy: &mut Block, run: Run) -> u32 {
        let first = self.edge as u64 * GROUP_BLOCKS;
        let bit = |block: u64| block.saturating_sub(first) as usize;
        let (mut at, mut cleared) = (run.start.0, 0);
        while at < run.end() {
            let rest = Run::new(BlockNr(at), run.end() - at);
            let part = self.leaving.first(rest);
            let end = part.map_or(run.end(), |part| part.start.0);
            cleared += bitmap::clear(busy, bit(at), bit(end));
            at = end;
            if let Some(part) = part {
                bitmap::set(&mut self.held, bit(at), bit(part.end()));
                at = part.end();
            }
        }
        cleared
    }
}

/// The blocks of a group.
fn blocks_of(group: usize) -> Run {
    let first = group as u64 * GROUP_BLOCKS;
    Run::new(BlockNr(first), GROUP_BLOCKS)
}

/// The bits of a group for the leaving blocks in it.
fn each_part(leaving: Leaving, group: usize, mut visit: impl FnMut(usize, usize)) {
    let whole = blocks_of(group);
    for run in leaving.within(whole).0 {
        let from = run.start.0.saturating_sub(whole.start.0) as usize;
        if run.len > 0 {
            visit(from, from + run.len as usize);
        }
    }
}

/// The bits that are set in `a` and not in `b`.
fn without(a: &Block, b: &Block) -> Result<Box<Block>> {
    let mut only = zeroed_block()?;
    for (only, (a, b)) in only.iter_mut().zip(a.iter().zip(b.iter())) {
        *only = a & !b;
    }
    Ok(only)
}

impl Space {
    /// The groups, from the first on, that blocks may be taken from.
    pub(super) fn open_groups(&self) -> usize {
        let all = self.groups.len();
        self.fence
            .as_ref()
            .map_or(all, |fence| all.min(fence.edge + 1))
    }

    /// The size that the volume is getting.
    pub fn resizing(&self) -> Option<Geometry> {
        self.fence.as_ref().map(|fence| fence.to)
    }

    /// What leaves the volume for the size that it is getting.
    pub fn leaving(&self) -> Option<Leaving> {
        self.fence.as_ref().map(|fence| fence.leaving)
    }

    /// Most blocks that the next step of moving looks at.
    pub fn window(&self) -> u64 {
        self.fence.as_ref().map_or(u64::MAX, |fence| fence.window)
    }

    /// Limits the next step of moving.
    pub fn set_window(&mut self, blocks: u64) {
        if let Some(fence) = &mut self.fence {
            fence.window = blocks;
        }
    }

    /// Free blocks that the fence keeps from use.
    pub fn fenced(&self) -> u64 {
        self.fenced
    }

    fn free_behind(&self, edge: usize) -> u64 {
        let behind = self.groups.iter().skip(edge + 1);
        behind.map(|group| u64::from(group.free)).sum()
    }

    /// Keeps leaving blocks from use until [`Space::open_fence`] or [`Space::resize`]. `Busy` if
    /// there is a fence.
    pub fn fence<D: BlockDevice>(&mut self, store: &Store<D>, to: Geometry) -> Result<()> {
        if self.fence.is_some() {
            return Err(Error::Busy);
        }
        let edge = (self.geometry.groups().min(to.groups()) as usize).saturating_sub(1);
        let leaving = Leaving::new(self.geometry, to);
        let mut held = zeroed_block()?;
        let group = self.load(store, edge)?;
        if let Some(bits) = &mut group.bits {
            each_part(leaving, edge, |from, end| {
                let mut at = bitmap::next_clear(&bits.busy, from);
                while at < end {
                    let stop = bitmap::next_set(&bits.busy, at).min(end);
                    bitmap::set(&mut held, at, stop);
                    at = bitmap::next_clear(&bits.busy, stop);
                }
                bitmap::set(&mut bits.busy, from, end);
            });
        }
        let taken = bitmap::ones(&held);
        group.free = group.free.saturating_sub(taken);
        let behind = self.free_behind(edge);
        self.fenced = u64::from(taken) + behind;
        self.free = self.free.saturating_sub(self.fenced);
        self.fence = Some(Fence {
            to,
            edge,
            leaving,
            held,
            window: u64::MAX,
        });
        Ok(())
    }

    /// The size stays: takes the fence away.
    pub fn open_fence(&mut self) {
        let Some(fence) = self.fence.take() else {
            return;
        };
        let behind = self.free_behind(fence.edge);
        let Some(group) = self.groups.get_mut(fence.edge) else {
            return;
        };
        if let Some(bits) = &mut group.bits {
            for (busy, held) in bits.busy.iter_mut().zip(fence.held.iter()) {
                *busy &= !held;
            }
        }
        let opened = bitmap::ones(&fence.held);
        group.free += opened;
        group.longest = group.free;
        self.free += u64::from(opened) + behind;
        self.fenced = 0;
    }

    /// The leaving blocks of a group that are mapped: how many, and the last of them.
    fn mapped_leaving<D: BlockDevice>(
        &mut self,
        store: &Store<D>,
        leaving: Leaving,
        index: usize,
    ) -> Result<(u64, Option<u64>)> {
        let mut fixed = zeroed_block()?;
        let all = capacity(self.geometry, index as u64, &mut fixed);
        // Without looking at the bitmap.
        if self.groups.get(index).is_none_or(|group| group.free == all) {
            return Ok((0, None));
        }
        empty_bitmap(self.geometry, index as u64, &mut fixed);
        let Some(bits) = &self.load(store, index)?.bits else {
            return Ok((0, None));
        };
        let mapped = without(&bits.mapped, &fixed)?;
        let (mut count, mut last) = (0, None);
        each_part(leaving, index, |from, end| {
            count += u64::from(bitmap::ones_in(&mapped, from, end));
            last = last.max(bitmap::last_set(&mapped, from, end));
        });
        let first = blocks_of(index).start.0;
        Ok((count, last.map(|bit| first + bit as u64)))
    }

    /// How many leaving blocks are mapped, and the last of them, but not more than about `most`: a
    /// run that ends with the last one and holds as many, or all.
    pub fn last_leaving<D: BlockDevice>(
        &mut self,
        store: &Store<D>,
        most: u64,
    ) -> Result<(u64, Option<Run>)> {
        let (mut total, mut end, mut start) = (0u64, None, 0);
        let Some((edge, leaving)) = self.fence.as_ref().map(|f| (f.edge, f.leaving)) else {
            return Ok((0, None));
        };
        for index in (edge..self.groups.len()).rev() {
            let (count, last) = self.mapped_leaving(store, leaving, index)?;
            total = total.saturating_add(count);
            end = end.or(last.map(|last| last + 1));
            start = blocks_of(index).start.0;
            if total >= most {
                break;
            }
        }
        Ok((total, end.map(|end| Run::new(BlockNr(start), end - start))))
    }

    /// How many leaving blocks are in use: mapped, or taken for data that is being written, or waiting
    /// for a commit or a reader. No bitmap is read for it.
    pub fn leaving_in_use(&self) -> Result<u64> {
        let Some(fence) = &self.fence else {
            return Ok(0);
        };
        let mut fixed = zeroed_block()?;
        let mut used = 0;
        for (index, group) in self.groups.iter().enumerate().skip(fence.edge + 1) {
            let all = capacity(self.geometry, index as u64, &mut fixed);
            used += u64::from(all.saturating_sub(group.free));
        }
        if let Some(Group {
            bits: Some(bits), ..
        }) = self.groups.get(fence.edge)
        {
            empty_bitmap(self.geometry, fence.edge as u64, &mut fixed);
            let others = without(&*without(&bits.busy, &fixed)?, &fence.held)?;
            each_part(fence.leaving, fence.edge, |from, end| {
                used += u64::from(bitmap::ones_in(&others, from, end));
            });
        }
        Ok(used)
    }

    /// Whether nothing is among the leaving blocks.
    pub fn is_vacant(&self) -> Result<bool> {
        let groups = self.resizing().map_or(u64::MAX, |to| to.groups());
        Ok(self.leaving_in_use()? == 0 && !self.dirty.iter().any(|group| *group >= groups))
    }

    /// The volume has the other size from now on; nothing is among the leaving blocks. Blocks that it
    /// gains in the edge are as good as freed by the running transaction.
    pub fn resize<D: BlockDevice>(&mut self, store: &Store<D>) -> Result<()> {
        let Some((to, edge)) = self.fence.as_ref().map(|fence| (fence.to, fence.edge)) else {
            return Ok(());
        };
        let from = self.geometry;
        let (mut old, mut new) = (zeroed_block()?, zeroed_block()?);
        empty_bitmap(from, edge as u64, &mut old);
        empty_bitmap(to, edge as u64, &mut new);
        let (gained, lost) = (without(&old, &new)?, without(&new, &old)?);
        let gained_runs = runs_of(&gained, edge)?;
        self.load(store, edge)?;
        self.touch(edge)?;
        self.freed.try_extend(&gained_runs)?;
        self.add_groups(to)?;
        self.drop_groups(to);
        if let Some(Group {
            bits: Some(bits), ..
        }) = self.groups.get_mut(edge)
        {
            for (mapped, (gained, lost)) in
                bits.mapped.iter_mut().zip(gained.iter().zip(lost.iter()))
            {
                *mapped = (*mapped & !gained) | lost;
            }
        }
        let (gained, lost) = (bitmap::ones(&gained), bitmap::ones(&lost));
        self.pinned += u64::from(gained);
        self.unmapped = (self.unmapped + u64::from(gained)).saturating_sub(u64::from(lost));
        self.geometry = to;
        self.fence = None;
        self.fenced = 0;
        Ok(())
    }

    /// Adds the groups that a larger volume has.
    fn add_groups(&mut self, to: Geometry) -> Result<()> {
        let before = self.groups.len();
        let mut scratch = zeroed_block()?;
        let mut added = Vec::new();
        for group in before as u64..to.groups() {
            added.try_push(capacity(to, group, &mut scratch))?;
        }
        for free in added.iter() {
            if self.groups.try_push(Group::empty(*free)).is_err() {
                while self.groups.len() > before {
                    self.groups.pop();
                }
                return Err(Error::NoMemory);
            }
        }
        let free: u64 = added.iter().map(|free| u64::from(*free)).sum();
        self.free += free;
        self.unmapped += free;
        Ok(())
    }

    /// Drops the groups that a smaller volume does not have; all of their blocks are free, and were
    /// taken out of what can be had by the fence.
    fn drop_groups(&mut self, to: Geometry) {
        while self.groups.len() as u64 > to.groups() {
            let Some(group) = self.groups.pop() else {
                return;
            };
            self.unmapped = self.unmapped.saturating_sub(u64::from(group.free));
            self.loaded = self
                .loaded
                .saturating_sub(usize::from(group.bits.is_some()));
        }
    }
}

fn runs_of(bits: &Block, group: usize) -> Result<Vec<Run>> {
    let first = blocks_of(group).start.0;
    let mut runs = Vec::new();
    let mut at = bitmap::next_set(bits, 0);
    while at < BITS {
        let end = bitmap::next_clear(bits, at);
        runs.try_push(Run::new(BlockNr(first + at as u64), (end - at) as u64))?;
        at = bitmap::next_set(bits, end);
    }
    Ok(runs)
}
