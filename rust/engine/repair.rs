// SPDX-License-Identifier: GPL-2.0

//! Repair, for fsck: what a checker found out is put right in one transaction. Host only.
//!
//! The checker knows every owner of every block. From that the bitmaps, the space tree and the refs
//! tree are made anew where they are wrong; what else can be put right without a guess is a
//! [`Mend`]. Nothing is overwritten: only blocks that neither the checker nor the bitmap on disk
//! says are in use are written to, and what the old trees had is free when the new ones are durable.
//! So a repair that is interrupted leaves the volume as it was.

use super::device::BlockDevice;
use super::dir::{self, Entry, Slot};
use super::error::{Error, Result};
use super::extent::Place;
use super::format::{item_kind, DirentItem, ParentItem, RefsItem, SpaceItem};
use super::inode::{self, NewInode};
use super::mount::MountOptions;
use super::namei::adjust_dir;
use super::node::Key;
use super::orphan;
use super::subvolume::root_of;
use super::super_block;
use super::tree::{Root, TreeId};
use super::tree_write::Txn;
use super::types::{
    Attr, BlockNr, FileType, Ino, InodeId, Run, SubvolId, Time, INODE_SWAP, MAX_FILE_BLOCKS,
};
use super::volume::{Cost, Volume};
use crate::platform::{Block, Box, Vec};
use zerocopy::{FromBytes, IntoBytes};

/// The directory, in the root of a subvolume, where inodes without a name get one.
pub const LOST_AND_FOUND: &[u8] = b"lost+found";

/// Something that is put right. They are applied in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mend {
    /// The number of the next subvolume.
    NextSubvolume(u64),
    /// The number of a subvolume's next inode.
    NextInode(SubvolId, u64),
    /// The link count of an inode.
    Links(InodeId, u32),
    /// The size of a directory or a symbolic link.
    Size(InodeId, u64),
    /// The number of blocks of an inode.
    Blocks(InodeId, u64),
    /// A file has blocks in the swap tree and does not say so.
    SwapMark(InodeId),
    /// Blocks in the swap tree belong to no file.
    SwapGone(InodeId),
    /// An inode is an orphan of which so many bytes stay.
    Orphan(InodeId, u64),
    /// An inode is no orphan, or is not there.
    NoOrphan(InodeId),
    /// The PARENT item at this offset belongs to no entry.
    ParentGone(InodeId, u64),
    /// An inode has no PARENT item for its entry in this directory, with this cookie.
    Parent(InodeId, Ino, u64),
    /// The inode that this directory's entry names, by its cookie, is not of the type that it says.
    EntryKind(InodeId, u64, FileType),
    /// The inode that this directory's entry names, by its cookie, is not there.
    EntryGone(InodeId, u64),
    /// An inode has no name: it gets one in lost+found, and this link count.
    Lost(InodeId, u32),
}

/// A group as the owners of its blocks have it.
pub struct FoundGroup {
    /// Its number.
    pub group: u64,
    /// What the space tree says, if it can be read: where the live bitmap is.
    pub item: Option<SpaceItem>,
    /// Blocks that are fixed or have an owner.
    pub mapped: Box<Block>,
    /// Those, and all that must not be written to before the repair is durable.
    pub busy: Box<Block>,
}

/// What the space tree and the refs tree are made from.
pub struct Rebuild {
    /// Every group that is in use or has an item.
    pub groups: Vec<FoundGroup>,
    /// The nodes of the old trees.
    pub old_nodes: Vec<u64>,
    /// Runs with two owners or more: start, length, owners; ascending.
    pub shared: Vec<(u64, u64, u32)>,
}

/// Puts things right on the volume on `dev`, in one transaction, and says how many of `mends` could
/// be applied. An error means that nothing was changed.
pub fn repair<D: BlockDevice>(
    dev: D,
    rebuild: Option<Rebuild>,
    mends: &[Mend],
    time: Time,
) -> Result<usize> {
    let volume = match rebuild.as_ref() {
        None => Volume::mount(dev, &MountOptions::default())?,
        Some(rebuild) => mount_without_space(dev, rebuild)?,
    };
    let mut sorted = mends.to_vec();
    sorted.sort_unstable();
    let cost = Cost::drops(sorted.len().min(256));
    let done = volume.update(cost, |txn| {
        if let Some(rebuild) = rebuild.as_ref() {
            txn.rebuild(rebuild)?;
        }
        let mut done = 0;
        for mend in &sorted {
            let before = txn.state.changes;
            match txn.mend(*mend, time) {
                Ok(()) => done += 1,
                // What is needed for this one is damaged itself: it stays as it is.
                Err(error) if txn.state.changes == before && error != Error::NoSpace => {}
                Err(error) => return Err(error),
            }
        }
        txn.state.changes += 1;
        Ok(done)
    })?;
    volume.unmount()?;
    Ok(done.value)
}

/// A volume whose free space is what the checker found, whatever the space tree says.
fn mount_without_space<D: BlockDevice>(dev: D, rebuild: &Rebuild) -> Result<Volume<D>> {
    let (block, geometry) = super_block::read_newest(&dev, false)?;
    let volume = Volume::assemble(dev, geometry, block, &MountOptions::default())?;
    {
        let mut state = volume.state.write();
        for found in &rebuild.groups {
            state.space.restore(found)?;
        }
    }
    Ok(volume)
}

/// Sets what a mend is about.
fn set<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    id: InodeId,
    change: impl FnOnce(&mut Attr),
) -> Result<()> {
    let mut attr = inode::load(txn.view(), id)?;
    change(&mut attr);
    inode::store(txn, id, &attr)
}

impl<D: BlockDevice> Txn<'_, D> {
    fn rebuild(&mut self, rebuild: &Rebuild) -> Result<()> {
        self.state.changes += 1;
        for &block in &rebuild.old_nodes {
            let run = Run::new(BlockNr(block), 1);
            self.state.space.unmap(self.store, run)?;
        }
        for tree in [TreeId::Space, TreeId::Refs] {
            let ptr = self.new_node(tree, 0)?;
            self.set_root(tree, Root { ptr, level: 0 })?;
        }
        for &(start, len, count) in &rebuild.shared {
            let item = RefsItem {
                len: len.into(),
                count: count.into(),
                ..RefsItem::default()
            };
            let key = Key::new(start, item_kind::REFS, 0);
            self.put(TreeId::Refs, &key, item.as_bytes())?;
        }
        Ok(())
    }

    fn mend(&mut self, mend: Mend, time: Time) -> Result<()> {
        match mend {
            Mend::NextSubvolume(next) => {
                let sb = super_block::parse_mut(&mut self.state.super_block)?;
                sb.next_subvolume = next.into();
                Ok(())
            }
            Mend::NextInode(id, next) => {
                self.open(id)?;
                self.subvol_mut(id)?.next_ino = next;
                Ok(())
            }
            Mend::Links(id, nlink) => {
                self.open(id.subvol)?;
                set(self, id, |attr| attr.nlink = nlink)
            }
            Mend::Size(id, size) => {
                self.open(id.subvol)?;
                set(self, id, |attr| attr.size = size)
            }
            Mend::Blocks(id, blocks) => {
                self.open(id.subvol)?;
                set(self, id, |attr| attr.blocks = blocks)
            }
            Mend::SwapMark(id) => {
                self.open(id.subvol)?;
                set(self, id, |attr| attr.flags |= INODE_SWAP)
            }
            Mend::SwapGone(id) => {
                let place = Place::swap(id);
                while self.drop_extents(place, 0, MAX_FILE_BLOCKS, 16)?.0 < MAX_FILE_BLOCKS {}
                Ok(())
            }
            Mend::Orphan(id, size) => {
                self.open(id.subvol)?;
                orphan::put(self, id, size)
            }
            Mend::NoOrphan(id) => {
                self.open(id.subvol)?;
                orphan::remove(self, id)
            }
            Mend::ParentGone(id, offset) => {
                self.open(id.subvol)?;
                let key = Key::new(id.ino.0, item_kind::PARENT, offset);
                self.remove(TreeId::Subvol(id.subvol), &key).map(drop)
            }
            Mend::Parent(id, dir, cookie) => self.add_parent(id, dir, cookie),
            Mend::EntryKind(dir, cookie, kind) => self.set_kind(dir, cookie, kind),
            Mend::EntryGone(dir, cookie) => self.drop_entry(dir, cookie),
            Mend::Lost(id, nlink) => self.find_place(id, nlink, time),
        }
    }

    fn add_parent(&mut self, id: InodeId, dir: Ino, cookie: u64) -> Result<()> {
        self.open(id.subvol)?;
        inode::load(self.view(), id)?;
        let dir = InodeId { ino: dir, ..id };
        let Slot::Free(offset) = dir::find_parent(self.view(), dir, cookie, id.ino)? else {
            return Err(Error::Exists);
        };
        let item = ParentItem {
            dir: dir.ino.0.into(),
            cookie: cookie.into(),
        };
        let key = Key::new(id.ino.0, item_kind::PARENT, offset);
        self.put(TreeId::Subvol(id.subvol), &key, item.as_bytes())
    }

    fn set_kind(&mut self, dir: InodeId, cookie: u64, kind: FileType) -> Result<()> {
        self.open(dir.subvol)?;
        let (tree, key) = entry_key(dir, cookie);
        let mut item = self
            .view()
            .get(tree, &key, |data| Ok(data.to_vec()))?
            .ok_or(Error::NotFound)?;
        let entry = DirentItem::mut_from_prefix(&mut item).map_err(|_| Error::NotFound)?;
        entry.0.kind = kind as u8;
        self.put(tree, &key, &item)
    }

    fn drop_entry(&mut self, dir: InodeId, cookie: u64) -> Result<()> {
        self.open(dir.subvol)?;
        let (tree, key) = entry_key(dir, cookie);
        let found = self.view().get(tree, &key, |data| {
            let (entry, name) = dir::decode(&key, data)?;
            Ok((entry.kind, name.len()))
        })?;
        let (kind, len) = found.ok_or(Error::NotFound)?;
        let mut attr = inode::load(self.view(), dir)?;
        let links = -i32::from(kind == FileType::Directory);
        adjust_dir(&mut attr, links, -(len as i64))?;
        self.remove(tree, &key)?;
        inode::store(self, dir, &attr)
    }

    /// Gives an inode a name in lost+found.
    fn find_place(&mut self, id: InodeId, nlink: u32, time: Time) -> Result<()> {
        self.open(id.subvol)?;
        let mut attr = inode::load(self.view(), id)?;
        let kind = inode::file_type(&attr)?;
        let dir = self.lost_and_found(id.subvol, time)?;
        let name = std::format!("#{}", id.ino);
        let cookie = dir::vacancy(self.view(), dir, name.as_bytes())?;
        let mut dir_attr = inode::load(self.view(), dir)?;
        let links = i32::from(kind == FileType::Directory);
        adjust_dir(&mut dir_attr, links, name.len() as i64)?;
        inode::touch(&mut dir_attr, time);
        attr.nlink = nlink;
        inode::changed(&mut attr, time);
        let ino = id.ino;
        dir::put(self, dir, Entry { cookie, ino, kind }, name.as_bytes())?;
        inode::store(self, dir, &dir_attr)?;
        inode::store(self, id, &attr)
    }

    /// The directory for inodes without a name; made if it is missing.
    fn lost_and_found(&mut self, subvol: SubvolId, time: Time) -> Result<InodeId> {
        let top = root_of(subvol);
        let cookie = match dir::find(self.view(), top, LOST_AND_FOUND)? {
            Slot::Found(entry) if entry.kind == FileType::Directory => {
                let ino = entry.ino;
                let id = InodeId { subvol, ino };
                // What is in the directory that stands for a subvolume is not seen.
                return match self.view().subvolume_at(id)? {
                    None => Ok(id),
                    Some(_) => Err(Error::Exists),
                };
            }
            Slot::Found(_) => return Err(Error::Exists),
            Slot::Full => return Err(Error::NotFound),
            Slot::Free(cookie) => cookie,
        };
        let mut top_attr = inode::load(self.view(), top)?;
        adjust_dir(&mut top_attr, 1, LOST_AND_FOUND.len() as i64)?;
        inode::touch(&mut top_attr, time);
        let new = NewInode {
            mode: 0o040700,
            uid: 0,
            gid: 0,
            rdev: 0,
            project: 0,
            flags: 0,
            time,
            symlink: None,
            xattrs: &[],
        };
        let (attr, kind) = (inode::fresh(&new, 2)?, FileType::Directory);
        let id = inode::allocate(self, subvol)?;
        let ino = id.ino;
        dir::put(self, top, Entry { cookie, ino, kind }, LOST_AND_FOUND)?;
        inode::store(self, top, &top_attr)?;
        inode::store(self, id, &attr)?;
        Ok(id)
    }
}

fn entry_key(dir: InodeId, cookie: u64) -> (TreeId, Key) {
    (
        TreeId::Subvol(dir.subvol),
        Key::new(dir.ino.0, item_kind::DIRENT, cookie),
    )
}
