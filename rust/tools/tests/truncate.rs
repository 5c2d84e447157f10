// SPDX-License-Identifier: GPL-2.0

//! Truncates that stop half way, as after an error of the device: what the file gets behind its new
//! end afterwards stays, and what was to go does not come back.

use crate::common::{assert_clean, at, formatted, mount, new_inode, root, SimVolume, SMALL};
use oxfs::engine::data::Written;
use oxfs::engine::reflink::Clone;
use oxfs::engine::types::{Backing, FileBlock, InodeId};

/// More extents than one step drops.
const EXTENTS: u64 = 40;

/// Writes one block as the kernel does.
fn write(volume: &SimVolume, id: InodeId, block: u64) {
    let at = FileBlock(block);
    volume.prepare_write(id, at, 1).expect("prepare");
    let size = Some((block + 1) * 4096);
    let map = volume.map(id, at, 1).expect("map");
    match map.backing {
        Backing::Written { shared: false, .. } | Backing::Prealloc { shared: false, .. } => {
            volume.reserve_in_place(1).expect("reserve");
            let done = volume.finish_write(id, at, 1, Written::InPlace, size);
            done.expect("finish");
            volume.unreserve_in_place(1);
        }
        _ => {
            volume.reserve(1).expect("reserve");
            let run = volume.stage(id, at, 1).expect("stage");
            let done = volume.finish_write(id, at, 1, Written::Staged(run.start), size);
            done.expect("finish");
        }
    }
}

fn is_written(volume: &SimVolume, id: InodeId, block: u64) -> bool {
    let map = volume.map(id, FileBlock(block), 1).expect("map");
    matches!(map.backing, Backing::Written { .. })
}

/// A file with a block of data in every other block, cut to nothing by one step of several.
fn half_truncated(volume: &SimVolume) -> InodeId {
    let new = new_inode(0o100644, at(2));
    let made = volume.create(root(volume), b"file", &new).expect("create");
    let id = made.value.id;
    for i in 0..EXTENTS {
        write(volume, id, i * 2);
    }
    assert!(!volume.truncate(id, 0, at(3)).expect("truncate").value);
    id
}

/// The extents that were left: all but what one step dropped.
fn left(volume: &SimVolume, id: InodeId) -> Vec<u64> {
    let all = (0..EXTENTS).map(|i| i * 2);
    all.filter(|block| is_written(volume, id, *block)).collect()
}

#[test]
fn what_is_written_after_it_stays() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = half_truncated(&volume);
    let block = *left(&volume, id).last().expect("something is left");
    write(&volume, id, block);
    assert_eq!(left(&volume, id), [block]);
    volume.commit().expect("commit");
    assert_clean(&disk);
}

#[test]
fn what_is_cloned_after_it_stays() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = half_truncated(&volume);
    let new = new_inode(0o100644, at(2));
    let made = volume.create(root(&volume), b"source", &new);
    let source = made.expect("create").value.id;
    write(&volume, source, 0);
    let block = *left(&volume, id).last().expect("something is left");
    let clone = Clone {
        source,
        from: FileBlock(0),
        target: id,
        to: FileBlock(block),
        len: 1,
    };
    assert_eq!(volume.clone_range(&clone).expect("clone").value, 1);
    let size = (block + 1) * 4096;
    volume.set_size(id, size, at(4)).expect("size");
    assert_eq!(left(&volume, id), [block]);
    volume.commit().expect("commit");
    assert_clean(&disk);
}

#[test]
fn what_is_allocated_after_it_stays() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = half_truncated(&volume);
    let block = *left(&volume, id).last().expect("something is left");
    // Behind the end, as with FALLOC_FL_KEEP_SIZE.
    let done = volume.prealloc(id, FileBlock(block), 1).expect("prealloc");
    assert_eq!(done.value, FileBlock(block + 1));
    assert!(left(&volume, id).is_empty());
    volume
        .set_size(id, (block + 1) * 4096, at(4))
        .expect("size");
    let map = volume.map(id, FileBlock(block), 1).expect("map");
    assert!(matches!(map.backing, Backing::Prealloc { .. }));
    volume.commit().expect("commit");
    assert_clean(&disk);
}

#[test]
fn what_was_to_go_does_not_move() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let id = half_truncated(&volume);
    assert!(!left(&volume, id).is_empty());
    volume.move_down(id, FileBlock(4), 4).expect("move down");
    assert!(left(&volume, id).is_empty());
    let end = FileBlock(1000);
    let id = {
        volume
            .unlink(root(&volume), b"file", at(4))
            .expect("unlink");
        half_truncated(&volume)
    };
    volume.move_up(id, FileBlock(0), end, 1).expect("move up");
    assert!((0..2 * EXTENTS).all(|block| !is_written(&volume, id, block)));
    volume.commit().expect("commit");
    assert_clean(&disk);
}
