// SPDX-License-Identifier: GPL-2.0

//! One block as a bitmap of 32768 bits, in little-endian words, as on disk.

use crate::platform::Block;

/// Bits of a bitmap.
pub const BITS: usize = 32768;

fn word(bits: &Block, i: usize) -> u64 {
    let bytes = bits.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

fn set_word(bits: &mut Block, i: usize, value: u64) {
    if let Some(bytes) = bits.get_mut(i * 8..i * 8 + 8) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}

/// The mask of the bits of word `i` that are in `[from, end)`.
fn mask(i: usize, from: usize, end: usize) -> u64 {
    let (low, high) = (
        from.saturating_sub(i * 64),
        end.saturating_sub(i * 64).min(64),
    );
    if low >= high {
        return 0;
    }
    (u64::MAX >> (64 - (high - low))) << low
}

fn words(from: usize, end: usize) -> core::ops::Range<usize> {
    from / 64..end.min(BITS).div_ceil(64)
}

/// Sets the bits `[from, end)`; how many were clear before.
pub fn set(bits: &mut Block, from: usize, end: usize) -> u32 {
    let mut changed = 0;
    for i in words(from, end) {
        let (old, mask) = (word(bits, i), mask(i, from, end));
        changed += (mask & !old).count_ones();
        set_word(bits, i, old | mask);
    }
    changed
}

/// Clears the bits `[from, end)`; how many were set before.
pub fn clear(bits: &mut Block, from: usize, end: usize) -> u32 {
    let mut changed = 0;
    for i in words(from, end) {
        let (old, mask) = (word(bits, i), mask(i, from, end));
        changed += (mask & old).count_ones();
        set_word(bits, i, old & !mask);
    }
    changed
}

/// How many of the bits are set.
pub fn ones(bits: &Block) -> u32 {
    words(0, BITS).map(|i| word(bits, i).count_ones()).sum()
}

/// How many of the bits `[from, end)` are set.
pub fn ones_in(bits: &Block, from: usize, end: usize) -> u32 {
    words(from, end)
        .map(|i| (word(bits, i) & mask(i, from, end)).count_ones())
        .sum()
}

fn next(bits: &Block, from: usize, invert: u64) -> usize {
    let mut keep = u64::MAX << (from % 64);
    for i in words(from, BITS) {
        let found = (word(bits, i) ^ invert) & keep;
        if found != 0 {
            return i * 64 + found.trailing_zeros() as usize;
        }
        keep = u64::MAX;
    }
    BITS
}

/// The first clear bit at `from` or after, or [`BITS`].
pub fn next_clear(bits: &Block, from: usize) -> usize {
    next(bits, from, u64::MAX)
}

/// The first set bit at `from` or after, or [`BITS`].
pub fn next_set(bits: &Block, from: usize) -> usize {
    next(bits, from, 0)
}

/// The last set bit of `[from, end)`.
pub fn last_set(bits: &Block, from: usize, end: usize) -> Option<usize> {
    words(from, end).rev().find_map(|i| {
        let found = word(bits, i) & mask(i, from, end);
        (found != 0).then(|| i * 64 + 63 - found.leading_zeros() as usize)
    })
}

/// The first run of at least `want` clear bits at `from` or after, or else the longest one there;
/// as (start, length), with a length of 0 if there is none.
pub fn find_clear(bits: &Block, from: usize, want: usize) -> (usize, usize) {
    let (mut at, mut best) = (from, (0, 0));
    loop {
        let start = next_clear(bits, at);
        if start >= BITS {
            return best;
        }
        let end = next_set(bits, start);
        if end - start > best.1 {
            best = (start, end - start);
            if best.1 >= want {
                return best;
            }
        }
        at = end;
    }
}
