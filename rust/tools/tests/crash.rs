// SPDX-License-Identifier: GPL-2.0

//! Every crash point: seeded histories on a disk that records, the power cut at every write, and
//! after each cut the volume must be what was last acknowledged or what the commit under way would
//! have made it, with no fault that the checker can find, and must go on working.
//!
//! `OXFS_CRASH_SECONDS=N` goes on with new histories for so long (`make crash HOURS=...`), from number
//! `OXFS_CRASH_SEED` on if that is set.

use crate::common::world::{Found, World};
use crate::common::{self, assert_clean, formatted, mount, number, Random, SMALL};
use oxfs::check::check;
use oxfs::engine::inode::NewInode;
use oxfs::engine::subvolume::TOP;
use oxfs::engine::super_block::is_whole;
use oxfs::engine::types::{InodeId, SubvolId};
use oxfs::sim::{Cut, History, SimDisk};
use std::fmt;
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Histories of a run that is not told how long to go on.
const HISTORIES: u64 = 72;
/// A volume of two groups.
const TWO_GROUPS: u64 = 32768 + 2048;

/// What was tried.
#[derive(Debug, Default)]
struct Tried {
    histories: AtomicU64,
    cuts: AtomicU64,
    disks: AtomicU64,
    recoveries: AtomicU64,
}

impl Tried {
    fn count(what: &AtomicU64) {
        what.fetch_add(1, Relaxed);
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [histories, cuts, disks, recoveries] =
            [&self.histories, &self.cuts, &self.disks, &self.recoveries].map(|n| n.load(Relaxed));
        write!(
            f,
            "{histories} histories, cut at {cuts} points: {disks} disks mounted, {recoveries} \
             recoveries cut as well"
        )
    }
}

/// A volume that has room to shrink.
const ROOMY: u64 = 7000;

/// How much of each cached write arrives, for the interesting ones of all possibilities.
fn choices(cut: &Cut, random: &mut Random) -> Vec<Vec<usize>> {
    let n = cut.cached.len();
    let mut all = vec![vec![0; n]];
    if n == 0 {
        return all;
    }
    all.push(vec![8; n]);
    if n <= 4 {
        // All subsets.
        all.extend((1..(1 << n) - 1).map(|set: usize| {
            (0..n)
                .map(|i| if (set >> i) & 1 == 1 { 8 } else { 0 })
                .collect()
        }));
    } else {
        // The last one alone, all but the last one, and some at random.
        all.push((0..n).map(|i| if i + 1 == n { 8 } else { 0 }).collect());
        for _ in 0..2 {
            all.push(
                (0..n)
                    .map(|_| if random.below(2) == 0 { 8 } else { 0 })
                    .collect(),
            );
        }
    }
    // The block that was being written is torn, a super block at every sector.
    let mut torn = |sectors: usize| {
        all.push(
            (0..n)
                .map(|i| if i + 1 == n { sectors } else { 8 })
                .collect(),
        );
    };
    match cut.cached.last() {
        Some((block, data)) if is_whole(data, block.0) => (1..8).for_each(torn),
        _ => torn(1 + random.below(7) as usize),
    }
    all
}

/// Mounts what a cut left behind, compares it with what may be there, and works on it.
fn recover(disk: &SimDisk, world: &World, cut: &Cut, tried: &Tried, random: &mut Random) {
    Tried::count(&tried.disks);
    assert_clean(disk);
    let state = world.find(disk, cut.mark);
    if random.below(64) != 0 {
        return;
    }
    // The recovery is cut as well.
    Tried::count(&tried.recoveries);
    disk.record();
    finish(disk);
    work_on(disk);
    let history = disk.history().expect("history");
    history.cuts(|_, inner| {
        let n = inner.cached.len();
        let torn = random.below(9) as usize;
        for keep in [0, 8, torn] {
            let disk = inner.disk(|i| {
                if i + 1 == n {
                    keep
                } else {
                    random.below(2) as usize * 8
                }
            });
            Tried::count(&tried.disks);
            assert_clean(&disk);
            assert!(
                world.is(&disk, state),
                "a crash in the recovery shows another state"
            );
        }
    });
}

/// What a mount goes on with: orphans, and subvolumes that were deleted.
fn finish(disk: &SimDisk) {
    let volume = mount(disk);
    let mut from = TOP;
    while let Some(info) = volume.next_subvolume(from).expect("next_subvolume") {
        let subvol = info.id;
        from = SubvolId(subvol.0 + 1);
        volume.open_subvolume(subvol).expect("open_subvolume");
        if info.dropping {
            while !volume.drop_step(subvol).expect("drop_step").value {
                volume.commit().expect("commit");
            }
            continue;
        }
        while let Some(ino) = volume.orphan_next(subvol, None).expect("orphan_next") {
            let id = InodeId { subvol, ino };
            while !volume.finish_orphan(id).expect("finish_orphan").value {}
        }
    }
    volume.commit().expect("commit");
    assert_eq!(volume.next_dropping(TOP), Ok(None));
}

/// The next commits work.
fn work_on(disk: &SimDisk) {
    let volume = mount(disk);
    let root = common::root(&volume);
    let new = NewInode {
        ..common::new_inode(0o100600, common::at(9))
    };
    volume
        .create(root, World::AFTER_CRASH, &new)
        .expect("create");
    volume.commit().expect("commit");
    volume
        .unlink(root, World::AFTER_CRASH, common::at(10))
        .expect("unlink");
    volume.unmount().expect("unmount");
    assert_clean(disk);
}

/// A history of `steps` operations on a small volume, recorded.
fn record(seed: u64, steps: usize, blocks: u64) -> (World, History) {
    let disk = formatted(blocks);
    disk.record();
    let world = World::new(disk.clone(), seed);
    record_world(world, &disk, steps)
}

fn record_world(mut world: World, disk: &SimDisk, steps: usize) -> (World, History) {
    for _ in 0..steps {
        world.step();
    }
    world.commit();
    let history = disk.history().expect("history");
    (world, history)
}

fn crash_everywhere(seed: u64, steps: usize, tried: &Tried) {
    let blocks = if seed % 4 == 3 { TWO_GROUPS } else { SMALL };
    let recorded = record(seed, steps, blocks);
    cut_everywhere(seed, &recorded, tried);
}

fn cut_everywhere(seed: u64, (world, history): &(World, History), tried: &Tried) {
    let mut random = Random(seed ^ 0xc0ffee);
    history.cuts(|_, cut| {
        Tried::count(&tried.cuts);
        for keep in choices(cut, &mut random) {
            recover(&cut.disk(|i| keep[i]), world, cut, tried, &mut random);
        }
    });
    Tried::count(&tried.histories);
}

/// Says it past the test harness, which keeps to itself what a test that passes prints.
fn say(what: &dyn fmt::Display) {
    let _ = writeln!(std::io::stderr(), "tried: {what}");
}

#[test]
fn every_cut_shows_a_committed_state() {
    let seconds = number("OXFS_CRASH_SECONDS").map(Duration::from_secs);
    let first = number("OXFS_CRASH_SEED").unwrap_or(0);
    let (start, tried) = (Instant::now(), Tried::default());
    let (next, said) = (AtomicU64::new(first), AtomicU64::new(0));
    let enough = |seed: u64| match seconds {
        Some(seconds) => start.elapsed() >= seconds,
        None => seed >= first + HISTORIES,
    };
    let work = || loop {
        let seed = next.fetch_add(1, Relaxed);
        if enough(seed) {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| crash_everywhere(seed, 90, &tried)));
        if let Err(panic) = result {
            eprintln!("seed {seed}, after {tried}");
            std::panic::resume_unwind(panic);
        }
        let minute = start.elapsed().as_secs() / 60;
        if said.fetch_max(minute, Relaxed) < minute {
            say(&format_args!("{tried}, now history {seed}"));
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    say(&tried);
    assert!(
        seconds.is_some() || tried.cuts.load(Relaxed) >= 20_000,
        "too few crash points: {tried}"
    );
}

/// The same while the volume gets larger and smaller.
#[test]
fn a_resize_may_be_cut_anywhere() {
    let tried = Tried::default();
    for seed in 0..24 {
        let blocks = if seed % 3 == 2 { TWO_GROUPS } else { ROOMY };
        let disk = formatted(blocks);
        disk.record();
        let world = World::resizing(disk.clone(), seed);
        cut_everywhere(seed, &record_world(world, &disk, 70), &tried);
    }
    say(&tried);
    assert!(tried.cuts.load(Relaxed) >= 5000, "too few: {tried}");
}

/// The test above sees a filesystem that forgets to flush: the same histories on a disk whose
/// flushes do nothing show broken volumes.
#[test]
fn a_missing_flush_is_seen() {
    let mut broken = 0;
    for seed in 0..6 {
        let (world, history) = record(seed, 40, SMALL);
        let mut random = Random(seed);
        history.without_flushes().cuts(|_, cut| {
            let keep: Vec<_> = cut
                .cached
                .iter()
                .map(|_| random.below(2) as usize * 8)
                .collect();
            let disk = cut.disk(|i| keep[i]);
            let good = check(&disk).is_ok_and(|report| report.is_clean())
                && world.look(&disk, cut.mark) != Found::Nothing;
            broken += u64::from(!good);
        });
    }
    assert!(broken > 100, "only {broken} broken volumes");
}

/// A write that fails stops all changes, and what was committed stays.
#[test]
fn a_failed_write_stops_changes() {
    for count in 0..60 {
        let disk = formatted(SMALL);
        let volume = mount(&disk);
        let root = common::root(&volume);
        let new = common::new_inode(0o100600, common::at(9));
        volume.create(root, b"before", &new).expect("create");
        volume.commit().expect("commit");
        for i in 0..200 {
            volume
                .create(root, format!("after{i}").as_bytes(), &new)
                .expect("create");
        }
        disk.fail_writes_after(Some(count));
        let committed = volume.commit().is_ok();
        disk.fail_writes_after(None);
        if !committed {
            assert!(volume.fault().is_some());
            let refused = volume.create(root, b"later", &new).map(drop);
            assert_eq!(refused, Err(oxfs::engine::Error::ReadOnly));
            // Nothing says later that it is durable.
            assert!(volume.commit().is_err());
        }
        drop(volume);
        assert_clean(&disk);
        let volume = mount(&disk);
        assert!(volume.lookup(root, b"before").expect("lookup").is_some());
        let after = volume.lookup(root, b"after7").expect("lookup").is_some();
        assert!(after || !committed, "a commit was acknowledged and lost");
    }
}
