// SPDX-License-Identifier: GPL-2.0

//! Names against inodes, once all items of a subvolume were seen.

use super::ways::{ends_at_top, Up};
use super::Checker;
use crate::engine::repair::Mend;
use crate::engine::types::{FileType, Ino, InodeId, SubvolId, MAX_LINKS, ROOT_INO};
use std::cmp::Ordering;

/// What is kept of an inode.
pub struct InodeFacts {
    pub ino: u64,
    pub kind: FileType,
    pub nlink: u32,
    pub subdirs: u64,
    pub entries: u64,
    pub swap: bool,
    /// Some of its items are not of its type.
    pub doubtful: bool,
    pub node: u64,
}

/// A directory entry.
pub struct Entry {
    pub ino: u64,
    pub dir: u64,
    pub cookie: u64,
    pub kind: FileType,
    pub node: u64,
}

/// A PARENT item.
pub struct Parent {
    pub ino: u64,
    pub dir: u64,
    pub cookie: u64,
    pub offset: u64,
    pub node: u64,
}

/// The names of a subvolume.
pub struct Names {
    pub id: SubvolId,
    pub next_ino: u64,
    /// Ascending.
    pub inodes: Vec<InodeFacts>,
    pub entries: Vec<Entry>,
    pub parents: Vec<Parent>,
    /// Number, size to keep, leaf; ascending.
    pub orphans: Vec<(u64, u64, u64)>,
}

impl Names {
    /// Nothing seen yet.
    pub fn new(id: SubvolId, next_ino: u64) -> Self {
        Self {
            id,
            next_ino,
            inodes: Vec::new(),
            entries: Vec::new(),
            parents: Vec::new(),
            orphans: Vec::new(),
        }
    }

    /// The inode with this number.
    pub fn inode(&self, ino: u64) -> Option<&InodeFacts> {
        self.index(ino).and_then(|i| self.inodes.get(i))
    }

    fn index(&self, ino: u64) -> Option<usize> {
        self.inodes
            .binary_search_by_key(&ino, |inode| inode.ino)
            .ok()
    }

    fn of(&self, ino: u64) -> InodeId {
        InodeId {
            subvol: self.id,
            ino: Ino(ino),
        }
    }

    fn fault(&self, c: &mut Checker<'_>, rule: &'static str, node: u64, ino: u64, what: &str) {
        c.fault(rule, node, format!("{}: {what}", self.of(ino)));
    }

    /// How many entries name `ino`.
    fn count_names(&self, ino: u64) -> usize {
        let from = self.entries.partition_point(|e| e.ino < ino);
        self.entries[from..].partition_point(|e| e.ino == ino)
    }

    /// Compares everything with everything.
    pub fn compare(&mut self, checker: &mut Checker<'_>) {
        self.entries
            .sort_unstable_by_key(|e| (e.ino, e.dir, e.cookie));
        self.parents
            .sort_unstable_by_key(|p| (p.ino, p.dir, p.cookie));
        self.entries_have_parents(checker);
        self.entries_have_inodes(checker);
        self.link_counts(checker);
        self.orphans_fit(checker);
        self.reachable(checker);
    }

    /// Every entry has its PARENT item, and the other way round.
    fn entries_have_parents(&self, checker: &mut Checker<'_>) {
        let (mut entries, mut parents) = (
            self.entries.iter().peekable(),
            self.parents.iter().peekable(),
        );
        loop {
            let order = match (entries.peek(), parents.peek()) {
                (Some(e), Some(p)) => (e.ino, e.dir, e.cookie).cmp(&(p.ino, p.dir, p.cookie)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            if order != Ordering::Greater {
                if let Some(e) = entries.next().filter(|_| order == Ordering::Less) {
                    let what = format!("name in {} has no parent item", e.dir);
                    self.fault(checker, "parent-missing", e.node, e.ino, &what);
                    if self.inode(e.ino).is_some() {
                        let mend = Mend::Parent(self.of(e.ino), Ino(e.dir), e.cookie);
                        checker.report.mend(mend);
                    }
                }
            }
            if order != Ordering::Less {
                if let Some(p) = parents.next().filter(|_| order == Ordering::Greater) {
                    let what = format!("parent item without a name in {}", p.dir);
                    self.fault(checker, "parent-stale", p.node, p.ino, &what);
                    let mend = Mend::ParentGone(self.of(p.ino), p.offset);
                    checker.report.mend(mend);
                }
            }
        }
    }

    fn entries_have_inodes(&self, checker: &mut Checker<'_>) {
        for entry in &self.entries {
            let dir = self.of(entry.dir);
            match self.inode(entry.ino) {
                None => {
                    let (node, ino) = (entry.node, entry.ino);
                    self.fault(checker, "dirent-dangling", node, ino, "named, missing");
                    checker.report.mend(Mend::EntryGone(dir, entry.cookie));
                }
                Some(inode) if inode.kind != entry.kind => {
                    self.fault(
                        checker,
                        "dirent-type",
                        entry.node,
                        entry.ino,
                        "entry of another type",
                    );
                    if !inode.doubtful {
                        let mend = Mend::EntryKind(dir, entry.cookie, inode.kind);
                        checker.report.mend(mend);
                    }
                }
                Some(_) => {}
            }
        }
    }

    fn link_counts(&self, checker: &mut Checker<'_>) {
        let mut next = 0;
        for inode in &self.inodes {
            let from = next + self.entries[next..].partition_point(|e| e.ino < inode.ino);
            next = from + self.entries[from..].partition_point(|e| e.ino == inode.ino);
            let names = (next - from) as u64;
            let is_root = inode.ino == ROOT_INO.0;
            let expected = match inode.kind {
                FileType::Directory if names == 0 && !is_root => 0,
                FileType::Directory => 2 + inode.subdirs,
                _ => names,
            };
            if u64::from(inode.nlink) != expected {
                let what = format!("link count {}, counted {expected}", inode.nlink);
                self.fault(checker, "link-count", inode.node, inode.ino, &what);
                let id = self.of(inode.ino);
                checker.report.mend(match (expected, inode.kind) {
                    (0, FileType::Directory) => Mend::Lost(id, 2 + inode.subdirs as u32),
                    (0, _) => Mend::Lost(id, 1),
                    _ => Mend::Links(id, expected.min(u64::from(MAX_LINKS)) as u32),
                });
            }
            let most = if is_root { 0 } else { 1 };
            if inode.kind == FileType::Directory && names > most {
                let what = format!("directory with {names} names");
                self.fault(checker, "dir-names", inode.node, inode.ino, &what);
            }
            if inode.kind == FileType::Directory && inode.nlink == 0 && inode.entries > 0 {
                self.fault(
                    checker,
                    "dir-removed",
                    inode.node,
                    inode.ino,
                    "removed, has entries",
                );
            }
        }
        match self.inode(ROOT_INO.0) {
            Some(root) if root.kind == FileType::Directory => {}
            _ => self.fault(checker, "root-missing", 0, ROOT_INO.0, "no root directory"),
        }
    }

    fn orphans_fit(&self, checker: &mut Checker<'_>) {
        for &(ino, size, node) in &self.orphans {
            match self.inode(ino) {
                None => {
                    self.fault(
                        checker,
                        "orphan-missing",
                        node,
                        ino,
                        "orphan without an inode",
                    );
                    checker.report.mend(Mend::NoOrphan(self.of(ino)));
                }
                Some(inode) if (size == u64::MAX) != (inode.nlink == 0) => {
                    let what = format!("link count {} and orphan", inode.nlink);
                    self.fault(checker, "orphan-links", node, ino, &what);
                    // What may be in use is not deleted.
                    checker
                        .report
                        .mend(match inode.nlink == 0 && self.count_names(ino) == 0 {
                            true => Mend::Orphan(self.of(ino), u64::MAX),
                            false => Mend::NoOrphan(self.of(ino)),
                        });
                }
                Some(_) => {}
            }
        }
        for inode in self.inodes.iter().filter(|inode| inode.nlink == 0) {
            if self
                .orphans
                .binary_search_by_key(&inode.ino, |orphan| orphan.0)
                .is_err()
            {
                self.fault(
                    checker,
                    "orphan-unlisted",
                    inode.node,
                    inode.ino,
                    "no name, no orphan",
                );
                if self.count_names(inode.ino) == 0 {
                    let mend = Mend::Orphan(self.of(inode.ino), u64::MAX);
                    checker.report.mend(mend);
                }
            }
        }
    }

    /// From every directory the way up ends at the root.
    fn reachable(&self, checker: &mut Checker<'_>) {
        let up = |i: usize| {
            let Some(ino) = self.inodes.get(i).map(|inode| inode.ino) else {
                return Up::Nowhere;
            };
            if ino == ROOT_INO.0 {
                return Up::Top;
            }
            let first = self.entries.partition_point(|e| e.ino < ino);
            let entry = self.entries.get(first).filter(|e| e.ino == ino);
            entry
                .and_then(|e| self.index(e.dir))
                .map_or(Up::Nowhere, Up::To)
        };
        let good = ends_at_top(self.inodes.len(), up);
        for (inode, good) in self.inodes.iter().zip(good) {
            if !good && inode.kind == FileType::Directory && inode.nlink > 0 {
                let what = "directory that the root does not lead to";
                self.fault(checker, "dir-unreachable", inode.node, inode.ino, what);
            }
        }
    }
}
