// SPDX-License-Identifier: GPL-2.0

//! What a volume holds, as the model knows it and as a disk shows it, and whether the two agree.

use super::world::World;
use super::SimVolume;
use oxfs::engine::device::BlockDevice;
use oxfs::engine::mount::MountOptions;
use oxfs::engine::subvolume::root_of;
use oxfs::engine::types::{Backing, BlockNr, FileBlock, FileType, InodeId, SubvolId, ROOT_INO};
use oxfs::engine::volume::Volume;
use oxfs::sim::SimDisk;
use std::collections::BTreeMap;

/// Blocks of a file, so that a few fill the smallest volume.
pub const SPAN: u64 = 300;

/// What is at a block of a file; absent is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Zero,
    /// The number that the block is full of, and whether its mapping was committed.
    Data(u64, bool),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct File {
    /// The same through renames.
    pub uid: u64,
    pub cells: BTreeMap<u64, Cell>,
    pub size: u64,
}

/// The content of a subvolume.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subvolume {
    pub files: BTreeMap<Vec<u8>, File>,
    /// Subvolumes that hang in it, by name; `None` is a plain directory that a snapshot copied.
    pub nested: Nested,
}

/// Names and the subvolumes that they lead to.
pub type Nested = BTreeMap<Vec<u8>, Option<u64>>;
/// Subvolumes by their number.
pub type Subvolumes = BTreeMap<u64, Subvolume>;

/// An acknowledged state, and what was written in place after it.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    pub subvolumes: Subvolumes,
    /// By file and block: numbers written in place since, in order.
    pub in_place: BTreeMap<(u64, u64), Vec<u64>>,
}

/// What a subvolume on a disk shows: size and content of each file, and what hangs in it.
#[derive(Debug, Default)]
pub struct Shown {
    files: BTreeMap<Vec<u8>, (u64, Content)>,
    nested: Nested,
}

/// The content of a file on a disk: for each block that is no hole the numbers in its sectors.
type Content = BTreeMap<u64, [u64; 8]>;

fn sectors_of(block: &[u8; 4096]) -> [u64; 8] {
    std::array::from_fn(|i| {
        let sector = &block[i * 512..][..512];
        let number = u64::from_le_bytes(sector[..8].try_into().expect("eight bytes"));
        let whole = sector
            .chunks_exact(8)
            .all(|piece| piece == number.to_le_bytes());
        if whole {
            number
        } else {
            u64::MAX
        }
    })
}

/// All files of all subvolumes but those that are being dropped. `None` when the volume cannot be
/// mounted or read.
pub fn read_all(disk: &SimDisk) -> Option<BTreeMap<u64, Shown>> {
    let volume = Volume::mount(disk.clone(), &MountOptions { read_only: true }).ok()?;
    let mut shown = BTreeMap::new();
    let mut from = SubvolId(0);
    while let Some(info) = volume.next_subvolume(from).ok()? {
        from = SubvolId(info.id.0 + 1);
        if !info.dropping {
            volume.open_subvolume(info.id).ok()?;
            shown.insert(info.id.0, read_dir(&volume, disk, root_of(info.id))?);
        }
    }
    Some(shown)
}

fn read_dir(volume: &SimVolume, disk: &SimDisk, top: InodeId) -> Option<Shown> {
    let mut entries = Vec::new();
    volume.readdir(top, 2, 1000, &mut entries).ok()?;
    let mut shown = Shown::default();
    for entry in &entries {
        if *entry.name == *World::AFTER_CRASH {
            continue;
        }
        if entry.kind == FileType::Directory {
            let leads = (entry.id.ino == ROOT_INO).then_some(entry.id.subvol.0);
            shown.nested.insert(entry.name.to_vec(), leads);
            continue;
        }
        let size = volume.inode(entry.id).ok()?.size;
        shown.files.insert(
            entry.name.to_vec(),
            (size, read_file(volume, disk, entry.id)?),
        );
    }
    Some(shown)
}

fn read_file(volume: &SimVolume, disk: &SimDisk, id: InodeId) -> Option<Content> {
    let mut content = Content::new();
    let end = 3 * SPAN;
    let mut at = 0;
    while at < end {
        let map = volume.map(id, FileBlock(at), end - at).ok()?;
        for i in 0..map.len {
            let numbers = match map.backing {
                Backing::Hole => continue,
                Backing::Unbacked | Backing::Prealloc { .. } => [0; 8],
                Backing::Written { at: block, .. } => {
                    let mut data = [0; 4096];
                    disk.read(BlockNr(block.0 + i), &mut data).ok()?;
                    sectors_of(&data)
                }
            };
            content.insert(at + i, numbers);
        }
        at += map.len;
    }
    Some(content)
}

/// Whether a disk shows `state`, or `with_in_place` what was written in place after it.
pub fn matches(state: &Committed, shown: &BTreeMap<u64, Shown>, with_in_place: bool) -> bool {
    let known = &state.subvolumes;
    known.keys().eq(shown.keys())
        && known
            .values()
            .zip(shown.values())
            .all(|(known, shown)| same(state, known, shown, with_in_place))
}

fn same(state: &Committed, known: &Subvolume, shown: &Shown, with_in_place: bool) -> bool {
    known.nested == shown.nested
        && known.files.len() == shown.files.len()
        && known.files.iter().zip(&shown.files).all(
            |((name, file), (its_name, (size, content)))| {
                name == its_name
                    && file.size == *size
                    && file.cells.len() == content.len()
                    && file
                        .cells
                        .iter()
                        .zip(content)
                        .all(|((at, cell), (its_at, numbers))| {
                            at == its_at && fits(state, file, *at, *cell, numbers, with_in_place)
                        })
            },
        )
}

fn fits(
    state: &Committed,
    file: &File,
    at: u64,
    cell: Cell,
    numbers: &[u64; 8],
    with_in_place: bool,
) -> bool {
    let expected = match cell {
        Cell::Zero => 0,
        Cell::Data(number, _) => number,
    };
    let since = state
        .in_place
        .get(&(file.uid, at))
        .filter(|_| with_in_place);
    numbers
        .iter()
        .all(|number| *number == expected || since.is_some_and(|since| since.contains(number)))
}

/// A name, to print.
pub fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// What is different between the two.
pub fn difference(state: &Committed, shown: &BTreeMap<u64, Shown>) -> String {
    if !state.subvolumes.keys().eq(shown.keys()) {
        let expected: Vec<_> = state.subvolumes.keys().collect();
        let found: Vec<_> = shown.keys().collect();
        return format!("expected subvolumes {expected:?}, found {found:?}");
    }
    let mut said = String::new();
    for ((id, known), shown) in state.subvolumes.iter().zip(shown.values()) {
        if !same(state, known, shown, true) {
            let what = difference_of_files(state, known, shown);
            said += &format!("; subvolume {id}: {what}");
        }
    }
    said
}

fn difference_of_files(state: &Committed, known: &Subvolume, shown: &Shown) -> String {
    let (files, nested) = (&known.files, &known.nested);
    if *nested != shown.nested {
        return format!("expected {nested:?}, found {:?}", shown.nested);
    }
    let shown = &shown.files;
    if !files.keys().eq(shown.keys()) {
        let expected: Vec<_> = files.keys().map(|name| show(name)).collect();
        let found: Vec<_> = shown.keys().map(|name| show(name)).collect();
        return format!("expected {expected:?}, found {found:?}");
    }
    for ((name, file), (size, content)) in files.iter().zip(shown.values()) {
        if file.size != *size {
            return format!("{}: expected size {}, found {size}", show(name), file.size);
        }
        for at in 0..3 * SPAN {
            let (cell, found) = (file.cells.get(&at), content.get(&at));
            let same = match (cell, found) {
                (None, None) => true,
                (Some(cell), Some(numbers)) => fits(state, file, at, *cell, numbers, true),
                _ => false,
            };
            if !same {
                return format!(
                    "{}, block {at}: expected {cell:?}, found {found:?}",
                    show(name)
                );
            }
        }
    }
    "no difference but for writes in place".into()
}
