// SPDX-License-Identifier: GPL-2.0

//! One tree node: reading, checking and changing the slots of a block.
//!
//! A leaf holds [`LeafSlot`]s after its header, in ascending order of their keys, and the values at
//! its end, without gaps, in any order. An inner node holds [`InnerSlot`]s only. [`check`] proves
//! that a block from the device obeys this, once; everything else here leans on it, and answers
//! "nothing there" instead of going out of bounds where it does not hold.

use super::error::{Error, Result};
use super::format::{
    tree_kind, DiskKey, InnerSlot, LeafSlot, NodeHeader, MAX_ITEM, MAX_LEVELS, NODE_MAGIC,
};
use super::types::{BlockNr, Generation, BLOCK_SIZE};
use crate::platform::{crc32c, Block};
use core::cmp::Ordering;
use core::mem::size_of;
use zerocopy::{FromBytes, IntoBytes};

const HEADER: usize = size_of::<NodeHeader>();
const SLOT: usize = size_of::<LeafSlot>();
/// Bytes for slots and values.
pub const SPACE: usize = BLOCK_SIZE - HEADER;
/// Most slots of an inner node.
pub const INNER_MAX: usize = SPACE / size_of::<InnerSlot>();

const _: () = assert!(3 * (SLOT + MAX_ITEM) <= SPACE);

/// The key of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What the item is about: an inode, a group, a subvolume.
    pub object: u64,
    /// One of [`super::format::item_kind`].
    pub kind: u8,
    /// Its place among those: a file block, a cookie.
    pub offset: u64,
}

impl Key {
    /// The smallest key.
    pub const MIN: Self = Self::new(0, 0, 0);
    /// The greatest key.
    pub const MAX: Self = Self::new(u64::MAX, u8::MAX, u64::MAX);

    /// A key of its three parts.
    pub const fn new(object: u64, kind: u8, offset: u64) -> Self {
        Self {
            object,
            kind,
            offset,
        }
    }

    /// The next greater key; the greatest has none.
    pub fn next(self) -> Option<Self> {
        match (
            self.offset.checked_add(1),
            self.kind.checked_add(1),
            self.object.checked_add(1),
        ) {
            (Some(offset), _, _) => Some(Self { offset, ..self }),
            (None, Some(kind), _) => Some(Self::new(self.object, kind, 0)),
            (None, None, Some(object)) => Some(Self::new(object, 0, 0)),
            (None, None, None) => None,
        }
    }

    /// The next smaller key; the smallest has none.
    pub fn prev(self) -> Option<Self> {
        match (
            self.offset.checked_sub(1),
            self.kind.checked_sub(1),
            self.object.checked_sub(1),
        ) {
            (Some(offset), _, _) => Some(Self { offset, ..self }),
            (None, Some(kind), _) => Some(Self::new(self.object, kind, u64::MAX)),
            (None, None, Some(object)) => Some(Self::new(object, u8::MAX, u64::MAX)),
            (None, None, None) => None,
        }
    }
}

impl From<DiskKey> for Key {
    fn from(key: DiskKey) -> Self {
        Self::new(key.object.get(), key.kind, key.offset.get())
    }
}

impl From<Key> for DiskKey {
    fn from(key: Key) -> Self {
        Self {
            object: key.object.into(),
            offset: key.offset.into(),
            kind: key.kind,
        }
    }
}

/// A pointer to a node: where it is and which transaction wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ptr {
    /// Where.
    pub block: BlockNr,
    /// Expected in its header.
    pub generation: Generation,
}

/// What a node must say of itself, known before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// `SuperBlock::metadata_uuid`.
    pub uuid: &'a [u8; 16],
    /// The pointer that led here.
    pub ptr: Ptr,
    /// One of [`tree_kind`].
    pub tree: u8,
    /// Its level.
    pub level: u8,
}

fn header(block: &Block) -> NodeHeader {
    NodeHeader::read_from_prefix(block)
        .map(|(h, _)| h)
        .unwrap_or_default()
}

fn header_mut(block: &mut Block) -> Option<&mut NodeHeader> {
    NodeHeader::mut_from_prefix(block).ok().map(|(h, _)| h)
}

/// The level in the header: 0 is a leaf.
pub fn level(block: &Block) -> u8 {
    header(block).level
}

/// The generation in the header.
pub fn generation(block: &Block) -> Generation {
    Generation(header(block).generation.get())
}

/// The tree kind in the header.
pub fn tree(block: &Block) -> u8 {
    header(block).tree
}

/// The number of slots.
pub fn count(block: &Block) -> usize {
    usize::from(header(block).count.get())
}

/// Where the values of a leaf begin.
fn data_start(block: &Block) -> usize {
    usize::from(header(block).data_start.get())
}

/// The slots of a leaf.
pub fn leaf_slots(block: &Block) -> &[LeafSlot] {
    block
        .get(HEADER..)
        .and_then(|rest| <[LeafSlot]>::ref_from_prefix_with_elems(rest, count(block)).ok())
        .map_or(&[], |(slots, _)| slots)
}

fn leaf_slots_mut(block: &mut Block) -> &mut [LeafSlot] {
    let n = count(block);
    block
        .get_mut(HEADER..)
        .and_then(|rest| <[LeafSlot]>::mut_from_prefix_with_elems(rest, n).ok())
        .map_or(&mut [], |(slots, _)| slots)
}

/// The slots of an inner node.
pub fn inner_slots(block: &Block) -> &[InnerSlot] {
    block
        .get(HEADER..)
        .and_then(|rest| <[InnerSlot]>::ref_from_prefix_with_elems(rest, count(block)).ok())
        .map_or(&[], |(slots, _)| slots)
}

fn inner_slots_mut(block: &mut Block) -> &mut [InnerSlot] {
    let n = count(block);
    block
        .get_mut(HEADER..)
        .and_then(|rest| <[InnerSlot]>::mut_from_prefix_with_elems(rest, n).ok())
        .map_or(&mut [], |(slots, _)| slots)
}

/// The value of slot `i` of a leaf.
pub fn leaf_data(block: &Block, i: usize) -> &[u8] {
    let Some(slot) = leaf_slots(block).get(i) else {
        return &[];
    };
    let at = usize::from(slot.at.get());
    block
        .get(at..at + usize::from(slot.len.get()))
        .unwrap_or(&[])
}

/// The value of slot `i` of a leaf, to change it in place.
pub fn leaf_data_mut(block: &mut Block, i: usize) -> &mut [u8] {
    let Some(slot) = leaf_slots(block).get(i).copied() else {
        return &mut [];
    };
    let at = usize::from(slot.at.get());
    block
        .get_mut(at..at + usize::from(slot.len.get()))
        .unwrap_or(&mut [])
}

/// The key of slot `i` of a leaf.
pub fn leaf_key(block: &Block, i: usize) -> Option<Key> {
    leaf_slots(block).get(i).map(|slot| slot.key.into())
}

/// The child of slot `i` of an inner node.
pub fn child(block: &Block, i: usize) -> Option<(Key, Ptr)> {
    inner_slots(block).get(i).map(|slot| {
        let ptr = Ptr {
            block: BlockNr(slot.child.get()),
            generation: Generation(slot.generation.get()),
        };
        (slot.key.into(), ptr)
    })
}

/// Where `key` is in a leaf (`Ok`) or would be (`Err`).
pub fn leaf_search(block: &Block, key: &Key) -> core::result::Result<usize, usize> {
    leaf_slots(block).binary_search_by(|slot| Key::from(slot.key).cmp(key))
}

/// The slot of an inner node below which `key` is: the last one whose key is not greater, or 0.
pub fn child_search(block: &Block, key: &Key) -> usize {
    let found = inner_slots(block).binary_search_by(|slot| Key::from(slot.key).cmp(key));
    found.unwrap_or_else(|i| i.saturating_sub(1))
}

/// Makes `block` an empty node.
pub fn init(block: &mut Block, id: Identity<'_>, owner: u64) {
    block.fill(0);
    if let Some(head) = header_mut(block) {
        head.magic = NODE_MAGIC.into();
        head.uuid = *id.uuid;
        head.block = id.ptr.block.0.into();
        head.generation = id.ptr.generation.0.into();
        head.owner = owner.into();
        head.tree = id.tree;
        head.level = id.level;
        head.data_start = (BLOCK_SIZE as u16).into();
    }
}

/// Gives a copy of a node its own place and generation.
pub fn readdress(block: &mut Block, ptr: Ptr, owner: u64) {
    if let Some(head) = header_mut(block) {
        head.block = ptr.block.0.into();
        head.generation = ptr.generation.0.into();
        head.owner = owner.into();
    }
}

/// Fills in the checksum.
pub fn seal(block: &mut Block) {
    let crc = checksum(block);
    if let Some(head) = header_mut(block) {
        head.crc = crc.into();
    }
}

fn checksum(block: &Block) -> u32 {
    crc32c(0, block.get(4..).unwrap_or(&[]))
}

/// Proves that `block` is the node that `id` expects and obeys the rules of its kind.
pub fn check(block: &Block, id: Identity<'_>) -> Result<()> {
    let head = header(block);
    let rule = if head.crc.get() != checksum(block) {
        "node checksum"
    } else if head.magic.get() != NODE_MAGIC {
        "node magic"
    } else if head.uuid != *id.uuid {
        "node of another volume"
    } else if head.block.get() != id.ptr.block.0 {
        "node of another place"
    } else if head.generation.get() != id.ptr.generation.0 {
        "node of another generation"
    } else if head.tree != id.tree
        || !(tree_kind::FOREST..=tree_kind::SUBVOLUME).contains(&head.tree)
    {
        "node of another tree"
    } else if head.level != id.level || usize::from(head.level) >= MAX_LEVELS {
        "node of another level"
    } else {
        let broken = if head.level == 0 {
            leaf_fault(block)
        } else {
            inner_fault(block)
        };
        match broken {
            None => return Ok(()),
            Some(rule) => rule,
        }
    };
    Err(Error::corrupt(id.ptr.block, rule))
}

fn ascending(mut keys: impl Iterator<Item = Key>) -> bool {
    let Some(mut last) = keys.next() else {
        return true;
    };
    keys.all(|key| core::mem::replace(&mut last, key).cmp(&key) == Ordering::Less)
}

fn inner_fault(block: &Block) -> Option<&'static str> {
    if count(block) == 0 || count(block) > INNER_MAX {
        return Some("number of slots of an inner node");
    }
    if !ascending(inner_slots(block).iter().map(|slot| slot.key.into())) {
        return Some("order of keys");
    }
    None
}

/// The values must tile `[data_start, 4096)` without overlap.
fn leaf_fault(block: &Block) -> Option<&'static str> {
    let (n, start) = (count(block), data_start(block));
    if start > BLOCK_SIZE || HEADER + n * SLOT > start {
        return Some("number of slots of a leaf");
    }
    let mut used = [0u64; BLOCK_SIZE / 64];
    let mut total = 0;
    for slot in leaf_slots(block) {
        let (at, len) = (usize::from(slot.at.get()), usize::from(slot.len.get()));
        if at < start || at + len > BLOCK_SIZE || len > MAX_ITEM {
            return Some("value out of bounds");
        }
        for byte in at..at + len {
            let word = used.get_mut(byte / 64)?;
            if *word & (1 << (byte % 64)) != 0 {
                return Some("values that overlap");
            }
            *word |= 1 << (byte % 64);
        }
        total += len;
    }
    if total != BLOCK_SIZE - start {
        return Some("gap between values");
    }
    if !ascending(leaf_slots(block).iter().map(|slot| slot.key.into())) {
        return Some("order of keys");
    }
    None
}

/// Bytes that are in use, of [`SPACE`].
pub fn used(block: &Block) -> usize {
    if level(block) == 0 {
        count(block) * SLOT + BLOCK_SIZE.saturating_sub(data_start(block))
    } else {
        count(block) * size_of::<InnerSlot>()
    }
}

/// Bytes that an item with a value of `len` bytes takes in a leaf.
pub fn item_size(len: usize) -> usize {
    SLOT + len
}

/// Whether a leaf has room for another value of `len` bytes.
pub fn leaf_fits(block: &Block, len: usize) -> bool {
    used(block) + item_size(len) <= SPACE
}

/// Whether an inner node has room for another slot.
pub fn inner_fits(block: &Block) -> bool {
    count(block) < INNER_MAX
}

fn set_count(block: &mut Block, n: usize) {
    if let Some(head) = header_mut(block) {
        head.count = (n as u16).into();
    }
}

/// Inserts an item at slot `i` of a leaf that has room for it.
pub fn leaf_insert(block: &mut Block, i: usize, key: Key, data: &[u8]) {
    let n = count(block);
    if i > n || !leaf_fits(block, data.len()) {
        debug_assert!(false, "leaf_insert without room");
        return;
    }
    let at = data_start(block) - data.len();
    let from = HEADER + i * SLOT;
    block.copy_within(from..HEADER + n * SLOT, from + SLOT);
    if let Some(place) = block.get_mut(at..at + data.len()) {
        place.copy_from_slice(data);
    }
    let slot = LeafSlot {
        key: key.into(),
        reserved: 0,
        at: (at as u16).into(),
        len: (data.len() as u16).into(),
    };
    if let Some(place) = block.get_mut(from..from + SLOT) {
        place.copy_from_slice(slot.as_bytes());
    }
    if let Some(head) = header_mut(block) {
        head.count = ((n + 1) as u16).into();
        head.data_start = (at as u16).into();
    }
}

/// Removes slot `i` of a leaf and closes the gap.
pub fn leaf_remove(block: &mut Block, i: usize) {
    let n = count(block);
    let Some(slot) = leaf_slots(block).get(i).copied() else {
        return;
    };
    let (at, len, start) = (
        usize::from(slot.at.get()),
        usize::from(slot.len.get()),
        data_start(block),
    );
    if start > at {
        return;
    }
    block.copy_within(start..at, start + len);
    if let Some(gap) = block.get_mut(start..start + len) {
        gap.fill(0);
    }
    for other in leaf_slots_mut(block) {
        if usize::from(other.at.get()) < at {
            other.at = (other.at.get() + len as u16).into();
        }
    }
    let from = HEADER + i * SLOT;
    block.copy_within(from + SLOT..HEADER + n * SLOT, from);
    if let Some(rest) = block.get_mut(HEADER + (n - 1) * SLOT..HEADER + n * SLOT) {
        rest.fill(0);
    }
    if let Some(head) = header_mut(block) {
        head.count = ((n - 1) as u16).into();
        head.data_start = ((start + len) as u16).into();
    }
}

/// Inserts a child at slot `i` of an inner node that has room for it.
pub fn inner_insert(block: &mut Block, i: usize, key: Key, ptr: Ptr) {
    let n = count(block);
    if i > n || !inner_fits(block) {
        debug_assert!(false, "inner_insert without room");
        return;
    }
    set_count(block, n + 1);
    let slots = inner_slots_mut(block);
    slots.copy_within(i..n, i + 1);
    if let Some(slot) = slots.get_mut(i) {
        *slot = InnerSlot {
            key: key.into(),
            child: ptr.block.0.into(),
            generation: ptr.generation.0.into(),
        };
    }
}

/// Removes slot `i` of an inner node.
pub fn inner_remove(block: &mut Block, i: usize) {
    let n = count(block);
    if i >= n {
        return;
    }
    let slots = inner_slots_mut(block);
    slots.copy_within(i + 1..n, i);
    if let Some(last) = slots.last_mut() {
        *last = InnerSlot::default();
    }
    set_count(block, n - 1);
}

/// Points slot `i` of an inner node elsewhere.
pub fn set_child(block: &mut Block, i: usize, ptr: Ptr) {
    if let Some(slot) = inner_slots_mut(block).get_mut(i) {
        slot.child = ptr.block.0.into();
        slot.generation = ptr.generation.0.into();
    }
}

/// Lowers the bound of slot `i` of an inner node to `key`, if it is greater.
pub fn lower_bound(block: &mut Block, i: usize, key: &Key) {
    if let Some(slot) = inner_slots_mut(block).get_mut(i) {
        if Key::from(slot.key) > *key {
            slot.key = (*key).into();
        }
    }
}

/// Moves the slots of `from` that begin at `at` to the end of `to`, which has room for them.
pub fn move_tail(from: &mut Block, at: usize, to: &mut Block) {
    let n = count(from);
    if level(from) == 0 {
        for i in at..n {
            if let Some(key) = leaf_key(from, i) {
                let end = count(to);
                leaf_insert(to, end, key, leaf_data(from, i));
            }
        }
        for i in (at..n).rev() {
            leaf_remove(from, i);
        }
    } else {
        for i in at..n {
            if let Some((key, ptr)) = child(from, i) {
                let end = count(to);
                inner_insert(to, end, key, ptr);
            }
        }
        for i in (at..n).rev() {
            inner_remove(from, i);
        }
    }
}

/// Where to split a full leaf so that an item with `len` bytes fits at slot `i`: the number of
/// slots that stay, and whether the new item stays as well.
///
/// An item that goes to the end starts a leaf of its own: filling in ascending order leaves full
/// leaves behind. Otherwise the split is where the halves are most even.
pub fn leaf_split_point(block: &Block, i: usize, len: usize) -> (usize, bool) {
    let n = count(block);
    if i >= n {
        return (n, false);
    }
    let new = item_size(len);
    let total = used(block) + new;
    let (mut left, mut best, mut choice) = (0usize, usize::MAX, (n / 2, false));
    // Walk the n + 1 items in order, the new one at position i; consider a cut after each.
    for position in 0..n {
        let (size, stay, new_left) = match position.cmp(&i) {
            Ordering::Less => (slot_size(block, position), position + 1, false),
            Ordering::Equal => (new, position, true),
            Ordering::Greater => (slot_size(block, position - 1), position, true),
        };
        left += size;
        let larger = left.max(total - left);
        if larger < best {
            (best, choice) = (larger, (stay, new_left));
        }
    }
    choice
}

fn slot_size(block: &Block, i: usize) -> usize {
    leaf_slots(block)
        .get(i)
        .map_or(0, |slot| item_size(usize::from(slot.len.get())))
}
