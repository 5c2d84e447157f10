// SPDX-License-Identifier: GPL-2.0

//! A set of numbers kept as ranges: delayed blocks of a file, blocks whose count fell.

use crate::platform::{Map, NoMemory};

/// A set of `u64`, stored as the ranges that it consists of. No two of them touch.
#[derive(Default)]
pub struct RangeSet {
    /// Start to length.
    ranges: Map<u64, u64>,
    total: u64,
}

impl RangeSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many numbers are in the set.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The range, clipped to `[start, start + len)`, with the smallest number at `start` or after.
    pub fn first(&self, start: u64, len: u64) -> Option<(u64, u64)> {
        let end = start.saturating_add(len);
        if let Some((s, l)) = self.ranges.at_or_before(&start) {
            let e = s.saturating_add(*l);
            if e > start && len > 0 {
                return Some((start, e.min(end) - start));
            }
        }
        let (s, l) = self.ranges.at_or_after(&start)?;
        (s < end).then(|| (s, s.saturating_add(*l).min(end) - s))
    }

    /// The whole range that `at` is in.
    pub fn around(&self, at: u64) -> Option<(u64, u64)> {
        let (s, l) = self.ranges.at_or_before(&at)?;
        (s.saturating_add(*l) > at).then_some((s, *l))
    }

    /// Whether any of `[start, start + len)` is in the set.
    pub fn overlaps(&self, start: u64, len: u64) -> bool {
        self.first(start, len).is_some()
    }

    /// Adds `[start, start + len)` and returns how many were not in it before.
    pub fn insert(&mut self, start: u64, len: u64) -> Result<u64, NoMemory> {
        if len == 0 {
            return Ok(0);
        }
        let (mut first, mut end) = (start, start.saturating_add(len));
        let mut had = 0;
        let touching = |set: &Self, first: u64, end: u64| {
            set.ranges
                .at_or_before(&end)
                .map(|(s, l)| (s, *l))
                .filter(|(s, l)| s.saturating_add(*l) >= first)
        };
        if let Some((s, l)) = touching(self, first, end) {
            if s <= first && s.saturating_add(l) >= end {
                return Ok(0);
            }
        }
        while let Some((s, l)) = touching(self, first, end) {
            self.ranges.remove(&s);
            had += l;
            first = first.min(s);
            end = end.max(s.saturating_add(l));
        }
        if let Err(e) = self.ranges.insert(first, end - first) {
            self.total -= had;
            return Err(e);
        }
        let added = end - first - had;
        self.total += added;
        Ok(added)
    }

    /// Removes `[start, start + len)` and returns how many were in it.
    pub fn remove(&mut self, start: u64, len: u64) -> Result<u64, NoMemory> {
        let end = start.saturating_add(len);
        let mut removed = 0;
        while let Some((at, _)) = self.first(start, len) {
            let Some((s, l)) = self.around(at) else { break };
            let e = s.saturating_add(l);
            if e > end {
                self.ranges.insert(end, e - end)?;
            }
            if s < start {
                self.ranges.insert(s, start - s)?;
            } else {
                self.ranges.remove(&s);
            }
            let gone = e.min(end) - s.max(start);
            self.total -= gone;
            removed += gone;
        }
        Ok(removed)
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
