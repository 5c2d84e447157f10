// SPDX-License-Identifier: GPL-2.0

//! Images that lie where no checksum tells, one lie at a time: it is called damage, at once, and is
//! neither believed nor followed round and round.

use crate::common::{at, ends, formatted, mount, new_inode, newest, root, SMALL};
use oxfs::engine::data::Written;
use oxfs::engine::format::{extent_state, item_kind, ExtentItem, ForestItem, Geometry, RootItem};
use oxfs::engine::mount::MountOptions;
use oxfs::engine::node::{self, Key, Ptr};
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::subvolume::{root_of, NewSubvolume, TOP};
use oxfs::engine::super_block;
use oxfs::engine::types::{BlockNr, FileBlock, InodeId, SubvolId};
use oxfs::engine::xattr::XattrMode;
use oxfs::engine::{Error, Volume};
use oxfs::sim::SimDisk;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

fn copies() -> [u64; 4] {
    Geometry::of_volume(SMALL).expect("geometry").super_copies()
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

fn home(disk: &SimDisk, id: u64, subvol: u64, ino: u64) {
    let key = Key::new(id, item_kind::FOREST, 0);
    change(disk, newest(disk).forest, key, |item: &mut ForestItem| {
        item.home_subvolume = subvol.into();
        item.home_ino = ino.into();
    });
}

/// Subvolume 1 hangs in the top level, 2 in 1, 3 in the top level.
fn nested() -> SimDisk {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let make = |dir: InodeId, name: &[u8]| {
        let new = NewSubvolume {
            dir,
            name,
            root: new_inode(0o040755, at(2)),
            uuid: [4; 16],
        };
        volume.create_subvolume(&new).expect("subvolume").value.id
    };
    let one = make(root_of(TOP), b"one");
    make(one, b"two");
    make(root_of(TOP), b"three");
    volume.unmount().expect("unmount");
    disk
}

#[track_caller]
fn assert_damage<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

/// The root directory of a subvolume is the home of that subvolume.
fn home_is_root() -> SimDisk {
    let disk = nested();
    home(&disk, 1, 1, 2);
    disk
}

/// Two subvolumes hang in each other; `next` is the number of the next one.
fn homes_in_a_ring(next: u64) -> SimDisk {
    let disk = nested();
    home(&disk, 1, 2, 16);
    for at in copies() {
        disk.damage(BlockNr(at), |block| {
            super_block::parse_mut(block)
                .expect("super block")
                .next_subvolume = next.into();
            super_block::seal(block, at).expect("seal");
        });
    }
    disk
}

/// A swapfile of 20 blocks was in use, and has a run without blocks.
fn unbacked_swap() -> (SimDisk, InodeId) {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let new = new_inode(0o100600, at(3));
    let created = volume.create(root(&volume), b"swap", &new);
    let id = created.expect("create").value.id;
    volume.reserve(20).expect("reserve");
    let run = volume.stage(id, FileBlock(0), 20).expect("stage");
    let staged = Written::Staged(run.start);
    volume
        .finish_write(id, FileBlock(0), 20, staged, Some(20 * 4096))
        .expect("finish_write");
    activate(&volume, id).expect("swapon");
    volume.unmount().expect("unmount");
    let key = Key::new(id.st_ino(), item_kind::SWAP, 1);
    change(&disk, newest(&disk).swap, key, |item: &mut ExtentItem| {
        item.state = extent_state::UNBACKED;
        item.at = 0.into();
    });
    (disk, id)
}

fn activate(volume: &Volume<SimDisk>, id: InodeId) -> Result<(), Error> {
    volume.set_swapping(id, true)?;
    let done = volume.plan_swap(id, 20)?.apply(&[0; 4096]);
    volume.set_swapping(id, false)?;
    done.map(drop)
}

/// The only group has no item: all of its blocks would pass for free ones.
fn no_space_item() -> SimDisk {
    let disk = nested();
    disk.damage(BlockNr(newest(&disk).space.block.get()), |leaf| {
        assert_eq!(node::count(leaf), 1);
        node::leaf_remove(leaf, 0);
        node::seal(leaf);
    });
    disk
}

/// The top level has no number left for an inode.
fn no_inode_number() -> SimDisk {
    let disk = nested();
    let key = Key::new(0, item_kind::FOREST, 0);
    let forest = newest(&disk).forest;
    change(&disk, forest, key, |item: &mut ForestItem| {
        item.next_ino = (1 << 40).into();
    });
    disk
}

/// Names and volumes for a guest to mount.
#[allow(dead_code)] // examples/hostile-images.rs
pub fn images() -> Vec<(&'static str, SimDisk)> {
    vec![
        ("home-is-root", home_is_root()),
        ("homes-in-a-ring", homes_in_a_ring(4)),
        ("next-subvolume", homes_in_a_ring(u64::MAX)),
        ("unbacked-swap", unbacked_swap().0),
        ("no-space-item", no_space_item()),
        ("no-inode-number", no_inode_number()),
    ]
}

#[test]
fn a_root_is_nobodys_home() {
    let disk = home_is_root();
    let volume = mount(&disk);
    assert_damage(ends(move || volume.path(root_of(SubvolId(1)))));
}

#[test]
fn subvolumes_that_hang_in_each_other() {
    for next in [4, u64::MAX] {
        let disk = homes_in_a_ring(next);
        let moved = ends(move || {
            let volume = Volume::mount(disk, &MountOptions::default())?;
            volume.open_subvolume(SubvolId(1))?;
            volume.rename(&Rename {
                old_dir: root_of(TOP),
                old_name: b"three",
                new_dir: root_of(SubvolId(1)),
                new_name: b"three",
                flags: RenameFlags::Replace,
                whiteout: None,
                time: at(5),
            })
        });
        assert_damage(moved);
    }
}

/// The kernel would swap to block 0.
#[test]
fn swap_space_without_blocks() {
    let (disk, id) = unbacked_swap();
    assert_damage(activate(&mount(&disk), id));
}

#[test]
fn a_group_without_an_item() {
    let mounted = Volume::mount(no_space_item(), &MountOptions::default());
    assert_damage(mounted.map(|_| ()));
}

/// What needs a number that is not there is refused, not begun.
#[test]
fn inode_numbers_are_used_up() {
    let disk = no_inode_number();
    let volume = mount(&disk);
    let (dir, name) = (root_of(TOP), b"new");
    let made = volume.create(dir, name, &new_inode(0o100600, at(3)));
    assert_eq!(made.err(), Some(Error::NoSpace));
    let new = NewSubvolume {
        dir,
        name,
        root: new_inode(0o040755, at(2)),
        uuid: [4; 16],
    };
    let made = volume.create_subvolume(&new);
    assert_eq!(made.err(), Some(Error::NoSpace));
    volume.open_subvolume(SubvolId(1)).expect("open");
    let moved = volume.rename(&Rename {
        old_dir: root_of(SubvolId(1)),
        old_name: b"two",
        new_dir: dir,
        new_name: name,
        flags: RenameFlags::Replace,
        whiteout: None,
        time: at(5),
    });
    assert_eq!(moved.err(), Some(Error::NoSpace));
    assert_eq!(volume.fault(), None);
}

/// Where the root of subvolume 1 is.
fn root_of_one(disk: &SimDisk) -> BlockNr {
    let mut root = 0;
    let key = Key::new(1, item_kind::FOREST, 0);
    change(disk, newest(disk).forest, key, |item: &mut ForestItem| {
        assert_eq!(item.root.level, 1);
        root = item.root.block.get();
    });
    BlockNr(root)
}

/// A pointer to a free block, which becomes that of the new copy of the node that it is in.
#[test]
fn a_child_that_becomes_its_own_parent() {
    let disk = nested();
    let volume = mount(&disk);
    let one = root_of(SubvolId(1));
    volume.open_subvolume(one.subvol).expect("open");
    volume.rmdir(one, b"two", at(3)).expect("rmdir");
    for i in 0..12 {
        let file = new_inode(0o100600, at(3));
        let made = volume.create(one, &[b'a' + i], &file).expect("create");
        let (id, value) = (made.value.id, [7; 1000]);
        let done = volume.set_xattr(id, b"user.x", Some(&value), XattrMode::Any, at(3));
        done.expect("xattr");
    }
    let deleted = volume.delete_subvolume(root_of(TOP), b"one", at(3));
    deleted.expect("delete");
    volume.unmount().expect("unmount");

    // Where the first step of dropping it puts the copy of its root.
    let tried = SimDisk::with_image(SMALL, disk.image());
    let volume = mount(&tried);
    assert!(!volume.drop_step(one.subvol).expect("drop_step").value);
    volume.unmount().expect("unmount");
    let place = root_of_one(&tried);
    disk.damage(root_of_one(&disk), |node| {
        let (_, ptr) = node::child(node, 1).expect("child");
        let block = place;
        node::set_child(node, 1, Ptr { block, ..ptr });
        node::seal(node);
    });
    let volume = mount(&disk);
    assert_damage(ends(move || volume.drop_step(one.subvol)));
}
