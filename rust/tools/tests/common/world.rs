// SPDX-License-Identifier: GPL-2.0

//! A volume under random work, and the states that a crash may show.
//!
//! Subvolumes and snapshots that hang in each other, with files in their root directories, written through the engine as the kernel does it: new blocks are written
//! first and mapped after, blocks that belong to one file alone are overwritten in place. The
//! model keeps a copy of everything at each acknowledged commit.

use super::states::{
    difference, matches, read_all, show, Cell, Committed, File, Subvolume, Subvolumes, SPAN,
};
use super::{at, mount, new_inode, Random, SimVolume, SMALL};
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::error::Error;
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::resize::Next;
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{root_of, NewSubvolume};
use oxfs::engine::types::{Backing, BlockNr, FileBlock, InodeId, Run, SubvolId};
use oxfs::sim::SimDisk;
use std::collections::BTreeMap;

/// What a disk shows after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// This state, by its number.
    State(usize),
    /// None that is allowed.
    Nothing,
}

/// A file: its subvolume and its name there.
type Spot = (u64, Vec<u8>);

pub struct World {
    disk: SimDisk,
    volume: SimVolume,
    random: Random,
    subvolumes: Subvolumes,
    states: Vec<Committed>,
    next: u64,
    clock: i64,
    /// What was done, for whoever looks at a failure.
    log: Vec<String>,
    /// Staged and not yet mapped: a write that is under way while others commit.
    pending: Option<(Spot, u64, Run, u64)>,
    /// Whether the volume gets other sizes, too.
    resizing: bool,
}

const NAMES: u64 = 9;
/// Most subvolumes at a time.
const SUBVOLUMES: usize = 5;

fn block_of(number: u64) -> [u8; 4096] {
    let mut block = [0; 4096];
    for piece in block.chunks_exact_mut(8) {
        piece.copy_from_slice(&number.to_le_bytes());
    }
    block
}

impl World {
    /// A name that no state has.
    pub const AFTER_CRASH: &'static [u8] = b"after the crash";

    pub fn new(disk: SimDisk, seed: u64) -> Self {
        let volume = mount(&disk);
        let empty = Subvolumes::from([(0, Subvolume::default())]);
        Self {
            disk,
            volume,
            random: Random(seed.wrapping_mul(0x9e37_79b9).wrapping_add(1)),
            subvolumes: empty.clone(),
            states: vec![Committed {
                subvolumes: empty,
                in_place: BTreeMap::new(),
            }],
            next: 1,
            clock: 100,
            log: Vec::new(),
            pending: None,
            resizing: false,
        }
    }

    /// A world whose volume gets other sizes, too.
    pub fn resizing(disk: SimDisk, seed: u64) -> Self {
        let mut world = Self::new(disk, seed);
        world.resizing = true;
        world
    }

    fn name(&mut self) -> Vec<u8> {
        let n = self.random.below(NAMES);
        format!("file {n}").into_bytes()
    }

    fn id(&self, spot: &Spot) -> InodeId {
        self.volume
            .lookup(root_of(SubvolId(spot.0)), &spot.1)
            .expect("lookup")
            .expect("name")
            .0
    }

    fn file(&self, spot: &Spot) -> &File {
        &self.subvolumes[&spot.0].files[&spot.1]
    }

    fn file_mut(&mut self, spot: &Spot) -> &mut File {
        self.files(spot.0).get_mut(&spot.1).expect("file")
    }

    fn files(&mut self, subvol: u64) -> &mut BTreeMap<Vec<u8>, File> {
        &mut self.subvolume(subvol).files
    }

    fn subvolume(&mut self, subvol: u64) -> &mut Subvolume {
        self.subvolumes.get_mut(&subvol).expect("subvolume")
    }

    /// A subvolume: the top level more often than others.
    fn some_subvolume(&mut self) -> u64 {
        let n = self.random.below(2 * self.subvolumes.len() as u64) as usize;
        self.subvolumes.keys().nth(n).copied().unwrap_or(0)
    }

    /// A subvolume other than the top level, the one that it hangs in, and its name there.
    fn nested(&mut self) -> Option<(u64, u64, Vec<u8>)> {
        let n = self.random.below(self.subvolumes.len() as u64) as usize;
        let id = self
            .subvolumes
            .keys()
            .nth(n)
            .copied()
            .filter(|id| *id > 0)?;
        self.subvolumes.iter().find_map(|(parent, subvolume)| {
            let mut nested = subvolume.nested.iter();
            let (name, _) = nested.find(|(_, leads)| **leads == Some(id))?;
            Some((id, *parent, name.clone()))
        })
    }

    fn existing(&mut self) -> Option<Spot> {
        let subvol = self.some_subvolume();
        let files = &self.subvolumes[&subvol].files;
        let n = self.random.below(files.len().max(1) as u64) as usize;
        Some((subvol, files.keys().nth(n)?.clone()))
    }

    /// One random operation. A full volume is no failure.
    pub fn step(&mut self) {
        self.clock += 1;
        let choice = match self.resizing && self.random.below(12) == 0 {
            true => 31,
            false => self.random.below(31),
        };
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
            22 => self.create_subvolume(),
            23 => self.delete_subvolume(),
            24..27 => self.drop_some(),
            27 => self.move_subvolume(),
            31 => self.resize(),
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
        for subvolume in self.subvolumes.values_mut() {
            for file in subvolume.files.values_mut() {
                for cell in file.cells.values_mut() {
                    if let Cell::Data(_, committed) = cell {
                        *committed = true;
                    }
                }
            }
        }
        self.acknowledge(self.subvolumes.clone());
    }

    fn acknowledge(&mut self, subvolumes: Subvolumes) {
        self.log.push(format!("state {}", self.states.len()));
        self.states.push(Committed {
            subvolumes,
            in_place: BTreeMap::new(),
        });
        self.disk.mark(self.states.len() as u64 - 1);
    }

    /// What was written in place is durable; changes of mappings are not.
    fn flush(&mut self) -> Result<(), Error> {
        self.volume.flush()?;
        let last = self.states.last().expect("a state").clone();
        let mut subvolumes = last.subvolumes;
        for file in subvolumes.values_mut().flat_map(|s| s.files.values_mut()) {
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
        self.acknowledge(subvolumes);
        Ok(())
    }

    /// Gives the volume another size, which changes nothing that anybody sees, and is durable.
    fn resize(&mut self) -> Result<(), Error> {
        let device = self.disk.blocks();
        let wanted = match self.random.below(4) {
            0 => device,
            _ => SMALL + self.random.below(device - SMALL + 1),
        };
        let before = self.volume.statfs().blocks;
        self.log.push(format!("resize from {before} to {wanted}"));
        self.commit();
        let result = self.resize_to(wanted);
        match result {
            Ok(size) => assert_eq!(self.volume.statfs().blocks, size),
            Err(_) => {
                self.volume.cancel_resize();
                assert_eq!(self.volume.statfs().blocks, before);
            }
        }
        result.map(drop)
    }

    fn resize_to(&mut self, wanted: u64) -> Result<u64, Error> {
        let size = self.volume.begin_resize(wanted)?;
        for _ in 0..1000 {
            match self.volume.finish_resize()? {
                Next::Done => return Ok(size),
                Next::Move => while self.volume.move_step(&|| true)? {},
                // A write that was under way before.
                Next::Wait => {
                    self.end_write()?;
                    self.commit();
                }
            }
        }
        panic!("resizing does not end");
    }

    fn create(&mut self) -> Result<(), Error> {
        let (subvol, name) = (self.some_subvolume(), self.name());
        let new = new_inode(0o100600, at(self.clock));
        match self.volume.create(root_of(SubvolId(subvol)), &name, &new) {
            Ok(_) => {
                self.next += 1;
                let file = File {
                    uid: self.next,
                    ..File::default()
                };
                assert!(self.files(subvol).insert(name, file).is_none());
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
        name: &Spot,
        id: InodeId,
        at: u64,
        run: Run,
    ) -> Result<u64, Error> {
        for i in 0..run.len {
            let number = self.put(run.start.0 + i)?;
            let file = self.subvolumes.get_mut(&name.0).expect("subvolume");
            let file = file.files.get_mut(&name.1).expect("file");
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
            show(&name.1),
            self.next
        ));
        Ok(run.len)
    }

    fn write_staged(&mut self, name: &Spot, at: u64, run: Run) -> Result<u64, Error> {
        let mut numbers = Vec::new();
        for i in 0..run.len {
            numbers.push(self.put(run.start.0 + i)?);
        }
        let id = self.id(name);
        self.map(name, id, at, run.len, Written::Staged(run.start))?;
        self.log.push(format!(
            "{} {at}: staged {run}, up to {}",
            show(&name.1),
            self.next
        ));
        let file = self.file_mut(name);
        for (i, number) in (0..).zip(numbers) {
            file.cells.insert(at + i, Cell::Data(number, false));
        }
        Ok(run.len)
    }

    fn map(
        &mut self,
        name: &Spot,
        id: InodeId,
        at: u64,
        len: u64,
        written: Written,
    ) -> Result<(), Error> {
        let size = (at + len) * 4096;
        self.volume
            .finish_write(id, FileBlock(at), len, written, Some(size))?;
        let file = self.file_mut(name);
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
        let uid = self.file(&name).uid;
        self.pending = Some((name, start, run, uid));
        Ok(())
    }

    fn end_write(&mut self) -> Result<(), Error> {
        let Some((name, start, run, uid)) = self.pending.take() else {
            return Ok(());
        };
        // The file may have gone, or become another.
        let there = self
            .subvolumes
            .get(&name.0)
            .and_then(|s| s.files.get(&name.1));
        if there.is_some_and(|file| file.uid == uid) {
            let id = self.id(&name);
            self.volume.prepare_write(id, FileBlock(start), run.len)?;
            return self.write_staged(&name, start, run).map(drop);
        }
        self.volume.unstage(run);
        Ok(())
    }

    fn clear(&mut self, name: &Spot, start: u64, end: u64) {
        let file = self.file_mut(name);
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
            .push(format!("{} truncated to {blocks} blocks", show(&name.1)));
        self.clear(&name, blocks, u64::MAX);
        self.file_mut(&name).size = blocks * 4096;
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
            let file = self.file_mut(&name);
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
                show(&from.1),
                start + done,
                step.value,
                show(&to.1),
                target + done
            ));
            self.model_clone(&from, &to, start + done, target + done, step.value);
            done += step.value;
        }
        let size = (target + len) * 4096;
        self.volume.set_size(into, size, at(self.clock))?;
        let file = self.file_mut(&to);
        file.size = file.size.max(size);
        Ok(())
    }

    fn model_clone(&mut self, from: &Spot, to: &Spot, start: u64, target: u64, len: u64) {
        let cells = &self.file(from).cells;
        let part: Vec<_> = cells
            .range(start..start + len)
            .map(|(a, c)| (*a, *c))
            .collect();
        self.clear(to, target, target + len);
        let file = self.file_mut(to);
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
            .unlink(root_of(SubvolId(name.0)), &name.1, at(self.clock))?
            .value;
        self.files(name.0).remove(&name.1);
        // Sometimes it is still open when the power goes.
        if self.random.below(3) > 0 {
            while !self.volume.finish_orphan(gone.id)?.value {}
        }
        Ok(())
    }

    fn rename(&mut self) -> Result<(), Error> {
        let (Some((subvol, old)), new) = (self.existing(), self.name()) else {
            return Ok(());
        };
        let exchange = self.files(subvol).contains_key(&new) && self.random.below(2) == 0;
        let to = match self.random.below(6) {
            0 => self.some_subvolume(),
            _ => subvol,
        };
        let what = Rename {
            old_dir: root_of(SubvolId(subvol)),
            old_name: &old,
            new_dir: root_of(SubvolId(to)),
            new_name: &new,
            flags: if exchange && to == subvol {
                RenameFlags::Exchange
            } else {
                RenameFlags::Replace
            },
            whiteout: None,
            time: at(self.clock),
        };
        let done = self.volume.rename(&what);
        if to != subvol {
            assert_eq!(done.map(drop), Err(Error::CrossSubvolume));
            return Ok(());
        }
        let done = done?;
        self.log.push(format!(
            "{subvol}/{} renamed to {}, exchange {exchange}",
            show(&old),
            show(&new)
        ));
        if old == new {
            return Ok(());
        }
        let files = self.files(subvol);
        let moved = files.remove(&old).expect("file");
        if let Some(other) = files.insert(new, moved).filter(|_| exchange) {
            files.insert(old, other);
        } else if let Some((id, _)) = done.value.replaced {
            while !self.volume.finish_orphan(id)?.value {}
        }
        Ok(())
    }

    fn create_subvolume(&mut self) -> Result<(), Error> {
        if self.subvolumes.len() >= SUBVOLUMES {
            return Ok(());
        }
        let parent = self.some_subvolume();
        let name = format!("subvolume {}", self.clock).into_bytes();
        let new = NewSubvolume {
            dir: root_of(SubvolId(parent)),
            name: &name,
            root: new_inode(0o040700, at(self.clock)),
            uuid: [2; 16],
        };
        let id = self.volume.create_subvolume(&new)?.value.id.subvol.0;
        self.subvolumes.insert(id, Subvolume::default());
        self.subvolume(parent).nested.insert(name, Some(id));
        self.log.push(format!("subvolume {id} in {parent}"));
        Ok(())
    }

    /// Takes a snapshot of something. Nothing is being overwritten then.
    fn snapshot(&mut self) -> Result<(), Error> {
        let source = self.some_subvolume();
        self.snapshot_of(source)
    }

    fn snapshot_of(&mut self, source: u64) -> Result<(), Error> {
        if self.subvolumes.len() >= SUBVOLUMES {
            return Ok(());
        }
        let parent = self.some_subvolume();
        let name = format!("snapshot {}", self.clock).into_bytes();
        let new = NewSnapshot {
            source: SubvolId(source),
            dir: root_of(SubvolId(parent)),
            name: &name,
            read_only: false,
            uuid: [3; 16],
            time: at(self.clock),
        };
        let id = self.volume.snapshot(&new)?.value.id.subvol.0;
        let mut copy = self.subvolumes[&source].clone();
        for file in copy.files.values_mut() {
            // Nothing is written in place to both.
            self.next += 1;
            file.uid = self.next;
        }
        copy.nested.values_mut().for_each(|leads| *leads = None);
        self.subvolumes.insert(id, copy);
        self.subvolume(parent).nested.insert(name, Some(id));
        self.log
            .push(format!("snapshot {id} of {source} in {parent}"));
        if self.random.below(2) == 0 {
            self.commit();
        }
        Ok(())
    }

    fn delete_subvolume(&mut self) -> Result<(), Error> {
        let Some((id, parent, name)) = self.nested() else {
            return Ok(());
        };
        let dir = root_of(SubvolId(parent));
        let done = self.volume.delete_subvolume(dir, &name, at(self.clock));
        if self.subvolumes[&id].nested.values().any(Option::is_some) {
            assert_eq!(done.map(drop), Err(Error::NotEmpty));
            return Ok(());
        }
        done?;
        self.subvolume(parent).nested.remove(&name);
        self.subvolumes.remove(&id);
        self.log.push(format!("subvolume {id} deleted"));
        Ok(())
    }

    /// Some steps of dropping what was deleted.
    fn drop_some(&mut self) -> Result<(), Error> {
        for _ in 0..1 + self.random.below(4) {
            let Some(id) = self.volume.next_dropping(SubvolId(0))? else {
                break;
            };
            let gone = self.volume.drop_step(id)?.value;
            self.log
                .push(format!("a step of dropping {id}, gone {gone}"));
        }
        Ok(())
    }

    fn move_subvolume(&mut self) -> Result<(), Error> {
        let Some((id, parent, name)) = self.nested() else {
            return Ok(());
        };
        let to = self.some_subvolume();
        let new = format!("moved {}", self.clock).into_bytes();
        let done = self.volume.rename(&Rename {
            old_dir: root_of(SubvolId(parent)),
            old_name: &name,
            new_dir: root_of(SubvolId(to)),
            new_name: &new,
            flags: RenameFlags::Replace,
            whiteout: None,
            time: at(self.clock),
        });
        if self.hangs_below(to, id) {
            let error = Error::Invalid("a directory cannot go into itself");
            assert_eq!(done.map(drop), Err(error));
            return Ok(());
        }
        done?;
        self.subvolume(parent).nested.remove(&name);
        self.subvolume(to).nested.insert(new, Some(id));
        self.log
            .push(format!("subvolume {id} moved from {parent} to {to}"));
        Ok(())
    }

    fn hangs_below(&self, id: u64, ancestor: u64) -> bool {
        let below = |id: &u64| self.hangs_below(id.to_owned(), ancestor);
        let parent = self
            .subvolumes
            .iter()
            .find(|(_, subvolume)| subvolume.nested.values().any(|leads| *leads == Some(id)));
        id == ancestor || parent.is_some_and(|(parent, _)| below(parent))
    }

    /// Activates a file as a swapfile, swaps to it, and ends that.
    fn swap(&mut self) -> Result<(), Error> {
        let Some(name) = self.existing() else {
            return Ok(());
        };
        let id = self.id(&name);
        let pages = (0..SPAN)
            .take_while(|p| self.file(&name).cells.contains_key(p))
            .count() as u64;
        let Some(&Cell::Data(header, _)) = self.file(&name).cells.get(&0) else {
            return Ok(());
        };
        if pages < 2 {
            return Ok(());
        }
        self.log
            .push(format!("{} is a swapfile of {pages}", show(&name.1)));
        self.volume.set_swapping(id, true)?;
        let plan = self.volume.plan_swap(id, pages);
        let result = plan.map(|plan| {
            (self.random.below(4) > 0).then(|| {
                plan.apply(&block_of(header))
                    .expect("what was planned has space");
            })
        });
        if let Ok(Some(())) = result {
            let file = self.file_mut(&name);
            for page in 1..pages {
                file.cells.insert(page, Cell::Zero);
            }
            // The activation ends with a commit.
            self.commit();
            self.swap_out(id, pages)?;
            self.snapshot_while_swapping(id, pages)?;
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

    /// A snapshot does not move an active swapfile; its subvolume cannot be deleted.
    fn snapshot_while_swapping(&mut self, id: InodeId, pages: u64) -> Result<(), Error> {
        let before = self.swap_runs(id, pages)?;
        match self.snapshot_of(id.subvol.0) {
            Ok(()) | Err(Error::NoSpace) => {}
            error => return error,
        }
        assert_eq!(self.swap_runs(id, pages)?, before);
        self.swap_out(id, pages)?;
        if id.subvol.0 != 0 {
            let path = self.volume.path(root_of(id.subvol))?;
            let name = path.rsplit(|byte| *byte == b'/').next().expect("name");
            let dir = self.volume.parent(root_of(id.subvol))?;
            let refused = self.volume.delete_subvolume(dir, name, at(self.clock));
            assert_eq!(refused.map(drop), Err(Error::Busy));
        }
        Ok(())
    }

    fn swap_runs(&self, id: InodeId, pages: u64) -> Result<Vec<Run>, Error> {
        let (mut runs, mut page) = (Vec::new(), 0);
        while page < pages {
            let found = self.volume.swap_run(id, page, pages)?.expect("run");
            page += found.run.len;
            runs.push(found.run);
        }
        Ok(runs)
    }

    /// The number of the last acknowledged state.
    pub fn last_state(&self) -> u64 {
        self.states.len() as u64 - 1
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
