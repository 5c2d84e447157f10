// SPDX-License-Identifier: GPL-2.0

//! Images that lie where no checksum tells, one lie at a time: it is called damage, at once, and is
//! neither believed nor followed round and round.

mod common;

use common::{at, formatted, mount, new_inode, root, SMALL};
use oxfs::engine::data::Written;
use oxfs::engine::device::BlockDevice;
use oxfs::engine::format::{
    extent_state, item_kind, ExtentItem, ForestItem, Geometry, RootItem, SuperBlock,
};
use oxfs::engine::mount::MountOptions;
use oxfs::engine::node::{self, Key};
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::subvolume::{root_of, NewSubvolume, TOP};
use oxfs::engine::super_block;
use oxfs::engine::types::{BlockNr, FileBlock, InodeId, SubvolId};
use oxfs::engine::{Error, Volume};
use oxfs::platform::Block;
use oxfs::sim::SimDisk;
use std::sync::mpsc;
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

fn copies() -> [u64; 4] {
    Geometry::of_volume(SMALL).expect("geometry").super_copies()
}

fn newest(disk: &SimDisk) -> SuperBlock {
    let read = |at: u64| {
        let mut block: Block = [0; 4096];
        disk.read(BlockNr(at), &mut block).expect("read");
        SuperBlock::read_from_bytes(&block).expect("super block")
    };
    let all = copies().map(read);
    let newest = all.into_iter().max_by_key(|sb| sb.generation.get());
    newest.expect("four copies")
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

/// What `work` answers; it must not take for ever.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(work()));
    let answer = receive.recv_timeout(Duration::from_secs(20));
    answer.expect("goes round and round")
}

#[track_caller]
fn assert_damage<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn a_root_is_nobodys_home() {
    let disk = nested();
    home(&disk, 1, 1, 2);
    let volume = mount(&disk);
    assert_damage(ends(move || volume.path(root_of(SubvolId(1)))));
}

#[test]
fn subvolumes_that_hang_in_each_other() {
    for next in [4, u64::MAX] {
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
    let activate = |volume: &Volume<SimDisk>| {
        volume.set_swapping(id, true)?;
        let done = volume.plan_swap(id, 20)?.apply(&[0; 4096]);
        volume.set_swapping(id, false)?;
        done
    };
    activate(&volume).expect("swapon");
    volume.unmount().expect("unmount");
    let key = Key::new(id.st_ino(), item_kind::SWAP, 1);
    change(&disk, newest(&disk).swap, key, |item: &mut ExtentItem| {
        item.state = extent_state::UNBACKED;
        item.at = 0.into();
    });
    assert_damage(activate(&mount(&disk)));
}

/// All of its blocks would pass for free ones.
#[test]
fn a_group_without_an_item() {
    let disk = nested();
    disk.damage(BlockNr(newest(&disk).space.block.get()), |leaf| {
        assert_eq!(node::count(leaf), 1);
        node::leaf_remove(leaf, 0);
        node::seal(leaf);
    });
    let mounted = Volume::mount(disk, &MountOptions::default());
    assert_damage(mounted.map(|_| ()));
}

/// What needs a number that is not there is refused, not begun.
#[test]
fn inode_numbers_are_used_up() {
    let disk = nested();
    let key = Key::new(0, item_kind::FOREST, 0);
    let forest = newest(&disk).forest;
    change(&disk, forest, key, |item: &mut ForestItem| {
        item.next_ino = (1 << 40).into();
    });
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
