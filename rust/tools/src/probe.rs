// SPDX-License-Identifier: GPL-2.0

//! Whether a device is in use, and whether it holds something that should not be lost.
//!
//! What is in use: a block device that is mounted or swapped to (also one of its partitions), a
//! file that is behind a loop device. What it holds: `blkid -p` of util-linux knows every common
//! filesystem, RAID, swap and partition table; where it cannot be run, the built-in list speaks.

use crate::engine::format::{Geometry, SuperBlock, SUPER_MAGIC, SUPER_SLOTS};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use zerocopy::FromBytes;

/// Why `path` must not be written to, or what would be lost there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// Mounted, at this place.
    Mounted(String),
    /// Swapped to.
    Swap,
    /// Behind this loop device.
    Loop(String),
}

impl std::fmt::Display for Use {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mounted(at) => write!(f, "mounted on {at}"),
            Self::Swap => f.write_str("in use as swap space"),
            Self::Loop(name) => write!(f, "the file behind /dev/{name}"),
        }
    }
}

/// What `path` is in use for, as far as the kernel tells.
pub fn in_use(path: &Path) -> io::Result<Option<Use>> {
    let meta = std::fs::metadata(path)?;
    if !meta.file_type().is_block_device() {
        return Ok(loop_of(path));
    }
    let (major, minor) = (
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    );
    let number = format!("{major}:{minor}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // proc_pid_mountinfo(5): the third field is the device, the fifth the mount point. A
    // filesystem that shows a device number of its own (btrfs) is found by its source.
    let source = path.to_string_lossy();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let its_source = fields.iter().skip_while(|field| **field != "-").nth(2);
        if fields.get(2) == Some(&number.as_str()) || its_source == Some(&&*source) {
            return Ok(Some(Use::Mounted(
                fields.get(4).unwrap_or(&"?").to_string(),
            )));
        }
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let same = |line: &str| {
        let name = line.split_whitespace().next().unwrap_or_default();
        std::fs::metadata(name)
            .is_ok_and(|other| other.file_type().is_block_device() && other.rdev() == meta.rdev())
    };
    Ok(swaps.lines().skip(1).any(same).then_some(Use::Swap))
}

fn loop_of(path: &Path) -> Option<Use> {
    let path = path.canonicalize().ok()?;
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let file = entry.path().join("loop/backing_file");
        let behind = std::fs::read_to_string(file).unwrap_or_default();
        if Path::new(behind.trim_end_matches('\n')) == path {
            return Some(Use::Loop(entry.file_name().to_string_lossy().into_owned()));
        }
    }
    None
}

/// What `path` holds, in a few words; `None` when nothing was recognised.
pub fn signature(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    if let Some(found) = oxfs(&file) {
        return Ok(Some(found));
    }
    Ok(blkid(path).or_else(|| known(&file)))
}

fn bytes<const N: usize>(file: &File, at: u64) -> Option<[u8; N]> {
    let mut data = [0; N];
    file.read_exact_at(&mut data, at).ok()?;
    Some(data)
}

/// An oxfs super block in one of the slots.
fn oxfs(file: &File) -> Option<String> {
    SUPER_SLOTS.into_iter().find_map(|slot| {
        let block = bytes::<4096>(file, slot * 4096)?;
        let sb = SuperBlock::read_from_bytes(&block).ok()?;
        if sb.magic != SUPER_MAGIC {
            return None;
        }
        let label: Vec<u8> = sb.label.into_iter().take_while(|&byte| byte != 0).collect();
        let size = Geometry::of_volume(sb.blocks.get()).map_or(0, |geometry| geometry.blocks);
        Some(format!(
            "oxfs \"{}\" of {size} blocks",
            String::from_utf8_lossy(&label)
        ))
    })
}

fn blkid(path: &Path) -> Option<String> {
    let output = Command::new("blkid")
        .args(["-p", "-o", "export"])
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |name: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix('=')
                .map(str::to_owned)
        })
    };
    match (value("TYPE"), value("PTTYPE")) {
        (Some(kind), _) => Some(kind),
        (None, Some(table)) => Some(format!("{table} partition table")),
        // blkid(8): 8 is an ambivalent result: there is something.
        _ if output.status.code() == Some(8) => Some("more than one signature".into()),
        _ => None,
    }
}

/// Places and magic numbers from the formats' documentation.
const KNOWN: [(&str, u64, &[u8]); 12] = [
    ("ext2, ext3 or ext4", 1024 + 56, &[0x53, 0xef]),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 65536 + 64, b"_BHRfS_M"),
    ("bcachefs", 4096 + 24, &[0xf6, 0x73, 0x85, 0xc6]),
    ("f2fs", 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    ("swap space", 4096 - 10, b"SWAPSPACE2"),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("vfat", 82, b"FAT32   "),
    ("vfat", 54, b"FAT1"),
    ("ntfs", 3, b"NTFS    "),
    ("gpt partition table", 512, b"EFI PART"),
    ("dos partition table", 510, &[0x55, 0xaa]),
];

fn known(file: &File) -> Option<String> {
    KNOWN.iter().find_map(|&(name, at, magic)| {
        let mut found = vec![0; magic.len()];
        file.read_exact_at(&mut found, at).ok()?;
        (found == magic).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::{known, signature, KNOWN};
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn every_known_signature_is_found() {
        let dir = std::env::temp_dir().join(format!("oxfs-probe-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (i, (name, at, magic)) in KNOWN.into_iter().enumerate() {
            let path = dir.join(i.to_string());
            let file = File::create_new(&path).unwrap();
            file.set_len(1 << 20).unwrap();
            assert_eq!(signature(&path).unwrap(), None);
            file.write_all_at(magic, at).unwrap();
            assert_eq!(known(&File::open(&path).unwrap()).as_deref(), Some(name));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
