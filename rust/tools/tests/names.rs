// SPDX-License-Identifier: GPL-2.0

//! Names against a model: random histories of every operation on names, of subvolumes and snapshots
//! too, with commits and remounts between them. After each step the result agrees, at the end every
//! listing, link count and attribute, and the checker finds nothing.

mod model;
mod op;

use crate::common::{assert_clean, at, cases, formatted, mount, new_inode, root, SimVolume, SMALL};
use model::{Model, Node, Outcome};
use op::{any_op, Op};
use oxfs::engine::error::Error;
use oxfs::engine::inode::NewInode;
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{NewSubvolume, TOP};
use oxfs::engine::types::{FileType, InodeId, SubvolId, ROOT_INO};
use oxfs::engine::xattr::XattrMode;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NAMES: usize = 14;

fn name(i: usize) -> Vec<u8> {
    match i % NAMES {
        0 => vec![b'x'; 255],
        1 => "ύλη".into(),
        n => format!("name{n}").into_bytes(),
    }
}

/// A name of a directory for a random number: half of the time one that is there.
fn some_name(model: &Model, dir: InodeId, n: usize) -> Vec<u8> {
    let known = model.known_name(dir, n / 2).filter(|_| n % 2 == 0);
    known.unwrap_or_else(|| name(n / 2))
}

struct Run {
    disk: oxfs::sim::SimDisk,
    volume: SimVolume,
    model: Model,
    clock: i64,
}

fn mode_of(kind: FileType) -> u32 {
    ((kind as u32) << 12) | 0o640
}

impl Run {
    fn new() -> Self {
        let disk = formatted(SMALL);
        let volume = mount(&disk);
        Self {
            disk,
            volume,
            model: Model::new(),
            clock: 100,
        }
    }

    fn step(&mut self, op: &Op) {
        self.clock += 1;
        let time = at(self.clock);
        let (volume, model) = (&self.volume, &mut self.model);
        let (expected, done) = match *op {
            Op::Create(dir, n, kind) => {
                let new = new_inode(mode_of(kind), time);
                return self.create(dir, n, kind, &new);
            }
            Op::Symlink(dir, n, len) => {
                let target: Vec<u8> = (0..len.min(4095)).map(|i| b'a' + (i % 25) as u8).collect();
                let new = NewInode {
                    symlink: Some(&target),
                    ..new_inode(mode_of(FileType::Symlink), time)
                };
                return self.create(dir, n, FileType::Symlink, &new);
            }
            Op::Tmpfile(n) => return self.tmpfile(n),
            Op::Xattr(ino, n, len, mode) => return self.xattr(ino, n, len, mode),
            Op::Finish(n) => return self.finish(n),
            Op::Subvolume(dir, n) => return self.subvolume(dir, n),
            Op::Snapshot(source, dir, n, read_only) => {
                return self.snapshot(source, dir, n, read_only);
            }
            Op::Link(id, dir, n) => {
                let (id, dir, name) = (model.pick_any(id), model.pick(dir), name(n));
                let expected = model.link(id, dir, &name);
                (expected, volume.link(id, dir, &name, time).map(drop))
            }
            Op::Unlink(dir, n) => {
                let dir = model.pick(dir);
                let name = some_name(model, dir, n);
                let expected = model.remove(dir, &name, false);
                (expected, volume.unlink(dir, &name, time).map(drop))
            }
            Op::Rmdir(dir, n) => {
                let dir = model.pick(dir);
                let name = some_name(model, dir, n);
                let expected = model.remove(dir, &name, true);
                (expected, volume.rmdir(dir, &name, time).map(drop))
            }
            Op::Delete(id, n) => {
                let subvol = model.pick_subvolume(id);
                let place = model.place(subvol);
                let (dir, name) = place.unwrap_or_else(|| (model.pick(id), name(n)));
                let expected = model.delete(dir, &name);
                (
                    expected,
                    volume.delete_subvolume(dir, &name, time).map(drop),
                )
            }
            Op::Rename(old_dir, old, new_dir, new, flags) => {
                let (old_dir, new_dir) = (model.pick(old_dir), model.pick(new_dir));
                let old = (old_dir, some_name(model, old_dir, old));
                let new = (new_dir, some_name(model, new_dir, new));
                self.rename(old, new, flags)
            }
            Op::Move(id, new_dir, new, flags) => {
                let subvol = model.pick_subvolume(id);
                let Some(old) = model.place(subvol) else {
                    return;
                };
                let new_dir = model.pick(new_dir);
                let new = (new_dir, some_name(model, new_dir, new));
                self.rename(old, new, flags)
            }
            Op::ReadOnly(id, read_only) => {
                let id = model.pick_subvolume(id);
                let done = volume.set_subvolume_read_only(id, read_only).map(drop);
                (model.set_read_only(id, read_only), done)
            }
            Op::Default(id) => {
                let id = model.pick_subvolume(id);
                let done = volume.set_default_subvolume(id).map(drop);
                (model.set_default(id), done)
            }
            Op::Drop(steps) => return self.drop_some(steps),
            Op::Commit => return volume.commit().expect("commit"),
            Op::Remount => return self.remount(),
            Op::Check => {
                volume.commit().expect("commit");
                assert_clean(&self.disk);
                return self.compare();
            }
        };
        assert_eq!(done, expected, "{op:?}");
    }

    fn create(&mut self, dir: usize, n: usize, kind: FileType, new: &NewInode<'_>) {
        let (dir, name) = (self.model.pick(dir), name(n));
        let expected = self.model.can_create(dir, &name);
        let done = self.volume.create(dir, &name, new);
        assert_eq!(done.map(drop), expected);
        if let Ok(done) = done {
            let id = done.value.id;
            self.model.add(id, kind, dir.ino);
            self.model.node(id).target = new.symlink.unwrap_or_default().to_vec();
            self.model.attach(dir, &name, id.ino);
        }
    }

    /// Whether the kernel lets changes of inodes go to the engine.
    fn is_writable(&self, id: SubvolId) -> bool {
        let tree = self.model.subvols.get(&id);
        tree.is_some_and(|tree| !tree.read_only)
    }

    fn tmpfile(&mut self, n: usize) {
        let subvol = self.model.pick_subvolume(n);
        if !self.is_writable(subvol) {
            return;
        }
        let new = new_inode(mode_of(FileType::Regular), at(self.clock));
        let (id, attr) = self.volume.tmpfile(subvol, &new).expect("tmpfile").value;
        assert_eq!((id.subvol, attr.nlink), (subvol, 0));
        self.model.add(id, FileType::Regular, id.ino);
        self.model.node(id).nlink = 0;
    }

    fn rename(
        &mut self,
        (old_dir, old_name): (InodeId, Vec<u8>),
        (new_dir, new_name): (InodeId, Vec<u8>),
        flags: RenameFlags,
    ) -> (Outcome, Outcome) {
        let what = Rename {
            old_dir,
            old_name: &old_name,
            new_dir,
            new_name: &new_name,
            flags,
            whiteout: None,
            time: at(self.clock),
        };
        let done = self.volume.rename(&what).map(drop);
        let volume = &self.volume;
        let expected = self.model.rename(&what, |id| home(volume, id));
        (expected, done)
    }

    fn subvolume(&mut self, dir: usize, n: usize) {
        let (dir, name) = (self.model.pick(dir), name(n));
        let new = NewSubvolume {
            dir,
            name: &name,
            root: new_inode(mode_of(FileType::Directory), at(self.clock)),
            uuid: [3; 16],
        };
        let expected = self.model.can_create(dir, &name);
        let done = self.volume.create_subvolume(&new);
        assert_eq!(done.map(drop), expected);
        if let Ok(done) = done {
            let id = done.value.id.subvol;
            let home = home(&self.volume, id);
            self.model.create_subvolume(dir, &name, id, home);
        }
    }

    fn snapshot(&mut self, source: usize, dir: usize, n: usize, read_only: bool) {
        let (source, dir, name) = (
            self.model.pick_subvolume(source),
            self.model.pick(dir),
            name(n),
        );
        let new = NewSnapshot {
            source,
            dir,
            name: &name,
            read_only,
            uuid: [5; 16],
            time: at(self.clock),
        };
        let expected = self.model.can_snapshot(source, dir, &name);
        let done = self.volume.snapshot(&new);
        assert_eq!(done.map(drop), expected);
        if let Ok(done) = done {
            let id = done.value.id.subvol;
            let home = home(&self.volume, id);
            let source = (source, read_only);
            self.model.snapshot(source, dir, &name, id, home);
        }
    }

    /// Some steps of dropping what was deleted.
    fn drop_some(&mut self, steps: usize) {
        for _ in 0..steps {
            let next = self.volume.next_dropping(TOP).expect("next_dropping");
            let Some(id) = next else { return };
            self.volume.drop_step(id).expect("drop_step");
        }
    }

    fn remount(&mut self) {
        self.volume.unmount().expect("unmount");
        self.volume = mount(&self.disk);
        for id in self.model.subvols.keys() {
            self.volume.open_subvolume(*id).expect("open_subvolume");
        }
    }

    fn xattr(&mut self, ino: usize, n: usize, len: Option<usize>, mode: XattrMode) {
        let id = self.model.pick_any(ino);
        if !self.is_writable(id.subvol) {
            return;
        }
        let name = format!("user.{}", n % 5).into_bytes();
        let value = len.map(|len| vec![n as u8; len]);
        let xattrs = &mut self.model.node(id).xattrs;
        let expected = match (xattrs.contains_key(&name), mode) {
            _ if value
                .as_ref()
                .is_some_and(|v| v.len() + name.len() + 2 > 1300) =>
            {
                Err(Error::NoSpace)
            }
            (true, XattrMode::Create) => Err(Error::Exists),
            (false, XattrMode::Replace) => Err(Error::NoAttribute),
            (false, _) if value.is_none() => Err(Error::NoAttribute),
            _ => Ok(()),
        };
        if expected.is_ok() {
            match &value {
                Some(value) => xattrs.insert(name.clone(), value.clone()),
                None => xattrs.remove(&name),
            };
        }
        let time = at(self.clock);
        let done = self
            .volume
            .set_xattr(id, &name, value.as_deref(), mode, time);
        assert_eq!(done.map(drop), expected);
    }

    /// Finishes an orphan, as evicting the inode does.
    fn finish(&mut self, n: usize) {
        let dead = self.model.dead();
        if dead.is_empty() {
            return;
        }
        let id = dead[n % dead.len()];
        while !self.volume.finish_orphan(id).expect("finish_orphan").value {}
        assert_eq!(self.volume.inode(id), Err(Error::NotFound));
        let tree = self.model.subvols.get_mut(&id.subvol);
        tree.expect("subvolume").nodes.remove(&id.ino);
    }

    /// Everything in the volume is what the model says.
    fn compare(&self) {
        assert_eq!(self.volume.default_subvolume(), self.model.default);
        let (mut ids, mut from) = (Vec::new(), TOP);
        while let Some(info) = self.volume.next_subvolume(from).expect("next_subvolume") {
            from = SubvolId(info.id.0 + 1);
            if !info.dropping {
                ids.push(info.id);
            }
        }
        assert_eq!(ids, self.model.subvols.keys().copied().collect::<Vec<_>>());
        for subvol in ids {
            self.compare_subvolume(subvol);
        }
    }

    fn compare_subvolume(&self, subvol: SubvolId) {
        let tree = &self.model.subvols[&subvol];
        let info = self.volume.subvolume(subvol).expect("subvolume");
        assert_eq!((info.home, info.source), (tree.home, tree.source));
        assert_eq!(info.read_only, tree.read_only);
        let mut orphans = Vec::new();
        let next = |after| self.volume.orphan_next(subvol, after).expect("orphan_next");
        while let Some(ino) = next(orphans.last().copied()) {
            orphans.push(ino);
        }
        let dead = tree.nodes.iter().filter(|(_, node)| node.nlink == 0);
        assert_eq!(orphans, dead.map(|(ino, _)| *ino).collect::<Vec<_>>());
        for (&ino, node) in &tree.nodes {
            self.compare_inode(InodeId { subvol, ino }, node);
        }
    }

    fn compare_inode(&self, id: InodeId, node: &Node) {
        let attr = self.volume.inode(id).expect("inode");
        assert_eq!(FileType::from_mode(attr.mode), Some(node.kind));
        assert_eq!(attr.nlink, node.nlink, "{id}");
        match node.kind {
            FileType::Directory => self.compare_dir(id, node, attr.size),
            FileType::Symlink => {
                let mut target = Vec::new();
                self.volume.read_link(id, &mut target).expect("read_link");
                assert_eq!(target, node.target);
            }
            _ => {}
        }
        let mut names = Vec::new();
        self.volume.list_xattr(id, &mut names).expect("list_xattr");
        let mut names: Vec<_> = names.split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        names.sort();
        assert_eq!(names, node.xattrs.keys().collect::<Vec<_>>());
        for (name, expected) in &node.xattrs {
            let mut value = Vec::new();
            let done = self.volume.get_xattr(id, name, &mut value);
            done.expect("get_xattr");
            assert_eq!(&value, expected);
        }
    }

    fn compare_dir(&self, id: InodeId, node: &Node, size: u64) {
        let names = node.entries.keys().map(|name| name.len() as u64);
        assert_eq!(size, names.sum::<u64>());
        if node.nlink > 0 {
            let parent = match self.model.place(id.subvol) {
                Some((dir, _)) if id.ino == ROOT_INO => dir,
                _ => InodeId {
                    ino: node.parent,
                    ..id
                },
            };
            assert_eq!(self.volume.parent(id), Ok(parent), "parent of {id}");
        }
        // In pieces of three, to go through every position.
        let (mut seen, mut from) = (BTreeMap::new(), 2);
        loop {
            let mut entries = Vec::new();
            let done = self.volume.readdir(id, from, 3, &mut entries);
            done.expect("readdir");
            let Some(last) = entries.last() else { break };
            from = last.cookie + 1;
            for entry in &entries {
                assert!(seen
                    .insert(entry.name.to_vec(), (entry.id, entry.kind))
                    .is_none());
                let found = self.volume.lookup(id, &entry.name).expect("lookup");
                assert_eq!(found, Some((entry.id, entry.kind)));
            }
        }
        let expected = node.entries.iter().map(|(name, &ino)| {
            let at = InodeId { ino, ..id };
            let kind = self.model.subvols[&id.subvol].nodes[&ino].kind;
            (name.clone(), (self.model.resolve(at), kind))
        });
        assert_eq!(seen, expected.collect());
    }
}

/// The directory that stands for a subvolume.
fn home(volume: &SimVolume, id: SubvolId) -> InodeId {
    let info = volume.subvolume(id).expect("subvolume");
    info.home.expect("home")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1024), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn histories(ops in proptest::collection::vec(any_op(), 1..400)) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
        }
        run.step(&Op::Remount);
        run.step(&Op::Check);
        while run.volume.next_dropping(TOP).expect("next_dropping").is_some() {
            run.drop_some(8);
        }
        run.step(&Op::Check);
    }
}

#[test]
fn whiteouts() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let root = root(&volume);
    let new = new_inode(0o100644, at(5));
    let made = volume.create(root, b"old", &new).expect("create").value;
    let rename = |flags| {
        volume.rename(&Rename {
            old_dir: root,
            old_name: b"old",
            new_dir: root,
            new_name: b"new",
            flags,
            whiteout: Some(new_inode(0o020000, at(6))),
            time: at(6),
        })
    };
    let renamed = rename(RenameFlags::NoReplace).expect("rename").value;
    assert_eq!(renamed.moved.0, made.id);
    assert_eq!(renamed.old_dir, renamed.new_dir);
    assert_eq!(renamed.old_dir, volume.inode(root).expect("root"));
    let (id, kind) = volume.lookup(root, b"old").expect("lookup").expect("entry");
    assert_eq!(kind, FileType::CharDevice);
    assert_eq!(volume.inode(id).expect("whiteout").rdev, 0);
    // The whiteout itself goes over what was moved before.
    rename(RenameFlags::Replace).expect("rename");
    assert_eq!(
        volume.lookup(root, b"new").expect("lookup"),
        Some((id, kind))
    );
    volume.commit().expect("commit");
    assert_clean(&disk);
}

#[test]
fn a_directory_of_twenty_thousand() {
    let disk = formatted(2 * SMALL);
    let volume = mount(&disk);
    let root = root(&volume);
    let new = new_inode(0o100644, at(5));
    let name = |i: u32| format!("file number {i}").into_bytes();
    for i in 0..20_000 {
        volume.create(root, &name(i), &new).expect("create");
        if i % 5000 == 0 {
            volume.commit().expect("commit");
        }
    }
    let (mut seen, mut from) = (0, 0);
    loop {
        let mut entries = Vec::new();
        volume
            .readdir(root, from, 1000, &mut entries)
            .expect("readdir");
        let Some(last) = entries.last() else { break };
        assert!(entries
            .windows(2)
            .all(|pair| pair[0].cookie < pair[1].cookie));
        from = last.cookie + 1;
        seen += entries.len();
    }
    assert_eq!(seen, 20_000);
    volume.commit().expect("commit");
    assert_clean(&disk);
    for i in (0..20_000).rev() {
        let gone = volume.unlink(root, &name(i), at(6)).expect("unlink").value;
        assert!(volume.finish_orphan(gone.id).expect("finish_orphan").value);
    }
    volume.unmount().expect("unmount");
    assert_clean(&disk);
    assert_eq!(volume.inode(root).expect("inode").size, 0);
    let free = mount(&disk).statfs().free;
    assert_eq!(free, mount(&formatted(2 * SMALL)).statfs().free);
}
