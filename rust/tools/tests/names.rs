// SPDX-License-Identifier: GPL-2.0

//! Names against a model: random histories of every operation on names, with commits and remounts
//! between them. After each step the result agrees, at the end every listing, link count and
//! attribute, and the checker finds nothing.

mod common;

use common::{assert_clean, at, formatted, mount, new_inode, root, SimVolume, SMALL};
use oxfs::engine::error::Error;
use oxfs::engine::inode::NewInode;
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::types::{FileType, Ino, InodeId};
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

/// What the model knows of an inode.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    kind: FileType,
    nlink: u32,
    entries: BTreeMap<Vec<u8>, Ino>,
    parent: Ino,
    target: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Model {
    nodes: BTreeMap<Ino, Node>,
    root: Ino,
}

type Outcome = Result<(), Error>;

impl Model {
    fn new(root: Ino) -> Self {
        let mut model = Self {
            nodes: BTreeMap::new(),
            root,
        };
        model.add(root, FileType::Directory, root);
        model
    }

    fn add(&mut self, ino: Ino, kind: FileType, parent: Ino) {
        let node = Node {
            kind,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            entries: BTreeMap::new(),
            parent,
            target: Vec::new(),
            xattrs: BTreeMap::new(),
        };
        self.nodes.insert(ino, node);
    }

    fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).expect("inode of the model")
    }

    fn is_dir(&self, ino: Ino) -> bool {
        self.nodes[&ino].kind == FileType::Directory
    }

    /// The inode for a random number: a live directory most of the time, sometimes anything.
    fn pick(&self, n: usize) -> Ino {
        let dirs: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.kind == FileType::Directory)
            .collect();
        let all: Vec<_> = self.nodes.keys().collect();
        match n % 8 {
            0 => *all[n / 8 % all.len()],
            _ => *dirs[n / 8 % dirs.len()].0,
        }
    }

    fn live_dir(&self, ino: Ino) -> Outcome {
        match &self.nodes[&ino] {
            node if node.kind != FileType::Directory => Err(Error::NotDirectory),
            node if node.nlink == 0 => Err(Error::NotFound),
            _ => Ok(()),
        }
    }

    fn below(&self, mut dir: Ino, ancestor: Ino) -> bool {
        loop {
            if dir == ancestor {
                return true;
            }
            if dir == self.root {
                return false;
            }
            dir = self.nodes[&dir].parent;
        }
    }

    fn detach(&mut self, dir: Ino, name: &[u8]) -> Ino {
        let ino = self
            .node(dir)
            .entries
            .remove(name)
            .expect("entry of the model");
        if self.is_dir(ino) {
            self.node(dir).nlink -= 1;
        }
        ino
    }

    fn attach(&mut self, dir: Ino, name: &[u8], ino: Ino) {
        self.node(dir).entries.insert(name.to_vec(), ino);
        if self.is_dir(ino) {
            self.node(dir).nlink += 1;
            self.node(ino).parent = dir;
        }
    }

    fn can_create(&self, dir: Ino, name: &[u8]) -> Outcome {
        self.live_dir(dir)?;
        match self.nodes[&dir].entries.contains_key(name) {
            true => Err(Error::Exists),
            false => Ok(()),
        }
    }

    fn remove(&mut self, dir: Ino, name: &[u8], want_dir: bool) -> Outcome {
        self.live_dir(dir)?;
        let ino = *self.nodes[&dir].entries.get(name).ok_or(Error::NotFound)?;
        match (self.is_dir(ino), want_dir) {
            (true, false) => return Err(Error::IsDirectory),
            (false, true) => return Err(Error::NotDirectory),
            (true, true) if !self.nodes[&ino].entries.is_empty() => return Err(Error::NotEmpty),
            _ => {}
        }
        self.detach(dir, name);
        self.node(ino).nlink = if want_dir {
            0
        } else {
            self.nodes[&ino].nlink - 1
        };
        Ok(())
    }

    fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Outcome {
        self.live_dir(dir)?;
        if self.is_dir(ino) {
            return Err(Error::IsDirectory);
        }
        self.can_create(dir, name)?;
        self.attach(dir, name, ino);
        self.node(ino).nlink += 1;
        Ok(())
    }

    fn rename(&mut self, what: &Rename<'_>) -> Outcome {
        let (old_dir, new_dir) = (what.old_dir.ino, what.new_dir.ino);
        self.live_dir(old_dir)?;
        self.live_dir(new_dir)?;
        let moved = *self.nodes[&old_dir]
            .entries
            .get(what.old_name)
            .ok_or(Error::NotFound)?;
        let other = self.nodes[&new_dir].entries.get(what.new_name).copied();
        match (what.flags, other) {
            (RenameFlags::NoReplace, Some(_)) => return Err(Error::Exists),
            (RenameFlags::Exchange, None) => return Err(Error::NotFound),
            (RenameFlags::Replace, Some(other)) if other != moved => {
                match (self.is_dir(moved), self.is_dir(other)) {
                    (true, false) => return Err(Error::NotDirectory),
                    (false, true) => return Err(Error::IsDirectory),
                    (true, true) if !self.nodes[&other].entries.is_empty() => {
                        return Err(Error::NotEmpty);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        let into_itself = Err(Error::Invalid("a directory cannot go into itself"));
        if old_dir != new_dir {
            if self.is_dir(moved) && self.below(new_dir, moved) {
                return into_itself;
            }
            let exchanged = other.filter(|_| what.flags == RenameFlags::Exchange);
            if exchanged.is_some_and(|other| self.is_dir(other) && self.below(old_dir, other)) {
                return into_itself;
            }
        }
        if other == Some(moved) {
            return Ok(());
        }
        self.detach(old_dir, what.old_name);
        if let Some(other) = other {
            self.detach(new_dir, what.new_name);
            if what.flags == RenameFlags::Exchange {
                self.attach(old_dir, what.old_name, other);
            } else {
                let nlink = if self.is_dir(other) {
                    0
                } else {
                    self.nodes[&other].nlink - 1
                };
                self.node(other).nlink = nlink;
            }
        }
        self.attach(new_dir, what.new_name, moved);
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Op {
    Create(usize, usize, FileType),
    Symlink(usize, usize, usize),
    Tmpfile,
    Link(usize, usize, usize),
    Unlink(usize, usize),
    Rmdir(usize, usize),
    Rename(usize, usize, usize, usize, RenameFlags),
    Xattr(usize, usize, Option<usize>, XattrMode),
    Finish(usize),
    Commit,
    Remount,
    Check,
}

fn any_op() -> impl Strategy<Value = Op> {
    let n = || 0..4096usize;
    let flags = prop_oneof![
        3 => Just(RenameFlags::Replace),
        1 => Just(RenameFlags::NoReplace),
        2 => Just(RenameFlags::Exchange),
    ];
    let kind = prop_oneof![
        4 => Just(FileType::Directory),
        3 => Just(FileType::Regular),
        1 => Just(FileType::Fifo),
    ];
    let mode = prop_oneof![
        Just(XattrMode::Any),
        Just(XattrMode::Create),
        Just(XattrMode::Replace)
    ];
    prop_oneof![
        10 => (n(), n(), kind).prop_map(|(d, n, k)| Op::Create(d, n, k)),
        2 => (n(), n(), 1..4096usize).prop_map(|(d, n, l)| Op::Symlink(d, n, l)),
        1 => Just(Op::Tmpfile),
        4 => (n(), n(), n()).prop_map(|(i, d, n)| Op::Link(i, d, n)),
        5 => (n(), n()).prop_map(|(d, n)| Op::Unlink(d, n)),
        4 => (n(), n()).prop_map(|(d, n)| Op::Rmdir(d, n)),
        12 => (n(), n(), n(), n(), flags).prop_map(|(a, b, c, d, f)| Op::Rename(a, b, c, d, f)),
        4 => (n(), n(), proptest::option::weighted(0.7, 0..1400usize), mode)
            .prop_map(|(i, n, v, m)| Op::Xattr(i, n, v, m)),
        3 => n().prop_map(Op::Finish),
        2 => Just(Op::Commit),
        1 => Just(Op::Remount),
        1 => Just(Op::Check),
    ]
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
        let model = Model::new(root(&volume).ino);
        Self {
            disk,
            volume,
            model,
            clock: 100,
        }
    }

    fn id(&self, ino: Ino) -> InodeId {
        InodeId {
            ino,
            ..root(&self.volume)
        }
    }

    fn step(&mut self, op: &Op) {
        self.clock += 1;
        let time = at(self.clock);
        match *op {
            Op::Create(dir, n, kind) => {
                let (dir, name) = (self.model.pick(dir), name(n));
                let new = new_inode(mode_of(kind), time);
                self.create(dir, &name, kind, &new);
            }
            Op::Symlink(dir, n, len) => {
                let (dir, name) = (self.model.pick(dir), name(n));
                let target: Vec<u8> = (0..len.min(4095)).map(|i| b'a' + (i % 25) as u8).collect();
                let new = NewInode {
                    symlink: Some(&target),
                    ..new_inode(mode_of(FileType::Symlink), time)
                };
                self.create(dir, &name, FileType::Symlink, &new);
            }
            Op::Tmpfile => {
                let subvol = root(&self.volume).subvol;
                let new = new_inode(mode_of(FileType::Regular), time);
                let (id, attr) = self.volume.tmpfile(subvol, &new).expect("tmpfile").value;
                assert_eq!(attr.nlink, 0);
                self.model.add(id.ino, FileType::Regular, id.ino);
                self.model.node(id.ino).nlink = 0;
            }
            Op::Link(ino, dir, n) => {
                let all: Vec<_> = self.model.nodes.keys().copied().collect();
                let (ino, dir, name) = (all[ino % all.len()], self.model.pick(dir), name(n));
                let expected = self.model.link(ino, dir, &name);
                let done = self.volume.link(self.id(ino), self.id(dir), &name, time);
                assert_eq!(done.map(|_| ()), expected, "{op:?}");
            }
            Op::Unlink(dir, n) | Op::Rmdir(dir, n) => {
                let (dir, name) = (self.model.pick(dir), name(n));
                let rmdir = matches!(op, Op::Rmdir(..));
                let expected = self.model.remove(dir, &name, rmdir);
                let done = match rmdir {
                    true => self.volume.rmdir(self.id(dir), &name, time),
                    false => self.volume.unlink(self.id(dir), &name, time),
                };
                assert_eq!(done.map(|_| ()), expected, "{op:?}");
            }
            Op::Rename(old_dir, old, new_dir, new, flags) => {
                let (old_name, new_name) = (name(old), name(new));
                let what = Rename {
                    old_dir: self.id(self.model.pick(old_dir)),
                    old_name: &old_name,
                    new_dir: self.id(self.model.pick(new_dir)),
                    new_name: &new_name,
                    flags,
                    whiteout: None,
                    time,
                };
                let expected = self.model.rename(&what);
                let done = self.volume.rename(&what);
                assert_eq!(done.map(|_| ()), expected, "{op:?}");
            }
            Op::Xattr(ino, n, len, mode) => self.xattr(ino, n, len, mode),
            Op::Finish(n) => self.finish(n),
            Op::Commit => self.volume.commit().expect("commit"),
            Op::Remount => {
                self.volume.unmount().expect("unmount");
                self.volume = mount(&self.disk);
            }
            Op::Check => {
                self.volume.commit().expect("commit");
                assert_clean(&self.disk);
                self.compare();
            }
        }
    }

    fn create(&mut self, dir: Ino, name: &[u8], kind: FileType, new: &NewInode<'_>) {
        let expected = self.model.can_create(dir, name);
        let done = self.volume.create(self.id(dir), name, new);
        match done {
            Ok(done) => {
                assert_eq!(expected, Ok(()));
                let ino = done.value.id.ino;
                self.model.add(ino, kind, dir);
                self.model.node(ino).target = new.symlink.unwrap_or_default().to_vec();
                self.model.attach(dir, name, ino);
            }
            Err(error) => assert_eq!(Err(error), expected),
        }
    }

    fn xattr(&mut self, ino: usize, n: usize, len: Option<usize>, mode: XattrMode) {
        let all: Vec<_> = self.model.nodes.keys().copied().collect();
        let ino = all[ino % all.len()];
        let name = format!("user.{}", n % 5).into_bytes();
        let value = len.map(|len| vec![n as u8; len]);
        let xattrs = &mut self.model.node(ino).xattrs;
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
            .set_xattr(self.id(ino), &name, value.as_deref(), mode, time);
        assert_eq!(done.map(|_| ()), expected);
    }

    /// Finishes an orphan, as evicting the inode does.
    fn finish(&mut self, n: usize) {
        let dead: Vec<_> = self
            .model
            .nodes
            .iter()
            .filter(|(_, node)| node.nlink == 0)
            .map(|(i, _)| *i)
            .collect();
        if dead.is_empty() {
            return;
        }
        let ino = dead[n % dead.len()];
        while !self
            .volume
            .finish_orphan(self.id(ino))
            .expect("finish_orphan")
            .value
        {}
        assert_eq!(self.volume.inode(self.id(ino)), Err(Error::NotFound));
        self.model.nodes.remove(&ino);
    }

    /// Everything in the volume is what the model says.
    fn compare(&self) {
        let mut orphans = Vec::new();
        let subvol = root(&self.volume).subvol;
        while let Some(ino) = self
            .volume
            .orphan_next(subvol, orphans.last().copied())
            .unwrap()
        {
            orphans.push(ino);
        }
        let dead = self.model.nodes.iter().filter(|(_, node)| node.nlink == 0);
        assert_eq!(orphans, dead.map(|(ino, _)| *ino).collect::<Vec<_>>());
        for (&ino, node) in &self.model.nodes {
            let id = self.id(ino);
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
                self.volume
                    .get_xattr(id, name, &mut value)
                    .expect("get_xattr");
                assert_eq!(&value, expected);
            }
        }
    }

    fn compare_dir(&self, id: InodeId, node: &Node, size: u64) {
        assert_eq!(
            size,
            node.entries
                .keys()
                .map(|name| name.len() as u64)
                .sum::<u64>()
        );
        if node.nlink > 0 {
            assert_eq!(self.volume.parent(id).expect("parent").ino, node.parent);
        }
        // In pieces of three, to go through every position.
        let (mut seen, mut from) = (BTreeMap::new(), 2);
        loop {
            let mut entries = Vec::new();
            self.volume
                .readdir(id, from, 3, &mut entries)
                .expect("readdir");
            let Some(last) = entries.last() else { break };
            from = last.cookie + 1;
            for entry in &entries {
                assert_eq!(entry.kind, self.model.nodes[&entry.id.ino].kind);
                assert!(seen.insert(entry.name.to_vec(), entry.id.ino).is_none());
                let found = self.volume.lookup(id, &entry.name).expect("lookup");
                assert_eq!(found, Some((entry.id, entry.kind)));
            }
        }
        assert_eq!(seen, node.entries);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]
    #[test]
    fn histories(ops in proptest::collection::vec(any_op(), 1..160)) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
        }
        run.step(&Op::Remount);
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
