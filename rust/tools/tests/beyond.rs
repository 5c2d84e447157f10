// SPDX-License-Identifier: GPL-2.0

//! Volumes that claim to be larger than their device: that is said, by rule, and what would be beyond
//! the device's end is neither used nor looked for, however much of it is claimed.

use crate::common::{at, ends, file_of_a_block, formatted, mount, newest, root, SMALL};
use oxfs::check::check;
use oxfs::engine::format::{
    extent_state, item_kind, ExtentItem, Geometry, SpaceItem, GROUP_BLOCKS, MAX_BLOCKS,
};
use oxfs::engine::mount::MountOptions;
use oxfs::engine::node::Key;
use oxfs::engine::super_block;
use oxfs::engine::types::{BlockNr, SubvolId};
use oxfs::engine::{Cost, Error, TreeId, Volume};
use oxfs::repair::repair;
use oxfs::sim::SimDisk;
use std::collections::BTreeSet;
use zerocopy::IntoBytes;

/// Makes all copies of the super block claim `blocks`, with right checksums.
fn claim(disk: &SimDisk, blocks: u64) {
    for at in Geometry::of_volume(SMALL).expect("geometry").super_copies() {
        disk.damage(BlockNr(at), |block| {
            let sb = super_block::parse_mut(block).expect("super block");
            sb.blocks = blocks.into();
            super_block::seal(block, at).expect("seal");
        });
    }
}

/// Writes an item that no operation would write.
fn put(disk: &SimDisk, tree: TreeId, key: Key, data: &[u8]) {
    let volume = mount(disk);
    let done = volume.update(Cost::SMALL, |txn| txn.put(tree, &key, data));
    done.expect("put");
    volume.unmount().expect("unmount");
}

/// A volume with a file of a block, and its inode number.
fn small() -> (SimDisk, u64) {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = file_of_a_block(&volume, root(&volume), b"file");
    volume.unmount().expect("unmount");
    (disk, id.ino.0)
}

fn rules(disk: &SimDisk) -> BTreeSet<&'static str> {
    let disk = disk.clone();
    let report = ends(move || check(&disk)).expect("check");
    report.faults.iter().map(|fault| fault.rule).collect()
}

/// No mount takes a volume that is cut off, and no repair writes to it.
fn is_refused(disk: &SimDisk) {
    let mounted = Volume::mount(disk.clone(), &MountOptions::default());
    let why = Error::Invalid("the device is smaller than the volume");
    assert_eq!(mounted.err(), Some(why));
    let writes = disk.writes();
    let done = {
        let disk = disk.clone();
        ends(move || repair(&disk, at(9), &mut |_| {})).expect("repair")
    };
    assert_eq!((done.failed, done.after.faults), (None, done.before.faults));
    assert_eq!(disk.writes(), writes);
}

#[test]
fn size_beyond_the_device() {
    for blocks in [SMALL + 2048, 3 * GROUP_BLOCKS, MAX_BLOCKS] {
        let (disk, _) = small();
        claim(&disk, blocks);
        assert!(rules(&disk).contains("super-size"), "{blocks}");
        is_refused(&disk);
    }
    let (disk, _) = small();
    claim(&disk, MAX_BLOCKS + GROUP_BLOCKS);
    assert!(check(&disk).is_err());
    let mounted = Volume::mount(disk, &MountOptions::default());
    assert!(matches!(mounted.err(), Some(Error::Corrupt { .. })));
}

#[test]
fn groups_beyond_the_device() {
    for group in [1, 70_000, MAX_BLOCKS / GROUP_BLOCKS - 1, u64::MAX] {
        let (disk, _) = small();
        let item = SpaceItem {
            free: 32766.into(),
            longest: 32000.into(),
            ..SpaceItem::default()
        };
        let key = Key::new(group, item_kind::SPACE, 0);
        put(&disk, TreeId::Space, key, item.as_bytes());
        assert_eq!(rules(&disk), BTreeSet::from(["space-group"]), "{group}");
        let at = BlockNr(newest(&disk).space.block.get());
        let rule = "space item of a group that does not exist";
        let mounted = Volume::mount(disk.clone(), &MountOptions::default());
        assert_eq!(mounted.err(), Some(Error::corrupt(at, rule)));
        // The volume claims to have that group.
        claim(&disk, MAX_BLOCKS);
        assert!(rules(&disk).is_superset(&BTreeSet::from(["space-group", "super-size"])));
        is_refused(&disk);
    }
}

#[test]
fn blocks_beyond_the_device() {
    for start in [SMALL, 5 * GROUP_BLOCKS + 300, MAX_BLOCKS - 2000] {
        let (disk, ino) = small();
        let item = ExtentItem {
            at: start.into(),
            len: 4.into(),
            generation: 1.into(),
            state: extent_state::WRITTEN,
            ..ExtentItem::default()
        };
        let key = Key::new(ino, item_kind::EXTENT, 9);
        put(&disk, TreeId::Subvol(SubvolId(0)), key, item.as_bytes());
        assert!(rules(&disk).contains("extent-run"), "{start}");
        claim(&disk, MAX_BLOCKS);
        assert!(rules(&disk).is_superset(&BTreeSet::from(["extent-run", "super-size"])));
        is_refused(&disk);
    }
}
