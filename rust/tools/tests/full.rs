// SPDX-License-Identifier: GPL-2.0

//! A full volume with many snapshots, whose nodes and blocks are shared in as many pieces as can
//! be: no change may run out of space half way, which would stop all changes, and what leads to
//! space being given back goes on working, whatever else does not.

use crate::common::{assert_clean, at, formatted, mount, new_inode, Random, SimVolume};
use oxfs::engine::data::Written;
use oxfs::engine::error::Error;
use oxfs::engine::inode::NewInode;
use oxfs::engine::reflink::Clone as CloneRange;
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{root_of, TOP};
use oxfs::engine::types::{AttrChange, FileBlock, InodeId, SubvolId};
use oxfs::sim::SimDisk;

const FILE: u32 = 0o100600;

struct Full {
    disk: SimDisk,
    volume: SimVolume,
    random: Random,
    /// The files of the top level.
    files: Vec<(String, InodeId)>,
    snapshots: Vec<(String, SubvolId)>,
    made: u64,
}

impl Full {
    fn new(blocks: u64, seed: u64) -> Self {
        let disk = formatted(blocks);
        let volume = mount(&disk);
        Self {
            disk,
            volume,
            random: Random(seed),
            files: Vec::new(),
            snapshots: Vec::new(),
            made: 0,
        }
    }

    /// `NoSpace` is an answer, a volume that refuses every further change is not.
    #[track_caller]
    fn sound<T>(&self, result: Result<T, Error>) -> Option<T> {
        assert_eq!(self.volume.fault(), None, "{:?}", result.as_ref().err());
        match result {
            Ok(value) => Some(value),
            Err(Error::NoSpace) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn create(&mut self) -> Option<InodeId> {
        self.made += 1;
        let name = format!("a file with a name that is not short {}", self.made);
        // Names and targets fill leaves.
        let target = [b't'; 700];
        let new = match self.random.below(3) {
            0 => NewInode {
                symlink: Some(&target),
                ..new_inode(0o120777, at(2))
            },
            _ => new_inode(FILE, at(2)),
        };
        let done = self.volume.create(root_of(TOP), name.as_bytes(), &new);
        let id = self.sound(done)?.value.id;
        self.files.push((name, id));
        Some(id).filter(|_| new.symlink.is_none())
    }

    /// A file that nothing else changes.
    fn create_file(&self, name: &[u8]) -> InodeId {
        let new = new_inode(FILE, at(2));
        let done = self.volume.create(root_of(TOP), name, &new);
        done.expect("create").value.id
    }

    fn some_file(&mut self) -> Option<InodeId> {
        let n = self.random.below(self.files.len().max(1) as u64) as usize;
        self.files.get(n).map(|(_, id)| *id)
    }

    /// Writes, without the data: what is mapped matters here.
    fn write(&mut self, id: InodeId, start: u64, len: u64) -> Option<()> {
        let mut start = start;
        let end = start + len;
        while start < end {
            let reserved = self.volume.reserve(end - start);
            self.sound(reserved)?;
            let run = self.volume.stage(id, FileBlock(start), end - start);
            let Some(run) = self.sound(run) else {
                panic!("promised blocks are not there");
            };
            self.volume.unreserve(end - start - run.len);
            let size = Some((start + run.len) * 4096);
            let staged = Written::Staged(run.start);
            let done = self
                .volume
                .finish_write(id, FileBlock(start), run.len, staged, size);
            assert!(
                self.sound(done).is_some(),
                "promised blocks cannot be mapped"
            );
            start += run.len;
        }
        Some(())
    }

    /// Clones every second block of one file to another one.
    fn clone_blocks(&mut self) -> Option<()> {
        let (source, target) = (self.some_file()?, self.some_file()?);
        if source == target || !self.is_file(source) || !self.is_file(target) {
            return Some(());
        }
        let first = self.random.below(40);
        for i in (first..first + 24).step_by(2) {
            let clone = CloneRange {
                source,
                from: FileBlock(i),
                target,
                to: FileBlock(i + 1),
                len: 1,
            };
            let done = self.volume.clone_range(&clone);
            self.sound(done)?;
        }
        Some(())
    }

    fn is_file(&self, id: InodeId) -> bool {
        self.volume.inode(id).expect("inode").mode == FILE
    }

    fn snapshot(&mut self) -> Option<()> {
        let name = format!("snapshot {}", self.made);
        self.made += 1;
        let new = NewSnapshot {
            source: TOP,
            dir: root_of(TOP),
            name: name.as_bytes(),
            read_only: true,
            uuid: [5; 16],
            time: at(4),
        };
        let done = self.volume.snapshot(&new);
        let id = self.sound(done)?.value.id.subvol;
        self.snapshots.push((name, id));
        Some(())
    }

    /// Changes attributes here and there: paths that snapshots share are copied.
    fn touch(&mut self) -> Option<()> {
        let id = self.some_file()?;
        let change = AttrChange {
            uid: Some(self.made as u32),
            ..AttrChange::default()
        };
        let done = self.volume.set_attr(id, &change);
        self.sound(done).map(drop)
    }

    /// One random step of filling the volume; `None` if there was no room.
    fn fill(&mut self) -> Option<()> {
        match self.random.below(12) {
            0..4 => {
                if let Some(id) = self.create() {
                    let (start, len) = (self.random.below(60), 1 + self.random.below(20));
                    self.write(id, start, len)?;
                }
                Some(())
            }
            4..6 => {
                let id = self.some_file()?;
                let start = self.random.below(60);
                match self.is_file(id) {
                    true => self.write(id, start, 1),
                    false => Some(()),
                }
            }
            6..8 => self.clone_blocks(),
            8 => self.snapshot(),
            _ => self.touch(),
        }
    }

    fn unlink(&mut self) -> Option<()> {
        let n = self.random.below(self.files.len().max(1) as u64) as usize;
        let name = self.files.get(n)?.0.clone();
        let done = self.volume.unlink(root_of(TOP), name.as_bytes(), at(5));
        let id = self.sound(done)?.value.id;
        self.files.swap_remove(n);
        loop {
            let done = self.volume.finish_orphan(id);
            if self.sound(done)?.value {
                return Some(());
            }
        }
    }

    /// What found no room when it was removed.
    fn finish_orphans(&self) {
        while let Some(ino) = self.volume.orphan_next(TOP, None).expect("orphan_next") {
            let id = InodeId { subvol: TOP, ino };
            while !self.volume.finish_orphan(id).expect("finish").value {}
        }
    }

    fn truncate(&mut self) -> Option<()> {
        let id = self.some_file()?;
        while self.is_file(id) {
            let done = self.volume.truncate(id, 4096, at(6));
            if self.sound(done)?.value {
                break;
            }
        }
        Some(())
    }

    /// Deletes a snapshot and drops it to the end. This must always work.
    fn delete_snapshot(&mut self) {
        let n = self.random.below(self.snapshots.len() as u64) as usize;
        let (name, id) = self.snapshots.swap_remove(n);
        let done = self
            .volume
            .delete_subvolume(root_of(TOP), name.as_bytes(), at(7));
        assert!(self.sound(done).is_some(), "no room to delete a snapshot");
        loop {
            let done = self.volume.drop_step(id);
            match self.sound(done) {
                Some(done) if done.value => return,
                Some(_) => {}
                None => panic!("no room to drop a snapshot"),
            }
        }
    }

    fn check(&self) {
        self.volume.commit().expect("commit");
        assert_clean(&self.disk);
    }
}

fn history(blocks: u64, seed: u64) {
    let mut full = Full::new(blocks, seed);
    let mut refused = 0;
    // Well beyond the point from which on there is no room.
    while refused < 60 {
        refused += u32::from(full.fill().is_none());
    }
    assert!(
        full.snapshots.len() > 2,
        "{} snapshots",
        full.snapshots.len()
    );
    full.check();

    // Files can be removed and cut, as long as the snapshots that have them as well leave room.
    let mut removed = 0;
    for _ in 0..400 {
        let done = match full.random.below(3) {
            0 => full.truncate(),
            _ => full.unlink(),
        };
        removed += u32::from(done.is_some());
        if full.random.below(8) == 0 {
            full.fill();
        }
    }
    assert!(
        removed >= 20,
        "only {removed} files could be removed or cut"
    );
    full.check();

    // Snapshots can always be deleted, with others filling up what they leave.
    while !full.snapshots.is_empty() {
        full.delete_snapshot();
        for _ in 0..20 {
            full.touch();
        }
        full.unlink();
    }
    full.check();
    while full.unlink().is_some() {}
    assert!(full.files.is_empty(), "files cannot be removed");
    full.finish_orphans();
    full.check();
    let space = full.volume.statfs();
    assert!(space.free + 200 > blocks - blocks / 100, "{space:?}");
}

#[test]
fn no_change_fails_half_way() {
    for seed in 0..24 {
        history([4096, 4096, 8192, 16384][seed as usize % 4], seed);
    }
}

/// Dirty data that was promised space and what mapping it takes is mapped, also after so many names
/// were removed that no more can be: each takes room while a snapshot has everything as well.
#[test]
fn promised_data_can_be_mapped() {
    let mut full = Full::new(16384, 1);
    let id = full.create_file(b"kept");
    let target = [b't'; 700];
    let link = NewInode {
        symlink: Some(&target),
        ..new_inode(0o120777, at(2))
    };
    let name = |i: u64| format!("a symbolic link whose name is not short {i}");
    for i in 0..4000 {
        let made = full.volume.create(root_of(TOP), name(i).as_bytes(), &link);
        made.expect("create");
    }
    full.snapshot().expect("snapshot");
    let filler = full.create_file(b"filler");
    let promised = 64;
    for _ in 0..promised {
        full.volume.reserve(1).expect("reserve");
    }
    let mut end = 0;
    for len in [512, 64, 8, 1] {
        while full.write(filler, end, len).is_some() {
            end += len;
        }
    }
    let mut removed = 0;
    for i in 0..4000 {
        let done = full.volume.unlink(root_of(TOP), name(i).as_bytes(), at(5));
        match full.sound(done) {
            Some(_) => removed += 1,
            None => break,
        }
    }
    assert!((100..4000).contains(&removed), "{removed} names removed");
    for i in 0..promised {
        let at = FileBlock(200 + i * 2);
        let run = full.sound(full.volume.stage(id, at, 1)).expect("stage");
        let staged = Written::Staged(run.start);
        let done = full.volume.finish_write(id, at, 1, staged, None);
        assert!(full.sound(done).is_some(), "block {i} cannot be mapped");
    }
    full.check();
}

/// Where there is nothing to allocate there is nothing to run out of.
#[test]
fn what_is_allocated_can_be_allocated_again() {
    let mut full = Full::new(4096, 2);
    let id = full.create_file(b"file");
    let mut end = 0;
    for len in [512, 64, 8, 1] {
        while full.write(id, end, len).is_some() {
            end += len;
        }
    }
    assert_eq!(
        full.volume.prealloc(id, FileBlock(end), 1),
        Err(Error::NoSpace)
    );
    let mut at = FileBlock(0);
    while at.0 < end {
        let done = full.volume.prealloc(id, at, end - at.0).expect("prealloc");
        at = done.value;
    }
    full.check();
}
