// SPDX-License-Identifier: GPL-2.0

//! The B+tree against a `BTreeMap`, with enough items for three levels, and the space tree of a
//! volume that is large enough for that.

use crate::common::{formatted, mount, SimVolume};
use oxfs::engine::format::{item_kind, GROUP_BLOCKS};
use oxfs::engine::mount::MountOptions;
use oxfs::engine::node::Key;
use oxfs::engine::{Cost, TreeId, Volume};
use oxfs::sim::SimDisk;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const ANY: Cost = Cost::drops(64);

fn volume(blocks: u64) -> (SimDisk, SimVolume) {
    let disk = formatted(blocks);
    let volume = mount(&disk);
    (disk, volume)
}

/// A generator of numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct World {
    volume: Volume<SimDisk>,
    model: BTreeMap<u64, Vec<u8>>,
}

fn key(at: u64) -> Key {
    Key::new(at, item_kind::SWAP, 0)
}

impl World {
    fn put(&mut self, at: u64, len: usize) {
        let value = vec![at as u8; len];
        self.volume
            .update(ANY, |txn| txn.put(TreeId::Swap, &key(at), &value))
            .expect("put");
        self.model.insert(at, value);
    }

    fn remove(&mut self, from: u64, to: u64) {
        let gone: Vec<u64> = self.model.range(from..to).map(|(at, _)| *at).collect();
        for at in gone {
            let there = self
                .volume
                .update(ANY, |txn| txn.remove(TreeId::Swap, &key(at)));
            assert!(there.expect("remove").value);
            self.model.remove(&at);
        }
    }

    /// Looks up `at`, and what is before it.
    fn check(&self, at: u64) {
        let read = |data: &[u8]| Ok(data.to_vec());
        let found = self
            .volume
            .query(|view| view.get(TreeId::Swap, &key(at), read));
        assert_eq!(
            found.expect("get").as_ref(),
            self.model.get(&at),
            "get {at}"
        );
        let before = self
            .volume
            .query(|view| view.prev(TreeId::Swap, &key(at), |k, _| Ok(k.object)));
        let expected = self.model.range(..=at).next_back().map(|(at, _)| *at);
        assert_eq!(before.expect("prev"), expected, "prev {at}");
    }

    fn check_all(&self) {
        let mut seen = Vec::new();
        self.volume
            .query(|view| {
                view.scan(TreeId::Swap, &Key::MIN, &Key::MAX, |key, data| {
                    seen.push((key.object, data.to_vec()));
                    Ok(ControlFlow::Continue(()))
                })
            })
            .expect("scan");
        let model: Vec<_> = self
            .model
            .iter()
            .map(|(at, value)| (*at, value.clone()))
            .collect();
        assert!(seen == model, "scan");
    }
}

#[test]
fn a_tree_of_three_levels_agrees_with_a_map() {
    let (_, volume) = volume(200_000);
    let mut world = World {
        volume,
        model: BTreeMap::new(),
    };
    let mut numbers = Numbers(7);
    for at in 0..30_000 {
        world.put(at * 10, 32);
    }
    for round in 0..60 {
        let start = numbers.below(300_000);
        // More than the leaves below one inner node have, now and then.
        let len = if round % 10 == 0 {
            60_000
        } else {
            1 + numbers.below(3000)
        };
        world.remove(start, start + len);
        world.check(start);
        world.check(start + len / 2);
        world.check(start + len);
        for _ in 0..300 {
            let at = numbers.below(300_000);
            let len = numbers.below(200) as usize;
            world.put(at, if len == 0 { 1300 } else { len });
            world.check(numbers.below(300_000));
        }
        if round % 8 == 0 {
            world.volume.commit().expect("commit");
        }
    }
    world.check_all();
    world.remove(0, 300_001);
    world.check(5);
    world.check_all();
}

#[test]
fn every_bitmap_of_a_large_volume_has_the_checksum_that_the_tree_says() {
    const GROUPS: u64 = 13_000;
    let (disk, volume) = volume(GROUPS * GROUP_BLOCKS);
    let touch = |volume: &Volume<SimDisk>, group: u64| {
        volume.update(ANY, |txn| {
            let goal = group * GROUP_BLOCKS + 1000;
            let run = txn.state.space.stage(txn.store, Some(goal), 1)?;
            assert_eq!(run.start.0 / GROUP_BLOCKS, group);
            txn.state.changes += 1;
            txn.state.space.map(run)
        })
    };
    for group in 0..GROUPS {
        touch(&volume, group).expect("touch");
        if group % 1500 == 0 {
            volume.commit().expect("commit");
        }
    }
    volume.unmount().expect("unmount");
    let volume = Volume::mount(disk, &MountOptions::default()).expect("mount");
    for group in 0..GROUPS {
        // Loads the bitmap, which checks it.
        touch(&volume, group).expect("touch again");
    }
    volume.commit().expect("commit");
}
