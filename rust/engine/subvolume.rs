// SPDX-License-Identifier: GPL-2.0

//! Subvolumes and their places among the names.
//!
//! In its parent's tree an ordinary, empty directory with the flag `INODE_SUBVOLUME` stands for a
//! subvolume, and the subvolume's forest item names that directory as its *home*. Only where both
//! agree do names lead into the subvolume: whoever looks the directory up gets the subvolume's root.
//! So what a snapshot of the parent copied is the plain empty directory that it looks like, nested
//! subvolumes are no part of a snapshot, and nothing else needs to know about them: link counts,
//! removal and renaming are those of directories.
//!
//! Subvolume 0 is the top level, which has no home; one that is being dropped has none any more.

use super::device::BlockDevice;
use super::dir::{self, Entry};
use super::error::{Error, Result};
use super::format::{item_kind, subvolume_flag, ForestItem};
use super::inode::{self, NewInode};
use super::namei::{adjust_dir, live_dir, Created, Unlinked};
use super::node::Key;
use super::path::{leads_up_to, Shown};
use super::super_block;
use super::tree::{Root, TreeId, View};
use super::tree_write::Txn;
use super::types::{
    Attr, Done, FileType, Generation, Ino, InodeId, SubvolId, Time, FIRST_INO, INODE_SUBVOLUME,
    MAX_SUBVOL, ROOT_INO,
};
use super::volume::{Cost, State, Subvol, Volume};
use super::xattr;
use crate::platform::{log, random_u64};

/// The top level.
pub const TOP: SubvolId = SubvolId(0);

/// Deleting touches five items; the first step of dropping must find room after it.
const DELETE: Cost = Cost::drops(64);

/// A subvolume to make.
#[derive(Debug, Clone, Copy)]
pub struct NewSubvolume<'a> {
    /// The directory that it hangs in.
    pub dir: InodeId,
    /// Its name there.
    pub name: &'a [u8],
    /// Its root directory.
    pub root: NewInode<'a>,
    /// Its uuid: random.
    pub uuid: [u8; 16],
}

/// What is known of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubvolInfo {
    /// Its number.
    pub id: SubvolId,
    /// The directory that stands for it in another subvolume. The top level has none, and neither
    /// has one that is being dropped.
    pub home: Option<InodeId>,
    /// The subvolume that it is a snapshot of, which may be gone.
    pub source: Option<SubvolId>,
    /// Its uuid.
    pub uuid: [u8; 16],
    /// The uuid of `source`, or zeros.
    pub source_uuid: [u8; 16],
    /// Nothing in it may change.
    pub read_only: bool,
    /// It was deleted, and its space is being given back.
    pub dropping: bool,
    /// When it was made.
    pub created: Time,
    /// The transaction of its last change.
    pub generation: Generation,
    /// Blocks that dropping it let go of so far.
    pub dropped: u64,
}

impl SubvolInfo {
    fn new(id: SubvolId, item: &ForestItem) -> Self {
        let source = SubvolId(item.parent.get());
        Self {
            id,
            home: home(item),
            source: (source <= MAX_SUBVOL).then_some(source),
            uuid: item.uuid,
            source_uuid: item.parent_uuid,
            read_only: item.flags.get() & subvolume_flag::READ_ONLY != 0,
            dropping: item.flags.get() & subvolume_flag::DROPPING != 0,
            created: Time {
                sec: item.created_sec.get() as i64,
                nsec: item.created_nsec.get(),
            },
            generation: Generation(item.root.generation.get()),
            dropped: item.dropped.get(),
        }
    }
}

fn home(item: &ForestItem) -> Option<InodeId> {
    let id = InodeId {
        subvol: SubvolId(item.home_subvolume.get()),
        ino: Ino(item.home_ino.get()),
    };
    (id.ino.0 != 0).then_some(id)
}

/// The root directory of a subvolume.
pub fn root_of(subvol: SubvolId) -> InodeId {
    let ino = ROOT_INO;
    InodeId { subvol, ino }
}

impl<D: BlockDevice> View<'_, D> {
    /// What the forest tree says of a subvolume, with what memory knows better.
    fn forest_item(self, id: SubvolId) -> Result<Option<ForestItem>> {
        if let Some(subvol) = self.state.subvols.get(&id.0) {
            return Ok(Some(subvol.forest_item()));
        }
        let key = Key::new(id.0, item_kind::FOREST, 0);
        self.get(TreeId::Forest, &key, |data| {
            super::mount::forest_item(self, data)
        })
    }

    /// The first subvolume from number `from` on.
    pub(super) fn next_forest_item(self, from: SubvolId) -> Result<Option<(SubvolId, ForestItem)>> {
        let first = Key::new(from.0, item_kind::FOREST, 0);
        let at = self.state.forest.ptr.block;
        let stored = self.first(TreeId::Forest, &first, &Key::MAX, |key, _| {
            // Also what ends the loops over all of them.
            match key.kind == item_kind::FOREST && key.object <= MAX_SUBVOL.0 {
                true => Ok(key.object),
                false => Err(Error::corrupt(at, "key of a forest item")),
            }
        })?;
        // A new one is not in the tree before the next commit.
        let fresh = self.state.subvols.at_or_after(&from.0).map(|(id, _)| id);
        let Some(id) = stored.into_iter().chain(fresh).min().map(SubvolId) else {
            return Ok(None);
        };
        Ok(self.forest_item(id)?.map(|item| (id, item)))
    }

    /// What the forest tree says of a subvolume that was not deleted.
    fn live_item(self, id: SubvolId) -> Result<ForestItem> {
        let alive = |item: &ForestItem| item.flags.get() & subvolume_flag::DROPPING == 0;
        self.forest_item(id)?.filter(alive).ok_or(Error::NotFound)
    }

    /// `NotFound` for a subvolume that was deleted.
    pub(super) fn check_live(self, id: SubvolId) -> Result<()> {
        self.live_item(id).map(drop)
    }

    /// `NotFound` for a subvolume that was deleted, `ReadOnly` for one whose names must not change.
    pub(super) fn check_changeable(self, id: SubvolId) -> Result<()> {
        match self.live_item(id)?.flags.get() & subvolume_flag::READ_ONLY {
            0 => Ok(()),
            _ => Err(Error::ReadOnly),
        }
    }

    /// The directory that stands for a subvolume.
    pub(super) fn home(self, id: SubvolId) -> Result<Option<InodeId>> {
        Ok(self.forest_item(id)?.as_ref().and_then(home))
    }

    /// The subvolume that the directory `id` stands for: `None` if it is an ordinary one.
    pub(super) fn subvolume_at(self, id: InodeId) -> Result<Option<SubvolId>> {
        let next = super_block::parse(&self.state.super_block)?.next_subvolume;
        if next.get() <= 1 {
            return Ok(None);
        }
        let attr = match inode::load(self, id) {
            Err(Error::NotFound) => return Ok(None),
            attr => attr?,
        };
        let subvol = SubvolId(attr.rdev);
        let stands = attr.flags & INODE_SUBVOLUME != 0 && self.home(subvol)? == Some(id);
        Ok(stands.then_some(subvol))
    }

    /// The inode that an entry of `dir` leads to.
    pub(super) fn resolve(self, dir: InodeId, entry: &Entry) -> Result<InodeId> {
        let ino = entry.ino;
        let id = InodeId { ino, ..dir };
        if entry.kind != FileType::Directory {
            return Ok(id);
        }
        Ok(self.subvolume_at(id)?.map_or(id, root_of))
    }

    /// Whether the subvolume `id` is `ancestor`, or hangs below it.
    pub(super) fn hangs_below(self, id: SubvolId, ancestor: SubvolId) -> Result<bool> {
        let up = |at| Ok(self.home(at)?.map(|home| home.subvol));
        leads_up_to(id, ancestor, up, "subvolumes that contain each other")
    }

    /// Whether a subvolume hangs in `id`.
    fn has_nested(self, id: SubvolId) -> Result<bool> {
        let mut from = TOP;
        while let Some((at, item)) = self.next_forest_item(from)? {
            if home(&item).is_some_and(|home| home.subvol == id) {
                return Ok(true);
            }
            from = SubvolId(at.0.saturating_add(1));
        }
        Ok(false)
    }
}

impl State {
    /// An active swapfile in a subvolume.
    fn active_swapfile(&self, id: SubvolId) -> Option<InodeId> {
        let first = InodeId {
            subvol: id,
            ino: Ino(0),
        };
        let (st_ino, ()) = self.swapping.at_or_after(&first.st_ino())?;
        Some(InodeId::from_st_ino(st_ino)).filter(|file| file.subvol == id)
    }
}

/// A place for a name that was found to be free.
pub(super) struct Place {
    dir: InodeId,
    attr: Attr,
    cookie: u64,
}

impl Place {
    /// Where `name` of `dir` can be, and the directory that it is a name of.
    pub(super) fn vacant<D: BlockDevice>(
        view: View<'_, D>,
        dir: InodeId,
        name: &[u8],
    ) -> Result<Self> {
        let mut attr = live_dir(view, dir)?;
        let cookie = dir::vacancy(view, dir, name)?;
        inode::next(view.state, dir.subvol)?;
        adjust_dir(&mut attr, 1, name.len() as i64)?;
        Ok(Self { dir, attr, cookie })
    }
}

impl<D: BlockDevice> Txn<'_, D> {
    /// Takes the number of a new subvolume. Numbers are never used twice.
    pub(super) fn next_subvolume(&mut self) -> Result<SubvolId> {
        let sb = super_block::parse_mut(&mut self.state.super_block)?;
        let id = sb.next_subvolume.get();
        if id > MAX_SUBVOL.0 {
            let device = self.store.dev.name();
            log(format_args!(
                "({device}): all numbers of subvolumes are used up"
            ));
            return Err(Error::NoSpace);
        }
        sb.next_subvolume = (id + 1).into();
        Ok(SubvolId(id))
    }

    /// Makes the directory that stands for a subvolume, which looks like its root directory `like`:
    /// the attributes of the directory that it is in.
    pub(super) fn hang(
        &mut self,
        place: Place,
        name: &[u8],
        subvol: SubvolId,
        like: &Attr,
        time: Time,
    ) -> Result<Attr> {
        let Place {
            dir,
            attr: mut above,
            cookie,
        } = place;
        let id = inode::allocate(self, dir.subvol)?;
        let attr = Attr {
            nlink: 2,
            size: 0,
            blocks: 0,
            rdev: subvol.0,
            flags: INODE_SUBVOLUME,
            generation: random_u64(),
            change: 1,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            ..*like
        };
        inode::store(self, id, &attr)?;
        let kind = FileType::Directory;
        let ino = id.ino;
        dir::put(self, dir, Entry { cookie, ino, kind }, name)?;
        inode::touch(&mut above, time);
        inode::store(self, dir, &above)?;
        self.set_home(subvol, Some(id))?;
        Ok(above)
    }

    /// Removes the directory that stands for a subvolume, and its name.
    pub(super) fn unhang(&mut self, dir: InodeId, entry: Entry) -> Result<()> {
        dir::remove(self, dir, entry)?;
        self.remove(TreeId::Subvol(dir.subvol), &inode::key(entry.ino))
            .map(drop)
    }

    /// Says which directory stands for a subvolume.
    pub(super) fn set_home(&mut self, subvol: SubvolId, home: Option<InodeId>) -> Result<()> {
        let item = &mut self.subvol_mut(subvol)?.item;
        item.home_subvolume = home.map_or(0, |id| id.subvol.0).into();
        item.home_ino = home.map_or(0, |id| id.ino.0).into();
        Ok(())
    }

    fn create_subvolume(&mut self, new: &NewSubvolume<'_>) -> Result<Created> {
        let place = Place::vacant(self.view(), new.dir, new.name)?;
        let attr = inode::fresh(&new.root, 2)?;
        if inode::file_type(&attr)? != FileType::Directory {
            return Err(Error::NotDirectory);
        }
        let id = self.next_subvolume()?;
        let root = Root {
            ptr: self.new_node(TreeId::Subvol(id), 0)?,
            level: 0,
        };
        let item = ForestItem {
            parent: u64::MAX.into(),
            uuid: new.uuid,
            created_sec: (new.root.time.sec as u64).into(),
            created_nsec: new.root.time.nsec.into(),
            ..ForestItem::default()
        };
        let subvol = Subvol {
            root,
            last_snapshot: Generation(0),
            next_ino: FIRST_INO.0,
            item,
            dirty: true,
        };
        self.state.subvols.insert(id.0, subvol)?;
        inode::store(self, root_of(id), &attr)?;
        xattr::put_new(self, root_of(id), new.root.xattrs)?;
        let dir = self.hang(place, new.name, id, &attr, new.root.time)?;
        let id = root_of(id);
        Ok(Created { id, attr, dir })
    }

    /// Deletes the subvolume `id`, for which `entry` of `dir` stands. What is in the way is an
    /// active swapfile if `busy` names one.
    pub(super) fn remove_subvolume(
        &mut self,
        dir: InodeId,
        (name, entry): (&[u8], Entry),
        id: SubvolId,
        time: Time,
        busy: &mut Option<InodeId>,
    ) -> Result<Unlinked> {
        let mut above = live_dir(self.view(), dir)?;
        self.open(id)?;
        let sb = super_block::parse(&self.state.super_block)?;
        *busy = self.state.active_swapfile(id);
        if sb.default_subvolume.get() == id.0 || busy.is_some() {
            return Err(Error::Busy);
        }
        if self.view().has_nested(id)? {
            return Err(Error::NotEmpty);
        }
        let mut target = inode::load(self.view(), root_of(id))?;
        target.nlink = 0;
        adjust_dir(&mut above, -1, -(name.len() as i64))?;
        inode::touch(&mut above, time);

        self.unhang(dir, entry)?;
        self.set_home(id, None)?;
        inode::store(self, dir, &above)?;
        let item = &mut self.subvol_mut(id)?.item;
        item.flags = (item.flags.get() | subvolume_flag::DROPPING).into();
        let id = root_of(id);
        Ok(Unlinked {
            id,
            target,
            dir: above,
        })
    }

    fn delete_subvolume(
        &mut self,
        dir: InodeId,
        name: &[u8],
        time: Time,
        busy: &mut Option<InodeId>,
    ) -> Result<Unlinked> {
        live_dir(self.view(), dir)?;
        let entry = dir::entry(self.view(), dir, name)?;
        if entry.kind != FileType::Directory {
            return Err(Error::NotDirectory);
        }
        let at = InodeId {
            ino: entry.ino,
            ..dir
        };
        let Some(id) = self.view().subvolume_at(at)? else {
            return Err(Error::Invalid("no subvolume"));
        };
        self.remove_subvolume(dir, (name, entry), id, time, busy)
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Makes an empty subvolume and its name, in one step: the attributes are those of its root
    /// directory and of the directory that it hangs in.
    pub fn create_subvolume(&self, new: &NewSubvolume<'_>) -> Result<Done<Created>> {
        dir::check_name(new.name)?;
        xattr::check_new(new.root.xattrs)?;
        self.update(Cost::subvolume(new.root.xattrs.len()), |txn| {
            txn.create_subvolume(new)
        })
    }

    /// Deletes a subvolume by its name, whatever it holds: from now on it is being dropped, and
    /// [`Volume::drop_step`] gives its space back. `Busy` for the default subvolume and for one with
    /// an active swapfile, `NotEmpty` while others hang in it, `Invalid` when the name is not one of
    /// a subvolume. The value has the root directory, as after `rmdir`.
    pub fn delete_subvolume(
        &self,
        dir: InodeId,
        name: &[u8],
        time: Time,
    ) -> Result<Done<Unlinked>> {
        dir::check_name(name)?;
        let mut busy = None;
        let result = self.update(DELETE, |txn| {
            txn.delete_subvolume(dir, name, time, &mut busy)
        });
        self.log_busy(busy, "its subvolume cannot be deleted");
        result
    }

    /// Says which active swapfile was in the way.
    pub(super) fn log_busy(&self, file: Option<InodeId>, what: &str) {
        let Some(file) = file else { return };
        let device = self.store.dev.name();
        match self.path(file) {
            Ok(path) => {
                let path = Shown(&path);
                log(format_args!(
                    "({device}): swapfile {path} is active: {what}"
                ));
            }
            Err(_) => log(format_args!(
                "({device}): swapfile {file} is active: {what}"
            )),
        }
    }

    /// What is known of a subvolume, also of one that is being dropped.
    pub fn subvolume(&self, id: SubvolId) -> Result<SubvolInfo> {
        let item = self.query(|view| view.forest_item(id))?;
        item.map(|item| SubvolInfo::new(id, &item))
            .ok_or(Error::NotFound)
    }

    /// The first subvolume from number `from` on, also one that is being dropped.
    pub fn next_subvolume(&self, from: SubvolId) -> Result<Option<SubvolInfo>> {
        let found = self.query(|view| view.next_forest_item(from))?;
        Ok(found.map(|(id, item)| SubvolInfo::new(id, &item)))
    }

    /// The next subvolume that is being dropped, from `from` on.
    pub fn next_dropping(&self, from: SubvolId) -> Result<Option<SubvolId>> {
        let mut from = from;
        while let Some(info) = self.next_subvolume(from)? {
            if info.dropping {
                return Ok(Some(info.id));
            }
            from = SubvolId(info.id.0.saturating_add(1));
        }
        Ok(None)
    }

    /// Makes a subvolume read-only, or writable. `Busy` while a swapfile in it is active: swapoff
    /// opens the file for writing.
    pub fn set_subvolume_read_only(&self, id: SubvolId, read_only: bool) -> Result<Done<()>> {
        let mut busy = None;
        let result = self.update(Cost::SMALL, |txn| {
            txn.view().check_live(id)?;
            txn.open(id)?;
            busy = txn.state.active_swapfile(id).filter(|_| read_only);
            if busy.is_some() {
                return Err(Error::Busy);
            }
            let item = &mut txn.subvol_mut(id)?.item;
            let others = item.flags.get() & !subvolume_flag::READ_ONLY;
            item.flags = match read_only {
                true => others | subvolume_flag::READ_ONLY,
                false => others,
            }
            .into();
            Ok(())
        });
        self.log_busy(busy, "its subvolume cannot become read-only");
        result
    }

    /// Makes a subvolume the one that a mount without a choice shows.
    pub fn set_default_subvolume(&self, id: SubvolId) -> Result<Done<()>> {
        self.update(Cost::SMALL, |txn| {
            txn.view().check_live(id)?;
            txn.state.changes += 1;
            super_block::parse_mut(&mut txn.state.super_block)?.default_subvolume = id.0.into();
            Ok(())
        })
    }
}
