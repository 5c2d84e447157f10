// SPDX-License-Identifier: GPL-2.0

//! What a device may do to metadata, and what is promised against it, one mechanism at a time: each
//! of these tests fails when its mechanism is taken out (`ci/mutations`).

use crate::common::{self, at, formatted, mount, new_inode, root, SimVolume, SMALL};
use oxfs::check::check;
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::format::{tree_kind, Geometry};
use oxfs::engine::mount::MountOptions;
use oxfs::engine::node::{self, Ptr};
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::super_block;
use oxfs::engine::types::{AttrChange, Backing, BlockNr, FileBlock, InodeId, Run};
use oxfs::engine::{Cost, Error, Volume};
use oxfs::platform::{captured, Block};
use oxfs::sim::SimDisk;
use zerocopy::IntoBytes;

fn create(volume: &SimVolume, name: &str) -> InodeId {
    let new = new_inode(0o100644, at(3));
    let created = volume.create(root(volume), name.as_bytes(), &new);
    created.expect("create").value.id
}

fn write(disk: &SimDisk, volume: &SimVolume, id: InodeId, len: u64) -> Run {
    volume.reserve(len).expect("reserve");
    let run = volume.stage(id, FileBlock(0), len).expect("stage");
    assert_eq!(run.len, len);
    for i in 0..len {
        let block = BlockNr(run.start.0 + i);
        let data = &[1; 4096];
        disk.write(&[Write { block, data }]).expect("write");
    }
    let (staged, size) = (Written::Staged(run.start), Some(len * 4096));
    let done = volume.finish_write(id, FileBlock(0), len, staged, size);
    done.expect("finish_write");
    run
}

fn read(disk: &SimDisk, at: u64) -> Block {
    let mut block = [0; 4096];
    disk.read(BlockNr(at), &mut block).expect("read");
    block
}

/// The leaves of subvolume trees on a disk whose trees have one level.
fn leaves(disk: &SimDisk) -> Vec<BlockNr> {
    let is_leaf = |at: &BlockNr| {
        let block = read(disk, at.0);
        let magic = oxfs::engine::format::NODE_MAGIC.to_le_bytes();
        block[4..8] == magic && node::tree(&block) == tree_kind::SUBVOLUME
    };
    let blocks = disk.image().blocks();
    blocks.into_iter().filter(is_leaf).collect()
}

/// The leaf that says the inodes of the default subvolume: the newest.
fn newest_leaf(disk: &SimDisk) -> BlockNr {
    let all = leaves(disk);
    let newest = all
        .into_iter()
        .max_by_key(|at| node::generation(&read(disk, at.0)));
    newest.expect("a leaf")
}

fn is_damage<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

fn mount_read_only(disk: &SimDisk) -> Result<SimVolume, Error> {
    Volume::mount(disk.clone(), &MountOptions { read_only: true })
}

#[test]
fn damaged_node_is_seen() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = create(&volume, "file");
    volume.unmount().expect("unmount");
    disk.damage(newest_leaf(&disk), |block| {
        // The last byte of the first value: one that no other rule is about.
        let data = node::leaf_data_mut(block, 0);
        *data.last_mut().expect("value") ^= 1;
    });
    let volume = mount_read_only(&disk).expect("mount");
    assert!(is_damage(volume.inode(id)));
    assert_eq!(volume.fault(), Some("damage found"));
}

/// A write that the device acknowledged and lost: the block has the node that was there before,
/// whole, at its place, of the same tree and level.
#[test]
fn stale_node_is_seen() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    create(&volume, "first");
    volume.commit().expect("commit");
    let mut old = read(&disk, newest_leaf(&disk).0);
    create(&volume, "second");
    volume.unmount().expect("unmount");
    let block = newest_leaf(&disk);
    let generation = node::generation(&old);
    assert!(generation < node::generation(&read(&disk, block.0)));
    node::readdress(&mut old, Ptr { block, generation }, 0);
    node::seal(&mut old);
    disk.damage(block, |block| *block = old);
    let volume = mount_read_only(&disk).expect("mount");
    assert!(is_damage(volume.inode(root(&volume))));
}

/// A write that went to another place: two nodes of the same tree kind, level and generation.
#[test]
fn misdirected_node_is_seen() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    create(&volume, "before");
    let copy = common::snapshot(&volume, b"snapshot");
    volume.commit().expect("commit");
    let before: Vec<_> = leaves(&disk);
    create(&volume, "in the source");
    let top = InodeId {
        subvol: copy,
        ..root(&volume)
    };
    let new = new_inode(0o100644, at(3));
    volume.create(top, b"in the copy", &new).expect("create");
    volume.unmount().expect("unmount");
    let new: Vec<_> = leaves(&disk);
    let new: Vec<_> = new.iter().filter(|at| !before.contains(at)).collect();
    let [a, b] = new[..] else { panic!("{new:?}") };
    let (in_a, in_b) = (read(&disk, a.0), read(&disk, b.0));
    assert_eq!(node::generation(&in_a), node::generation(&in_b));
    disk.damage(*a, |block| *block = in_b);
    disk.damage(*b, |block| *block = in_a);
    let volume = mount_read_only(&disk).expect("mount");
    assert!(is_damage(volume.lookup(root(&volume), b"in the source")));
}

#[test]
fn damaged_bitmap_is_seen() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = create(&volume, "file");
    let run = write(&disk, &volume, id, 64);
    volume.unmount().expect("unmount");
    // Blocks of the file, and as many that are free: no count tells.
    let (used, free) = ((run.start.0 + 32) as usize / 8, 2500 / 8);
    let places = Geometry::of_volume(SMALL)
        .expect("geometry")
        .bitmap_places(0);
    for place in places {
        disk.damage(BlockNr(place), |bits| bits.swap(used, free));
    }
    let volume = mount(&disk);
    let new = new_inode(0o100644, at(3));
    assert!(is_damage(volume.create(root(&volume), b"other", &new)));
}

/// Damage that keeps a volume from being mounted is the mount's error, with the block and the rule, and
/// its caller's to log. That of both places of a bitmap, or of a node, is met by whatever needs it, and
/// is told once.
#[test]
fn damage_is_told_once() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = create(&volume, "file");
    write(&disk, &volume, id, 64);
    volume.unmount().expect("unmount");
    let bitmaps = Geometry::of_volume(SMALL)
        .expect("geometry")
        .bitmap_places(0);
    let damaged = |blocks: &[u64]| {
        let disk = SimDisk::with_image(SMALL, disk.image());
        for at in blocks {
            disk.damage(BlockNr(*at), |block| block[4000] ^= 1);
        }
        disk
    };
    let (new, leaf) = (new_inode(0o100644, at(3)), newest_leaf(&disk));

    let volume = mount(&damaged(&bitmaps));
    let ((), lines) = captured(|| {
        for name in ["one", "two", "three"] {
            let _ = volume.create(root(&volume), name.as_bytes(), &new);
            assert!(volume.commit().is_err());
        }
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    let told = |words: &[&str]| words.iter().all(|word| lines[0].contains(word));
    assert!(
        told(&[
            "(simulated disk)",
            "corrupt: block",
            "bitmap",
            "no more changes"
        ]),
        "{lines:?}"
    );

    let volume = mount(&damaged(&[leaf.0]));
    let ((), lines) = captured(|| {
        for _ in 0..3 {
            assert!(is_damage(volume.inode(id)));
            assert!(is_damage(volume.lookup(root(&volume), b"file")));
        }
    });
    let expected = format!(
        "(simulated disk): damage found (corrupt: block {leaf}: node checksum), no more changes"
    );
    assert_eq!(lines, [expected]);

    let forest = common::newest(&disk).forest.block.get();
    let (mounted, lines) = captured(|| mount_read_only(&damaged(&[forest])).err());
    let expected = Error::corrupt(BlockNr(forest), "node checksum");
    assert_eq!((mounted, lines), (Some(expected), Vec::new()));
}

/// What is below a shared node counts as shared. When the node's count fell it still does, also when that node was copied since:
/// after a crash the other owner has it again.
#[test]
fn shared_nodes_share_what_is_below() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    // The file's leaf is not one that making and deleting the snapshot's name changes.
    let files: Vec<_> = (0..300)
        .map(|i| create(&volume, &format!("file {i}")))
        .collect();
    let id = files[150];
    write(&disk, &volume, id, 8);
    let shared = || match volume.map(id, FileBlock(0), 8).expect("map").backing {
        Backing::Written { shared, .. } => shared,
        other => panic!("{other:?}"),
    };
    let copy = common::snapshot(&volume, b"snapshot");
    volume.commit().expect("commit");
    assert!(shared());
    volume
        .delete_subvolume(root(&volume), b"snapshot", at(5))
        .expect("delete");
    while !volume.drop_step(copy).expect("drop_step").value {}
    let change = AttrChange {
        uid: Some(9),
        ..AttrChange::default()
    };
    volume.set_attr(id, &change).expect("set_attr");
    assert!(shared());
    volume.commit().expect("commit");
    assert!(!shared());
}

/// What is at the end of a device that is larger than its volume may be left of an older volume, or a
/// file's data: neither a mount nor the checker takes it for a super block.
#[test]
fn a_super_block_at_the_end_of_a_larger_device_does_not_count() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    create(&volume, "file");
    volume.unmount().expect("unmount");
    let larger = SMALL + 20_000;
    let disk = SimDisk::with_image(larger, disk.image());
    for slot in 0..2 {
        let mut forged = common::newest(&disk);
        forged.generation = (forged.generation.get() + 1000).into();
        forged.blocks = larger.into();
        forged.forest.block = 77.into();
        let at = Geometry::for_device(larger).expect("geometry").mirror(slot);
        disk.damage(BlockNr(at), |block| {
            block.copy_from_slice(forged.as_bytes());
            super_block::seal(block, at).expect("seal");
        });
    }
    common::assert_clean(&disk);
    let volume = mount(&disk);
    assert!(volume
        .lookup(root(&volume), b"file")
        .expect("lookup")
        .is_some());
}

/// The loss of any one copy of the super block costs nothing.
#[test]
fn any_one_copy_of_the_super_block_may_be_lost() {
    for commits in 1..4 {
        let disk = formatted(SMALL);
        let volume = mount(&disk);
        for i in 0..commits {
            create(&volume, &format!("file {i}"));
            volume.commit().expect("commit");
        }
        let image = disk.image();
        for at in Geometry::of_volume(SMALL).expect("geometry").super_copies() {
            let disk = SimDisk::with_image(SMALL, image.clone());
            disk.damage(BlockNr(at), |block| block[100..2000].fill(0xa5));
            let volume = mount_read_only(&disk).expect("mount");
            let name = format!("file {}", commits - 1);
            let found = volume.lookup(root(&volume), name.as_bytes());
            assert!(found.expect("lookup").is_some(), "block {at}");
        }
    }
}

/// Stages all blocks that can be had.
fn stage_all(volume: &SimVolume, id: InodeId) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut want = 4096;
    while want > 0 {
        match volume.reserve(want) {
            Ok(()) => {
                let run = volume.stage(id, FileBlock(0), want).expect("stage");
                volume.unreserve(want - run.len);
                runs.push(run);
            }
            Err(Error::NoSpace) => want /= 2,
            Err(error) => panic!("{error}"),
        }
    }
    runs
}

/// The last block of each group that was never written: what is fixed there is never handed out.
#[test]
fn last_blocks_are_not_handed_out_when_they_are_fixed() {
    const BLOCKS: u64 = 2 * 32768 + 4096;
    let geometry = Geometry::of_volume(BLOCKS).expect("geometry");
    let disk = formatted(BLOCKS);
    let volume = mount(&disk);
    let id = create(&volume, "file");
    let runs = stage_all(&volume, id);
    assert!(runs.iter().map(|run| run.len).sum::<u64>() > BLOCKS / 10 * 8);
    for run in runs {
        assert!(geometry.may_hold(run.start.0, run.len), "{run}");
    }
}

/// A change that there is no room for is refused as a whole, and what is full can be emptied.
#[test]
fn full_volume_refuses_and_deletes() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = create(&volume, "data");
    // All that data can have, and then all that names can have.
    let staged = stage_all(&volume, id);
    let new = new_inode(0o100644, at(3));
    let (mut names, name) = (0u64, |i: u64| format!("{i:0200}").into_bytes());
    let refused = loop {
        match volume.create(root(&volume), &name(names), &new) {
            Ok(_) => names += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, Error::NoSpace);
    assert_eq!(volume.fault(), None);
    volume.commit().expect("commit");
    for i in 0..names {
        let gone = volume
            .unlink(root(&volume), &name(i), at(4))
            .expect("unlink");
        while !volume.finish_orphan(gone.value.id).expect("finish").value {}
    }
    staged.into_iter().for_each(|run| volume.unstage(run));
    volume.unmount().expect("unmount");
    common::assert_clean(&disk);
}

/// A node whose block was freed is not in the cache any more.
#[test]
fn cache_forgets_freed_nodes() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    for i in 0..300 {
        create(&volume, &format!("file {i}"));
        volume.commit().expect("commit");
    }
    let nodes = check(&disk).expect("check").nodes as usize;
    assert!(volume.cached_nodes() <= nodes, "{nodes} nodes");
}

/// The first free block from `goal` on.
fn stage_near(volume: &SimVolume, goal: BlockNr) -> Run {
    let staged = volume.update(Cost::SMALL, |txn| {
        let run = txn.state.space.stage(txn.store, Some(goal.0), 1)?;
        txn.state.space.unstage(run);
        Ok(run)
    });
    staged.expect("stage").value
}

/// What a direct read that began earlier may still read is not handed out.
#[test]
fn direct_read_keeps_its_blocks() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = create(&volume, "file");
    let run = write(&disk, &volume, id, 100);
    volume.commit().expect("commit");
    let ticket = volume.begin_read().expect("begin_read");
    let map = volume.map(id, FileBlock(0), 100).expect("map");
    assert!(matches!(map.backing, Backing::Written { at, .. } if at == run.start));
    while !volume.truncate(id, 0, at(5)).expect("truncate").value {}
    volume.commit().expect("commit");
    let next = || stage_near(&volume, run.start).start;
    assert!(next().0 >= run.end());
    volume.end_read(ticket);
    assert_eq!(next(), run.start);
}

/// The first 8 blocks of `source`, to be the first ones of `target` as well.
fn clone_of_8(source: InodeId, target: InodeId) -> CloneRange {
    CloneRange {
        source,
        from: FileBlock(0),
        target,
        to: FileBlock(0),
        len: 8,
    }
}

/// What it may still read is not written in place by who is left as the only owner.
#[test]
fn direct_read_keeps_what_another_owns() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let (source, target) = (create(&volume, "file"), create(&volume, "clone"));
    write(&disk, &volume, source, 8);
    let clone = clone_of_8(source, target);
    assert_eq!(volume.clone_range(&clone).expect("clone").value, 8);
    volume.commit().expect("commit");
    let ticket = volume.begin_read().expect("begin_read");
    write(&disk, &volume, target, 8);
    let is_shared = || {
        let map = volume.map(source, FileBlock(0), 8).expect("map");
        matches!(map.backing, Backing::Written { shared, .. } if shared)
    };
    volume.commit().expect("commit");
    let later = volume.begin_read().expect("begin_read");
    assert!(is_shared());
    volume.end_read(ticket);
    assert!(!is_shared());
    volume.end_read(later);
}

#[test]
fn active_swapfile_keeps_its_blocks() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let (id, other) = (create(&volume, "swap"), create(&volume, "other"));
    write(&disk, &volume, id, 32);
    volume.set_swapping(id, true).expect("pin");
    let plan = volume.plan_swap(id, 32).expect("plan");
    plan.apply(&[1; 4096]).expect("swapon");
    let active = Some(Error::SwapActive);
    assert_eq!(volume.truncate(id, 0, at(5)).err(), active);
    assert_eq!(volume.punch(id, FileBlock(3), 4).err(), active);
    assert_eq!(volume.prepare_write(id, FileBlock(3), 1).err(), active);
    for (source, target) in [(id, other), (other, id)] {
        let clone = clone_of_8(source, target);
        assert_eq!(volume.clone_range(&clone).err(), active);
    }
    volume.set_swapping(id, false).expect("unpin");
    while !volume.truncate(id, 0, at(5)).expect("truncate").value {}
}
