// SPDX-License-Identifier: GPL-2.0

//! Hostile images: volumes with something of everything, and with subvolumes in every state, damaged in
//! one or a few places with their checksums made right again, then mounted, read, checked and worked
//! on. Nothing may panic or run without end; what the answers are does not matter here.
//!
//! `OXFS_HOSTILE_CASES=N` tries N images, `OXFS_HOSTILE_SEED=N` begins with image N.

#[path = "hostile/base.rs"]
mod base;
#[path = "hostile/subvolumes.rs"]
mod subvolumes;

use crate::common::{self, at, mount, new_inode, number, root, Choice, Random, Tape, SMALL};
use base::write_file;
use oxfs::check::check;
use oxfs::engine::device::BlockDevice;
use oxfs::engine::format::{tree_kind, SuperBlock};
use oxfs::engine::mount::MountOptions;
use oxfs::engine::node;
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::subvolume::{root_of, SubvolInfo, TOP};
use oxfs::engine::super_block;
use oxfs::engine::types::{
    Backing, BlockNr, FileBlock, FileType, InodeId, MAX_FILE_BLOCKS, MAX_FILE_SIZE,
};
use oxfs::engine::volume::Volume;
use oxfs::engine::xattr::XattrMode;
use oxfs::platform::Block;
use oxfs::sim::{Image, SimDisk};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::OnceLock;

type V = Volume<SimDisk>;

/// Steps of a loop that an intact volume of this size never needs.
const STEPS: usize = 3000;

/// The nodes and super blocks of an image.
fn metadata(image: &Image) -> (Vec<BlockNr>, Vec<BlockNr>) {
    let magic = |at: BlockNr, place: usize, magic: &[u8]| {
        image
            .get(at)
            .is_some_and(|block| block[place..place + magic.len()] == *magic)
    };
    let node = 0x6e78_6f31u32.to_le_bytes();
    let blocks = image.blocks();
    let nodes = blocks
        .iter()
        .copied()
        .filter(|at| magic(*at, 4, &node))
        .collect();
    let supers = blocks
        .iter()
        .copied()
        .filter(|at| magic(*at, 4, b"oxfs"))
        .collect();
    (nodes, supers)
}

fn nasty(random: &mut dyn Choice) -> u64 {
    match random.below(14) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => u64::MAX - 1,
        4 => 1 << 63,
        5 => (1 << 63) - 1,
        6 => MAX_FILE_BLOCKS,
        7 => MAX_FILE_SIZE,
        8 => 32768,
        9 => SMALL,
        10 => u64::from(u32::MAX),
        11 => random.below(64),
        12 => random.below(SMALL),
        _ => random.next(),
    }
}

/// Writes a nasty number of 1, 2, 4 or 8 bytes somewhere into `data`.
fn scribble(data: &mut [u8], random: &mut dyn Choice) {
    if data.is_empty() {
        return;
    }
    let width = 1 << random.below(4);
    let at = random.below(data.len() as u64) as usize;
    let at = if random.below(4) == 0 {
        at
    } else {
        at / width * width
    };
    let end = (at + width).min(data.len());
    let value = nasty(random).to_le_bytes();
    data[at..end].copy_from_slice(&value[..end - at]);
}

fn damage_node(block: &mut Block, random: &mut dyn Choice) {
    let n = node::count(block) as u64;
    match random.below(8) {
        // Anywhere in the header, the slots or the values.
        0 => scribble(&mut block[24..], random),
        1 => scribble(&mut block[24..64 + (n as usize * 33).min(4032)], random),
        // A value of a leaf, or a slot of an inner node.
        _ if node::level(block) == 0 && n > 0 => {
            let i = random.below(n) as usize;
            scribble(node::leaf_data_mut(block, i), random);
        }
        _ => scribble(&mut block[64..64 + (n as usize * 33).min(4032)], random),
    }
    node::seal(block);
}

fn damage(disk: &SimDisk, nodes: &[BlockNr], supers: &[BlockNr], random: &mut dyn Choice) {
    for _ in 0..1 + random.below(3) {
        if random.below(12) == 0 {
            // The same in all copies.
            let seed = random.next();
            for at in supers {
                disk.damage(*at, |block| {
                    scribble(&mut block[48..568], &mut Random(seed));
                    let _ = super_block::seal(block, at.0);
                });
            }
        } else {
            let at = nodes[random.below(nodes.len() as u64) as usize];
            disk.damage(at, |block| damage_node(block, random));
        }
    }
}

/// Reads everything below `dir`.
fn read_all(volume: &V, dir: InodeId, depth: usize, found: &mut Vec<(InodeId, FileType)>) {
    let mut from = 0;
    for _ in 0..STEPS {
        let mut entries = Vec::new();
        if volume.readdir(dir, from, 50, &mut entries).is_err() {
            return;
        }
        let Some(last) = entries.last() else { return };
        from = last.cookie + 1;
        for entry in &entries {
            if found.len() > STEPS {
                return;
            }
            found.push((entry.id, entry.kind));
            let _ = volume.lookup(dir, &entry.name);
            if entry.kind == FileType::Directory && depth < 8 {
                read_all(volume, entry.id, depth + 1, found);
            }
        }
    }
}

fn read_inode(volume: &V, disk: &SimDisk, id: InodeId) {
    let _ = volume.inode(id);
    let _ = volume.parent(id);
    let _ = volume.read_link(id, &mut Vec::new());
    let _ = volume.list_xattr(id, &mut Vec::new());
    let _ = volume.get_xattr(id, b"user.x", &mut Vec::new());
    let _ = volume.first_hole(id, 500);
    let mut at = 0;
    for _ in 0..STEPS {
        let Ok(map) = volume.map(id, FileBlock(at), u64::MAX) else {
            break;
        };
        assert!(map.len > 0);
        if let Backing::Written { at, .. } = map.backing {
            let _ = disk.read(at, &mut [0; 4096]);
        }
        at = map.start.0 + map.len;
        if at >= MAX_FILE_BLOCKS {
            break;
        }
    }
}

/// Whether all of it was done.
fn punch(volume: &V, id: InodeId, start: u64, end: u64) -> bool {
    let mut at = start;
    for _ in 0..STEPS {
        let Ok(done) = volume.punch(id, FileBlock(at), end - at) else {
            return false;
        };
        at = done.value.0;
        if at >= end {
            return true;
        }
    }
    false
}

/// One change of the inode `id`, or of `other`.
fn change(volume: &V, disk: &SimDisk, (id, other): (InodeId, InodeId), random: &mut dyn Choice) {
    let start = random.below(450);
    let len = 1 + random.below(60);
    match random.below(10) {
        0 => {
            for _ in 0..STEPS {
                if volume
                    .truncate(id, start * 4096, at(9))
                    .map_or(true, |done| done.value)
                {
                    break;
                }
            }
        }
        1 => {
            punch(volume, id, start, start + len);
        }
        2 => {
            let _ = volume.prealloc(id, FileBlock(start), len);
        }
        3 => {
            let mut from = FileBlock(start + len);
            let mut steps = STEPS * usize::from(punch(volume, id, start, from.0));
            while steps > 0 && from.0 < MAX_FILE_BLOCKS {
                from = volume
                    .move_down(id, from, len)
                    .map_or(FileBlock(MAX_FILE_BLOCKS), |done| done.value);
                steps -= 1;
            }
        }
        4 => {
            let (start, mut to) = (FileBlock(start), FileBlock(MAX_FILE_BLOCKS));
            for _ in 0..STEPS {
                to = volume
                    .move_up(id, start, to, len)
                    .map_or(start, |done| done.value);
                if to <= start {
                    break;
                }
            }
        }
        5 => {
            if volume.prepare_write(id, FileBlock(start), len).is_ok() {
                write_file(disk, volume, id, start, len);
            }
        }
        6 => {
            let _ = volume.set_swapping(id, true);
            let _ = volume.plan_swap(id, 60).map(|plan| plan.apply(&[1; 4096]));
            let _ = volume.swap_run(id, 1, 60);
            let _ = volume.set_swapping(id, false);
            let _ = volume.restore_swap(id);
        }
        7 => {
            let value = [1; 200];
            let _ = volume.set_xattr(id, b"user.x", Some(&value), XattrMode::Any, at(9));
        }
        8 => {
            let target = root(volume);
            let _ = volume.link(id, target, b"another", at(9));
        }
        _ => {
            let _ = volume.clone_range(&CloneRange {
                source: id,
                from: FileBlock(start),
                target: other,
                to: FileBlock(start + 1000),
                len,
            });
        }
    }
}

fn change_names(volume: &V, random: &mut dyn Choice) {
    let top = root(volume);
    let new = new_inode(0o100600, at(9));
    let _ = volume.create(top, b"new file", &new);
    let _ = volume.create(top, b"new dir", &new_inode(0o040700, at(9)));
    let _ = volume.tmpfile(top.subvol, &new);
    let sub = volume
        .lookup(top, b"sub")
        .ok()
        .flatten()
        .map_or(top, |(id, _)| id);
    let names: [&[u8]; 5] = [b"data", b"sub", b"swap", b"new dir", b"second name"];
    for flags in [RenameFlags::Replace, RenameFlags::Exchange] {
        let pick = |random: &mut dyn Choice| names[random.below(5) as usize];
        let (old_name, new_name) = (pick(random), pick(random));
        let (old_dir, new_dir) = (top, if random.below(2) == 0 { top } else { sub });
        let _ = volume.rename(&Rename {
            old_dir,
            old_name,
            new_dir,
            new_name,
            flags,
            whiteout: None,
            time: at(9),
        });
    }
    for name in names {
        let gone = match random.below(2) {
            0 => volume.unlink(top, name, at(9)),
            _ => volume.rmdir(top, name, at(9)),
        };
        if let Ok(gone) = gone {
            finish(volume, gone.value.id);
        }
    }
}

fn finish(volume: &V, id: InodeId) {
    for _ in 0..STEPS {
        if volume.finish_orphan(id).map_or(true, |done| done.value) {
            break;
        }
    }
}

/// Mounts, reads and changes what there is; `careful` as the kernel does it, which changes the content
/// of regular files only, and of none that is in a subvolume that was deleted.
fn exercise(disk: &SimDisk, random: &mut dyn Choice, careful: bool) {
    let _ = check(disk);
    let Ok(volume) = Volume::mount(disk.clone(), &MountOptions { read_only: false }) else {
        return;
    };
    let (ids, top) = (subvolumes::read(&volume), root(&volume));
    let mut found = vec![(top, FileType::Directory)];
    read_all(&volume, top, 0, &mut found);
    if top.subvol != TOP {
        read_all(&volume, root_of(TOP), 0, &mut found);
    }
    for (id, _) in &found {
        read_inode(&volume, disk, *id);
    }
    let _ = volume.statfs();
    if careful {
        found.retain(|(_, kind)| *kind == FileType::Regular);
    }
    // Reading may have found the damage and stopped all changes: changes meet it first then.
    drop(volume);
    let Ok(volume) = Volume::mount(disk.clone(), &MountOptions { read_only: false }) else {
        return;
    };
    subvolumes::read(&volume);
    for round in 0..16 {
        let mut pick = || found[random.below(found.len() as u64) as usize].0;
        let (id, other) = (pick(), pick());
        let alive = |id: InodeId| volume.subvolume(id.subvol).is_ok_and(|info| !info.dropping);
        if !careful || (alive(id) && alive(other)) {
            change(&volume, disk, (id, other), random);
        }
        subvolumes::change(&volume, &ids, random);
        if round % 4 == 0 {
            change_names(&volume, random);
            let _ = volume.commit();
        }
    }
    let top = root(&volume);
    if let Ok(Some(ino)) = volume.orphan_next(top.subvol, None) {
        finish(&volume, InodeId { ino, ..top });
    }
    let another = base::snapshot(top.subvol, top, b"another", false);
    let _ = volume.snapshot(&another);
    subvolumes::drop_some(&volume, STEPS);
    let _ = volume.trim_group(0, 1);
    let _ = volume.unmount();
    let _ = check(disk);
}

/// An image, its nodes and its super blocks.
type Parts = (Image, Vec<BlockNr>, Vec<BlockNr>);

/// The intact volumes.
fn bases() -> &'static [Parts; 2] {
    static BASES: OnceLock<[Parts; 2]> = OnceLock::new();
    BASES.get_or_init(|| {
        [base::rich(), base::subvolumes()].map(|disk| {
            let image = disk.image();
            let (nodes, supers) = metadata(&image);
            (image, nodes, supers)
        })
    })
}

/// The intact volume that a number chooses, on a disk.
fn base(n: u64) -> (SimDisk, &'static Parts) {
    let bases = bases();
    let parts = &bases[(n % bases.len() as u64) as usize];
    (SimDisk::with_image(SMALL, parts.0.clone()), parts)
}

/// Bytes of nodes and super blocks, checksums made right: the first byte of `data` chooses the volume,
/// each six after it say which block, where, and three new bytes.
fn bytes_changed(data: &[u8]) -> SimDisk {
    let (first, data) = data.split_first().unwrap_or((&0, &[]));
    let (disk, (_, nodes, supers)) = base(u64::from(*first));
    for change in data.chunks_exact(6).take(64) {
        let at = usize::from(u16::from_le_bytes([change[1], change[2]])) % 4090;
        let blocks = nodes.iter().chain(supers);
        let Some(block) = blocks.cycle().nth(usize::from(change[0])) else {
            break;
        };
        disk.damage(*block, |data| {
            data[at..at + 3].copy_from_slice(&change[3..]);
            match supers.contains(block) {
                true => drop(super_block::seal(data, block.0)),
                false => node::seal(data),
            }
        });
    }
    disk
}

/// Fields of items of the `n`th intact volume.
fn fields_changed(n: u64, random: &mut dyn Choice) -> SimDisk {
    let (disk, (_, nodes, supers)) = base(n);
    damage(&disk, nodes, supers, random);
    disk
}

/// What an input of the fuzz target of fields makes: its first choice is that of the volume.
fn fields_from(tape: &mut Tape<'_>) -> SimDisk {
    let n = tape.below(2);
    fields_changed(n, tape)
}

/// An intact volume after operations, both chosen by an input.
fn operated(tape: &mut Tape<'_>) -> SimDisk {
    let (disk, _) = base(tape.below(2));
    exercise(&disk, tape, true);
    disk
}

/// Fuzz target: changed bytes, then mounted, read, checked.
pub fn fuzz_bytes(data: &[u8]) {
    exercise(&bytes_changed(data), &mut Random(1), false);
}

/// Fuzz target: changed fields, then operations; `data` makes all choices.
pub fn fuzz_fields(data: &[u8]) {
    let mut tape = Tape::new(data);
    let disk = fields_from(&mut tape);
    exercise(&disk, &mut tape, false);
}

/// Fuzz target: operations on an intact volume, which stays intact; `data` makes all choices, first
/// that of the volume.
pub fn fuzz_operations(data: &[u8]) {
    common::assert_clean(&operated(&mut Tape::new(data)));
}

type Target = (&'static str, fn(&[u8]));

/// The inputs that were kept of a target, and their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(&folder).expect("corpus").flatten();
    let input = |file: std::fs::DirEntry| {
        let name = file.file_name().to_string_lossy().into_owned();
        (name, std::fs::read(file.path()).expect("input"))
    };
    let inputs: Vec<_> = files.map(input).collect();
    assert!(inputs.len() >= 8, "{folder}");
    inputs
}

/// What the fuzzer kept: a few inputs of each target, and every one that found something.
#[test]
fn corpus_is_harmless() {
    let targets: [Target; 3] = [
        ("bytes", fuzz_bytes),
        ("fields", fuzz_fields),
        ("operations", fuzz_operations),
    ];
    for (target, run) in targets {
        for (name, data) in corpus(target) {
            if catch_unwind(AssertUnwindSafe(|| run(&data))).is_err() {
                panic!("{target}/{name}");
            }
        }
    }
}

/// Names and volumes for a guest to mount: what the inputs of the corpus make, after the operations
/// in the case of those, and `more` of the images of [`nothing_panics`].
#[allow(dead_code)] // examples/hostile-images.rs
pub fn images(more: u64) -> Vec<(String, SimDisk)> {
    let mut images = Vec::new();
    for target in ["bytes", "fields", "operations"] {
        for (name, data) in corpus(target) {
            let mut tape = Tape::new(&data);
            let disk = match target {
                "bytes" => bytes_changed(&data),
                "fields" => fields_from(&mut tape),
                _ => operated(&mut tape),
            };
            images.push((format!("{target}-{name}"), disk));
        }
    }
    let random = |seed| {
        let disk = fields_changed(seed, &mut Random(seed));
        (format!("random-{seed:02}"), disk)
    };
    images.extend((0..more).map(random));
    images
}

#[test]
fn nothing_panics() {
    let first = number("OXFS_HOSTILE_SEED").unwrap_or(0);
    let cases = number("OXFS_HOSTILE_CASES").unwrap_or(4000);
    let mut bad = Vec::new();
    for seed in first..first + cases {
        let mut random = Random(seed);
        let disk = fields_changed(seed, &mut random);
        if catch_unwind(AssertUnwindSafe(|| exercise(&disk, &mut random, false))).is_err() {
            eprintln!("image {seed}");
            bad.push(seed);
        }
    }
    assert!(
        bad.is_empty(),
        "{} images: {:?}",
        bad.len(),
        &bad[..bad.len().min(20)]
    );
}

/// Every tree is among what gets damaged.
#[test]
fn all_trees_are_there() {
    for (image, nodes, supers) in bases() {
        assert!(
            nodes.len() > 20 && supers.len() == 4,
            "{nodes:?} {supers:?}"
        );
        for tree in tree_kind::FOREST..=tree_kind::SUBVOLUME {
            let has = |at: &&BlockNr| {
                image
                    .get(**at)
                    .is_some_and(|block| node::tree(block) == tree)
            };
            assert!(nodes.iter().filter(has).count() > 0, "tree {tree}");
        }
        for at in supers {
            let block = image.get(*at).expect("super block");
            let sb: &SuperBlock = super_block::parse(block).expect("super block");
            assert_eq!(sb.block.get(), at.0);
        }
    }
}

/// Subvolumes of every state are, too.
#[test]
fn all_states_of_subvolumes_are_there() {
    let volume = mount(&base(1).0);
    let all: Vec<_> = subvolumes::read(&volume)
        .into_iter()
        .skip(1)
        .map(|id| volume.subvolume(id).expect("subvolume"))
        .collect();
    let is = |what: fn(&SubvolInfo) -> bool| all.iter().any(what);
    assert!(is(|info| info.source.is_some() && info.read_only));
    assert!(is(|info| info.source.is_some() && !info.read_only));
    assert!(is(|info| info.dropping && info.dropped > 0));
    assert!(is(|info| info.home.is_some_and(|home| home.subvol != TOP)));
    assert_ne!(volume.default_subvolume(), TOP);
    let find = |dir, name: &[u8]| volume.lookup(dir, name).expect("lookup").expect("name").0;
    let backing = |name| {
        let swap = find(find(root_of(TOP), name), b"swap");
        volume.map(swap, FileBlock(1), 1).expect("map").backing
    };
    let has_blocks = |backing| matches!(backing, Backing::Prealloc { shared: false, .. });
    assert!(has_blocks(backing(b"home")) && has_blocks(backing(b"plain")));
    assert_eq!(backing(b"snapshot"), Backing::Unbacked);
}
