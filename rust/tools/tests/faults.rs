// SPDX-License-Identifier: GPL-2.0

//! Each rule of the checker, broken by itself: exactly the rules that are expected are named, and
//! nothing is named on the intact volume.

#[path = "faults/more.rs"] // also for examples/hostile-images.rs
mod more;

use crate::common::{self, at, formatted, mount, new_inode, newest, root, SMALL};
use more::{Case, Unreadable, MORE};
use oxfs::check::check;
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::format::{
    extent_state, item_kind, tree_kind, DirentItem, ExtentItem, ForestItem, Geometry, InodeItem,
    OrphanItem, ParentItem, RefsItem, RootItem, SpaceItem, SuperBlock,
};
use oxfs::engine::inode::NewInode;
use oxfs::engine::node::{self, Key};
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::space::bitmap_crc;
use oxfs::engine::super_block;
use oxfs::engine::types::{AttrChange, BlockNr, FileBlock, Generation, InodeId};
use oxfs::engine::xattr::XattrMode;
use oxfs::platform::Block;
use oxfs::repair::repair;
use oxfs::sim::SimDisk;
use std::collections::BTreeSet;
use zerocopy::{FromBytes, IntoBytes};

/// The inodes of the test's volume.
struct Ids {
    dir: u64,
    file: u64,
    copy: u64,
    link: u64,
    swap: u64,
    dead: u64,
}

fn write(disk: &SimDisk, volume: &common::SimVolume, id: InodeId, start: u64, len: u64) {
    volume.reserve(len).expect("reserve");
    let run = volume.stage(id, FileBlock(start), len).expect("stage");
    assert_eq!(run.len, len);
    for i in 0..len {
        let block = BlockNr(run.start.0 + i);
        disk.write(&[Write {
            block,
            data: &[1; 4096],
        }])
        .expect("write");
    }
    let staged = Written::Staged(run.start);
    let size = Some((start + len) * 4096);
    volume
        .finish_write(id, FileBlock(start), len, staged, size)
        .expect("finish_write");
}

fn make() -> (SimDisk, Ids) {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let top = root(&volume);
    let create = |dir, name: &[u8], new: &NewInode<'_>| {
        volume.create(dir, name, new).expect("create").value.id
    };
    let file = new_inode(0o100644, at(3));
    let dir = create(top, b"dir", &new_inode(0o040755, at(3)));
    let data = create(dir, b"file", &file);
    write(&disk, &volume, data, 0, 8);
    write(&disk, &volume, data, 20, 8);
    volume
        .set_xattr(data, b"user.x", Some(b"y"), XattrMode::Any, at(4))
        .expect("xattr");
    let copy = create(top, b"copy", &file);
    let clone = CloneRange {
        source: data,
        from: FileBlock(0),
        target: copy,
        to: FileBlock(0),
        len: 8,
    };
    assert_eq!(volume.clone_range(&clone).expect("clone").value, 8);
    let target = NewInode {
        symlink: Some(b"target"),
        ..new_inode(0o120777, at(3))
    };
    let link = create(top, b"link", &target);
    let swap = create(top, b"swap", &file);
    write(&disk, &volume, swap, 0, 16);
    volume.set_swapping(swap, true).expect("pin");
    let plan = volume.plan_swap(swap, 16).expect("plan");
    plan.apply(&[1; 4096]).expect("swapon");
    volume.set_swapping(swap, false).expect("unpin");
    let dead = create(top, b"dead", &file);
    volume.unlink(top, b"dead", at(5)).expect("unlink");
    volume.unmount().expect("unmount");
    let ids = Ids {
        dir: dir.ino.0,
        file: data.ino.0,
        copy: copy.ino.0,
        link: link.ino.0,
        swap: swap.ino.0,
        dead: dead.ino.0,
    };
    (disk, ids)
}

fn read(disk: &SimDisk, at: u64) -> Block {
    let mut block = [0; 4096];
    disk.read(BlockNr(at), &mut block).expect("read");
    block
}

fn root_of(disk: &SimDisk, tree: u8) -> RootItem {
    let sb = newest(disk);
    match tree {
        tree_kind::FOREST => sb.forest,
        tree_kind::SPACE => sb.space,
        tree_kind::REFS => sb.refs,
        tree_kind::SWAP => sb.swap,
        _ => {
            let mut item = None;
            leaf(disk, tree_kind::FOREST, |key, data| {
                item = ForestItem::read_from_bytes(data).ok();
                key.kind == item_kind::FOREST
            });
            item.expect("a subvolume").root
        }
    }
}

/// The leaf and slot of the first item of a tree that `wanted` accepts.
fn leaf(disk: &SimDisk, tree: u8, mut wanted: impl FnMut(Key, &[u8]) -> bool) -> (BlockNr, usize) {
    let mut todo = vec![root_of(disk, tree).block.get()];
    while let Some(at) = todo.pop() {
        let block = read(disk, at);
        for i in (0..node::count(&block)).rev() {
            match node::child(&block, i).filter(|_| node::level(&block) > 0) {
                Some((_, ptr)) => todo.push(ptr.block.0),
                None => {
                    let i = node::count(&block) - 1 - i;
                    let key = node::leaf_key(&block, i).expect("key");
                    if wanted(key, node::leaf_data(&block, i)) {
                        return (BlockNr(at), i);
                    }
                }
            }
        }
    }
    panic!("no such item");
}

/// Changes the first item of this kind, and of this object if that is not 0.
fn change<T>(disk: &SimDisk, tree: u8, kind: u8, object: u64, f: impl FnOnce(&mut T))
where
    T: FromBytes + zerocopy::IntoBytes + zerocopy::KnownLayout + zerocopy::Immutable,
{
    let (block, slot) = leaf(disk, tree, |key, _| {
        key.kind == kind && (object == 0 || key.object == object)
    });
    disk.damage(block, |block| {
        let data = node::leaf_data_mut(block, slot);
        f(T::mut_from_prefix(data).expect("item").0);
        node::seal(block);
    });
}

fn inode(disk: &SimDisk, ino: u64, f: impl FnOnce(&mut InodeItem)) {
    change(disk, tree_kind::SUBVOLUME, item_kind::INODE, ino, f);
}

/// Changes the bitmap of group 0 and makes what depends on it right.
fn bitmap(disk: &SimDisk, f: impl FnOnce(&mut Block)) {
    let sb = newest(disk);
    let (leaf, slot) = leaf(disk, tree_kind::SPACE, |key, _| key.object == 0);
    let node = read(disk, leaf.0);
    let item = SpaceItem::read_from_bytes(node::leaf_data(&node, slot));
    let item = item.expect("space item");
    let places = Geometry::of_volume(SMALL)
        .expect("geometry")
        .bitmap_places(0);
    let place = places[usize::from(item.place)];
    disk.damage(BlockNr(place), f);
    let bits = read(disk, place);
    let generation = Generation(item.generation.get());
    change(
        disk,
        tree_kind::SPACE,
        item_kind::SPACE,
        0,
        |item: &mut SpaceItem| {
            item.crc = bitmap_crc(&sb.metadata_uuid, place, generation, &bits).into();
            item.free = (32768 - oxfs::engine::bitmap::ones(&bits)).into();
            item.longest = item.free;
        },
    );
}

fn first_extent(disk: &SimDisk, ino: u64) -> u64 {
    let mut start = 0;
    leaf(disk, tree_kind::SUBVOLUME, |key, data| {
        start = ExtentItem::read_from_prefix(data).map_or(0, |(item, _)| item.at.get());
        key.object == ino && key.kind == item_kind::EXTENT
    });
    start
}

#[track_caller]
fn expect(what: &str, disk: &SimDisk, rules: &[&str]) {
    let report = check(disk).expect("check");
    let found: BTreeSet<_> = report.faults.iter().map(|fault| fault.rule).collect();
    let expected: BTreeSet<_> = rules.iter().copied().collect();
    assert_eq!(found, expected, "{what}: {:#?}", report.faults);
}

type Damage = fn(&SimDisk, &Ids);

/// A name, the damage, and the rules that it breaks.
const CASES: &[(&str, Damage, &[&str])] = &[
    ("nothing", |_, _| {}, &[]),
    (
        "free blocks of the super block",
        |disk, _| {
            for at in Geometry::of_volume(SMALL).expect("geometry").super_copies() {
                disk.damage(BlockNr(at), |block| {
                    let sb = super_block::parse_mut(block).expect("super block");
                    sb.free_blocks = (sb.free_blocks.get() + 1).into();
                    super_block::seal(block, at).expect("seal");
                });
            }
        },
        &["super-free"],
    ),
    (
        "one copy of the super block",
        |disk, _| disk.damage(BlockNr(16), |block| block[200] ^= 1),
        &[],
    ),
    (
        "a bit of a leaf",
        |disk, ids| {
            let (at, _) = leaf(disk, tree_kind::SUBVOLUME, |key, _| key.object == ids.file);
            disk.damage(at, |block| block[4000] ^= 1);
        },
        &["node-damaged"],
    ),
    (
        "the bit of a block that is used",
        |disk, ids| {
            let block = first_extent(disk, ids.file) as usize;
            bitmap(disk, |bits| bits[block / 8] &= !(1 << (block % 8)));
        },
        &["bitmap-free"],
    ),
    (
        "the bit of a block that is free",
        |disk, _| bitmap(disk, |bits| bits[3000 / 8] |= 1 << (3000 % 8)),
        &["bitmap-leak"],
    ),
    (
        "a bitmap and not its checksum",
        |disk, _| {
            let places = Geometry::of_volume(SMALL)
                .expect("geometry")
                .bitmap_places(0);
            for place in places {
                disk.damage(BlockNr(place), |bits| bits[3000 / 8] ^= 1);
            }
        },
        &["bitmap-damaged"],
    ),
    (
        "free blocks of a group",
        |disk, _| {
            change(
                disk,
                tree_kind::SPACE,
                item_kind::SPACE,
                0,
                |item: &mut SpaceItem| {
                    item.free = (item.free.get() - 1).into();
                },
            );
        },
        &["space-free"],
    ),
    (
        "longest free run of a group",
        |disk, _| {
            change(
                disk,
                tree_kind::SPACE,
                item_kind::SPACE,
                0,
                |item: &mut SpaceItem| {
                    item.longest = 1.into();
                },
            );
        },
        &["space-longest"],
    ),
    (
        "owners of a run, too many",
        |disk, _| {
            change(
                disk,
                tree_kind::REFS,
                item_kind::REFS,
                0,
                |item: &mut RefsItem| {
                    item.count = (item.count.get() + 1).into();
                },
            );
        },
        &["block-owners"],
    ),
    (
        "owners of a run, one",
        |disk, _| {
            change(
                disk,
                tree_kind::REFS,
                item_kind::REFS,
                0,
                |item: &mut RefsItem| {
                    item.count = 1.into();
                },
            );
        },
        &["refs-count", "block-owners"],
    ),
    (
        "length of a shared run",
        |disk, _| {
            change(
                disk,
                tree_kind::REFS,
                item_kind::REFS,
                0,
                |item: &mut RefsItem| {
                    item.len = (item.len.get() + 1).into();
                },
            );
        },
        &["block-owners"],
    ),
    (
        "an extent that points to another's block",
        |disk, ids| {
            // The last block of the file's second extent: it loses one and gains none.
            let other = first_extent(disk, ids.copy);
            change(
                disk,
                tree_kind::SWAP,
                item_kind::SWAP,
                0,
                |item: &mut ExtentItem| {
                    item.at = other.into();
                },
            );
        },
        &["block-owners", "swap-shared", "bitmap-leak", "super-free"],
    ),
    (
        "flags of an extent",
        |disk, ids| {
            let kind = item_kind::EXTENT;
            change(
                disk,
                tree_kind::SUBVOLUME,
                kind,
                ids.file,
                |item: &mut ExtentItem| {
                    item.flags = 1;
                },
            );
        },
        &["extent-flags"],
    ),
    (
        "state of the extent below a swapfile's run",
        |disk, ids| {
            let (block, slot) = leaf(disk, tree_kind::SUBVOLUME, |key, _| {
                key.object == ids.swap && key.kind == item_kind::EXTENT && key.offset == 1
            });
            disk.damage(block, |block| {
                let data = node::leaf_data_mut(block, slot);
                let item = ExtentItem::mut_from_bytes(data).expect("extent");
                assert_eq!(item.state, extent_state::UNBACKED);
                item.state = 9;
                node::seal(block);
            });
        },
        &["extent-state", "swap-below", "inode-blocks"],
    ),
    (
        "swap flag of a swapfile",
        |disk, ids| inode(disk, ids.swap, |item| item.flags = 0.into()),
        &["swap-owner"],
    ),
    (
        "link count of a file",
        |disk, ids| inode(disk, ids.file, |item| item.nlink = 2.into()),
        &["link-count"],
    ),
    (
        "link count of a directory",
        |disk, ids| inode(disk, ids.dir, |item| item.nlink = 3.into()),
        &["link-count"],
    ),
    (
        "blocks of a file",
        |disk, ids| inode(disk, ids.file, |item| item.blocks = 15.into()),
        &["inode-blocks"],
    ),
    (
        "size of a directory",
        |disk, ids| inode(disk, ids.dir, |item| item.size = 5.into()),
        &["dir-size"],
    ),
    (
        "size of a symbolic link",
        |disk, ids| inode(disk, ids.link, |item| item.size = 5.into()),
        &["symlink-size"],
    ),
    (
        "nanoseconds of an inode",
        |disk, ids| {
            inode(disk, ids.file, |item| {
                item.mtime.nsec = 1_000_000_000.into()
            })
        },
        &["inode-time"],
    ),
    (
        "type of an inode",
        |disk, ids| inode(disk, ids.link, |item| item.mode = 0o010644.into()),
        &["inode-type", "dirent-type"],
    ),
    (
        "type of an entry",
        |disk, ids| {
            let kind = item_kind::DIRENT;
            change(
                disk,
                tree_kind::SUBVOLUME,
                kind,
                ids.dir,
                |item: &mut DirentItem| {
                    item.kind = 1;
                },
            );
        },
        &["dirent-type"],
    ),
    (
        "inode of an entry",
        |disk, ids| {
            let kind = item_kind::DIRENT;
            change(
                disk,
                tree_kind::SUBVOLUME,
                kind,
                ids.dir,
                |item: &mut DirentItem| {
                    item.ino = 999.into();
                },
            );
        },
        &[
            "dirent-dangling",
            "parent-missing",
            "parent-stale",
            "link-count",
        ],
    ),
    (
        "name of an entry",
        |disk, ids| {
            let (block, slot) = leaf(disk, tree_kind::SUBVOLUME, |key, _| {
                key.object == ids.dir && key.kind == item_kind::DIRENT
            });
            disk.damage(block, |block| {
                *node::leaf_data_mut(block, slot).last_mut().expect("name") = b'x';
                node::seal(block);
            });
        },
        &["name-hash"],
    ),
    (
        "directory of a parent item",
        |disk, ids| {
            let kind = item_kind::PARENT;
            change(
                disk,
                tree_kind::SUBVOLUME,
                kind,
                ids.file,
                |item: &mut ParentItem| {
                    item.dir = 2.into();
                },
            );
        },
        &["parent-hash", "parent-missing", "parent-stale"],
    ),
    (
        "an orphan that has a name",
        |disk, ids| inode(disk, ids.dead, |item| item.nlink = 1.into()),
        &["orphan-links", "link-count"],
    ),
    (
        "size of an orphan without a name",
        |disk, _| {
            let kind = item_kind::ORPHAN;
            change(
                disk,
                tree_kind::SUBVOLUME,
                kind,
                0,
                |item: &mut OrphanItem| {
                    item.size = 7.into();
                },
            );
        },
        &["orphan-links"],
    ),
    (
        "next inode number",
        |disk, ids| {
            let kind = item_kind::FOREST;
            let next = ids.dead;
            change(disk, tree_kind::FOREST, kind, 0, |item: &mut ForestItem| {
                item.next_ino = next.into();
            });
        },
        &["inode-number"],
    ),
];

#[test]
fn each_rule_is_named() {
    for (what, damage, rules) in CASES {
        let (disk, ids) = make();
        damage(&disk, &ids);
        // A damaged node hides what is below it: only the node is named.
        expect(what, &disk, rules);
    }
}

/// What cannot be put right without a guess, and the rules that stay broken.
const LEFT: &[(&str, &[&str])] = &[
    ("a bit of a leaf", &["node-damaged"]),
    ("an extent that points to another's block", &["swap-shared"]),
    ("flags of an extent", &["extent-flags"]),
    (
        "state of the extent below a swapfile's run",
        &["extent-state", "swap-below", "inode-blocks"],
    ),
    ("nanoseconds of an inode", &["inode-time"]),
    ("type of an inode", &["dirent-type", "inode-type"]),
    ("name of an entry", &["name-hash"]),
];

/// All cases, with the rules that a repair leaves broken.
fn cases() -> Vec<Case> {
    let left = |what: &str| LEFT.iter().find(|(case, _)| *case == what);
    let first = CASES.iter().map(|&(what, damage, rules)| {
        (
            what,
            damage,
            rules,
            left(what).map_or(&[][..], |(_, rules)| *rules),
        )
    });
    first.chain(MORE.iter().copied()).collect()
}

/// Names and volumes for a guest to mount.
#[allow(dead_code)] // examples/hostile-images.rs
pub fn images() -> impl Iterator<Item = (&'static str, SimDisk)> {
    cases().into_iter().map(|(what, damage, ..)| {
        let (disk, ids) = make();
        damage(&disk, &ids);
        (what, disk)
    })
}

/// Every rule of the checker is broken by a case.
#[test]
fn each_rule_has_a_case() {
    let sources = [
        include_str!("../src/check/mod.rs"),
        include_str!("../src/check/files.rs"),
        include_str!("../src/check/names.rs"),
        include_str!("../src/check/owners.rs"),
        include_str!("../src/check/space.rs"),
        include_str!("../src/check/supers.rs"),
        include_str!("../src/check/walk.rs"),
    ];
    let is_rule = |word: &&str| {
        word.split('-').count() == 2 && word.chars().all(|c| c == '-' || c.is_ascii_lowercase())
    };
    let named: BTreeSet<_> = sources
        .iter()
        .flat_map(|s| s.split('"'))
        .filter(is_rule)
        .collect();
    let mut broken: BTreeSet<_> = cases().iter().flat_map(|case| case.2).copied().collect();
    // These take a device of their own.
    broken.extend(["node-unreadable", "bitmap-unreadable", "super-size"]);
    // These take subvolumes: they are in homes.rs.
    broken.extend(["home-flag", "node-snapshot", "extent-snapshot"]);
    assert!(named.len() > 60, "{named:?}");
    assert_eq!(named, broken);
}

#[test]
fn what_a_device_hides_is_named() {
    let (disk, _) = make();
    let root = BlockNr(root_of(&disk, tree_kind::SUBVOLUME).block.get());
    let places = Geometry::of_volume(SMALL)
        .expect("geometry")
        .bitmap_places(0);
    let rules = |bad| {
        let report = check(&Unreadable {
            disk: disk.clone(),
            bad,
        })
        .expect("check");
        let rules: Vec<_> = report.faults.iter().map(|fault| fault.rule).collect();
        rules
    };
    assert_eq!(rules(root), ["node-unreadable"]);
    let both = [rules(BlockNr(places[0])), rules(BlockNr(places[1]))];
    assert!(both.contains(&vec!["bitmap-unreadable"]), "{both:?}");
    let small = SimDisk::with_image(SMALL - 1, disk.image());
    assert_eq!(check(&small).expect("check").faults[0].rule, "super-size");
}

#[test]
fn each_rule_is_repaired() {
    let mut wrong = Vec::new();
    for (what, damage, rules, left) in cases() {
        let (disk, ids) = make();
        damage(&disk, &ids);
        let done = repair(&disk, at(7), &mut |_| {}).expect("repair");
        for (when, report, rules) in [("", &done.before, rules), (" repaired", &done.after, left)] {
            let found: BTreeSet<_> = report.faults.iter().map(|fault| fault.rule).collect();
            if found != rules.iter().copied().collect() {
                wrong.push(format!("{what}{when}: {found:?}, not {rules:?}"));
            }
        }
        if let Some(error) = done.failed {
            wrong.push(format!("{what}: {error}"));
        }
        if left.is_empty() {
            // It is a volume like any other.
            let volume = mount(&disk);
            let new = new_inode(0o100644, at(8));
            volume.create(root(&volume), b"new", &new).expect("create");
            volume.unmount().expect("unmount");
            common::assert_clean(&disk);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An inode that lost its name is in lost+found, with its content.
#[test]
fn lost_files_are_found() {
    let (disk, ids) = make();
    change(
        &disk,
        tree_kind::SUBVOLUME,
        item_kind::DIRENT,
        ids.dir,
        |item: &mut DirentItem| item.ino = 999.into(),
    );
    let done = repair(&disk, at(7), &mut |_| {}).expect("repair");
    assert!(done.after.is_clean() && !done.before.is_clean());
    let volume = mount(&disk);
    let find = |dir, name: &[u8]| volume.lookup(dir, name).expect("lookup").expect("name").0;
    let dir = find(root(&volume), b"lost+found");
    let file = find(dir, format!("#{}", ids.file).as_bytes());
    let attr = volume.inode(file).expect("inode");
    assert_eq!((file.ino.0, attr.nlink, attr.blocks), (ids.file, 1, 16));
}

/// A repair that is interrupted leaves the volume as it was, or repaired.
#[test]
fn interrupted_repair_costs_nothing() {
    let (mut cuts, mut random) = (0, common::Random(1));
    for (what, damage, ..) in cases() {
        let (disk, ids) = make();
        damage(&disk, &ids);
        disk.record();
        let done = repair(&disk, at(7), &mut |_| {}).expect("repair");
        let [before, after] = [&done.before, &done.after].map(|report| &report.faults);
        let history = disk.history().expect("history");
        history.cuts(|_, cut| {
            let n = cut.cached.len();
            for kind in 0..4 {
                let disk = cut.disk(|i| match kind {
                    0 => 0,
                    1 => 8,
                    2 => random.below(2) as usize * 8,
                    _ if i + 1 == n => random.below(9) as usize,
                    _ => 8,
                });
                let faults = check(&disk).expect("check").faults;
                assert!(faults == *before || faults == *after, "{what}: {faults:#?}");
                cuts += 1;
            }
        });
    }
    assert!(cuts > 1000, "{cuts}");
}

/// A subvolume whose tree is being taken away from the left breaks no rule at any step.
#[test]
fn dropping_is_legal_at_every_step() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let top = root(&volume);
    let mut files = Vec::new();
    for i in 0..60u64 {
        let name = format!("file {i}");
        let target = vec![b'a' + (i % 26) as u8; 3000];
        let new = match i % 3 {
            0 => NewInode {
                symlink: Some(&target),
                ..new_inode(0o120777, at(3))
            },
            _ => new_inode(0o100644, at(3)),
        };
        let id = volume
            .create(top, name.as_bytes(), &new)
            .expect("create")
            .value
            .id;
        if i % 3 > 0 {
            (0..4).for_each(|n| write(&disk, &volume, id, n * 3, 1 + i % 2));
        }
        files.push(id);
    }
    let new = NewSnapshot {
        source: top.subvol,
        dir: top,
        name: b"snapshot",
        read_only: true,
        uuid: [1; 16],
        time: at(4),
    };
    let snapshot = volume.snapshot(&new).expect("snapshot").value.id.subvol;
    volume.commit().expect("commit");
    // Now no node of the snapshot is shared any more.
    for id in files {
        let change = AttrChange {
            uid: Some(9),
            ..AttrChange::default()
        };
        volume.set_attr(id, &change).expect("set_attr");
        while id.ino.0 % 3 == 0 && !volume.truncate(id, 0, at(5)).expect("truncate").value {}
    }
    volume
        .delete_subvolume(top, b"snapshot", at(6))
        .expect("delete");
    let mut steps = 0;
    loop {
        let gone = volume.drop_step(snapshot).expect("drop_step").value;
        volume.commit().expect("commit");
        common::assert_clean(&disk);
        steps += 1;
        if gone {
            break;
        }
    }
    assert!(steps > 5, "{steps} steps");
}
