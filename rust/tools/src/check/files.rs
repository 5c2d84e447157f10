// SPDX-License-Identifier: GPL-2.0

//! The items of a subvolume tree, inode by inode, in the order of the tree.

use super::homes::Stand;
use super::names::{Entry, InodeFacts, Names, Parent};
use super::walk::Item;
use super::Checker;
use crate::engine::format::{
    extent_state, item_kind, tree_kind, DirentItem, ForestItem, InodeItem, OrphanItem, ParentItem,
    XattrItem, SYMLINK_CHUNK,
};
use crate::engine::hash::siphash;
use crate::engine::node::Key;
use crate::engine::repair::Mend;
use crate::engine::types::{
    FileType, Ino, InodeId, SubvolId, INODE_SUBVOLUME, INODE_SWAP, MAX_FILE_SIZE, MAX_INO,
    MAX_LINKS, MAX_NAME, MAX_SYMLINK, ROOT_INO,
};
use zerocopy::{FromBytes, IntoBytes};

/// Bit 1 of a forest item's flags: the subvolume is being dropped, its names are partly gone.
const DROPPED: u64 = 2;

/// What was seen of the inode whose items come now.
#[derive(Default)]
struct Current {
    ino: u64,
    item: Option<(InodeItem, FileType)>,
    node: u64,
    /// Some of its items are not of its type.
    doubtful: bool,
    /// Items of an inode that is missing were reported.
    reported: bool,
    names_len: u64,
    subdirs: u64,
    entries: u64,
    target_len: u64,
    chunks: u64,
    blocks: u64,
    extents_end: u64,
    /// Extents: file block, length, state.
    extents: Vec<(u64, u64, u8)>,
    /// Names of the entries or attributes with the same hash, and that hash.
    same_hash: (u64, Vec<Vec<u8>>),
}

/// A subvolume while its tree is walked.
struct Files {
    id: SubvolId,
    seed: [u8; 16],
    current: Current,
    names: Names,
    has_swap: bool,
    /// Dropping takes leaves away from the left, and of the first that is left some extents.
    dropping: bool,
    /// That leaf, when it was seen.
    first_leaf: Option<u64>,
}

impl Checker<'_> {
    /// Walks the tree of a subvolume and checks what is in it.
    pub fn subvolume(&mut self, id: u64, item: &ForestItem) {
        let id = SubvolId(id);
        let mut files = Files {
            id,
            seed: self.sb.hash_seed,
            current: Current::default(),
            names: Names::new(id, item.next_ino.get()),
            has_swap: !self.swap_of(id).is_empty(),
            dropping: item.flags.get() & DROPPED != 0,
            first_leaf: None,
        };
        self.last_snapshot = item.last_snapshot.get();
        let complete = self.walk(tree_kind::SUBVOLUME, item.root, &mut |checker, item| {
            files.item(checker, item);
        });
        files.finish_inode(self);
        let mut names = files.names;
        self.report.inodes += names.inodes.len() as u64;
        self.report.directories += names
            .inodes
            .iter()
            .filter(|inode| inode.kind == FileType::Directory)
            .count() as u64;
        if !complete {
            self.report
                .notes
                .push(format!("names of subvolume {id} were not compared"));
        } else if item.flags.get() & DROPPED == 0 {
            names.compare(self);
            self.swap_inodes(&names);
        }
    }

    /// Each run of the swap tree belongs to a regular file that says so.
    fn swap_inodes(&mut self, names: &Names) {
        let mut bad = Vec::new();
        for run in self.swap_of(names.id) {
            match names.inode(run.id.ino.0) {
                Some(file) if file.kind == FileType::Regular && file.swap => {}
                Some(file) if file.kind == FileType::Regular => {
                    bad.push((run.node, run.id, Mend::SwapMark(run.id)));
                }
                _ => bad.push((run.node, run.id, Mend::SwapGone(run.id))),
            }
        }
        for (node, id, mend) in bad {
            self.report.mend(mend);
            self.fault(
                "swap-owner",
                node,
                format!("{id}: not a file with swap blocks"),
            );
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && ![&b"."[..], b".."].contains(&name)
        && !name.iter().any(|byte| [0, b'/'].contains(byte))
}

impl Files {
    fn id(&self) -> InodeId {
        InodeId {
            subvol: self.id,
            ino: Ino(self.current.ino),
        }
    }

    fn fault(&self, checker: &mut Checker<'_>, rule: &'static str, node: u64, what: &str) {
        checker.fault(rule, node, format!("{}: {what}", self.id()));
    }

    fn item(&mut self, checker: &mut Checker<'_>, item: &Item<'_>) {
        let Key { object, kind, .. } = item.key;
        self.first_leaf.get_or_insert(item.node);
        if object != self.current.ino {
            self.finish_inode(checker);
            self.current = Current {
                ino: object,
                node: item.node,
                ..Current::default()
            };
        }
        if object == 0 {
            return match kind {
                item_kind::ORPHAN => self.orphan(checker, item),
                _ => checker.unknown_item(item),
            };
        }
        match kind {
            item_kind::INODE => return self.inode(checker, item),
            item_kind::DIRENT
            | item_kind::XATTR
            | item_kind::PARENT
            | item_kind::SYMLINK
            | item_kind::EXTENT => {}
            _ => return checker.unknown_item(item),
        }
        if self.current.item.is_none() && self.dropping {
            // Its blocks are still counted.
            if kind == item_kind::EXTENT {
                checker.extent(item, &self.id());
            }
            return;
        }
        if self.current.item.is_none() && !self.current.reported {
            self.current.reported = true;
            self.fault(
                checker,
                "inode-missing",
                item.node,
                "items without an inode",
            );
        }
        match kind {
            item_kind::DIRENT => self.dirent(checker, item),
            item_kind::XATTR => self.xattr(checker, item),
            item_kind::PARENT => self.parent(checker, item),
            item_kind::SYMLINK => self.symlink(checker, item),
            _ => self.extent(checker, item),
        }
    }

    fn orphan(&mut self, checker: &mut Checker<'_>, item: &Item<'_>) {
        match OrphanItem::read_from_bytes(item.data) {
            Ok(orphan) => {
                self.names
                    .orphans
                    .push((item.key.offset, orphan.size.get(), item.node));
            }
            Err(_) => checker.fault("item-size", item.node, "orphan item"),
        }
    }

    fn inode(&mut self, checker: &mut Checker<'_>, item: &Item<'_>) {
        let ino = item.key.object;
        // One that is not understood is not missing: its names stay.
        let Ok(inode) = InodeItem::read_from_bytes(item.data) else {
            checker.report.unknown = true;
            return self.fault(checker, "item-size", item.node, "inode item");
        };
        let kind = FileType::from_mode(inode.mode.get());
        let Some(kind) = kind.filter(|_| inode.mode.get() >> 16 == 0) else {
            checker.report.unknown = true;
            return self.fault(checker, "inode-mode", item.node, "mode");
        };
        if item.key.offset != 0
            || !(ROOT_INO.0..=MAX_INO.0).contains(&ino)
            || ino >= self.names.next_ino
        {
            self.fault(checker, "inode-number", item.node, "number out of bounds");
            if item.key.offset == 0 && (ROOT_INO.0..MAX_INO.0).contains(&ino) {
                checker.report.mend(Mend::NextInode(self.id, ino + 1));
            }
        }
        if inode.nlink.get() > MAX_LINKS || inode.size.get() > MAX_FILE_SIZE {
            self.fault(
                checker,
                "inode-bounds",
                item.node,
                "link count or size out of bounds",
            );
        }
        let times = [inode.atime, inode.mtime, inode.ctime, inode.btime];
        if times.iter().any(|time| time.nsec.get() >= 1_000_000_000) {
            self.fault(checker, "inode-time", item.node, "nanoseconds");
        }
        self.current.item = Some((inode, kind));
        self.current.node = item.node;
    }

    /// Whether the item belongs to an inode of this type.
    fn wants(&mut self, checker: &mut Checker<'_>, item: &Item<'_>, kind: FileType) {
        if self.current.item.is_some_and(|(_, its)| its != kind) {
            self.current.doubtful = true;
            self.fault(
                checker,
                "inode-type",
                item.node,
                "item that its type does not have",
            );
        }
    }

    /// Checks that `name` has the hash in its key, and is not there twice.
    fn hashed(&mut self, checker: &mut Checker<'_>, item: &Item<'_>, name: &[u8], first: u64) {
        if item.key.offset & !0xff != first {
            self.fault(
                checker,
                "name-hash",
                item.node,
                "key does not have the name's hash",
            );
        }
        let group = &mut self.current.same_hash;
        if group.0 != first {
            *group = (first, Vec::new());
        }
        if group.1.iter().any(|other| other == name) {
            self.fault(checker, "name-twice", item.node, "two with the same name");
        } else {
            group.1.push(name.to_vec());
        }
    }

    fn dirent(&mut self, checker: &mut Checker<'_>, item: &Item<'_>) {
        self.wants(checker, item, FileType::Directory);
        let Ok((entry, name)) = DirentItem::read_from_prefix(item.data) else {
            return self.fault(checker, "item-size", item.node, "directory entry");
        };
        let kind = FileType::from_u8(entry.kind);
        let (Some(kind), 0, true) = (kind, entry.flags, is_name(name)) else {
            return self.fault(checker, "dirent-fields", item.node, "type, flags or name");
        };
        let hash = (siphash(&self.seed, name) & ((1 << 54) - 1)).min((1 << 54) - 2);
        self.hashed(checker, item, name, (1 << 62) | (hash << 8));
        self.current.names_len += name.len() as u64;
        self.current.entries += 1;
        self.current.subdirs += u64::from(kind == FileType::Directory);
        self.names.entries.push(Entry {
            ino: entry.ino.get(),
            dir: item.key.object,
            cookie: item.key.offset,
            kind,
            node: item.node,
        });
    }

    fn xattr(&mut self, checker: &mut Checker<'_>, item: &Item<'_>) {
        let parts = XattrItem::read_from_prefix(item.data).ok();
        let name = parts
            .filter(|(head, _)| head.reserved == 0)
            .and_then(|(head, rest)| rest.get(..usize::from(head.name_len)));
        match name.filter(|name| !name.is_empty() && !name.contains(&0)) {
            Some(name) => {
                let first = siphash(&self.seed, name) & !0xff;
                self.hashed(checker, item, name, first);
            }
            None => self.fault(checker, "xattr-fields", item.node, "name of an attribute"),
        }
    }

    fn parent(&mut self, checker: &mut Checker<'_>, item: &Item<'_>) {
        let Ok(parent) = ParentItem::read_from_bytes(item.data) else {
            return self.fault(checker, "item-size", item.node, "parent item");
        };
        if item.key.offset & !0xff != siphash(&self.seed, parent.as_bytes()) & !0xff {
            self.fault(
                checker,
                "parent-hash",
                item.node,
                "key does not have the parent's hash",
            );
            let mend = Mend::ParentGone(self.id(), item.key.offset);
            checker.report.mend(mend);
        }
        self.names.parents.push(Parent {
            ino: item.key.object,
            dir: parent.dir.get(),
            cookie: parent.cookie.get(),
            offset: item.key.offset,
            node: item.node,
        });
    }

    fn symlink(&mut self, checker: &mut Checker<'_>, item: &Item<'_>) {
        self.wants(checker, item, FileType::Symlink);
        let current = &mut self.current;
        let whole = current.target_len == current.chunks * SYMLINK_CHUNK as u64;
        let good = item.key.offset == current.chunks
            && whole
            && (1..=SYMLINK_CHUNK).contains(&item.data.len())
            && !item.data.contains(&0);
        current.chunks += 1;
        current.target_len += item.data.len() as u64;
        if !good {
            self.fault(checker, "symlink-pieces", item.node, "pieces of the target");
        }
    }

    fn extent(&mut self, checker: &mut Checker<'_>, item: &Item<'_>) {
        self.wants(checker, item, FileType::Regular);
        let id = self.id();
        let Some(extent) = checker.extent(item, &id) else {
            return;
        };
        let (at, len) = (extent.at.get(), extent.len.get());
        if extent.state != extent_state::UNBACKED && !checker.said_shared(at, len) {
            let generation = extent.generation.get();
            checker.not_after_snapshot("extent-snapshot", item.node, generation, item.shared);
        }
        if item.key.offset < self.current.extents_end {
            self.fault(checker, "extent-overlap", item.node, "extents overlap");
        }
        self.current.extents_end = item.key.offset.saturating_add(len);
        self.current.blocks = self.current.blocks.saturating_add(len);
        if self.has_swap {
            self.current
                .extents
                .push((item.key.offset, len, extent.state));
        }
    }

    /// All items of an inode were seen.
    fn finish_inode(&mut self, checker: &mut Checker<'_>) {
        let current = std::mem::take(&mut self.current);
        let Some((inode, kind)) = current.item else {
            return;
        };
        let id = InodeId {
            subvol: self.id,
            ino: Ino(current.ino),
        };
        let mut bad = |rule, what: String| {
            checker
                .report
                .fault(rule, current.node, format!("{id}: {what}"));
        };
        let size = inode.size.get();
        match kind {
            FileType::Directory if size != current.names_len => {
                bad(
                    "dir-size",
                    format!("size {size}, its names have {}", current.names_len),
                );
            }
            FileType::Symlink
                if size != current.target_len || size == 0 || size > MAX_SYMLINK as u64 =>
            {
                bad(
                    "symlink-size",
                    format!("size {size}, target of {}", current.target_len),
                );
            }
            _ => {}
        }
        let partly = self.dropping
            && self.first_leaf == Some(current.node)
            && current.blocks < inode.blocks.get();
        if inode.blocks.get() != current.blocks && !partly {
            bad(
                "inode-blocks",
                format!("{} blocks, counted {}", inode.blocks, current.blocks),
            );
        }
        let swap = inode.flags.get() & INODE_SWAP != 0;
        if swap && kind != FileType::Regular {
            bad("swap-flag", "swap flag on something that is no file".into());
        }
        if inode.flags.get() & INODE_SUBVOLUME != 0 {
            if kind != FileType::Directory {
                bad(
                    "home-flag",
                    "marked as a subvolume's, but no directory".into(),
                );
            } else if !self.dropping {
                let stand = Stand {
                    subvol: inode.rdev.get(),
                    entries: current.entries,
                    named: inode.nlink.get() > 0,
                    node: current.node,
                };
                checker.stands.insert(id, stand);
            }
        }
        match kind {
            FileType::Directory if size != current.names_len => {
                checker.report.mend(Mend::Size(id, current.names_len));
            }
            FileType::Symlink
                if size != current.target_len
                    && (1..=MAX_SYMLINK as u64).contains(&current.target_len) =>
            {
                checker.report.mend(Mend::Size(id, current.target_len));
            }
            _ => {}
        }
        if inode.blocks.get() != current.blocks {
            checker.report.mend(Mend::Blocks(id, current.blocks));
        }
        if self.has_swap {
            self.swap_below(checker, &current.extents, id);
        }
        self.names.inodes.push(InodeFacts {
            ino: current.ino,
            kind,
            nlink: inode.nlink.get(),
            subdirs: current.subdirs,
            entries: current.entries,
            swap,
            doubtful: current.doubtful,
            node: current.node,
        });
    }

    /// Below each run of the swap tree, its header apart, the subvolume tree holds a promise.
    fn swap_below(&self, checker: &mut Checker<'_>, extents: &[(u64, u64, u8)], id: InodeId) {
        let mut bad = Vec::new();
        for run in checker.swap_runs(id, id) {
            let end = run.at + run.len;
            let mut at = run.at.max(1);
            while at < end {
                let next = extents.partition_point(|e| e.0 + e.1 <= at);
                match extents.get(next) {
                    Some(&(start, len, extent_state::UNBACKED)) if start <= at => at = start + len,
                    _ => {
                        bad.push((run.node, at));
                        break;
                    }
                }
            }
        }
        for (node, at) in bad {
            let what = format!("{id}: file block {at} has swap blocks above no promise");
            checker.fault("swap-below", node, what);
        }
    }
}
