// SPDX-License-Identifier: GPL-2.0

//! Volumes of version 1 with every kind of item, and with subvolumes in every state, as they were
//! written once: they must stay readable for ever. `golden/v1.txt` and `golden/v1-subvolumes.txt` are
//! never written again; a later version of the format gets files of its own (`OXFS_GOLDEN=FOLDER`
//! writes what `make` and `make_subvolumes` make).

use crate::common::{self, at, formatted, mount, new_inode, root, SimVolume, SMALL};
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::error::Error;
use oxfs::engine::format::{item_kind, NODE_MAGIC};
use oxfs::engine::inode::NewInode;
use oxfs::engine::mount::MountOptions;
use oxfs::engine::node;
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{root_of, NewSubvolume, TOP};
use oxfs::engine::types::{Backing, BlockNr, FileBlock, FileType, InodeId, SubvolId};
use oxfs::engine::xattr::XattrMode;
use oxfs::engine::Volume;
use oxfs::sim::{Image, SimDisk};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

const V1: &str = include_str!("golden/v1.txt");
const V1_SUBVOLUMES: &str = include_str!("golden/v1-subvolumes.txt");
/// Bytes of a line of the text.
const ROW: usize = 32;
const TARGET: [u8; 1500] = [b't'; 1500];

fn write(disk: &SimDisk, volume: &SimVolume, id: InodeId, start: u64, len: u64, byte: u8) {
    volume.reserve(len).expect("reserve");
    let run = volume.stage(id, FileBlock(start), len).expect("stage");
    assert_eq!(run.len, len);
    for i in 0..len {
        let block = BlockNr(run.start.0 + i);
        let data = &[byte; 4096];
        disk.write(&[Write { block, data }]).expect("write");
    }
    let (staged, size) = (Written::Staged(run.start), Some((start + len) * 4096));
    volume
        .finish_write(id, FileBlock(start), len, staged, size)
        .expect("finish_write");
}

/// Activates a swapfile whose header page is full of `s`, and ends that.
fn swap_to(volume: &SimVolume, swap: InodeId, pages: u64) {
    volume.set_swapping(swap, true).expect("pin");
    let plan = volume.plan_swap(swap, pages).expect("plan");
    plan.apply(&[b's'; 4096]).expect("swapon");
    volume.set_swapping(swap, false).expect("unpin");
}

fn make() -> SimDisk {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let top = root(&volume);
    let create = |dir, name: &str, new: &NewInode<'_>| {
        let made = volume.create(dir, name.as_bytes(), new);
        made.expect("create").value.id
    };
    let file = new_inode(0o100640, at(3));
    let dir = create(top, "dir", &new_inode(0o040755, at(3)));
    let data = create(dir, "data", &file);
    write(&disk, &volume, data, 0, 4, b'a');
    write(&disk, &volume, data, 8, 2, b'b');
    volume.prealloc(data, FileBlock(20), 5).expect("prealloc");
    volume.link(data, top, b"link", at(4)).expect("link");
    volume
        .set_xattr(data, b"user.name", Some(b"value"), XattrMode::Any, at(4))
        .expect("xattr");
    let copy = create(dir, "copy", &file);
    let clone = CloneRange {
        source: data,
        from: FileBlock(0),
        target: copy,
        to: FileBlock(1),
        len: 4,
    };
    assert_eq!(volume.clone_range(&clone).expect("clone").value, 4);
    let symlink = NewInode {
        symlink: Some(&TARGET),
        ..new_inode(0o120777, at(3))
    };
    create(top, "symlink", &symlink);
    let swap = create(top, "swap", &file);
    write(&disk, &volume, swap, 0, 16, b's');
    swap_to(&volume, swap, 16);
    common::snapshot(&volume, b"snapshot");
    volume.commit().expect("commit");
    write(&disk, &volume, data, 0, 1, b'c');
    let gone = create(top, "gone", &file);
    write(&disk, &volume, gone, 0, 1, b'g');
    volume.unlink(top, b"gone", at(5)).expect("unlink");
    volume.unmount().expect("unmount");
    disk
}

/// Subvolumes 1 to 5: `home`, the default, with a swapfile; `inner`, which hangs in it; a read-only
/// snapshot of it, and a writable one of that; and one that is gone for the half.
fn make_subvolumes() -> SimDisk {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let create = |dir, name: &str, mode| {
        let made = volume.create(dir, name.as_bytes(), &new_inode(mode, at(3)));
        made.expect("create").value.id
    };
    let subvolume = |dir, name: &str, uuid| {
        let new = NewSubvolume {
            dir,
            name: name.as_bytes(),
            root: new_inode(0o040750, at(4)),
            uuid: [uuid; 16],
        };
        let made = volume.create_subvolume(&new);
        made.expect("subvolume").value.id
    };
    let snapshot = |source: InodeId, name: &str, read_only, uuid| {
        let new = NewSnapshot {
            source: source.subvol,
            dir: root_of(TOP),
            name: name.as_bytes(),
            read_only,
            uuid: [uuid; 16],
            time: at(5),
        };
        volume.snapshot(&new).expect("snapshot").value.id
    };
    let home = subvolume(create(root_of(TOP), "dir", 0o040755), "home", 1);
    let data = create(home, "data", 0o100640);
    write(&disk, &volume, data, 0, 3, b'a');
    let swap = create(home, "swap", 0o100600);
    write(&disk, &volume, swap, 0, 8, b's');
    swap_to(&volume, swap, 8);
    let inner = subvolume(home, "inner", 2);
    let secret = create(inner, "secret", 0o100600);
    write(&disk, &volume, secret, 0, 1, b'i');
    let frozen = snapshot(home, "frozen", true, 3);
    let copy = snapshot(frozen, "copy", false, 4);
    volume.commit().expect("commit");
    write(&disk, &volume, data, 0, 1, b'c');
    let its_data = InodeId {
        subvol: copy.subvol,
        ..data
    };
    write(&disk, &volume, its_data, 1, 1, b'd');

    let gone = subvolume(root_of(TOP), "gone", 5);
    for i in 0..6 {
        let file = create(gone, &format!("file {i}"), 0o100600);
        let value = [b'x'; 1000];
        let done = volume.set_xattr(file, b"user.x", Some(&value), XattrMode::Any, at(4));
        done.expect("xattr");
    }
    let deleted = volume.delete_subvolume(root_of(TOP), b"gone", at(6));
    deleted.expect("delete");
    let step = volume.drop_step(gone.subvol).expect("drop_step");
    assert!(!step.value, "nothing is left of it");
    volume.set_default_subvolume(home.subvol).expect("default");
    volume.unmount().expect("unmount");
    disk
}

/// Blocks as text: a line `@NUMBER`, then lines of hexadecimal bytes; `=` repeats the line before.
/// The rest of a block is zeros.
fn to_text(image: &Image) -> String {
    let mut text = format!("{SMALL} blocks\n");
    for block in image.blocks() {
        let data = image.get(block).expect("block");
        let end = data
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |i| i + 1);
        if end == 0 {
            continue;
        }
        writeln!(text, "@{block}").expect("text");
        let mut last: &[u8] = &[];
        for row in data.chunks(ROW).take(end.div_ceil(ROW)) {
            if row == last {
                text.push('=');
            } else {
                let used = row.iter().rposition(|&byte| byte != 0).map_or(0, |i| i + 1);
                for byte in &row[..used] {
                    write!(text, "{byte:02x}").expect("text");
                }
            }
            text.push('\n');
            last = row;
        }
    }
    text
}

fn from_text(text: &str) -> SimDisk {
    let mut lines = text.lines();
    let blocks = lines.next().and_then(|line| line.strip_suffix(" blocks"));
    let blocks = blocks.expect("size").parse().expect("size");
    let mut image = Image::default();
    let (mut number, mut data, mut row) = (0, [0u8; 4096], 0);
    for line in lines.chain(["@0"]) {
        if let Some(next) = line.strip_prefix('@') {
            if number > 0 {
                image.set(BlockNr(number), Arc::new(data));
            }
            (number, data, row) = (next.parse().expect("block"), [0; 4096], 0);
            continue;
        }
        if line == "=" {
            data.copy_within(row - ROW..row, row);
        }
        for (i, pair) in line.as_bytes().chunks_exact(2).enumerate() {
            let pair = std::str::from_utf8(pair).expect("hexadecimal");
            data[row + i] = u8::from_str_radix(pair, 16).expect("hexadecimal");
        }
        row += ROW;
    }
    SimDisk::with_image(blocks, image)
}

#[test]
fn text_is_the_image() {
    for (disk, name) in [(make(), "v1.txt"), (make_subvolumes(), "v1-subvolumes.txt")] {
        let text = to_text(&disk.image());
        assert_eq!(to_text(&from_text(&text).image()), text);
        if let Some(folder) = std::env::var_os("OXFS_GOLDEN") {
            std::fs::write(Path::new(&folder).join(name), text).expect("write");
        }
    }
}

#[test]
fn every_kind_of_item_is_there() {
    let disk = from_text(V1);
    let mut kinds = BTreeSet::new();
    for at in disk.image().blocks() {
        let image = disk.image();
        let block = image.get(at).expect("block");
        if block[4..8] == NODE_MAGIC.to_le_bytes() && node::level(block) == 0 {
            let keys = (0..node::count(block)).filter_map(|i| node::leaf_key(block, i));
            kinds.extend(keys.map(|key| key.kind));
        }
    }
    let all = BTreeSet::from([
        item_kind::FOREST,
        item_kind::SPACE,
        item_kind::REFS,
        item_kind::SWAP,
        item_kind::ORPHAN,
        item_kind::INODE,
        item_kind::DIRENT,
        item_kind::XATTR,
        item_kind::PARENT,
        item_kind::SYMLINK,
        item_kind::EXTENT,
    ]);
    assert_eq!(kinds, all);
}

/// The first byte of each block of a file; 0 for what reads as zeros, nothing for a hole.
fn content(disk: &SimDisk, volume: &SimVolume, id: InodeId) -> Vec<(u64, u8)> {
    let (mut content, mut at) = (Vec::new(), 0);
    while at < 40 {
        let map = volume.map(id, FileBlock(at), 40 - at).expect("map");
        for i in 0..map.len {
            let byte = match map.backing {
                Backing::Hole => continue,
                Backing::Written { at, .. } => {
                    let mut data = [0; 4096];
                    disk.read(BlockNr(at.0 + i), &mut data).expect("read");
                    assert!(data.iter().all(|&byte| byte == data[0]));
                    data[0]
                }
                _ => 0,
            };
            content.push((at + i, byte));
        }
        at += map.len;
    }
    content
}

fn run(start: u64, bytes: &[u8]) -> Vec<(u64, u8)> {
    (start..).zip(bytes.iter().copied()).collect()
}

fn find(volume: &SimVolume, dir: InodeId, name: &str) -> (InodeId, FileType) {
    let found = volume.lookup(dir, name.as_bytes()).expect("lookup");
    found.unwrap_or_else(|| panic!("{name}"))
}

fn reads_as_it_was(disk: &SimDisk, volume: &SimVolume) {
    let find = |dir, name: &str| find(volume, dir, name);
    let top = root(volume);
    let (dir, kind) = find(top, "dir");
    assert_eq!(kind, FileType::Directory);
    let data = find(dir, "data").0;
    assert_eq!(find(top, "link").0, data);
    let attr = volume.inode(data).expect("inode");
    assert_eq!(
        (attr.mode, attr.uid, attr.gid, attr.nlink),
        (0o100640, 1, 2, 2)
    );
    assert_eq!((attr.size, attr.blocks, attr.btime), (10 * 4096, 11, at(3)));
    let tail = [run(8, b"bb"), run(20, &[0; 5])].concat();
    assert_eq!(
        content(disk, volume, data),
        [run(0, b"caaa"), tail.clone()].concat()
    );
    assert_eq!(content(disk, volume, find(dir, "copy").0), run(1, b"aaaa"));
    let mut value = Vec::new();
    volume
        .get_xattr(data, b"user.name", &mut value)
        .expect("xattr");
    assert_eq!(value, b"value");
    let mut target = Vec::new();
    volume
        .read_link(find(top, "symlink").0, &mut target)
        .expect("read_link");
    assert_eq!(target, TARGET);
    let swap = find(top, "swap").0;
    let header = [&b"s"[..], &[0; 15]].concat();
    assert_eq!(content(disk, volume, swap), run(0, &header));
    assert!(volume.lookup(top, b"gone").expect("lookup").is_none());
    let copy = find(top, "snapshot").0;
    assert_ne!(copy.subvol, top.subvol);
    let data = find(find(copy, "dir").0, "data").0;
    assert_eq!(
        content(disk, volume, data),
        [run(0, b"aaaa"), tail].concat()
    );
}

#[test]
fn version_1_stays_readable() {
    let disk = from_text(V1);
    common::assert_clean(&disk);
    let volume = Volume::mount(disk.clone(), &MountOptions { read_only: true }).expect("mount");
    reads_as_it_was(&disk, &volume);
    drop(volume);
    // And writable.
    let volume = mount(&disk);
    let orphan = volume
        .orphan_next(volume.default_subvolume(), None)
        .expect("orphan_next");
    let ino = orphan.expect("an orphan");
    let id = InodeId {
        ino,
        ..root(&volume)
    };
    while !volume.finish_orphan(id).expect("finish_orphan").value {}
    volume.unmount().expect("unmount");
    common::assert_clean(&disk);
    reads_as_it_was(&disk, &mount(&disk));
}

/// A subvolume as it was: number, number and uuid of its source, flags.
fn check_info(volume: &SimVolume, id: u64, source: Option<(u64, u8)>, flags: (bool, bool)) {
    let info = volume.subvolume(SubvolId(id)).expect("subvolume");
    assert_eq!(info.uuid, [id as u8; 16]);
    assert_eq!(info.source, source.map(|(id, _)| SubvolId(id)));
    assert_eq!(info.source_uuid, [source.map_or(0, |(_, uuid)| uuid); 16]);
    assert_eq!((info.read_only, info.dropping), flags, "flags of {id}");
    assert_eq!(info.home.is_some(), !info.dropping);
    assert_eq!(info.dropped > 0, info.dropping);
    let created = if source.is_some() { at(5) } else { at(4) };
    assert_eq!(info.created, created);
}

fn subvolumes_are_as_they_were(disk: &SimDisk, volume: &SimVolume) {
    check_info(volume, 1, None, (false, false));
    check_info(volume, 2, None, (false, false));
    check_info(volume, 3, Some((1, 1)), (true, false));
    check_info(volume, 4, Some((3, 3)), (false, false));
    let find = |dir, name: &str| find(volume, dir, name).0;
    let home = find(find(root_of(TOP), "dir"), "home");
    assert_eq!(root(volume), home);
    let inner = find(home, "inner");
    assert_eq!((home, inner), (root_of(SubvolId(1)), root_of(SubvolId(2))));
    assert_eq!(volume.path(inner).expect("path"), b"dir/home/inner");
    assert_eq!(content(disk, volume, find(inner, "secret")), run(0, b"i"));
    let frozen = find(root_of(TOP), "frozen");
    let copy = find(root_of(TOP), "copy");
    for (top, data) in [(home, b"caa"), (frozen, b"aaa"), (copy, b"ada")] {
        assert_eq!(content(disk, volume, find(top, "data")), run(0, data));
        let swap = find(top, "swap");
        assert_eq!(content(disk, volume, swap), run(0, b"s\0\0\0\0\0\0\0"));
        assert_eq!(volume.inode(swap).expect("inode").blocks, 8);
        // Only the file itself has swap space; what was taken of it has a promise.
        let backing = volume.map(swap, FileBlock(1), 7).expect("map").backing;
        match top == home {
            true => assert!(matches!(backing, Backing::Prealloc { shared: false, .. })),
            false => assert_eq!(backing, Backing::Unbacked),
        }
    }
    // Of what hangs in their source they have an empty directory.
    for top in [frozen, copy] {
        let plain = find(top, "inner");
        assert_eq!(plain.subvol, top.subvol);
        let mut entries = Vec::new();
        volume.readdir(plain, 2, 9, &mut entries).expect("readdir");
        assert!(entries.is_empty());
    }
    let into = volume.create(frozen, b"new", &new_inode(0o100600, at(9)));
    assert_eq!(into.map(drop), Err(Error::ReadOnly));
}

#[test]
fn subvolumes_of_version_1_stay_readable() {
    let disk = from_text(V1_SUBVOLUMES);
    common::assert_clean(&disk);
    let volume = Volume::mount(disk.clone(), &MountOptions { read_only: true }).expect("mount");
    subvolumes_are_as_they_were(&disk, &volume);
    check_info(&volume, 5, None, (false, true));
    drop(volume);
    // And writable; dropping goes on where it stopped.
    let volume = mount(&disk);
    let gone = volume.next_dropping(TOP).expect("next_dropping");
    assert_eq!(gone, Some(SubvolId(5)));
    while !volume.drop_step(SubvolId(5)).expect("drop_step").value {}
    assert_eq!(volume.subvolume(SubvolId(5)), Err(Error::NotFound));
    volume.unmount().expect("unmount");
    common::assert_clean(&disk);
    subvolumes_are_as_they_were(&disk, &mount(&disk));
}
