// SPDX-License-Identifier: GPL-2.0

//! Volumes that become larger and smaller: everything is there afterwards, what was shared is shared,
//! and whatever is refused leaves all as it was. (That no cut of it breaks anything is in `crash`.)

use crate::common::world::{Found, World};
use crate::common::{
    assert_clean, at, formatted, mount, new_inode, root, snapshot, SimVolume, SMALL,
};
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::error::Error;
use oxfs::engine::format::{Geometry, GROUP_BLOCKS};
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::resize::Next;
use oxfs::engine::subvolume::root_of;
use oxfs::engine::super_block;
use oxfs::engine::types::{Backing, BlockNr, FileBlock, InodeId, SubvolId};
use oxfs::engine::xattr::XattrMode;
use oxfs::sim::SimDisk;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Sizes with mirrors near each other, in one group and in several.
const SIZES: [u64; 14] = [
    SMALL,
    SMALL + 1,
    SMALL + 16,
    SMALL + 17,
    SMALL + 1007,
    SMALL + 1008,
    SMALL + 1009,
    SMALL + 1025,
    8000,
    GROUP_BLOCKS,
    GROUP_BLOCKS + 2048,
    GROUP_BLOCKS + 3000,
    3 * GROUP_BLOCKS,
    5 * GROUP_BLOCKS + 20_000,
];

fn pattern(number: u64) -> [u8; 4096] {
    let mut block = [0; 4096];
    for (i, piece) in block.chunks_exact_mut(8).enumerate() {
        piece.copy_from_slice(&(number * 512 + i as u64).to_le_bytes());
    }
    block
}

fn create(volume: &SimVolume, name: &str) -> InodeId {
    let new = new_inode(0o100600, at(3));
    let made = volume.create(root(volume), name.as_bytes(), &new);
    made.expect("create").value.id
}

/// Removes a file with all that it has.
fn remove(volume: &SimVolume, name: &str) -> InodeId {
    let gone = volume.unlink(root(volume), name.as_bytes(), at(4));
    let id = gone.expect("unlink").value.id;
    while !volume.finish_orphan(id).expect("finish").value {}
    id
}

/// Writes blocks with numbers from `number` on to a file's blocks from `start` on, to new places.
fn write(volume: &SimVolume, id: InodeId, start: u64, len: u64, number: u64) -> Result<(), Error> {
    let mut done = 0;
    while done < len {
        volume.reserve(len - done)?;
        let run = volume.stage(id, FileBlock(start + done), len - done)?;
        volume.unreserve(len - done - run.len);
        for i in 0..run.len {
            let data = pattern(number + done + i);
            let block = BlockNr(run.start.0 + i);
            volume.device().write(&[Write { block, data: &data }])?;
        }
        let size = Some((start + done + run.len) * 4096);
        let place = Written::Staged(run.start);
        volume.finish_write(id, FileBlock(start + done), run.len, place, size)?;
        done += run.len;
    }
    Ok(())
}

/// Fails unless the file has these blocks.
#[track_caller]
fn expect(volume: &SimVolume, id: InodeId, start: u64, len: u64, number: u64) {
    let mut at = start;
    while at < start + len {
        let map = volume
            .map(id, FileBlock(at), start + len - at)
            .expect("map");
        let Backing::Written { at: block, .. } = map.backing else {
            panic!("{id}, block {at}: {map:?}");
        };
        for i in 0..map.len {
            let mut data = [0; 4096];
            let from = BlockNr(block.0 + i);
            volume.device().read(from, &mut data).expect("read");
            assert!(
                data == pattern(number + at - start + i),
                "{id}, block {at}+{i}"
            );
        }
        at += map.len;
    }
}

/// The last block that a file has.
fn highest(volume: &SimVolume, id: InodeId, len: u64) -> u64 {
    let (mut at, mut highest) = (0, 0);
    while at < len {
        let map = volume.map(id, FileBlock(at), len - at).expect("map");
        if let Backing::Written { at, .. } | Backing::Prealloc { at, .. } = map.backing {
            highest = highest.max(at.0 + map.len - 1);
        }
        at += map.len;
    }
    highest
}

fn resize(volume: &SimVolume, blocks: u64) -> Result<u64, Error> {
    let size = volume.begin_resize(blocks)?;
    let result = (0..10_000).find_map(|_| match volume.finish_resize() {
        Ok(Next::Done) => Some(Ok(size)),
        Ok(Next::Move) => match volume.move_step(&|| true) {
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        },
        Ok(Next::Wait) => {
            volume.commit().expect("commit");
            None
        }
        Err(error) => Some(Err(error)),
    });
    let result = result.expect("resizing ends");
    if result.is_err() {
        volume.cancel_resize();
    }
    result
}

/// A volume of one size on a disk of another.
fn on_larger_disk(blocks: u64, device: u64) -> SimDisk {
    SimDisk::with_image(device, formatted(blocks).image())
}

#[track_caller]
fn assert_size(disk: &SimDisk, volume: &SimVolume, blocks: u64) {
    assert_eq!(volume.statfs().blocks, blocks);
    assert_clean(disk);
    // Each slot with its mirror tells it: any one copy may be lost.
    for lost in Geometry::of_volume(blocks).expect("size").super_copies() {
        let damaged = SimDisk::with_image(disk.blocks(), disk.image());
        damaged.damage(BlockNr(lost), |block| block[100] ^= 1);
        assert_eq!(mount(&damaged).statfs().blocks, blocks, "without {lost}");
    }
}

/// Files that fill a volume up to `leave` blocks, and a few: their lengths.
fn fill(volume: &SimVolume, name: &str, leave: u64) -> Vec<(InodeId, u64)> {
    let mut files = Vec::new();
    loop {
        let room = volume.statfs().available.saturating_sub(leave);
        if room < 256 {
            volume.commit().expect("commit");
            return files;
        }
        let len = (room / 2).min(3000);
        let id = create(volume, &format!("{name} {}", files.len()));
        write(volume, id, 0, len, files.len() as u64 * 10_000).expect("write");
        files.push((id, len));
    }
}

#[test]
fn every_size_to_every_other() {
    let device = SIZES[SIZES.len() - 1];
    for from in SIZES {
        for to in SIZES {
            let disk = on_larger_disk(from, device);
            let volume = mount(&disk);
            let id = create(&volume, "file");
            write(&volume, id, 0, 300, 7).expect("write");
            assert_eq!(resize(&volume, to), Ok(to), "from {from}");
            assert_size(&disk, &volume, to);
            expect(&volume, id, 0, 300, 7);
            // The new room is there, and the old size as well.
            let more = create(&volume, "more");
            write(&volume, more, 0, 500, 9).expect("write");
            assert_eq!(resize(&volume, from), Ok(from), "from {to}");
            expect(&volume, more, 0, 500, 9);
            volume.unmount().expect("unmount");
            assert_size(&disk, &mount(&disk), from);
        }
    }
}

#[test]
fn a_full_volume_grows_and_is_used() {
    for (from, to) in [
        (SMALL, SMALL + 40),
        (SMALL, 8000),
        (8000, GROUP_BLOCKS + 2500),
    ] {
        let disk = on_larger_disk(from, to);
        let volume = mount(&disk);
        let files = fill(&volume, "old", 0);
        match resize(&volume, to) {
            Ok(size) => assert_eq!(size, to),
            // A few blocks more, and the mirror's place is in use: what is there has to find room.
            Err(error) => assert_eq!((error, to), (Error::NoSpace, SMALL + 40)),
        }
        let size = volume.statfs().blocks;
        assert_size(&disk, &volume, size);
        let more = fill(&volume, "new", 0);
        assert_clean(&disk);
        assert!(!more.is_empty() || to < 8000, "{from} to {to}");
        for (i, (id, len)) in files.iter().enumerate() {
            expect(&volume, *id, 0, *len, i as u64 * 10_000);
        }
    }
}

#[test]
fn a_smaller_size_moves_what_is_beyond_it() {
    for (from, to) in [
        (8000, 5000),
        (GROUP_BLOCKS + 4000, 14_000),
        (3 * GROUP_BLOCKS, GROUP_BLOCKS + 2048),
        (3 * GROUP_BLOCKS, GROUP_BLOCKS),
    ] {
        let disk = formatted(from);
        let volume = mount(&disk);
        let mut files = fill(&volume, "fill", from / 16);
        // Every other file goes, so that there is room in pieces.
        let count = files.len();
        for (i, (id, len)) in files.iter_mut().enumerate() {
            if i % 2 == 0 || i * 3 < count {
                let name = format!("fill {i}");
                assert_eq!(remove(&volume, &name), *id);
                *len = 0;
            }
        }
        volume.commit().expect("commit");
        let used = from - volume.statfs().free;
        assert!(used + 1300 < to, "{used} blocks used");
        assert_eq!(resize(&volume, to), Ok(to), "from {from}");
        assert_size(&disk, &volume, to);
        for (i, (id, len)) in files.iter().enumerate().filter(|(_, (_, len))| *len > 0) {
            expect(&volume, *id, 0, *len, i as u64 * 10_000);
            assert!(highest(&volume, *id, *len) < to);
        }
        drop(volume);
        // On a disk that ends there.
        let image = SimDisk::with_image(to, disk.image());
        assert_size(&image, &mount(&image), to);
    }
}

#[test]
fn what_is_shared_stays_shared() {
    let disk = formatted(16384);
    let volume = mount(&disk);
    // Room below, then what is partly beyond the end of the smaller volume.
    let pad = create(&volume, "pad");
    write(&volume, pad, 0, 5000, 70_000).expect("write");
    let across = create(&volume, "across");
    write(&volume, across, 0, 4000, 50_000).expect("write");
    let id = create(&volume, "first");
    write(&volume, id, 0, 1000, 1).expect("write");
    let clone = create(&volume, "clone");
    let mut done = 0;
    while done < 400 {
        done += volume
            .clone_range(&CloneRange {
                source: id,
                from: FileBlock(300 + done),
                target: clone,
                to: FileBlock(10 + done),
                len: 400 - done,
            })
            .expect("clone")
            .value;
    }
    for i in 0..300 {
        let id = create(&volume, &format!("small {i}"));
        write(&volume, id, 0, 1, 100_000 + i).expect("write");
    }
    remove(&volume, "pad");
    volume.commit().expect("commit");
    let snapshots: Vec<SubvolId> = (0..3)
        .map(|i| snapshot(&volume, format!("snap {i}").as_bytes()))
        .collect();
    volume.commit().expect("commit");
    assert!(highest(&volume, id, 1000) > 9000);
    let used = 16384 - volume.statfs().free;
    assert_eq!(resize(&volume, 9000), Ok(9000));
    assert_size(&disk, &volume, 9000);
    let now = 9000 - volume.statfs().free;
    assert!(now <= used + 8, "{used} blocks were used, now {now}");
    let in_snapshot = |id: InodeId| InodeId {
        subvol: snapshots[0],
        ..id
    };
    for id in [id, in_snapshot(id)] {
        expect(&volume, id, 0, 1000, 1);
    }
    expect(&volume, clone, 10, 400, 301);
    // What is shared is copied when it is written to, as before.
    for id in [id, clone] {
        let map = volume.map(id, FileBlock(310), 1).expect("map");
        assert!(!map.backing.is_exclusive());
    }
    write(&volume, id, 310, 5, 900_000).expect("write");
    volume.commit().expect("commit");
    expect(&volume, in_snapshot(id), 0, 1000, 1);
    expect(&volume, clone, 10, 400, 301);
    for id in [across, in_snapshot(across)] {
        expect(&volume, id, 0, 4000, 50_000);
    }
    assert_clean(&disk);
    assert!(volume.subvolume(snapshots[0]).is_ok());
    let names = volume.lookup(root_of(snapshots[0]), b"small 7");
    assert!(names.expect("lookup").is_some());
}

#[test]
fn an_active_swapfile_does_not_move() {
    let disk = formatted(16384);
    let volume = mount(&disk);
    let blocker = create(&volume, "blocker");
    write(&volume, blocker, 0, 6000, 9).expect("write");
    let swap = create(&volume, "swap");
    write(&volume, swap, 0, 2000, 1).expect("write");
    volume.set_swapping(swap, true).expect("set_swapping");
    let plan = volume.plan_swap(swap, 2000).expect("plan");
    plan.apply(&pattern(1)).expect("apply");
    volume.commit().expect("commit");
    let run = volume.swap_run(swap, 0, 2000).expect("run");
    assert_eq!(resize(&volume, 7000), Err(Error::Busy));
    assert_size(&disk, &volume, 16384);
    // Not over its blocks, and larger again.
    assert_eq!(resize(&volume, 12_000), Ok(12_000));
    assert_eq!(resize(&volume, 16384), Ok(16384));
    assert_eq!(volume.swap_run(swap, 0, 2000).expect("run"), run);
    assert_size(&disk, &volume, 16384);
    volume.set_swapping(swap, false).expect("set_swapping");
    remove(&volume, "blocker");
    assert_eq!(resize(&volume, 7000), Ok(7000));
    assert_size(&disk, &volume, 7000);
    // The header is the one that was written, and it can be swapped to again.
    expect(&volume, swap, 0, 1, 1);
    volume.set_swapping(swap, true).expect("set_swapping");
    let plan = volume.plan_swap(swap, 2000).expect("plan");
    plan.apply(&pattern(1)).expect("apply");
    assert_clean(&disk);
}

#[test]
fn what_cannot_be_is_refused() {
    let disk = on_larger_disk(8000, 9000);
    let volume = mount(&disk);
    let files = fill(&volume, "fill", 100);
    let free = volume.statfs().free;
    let before = disk.writes();
    assert_eq!(resize(&volume, 9001), Err(Error::FileTooBig));
    assert!(matches!(resize(&volume, SMALL - 1), Err(Error::Invalid(_))));
    assert_eq!(resize(&volume, SMALL), Err(Error::NoSpace));
    assert_eq!(disk.writes(), before, "something was written");
    assert_eq!(volume.statfs().free, free);
    assert_eq!(volume.begin_resize(9000), Ok(9000));
    assert_eq!(volume.begin_resize(9000), Err(Error::Busy));
    volume.cancel_resize();
    assert_eq!(volume.statfs().free, free);
    assert_size(&disk, &volume, 8000);
    for (i, (id, len)) in files.iter().enumerate() {
        expect(&volume, *id, 0, *len, i as u64 * 10_000);
    }
    // Rounded down: no last group is that small.
    let disk = on_larger_disk(8000, GROUP_BLOCKS + 2047);
    let volume = mount(&disk);
    assert_eq!(resize(&volume, GROUP_BLOCKS + 2047), Ok(GROUP_BLOCKS));
    assert_size(&disk, &volume, GROUP_BLOCKS);
}

/// A reader that looked up where to read keeps the blocks, and the size, until it has read.
#[test]
fn a_reader_is_waited_for() {
    let disk = formatted(9000);
    let volume = mount(&disk);
    let blocker = create(&volume, "blocker");
    write(&volume, blocker, 0, 4000, 9).expect("write");
    let id = create(&volume, "file");
    write(&volume, id, 0, 500, 1).expect("write");
    remove(&volume, "blocker");
    volume.commit().expect("commit");
    let ticket = volume.begin_read().expect("begin_read");
    let old = volume.map(id, FileBlock(0), 1).expect("map");
    volume.begin_resize(SMALL).expect("begin");
    while volume.finish_resize() == Ok(Next::Move) {
        volume.move_step(&|| true).expect("move_step");
    }
    assert_eq!(volume.finish_resize(), Ok(Next::Wait));
    let Backing::Written { at: block, .. } = old.backing else {
        panic!("{old:?}");
    };
    let mut data = [0; 4096];
    disk.read(block, &mut data).expect("read");
    assert!(data == pattern(1));
    volume.end_read(ticket);
    assert_eq!(volume.finish_resize(), Ok(Next::Done));
    expect(&volume, id, 0, 500, 1);
    assert_size(&disk, &volume, SMALL);
}

/// What looks like a super block and lies where a mirror will be is never believed.
#[test]
fn nobody_else_becomes_a_mirror() {
    const FORGED: u64 = 1 << 40;
    for (from, to) in [(9000, 6000), (9000, 8500), (8000, 8900)] {
        let disk = on_larger_disk(from, 9000);
        let geometry = Geometry::of_volume(to).expect("size");
        let (newest, _) = super_block::read_newest(&disk, false).expect("super block");
        for slot in [0, 1] {
            let mut forged = newest.clone();
            super_block::parse_mut(&mut forged)
                .expect("parse")
                .generation = FORGED.into();
            super_block::seal(&mut forged, geometry.mirror(slot)).expect("seal");
            let block = BlockNr(geometry.mirror(slot));
            let data = &forged;
            disk.write(&[Write { block, data }]).expect("write");
        }
        let volume = mount(&disk);
        write(&volume, create(&volume, "file"), 0, 300, 7).expect("write");
        disk.record();
        assert_eq!(resize(&volume, to), Ok(to));
        let mut cuts = 0;
        disk.history().expect("history").cuts(|at, cut| {
            for kept in [0, 8] {
                let left = cut.disk(|_| kept);
                let (found, geometry) = super_block::read_newest(&left, false).expect("newest");
                let found = super_block::parse(&found).expect("parse");
                assert!(found.generation.get() < FORGED, "{from} to {to}, cut {at}");
                assert!([from, to].contains(&geometry.blocks));
                cuts += 1;
            }
        });
        assert!(cuts > 20, "{cuts}");
    }
}

/// A volume without a block to spare, its reserve taken into, can grow.
#[test]
fn a_volume_without_a_free_block_grows() {
    // The second time a mirror will be where a file's last block is.
    for to in [9000, SMALL + 1024] {
        grow_without_a_free_block(to);
    }
}

fn grow_without_a_free_block(to: u64) {
    let disk = on_larger_disk(SMALL, 9000);
    let volume = mount(&disk);
    fill(&volume, "old", 0);
    let id = create(&volume, "blocks");
    let full = (0..5000).find(|i| write(&volume, id, 2 * i, 1, *i) == Err(Error::NoSpace));
    assert!(full.is_some());
    volume.commit().expect("commit");
    // What gives space back, or changes what is there, may go on for some time.
    let mut changed = 0;
    while changed < 500
        && volume
            .set_xattr(
                id,
                b"user.x",
                Some(&[changed as u8; 900]),
                XattrMode::Any,
                at(5),
            )
            .is_ok()
    {
        changed += 1;
    }
    volume.commit().expect("commit");
    assert_eq!(resize(&volume, to), Ok(to));
    assert_size(&disk, &volume, to);
    write(&volume, id, 10_000, (to - SMALL) / 4, 1).expect("write");
}

/// An extent that many files have, in leaves that are full, is cut in three by a new mirror in its
/// middle: there is room for all that this takes, or it is refused as a whole.
#[test]
fn a_mirror_amid_an_extent_of_many_files() {
    let mut refused = 0;
    for leave in (0..2700).step_by(100) {
        let disk = on_larger_disk(16384, 20_000);
        let volume = mount(&disk);
        let low = fill(&volume, "low", 1500);
        let source = create(&volume, "source");
        let len = 1200;
        write(&volume, source, 0, len, 7).expect("write");
        assert!(highest(&volume, source, len) > 16384 - 525);
        for i in 0..low.len() {
            remove(&volume, &format!("low {i}"));
        }
        for i in 0..12_000 {
            let clone = CloneRange {
                source,
                from: FileBlock(0),
                target: create(&volume, &format!("{i}")),
                to: FileBlock(0),
                len,
            };
            assert_eq!(volume.clone_range(&clone).expect("clone").value, len);
        }
        volume.commit().expect("commit");
        fill(&volume, "high", leave);
        let result = resize(&volume, 16884);
        assert!(matches!(result, Ok(16884) | Err(Error::NoSpace)));
        assert_eq!(volume.fault(), None, "{leave}");
        refused += u32::from(result.is_err());
        volume.commit().expect("commit");
        assert_clean(&disk);
    }
    assert!((5..25).contains(&refused), "{refused}");
}

/// A size that is refused is never seen by those who write.
#[test]
fn a_refusal_disturbs_nobody() {
    let disk = formatted(9000);
    let volume = mount(&disk);
    fill(&volume, "fill", 300);
    let id = create(&volume, "file");
    write(&volume, id, 0, 40, 0).expect("write");
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(Relaxed) {
                assert_eq!(resize(&volume, 7000), Err(Error::NoSpace));
            }
        });
        for round in 0..2000 {
            let result = write(&volume, id, round % 8, 20, round);
            if result.is_err() {
                done.store(true, Relaxed);
            }
            assert_eq!(result, Ok(()), "round {round}");
        }
        done.store(true, Relaxed);
    });
    volume.commit().expect("commit");
    assert_size(&disk, &volume, 9000);
}

/// Who is killed leaves all as it was.
#[test]
fn a_step_can_be_interrupted() {
    let disk = formatted(9000);
    let volume = mount(&disk);
    let blocker = create(&volume, "blocker");
    write(&volume, blocker, 0, 5500, 9).expect("write");
    let id = create(&volume, "file");
    write(&volume, id, 0, 500, 1).expect("write");
    remove(&volume, "blocker");
    volume.commit().expect("commit");
    let before = volume.statfs();
    for looks in 0..5 {
        assert_eq!(volume.begin_resize(SMALL), Ok(SMALL));
        let left = Cell::new(looks);
        let goes_on = || left.replace(left.get() - 1) > 0;
        assert_eq!(volume.finish_resize(), Ok(Next::Move));
        assert_eq!(volume.move_step(&goes_on), Err(Error::Interrupted));
        volume.cancel_resize();
        assert_eq!(volume.statfs(), before);
    }
    expect(&volume, id, 0, 500, 1);
    assert_size(&disk, &volume, 9000);
}

#[test]
fn random_histories() {
    for seed in 1000..1060 {
        let device = if seed % 3 == 0 {
            GROUP_BLOCKS + 2500
        } else {
            6500
        };
        let disk = formatted(device);
        let mut world = World::resizing(disk.clone(), seed);
        for step in 0..150 {
            world.step();
            if step % 10 == 9 {
                world.commit();
                assert_clean(&disk);
                let state = world.last_state();
                assert_ne!(
                    world.look(&disk, Some(state)),
                    Found::Nothing,
                    "seed {seed}"
                );
            }
        }
    }
}
