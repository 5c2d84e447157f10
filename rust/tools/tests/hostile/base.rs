// SPDX-License-Identifier: GPL-2.0

//! The intact volumes that get damaged.

use super::V;
use crate::common::{assert_clean, at, formatted, mount, new_inode, root, SMALL};
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::inode::NewInode;
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{root_of, NewSubvolume, TOP};
use oxfs::engine::types::{BlockNr, FileBlock, InodeId, SubvolId};
use oxfs::engine::xattr::XattrMode;
use oxfs::sim::SimDisk;

pub fn write_file(disk: &SimDisk, volume: &V, id: InodeId, start: u64, len: u64) {
    let Ok(()) = volume.reserve(len) else { return };
    let Ok(run) = volume.stage(id, FileBlock(start), len) else {
        return;
    };
    volume.unreserve(len - run.len);
    for i in 0..run.len {
        let data = [i as u8; 4096];
        let _ = disk.write(&[Write {
            block: BlockNr(run.start.0 + i),
            data: &data,
        }]);
    }
    let size = start.saturating_add(run.len).saturating_mul(4096);
    let staged = Written::Staged(run.start);
    let _ = volume.finish_write(id, FileBlock(start), run.len, staged, Some(size));
}

/// A snapshot of `source`.
pub fn snapshot(source: SubvolId, dir: InodeId, name: &[u8], read_only: bool) -> NewSnapshot<'_> {
    NewSnapshot {
        source,
        dir,
        name,
        read_only,
        uuid: [8; 16],
        time: at(6),
    }
}

/// Activates a swapfile, and ends that.
fn swap_to(volume: &V, swap: InodeId, pages: u64) {
    volume.set_swapping(swap, true).expect("pin");
    let plan = volume.plan_swap(swap, pages).expect("plan");
    plan.apply(&[0; 4096]).expect("swapon");
    volume.set_swapping(swap, false).expect("unpin");
}

/// A volume with every kind of item, several leaves and an inner node.
pub fn rich() -> SimDisk {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let top = root(&volume);
    let file = new_inode(0o100644, at(3));
    let dir = new_inode(0o040755, at(3));
    let sub = volume.create(top, b"sub", &dir).expect("create").value.id;
    let deep = volume.create(sub, b"deep", &dir).expect("create").value.id;
    for i in 0..120 {
        let name = format!("a file with a rather long name, number {i}");
        let into = [top, sub, deep][i % 3];
        volume.create(into, name.as_bytes(), &file).expect("create");
    }
    let target = vec![b't'; 3000];
    let link = NewInode {
        symlink: Some(&target),
        ..new_inode(0o120777, at(3))
    };
    volume.create(sub, b"symlink", &link).expect("create");
    let data = volume.create(top, b"data", &file).expect("create").value.id;
    volume
        .link(data, deep, b"second name", at(4))
        .expect("link");
    let value = vec![7; 1000];
    volume
        .set_xattr(data, b"user.x", Some(&value), XattrMode::Any, at(4))
        .expect("xattr");
    for i in 0..60 {
        write_file(&disk, &volume, data, i * 5, 1 + i % 4);
    }
    volume.prealloc(data, FileBlock(400), 40).expect("prealloc");
    let copy = volume
        .create(deep, b"copy", &file)
        .expect("create")
        .value
        .id;
    let clone = CloneRange {
        source: data,
        from: FileBlock(0),
        target: copy,
        to: FileBlock(0),
        len: 200,
    };
    let mut done = 0;
    while done < clone.len {
        let step = CloneRange {
            from: FileBlock(done),
            to: FileBlock(done),
            len: clone.len - done,
            ..clone
        };
        done += volume.clone_range(&step).expect("clone").value;
    }
    let swap = volume.create(top, b"swap", &file).expect("create").value.id;
    write_file(&disk, &volume, swap, 0, 30);
    write_file(&disk, &volume, swap, 30, 30);
    swap_to(&volume, swap, 60);
    volume
        .snapshot(&snapshot(top.subvol, top, b"dropped", false))
        .expect("snapshot");
    volume.commit().expect("commit");
    volume
        .delete_subvolume(top, b"dropped", at(6))
        .expect("delete");
    volume
        .snapshot(&snapshot(top.subvol, top, b"snapshot", false))
        .expect("snapshot");
    volume.commit().expect("commit");
    // The way to these is not shared any more.
    write_file(&disk, &volume, data, 7, 2);
    for i in 0..10 {
        let name = format!("after the snapshot {i}");
        volume.create(deep, name.as_bytes(), &file).expect("create");
    }
    let gone = volume.create(top, b"gone", &file).expect("create").value.id;
    write_file(&disk, &volume, gone, 3, 9);
    volume.unlink(top, b"gone", at(5)).expect("unlink");
    volume.unmount().expect("unmount");
    assert_clean(&disk);
    disk
}

fn create(volume: &V, dir: InodeId, name: &[u8], mode: u32) -> InodeId {
    let done = volume.create(dir, name, &new_inode(mode, at(3)));
    done.expect("create").value.id
}

fn subvolume(volume: &V, dir: InodeId, name: &[u8]) -> InodeId {
    let new = NewSubvolume {
        dir,
        name,
        root: new_inode(0o040755, at(3)),
        uuid: [6; 16],
    };
    let done = volume.create_subvolume(&new);
    done.expect("subvolume").value.id
}

/// Files that fill some leaves.
fn fill(volume: &V, disk: &SimDisk, dir: InodeId) {
    let value = [7; 1000];
    for i in 0..12 {
        let file = create(volume, dir, format!("file {i}").as_bytes(), 0o100644);
        let done = volume.set_xattr(file, b"user.x", Some(&value), XattrMode::Any, at(4));
        done.expect("xattr");
        write_file(disk, volume, file, i, 1 + i % 3);
    }
}

/// A volume of few blocks with every state that a subvolume can be in.
pub fn subvolumes() -> SimDisk {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let top = root_of(TOP);
    let home = subvolume(&volume, top, b"home");
    let sub = create(&volume, home, b"sub", 0o040755);
    let data = create(&volume, sub, b"second name", 0o100644);
    write_file(&disk, &volume, data, 0, 9);
    let file = new_inode(0o100644, at(3));
    volume.tmpfile(home.subvol, &file).expect("tmpfile");
    let swap = create(&volume, home, b"swap", 0o100600);
    write_file(&disk, &volume, swap, 0, 20);
    write_file(&disk, &volume, swap, 20, 20);
    let user = subvolume(&volume, sub, b"user");
    let deep = subvolume(&volume, user, b"deep");
    create(&volume, deep, b"data", 0o100644);

    // A swapfile before and after the snapshots of it, and another one that they made of it.
    let take = |source: InodeId, dir, name, read_only| {
        let done = volume.snapshot(&snapshot(source.subvol, dir, name, read_only));
        done.expect("snapshot").value.id
    };
    let plain = take(home, top, b"plain", false);
    swap_to(&volume, swap, 40);
    take(home, home, b"frozen", true);
    let copy = take(home, top, b"snapshot", false);
    take(copy, copy, b"again", true);
    let its_swap = InodeId {
        subvol: plain.subvol,
        ..swap
    };
    swap_to(&volume, its_swap, 40);
    volume.commit().expect("commit");
    write_file(&disk, &volume, data, 3, 2);
    let moved = volume.rename(&Rename {
        old_dir: user,
        old_name: b"deep",
        new_dir: copy,
        new_name: b"moved",
        flags: RenameFlags::Replace,
        whiteout: None,
        time: at(7),
    });
    moved.expect("rename");

    // One that is gone for the half, and shares something with another one.
    let big = subvolume(&volume, top, b"big");
    fill(&volume, &disk, big);
    take(big, top, b"half", false);
    volume.commit().expect("commit");
    fill(&volume, &disk, create(&volume, big, b"more", 0o040755));
    let deleted = volume.delete_subvolume(top, b"big", at(8));
    deleted.expect("delete");
    for _ in 0..3 {
        let step = volume.drop_step(big.subvol).expect("drop_step");
        assert!(!step.value, "there was too little to drop");
    }
    volume.set_default_subvolume(home.subvol).expect("default");
    volume.unmount().expect("unmount");
    assert_clean(&disk);
    disk
}
