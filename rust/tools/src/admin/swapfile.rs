// SPDX-License-Identifier: GPL-2.0

//! `oxfs swapfile`.

use super::options::Swapfile;
use super::output::{size, table, Answer};
use super::place::{kernel_path, mounted, shown_path, Place, Result};
use crate::engine::types::BLOCK_SIZE;
use oxfs_user::{extent_flag, uapi::SwapStatus};
use rustix::fs::FallocateFlags;
use serde_json::{json, Value};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use uuid::Uuid;

/// Bytes of a page, the unit of swapping. The filesystem refuses machines with another size.
const PAGE: u64 = BLOCK_SIZE as u64;
/// mkswap(8): fewer pages are not worth it.
const MIN_PAGES: u64 = 10;

/// Runs `oxfs swapfile`.
pub fn run(command: &Swapfile) -> Result<Answer> {
    match command {
        Swapfile::Create {
            size,
            uuid,
            label,
            path,
        } => create(path, *size, uuid.unwrap_or_else(Uuid::new_v4), label),
        Swapfile::Status { path } => status(path.as_deref()),
        Swapfile::Offset { path } => offset(path),
    }
}

/// The first page of swap space: `union swap_header` of include/linux/swap.h, version 1.
fn header(pages: u64, uuid: Uuid, label: &str) -> Result<[u8; BLOCK_SIZE]> {
    if pages < MIN_PAGES {
        return Err(format!(
            "too small: swap space has at least {MIN_PAGES} pages (40K)"
        ));
    }
    let last = u32::try_from(pages - 1).map_err(|_| "too large: swap space ends at 16T")?;
    if label.len() > 16 {
        return Err("the label is longer than 16 bytes".into());
    }
    let mut page = [0; BLOCK_SIZE];
    // After a kilobyte for boot loaders: version, last page, number of bad pages, uuid, label.
    let fields: [&[u8]; 5] = [
        &1u32.to_ne_bytes(),
        &last.to_ne_bytes(),
        &0u32.to_ne_bytes(),
        uuid.as_bytes(),
        label.as_bytes(),
    ];
    let fields = fields.concat();
    page[1024..1024 + fields.len()].copy_from_slice(&fields);
    page[BLOCK_SIZE - 10..].copy_from_slice(b"SWAPSPACE2");
    Ok(page)
}

/// Gives `file` its space and its header, durably.
fn fill(file: &File, bytes: u64, header: &[u8; BLOCK_SIZE]) -> io::Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)?;
    file.write_all_at(header, 0)?;
    file.sync_all()
}

fn create(path: &Path, bytes: u64, uuid: Uuid, label: &str) -> Result<Answer> {
    let bytes = bytes - bytes % PAGE;
    let header = header(bytes / PAGE, uuid, label)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let dir = Place::open(parent)?;
    let target = Place {
        path: path.to_owned(),
        ..dir
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| target.error(error, "cannot create the file"))?;
    if let Err(error) = fill(&file, bytes, &header) {
        // A swapfile that is not whole is of no use.
        let _ = std::fs::remove_file(path);
        let doing = format!("cannot get {}", size(bytes));
        return Err(target.error(error, &doing));
    }
    let whole = path
        .canonicalize()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let fstab = fstab_line(&whole);
    Ok(Answer {
        json: json!({
            "path": whole, "size": bytes, "uuid": uuid.to_string(), "label": label, "fstab": fstab,
        }),
        text: format!(
            "Created swapfile '{}' of {}, UUID {uuid}\n\
             Use it now:         swapon {}\n\
             and after a boot, by this line in /etc/fstab:\n{fstab}\n",
            path.display(),
            size(bytes),
            path.display(),
        ),
    })
}

/// The line of fstab(5), with its escapes for what separates fields.
fn fstab_line(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let text: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            byte => vec![*byte],
        })
        .collect();
    format!("{} none swap defaults 0 0", String::from_utf8_lossy(&text))
}

/// One active swapfile.
fn record(volume: &Place, file: &SwapStatus) -> Value {
    json!({
        "volume": volume.path,
        "path": kernel_path(&file.path, file.path_len),
        "st_ino": file.st_ino,
        "size": file.pages.saturating_add(1).saturating_mul(PAGE),
        "pages": file.pages,
        "extents": file.extents,
        "new_blocks": file.new_blocks,
        "kept_blocks": file.kept_blocks,
        "moved_blocks": file.moved_blocks,
        "huge_pages_whole": file.whole != 0,
        "resume_offset": file.first_block,
    })
}

fn status(path: Option<&Path>) -> Result<Answer> {
    let places = match path {
        Some(path) => vec![path.to_owned()],
        None => mounted()?,
    };
    let mut records = Vec::new();
    let mut rows = Vec::new();
    for place in places {
        let volume = Place::open(&place)?;
        for file in volume.swapfiles()? {
            records.push(record(&volume, &file));
            let path = shown_path(&file.path, file.path_len);
            rows.push(vec![
                place.display().to_string(),
                match path.is_empty() {
                    true => format!("inode {}", file.st_ino),
                    false => format!("/{path}"),
                },
                size(file.pages.saturating_mul(PAGE)),
                file.extents.to_string(),
                size(file.new_blocks.saturating_mul(PAGE)),
                size(file.kept_blocks.saturating_mul(PAGE)),
                size(file.moved_blocks.saturating_mul(PAGE)),
                if file.whole != 0 { "whole" } else { "split" }.into(),
                file.first_block.to_string(),
            ]);
        }
    }
    let headings = [
        "VOLUME",
        "SWAPFILE",
        ">SPACE",
        ">EXTENTS",
        ">MADE PRIVATE",
        ">KEPT",
        ">MOVED",
        "HUGE PAGES",
        ">RESUME OFFSET",
    ];
    Ok(Answer {
        text: match rows.is_empty() {
            true => "No swapfile is active\n".into(),
            false => table(&headings, rows),
        },
        json: Value::Array(records),
    })
}

fn offset(path: &Path) -> Result<Answer> {
    let place = Place::open(path)?;
    let active = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let name = path.display();
    if !is_active(&active, path) {
        return Err(format!(
            "{name} is not an active swapfile: `swapon {name}` first, since activation may choose its blocks"
        ));
    }
    let extent = oxfs_user::first_extent(&place.file, 0)
        .map_err(|error| place.error(error, "cannot read the extents"))?
        .filter(|extent| extent.logical == 0 && extent.flags & extent_flag::UNKNOWN == 0)
        .ok_or_else(|| format!("{name}: the filesystem tells of no block for its header"))?;
    let offset = extent.physical / PAGE;
    Ok(Answer {
        json: json!({"path": path, "resume_offset": offset}),
        text: format!("{offset}\n"),
    })
}

/// Whether /proc/swaps has this file, by whatever path.
fn is_active(swaps: &str, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let wanted = identity(path);
    swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split([' ', '\t']).next())
        .any(|listed| {
            let listed = super::place::unescape(listed);
            wanted.is_some() && identity(Path::new(&listed)) == wanted
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let uuid = Uuid::from_bytes([7; 16]);
        let page = header(2048, uuid, "fast").expect("header");
        assert_eq!(page[..1024], [0; 1024]);
        assert_eq!(page[1024..1028], 1u32.to_ne_bytes());
        assert_eq!(page[1028..1032], 2047u32.to_ne_bytes());
        assert_eq!(page[1036..1052], [7; 16]);
        assert_eq!(&page[1052..1057], b"fast\0");
        assert_eq!(&page[4086..], b"SWAPSPACE2");
        assert!(header(9, uuid, "").is_err());
        assert!(header(10, uuid, "").is_ok());
        assert!(header(1 << 32, uuid, "").is_ok());
        assert!(header((1 << 32) + 1, uuid, "").is_err());
        assert!(header(10, uuid, "seventeen letters").is_err());
    }

    #[test]
    fn fstab() {
        assert_eq!(
            fstab_line(Path::new("/my swap")),
            "/my\\040swap none swap defaults 0 0"
        );
    }
}
