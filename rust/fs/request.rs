// SPDX-License-Identifier: GPL-2.0

//! The filesystem's own ioctls, see [`crate::uapi`]: subvolumes, and what administrators ask for.

use super::barrier::{self, Request};
use super::errno::to_errno;
use super::inode::apply;
use super::namei::{changed, stamped, sync_if_asked, Origin};
use super::super_block::State;
use super::{subvolume, Inode, InodeExt, Oxfs, SuperBlock};
use crate::engine;
use crate::engine::subvolume::{root_of, NewSubvolume};
use crate::engine::types::{InodeId, SubvolId, MAX_NAME, MAX_SUBVOL};
use crate::platform::random_u64;
use crate::uapi;
use crate::vfs::dir_change::LockedName;
use crate::vfs::file::OpenFile;
use crate::vfs::inode::Fresh;
use crate::vfs::ioctl::admin;
use core::marker::PhantomData;
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Answers `command`.
pub fn request(file: &OpenFile<Oxfs>, command: u32, argument: UserPtr) -> Result {
    match command {
        uapi::SUBVOL_CREATE => exchange(argument, |what| create(file, what)),
        uapi::SUBVOL_DELETE => delete(file, Exchange::read(argument)?.get()?),
        uapi::SUBVOL_INFO => exchange(argument, |what| info(file, what)),
        uapi::SUBVOL_SET_FLAGS => set_flags(file, Exchange::read(argument)?.get()?),
        uapi::SUBVOL_SET_DEFAULT => set_default(file, Exchange::read(argument)?.get()?),
        uapi::SWAP_STATUS => exchange(argument, |what| swap_status(file, what)),
        uapi::RESIZE => exchange(argument, |what| super::resize::resize(file, what)),
        uapi::USAGE => {
            let mut usage = Exchange::blank(argument)?;
            self::usage(file, usage.get()?)?;
            usage.write()
        }
        _ => Err(ENOTTY),
    }
}

/// A structure that comes from the user, and may go back. Some are too large for the stack.
struct Exchange<T> {
    bytes: KVec<u8>,
    argument: UserPtr,
    _type: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable> Exchange<T> {
    /// Zeros, to be filled in.
    fn blank(argument: UserPtr) -> Result<Self> {
        Ok(Self {
            bytes: KVec::from_elem(0, core::mem::size_of::<T>(), GFP_KERNEL)?,
            argument,
            _type: PhantomData,
        })
    }

    fn read(argument: UserPtr) -> Result<Self> {
        let mut this = Self::blank(argument)?;
        UserSlice::new(argument, this.bytes.len())
            .reader()
            .read_slice(&mut this.bytes)?;
        Ok(this)
    }

    /// Memory of this size is aligned to more than any of the structures.
    fn get(&mut self) -> Result<&mut T> {
        T::mut_from_bytes(&mut self.bytes).map_err(|_| EINVAL)
    }

    fn write(&self) -> Result {
        UserSlice::new(self.argument, self.bytes.len())
            .writer()
            .write_slice(&self.bytes)
    }
}

/// Has `answer` change the user's structure. Not inlined, so that each request has its own stack frame.
#[inline(never)]
fn exchange<T: FromBytes + IntoBytes + KnownLayout + Immutable>(
    argument: UserPtr,
    answer: impl FnOnce(&mut T) -> Result,
) -> Result {
    let mut exchange = Exchange::read(argument)?;
    answer(exchange.get()?)?;
    exchange.write()
}

/// What has no meaning yet is not set.
pub(super) fn check_unused(flags: u64, reserved: &[u64]) -> Result {
    match flags == 0 && reserved.iter().all(|word| *word == 0) {
        true => Ok(()),
        false => Err(EINVAL),
    }
}

/// A name that ends with a zero byte. What may be in it is for the VFS to say.
fn name_of(field: &[u8; uapi::NAME_SIZE]) -> Result<&[u8]> {
    let name = CStr::from_bytes_until_nul(field).map_err(|_| ENAMETOOLONG)?;
    match name.to_bytes() {
        b"" | b"." | b".." => Err(EINVAL),
        name if name.contains(&b'/') => Err(EINVAL),
        name if name.len() > MAX_NAME => Err(ENAMETOOLONG),
        name => Ok(name),
    }
}

fn new_uuid() -> [u8; 16] {
    let mut uuid = [0; 16];
    for half in uuid.chunks_exact_mut(8) {
        half.copy_from_slice(&random_u64().to_ne_bytes());
    }
    // Version 4, random; variant 1.
    uuid[6] = (uuid[6] & 0x0f) | 0x40;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

fn is_subvolume(inode: &Inode) -> bool {
    let id = inode.data().id;
    id == root_of(id.subvol)
}

fn create(file: &OpenFile<Oxfs>, what: &mut uapi::SubvolCreate) -> Result {
    check_unused(what.flags & !uapi::SUBVOL_READ_ONLY, &what.reserved)?;
    let name = name_of(&what.name)?;
    let read_only = what.flags & uapi::SUBVOL_READ_ONLY != 0;
    let id = match (what.source_fd, read_only) {
        (-1, false) => create_empty(file, name)?,
        // It would stay empty.
        (-1, true) => return Err(EINVAL),
        (source, _) => snapshot(file, source, name, read_only)?,
    };
    what.id = id.0;
    announce(file, name);
    Ok(())
}

/// Shows a new name to those who watch the directory.
fn announce(file: &OpenFile<Oxfs>, name: &[u8]) {
    // It is made, whether or not it can be looked up.
    if let Ok(name) = LockedName::any(file, name) {
        name.announce();
    }
}

fn create_empty(file: &OpenFile<Oxfs>, name: &[u8]) -> Result<SubvolId> {
    let access = file.write_access()?;
    let place = LockedName::to_make(&access, name)?;
    let (dir, sb) = (place.dir(), file.inode().super_block());
    let mode = u32::from(engine::types::FileType::Directory as u8) << 12 | 0o777;
    let fresh = Fresh::new(sb)?;
    let place_of = (dir, Some(place.dentry()));
    let origin = Origin::new(&fresh, file.id_map(), None, place_of, mode)?;
    let xattrs = origin.xattrs()?;
    let made = stamped([Some(dir)], |time| {
        let new = NewSubvolume {
            dir: dir.data().id,
            name,
            root: origin.inode(&xattrs, time),
            uuid: new_uuid(),
        };
        sb.data().join(sb, |volume| volume.create_subvolume(&new))
    })?;
    changed(dir, &made.value.dir, made.generation);
    file.forget_name(name)?;
    drop(place);
    file.inode().sync_changes()?;
    Ok(made.value.id.subvol)
}

fn snapshot(file: &OpenFile<Oxfs>, fd: i64, name: &[u8], read_only: bool) -> Result<SubvolId> {
    admin()?;
    let source = file.other(fd)?;
    if !is_subvolume(source.inode()) {
        return Err(EINVAL);
    }
    // What is allowed now is done soon; the engine looks again whether it is possible.
    drop(LockedName::to_make(&file.write_access()?, name)?);
    let mut owned = KVec::new();
    owned.extend_from_slice(name, GFP_KERNEL)?;
    let (dir, sb) = (file.inode(), file.inode().super_block());
    let done = ask(
        file,
        Request::Snapshot {
            source: source.inode().data().id.subvol,
            dir: dir.data().id,
            name: owned,
            read_only,
            uuid: new_uuid(),
            time: super::attr::to_engine(dir.now()),
        },
    )?;
    {
        let _lock = dir.lock_exclusive();
        if let Some(attr) = &done.dir {
            apply(dir, attr);
        }
        file.forget_name(name)?;
    }
    finish_orphans(sb, &done);
    Ok(done.subvol)
}

/// Frees the files without a name that a snapshot took over: in it nobody has them open. What is
/// not freed now is freed at the next mount.
fn finish_orphans(sb: &SuperBlock, done: &barrier::Done) {
    // Deleted already, it goes as a whole; and it is not to go meanwhile.
    let Ok(member) = sb.data().enter(done.subvol) else {
        return;
    };
    for ino in &done.orphans {
        let id = InodeId {
            subvol: done.subvol,
            ino: *ino,
        };
        let _ = sb.data().finish_orphan(sb, id);
    }
    if member.leave() {
        sb.wake_background();
    }
}

/// Has a request answered while all writers are stopped.
pub(super) fn ask(file: &OpenFile<Oxfs>, request: Request) -> Result<barrier::Done> {
    let state = file.inode().super_block().data();
    state.barrier().ask(file, request)?.map_err(to_errno)
}

fn delete(file: &OpenFile<Oxfs>, what: &uapi::SubvolDelete) -> Result {
    check_unused(what.flags, &what.reserved)?;
    let name = name_of(&what.name)?;
    admin()?;
    let access = file.write_access()?;
    let place = LockedName::to_remove(&access, name)?;
    let id = match place.inode() {
        Some(inode) if is_subvolume(inode) => inode.data().id.subvol,
        _ => return Err(EINVAL),
    };
    let sb = file.inode().super_block();
    place.remove(|dir, root| {
        let done = stamped([Some(dir), Some(root)], |time| {
            sb.data().join(sb, |volume| {
                volume.delete_subvolume(dir.data().id, name, time)
            })
        })?;
        changed(dir, &done.value.dir, done.generation);
        changed(root, &done.value.target, done.generation);
        sb.data().subvolumes().set_deleted(id);
        Ok(())
    })?;
    subvolume::abandon(sb, id);
    sync_if_asked(file.inode())
}

fn set_flags(file: &OpenFile<Oxfs>, what: &uapi::SubvolSetFlags) -> Result {
    check_unused(what.flags & !uapi::SUBVOL_READ_ONLY, &what.reserved)?;
    let root = file.inode();
    if !is_subvolume(root) {
        return Err(EINVAL);
    }
    admin()?;
    drop(file.write_access()?);
    let read_only = what.flags & uapi::SUBVOL_READ_ONLY != 0;
    let id = root.data().id.subvol;
    ask(file, Request::SetReadOnly(id, read_only)).map(drop)
}

fn set_default(file: &OpenFile<Oxfs>, what: &uapi::SubvolSetDefault) -> Result {
    check_unused(0, &what.reserved)?;
    admin()?;
    let id = known(what.id)?;
    let _access = file.write_access()?;
    let sb = file.inode().super_block();
    let done = sb
        .data()
        .join(sb, |volume| volume.set_default_subvolume(id))?;
    sb.data()
        .query(|volume| volume.sync_to(done.generation).map(drop))
}

/// A number that a subvolume may have.
fn known(id: u64) -> Result<SubvolId> {
    match SubvolId(id) {
        id if id <= MAX_SUBVOL => Ok(id),
        _ => Err(ENOENT),
    }
}

fn info(file: &OpenFile<Oxfs>, what: &mut uapi::SubvolInfo) -> Result {
    check_unused(u64::from(what.pad | what.pad2), &what.reserved)?;
    let state = file.inode().super_block().data();
    let own = file.inode().data().id.subvol;
    let found = match what.flags {
        uapi::INFO_OF_FILE => state.query(|volume| volume.subvolume(own))?,
        0 => {
            admin()?;
            let id = known(what.id)?;
            state.query(|volume| volume.subvolume(id))?
        }
        uapi::INFO_NEXT => {
            admin()?;
            let from = known(what.id)?;
            state
                .query(|volume| volume.next_subvolume(from))?
                .ok_or(ENOENT)?
        }
        _ => return Err(EINVAL),
    };
    let default = state.volume().default_subvolume();
    let bits = [
        (found.read_only, uapi::STATE_READ_ONLY),
        (found.dropping, uapi::STATE_DROPPING),
        (found.id == default, uapi::STATE_DEFAULT),
    ];
    what.id = found.id.0;
    what.state = bits
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, bit)| bit)
        .sum();
    what.home_subvol = found.home.map_or(uapi::NONE, |home| home.subvol.0);
    what.home_ino = found.home.map_or(uapi::NONE, |home| home.ino.0);
    what.source = found.source.map_or(uapi::NONE, |source| source.0);
    what.uuid = found.uuid;
    what.source_uuid = found.source_uuid;
    what.generation = found.generation.0;
    what.created_sec = found.created.sec;
    what.created_nsec = found.created.nsec;
    what.dropped_blocks = match found.dropping {
        true => found.dropped,
        false => uapi::NONE,
    };
    what.path = [0; uapi::PATH_SIZE];
    what.path_len = 0;
    if !found.dropping {
        what.path_len = put_path_of(state, root_of(found.id), &mut what.path)?;
    }
    Ok(())
}

fn usage(file: &OpenFile<Oxfs>, what: &mut uapi::Usage) -> Result {
    let state = file.inode().super_block().data();
    let usage = state.query(|volume| volume.usage())?;
    *what = uapi::Usage {
        block_size: engine::types::BLOCK_SIZE as u64,
        blocks: usage.blocks,
        free: usage.free,
        available: usage.available,
        pinned: usage.pinned,
        reserved_data: usage.reserved,
        metadata_reserve: usage.metadata_reserve,
        metadata_blocks: uapi::NONE,
        swap_blocks: usage.swap,
        subvolumes: usage.subvolumes,
        generation: usage.generation.0,
        reserved: [0; 8],
    };
    Ok(())
}

fn swap_status(file: &OpenFile<Oxfs>, what: &mut uapi::SwapStatus) -> Result {
    admin()?;
    check_unused(0, &what.reserved)?;
    let state = file.inode().super_block().data();
    let (id, status) = state.active_swap().next(what.st_ino).ok_or(ENOENT)?;
    what.st_ino = id.st_ino();
    // The header is not swapped to.
    what.pages = status.pages.saturating_sub(1);
    what.extents = u64::from(status.extents);
    what.new_blocks = status.new_blocks;
    what.kept_blocks = status.kept_blocks;
    what.moved_blocks = status.moved_blocks;
    what.whole = u32::from(status.whole);
    what.first_block = status.first_block;
    what.path = [0; uapi::PATH_SIZE];
    what.path_len = put_path_of(state, id, &mut what.path)?;
    Ok(())
}

/// Puts the path of `id` into a field, and returns its length. What cannot be told is left empty: a path
/// that is too long, or is being changed.
fn put_path_of(state: &State, id: InodeId, field: &mut [u8; uapi::PATH_SIZE]) -> Result<u32> {
    let path = state.query(|volume| volume.path(id));
    match path.and_then(|path| put_path(field, &path)) {
        Err(error) if error == ENOENT || error == ENAMETOOLONG => Ok(0),
        result => result,
    }
}

/// Puts a path and a zero byte into a field, and returns its length.
fn put_path(field: &mut [u8; uapi::PATH_SIZE], path: &[u8]) -> Result<u32> {
    // The last byte stays zero.
    let room = field
        .get_mut(..path.len())
        .filter(|room| room.len() < uapi::PATH_SIZE)
        .ok_or(ENAMETOOLONG)?;
    room.copy_from_slice(path);
    Ok(u32::try_from(path.len())?)
}
