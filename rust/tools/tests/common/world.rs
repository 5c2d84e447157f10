// SPDX-License-Identifier: GPL-2.0

//! A volume under random work, and the states that a crash may show.
//!
//! Files in one directory, written through the engine as the kernel does it: new blocks are written
//! first and mapped after, blocks that belong to one file alone are overwritten in place. The
//! model keeps a copy of everything at each acknowledged commit.

use super::{at, mount, new_inode, root, Random, SimVolume};
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::error::Error;
use oxfs::engine::mount::MountOptions;
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::root_of;
use oxfs::engine::types::{
    Backing, BlockNr, FileBlock, FileType, InodeId, Run, SubvolId, ROOT_INO,
};
use oxfs::engine::volume::Volume;
use oxfs::sim::SimDisk;
use std::collections::BTreeMap;

/// What is at a block of a file; absent is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Zero,
    /// The number that the block is full of, and whether its mapping was committed.
    Data(u64, bool),
}

#[derive(Debug, Clone, Default, PartialEq)]
struct File {
    /// The same through renames.
    uid: u64,
    cells: BTreeMap<u64, Cell>,
    size: u64,
}

type Files = BTreeMap<Vec<u8>, File>;
/// Snapshots by their number.
type Snapshots = BTreeMap<u64, Files>;

/// An acknowledged state, and what was written in place after it.
#[derive(Debug, Clone, Default)]
struct Committed {
    files: Files,
    snapshots: Snapshots,
    /// By file and block: numbers written in place since, in order.
    in_place: BTreeMap<(u64, u64), Vec<u64>>,
}

/// What a disk shows after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// This state, by its number.
    State(usize),
    /// None that is allowed.
    Nothing,
}

/// What a directory on a disk shows: size and content of each file.
type Shown = BTreeMap<Vec<u8>, (u64, Content)>;

/// The content of a file on a disk: for each block that is no hole the numbers in its sectors.
type Content = BTreeMap<u64, [u64; 8]>;

pub struct World {
    disk: SimDisk,
    volume: SimVolume,
    random: Random,
    files: Files,
    snapshots: Snapshots,
    states: Vec<Committed>,
    next: u64,
    clock: i64,
    /// What was done, for whoever looks at a failure.
    log: Vec<String>,
    /// Staged and not yet mapped: a write that is under way while others commit.
    pending: Option<(Vec<u8>, u64, Run, u64)>,
}

const NAMES: u64 = 9;
/// No history makes so many.
const MOST_SUBVOLUMES: u64 = 24;
/// Blocks of a file, so that a few fill the smallest volume.
const SPAN: u64 = 300;

fn block_of(number: u64) -> [u8; 4096] {
    let mut block = [0; 4096];
    for piece in block.chunks_exact_mut(8) {
        piece.copy_from_slice(&number.to_le_bytes());
    }
    block
}

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

impl World {
    /// A name that no state has.
    pub const AFTER_CRASH: &'static [u8] = b"after the crash";

    pub fn new(disk: SimDisk, seed: u64) -> Self {
        let volume = mount(&disk);
        Self {
            disk,
            volume,
            random: Random(seed.wrapping_mul(0x9e37_79b9).wrapping_add(1)),
            files: Files::new(),
            snapshots: Snapshots::new(),
            states: vec![Committed::default()],
            next: 1,
            clock: 100,
            log: Vec::new(),
            pending: None,
        }
    }

    fn name(&mut self) -> Vec<u8> {
        let n = self.random.below(NAMES);
        format!("file {n}").into_bytes()
    }

    fn id(&self, name: &[u8]) -> InodeId {
        self.volume
            .lookup(root(&self.volume), name)
            .expect("lookup")
            .expect("name")
            .0
    }

    fn existing(&mut self) -> Option<Vec<u8>> {
        let n = self.random.below(self.files.len().max(1) as u64) as usize;
        self.files.keys().nth(n).cloned()
    }

    /// One random operation. A full volume is no failure.
    pub fn step(&mut self) {
        self.clock += 1;
        let choice = self.random.below(26);
        self.log.push(format!("operation {choice}"));
        let result = match choice {
            0..3 => self.create(),
            3..9 => self.write(),
            9 => self.truncate(),
            10 => self.punch(),
            11 => self.prealloc(),
            12..14 => self.clone_range(),
            14 => self.unlink(),
            15..17 => self.rename(),
            17 => self.begin_write(),
            18 => self.end_write(),
            19 => self.flush(),
            20 => self.swap(),
            21 => self.snapshot(),
            22 => self.drop_snapshot(),
            _ => {
                self.commit();
                Ok(())
            }
        };
        match result {
            Ok(()) => {}
            Err(Error::NoSpace) => self.log.push("no space".into()),
            Err(error) => panic!("{error}"),
        }
    }

    pub fn commit(&mut self) {
        self.volume.commit().expect("commit");
        for file in self.files.values_mut() {
            for cell in file.cells.values_mut() {
                if let Cell::Data(_, committed) = cell {
                    *committed = true;
                }
            }
        }
        self.acknowledge(self.files.clone(), self.snapshots.clone());
    }

    fn acknowledge(&mut self, files: Files, snapshots: Snapshots) {
        self.log.push(format!("state {}", self.states.len()));
        self.states.push(Committed {
            files,
            snapshots,
            in_place: BTreeMap::new(),
        });
        self.disk.mark(self.states.len() as u64 - 1);
    }

    /// What was written in place is durable; changes of mappings are not.
    fn flush(&mut self) -> Result<(), Error> {
        self.volume.flush()?;
        let last = self.states.last().expect("a state").clone();
        let mut files = last.files;
        for file in files.values_mut() {
            for (block, cell) in &mut file.cells {
                if let Some(number) = last
                    .in_place
                    .get(&(file.uid, *block))
                    .and_then(|n| n.last())
                {
                    *cell = Cell::Data(*number, true);
                }
            }
        }
        self.acknowledge(files, last.snapshots);
        Ok(())
    }

    fn create(&mut self) -> Result<(), Error> {
        let name = self.name();
        let new = new_inode(0o100600, at(self.clock));
        match self.volume.create(root(&self.volume), &name, &new) {
            Ok(_) => {
                self.next += 1;
                let file = File {
                    uid: self.next,
                    ..File::default()
                };
                assert!(self.files.insert(name, file).is_none());
                Ok(())
            }
            Err(Error::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn range(&mut self) -> (u64, u64) {
        let long = self.random.below(4) == 0;
        (
            self.random.below(SPAN),
            1 + self.random.below(if long { 120 } else { 6 }),
        )
    }

    fn put(&mut self, block: u64) -> Result<u64, Error> {
        self.next += 1;
        let data = block_of(self.next);
        self.disk.write(&[Write {
            block: BlockNr(block),
            data: &data,
        }])?;
        Ok(self.next)
    }

    fn write(&mut self) -> Result<(), Error> {
        let Some(name) = self.existing() else {
            return Ok(());
        };
        let (start, len) = self.range();
        let id = self.id(&name);
        self.volume.prepare_write(id, FileBlock(start), len)?;
        let mut at = start;
        while at < start + len {
            let map = self.volume.map(id, FileBlock(at), start + len - at)?;
            at += match map.backing {
                Backing::Written {
                    at: block,
                    shared: false,
                }
                | Backing::Prealloc {
                    at: block,
                    shared: false,
                } => self.write_in_place(&name, id, at, Run::new(block, map.len))?,
                _ => {
                    self.volume.reserve(map.len)?;
                    let run = self.volume.stage(id, FileBlock(at), map.len)?;
                    self.volume.unreserve(map.len - run.len);
                    self.write_staged(&name, at, run)?
                }
            };
        }
        Ok(())
    }

    fn write_in_place(
        &mut self,
        name: &[u8],
        id: InodeId,
        at: u64,
        run: Run,
    ) -> Result<u64, Error> {
        for i in 0..run.len {
            let number = self.put(run.start.0 + i)?;
            let file = self.files.get_mut(name).expect("file");
            let old = file.cells.get(&(at + i)).copied();
            let committed = matches!(old, Some(Cell::Data(_, true)));
            file.cells.insert(at + i, Cell::Data(number, committed));
            if committed {
                let state = self.states.last_mut().expect("a state");
                state
                    .in_place
                    .entry((file.uid, at + i))
                    .or_default()
                    .push(number);
            }
        }
        self.map(name, id, at, run.len, Written::InPlace)?;
        self.log.push(format!(
            "{} {at}: in place {run}, up to {}",
            show(name),
            self.next
        ));
        Ok(run.len)
    }

    fn write_staged(&mut self, name: &[u8], at: u64, run: Run) -> Result<u64, Error> {
        let mut numbers = Vec::new();
        for i in 0..run.len {
            numbers.push(self.put(run.start.0 + i)?);
        }
        let id = self.id(name);
        self.map(name, id, at, run.len, Written::Staged(run.start))?;
        self.log.push(format!(
            "{} {at}: staged {run}, up to {}",
            show(name),
            self.next
        ));
        let file = self.files.get_mut(name).expect("file");
        for (i, number) in (0..).zip(numbers) {
            file.cells.insert(at + i, Cell::Data(number, false));
        }
        Ok(run.len)
    }

    fn map(
        &mut self,
        name: &[u8],
        id: InodeId,
        at: u64,
        len: u64,
        written: Written,
    ) -> Result<(), Error> {
        let size = (at + len) * 4096;
        self.volume
            .finish_write(id, FileBlock(at), len, written, Some(size))?;
        let file = self.files.get_mut(name).expect("file");
        file.size = file.size.max(size);
        Ok(())
    }

    /// Stages blocks that stay unmapped while other things happen.
    fn begin_write(&mut self) -> Result<(), Error> {
        let Some(name) = self.existing().filter(|_| self.pending.is_none()) else {
            return Ok(());
        };
        let start = self.random.below(SPAN);
        let id = self.id(&name);
        self.volume.prepare_write(id, FileBlock(start), 4)?;
        self.volume.reserve(4)?;
        let run = self.volume.stage(id, FileBlock(start), 4)?;
        self.volume.unreserve(4 - run.len);
        let uid = self.files[&name].uid;
        self.pending = Some((name, start, run, uid));
        Ok(())
    }

    fn end_write(&mut self) -> Result<(), Error> {
        let Some((name, start, run, uid)) = self.pending.take() else {
            return Ok(());
        };
        // The file may have gone, or become another.
        if self.files.get(&name).is_some_and(|file| file.uid == uid) {
            let id = self.id(&name);
            self.volume.prepare_write(id, FileBlock(start), run.len)?;
            return self.write_staged(&name, start, run).map(drop);
        }
        self.volume.unstage(run);
        Ok(())
    }

    fn clear(&mut self, name: &[u8], start: u64, end: u64) {
        let file = self.files.get_mut(name).expect("file");
        file.cells.retain(|at, _| !(start..end).contains(at));
    }

    fn truncate(&mut self) -> Result<(), Error> {
        let Some(name) = self.existing() else {
            return Ok(());
        };
        let (blocks, id) = (self.random.below(SPAN), self.id(&name));
        while !self
            .volume
            .truncate(id, blocks * 4096, at(self.clock))?
            .value
        {}
        self.log
            .push(format!("{} truncated to {blocks} blocks", show(&name)));
        self.clear(&name, blocks, u64::MAX);
        self.files.get_mut(&name).expect("file").size = blocks * 4096;
        Ok(())
    }

    fn punch(&mut self) -> Result<(), Error> {
        let Some(name) = self.existing() else {
            return Ok(());
        };
        let ((start, len), id) = (self.range(), self.id(&name));
        let mut at = start;
        while at < start + len {
            at = self
                .volume
                .punch(id, FileBlock(at), start + len - at)?
                .value
                .0;
        }
        self.clear(&name, start, start + len);
        Ok(())
    }

    fn prealloc(&mut self) -> Result<(), Error> {
        let Some(name) = self.existing() else {
            return Ok(());
        };
        let ((start, len), id) = (self.range(), self.id(&name));
        let mut at = start;
        while at < start + len {
            let next = self
                .volume
                .prealloc(id, FileBlock(at), start + len - at)?
                .value
                .0;
            let file = self.files.get_mut(&name).expect("file");
            for block in at..next {
                file.cells.entry(block).or_insert(Cell::Zero);
            }
            at = next;
        }
        Ok(())
    }

    fn clone_range(&mut self) -> Result<(), Error> {
        let (Some(from), Some(to)) = (self.existing(), self.existing()) else {
            return Ok(());
        };
        let ((start, len), target) = (self.range(), self.random.below(SPAN));
        if from == to {
            return Ok(());
        }
        let (source, into) = (self.id(&from), self.id(&to));
        let mut done = 0;
        while done < len {
            let step = self.volume.clone_range(&CloneRange {
                source,
                from: FileBlock(start + done),
                target: into,
                to: FileBlock(target + done),
                len: len - done,
            })?;
            self.log.push(format!(
                "{} {}+{} cloned to {} {}",
                show(&from),
                start + done,
                step.value,
                show(&to),
                target + done
            ));
            self.model_clone(&from, &to, start + done, target + done, step.value);
            done += step.value;
        }
        let size = (target + len) * 4096;
        self.volume.set_size(into, size, at(self.clock))?;
        let file = self.files.get_mut(&to).expect("file");
        file.size = file.size.max(size);
        Ok(())
    }

    fn model_clone(&mut self, from: &[u8], to: &[u8], start: u64, target: u64, len: u64) {
        let cells = &self.files[from].cells;
        let part: Vec<_> = cells
            .range(start..start + len)
            .map(|(a, c)| (*a, *c))
            .collect();
        self.clear(to, target, target + len);
        let file = self.files.get_mut(to).expect("file");
        for (at, cell) in part {
            let cell = match cell {
                Cell::Data(number, _) => Cell::Data(number, false),
                Cell::Zero => Cell::Zero,
            };
            file.cells.insert(at - start + target, cell);
        }
    }

    fn unlink(&mut self) -> Result<(), Error> {
        let Some(name) = self.existing() else {
            return Ok(());
        };
        let gone = self
            .volume
            .unlink(root(&self.volume), &name, at(self.clock))?
            .value;
        self.files.remove(&name);
        // Sometimes it is still open when the power goes.
        if self.random.below(3) > 0 {
            while !self.volume.finish_orphan(gone.id)?.value {}
        }
        Ok(())
    }

    fn rename(&mut self) -> Result<(), Error> {
        let (Some(old), new) = (self.existing(), self.name()) else {
            return Ok(());
        };
        let exchange = self.files.contains_key(&new) && self.random.below(2) == 0;
        let dir = root(&self.volume);
        let done = self.volume.rename(&Rename {
            old_dir: dir,
            old_name: &old,
            new_dir: dir,
            new_name: &new,
            flags: if exchange {
                RenameFlags::Exchange
            } else {
                RenameFlags::Replace
            },
            time: at(self.clock),
        })?;
        self.log.push(format!(
            "{} renamed to {}, exchange {exchange}",
            show(&old),
            show(&new)
        ));
        if old == new {
            return Ok(());
        }
        let moved = self.files.remove(&old).expect("file");
        if let Some(other) = self.files.insert(new, moved).filter(|_| exchange) {
            self.files.insert(old, other);
        } else if let Some((id, _)) = done.value.replaced {
            while !self.volume.finish_orphan(id)?.value {}
        }
        Ok(())
    }

    /// Takes a snapshot. Nothing is being overwritten, and nothing will be before it is durable.
    fn snapshot(&mut self) -> Result<(), Error> {
        if self.snapshots.len() >= 3 {
            return Ok(());
        }
        let name = format!("snapshot {}", self.clock);
        let new = NewSnapshot {
            source: self.volume.default_subvolume(),
            dir: root(&self.volume),
            name: name.as_bytes(),
            read_only: false,
            uuid: [3; 16],
            time: at(self.clock),
        };
        let id = self.volume.snapshot(&new)?.value.id.subvol;
        let mut files = self.files.clone();
        for file in files.values_mut() {
            // Nothing is written in place to what the snapshot has.
            file.uid |= (id.0 + 1) << 40;
        }
        self.snapshots.insert(id.0, files);
        self.commit();
        for file in self.files.values_mut() {
            for cell in file.cells.values_mut() {
                if let Cell::Data(_, committed) = cell {
                    *committed = false;
                }
            }
        }
        Ok(())
    }

    /// Deletes a snapshot, with commits in between.
    fn drop_snapshot(&mut self) -> Result<(), Error> {
        let Some(id) = self.snapshots.keys().next().copied() else {
            return Ok(());
        };
        let path = self.volume.path(root_of(SubvolId(id))).expect("path");
        let top = root(&self.volume);
        self.volume.delete_subvolume(top, &path, at(self.clock))?;
        self.snapshots.remove(&id);
        while !self.volume.drop_step(SubvolId(id))?.value {
            if self.random.below(3) == 0 {
                self.commit();
            }
        }
        Ok(())
    }

    /// Activates a file as a swapfile, swaps to it, and ends that.
    fn swap(&mut self) -> Result<(), Error> {
        let Some(name) = self.existing() else {
            return Ok(());
        };
        let id = self.id(&name);
        let pages = (0..SPAN)
            .take_while(|p| self.files[&name].cells.contains_key(p))
            .count() as u64;
        let Some(&Cell::Data(header, _)) = self.files[&name].cells.get(&0) else {
            return Ok(());
        };
        if pages < 2 {
            return Ok(());
        }
        self.log
            .push(format!("{} is a swapfile of {pages}", show(&name)));
        self.volume.set_swapping(id, true)?;
        let plan = self.volume.plan_swap(id, pages);
        let result = plan.map(|plan| {
            (self.random.below(4) > 0).then(|| {
                plan.apply(&block_of(header))
                    .expect("what was planned has space");
            })
        });
        if let Ok(Some(())) = result {
            let file = self.files.get_mut(&name).expect("file");
            for page in 1..pages {
                file.cells.insert(page, Cell::Zero);
            }
            // The activation ends with a commit.
            self.commit();
            self.swap_out(id, pages)?;
        }
        self.volume.set_swapping(id, false)?;
        // Without the plan's being carried out the file is as it was.
        result.map(drop)
    }

    /// The kernel writes to the swapfile's blocks behind the filesystem's back.
    fn swap_out(&mut self, id: InodeId, pages: u64) -> Result<(), Error> {
        let mut page = 0;
        while let Some(found) = self.volume.swap_run(id, page, pages)? {
            for i in (0..found.run.len).filter(|i| page + i > 0) {
                self.put(found.run.start.0 + i)?;
            }
            page += found.run.len;
            if page >= pages {
                break;
            }
        }
        Ok(())
    }

    /// What `disk` shows, which was cut after the commit `mark` was acknowledged.
    pub fn look(&self, disk: &SimDisk, mark: Option<u64>) -> Found {
        let mark = mark.unwrap_or(0) as usize;
        let Some(shown) = read_all(disk) else {
            return Found::Nothing;
        };
        // The state itself may show what was written in place since; a later one is exact.
        let candidates = [mark, mark + 1];
        let found = candidates.into_iter().find(|&n| {
            self.states
                .get(n)
                .is_some_and(|state| matches(state, &shown, n == mark))
        });
        found.map_or(Found::Nothing, Found::State)
    }

    /// As [`World::look`]; fails when no allowed state is there.
    pub fn find(&self, disk: &SimDisk, mark: Option<u64>) -> usize {
        match self.look(disk, mark) {
            Found::State(n) => n,
            Found::Nothing => {
                let shown = read_all(disk).expect("mount");
                let n = mark.unwrap_or(0) as usize;
                for state in [n, n + 1] {
                    if let Some(state) = self.states.get(state) {
                        eprintln!("{}", difference(state, &shown));
                    }
                }
                self.print_log(n);
                panic!("neither state {n} nor the next");
            }
        }
    }

    /// Prints what was done from state `n` - 1 to `n` + 1.
    fn print_log(&self, n: usize) {
        let from = format!("state {}", n.saturating_sub(1));
        let to = format!("state {}", n + 1);
        let lines = self.log.iter().skip_while(|line| **line != from);
        for line in lines.take_while(|line| **line != to) {
            eprintln!("  {line}");
        }
    }

    /// Whether `disk` shows state `n`.
    pub fn is(&self, disk: &SimDisk, n: usize) -> bool {
        read_all(disk).is_some_and(|shown| matches(&self.states[n], &shown, true))
    }
}

/// All files of all subvolumes but those that are being dropped. `None` when the volume cannot be
/// mounted or read.
fn read_all(disk: &SimDisk) -> Option<BTreeMap<u64, Shown>> {
    let volume = Volume::mount(disk.clone(), &MountOptions { read_only: true }).ok()?;
    let mut shown = BTreeMap::new();
    for id in 0..MOST_SUBVOLUMES {
        let subvol = SubvolId(id);
        let dropping = volume.next_dropping(subvol).ok()? == Some(subvol);
        if dropping || volume.open_subvolume(subvol) == Err(Error::NotFound) {
            continue;
        }
        let top = InodeId {
            subvol,
            ino: ROOT_INO,
        };
        shown.insert(id, read_dir(&volume, disk, top)?);
    }
    Some(shown)
}

fn read_dir(volume: &SimVolume, disk: &SimDisk, top: InodeId) -> Option<Shown> {
    let mut entries = Vec::new();
    volume.readdir(top, 2, 1000, &mut entries).ok()?;
    let mut files = Shown::new();
    for entry in entries
        .iter()
        .filter(|entry| entry.kind == FileType::Regular && *entry.name != *World::AFTER_CRASH)
    {
        let size = volume.inode(entry.id).ok()?.size;
        files.insert(
            entry.name.to_vec(),
            (size, read_file(volume, disk, entry.id)?),
        );
    }
    Some(files)
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

fn matches(state: &Committed, shown: &BTreeMap<u64, Shown>, with_in_place: bool) -> bool {
    let mut subvolumes: BTreeMap<_, _> = state.snapshots.iter().map(|(id, f)| (*id, f)).collect();
    subvolumes.insert(0, &state.files);
    subvolumes.keys().eq(shown.keys())
        && subvolumes
            .values()
            .zip(shown.values())
            .all(|(files, shown)| same_files(state, files, shown, with_in_place))
}

fn same_files(state: &Committed, files: &Files, shown: &Shown, with_in_place: bool) -> bool {
    files.len() == shown.len()
        && files
            .iter()
            .zip(shown)
            .all(|((name, file), (its_name, (size, content)))| {
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
            })
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

fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn difference(state: &Committed, shown: &BTreeMap<u64, Shown>) -> String {
    let found: Vec<_> = shown.keys().collect();
    let expected: Vec<_> = [0]
        .into_iter()
        .chain(state.snapshots.keys().copied())
        .collect();
    let Some(top) = shown.get(&0).filter(|_| found.len() == expected.len()) else {
        return format!("expected subvolumes {expected:?}, found {found:?}");
    };
    let mut said = difference_of_files(state, &state.files, top);
    for (id, files) in &state.snapshots {
        if let Some(shown) = shown
            .get(id)
            .filter(|shown| !same_files(state, files, shown, true))
        {
            said += &format!(
                "; snapshot {id}: {}",
                difference_of_files(state, files, shown)
            );
        }
    }
    said
}

fn difference_of_files(state: &Committed, files: &Files, shown: &Shown) -> String {
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
