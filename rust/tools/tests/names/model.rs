// SPDX-License-Identifier: GPL-2.0

//! Names as they should be: the trees of all subvolumes, a snapshot being a copy, and what each
//! operation makes of them or answers.

use oxfs::engine::error::Error;
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::subvolume::{root_of, TOP};
use oxfs::engine::types::{FileType, Ino, InodeId, SubvolId, ROOT_INO};
use std::collections::BTreeMap;

/// What the model knows of an inode.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub kind: FileType,
    pub nlink: u32,
    pub entries: BTreeMap<Vec<u8>, Ino>,
    pub parent: Ino,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The subvolume that the directory stands for.
    pub leads: Option<SubvolId>,
}

impl Node {
    fn new(kind: FileType, parent: Ino) -> Self {
        Self {
            kind,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            entries: BTreeMap::new(),
            parent,
            target: Vec::new(),
            xattrs: BTreeMap::new(),
            leads: None,
        }
    }

    /// An inode that calls can be made with: a directory that stands for a subvolume is none.
    fn is_met(&self) -> bool {
        self.leads.is_none()
    }
}

/// The names of a subvolume.
#[derive(Debug, Clone)]
pub struct Tree {
    pub nodes: BTreeMap<Ino, Node>,
    pub read_only: bool,
    /// The directory that stands for it.
    pub home: Option<InodeId>,
    /// What it is a snapshot of.
    pub source: Option<SubvolId>,
}

impl Tree {
    fn new() -> Self {
        let root = Node::new(FileType::Directory, ROOT_INO);
        Self {
            nodes: BTreeMap::from([(ROOT_INO, root)]),
            read_only: false,
            home: None,
            source: None,
        }
    }

    /// A copy, in which nothing leads to other subvolumes.
    fn snapshot(&self, source: SubvolId, read_only: bool) -> Self {
        let mut copy = self.clone();
        for node in copy.nodes.values_mut() {
            node.leads = None;
        }
        (copy.read_only, copy.source) = (read_only, Some(source));
        copy
    }
}

#[derive(Debug, Clone)]
pub struct Model {
    pub subvols: BTreeMap<SubvolId, Tree>,
    /// Subvolumes that were deleted.
    gone: Vec<SubvolId>,
    pub default: SubvolId,
}

pub type Outcome = Result<(), Error>;

const INTO_ITSELF: Error = Error::Invalid("a directory cannot go into itself");

impl Model {
    pub fn new() -> Self {
        Self {
            subvols: BTreeMap::from([(TOP, Tree::new())]),
            gone: Vec::new(),
            default: TOP,
        }
    }

    pub fn add(&mut self, id: InodeId, kind: FileType, parent: Ino) {
        let tree = self.tree(id.subvol);
        let taken = tree.nodes.insert(id.ino, Node::new(kind, parent));
        assert_eq!(taken, None, "{id} is made twice");
    }

    fn tree(&mut self, id: SubvolId) -> &mut Tree {
        self.subvols.get_mut(&id).expect("subvolume of the model")
    }

    pub fn node(&mut self, id: InodeId) -> &mut Node {
        let nodes = &mut self.tree(id.subvol).nodes;
        nodes.get_mut(&id.ino).expect("inode of the model")
    }

    fn at(&self, id: InodeId) -> &Node {
        &self.subvols[&id.subvol].nodes[&id.ino]
    }

    fn is_dir(&self, id: InodeId) -> bool {
        self.at(id).kind == FileType::Directory
    }

    fn entry(&self, dir: InodeId, name: &[u8]) -> Option<InodeId> {
        let ino = *self.at(dir).entries.get(name)?;
        Some(InodeId { ino, ..dir })
    }

    /// What a name that has the inode `id` leads to.
    pub fn resolve(&self, id: InodeId) -> InodeId {
        self.at(id).leads.map_or(id, root_of)
    }

    fn inodes(&self) -> impl Iterator<Item = (InodeId, &Node)> {
        self.subvols.iter().flat_map(|(&subvol, tree)| {
            let nodes = tree.nodes.iter();
            nodes.map(move |(&ino, node)| (InodeId { subvol, ino }, node))
        })
    }

    /// Inodes that have lost their last name.
    pub fn dead(&self) -> Vec<InodeId> {
        let dead = self.inodes().filter(|(_, node)| node.nlink == 0);
        dead.map(|(id, _)| id).collect()
    }

    /// Some inode.
    pub fn pick_any(&self, n: usize) -> InodeId {
        let all: Vec<_> = self.inodes().filter(|(_, node)| node.is_met()).collect();
        all[n % all.len()].0
    }

    /// The inode for a random number: a directory most of the time, sometimes anything, or the root of
    /// what was deleted.
    pub fn pick(&self, n: usize) -> InodeId {
        match n % 16 {
            0 => self.pick_any(n / 16),
            1 if !self.gone.is_empty() => root_of(self.gone[n / 16 % self.gone.len()]),
            _ => {
                let is_dir = |node: &Node| node.kind == FileType::Directory && node.is_met();
                let dirs: Vec<_> = self.inodes().filter(|(_, node)| is_dir(node)).collect();
                dirs[n / 16 % dirs.len()].0
            }
        }
    }

    /// A subvolume for a random number, sometimes one that was deleted.
    pub fn pick_subvolume(&self, n: usize) -> SubvolId {
        let all: Vec<_> = self.subvols.keys().chain(&self.gone).collect();
        *all[n % all.len()]
    }

    /// A name that is in a directory, for a random number.
    pub fn known_name(&self, dir: InodeId, n: usize) -> Option<Vec<u8>> {
        let entries = &self.subvols.get(&dir.subvol)?.nodes[&dir.ino].entries;
        let n = n.checked_rem(entries.len())?;
        entries.keys().nth(n).cloned()
    }

    /// The directory that a subvolume hangs in, and its name there.
    pub fn place(&self, id: SubvolId) -> Option<(InodeId, Vec<u8>)> {
        let home = self.subvols.get(&id)?.home?;
        let ino = self.at(home).parent;
        let dir = InodeId { ino, ..home };
        let mut entries = self.at(dir).entries.iter();
        let (name, _) = entries.find(|(_, ino)| **ino == home.ino)?;
        Some((dir, name.clone()))
    }

    fn live_dir(&self, id: InodeId) -> Outcome {
        let tree = self.subvols.get(&id.subvol).ok_or(Error::NotFound)?;
        if tree.read_only {
            return Err(Error::ReadOnly);
        }
        match self.at(id) {
            node if node.kind != FileType::Directory => Err(Error::NotDirectory),
            node if node.nlink == 0 => Err(Error::NotFound),
            _ => Ok(()),
        }
    }

    fn is_below(&self, mut dir: InodeId, ancestor: InodeId) -> bool {
        while dir != ancestor && dir.ino != ROOT_INO {
            dir.ino = self.at(dir).parent;
        }
        dir == ancestor
    }

    fn hangs_below(&self, id: SubvolId, ancestor: SubvolId) -> bool {
        let home = self.subvols[&id].home;
        id == ancestor || home.is_some_and(|home| self.hangs_below(home.subvol, ancestor))
    }

    fn detach(&mut self, dir: InodeId, name: &[u8]) {
        let removed = self.node(dir).entries.remove(name);
        let ino = removed.expect("entry of the model");
        if self.is_dir(InodeId { ino, ..dir }) {
            self.node(dir).nlink -= 1;
        }
    }

    pub fn attach(&mut self, dir: InodeId, name: &[u8], ino: Ino) {
        self.node(dir).entries.insert(name.to_vec(), ino);
        let id = InodeId { ino, ..dir };
        if self.is_dir(id) {
            self.node(dir).nlink += 1;
            self.node(id).parent = dir.ino;
        }
    }

    fn drop_link(&mut self, id: InodeId) {
        let is_dir = self.is_dir(id);
        let node = self.node(id);
        node.nlink = if is_dir { 0 } else { node.nlink - 1 };
    }

    pub fn can_create(&self, dir: InodeId, name: &[u8]) -> Outcome {
        self.live_dir(dir)?;
        match self.entry(dir, name) {
            Some(_) => Err(Error::Exists),
            None => Ok(()),
        }
    }

    pub fn remove(&mut self, dir: InodeId, name: &[u8], want_dir: bool) -> Outcome {
        self.live_dir(dir)?;
        let id = self.entry(dir, name).ok_or(Error::NotFound)?;
        match (self.is_dir(id), want_dir) {
            (true, false) => return Err(Error::IsDirectory),
            (false, true) => return Err(Error::NotDirectory),
            _ => {}
        }
        let shown = self.resolve(id);
        if want_dir && !self.at(shown).entries.is_empty() {
            return Err(Error::NotEmpty);
        }
        if shown != id {
            return self.remove_subvolume(dir, name, shown.subvol);
        }
        self.detach(dir, name);
        self.drop_link(id);
        Ok(())
    }

    pub fn link(&mut self, id: InodeId, dir: InodeId, name: &[u8]) -> Outcome {
        if id.subvol != dir.subvol {
            return Err(Error::CrossSubvolume);
        }
        self.live_dir(dir)?;
        if self.is_dir(id) {
            return Err(Error::IsDirectory);
        }
        self.can_create(dir, name)?;
        self.attach(dir, name, id.ino);
        self.node(id).nlink += 1;
        Ok(())
    }

    /// Renames. If another directory comes to stand for a subvolume, `home` says which.
    pub fn rename(&mut self, what: &Rename<'_>, home: impl Fn(SubvolId) -> InodeId) -> Outcome {
        let (old_dir, new_dir) = (what.old_dir, what.new_dir);
        self.live_dir(old_dir)?;
        self.live_dir(new_dir)?;
        let moved = self.entry(old_dir, what.old_name).ok_or(Error::NotFound)?;
        let other = self.entry(new_dir, what.new_name);
        self.check_rename(what, moved, other)?;
        if other == Some(moved) {
            return Ok(());
        }
        self.detach(old_dir, what.old_name);
        if let Some(other) = other {
            self.detach(new_dir, what.new_name);
            if what.flags == RenameFlags::Exchange {
                self.attach(old_dir, what.old_name, other.ino);
            } else {
                self.drop_link(other);
            }
        }
        match self.at(moved).leads {
            Some(subvol) if old_dir.subvol != new_dir.subvol => {
                self.tree(old_dir.subvol).nodes.remove(&moved.ino);
                self.hang(new_dir, what.new_name, subvol, home(subvol));
            }
            _ => self.attach(new_dir, what.new_name, moved.ino),
        }
        Ok(())
    }

    fn check_rename(&self, what: &Rename<'_>, moved: InodeId, other: Option<InodeId>) -> Outcome {
        match (what.flags, other) {
            (RenameFlags::NoReplace, Some(_)) => return Err(Error::Exists),
            (RenameFlags::Exchange, None) => return Err(Error::NotFound),
            (RenameFlags::Replace, Some(other)) if other != moved => {
                self.check_replace(moved, other)?;
            }
            _ => {}
        }
        let (old_dir, new_dir) = (what.old_dir, what.new_dir);
        if old_dir.subvol != new_dir.subvol {
            // Only a subvolume itself goes into another one.
            return match self.at(moved).leads {
                Some(id) if what.flags != RenameFlags::Exchange => {
                    match self.hangs_below(new_dir.subvol, id) {
                        true => Err(INTO_ITSELF),
                        false => Ok(()),
                    }
                }
                _ => Err(Error::CrossSubvolume),
            };
        }
        let exchanged = other.filter(|_| what.flags == RenameFlags::Exchange);
        let into_itself = self.is_below(new_dir, moved)
            || exchanged.is_some_and(|other| self.is_below(old_dir, other));
        match into_itself && old_dir != new_dir {
            true => Err(INTO_ITSELF),
            false => Ok(()),
        }
    }

    fn check_replace(&self, moved: InodeId, other: InodeId) -> Outcome {
        match (self.is_dir(moved), self.is_dir(other)) {
            (true, false) => Err(Error::NotDirectory),
            (false, true) => Err(Error::IsDirectory),
            (true, true) if self.at(other).leads.is_some() => Err(Error::NotEmpty),
            (true, true) if !self.at(other).entries.is_empty() => Err(Error::NotEmpty),
            _ => Ok(()),
        }
    }

    /// `name` of `dir` leads to a subvolume: the directory `home` stands for it.
    fn hang(&mut self, dir: InodeId, name: &[u8], id: SubvolId, home: InodeId) {
        assert_eq!(home.subvol, dir.subvol, "home of subvolume {id}");
        self.add(home, FileType::Directory, dir.ino);
        self.node(home).leads = Some(id);
        self.attach(dir, name, home.ino);
        self.tree(id).home = Some(home);
    }

    /// A new subvolume, which is empty.
    pub fn create_subvolume(&mut self, dir: InodeId, name: &[u8], id: SubvolId, home: InodeId) {
        self.add_subvolume(id, Tree::new());
        self.hang(dir, name, id, home);
    }

    fn add_subvolume(&mut self, id: SubvolId, tree: Tree) {
        let used = self.gone.contains(&id) || self.subvols.insert(id, tree).is_some();
        assert!(!used, "subvolume {id} is made twice");
    }

    pub fn can_snapshot(&self, source: SubvolId, dir: InodeId, name: &[u8]) -> Outcome {
        self.can_create(dir, name)?;
        self.check_live(source)
    }

    /// The snapshot of a source that it hangs in does not show itself.
    pub fn snapshot(
        &mut self,
        (source, read_only): (SubvolId, bool),
        dir: InodeId,
        name: &[u8],
        id: SubvolId,
        home: InodeId,
    ) {
        let copy = self.subvols[&source].snapshot(source, read_only);
        self.add_subvolume(id, copy);
        self.hang(dir, name, id, home);
    }

    pub fn delete(&mut self, dir: InodeId, name: &[u8]) -> Outcome {
        self.live_dir(dir)?;
        let id = self.entry(dir, name).ok_or(Error::NotFound)?;
        if !self.is_dir(id) {
            return Err(Error::NotDirectory);
        }
        let leads = self.at(id).leads;
        let subvol = leads.ok_or(Error::Invalid("no subvolume"))?;
        self.remove_subvolume(dir, name, subvol)
    }

    fn remove_subvolume(&mut self, dir: InodeId, name: &[u8], id: SubvolId) -> Outcome {
        if id == self.default {
            return Err(Error::Busy);
        }
        let hangs_in_it = |tree: &Tree| tree.home.is_some_and(|home| home.subvol == id);
        if self.subvols.values().any(hangs_in_it) {
            return Err(Error::NotEmpty);
        }
        let home = self.entry(dir, name).expect("entry of the model");
        self.detach(dir, name);
        self.tree(dir.subvol).nodes.remove(&home.ino);
        self.subvols.remove(&id);
        self.gone.push(id);
        Ok(())
    }

    fn check_live(&self, id: SubvolId) -> Outcome {
        match self.subvols.contains_key(&id) {
            true => Ok(()),
            false => Err(Error::NotFound),
        }
    }

    pub fn set_read_only(&mut self, id: SubvolId, read_only: bool) -> Outcome {
        self.check_live(id)?;
        self.tree(id).read_only = read_only;
        Ok(())
    }

    pub fn set_default(&mut self, id: SubvolId) -> Outcome {
        self.check_live(id)?;
        self.default = id;
        Ok(())
    }
}
