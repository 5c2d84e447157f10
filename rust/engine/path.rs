// SPDX-License-Identifier: GPL-2.0

//! The way from the top level to an inode, for people to read: in lists and in log lines.

use super::device::BlockDevice;
use super::dir::{self, Name};
use super::error::{Error, Result};
use super::format::item_kind;
use super::node::Key;
use super::tree::{TreeId, View};
use super::types::{BlockNr, InodeId, SubvolId, ROOT_INO};
use super::volume::Volume;
use crate::platform::{Vec, VecExt};
use core::fmt::{self, Write};

/// Longest path, in bytes. It also ends the walk on a damaged volume where parents go round in a
/// circle.
const MAX_PATH: usize = 4095;

/// Bytes of a path or name for people: in one line, whatever they are, with what is no text as an octal
/// number, as in `/proc/mounts`.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octal = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "\\{byte:03o}"))
        };
        for piece in self.0.utf8_chunks() {
            for c in piece.valid().chars() {
                match c.is_control() || c == '\\' {
                    true => octal(f, c.encode_utf8(&mut [0; 4]).as_bytes())?,
                    false => f.write_char(c)?,
                }
            }
            octal(f, piece.invalid())?;
        }
        Ok(())
    }
}

/// Whether the way up from `from` leads to `goal`. Ends on a damaged volume too: a way that goes
/// round in a circle, against `rule`, is found by keeping an older place to compare with (Brent, 1980).
pub(super) fn leads_up_to<T: Copy + PartialEq>(
    from: T,
    goal: T,
    up: impl Fn(T) -> Result<Option<T>>,
    rule: &'static str,
) -> Result<bool> {
    let (mut at, mut kept) = (from, from);
    let (mut steps, mut keep_at) = (0u64, 1u64);
    while at != goal {
        at = match up(at)? {
            Some(above) if above != kept => above,
            Some(_) => return Err(Error::corrupt(BlockNr(0), rule)),
            None => return Ok(false),
        };
        steps = steps.saturating_add(1);
        if steps == keep_at {
            (kept, steps, keep_at) = (at, 0, keep_at.saturating_mul(2));
        }
    }
    Ok(true)
}

impl<D: BlockDevice> View<'_, D> {
    /// The first of the names of an inode, and its directory.
    fn name_of(self, id: InodeId) -> Result<(InodeId, Name)> {
        let tree = TreeId::Subvol(id.subvol);
        let first = Key::new(id.ino.0, item_kind::PARENT, 0);
        let last = Key {
            offset: u64::MAX,
            ..first
        };
        let parent = self.first(tree, &first, &last, |_, data| dir::decode_parent(data))?;
        let (dir, cookie) = parent.ok_or(Error::NotFound)?;
        let key = Key::new(dir.0, item_kind::DIRENT, cookie);
        let name = self.get(tree, &key, |data| Ok(Name::new(dir::decode(&key, data)?.1)))?;
        let name = name.flatten().ok_or(Error::NotFound)?;
        Ok((InodeId { ino: dir, ..id }, name))
    }

    /// Adds the way to `id` from its subvolume's root to `path`, back to front, and says where the
    /// subvolume hangs.
    fn climb(self, mut id: InodeId, path: &mut Vec<u8>) -> Result<Option<InodeId>> {
        while id.ino != ROOT_INO {
            let (dir, name) = self.name_of(id)?;
            if path.len() + 1 + name.len() > MAX_PATH {
                return Err(Error::NameTooLong);
            }
            if !path.is_empty() {
                path.try_push(b'/')?;
            }
            for byte in name.iter().rev() {
                path.try_push(*byte)?;
            }
            id = dir;
        }
        match id.subvol {
            SubvolId(0) => Ok(None),
            subvol => self.home(subvol)?.ok_or(Error::NotFound).map(Some),
        }
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Where `id` is, from the top level on, without a leading slash; the first of several names.
    /// `NotFound` when it has no name, or is in a subvolume that was deleted.
    pub fn path(&self, id: InodeId) -> Result<Vec<u8>> {
        let mut path = Vec::new();
        let mut at = Some(id);
        while let Some(id) = at {
            self.open_subvolume(id.subvol)?;
            at = self.query(|view| view.climb(id, &mut path))?;
        }
        path.reverse();
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::Shown;

    #[test]
    fn a_name_cannot_forge_a_line() {
        let shown = Shown(b"a\noxfs: \xff\x1b\\\xc3\xa4").to_string();
        assert_eq!(shown, "a\\012oxfs: \\377\\033\\134\u{e4}");
    }
}
