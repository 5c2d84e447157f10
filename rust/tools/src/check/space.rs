// SPDX-License-Identifier: GPL-2.0

//! The blocks that have owners against the bitmaps and the space tree.

use super::Checker;
use crate::engine::bitmap::{self, BITS};
use crate::engine::format::{SpaceItem, GROUP_BLOCKS};
use crate::engine::space::{bitmap_crc, empty_bitmap};
use crate::engine::types::{BlockNr, Generation};
use crate::platform::Block;
use std::collections::BTreeSet;

fn differences(a: &Block, b: &Block) -> Vec<(usize, usize)> {
    let mut wrong = [0u8; 4096];
    for (wrong, (a, b)) in wrong.iter_mut().zip(a.iter().zip(b)) {
        *wrong = a & !b;
    }
    let mut runs = Vec::new();
    let mut at = bitmap::next_set(&wrong, 0);
    while at < BITS {
        let end = bitmap::next_clear(&wrong, at);
        runs.push((at, end - at));
        at = bitmap::next_set(&wrong, end);
    }
    runs
}

impl Checker<'_> {
    /// Groups that have blocks with an owner or an item, ascending. All of them are on the device,
    /// however many the super block claims.
    pub fn used_groups(&self) -> BTreeSet<u64> {
        let items = self.space.keys().copied();
        self.owners.groups().chain(items).collect()
    }

    /// Compares each used group's bitmap and free count with the owners that were found.
    pub fn compare_space(&mut self) {
        let mut free = self.geometry.usable();
        for group in self.used_groups() {
            let mut expected = [0; 4096];
            empty_bitmap(self.geometry, group, &mut expected);
            let fixed = bitmap::ones(&expected);
            if let Some(bits) = self.owners.bits(group) {
                for (byte, owned) in expected.iter_mut().zip(bits) {
                    *byte |= owned;
                }
            }
            free -= u64::from(bitmap::ones(&expected) - fixed);
            match self.space.get(&group).copied() {
                Some((item, node)) => self.compare_group(group, &item, node, &expected),
                None if self.incomplete => {}
                None if self.owners.bits(group).is_some() => {
                    let what = format!("group {group} has no item, but blocks in use");
                    self.fault("space-missing", 0, what);
                }
                None => {}
            }
        }
        self.report.free = free;
        if !self.incomplete && !self.cut_off() && self.sb.free_blocks.get() != free {
            let what = format!("{} free blocks, counted {free}", self.sb.free_blocks);
            self.fault("super-free", self.sb.block.get(), what);
        }
    }

    fn compare_group(&mut self, group: u64, item: &SpaceItem, node: u64, expected: &Block) {
        let Some(&place) = self
            .geometry
            .bitmap_places(group)
            .get(usize::from(item.place))
        else {
            return;
        };
        let mut bits = [0; 4096];
        if let Err(error) = self.dev.read(BlockNr(place), &mut bits) {
            return self.fault("bitmap-unreadable", place, error);
        }
        let generation = Generation(item.generation.get());
        if bitmap_crc(&self.sb.metadata_uuid, place, generation, &bits) != item.crc.get() {
            return self.fault(
                "bitmap-damaged",
                place,
                format!("checksum of group {group}"),
            );
        }
        if generation.0 > self.sb.generation.get() {
            self.fault("bitmap-generation", place, "written in the future");
        }
        let first = group * GROUP_BLOCKS;
        for (at, len) in differences(expected, &bits) {
            let what = format!(
                "blocks {}+{len} have an owner and are free",
                first + at as u64
            );
            self.fault("bitmap-free", place, what);
        }
        // What a node that cannot be read points to is not lost.
        if !self.incomplete {
            for (at, len) in differences(&bits, expected) {
                let what = format!(
                    "blocks {}+{len} are in use and have no owner",
                    first + at as u64
                );
                self.fault("bitmap-leak", place, what);
            }
        }
        let clear = BITS as u32 - bitmap::ones(&bits);
        if item.free.get() != clear {
            let what = format!("group {group} says {} free blocks, has {clear}", item.free);
            self.fault("space-free", node, what);
        }
        let longest = bitmap::find_clear(&bits, 0, BITS).1;
        if (item.longest.get() as usize) < longest {
            let what = format!(
                "group {group} has a free run of {longest}, says {}",
                item.longest
            );
            self.fault("space-longest", node, what);
        }
    }
}
