// SPDX-License-Identifier: GPL-2.0

//! Free space: groups, their bitmaps, and what must not be handed out yet.
//!
//! A group in memory has two bitmaps. `mapped` is what its next bitmap on disk will say. `busy` has
//! those bits as well, and the blocks that are free on disk but not to be had: staged for data that
//! is being written, freed in a transaction that is not durable, or being discarded. Only clear
//! bits of `busy` are handed out, and only those count as free. When many groups were touched, those
//! whose two bitmaps say the same as the durable one on disk lose theirs, to be read again.
//!
//! Lock: all of this is under the volume's state lock.

use super::bitmap::{self, BITS};
use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{Geometry, SpaceItem, GROUP_BLOCKS, SUPER_SLOTS};
use super::store::Store;
use super::types::{BlockNr, Generation, Run};
use crate::platform::{crc32c, zeroed_block, Block, Box, Vec, VecExt};

mod resize;

use resize::Fence;
pub use resize::Leaving;

/// Groups that have their bitmaps in memory, unless more are in use: 32 MiB.
const LOADED: usize = 4096;
/// Groups that are looked at for each that is loaded beyond that.
const LOOKS: usize = 64;

struct Bits {
    mapped: Box<Block>,
    busy: Box<Block>,
}

/// A group.
struct Group {
    /// Clear bits of `busy`, known without the bitmaps.
    free: u32,
    /// At least the longest run of clear bits of `busy`.
    longest: u32,
    /// What the durable space tree says; `None`: nothing was ever written, all is free.
    item: Option<SpaceItem>,
    /// Whether `mapped` changed in the running transaction.
    dirty: bool,
    bits: Option<Bits>,
}

impl Group {
    /// Whether the bitmaps are the same as what can be read.
    fn is_idle(&self, durable: Generation) -> bool {
        let readable = |item: SpaceItem| item.generation.get() <= durable.0;
        let same = |bits: &Bits| bits.mapped[..] == bits.busy[..];
        !self.dirty && self.item.is_none_or(readable) && self.bits.as_ref().is_some_and(same)
    }

    /// A group in which nothing is mapped, with `free` blocks.
    fn empty(free: u32) -> Self {
        Self {
            free,
            longest: free,
            item: None,
            dirty: false,
            bits: None,
        }
    }
}

/// The free space of a volume.
pub struct Space {
    geometry: Geometry,
    groups: Vec<Group>,
    /// Blocks that can be handed out.
    free: u64,
    /// Blocks that nothing maps: free, staged, or waiting for a commit or a reader.
    unmapped: u64,
    /// Blocks promised to data that is not staged yet.
    reserved: u64,
    /// Blocks of data that has its place, and is to be written there.
    in_place: u64,
    /// Blocks that were freed and wait for a commit or a reader.
    pinned: u64,
    /// Groups whose `mapped` changed in the running transaction.
    dirty: Vec<u64>,
    /// What the running transaction freed.
    freed: Vec<Run>,
    metadata_goal: u64,
    data_goal: u64,
    /// Bitmaps of this transaction and of older ones can be read.
    durable: Generation,
    /// Groups whose bitmaps are in memory.
    loaded: usize,
    /// Where the search for one that can go goes on.
    hand: usize,
    /// While the volume gets another size: what keeps blocks from use that will have no place.
    fence: Option<Fence>,
    /// Free blocks that it keeps from use.
    fenced: u64,
}

fn place(block: u64) -> (usize, usize) {
    (
        (block / GROUP_BLOCKS) as usize,
        (block % GROUP_BLOCKS) as usize,
    )
}

/// The bitmap of a group in which nothing is mapped yet.
pub fn empty_bitmap(geometry: Geometry, group: u64, bits: &mut Block) {
    bits.fill(0);
    let first = group.saturating_mul(GROUP_BLOCKS);
    let len = geometry.group_len(group) as usize;
    bitmap::set(bits, len, BITS);
    if group == 0 {
        bitmap::set(bits, 0, SUPER_SLOTS[0] as usize);
    }
    let fixed = geometry
        .bitmap_places(group)
        .into_iter()
        .chain(geometry.super_copies());
    for block in fixed.filter(|block| block / GROUP_BLOCKS == group) {
        let at = (block - first) as usize;
        bitmap::set(bits, at, at + 1);
    }
}

/// How many blocks of a group nothing is mapped in can be had.
fn capacity(geometry: Geometry, group: u64, scratch: &mut Block) -> u32 {
    // Only the first group and those that hold mirrors differ from the rest.
    if group > 0 && group + 2 < geometry.groups() {
        return BITS as u32 - 2;
    }
    empty_bitmap(geometry, group, scratch);
    BITS as u32 - bitmap::ones(scratch)
}

/// The checksum of a group's bitmap.
pub fn bitmap_crc(uuid: &[u8; 16], block: u64, generation: Generation, bits: &Block) -> u32 {
    let crc = crc32c(0, uuid);
    let crc = crc32c(crc, &block.to_le_bytes());
    let crc = crc32c(crc, &generation.0.to_le_bytes());
    crc32c(crc, bits)
}

impl Space {
    /// The space of a volume in which nothing is mapped.
    pub fn new(geometry: Geometry) -> Result<Self> {
        let count = geometry.groups() as usize;
        let mut groups = Vec::with_room(count)?;
        let mut scratch = zeroed_block()?;
        let mut free = 0;
        for group in 0..geometry.groups() {
            let clear = capacity(geometry, group, &mut scratch);
            free += u64::from(clear);
            groups.try_push(Group::empty(clear))?;
        }
        Ok(Self {
            geometry,
            groups,
            free,
            unmapped: free,
            reserved: 0,
            in_place: 0,
            pinned: 0,
            dirty: Vec::new(),
            freed: Vec::new(),
            metadata_goal: 0,
            // Metadata fills the volume's beginning; leave it some room to stay together.
            data_goal: (geometry.blocks / 16).min(4096),
            durable: Generation(0),
            loaded: 0,
            hand: 0,
            fence: None,
            fenced: 0,
        })
    }

    /// Takes over what the space tree says about a group, at mount.
    pub fn load_item(&mut self, group: u64, item: SpaceItem) -> Result<(), &'static str> {
        let len = self.geometry.group_len(group);
        let Some(entry) = self.groups.get_mut(group as usize) else {
            return Err("space item of a group that does not exist");
        };
        if u64::from(item.free.get()) > len || item.place > 1 {
            return Err("space item out of bounds");
        }
        self.free = self.free.saturating_sub(u64::from(entry.free)) + u64::from(item.free.get());
        self.unmapped = self.free;
        entry.free = item.free.get();
        entry.longest = item.longest.get().min(item.free.get());
        entry.item = Some(item);
        self.durable = self.durable.max(Generation(item.generation.get()));
        Ok(())
    }

    /// Takes over what a checker found out about a group. What is busy and not mapped is free when
    /// the running transaction is durable.
    #[cfg(not(MODULE))]
    pub fn restore(&mut self, found: &super::repair::FoundGroup) -> Result<()> {
        let index = found.group as usize;
        self.touch(index)?;
        let Some(entry) = self.groups.get_mut(index) else {
            return Err(Error::Invalid("group that does not exist"));
        };
        let free = BITS as u32 - bitmap::ones(&found.busy);
        let unmapped = BITS as u32 - bitmap::ones(&found.mapped);
        self.free = self.free.saturating_sub(u64::from(entry.free)) + u64::from(free);
        self.unmapped = self.unmapped.saturating_sub(u64::from(entry.free)) + u64::from(unmapped);
        self.pinned += u64::from(unmapped - free);
        entry.free = free;
        entry.longest = free;
        entry.item = found.item;
        let mut pinned: Block = [0; 4096];
        for (pinned, (busy, mapped)) in pinned
            .iter_mut()
            .zip(found.busy.iter().zip(found.mapped.iter()))
        {
            *pinned = busy & !mapped;
        }
        let first = found.group * GROUP_BLOCKS;
        let mut at = bitmap::next_set(&pinned, 0);
        while at < BITS {
            let end = bitmap::next_clear(&pinned, at);
            let run = Run::new(BlockNr(first + at as u64), (end - at) as u64);
            self.freed.try_push(run)?;
            at = bitmap::next_set(&pinned, end);
        }
        entry.bits = Some(Bits {
            mapped: found.mapped.clone(),
            busy: found.busy.clone(),
        });
        Ok(())
    }

    /// Blocks that can be handed out, promised ones included.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Blocks that nothing maps: what the super block says is free.
    pub fn unmapped(&self) -> u64 {
        self.unmapped
    }

    /// Blocks that wait for a commit or a reader before they can be handed out.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// Blocks promised to delayed data.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Promises `blocks`. The caller has compared with [`Space::free`].
    pub fn reserve(&mut self, blocks: u64) {
        self.reserved = self.reserved.saturating_add(blocks);
    }

    /// Takes a promise back, or turns it into blocks that were taken.
    pub fn unreserve(&mut self, blocks: u64) {
        debug_assert!(self.reserved >= blocks);
        self.reserved = self.reserved.saturating_sub(blocks);
    }

    /// Blocks that were taken for data and are not mapped yet.
    pub fn staged(&self) -> u64 {
        self.unmapped
            .saturating_sub(self.free)
            .saturating_sub(self.pinned)
            .saturating_sub(self.fenced)
    }

    /// Blocks of data that is to be written where it is.
    pub fn in_place(&self) -> u64 {
        self.in_place
    }

    /// `blocks` more are to be written where they are.
    pub fn add_in_place(&mut self, blocks: u64) {
        self.in_place = self.in_place.saturating_add(blocks);
    }

    /// `blocks` are written where they are, or never will be.
    pub fn remove_in_place(&mut self, blocks: u64) {
        debug_assert!(self.in_place >= blocks);
        self.in_place = self.in_place.saturating_sub(blocks);
    }

    /// Number of groups that the running transaction changed.
    pub fn dirty_groups(&self) -> usize {
        self.dirty.len()
    }

    /// The bitmaps that transaction `durable` wrote can be read.
    pub fn set_durable(&mut self, durable: Generation) {
        self.durable = durable;
    }

    /// Lets go of some bitmaps if there are many: they are read again when they are needed.
    fn evict(&mut self) {
        if self.loaded < LOADED {
            return;
        }
        for _ in 0..LOOKS.min(self.groups.len()) {
            self.hand = (self.hand + 1) % self.groups.len().max(1);
            if let Some(group) = self.groups.get_mut(self.hand) {
                if group.is_idle(self.durable) {
                    group.bits = None;
                    self.loaded = self.loaded.saturating_sub(1);
                }
            }
        }
    }

    /// A group, with its bitmaps. Others that are not in use may lose theirs.
    fn load<D: BlockDevice>(&mut self, store: &Store<D>, index: usize) -> Result<&mut Group> {
        let missing = |group: &Group| group.bits.is_none();
        if self.groups.get(index).is_some_and(missing) {
            self.evict();
        }
        let geometry = self.geometry;
        let group = index as u64;
        let entry = self.groups.get_mut(index).ok_or(Error::NoSpace)?;
        if entry.bits.is_none() {
            let mut mapped = zeroed_block()?;
            match entry.item {
                None => empty_bitmap(geometry, group, &mut mapped),
                Some(item) => read_bitmap(store, group, &item, &mut mapped)?,
            }
            let mut busy = zeroed_block()?;
            busy.copy_from_slice(&mapped[..]);
            entry.bits = Some(Bits { mapped, busy });
            self.loaded += 1;
        }
        Ok(entry)
    }

    /// Marks a group as changed by the running transaction.
    fn touch(&mut self, index: usize) -> Result<()> {
        let Some(entry) = self.groups.get_mut(index) else {
            return Ok(());
        };
        if !entry.dirty {
            self.dirty.try_push(index as u64)?;
            entry.dirty = true;
        }
        Ok(())
    }

    /// Takes up to `want` blocks, in one run, at `goal` or after it. They are busy, not mapped.
    fn take<D: BlockDevice>(&mut self, store: &Store<D>, goal: u64, want: u64) -> Result<Run> {
        let (index, offset) = place(if goal < self.geometry.blocks { goal } else { 0 });
        let want = want.clamp(1, GROUP_BLOCKS) as usize;
        let count = self.open_groups();
        for step in 0..=count {
            let at = (index + step) % count.max(1);
            let fits = |g: &Group| g.longest as usize >= want;
            if self.groups.get(at).is_some_and(fits) {
                let from = if at == index && step == 0 { offset } else { 0 };
                let (start, len) = self.search(store, at, from, want)?;
                if len >= want {
                    return self.claim(at, start, want);
                }
            }
        }
        // No run is long enough: the longest one. Each look makes a group's figure exact.
        loop {
            let best = self
                .groups
                .iter()
                .take(count)
                .enumerate()
                .max_by_key(|(_, g)| g.longest);
            let Some((at, known)) = best.map(|(at, g)| (at, g.longest as usize)) else {
                return Err(Error::NoSpace);
            };
            if known == 0 {
                return Err(Error::NoSpace);
            }
            let (start, len) = self.search(store, at, 0, want)?;
            if len >= known.min(want) {
                return self.claim(at, start, len.min(want));
            }
        }
    }

    /// The first free run of `want` blocks in a group, or its longest.
    fn search<D: BlockDevice>(
        &mut self,
        store: &Store<D>,
        index: usize,
        from: usize,
        want: usize,
    ) -> Result<(usize, usize)> {
        let group = self.load(store, index)?;
        let Some(bits) = &group.bits else {
            return Ok((0, 0));
        };
        let found = bitmap::find_clear(&bits.busy, from, want);
        if from == 0 && found.1 < want {
            group.longest = found.1 as u32;
        }
        Ok(found)
    }

    fn claim(&mut self, index: usize, start: usize, len: usize) -> Result<Run> {
        let Some(Group {
            bits: Some(bits),
            free,
            ..
        }) = self.groups.get_mut(index)
        else {
            return Err(Error::NoSpace);
        };
        let taken = bitmap::set(&mut bits.busy, start, start + len);
        debug_assert_eq!(taken as usize, len);
        *free = free.saturating_sub(taken);
        self.free = self.free.saturating_sub(u64::from(taken));
        let first = index as u64 * GROUP_BLOCKS + start as u64;
        Ok(Run::new(BlockNr(first), len as u64))
    }

    /// Takes a block for a node. It counts as mapped at once.
    pub fn take_node<D: BlockDevice>(&mut self, store: &Store<D>) -> Result<BlockNr> {
        let run = self.take(store, self.metadata_goal, 1)?;
        self.metadata_goal = run.end();
        self.map(run)?;
        Ok(run.start)
    }

    /// Takes up to `want` blocks for data, near `goal` if that is given. Until [`Space::map`] they
    /// are busy in memory only, and free again after a crash.
    pub fn stage<D: BlockDevice>(
        &mut self,
        store: &Store<D>,
        goal: Option<u64>,
        want: u64,
    ) -> Result<Run> {
        let run = self.take(store, goal.unwrap_or(self.data_goal), want)?;
        if goal.is_none() {
            self.data_goal = run.end();
        }
        Ok(run)
    }

    /// Gives staged blocks back.
    pub fn unstage(&mut self, run: Run) {
        self.make_free(run);
    }

    /// Marks busy blocks as mapped.
    pub fn map(&mut self, run: Run) -> Result<()> {
        let (index, at) = place(run.start.0);
        self.touch(index)?;
        let Some(Group {
            bits: Some(bits), ..
        }) = self.groups.get_mut(index)
        else {
            return Err(Error::corrupt(
                run.start,
                "mapped block of a group that is not loaded",
            ));
        };
        let changed = bitmap::set(&mut bits.mapped, at, at + run.len as usize);
        if u64::from(changed) != run.len {
            return Err(Error::corrupt(run.start, "block mapped twice"));
        }
        self.unmapped = self.unmapped.saturating_sub(run.len);
        Ok(())
    }

    /// Unmaps blocks. They stay busy until [`Space::release`].
    pub fn unmap<D: BlockDevice>(&mut self, store: &Store<D>, run: Run) -> Result<()> {
        self.freed.try_push(run)?;
        if let Err(error) = self.clear_mapped(store, run) {
            self.freed.pop();
            return Err(error);
        }
        self.pinned += run.len;
        Ok(())
    }

    /// Unmaps a node of the running transaction, which nothing durable knows: it is free at once.
    pub fn unmap_new<D: BlockDevice>(&mut self, store: &Store<D>, block: BlockNr) -> Result<()> {
        let run = Run::new(block, 1);
        self.clear_mapped(store, run)?;
        self.make_free(run);
        Ok(())
    }

    fn clear_mapped<D: BlockDevice>(&mut self, store: &Store<D>, run: Run) -> Result<()> {
        if !self.geometry.may_hold(run.start.0, run.len) {
            return Err(Error::corrupt(run.start, "freed block out of bounds"));
        }
        let (index, at) = place(run.start.0);
        self.load(store, index)?;
        self.touch(index)?;
        let Some(Group {
            bits: Some(bits), ..
        }) = self.groups.get_mut(index)
        else {
            return Err(Error::NoSpace);
        };
        let end = at + run.len as usize;
        if u64::from(bitmap::ones_in(&bits.mapped, at, end)) != run.len {
            return Err(Error::corrupt(run.start, "block freed twice"));
        }
        bitmap::clear(&mut bits.mapped, at, end);
        self.unmapped = self.unmapped.saturating_add(run.len);
        Ok(())
    }

    /// What the running transaction freed so far, taken out.
    pub fn take_freed(&mut self) -> Vec<Run> {
        core::mem::take(&mut self.freed)
    }

    /// Makes blocks available that were unmapped in a transaction that is durable now.
    pub fn release(&mut self, run: Run) {
        self.pinned = self.pinned.saturating_sub(run.len);
        self.make_free(run);
    }

    fn make_free(&mut self, run: Run) {
        let (index, at) = place(run.start.0);
        let counts = index < self.open_groups();
        let Some(Group {
            bits: Some(bits),
            free,
            longest,
            ..
        }) = self.groups.get_mut(index)
        else {
            return;
        };
        let changed = match &mut self.fence {
            Some(fence) if fence.edge == index => fence.clear(&mut bits.busy, run),
            _ => bitmap::clear(&mut bits.busy, at, at + run.len as usize),
        };
        *free += changed;
        *longest = *free;
        if counts {
            self.free += u64::from(changed);
        }
        if let Some(fence) = self.fence.as_ref().filter(|fence| fence.edge <= index) {
            self.fenced += match fence.edge == index {
                true => run.len.saturating_sub(u64::from(changed)),
                false => u64::from(changed),
            };
        }
    }

    /// The groups that the running transaction changed, from the `from`th on.
    pub fn dirty_group(&self, from: usize) -> Option<u64> {
        self.dirty.get(from).copied()
    }

    /// What the space tree must say about a dirty group when `generation` is durable.
    pub fn next_item(&self, uuid: &[u8; 16], group: u64, generation: Generation) -> SpaceItem {
        let Some(entry) = self.groups.get(group as usize) else {
            return SpaceItem::default();
        };
        let Some(bits) = &entry.bits else {
            return SpaceItem::default();
        };
        let place = entry.item.map_or(0, |item| 1 - item.place.min(1));
        let block = self.geometry.bitmap_places(group)[usize::from(place)];
        let free = BITS as u32 - bitmap::ones(&bits.mapped);
        SpaceItem {
            generation: generation.0.into(),
            crc: bitmap_crc(uuid, block, generation, &bits.mapped).into(),
            free: free.into(),
            longest: (bitmap::find_clear(&bits.mapped, 0, BITS).1 as u32).into(),
            place,
            reserved: [0; 3],
        }
    }

    /// Ends the transaction: a copy of the bitmap of each dirty group, with its place.
    pub fn close(
        &mut self,
        uuid: &[u8; 16],
        generation: Generation,
    ) -> Result<Vec<(BlockNr, Box<Block>)>> {
        let mut copies = Vec::with_room(self.dirty.len())?;
        for group in core::mem::take(&mut self.dirty) {
            let item = self.next_item(uuid, group, generation);
            let Some(entry) = self.groups.get_mut(group as usize) else {
                continue;
            };
            let Some(bits) = &entry.bits else { continue };
            let mut copy = zeroed_block()?;
            copy.copy_from_slice(&bits.mapped[..]);
            let block = self.geometry.bitmap_places(group)[usize::from(item.place)];
            copies.try_push((BlockNr(block), copy))?;
            entry.item = Some(item);
            entry.dirty = false;
        }
        Ok(copies)
    }

    /// Takes `most` blocks or fewer of the first free run of at least `min` blocks of `group` at block `from` of it or
    /// after, to discard it; [`Space::unstage`] gives it back.
    pub fn take_for_discard<D: BlockDevice>(
        &mut self,
        store: &Store<D>,
        group: u64,
        from: usize,
        min: usize,
        most: usize,
    ) -> Result<Option<Run>> {
        let index = group as usize;
        if index >= self.open_groups() {
            return Ok(None);
        }
        let entry = self.load(store, index)?;
        let Some(bits) = &entry.bits else {
            return Ok(None);
        };
        let (start, len) = bitmap::find_clear(&bits.busy, from, min);
        if len < min.max(1) || most == 0 {
            return Ok(None);
        }
        self.claim(index, start, len.min(most)).map(Some)
    }
}

fn read_bitmap<D: BlockDevice>(
    store: &Store<D>,
    group: u64,
    item: &SpaceItem,
    bits: &mut Block,
) -> Result<()> {
    let places = store.geometry().bitmap_places(group);
    let Some(&block) = places.get(usize::from(item.place)) else {
        return Err(Error::corrupt(BlockNr(0), "space item out of bounds"));
    };
    store.dev.read(BlockNr(block), bits)?;
    let generation = Generation(item.generation.get());
    if bitmap_crc(&store.uuid, block, generation, bits) != item.crc.get() {
        return Err(Error::corrupt(BlockNr(block), "bitmap checksum"));
    }
    if BITS as u32 - bitmap::ones(bits) != item.free.get() {
        return Err(Error::corrupt(BlockNr(block), "free count of a group"));
    }
    let mut fixed = zeroed_block()?;
    empty_bitmap(store.geometry(), group, &mut fixed);
    if fixed
        .iter()
        .zip(bits.iter())
        .any(|(fixed, bits)| fixed & !bits != 0)
    {
        return Err(Error::corrupt(BlockNr(block), "fixed block that is free"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Space, LOADED};
    use crate::engine::format::{Geometry, GROUP_BLOCKS};
    use crate::engine::store::Store;
    use crate::sim::SimDisk;

    #[test]
    fn usable_blocks_of_an_empty_volume_are_free() {
        for blocks in [4096, GROUP_BLOCKS, GROUP_BLOCKS + 2048, 300 * GROUP_BLOCKS] {
            let geometry = Geometry::of_volume(blocks).unwrap();
            assert_eq!(Space::new(geometry).unwrap().free(), geometry.usable());
        }
    }

    #[test]
    fn bitmaps_that_nobody_needs_are_let_go() {
        let groups = LOADED as u64 + 1000;
        let geometry = Geometry::of_volume(groups * GROUP_BLOCKS).unwrap();
        let store = Store::new(SimDisk::new(geometry.blocks), geometry, [1; 16]).unwrap();
        let mut space = Space::new(geometry).unwrap();
        let staged = space.stage(&store, Some(7 * GROUP_BLOCKS), 10).unwrap();
        let free = space.free();
        for group in (0..groups).chain(0..100) {
            let run = space.take_for_discard(&store, group, 0, 1, 100).unwrap();
            space.unstage(run.unwrap());
            assert!(space.loaded <= LOADED + 1);
        }
        let loaded = space.groups.iter().filter(|g| g.bits.is_some()).count();
        assert_eq!(space.loaded, loaded);
        assert_eq!(space.free(), free);
        // What is staged is still known.
        space.map(staged).unwrap();
        space.unmap(&store, staged).unwrap();
    }
}
