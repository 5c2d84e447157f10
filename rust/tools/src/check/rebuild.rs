// SPDX-License-Identifier: GPL-2.0

//! What the bitmaps, the space tree and the refs tree are to be made from, once every owner of
//! every block is known.

use super::Checker;
use crate::engine::format::SpaceItem;
use crate::engine::repair::{FoundGroup, Rebuild};
use crate::engine::space::{bitmap_crc, empty_bitmap};
use crate::engine::types::{BlockNr, Generation};
use crate::platform::Block;

fn add(bits: &mut Block, others: &Block) {
    bits.iter_mut()
        .zip(others)
        .for_each(|(bits, others)| *bits |= others);
}

impl Checker<'_> {
    /// `None` when a node of these trees has another owner: one of the two is not what it was.
    pub fn rebuild(&self) -> Option<Rebuild> {
        let mut shared = Vec::new();
        for (start, len, count) in self.owners.shared() {
            shared.push((start, len, u32::try_from(count).ok()?));
        }
        let is_shared = |block: u64| {
            let next = shared.partition_point(|(start, len, _)| start + len <= block);
            shared.get(next).is_some_and(|(start, ..)| *start <= block)
        };
        if self.derived.iter().any(|&block| is_shared(block)) {
            return None;
        }
        Some(Rebuild {
            groups: self
                .used_groups()
                .into_iter()
                .map(|group| self.found_group(group))
                .collect(),
            old_nodes: self.derived.clone(),
            shared,
        })
    }

    fn found_group(&self, group: u64) -> FoundGroup {
        let mut mapped = Box::new([0; 4096]);
        empty_bitmap(self.geometry, group, &mut mapped);
        if let Some(owned) = self.owners.bits(group) {
            add(&mut mapped, owned);
        }
        let item = self.space.get(&group).map(|(item, _)| *item);
        let mut busy = mapped.clone();
        if let Some(bits) = item.and_then(|item| self.bitmap_on_disk(group, &item)) {
            add(&mut busy, &bits);
        }
        FoundGroup {
            group,
            item,
            mapped,
            busy,
        }
    }

    /// The bitmap that a space item speaks about, if it is whole.
    fn bitmap_on_disk(&self, group: u64, item: &SpaceItem) -> Option<Box<Block>> {
        let places = self.geometry.bitmap_places(group);
        let place = *places.get(usize::from(item.place))?;
        let mut bits = Box::new([0; 4096]);
        self.dev.read(BlockNr(place), &mut bits).ok()?;
        let generation = Generation(item.generation.get());
        let crc = bitmap_crc(&self.sb.metadata_uuid, place, generation, &bits);
        (crc == item.crc.get()).then_some(bits)
    }
}
