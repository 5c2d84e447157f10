// SPDX-License-Identifier: GPL-2.0

//! Mounting, remounting, and the options of both.
//!
//! | option | meaning |
//! |---|---|
//! | `commit=SECONDS` | at most this long between a change and its commit, 1 to 3600; 0: the default, 5 |
//! | `subvol=PATH` | mount this subvolume, by its path from the top level |
//! | `subvolid=NUMBER` | mount this subvolume; with both options, they must agree |
//!
//! Without the last two the default subvolume is mounted. The root of the super block is always the
//! top level; a mount begins where the way from there to the subvolume ends. Several mounts of a
//! device share the super block, and each has the subvolume that it asked for; a remount cannot
//! change it, and ignores these options, which programs copy from `/proc/mounts`.

use super::device::Device;
use super::errno::to_errno;
use super::super_block::State;
use super::{inode, Inode, Oxfs, SuperBlock, Volume};
use crate::engine::mount::MountOptions;
use crate::engine::subvolume::{root_of, TOP};
use crate::engine::types::SubvolId;
use crate::engine::Error;
use crate::vfs::fc::ContextOperations;
use crate::vfs::super_block::NewSuper;
use crate::vfs::{log, nofs};
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// Mount options.
pub struct Options {
    /// Seconds between commits.
    pub commit: u32,
    /// The path of the subvolume to mount.
    subvol: Option<KVVec<u8>>,
    /// Its number.
    subvolid: Option<SubvolId>,
}

impl Options {
    /// Seconds between commits when nothing is said.
    pub const COMMIT: u32 = 5;
    const MAX_COMMIT: u32 = 3600;

    /// Milliseconds between commits.
    pub fn commit_ms(&self) -> u32 {
        self.commit.saturating_mul(1000)
    }

    /// The options with `ms` milliseconds between commits.
    pub fn from_commit_ms(ms: u32) -> Self {
        Self {
            commit: ms / 1000,
            subvol: None,
            subvolid: None,
        }
    }
}

/// How the filesystem is mounted.
pub struct Context;

#[vtable]
impl ContextOperations<Oxfs> for Context {
    fn options(current: Option<&SuperBlock>) -> Result<Options> {
        let default = Options::from_commit_ms(Options::COMMIT * 1000);
        Ok(current.map_or(default, |sb| sb.data().options()))
    }

    fn parse(options: &mut Options, key: &CStr, value: Option<&CStr>) -> Result {
        match key.to_bytes() {
            b"commit" => {
                let seconds = value.and_then(|value| value.to_str().ok()?.parse().ok());
                options.commit = match seconds.ok_or(EINVAL)? {
                    0 => Options::COMMIT,
                    seconds if seconds <= Options::MAX_COMMIT => seconds,
                    _ => return Err(EINVAL),
                };
                Ok(())
            }
            b"subvol" => {
                let mut path = KVVec::new();
                path.extend_from_slice(value.ok_or(EINVAL)?.to_bytes(), GFP_KERNEL)?;
                options.subvol = Some(path);
                Ok(())
            }
            b"subvolid" => {
                let id = value.and_then(|value| value.to_str().ok()?.parse().ok());
                options.subvolid = Some(SubvolId(id.ok_or(EINVAL)?));
                Ok(())
            }
            _ => Err(ENOPARAM),
        }
    }

    fn fill_super(sb: &NewSuper<Oxfs>, options: &Options) -> Result<State> {
        let name = sb.id();
        let volume = open(sb).inspect_err(|reason| {
            if *reason != Error::NotOxfs || !sb.is_silent() {
                log::error(&name, format_args!("cannot mount: {reason}"));
            }
        });
        let volume = volume.map_err(|reason| match reason {
            Error::Unsupported(_) => EINVAL,
            other => to_errno(other),
        })?;
        sb.set_uuid(&volume.statfs().uuid);
        State::new(volume, name, options)
    }

    fn root(sb: &SuperBlock) -> Result<ARef<Inode>> {
        match inode::get(sb, root_of(TOP)) {
            Ok(root) if root.is_dir() => Ok(root),
            Err(error) if error != ENOENT => Err(error),
            _ => {
                log::error(sb.data().name(), format_args!("there is no root directory"));
                Err(EUCLEAN)
            }
        }
    }

    fn way(sb: &SuperBlock, options: &Options) -> Result<KVVec<u8>> {
        let mut way = KVVec::new();
        if let Some(path) = &options.subvol {
            way.extend_from_slice(path, GFP_KERNEL)?;
            return Ok(way);
        }
        let state = sb.data();
        let default = || state.volume().default_subvolume();
        let id = options.subvolid.unwrap_or_else(default);
        let path = state.query_raw(|volume| volume.path(root_of(id)));
        path.map_err(|reason| {
            state.complain(format_args!("cannot mount subvolume {id}"), reason);
            to_errno(reason)
        })
    }

    fn check_way(root: &Inode, options: &Options) -> Result {
        let id = root.data().id;
        let name = root.super_block().id();
        if id != root_of(id.subvol) {
            log::error(&name, format_args!("cannot mount: {id} is not a subvolume"));
            return Err(EINVAL);
        }
        match options.subvolid {
            // It was renamed while we looked for it, or both options were given.
            Some(wanted) if wanted != id.subvol => {
                log::error(
                    &name,
                    format_args!("cannot mount: subvolume {wanted} is not in that place"),
                );
                Err(EINVAL)
            }
            _ => Ok(()),
        }
    }

    fn mounted(sb: &SuperBlock) -> Result {
        if !sb.is_read_only() {
            writable(sb);
        }
        Ok(())
    }

    fn reconfigure(sb: &SuperBlock, options: &Options, read_only: bool, synced: Result) -> Result {
        let state = sb.data();
        match (sb.is_read_only(), read_only) {
            (false, true) => {
                // A volume that refuses changes anyway can become read-only, whatever was lost.
                if state.volume().fault().is_none() {
                    synced?;
                }
                sb.stop_background();
                state.stop_commits();
                let result = state.query(|volume| volume.remount(true));
                result.inspect_err(|_| {
                    state.start_commits();
                    sb.start_background();
                })?;
            }
            (true, false) => {
                state.query(|volume| volume.remount(false))?;
                writable(sb);
            }
            (false, false) => {
                state.set_options(options);
                state.start_commits();
            }
            (true, true) => {}
        }
        state.set_options(options);
        Ok(())
    }
}

/// Opens the volume on the device of `sb`.
fn open(sb: &NewSuper<Oxfs>) -> Result<Volume, Error> {
    let device = sb.device();
    if kernel::page::PAGE_SIZE != 4096 {
        return Err(Error::Unsupported("pages of another size than 4096 bytes"));
    }
    if device.is_zoned() {
        return Err(Error::Unsupported("a zoned device"));
    }
    let options = MountOptions {
        read_only: sb.is_read_only(),
    };
    let _scope = nofs::Scope::enter();
    Volume::mount(Device::new(device, sb.id()), &options)
}

/// The volume has become writable: goes on where the last user stopped.
fn writable(sb: &SuperBlock) {
    let state = sb.data();
    state.finish_all_orphans(sb);
    state.start_commits();
    sb.start_background();
}
