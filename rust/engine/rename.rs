// SPDX-License-Identifier: GPL-2.0

//! `rename`: moving a name, over another one or not, and exchanging two.

use super::device::BlockDevice;
use super::dir::{self, Entry, Slot};
use super::error::{Error, Result};
use super::inode::{self, NewInode};
use super::namei::{self, adjust_dir, drop_link, live_dir, store_unlinked, target};
use super::path::leads_up_to;
use super::subvolume::root_of;
use super::tree::View;
use super::tree_write::Txn;
use super::types::{Attr, BlockNr, Done, FileType, InodeId, Time, ROOT_INO};
use super::volume::{Cost, Volume};
use crate::platform::{new_box, Box};

/// What happens to a name that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameFlags {
    /// It is replaced.
    Replace,
    /// [`Error::Exists`].
    NoReplace,
    /// The two names are exchanged; both must be there.
    Exchange,
}

/// A request to rename.
#[derive(Debug, Clone, Copy)]
pub struct Rename<'a> {
    /// The directory that the name is in.
    pub old_dir: InodeId,
    /// The name.
    pub old_name: &'a [u8],
    /// The directory that it goes to.
    pub new_dir: InodeId,
    /// The name that it gets.
    pub new_name: &'a [u8],
    /// What happens to a name that is in the way.
    pub flags: RenameFlags,
    /// What gets the old name, not in an exchange.
    pub whiteout: Option<NewInode<'a>>,
    /// Now.
    pub time: Time,
}

/// What `rename` changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renamed {
    /// What moved.
    pub moved: (InodeId, Attr),
    /// What was replaced, and may be an orphan now; or the other one of an exchange.
    pub replaced: Option<(InodeId, Attr)>,
    /// The attributes of the directory that the name was in.
    pub old_dir: Attr,
    /// The attributes of the directory that it is in now.
    pub new_dir: Attr,
}

/// Items touched: four inodes, two entries, four parents, an orphan, and another entry, parent and
/// inode with its attributes.
fn cost_of(what: &Rename<'_>) -> Cost {
    let whiteout = what
        .whiteout
        .map_or(0, |new| new.xattrs.len().saturating_add(3));
    Cost::takes(whiteout.saturating_add(11))
}

/// An entry and its inode.
#[derive(Clone, Copy)]
struct End {
    entry: Entry,
    id: InodeId,
    attr: Attr,
    /// The root directory of the subvolume that the inode stands for.
    root: Option<(InodeId, Attr)>,
}

impl End {
    fn new<D: BlockDevice>(txn: &mut Txn<'_, D>, dir: InodeId, entry: Entry) -> Result<Self> {
        let (id, attr) = target(txn.view(), dir, entry)?;
        let mut root = None;
        if entry.kind == FileType::Directory {
            if let Some(subvol) = txn.view().subvolume_at(id)? {
                txn.open(subvol)?;
                let top = root_of(subvol);
                root = Some((top, inode::load(txn.view(), top)?));
            }
        }
        Ok(Self {
            entry,
            id,
            attr,
            root,
        })
    }

    /// What the name leads to.
    fn shown(&self) -> (InodeId, Attr) {
        self.root.unwrap_or((self.id, self.attr))
    }

    fn is_dir(&self) -> bool {
        self.entry.kind == FileType::Directory
    }
}

/// Everything that was found out before the first change.
struct Plan {
    moved: End,
    /// What has the new name.
    other: Option<End>,
    /// The cookie that the new name has or gets.
    cookie: u64,
    old_dir: Attr,
    new_dir: Attr,
}

/// Whether `dir` is `ancestor` or below it.
fn is_below<D: BlockDevice>(view: View<'_, D>, dir: InodeId, ancestor: InodeId) -> Result<bool> {
    let up = |at: InodeId| match dir::parent(view, at) {
        _ if at.ino == ROOT_INO => Ok(None),
        Err(Error::NotFound) => {
            let rule = "directory without a parent item";
            Err(Error::corrupt(BlockNr(0), rule))
        }
        parent => parent.map(Some),
    };
    leads_up_to(dir, ancestor, up, "directories that contain each other")
}

/// What the target of a replacing rename must be.
fn check_replaced<D: BlockDevice>(view: View<'_, D>, moved: &End, other: &End) -> Result<()> {
    match (moved.is_dir(), other.is_dir()) {
        (true, false) => Err(Error::NotDirectory),
        (false, true) => Err(Error::IsDirectory),
        // As btrfs has it, also for an empty one.
        (true, true) if other.root.is_some() => Err(Error::NotEmpty),
        (true, true) if !dir::is_empty(view, other.id)? => Err(Error::NotEmpty),
        _ => Ok(()),
    }
}

/// Looks at everything. The plan is large, and what carries it out goes deep: it is not on the stack.
#[inline(never)]
fn plan<D: BlockDevice>(txn: &mut Txn<'_, D>, what: &Rename<'_>) -> Result<Box<Plan>> {
    let old_dir = live_dir(txn.view(), what.old_dir)?;
    let new_dir = live_dir(txn.view(), what.new_dir)?;
    let entry = dir::entry(txn.view(), what.old_dir, what.old_name)?;
    let moved = End::new(txn, what.old_dir, entry)?;
    let (other, cookie) = match dir::find(txn.view(), what.new_dir, what.new_name)? {
        Slot::Found(entry) => (Some(End::new(txn, what.new_dir, entry)?), entry.cookie),
        Slot::Free(cookie) => (None, cookie),
        Slot::Full => return Err(Error::NoSpace),
    };
    let view = txn.view();
    match (what.flags, &other) {
        (RenameFlags::NoReplace, Some(_)) => return Err(Error::Exists),
        (RenameFlags::Exchange, None) => return Err(Error::NotFound),
        (RenameFlags::Replace, Some(other)) if other.id != moved.id => {
            check_replaced(view, &moved, other)?;
        }
        _ => {}
    }
    let into_itself = Error::Invalid("a directory cannot go into itself");
    if what.old_dir.subvol != what.new_dir.subvol {
        let Some((top, _)) = moved.root.filter(|_| what.flags != RenameFlags::Exchange) else {
            return Err(Error::CrossSubvolume);
        };
        if view.hangs_below(what.new_dir.subvol, top.subvol)? {
            return Err(into_itself);
        }
        inode::next(view.state, what.new_dir.subvol)?;
    } else if what.old_dir != what.new_dir {
        if moved.is_dir() && is_below(view, what.new_dir, moved.id)? {
            return Err(into_itself);
        }
        let exchanged = other.filter(|_| what.flags == RenameFlags::Exchange);
        if let Some(other) = exchanged.filter(End::is_dir) {
            if is_below(view, what.old_dir, other.id)? {
                return Err(into_itself);
            }
        }
    }
    if what.whiteout.is_some() {
        inode::next(view.state, what.old_dir.subvol)?;
    }
    Ok(new_box(Plan {
        moved,
        other,
        cookie,
        old_dir,
        new_dir,
    })?)
}

/// Changes the attributes of the two directories, which may be one.
fn adjust_dirs(plan: &mut Plan, what: &Rename<'_>, old: (i32, i64), new: (i32, i64)) -> Result<()> {
    if what.old_dir == what.new_dir {
        let (links, size) = (old.0.saturating_add(new.0), old.1.saturating_add(new.1));
        adjust_dir(&mut plan.old_dir, links, size)?;
        inode::touch(&mut plan.old_dir, what.time);
        plan.new_dir = plan.old_dir;
    } else {
        adjust_dir(&mut plan.old_dir, old.0, old.1)?;
        adjust_dir(&mut plan.new_dir, new.0, new.1)?;
        inode::touch(&mut plan.old_dir, what.time);
        inode::touch(&mut plan.new_dir, what.time);
    }
    Ok(())
}

fn store_dirs<D: BlockDevice>(txn: &mut Txn<'_, D>, what: &Rename<'_>, plan: &Plan) -> Result<()> {
    inode::store(txn, what.old_dir, &plan.old_dir)?;
    if what.old_dir != what.new_dir {
        inode::store(txn, what.new_dir, &plan.new_dir)?;
    }
    Ok(())
}

#[inline(never)]
fn exchange<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    what: &Rename<'_>,
    plan: &mut Plan,
) -> Result<Renamed> {
    let dirs = |end: &End| i32::from(end.is_dir());
    let links = plan.other.as_ref().map_or(0, dirs);
    let links = links.saturating_sub(dirs(&plan.moved));
    adjust_dirs(plan, what, (links, 0), (links.saturating_neg(), 0))?;
    let (moved, Some(other)) = (&mut plan.moved, &mut plan.other) else {
        return Err(Error::NotFound);
    };
    inode::changed(&mut moved.attr, what.time);
    inode::changed(&mut other.attr, what.time);

    dir::remove_parent(txn, what.old_dir, moved.entry)?;
    dir::remove_parent(txn, what.new_dir, other.entry)?;
    let here = Entry {
        cookie: moved.entry.cookie,
        ..other.entry
    };
    let there = Entry {
        cookie: other.entry.cookie,
        ..moved.entry
    };
    dir::put(txn, what.old_dir, here, what.old_name)?;
    dir::put(txn, what.new_dir, there, what.new_name)?;
    inode::store(txn, moved.id, &moved.attr)?;
    inode::store(txn, other.id, &other.attr)?;
    let (moved, replaced) = (moved.shown(), Some(other.shown()));
    store_dirs(txn, what, plan)?;
    Ok(Renamed {
        moved,
        replaced,
        old_dir: plan.old_dir,
        new_dir: plan.new_dir,
    })
}

#[inline(never)]
fn replace<D: BlockDevice>(
    txn: &mut Txn<'_, D>,
    what: &Rename<'_>,
    plan: &mut Plan,
) -> Result<Renamed> {
    let dirs = i32::from(plan.moved.is_dir());
    let old_size = (what.old_name.len() as i64).saturating_neg();
    let new = match &plan.other {
        Some(other) => (dirs.saturating_sub(i32::from(other.is_dir())), 0),
        None => (dirs, what.new_name.len() as i64),
    };
    adjust_dirs(plan, what, (dirs.saturating_neg(), old_size), new)?;
    let moved = &mut plan.moved;
    inode::changed(&mut moved.attr, what.time);

    let mut replaced = None;
    if let Some(other) = &mut plan.other {
        dir::remove_parent(txn, what.new_dir, other.entry)?;
        drop_link(&mut other.attr, other.entry.kind, what.time);
        store_unlinked(txn, other.id, &other.attr)?;
        replaced = Some((other.id, other.attr));
    }
    let mut entry = Entry {
        cookie: plan.cookie,
        ..moved.entry
    };
    match moved
        .root
        .filter(|_| what.old_dir.subvol != what.new_dir.subvol)
    {
        // Another directory stands for it from now on: inode numbers are a subvolume's own.
        Some((top, _)) => {
            let id = inode::allocate(txn, what.new_dir.subvol)?;
            txn.unhang(what.old_dir, moved.entry)?;
            txn.set_home(top.subvol, Some(id))?;
            (moved.id, entry.ino) = (id, id.ino);
        }
        None => dir::remove(txn, what.old_dir, moved.entry)?,
    }
    dir::put(txn, what.new_dir, entry, what.new_name)?;
    inode::store(txn, moved.id, &moved.attr)?;
    let moved = moved.shown();
    store_dirs(txn, what, plan)?;
    Ok(Renamed {
        moved,
        replaced,
        old_dir: plan.old_dir,
        new_dir: plan.new_dir,
    })
}

fn rename<D: BlockDevice>(txn: &mut Txn<'_, D>, what: &Rename<'_>) -> Result<Renamed> {
    let mut plan = plan(txn, what)?;
    let id = plan.moved.id;
    // Two names of one inode: both stay, as rename(2) has it.
    if plan.other.as_ref().is_some_and(|other| other.id == id) {
        return Ok(Renamed {
            moved: plan.moved.shown(),
            replaced: None,
            old_dir: plan.old_dir,
            new_dir: plan.new_dir,
        });
    }
    match what.flags {
        RenameFlags::Exchange => exchange(txn, what, &mut plan),
        _ => {
            let mut renamed = replace(txn, what, &mut plan)?;
            if let Some(new) = &what.whiteout {
                renamed.old_dir = namei::create(txn, what.old_dir, what.old_name, new)?.dir;
                if what.old_dir == what.new_dir {
                    renamed.new_dir = renamed.old_dir;
                }
            }
            Ok(renamed)
        }
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Renames within one subvolume; a subvolume itself may also go into another one. Refuses to move
    /// a directory below itself, and to replace a directory that has entries, or a subvolume.
    pub fn rename(&self, what: &Rename<'_>) -> Result<Done<Box<Renamed>>> {
        dir::check_name(what.old_name)?;
        dir::check_name(what.new_name)?;
        if let Some(new) = &what.whiteout {
            namei::check_new(new)?;
        }
        self.update(cost_of(what), |txn| Ok(new_box(rename(txn, what)?)?))
    }
}
