// SPDX-License-Identifier: GPL-2.0

//! Swapfiles and snapshots: an active swapfile stands in no snapshot's way and keeps its blocks, a
//! snapshot holds none of them, and the copy of the file in it can be swapped to as well.

use crate::common::{assert_clean, at, formatted, mount, new_inode, SimVolume};
use oxfs::engine::data::Written;
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::error::Error;
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{root_of, NewSubvolume, TOP};
use oxfs::engine::types::{Backing, BlockNr, FileBlock, InodeId, Run, SubvolId};
use oxfs::sim::SimDisk;

const BLOCKS: u64 = 32768;
const PAGES: u64 = 1500;
const HEADER: [u8; 4096] = [0x5a; 4096];

struct Made {
    disk: SimDisk,
    volume: SimVolume,
    subvol: SubvolId,
    file: InodeId,
}

/// A subvolume with an active swapfile, and other files around it.
fn make() -> Made {
    let disk = formatted(BLOCKS);
    let volume = mount(&disk);
    let new = NewSubvolume {
        dir: root_of(TOP),
        name: b"system",
        root: new_inode(0o040755, at(2)),
        uuid: [4; 16],
    };
    let made = volume.create_subvolume(&new).expect("subvolume").value.id;
    let new = new_inode(0o100600, at(3));
    for i in 0..200 {
        let name = format!("file {i}");
        volume.create(made, name.as_bytes(), &new).expect("create");
    }
    let file = volume.create(made, b"swapfile", &new).expect("create");
    let file = file.value.id;
    let made = Made {
        disk,
        volume,
        subvol: made.subvol,
        file,
    };
    for start in (0..PAGES).step_by(300) {
        made.write(file, start, 300, &HEADER);
    }
    made.activate(file);
    made
}

impl Made {
    fn write(&self, id: InodeId, start: u64, len: u64, data: &[u8; 4096]) {
        self.volume
            .prepare_write(id, FileBlock(start), len)
            .expect("prepare_write");
        let (mut at, end) = (start, start + len);
        while at < end {
            self.volume.reserve(end - at).expect("reserve");
            let run = self
                .volume
                .stage(id, FileBlock(at), end - at)
                .expect("stage");
            self.volume.unreserve(end - at - run.len);
            for i in 0..run.len {
                let block = BlockNr(run.start.0 + i);
                self.disk.write(&[Write { block, data }]).expect("write");
            }
            let size = Some((at + run.len) * 4096);
            self.volume
                .finish_write(id, FileBlock(at), run.len, Written::Staged(run.start), size)
                .expect("finish_write");
            at += run.len;
        }
    }

    fn activate(&self, id: InodeId) -> u64 {
        self.volume.set_swapping(id, true).expect("pin");
        let plan = self.volume.plan_swap(id, PAGES).expect("plan");
        plan.apply(&HEADER).expect("activate").new_blocks
    }

    fn snapshot(&self, source: SubvolId, name: &str) -> SubvolId {
        let new = NewSnapshot {
            source,
            dir: root_of(TOP),
            name: name.as_bytes(),
            read_only: false,
            uuid: [5; 16],
            time: at(4),
        };
        let done = self.volume.snapshot(&new).expect("snapshot");
        self.volume.commit().expect("commit");
        done.value.id.subvol
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        let done = self
            .volume
            .delete_subvolume(root_of(TOP), name.as_bytes(), at(5))?;
        while !self.volume.drop_step(done.value.id.subvol)?.value {}
        self.volume.commit()
    }

    fn runs(&self, id: InodeId) -> Vec<Run> {
        let (mut runs, mut page) = (Vec::new(), 0);
        while page < PAGES {
            let found = self.volume.swap_run(id, page, PAGES).expect("swap_run");
            let run = found.expect("run").run;
            page += run.len;
            runs.push(run);
        }
        runs
    }

    /// The copy has its header page and promises without blocks.
    fn assert_promised(&self, id: InodeId) {
        let header = self.volume.map(id, FileBlock(0), PAGES).expect("map");
        let Backing::Written { at, .. } = header.backing else {
            panic!("{header:?}");
        };
        assert_eq!(header.len, 1);
        let mut data = [0; 4096];
        self.disk.read(at, &mut data).expect("read");
        assert_eq!(data, HEADER);
        let rest = self.volume.map(id, FileBlock(1), PAGES - 1).expect("map");
        assert_eq!((rest.backing, rest.len), (Backing::Unbacked, PAGES - 1));
        assert_eq!(self.volume.inode(id).expect("inode").blocks, PAGES);
    }

    fn free(&self) -> u64 {
        self.volume.commit().expect("commit");
        self.volume.commit().expect("commit");
        self.volume.statfs().free
    }
}

fn disjoint(a: &[Run], b: &[Run]) -> bool {
    let apart = |a: &Run, b: &Run| a.end() <= b.start.0 || b.end() <= a.start.0;
    a.iter().all(|a| b.iter().all(|b| apart(a, b)))
}

#[test]
fn a_hundred_snapshots_of_an_active_swapfile() {
    let made = make();
    let (runs, free) = (made.runs(made.file), made.free());
    for i in 0..100 {
        let copy = made.snapshot(made.subvol, &format!("snapshot {i}"));
        let id = InodeId {
            subvol: copy,
            ..made.file
        };
        made.assert_promised(id);
        assert_eq!(made.runs(made.file), runs);
        // Swapping goes on in its blocks.
        for run in &runs {
            let block = BlockNr(run.end() - 1);
            let data = &[i as u8 + 1; 4096];
            made.disk.write(&[Write { block, data }]).expect("write");
        }
    }
    let taken = free - made.free();
    assert!(taken <= 600, "100 snapshots took {taken} blocks");
    assert_clean(&made.disk);
    assert_eq!(made.delete("system"), Err(Error::Busy));
    for i in 0..100 {
        made.delete(&format!("snapshot {i}")).expect("delete");
        assert_eq!(made.runs(made.file), runs);
    }
    let left = free - made.free();
    assert!(left <= 16, "{left} blocks were not given back");
    assert_clean(&made.disk);
}

#[test]
fn both_swap() {
    let made = make();
    let runs = made.runs(made.file);
    let copy = InodeId {
        subvol: made.snapshot(made.subvol, "snapshot"),
        ..made.file
    };
    let again = InodeId {
        subvol: made.snapshot(copy.subvol, "again"),
        ..made.file
    };
    assert_eq!(made.activate(copy), PAGES);
    let its_runs = made.runs(copy);
    assert!(disjoint(&runs, &its_runs), "{runs:?} {its_runs:?}");
    assert_eq!(made.runs(made.file), runs);
    made.assert_promised(again);
    assert_clean(&made.disk);

    // The source goes, as after a rollback.
    made.volume.set_swapping(made.file, false).expect("unpin");
    made.delete("system").expect("delete");
    assert_eq!(made.runs(copy), its_runs);
    made.assert_promised(again);
    assert_clean(&made.disk);
    made.volume.set_swapping(copy, false).expect("unpin");
    assert_eq!(
        made.activate(copy),
        0,
        "a second activation changes nothing"
    );
    assert_eq!(made.runs(copy), its_runs);
    assert_eq!(made.activate(again), PAGES);
    assert!(disjoint(&its_runs, &made.runs(again)));
    made.volume.commit().expect("commit");
    assert_clean(&made.disk);
}

/// Content that was written to a swapfile that is not active is in the next snapshot, the header
/// page alone is as well, and neither changes what an older one shows.
#[test]
fn writes_between_snapshots() {
    let made = make();
    let old = InodeId {
        subvol: made.snapshot(made.subvol, "old"),
        ..made.file
    };
    made.volume.set_swapping(made.file, false).expect("unpin");
    made.write(made.file, 7, 3, &[7; 4096]);
    let new = InodeId {
        subvol: made.snapshot(made.subvol, "new"),
        ..made.file
    };
    made.assert_promised(old);
    let map = made.volume.map(new, FileBlock(7), 10).expect("map");
    let Backing::Written { at: block, shared } = map.backing else {
        panic!("{map:?}");
    };
    assert_eq!((map.len, shared), (3, true));
    let mut data = [0; 4096];
    made.disk.read(block, &mut data).expect("read");
    assert_eq!(data, [7; 4096]);

    // What the snapshot has as well is not swapped to.
    made.activate(made.file);
    assert!(disjoint(&made.runs(made.file), &[Run::new(block, 3)]));
    made.assert_promised(old);
    let map = made.volume.map(new, FileBlock(7), 3).expect("map");
    assert!(matches!(map.backing, Backing::Written { at, .. } if at == block));
    made.volume.commit().expect("commit");
    assert_clean(&made.disk);
}
