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

    /// How many of `[start, start + len)` are in the set.
    pub fn count(&self, start: u64, len: u64) -> u64 {
        let end = start.saturating_add(len);
        let (mut at, mut count) = (start, 0u64);
        while let Some((s, l)) = self.first(at, end.saturating_sub(at)) {
            count = count.saturating_add(l);
            at = s.saturating_add(l);
        }
        count
    }

    /// Adds `[start, start + len)` and returns how many were not in it before. Without memory the
    /// set is as it was.
    pub fn insert(&mut self, start: u64, len: u64) -> Result<u64, NoMemory> {
        if len == 0 {
            return Ok(0);
        }
        let (mut first, mut end, mut had) = (start, start.saturating_add(len), 0);
        if let Some((s, l)) = self.ranges.at_or_before(&start) {
            let e = s.saturating_add(*l);
            if e >= end {
                return Ok(0);
            }
            if e >= start {
                first = s;
            }
        }
        let mut from = first;
        while let Some((s, l)) = self.ranges.at_or_after(&from).filter(|(s, _)| *s <= end) {
            had += *l;
            end = end.max(s.saturating_add(*l));
            from = s.saturating_add(1);
        }
        self.ranges.insert(first, end - first)?;
        let inside = first.saturating_add(1);
        while let Some((s, _)) = self.ranges.at_or_after(&inside).filter(|(s, _)| *s <= end) {
            self.ranges.remove(&s);
        }
        let added = end - first - had;
        self.total += added;
        Ok(added)
    }

    /// Removes `[start, start + len)` and returns how many were in it. Without memory the set is as
    /// it was, but a range of it may be kept as two.
    pub fn remove(&mut self, start: u64, len: u64) -> Result<u64, NoMemory> {
        let end = start.saturating_add(len);
        if len == 0 {
            return Ok(0);
        }
        self.split(end)?;
        self.split(start)?;
        let mut removed = 0;
        while let Some((s, l)) = self.ranges.at_or_after(&start).filter(|(s, _)| *s < end) {
            removed += *l;
            self.ranges.remove(&s);
        }
        self.total -= removed;
        Ok(removed)
    }

    /// Makes a range that goes on over `at` two.
    fn split(&mut self, at: u64) -> Result<(), NoMemory> {
        let Some((s, l)) = self.around(at).filter(|(s, _)| *s < at) else {
            return Ok(());
        };
        self.ranges.insert(at, s.saturating_add(l) - at)?;
        if let Some(first) = self.ranges.get_mut(&s) {
            *first = at - s;
        }
        Ok(())
    }
}
