// SPDX-License-Identifier: GPL-2.0

//! The checker's rules about subvolumes, each broken by itself: the homes of subvolumes, and what
//! the generation of a last snapshot promises.

use crate::common::{assert_clean, at, formatted, mount, new_inode, SMALL};
use oxfs::check::check;
use oxfs::engine::data::Written;
use oxfs::engine::device::BlockDevice;
use oxfs::engine::format::{
    item_kind, tree_kind, ExtentItem, ForestItem, Geometry, InodeItem, RootItem, SuperBlock,
};
use oxfs::engine::node::{self, Key};
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{root_of, NewSubvolume, TOP};
use oxfs::engine::super_block;
use oxfs::engine::types::{BlockNr, FileBlock, InodeId, SubvolId, INODE_SUBVOLUME};
use oxfs::platform::Block;
use oxfs::sim::SimDisk;
use std::collections::BTreeSet;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Subvolume 1 hangs in the top level, 2 in 1; 3 is a snapshot of 1, 4 is being dropped.
struct Made {
    disk: SimDisk,
    /// What stands for them in the top level and in 1.
    outer: InodeId,
    inner: InodeId,
    /// A file of 1, and of 3.
    file: InodeId,
}

fn make() -> Made {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let subvolume = |dir, name: &[u8]| {
        let new = NewSubvolume {
            dir,
            name,
            root: new_inode(0o040755, at(2)),
            uuid: [4; 16],
        };
        volume.create_subvolume(&new).expect("subvolume").value.id
    };
    let a = subvolume(root_of(TOP), b"a");
    let b = subvolume(a, b"b");
    let new = new_inode(0o100600, at(3));
    let file = volume.create(a, b"file", &new).expect("create").value.id;
    volume.reserve(2).expect("reserve");
    let run = volume.stage(file, FileBlock(0), 2).expect("stage");
    volume
        .finish_write(
            file,
            FileBlock(0),
            2,
            Written::Staged(run.start),
            Some(8192),
        )
        .expect("finish_write");
    let snapshot = |name: &[u8]| {
        let new = NewSnapshot {
            source: a.subvol,
            dir: root_of(TOP),
            name,
            read_only: true,
            uuid: [5; 16],
            time: at(4),
        };
        volume.snapshot(&new).expect("snapshot");
    };
    snapshot(b"copy");
    snapshot(b"dropped");
    volume
        .delete_subvolume(root_of(TOP), b"dropped", at(5))
        .expect("delete");
    volume.unmount().expect("unmount");
    let home = |id| volume.subvolume(id).expect("subvolume").home.expect("home");
    let (outer, inner) = (home(a.subvol), home(b.subvol));
    drop(volume);
    assert_clean(&disk);
    Made {
        disk,
        outer,
        inner,
        file,
    }
}

fn read(disk: &SimDisk, at: u64) -> Block {
    let mut block = [0; 4096];
    disk.read(BlockNr(at), &mut block).expect("read");
    block
}

fn forest(disk: &SimDisk) -> RootItem {
    let copies = Geometry::of_volume(SMALL).expect("geometry").super_copies();
    let all = copies.map(|at| SuperBlock::read_from_bytes(&read(disk, at)).expect("super block"));
    let newest = all.into_iter().max_by_key(|sb| sb.generation.get());
    newest.expect("four copies").forest
}

fn tree(disk: &SimDisk, id: SubvolId) -> RootItem {
    let leaf = read(disk, forest(disk).block.get());
    let slot = node::leaf_search(&leaf, &Key::new(id.0, item_kind::FOREST, 0)).expect("item");
    ForestItem::read_from_bytes(node::leaf_data(&leaf, slot))
        .expect("forest item")
        .root
}

/// Changes an item of a tree that is one leaf.
fn change<T>(disk: &SimDisk, root: RootItem, key: Key, f: impl FnOnce(&mut T))
where
    T: FromBytes + IntoBytes + KnownLayout + Immutable,
{
    assert_eq!(root.level, 0);
    disk.damage(BlockNr(root.block.get()), |leaf| {
        let slot = node::leaf_search(leaf, &key).expect("item");
        f(T::mut_from_prefix(node::leaf_data_mut(leaf, slot))
            .expect("item")
            .0);
        node::seal(leaf);
    });
}

fn subvolume(disk: &SimDisk, id: u64, f: impl FnOnce(&mut ForestItem)) {
    change(disk, forest(disk), Key::new(id, item_kind::FOREST, 0), f);
}

fn inode(disk: &SimDisk, id: InodeId, f: impl FnOnce(&mut InodeItem)) {
    let key = Key::new(id.ino.0, item_kind::INODE, 0);
    change(disk, tree(disk, id.subvol), key, f);
}

/// A name, the damage, and the rules that it breaks.
type Case = (&'static str, fn(&Made), &'static [&'static str]);

const CASES: &[Case] = &[
    (
        "the top level has a home",
        |made| {
            subvolume(&made.disk, 0, |item| {
                item.home_ino = made.outer.ino.0.into();
            });
        },
        &["home-stale"],
    ),
    (
        "one that is being dropped has a home",
        |made| subvolume(&made.disk, 4, |item| item.home_ino = 99.into()),
        &["home-stale"],
    ),
    (
        "no home",
        |made| subvolume(&made.disk, 2, |item| item.home_ino = 0.into()),
        &["home-missing"],
    ),
    (
        "a home that is not there",
        |made| subvolume(&made.disk, 2, |item| item.home_ino = 9999.into()),
        &["home-unmarked"],
    ),
    (
        "a home in another subvolume",
        |made| subvolume(&made.disk, 2, |item| item.home_subvolume = 3.into()),
        // What a snapshot copied is marked as well: two could claim the subvolume. But the
        // snapshot is not where it hangs, and its copy is as good a place as the first one.
        &[],
    ),
    (
        "a home that stands for another one",
        |made| inode(&made.disk, made.inner, |item| item.rdev = 7.into()),
        &["home-unmarked"],
    ),
    (
        "a home without the mark",
        |made| {
            inode(&made.disk, made.outer, |item| {
                item.flags = (item.flags.get() & !INODE_SUBVOLUME).into();
            });
        },
        &["home-unmarked"],
    ),
    (
        "a file with the mark",
        |made| {
            inode(&made.disk, made.file, |item| {
                item.flags = (item.flags.get() | INODE_SUBVOLUME).into();
            });
        },
        &["home-flag"],
    ),
    (
        "a subvolume that hangs in itself",
        |made| {
            subvolume(&made.disk, 1, |item| {
                item.home_subvolume = 1.into();
                item.home_ino = made.inner.ino.0.into();
            });
            inode(&made.disk, made.inner, |item| item.rdev = 1.into());
        },
        &["home-loop", "home-unmarked"],
    ),
    (
        "the default subvolume is being dropped",
        |made| {
            for at in Geometry::of_volume(SMALL).expect("geometry").super_copies() {
                made.disk.damage(BlockNr(at), |block| {
                    let sb = super_block::parse_mut(block).expect("super block");
                    sb.default_subvolume = 4.into();
                    super_block::seal(block, at).expect("seal");
                });
            }
        },
        &["forest-default"],
    ),
    (
        "shared nodes and extents from after the last snapshot",
        |made| subvolume(&made.disk, 3, |item| item.last_snapshot = 1.into()),
        &["node-snapshot", "extent-snapshot"],
    ),
    (
        "a shared extent from after the last snapshot",
        |made| {
            let key = Key::new(made.file.ino.0, item_kind::EXTENT, 0);
            let root = tree(&made.disk, made.file.subvol);
            let mut last = 0;
            subvolume(&made.disk, 1, |item| last = item.last_snapshot.get());
            // The generation that the checker takes for the present one is no older.
            change(&made.disk, root, key, |item: &mut ExtentItem| {
                item.generation = (last + 1).into();
            });
        },
        &["extent-snapshot"],
    ),
];

#[test]
fn each_rule_is_named() {
    for (what, damage, rules) in CASES {
        let made = make();
        damage(&made);
        let report = check(&made.disk).expect("check");
        let found: BTreeSet<_> = report.faults.iter().map(|fault| fault.rule).collect();
        let expected: BTreeSet<_> = rules.iter().copied().collect();
        assert_eq!(found, expected, "{what}: {:#?}", report.faults);
    }
}

/// A directory that stands for a subvolume has no entries of its own: damaged by giving a
/// subvolume another one's directory, which is in use.
#[test]
fn entries_in_a_home() {
    let made = make();
    let volume = mount(&made.disk);
    // What the snapshot copied is plain: it may have entries.
    volume
        .set_subvolume_read_only(SubvolId(3), false)
        .expect("writable");
    let plain = InodeId {
        subvol: SubvolId(3),
        ..made.inner
    };
    let new = new_inode(0o100600, at(6));
    volume.create(plain, b"new", &new).expect("create");
    volume.unmount().expect("unmount");
    assert_clean(&made.disk);
    subvolume(&made.disk, 2, |item| item.home_subvolume = 3.into());
    let report = check(&made.disk).expect("check");
    let rules: Vec<_> = report.faults.iter().map(|fault| fault.rule).collect();
    assert_eq!(rules, ["home-entries"]);
    assert_eq!(
        node::tree(&read(&made.disk, tree(&made.disk, TOP).block.get())),
        tree_kind::SUBVOLUME
    );
}
