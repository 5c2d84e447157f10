// SPDX-License-Identifier: GPL-2.0

//! `oxfs filesystem`.

use super::options::Filesystem;
use super::output::{fields, parse_size, size, Answer};
use super::place::{Place, Result};
use crate::engine::super_block;
use crate::file::{Access, FileDevice};
use oxfs_user::uapi::NONE;
use oxfs_user::LABEL_SIZE;
use rustix::io::Errno;
use serde_json::{json, Map, Value};
use std::path::Path;
use std::str::FromStr;

/// Runs `oxfs filesystem`.
pub fn run(command: &Filesystem) -> Result<Answer> {
    match command {
        Filesystem::Usage { path } => usage(path),
        Filesystem::Resize { size, path } => resize(path, *size),
        Filesystem::Trim { minimum, path } => trim(path, *minimum),
        Filesystem::Label { path, label: None } => label(path),
        Filesystem::Label {
            path,
            label: Some(label),
        } => set_label(path, label),
    }
}

fn usage(path: &Path) -> Result<Answer> {
    let place = Place::open(path)?;
    let usage = oxfs_user::usage(&place.file)
        .map_err(|error| place.error(error, "cannot read the usage"))?;
    let spaces = [
        ("size", "Device size", usage.blocks),
        ("free", "Free", usage.free),
        ("available", "Available to data", usage.available),
        ("pinned", "Back with the next commit", usage.pinned),
        (
            "reserved_data",
            "Promised to unwritten data",
            usage.reserved_data,
        ),
        (
            "metadata_reserve",
            "Kept for metadata",
            usage.metadata_reserve,
        ),
        ("metadata", "Metadata", usage.metadata_blocks),
        ("swap", "Private to swapfiles", usage.swap_blocks),
    ];
    let counts = [
        ("subvolumes", "Subvolumes", usage.subvolumes),
        ("generation", "Generation", usage.generation),
    ];
    // What is not known cheaply is not shown to people, and null for scripts.
    let bytes = |blocks: u64| (blocks != NONE).then(|| blocks.saturating_mul(usage.block_size));
    let mut json = Map::new();
    let mut rows = Vec::new();
    for (key, name, blocks) in spaces {
        json.insert(key.into(), bytes(blocks).into());
        rows.extend(bytes(blocks).map(|bytes| (name, size(bytes))));
    }
    for (key, name, count) in counts {
        let count = (count != NONE).then_some(count);
        json.insert(key.into(), count.into());
        rows.extend(count.map(|count| (name, count.to_string())));
    }
    json.insert("block_size".into(), usage.block_size.into());
    Ok(Answer {
        text: fields(&rows),
        json: Value::Object(json),
    })
}

/// A size to resize to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSize {
    /// All of the device.
    Max,
    /// So many bytes.
    Exactly(u64),
    /// So many bytes more.
    More(u64),
    /// So many bytes less.
    Less(u64),
}

impl FromStr for NewSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(size), _) => parse_size(size).map(Self::More),
            (_, Some(size)) => parse_size(size).map(Self::Less),
            _ => parse_size(text).map(Self::Exactly),
        }
    }
}

impl NewSize {
    /// The bytes of a volume of `now` bytes when it has this size; `None` if there is no such number.
    fn of(self, now: u64) -> Option<u64> {
        match self {
            Self::Max => Some(NONE),
            Self::Exactly(size) => Some(size),
            Self::More(size) => now.checked_add(size),
            Self::Less(size) => now.checked_sub(size),
        }
    }
}

fn resize(path: &Path, new: NewSize) -> Result<Answer> {
    let place = Place::open(path)?;
    let usage = oxfs_user::usage(&place.file)
        .map_err(|error| place.error(error, "cannot read the size"))?;
    let now = usage.blocks.saturating_mul(usage.block_size);
    let wanted = new
        .of(now)
        .ok_or_else(|| format!("{}: the volume has {}", path.display(), size(now)))?;
    let got = oxfs_user::resize(&place.file, wanted).map_err(|error| {
        let why = [
            (Errno::FBIG, "the device is smaller than that"),
            (Errno::INVAL, "a volume has 16 MiB or more"),
            (Errno::NOSPC, "what is in use has no room in that size"),
            (
                Errno::BUSY,
                "an active swapfile is in the way, which the kernel's log names: swapoff it first",
            ),
            (Errno::INPROGRESS, "it is being resized already"),
            (Errno::INTR, "ended early, it has the size that it had"),
        ];
        match why
            .iter()
            .find(|(errno, _)| super::place::is(&error, *errno))
        {
            Some((_, why)) => format!("{}: {why}", path.display()),
            None => place.error(error, "cannot resize"),
        }
    })?;
    Ok(Answer {
        json: json!({ "before": now, "size": got }),
        text: format!(
            "{}: {} now, {} before\n",
            path.display(),
            size(got),
            size(now)
        ),
    })
}

fn trim(path: &Path, minimum: u64) -> Result<Answer> {
    let place = Place::open(path)?;
    let trimmed =
        oxfs_user::trim(&place.file, minimum).map_err(|error| {
            match super::place::is(&error, rustix::io::Errno::OPNOTSUPP) {
                true => format!("{}: the device has no discard", path.display()),
                false => place.error(error, "cannot trim"),
            }
        })?;
    Ok(Answer {
        json: json!({ "trimmed": trimmed }),
        text: format!("{}: {} trimmed\n", path.display(), size(trimmed)),
    })
}

/// Up to the first zero byte.
fn text_of(label: &[u8]) -> String {
    let end = label.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&label[..end.unwrap_or(label.len())]).into_owned()
}

/// A device or an image is read without the kernel.
fn label_of_device(path: &Path) -> Option<String> {
    let device = FileDevice::open(path, Access::Read).ok()?;
    let (block, _) = super_block::read_newest(&device, true).ok()?;
    let sb = super_block::parse(&block).ok()?;
    Some(text_of(&sb.label))
}

fn label(path: &Path) -> Result<Answer> {
    let label = match label_of_device(path) {
        Some(label) => label,
        None => {
            let place = Place::open(path)?;
            let label = oxfs_user::label(&place.file)
                .map_err(|error| place.error(error, "cannot read the label"))?;
            text_of(&label)
        }
    };
    Ok(Answer {
        text: format!("{label}\n"),
        json: json!({ "label": label }),
    })
}

fn set_label(path: &Path, label: &str) -> Result<Answer> {
    let mut field = [0; LABEL_SIZE];
    match field.get_mut(..label.len()) {
        Some(place) if label.len() < LABEL_SIZE => place.copy_from_slice(label.as_bytes()),
        _ => return Err("the label is longer than 255 bytes".into()),
    }
    if label.contains('\0') {
        return Err("a label has no zero byte".into());
    }
    let place = Place::open(path)?;
    oxfs_user::set_label(&place.file, field)
        .map_err(|error| place.error(error, "cannot set the label"))?;
    Ok(Answer {
        json: json!({ "label": label }),
        text: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_sizes() {
        let of = |text: &str, now| text.parse::<NewSize>().map(|new| new.of(now));
        assert_eq!(of("max", 5), Ok(Some(NONE)));
        assert_eq!(of("1G", 5), Ok(Some(1 << 30)));
        assert_eq!(of("+1K", 5), Ok(Some(1029)));
        assert_eq!(of("-1K", 2048), Ok(Some(1024)));
        assert_eq!(of("-1K", 5), Ok(None));
        for wrong in ["", "+", "-", "+-1", "maximum", "1:1G", "cancel", "1.5G"] {
            assert!(of(wrong, 5).is_err(), "{wrong}");
        }
    }
}
