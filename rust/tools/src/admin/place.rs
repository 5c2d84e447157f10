// SPDX-License-Identifier: GPL-2.0

//! Paths on mounted volumes: opening them, and saying in words what the kernel answers in numbers.

use crate::engine::format::STATFS_MAGIC;
use crate::engine::path::Shown;
use crate::engine::types::{MAX_INO, ROOT_INO};
use oxfs_user::uapi::{self, SubvolInfo, SwapStatus};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zerocopy::FromZeros;

/// The result of a command; an error is what the user reads.
pub type Result<T> = std::result::Result<T, String>;

/// A file or directory of a mounted volume, open for reading.
#[derive(Debug)]
pub struct Place {
    /// The open file.
    pub file: File,
    /// As the user wrote it.
    pub path: PathBuf,
}

impl Place {
    /// Opens `path`, which must be on an oxfs volume.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let file = File::open(path).map_err(|error| format!("{name}: {error}"))?;
        let stat = rustix::fs::fstatfs(&file).map_err(|error| format!("{name}: {error}"))?;
        if stat.f_type as u64 != u64::from(STATFS_MAGIC) {
            return Err(format!(
                "{name} is not on a mounted oxfs volume (findmnt -t oxfs lists these)"
            ));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Opens the root directory of a subvolume.
    pub fn open_subvolume(path: &Path) -> Result<Self> {
        let place = Self::open(path)?;
        let meta = place
            .file
            .metadata()
            .map_err(|error| place.error(error, "stat"))?;
        if meta.is_dir() && meta.ino() & MAX_INO.0 == ROOT_INO.0 {
            return Ok(place);
        }
        Err(format!(
            "{} is not a subvolume; `oxfs subvolume list {}` lists them",
            path.display(),
            path.display()
        ))
    }

    /// What `error` means here, after `doing` something.
    pub fn error(&self, error: io::Error, doing: &str) -> String {
        let name = self.path.display();
        let code = error.raw_os_error().map(Errno::from_raw_os_error);
        let why = match code {
            Some(Errno::NOTTY) => {
                "the loaded oxfs module does not know this request: is it older than this program?"
            }
            Some(Errno::PERM) | Some(Errno::ACCESS) => {
                "not permitted: this is for root, or for the owner"
            }
            Some(Errno::ROFS) => {
                "read-only: the mount, the subvolume (oxfs property set PATH ro false), or the volume after \
                 damage (see dmesg)"
            }
            Some(Errno::NOSPC) => {
                "no space left; `oxfs filesystem usage` tells what for, old snapshots may hold much"
            }
            Some(Errno::EXIST) => "something is there already: choose another name",
            Some(Errno::XDEV) => "source and destination are on two volumes",
            Some(Errno::NAMETOOLONG) => "the name is longer than 255 bytes",
            Some(Errno::MFILE) | Some(Errno::MLINK) => "the volume has as many subvolumes as it can",
            _ => return format!("{name}: {doing}: {error}"),
        };
        format!("{name}: {doing}: {why}")
    }

    /// What the kernel says of a subvolume; `None` if there is no such one.
    pub fn info(&self, id: u64, flags: u64) -> Result<Option<Box<SubvolInfo>>> {
        let mut info = Box::new(SubvolInfo::new_zeroed());
        info.id = id;
        info.flags = flags;
        match oxfs_user::subvol_info(&self.file, &mut info) {
            Ok(()) => Ok(Some(info)),
            Err(error) if is(&error, Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error(error, "reading subvolumes")),
        }
    }

    /// The subvolume that this is in.
    pub fn own_info(&self) -> Result<Box<SubvolInfo>> {
        self.info(0, uapi::INFO_OF_FILE)?
            .ok_or_else(|| format!("{} is in a deleted subvolume", self.path.display()))
    }

    /// All subvolumes of the volume, those that are being dropped too.
    pub fn subvolumes(&self) -> Result<Vec<SubvolInfo>> {
        let mut all = Vec::new();
        let mut from = 0;
        while let Some(info) = self.info(from, uapi::INFO_NEXT)? {
            all.push(*info);
            let Some(next) = info.id.checked_add(1) else {
                break;
            };
            from = next;
        }
        Ok(all)
    }

    /// All active swapfiles of the volume.
    pub fn swapfiles(&self) -> Result<Vec<SwapStatus>> {
        let mut all = Vec::new();
        let mut from = 0;
        loop {
            let mut status = SwapStatus::new_zeroed();
            status.st_ino = from;
            match oxfs_user::swap_status(&self.file, &mut status) {
                Ok(()) => {}
                Err(error) if is(&error, Errno::NOENT) => return Ok(all),
                Err(error) => return Err(self.error(error, "reading active swapfiles")),
            }
            all.push(status);
            let Some(next) = status.st_ino.checked_add(1) else {
                return Ok(all);
            };
            from = next;
        }
    }
}

/// Whether `error` is `code`.
pub fn is(error: &io::Error, code: Errno) -> bool {
    error.raw_os_error() == Some(code.raw_os_error())
}

/// A path that the kernel gave, for scripts; as people see it if it is no text.
pub fn kernel_path(path: &[u8], len: u32) -> String {
    let path = &path[..path.len().min(len as usize)];
    match std::str::from_utf8(path) {
        Ok(path) => path.into(),
        Err(_) => Shown(path).to_string(),
    }
}

/// A path that the kernel gave, for people: it cannot be taken for anything else.
pub fn shown_path(path: &[u8], len: u32) -> String {
    Shown(&path[..path.len().min(len as usize)]).to_string()
}

/// The directory that holds `path`, and the name there, ended by zeros.
pub fn parent_and_name(path: &Path) -> Result<(PathBuf, [u8; uapi::NAME_SIZE])> {
    use std::os::unix::ffi::OsStrExt;
    let name = path.file_name().ok_or_else(|| {
        format!(
            "{} does not end in a name: give the path that the subvolume has in its directory",
            path.display()
        )
    })?;
    let bytes = name.as_bytes();
    let mut field = [0; uapi::NAME_SIZE];
    match field.get_mut(..bytes.len()) {
        Some(place) if bytes.len() < uapi::NAME_SIZE => place.copy_from_slice(bytes),
        _ => {
            return Err(format!(
                "{}: the name is longer than 255 bytes",
                path.display()
            ))
        }
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((parent, field))
}

/// Where oxfs volumes are mounted, one place for each volume.
pub fn mounted() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    Ok(mounted_in(&mounts))
}

/// The mount points of oxfs in the text of proc_pid_mountinfo(5), the first of each device.
fn mounted_in(mountinfo: &str) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    let mut places = Vec::new();
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = fields.iter().skip_while(|field| **field != "-").nth(1);
        if let (Some(&"oxfs"), Some(device), Some(at)) = (kind, fields.get(2), fields.get(4)) {
            if !seen.contains(device) {
                seen.push(*device);
                places.push(PathBuf::from(unescape(at)));
            }
        }
    }
    places
}

/// Undoes the octal escapes of the kernel's mount tables.
pub fn unescape(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 4).filter(|_| byte == b'\\');
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                out.push(code);
                at += 4;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let text = "\
22 28 0:21 / /proc rw,nosuid - proc proc rw
30 28 254:0 / /mnt/my\\040disk rw,relatime shared:1 - oxfs /dev/vda rw,subvol=/
31 28 254:0 /a /srv rw,relatime - oxfs /dev/vda rw,subvol=/a
32 28 254:16 / / rw - oxfs /dev/vdb rw";
        let found: Vec<_> = mounted_in(text);
        assert_eq!(found, [PathBuf::from("/mnt/my disk"), PathBuf::from("/")]);
    }

    #[test]
    fn names() {
        let (parent, name) = parent_and_name(Path::new("/mnt/a/b/")).expect("name");
        assert_eq!((parent, &name[..2]), (PathBuf::from("/mnt/a"), &b"b\0"[..]));
        let (parent, _) = parent_and_name(Path::new("b")).expect("name");
        assert_eq!(parent, PathBuf::from("."));
        for wrong in ["/", ".", "a/.."] {
            assert!(parent_and_name(Path::new(wrong)).is_err(), "{wrong}");
        }
        assert!(parent_and_name(Path::new(&"x".repeat(256))).is_err());
        assert!(parent_and_name(Path::new(&"x".repeat(255))).is_ok());
    }
}
