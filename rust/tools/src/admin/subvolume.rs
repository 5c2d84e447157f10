// SPDX-License-Identifier: GPL-2.0

//! `oxfs subvolume` and `oxfs property`.

use super::options::{Name, Property, Subvolume};
use super::output::{fields, lines, size, table, time, Answer};
use super::place::{is, kernel_path, parent_and_name, shown_path, Place, Result};
use crate::engine::subvolume::TOP;
use crate::engine::types::{BLOCK_SIZE, MAX_INO};
use oxfs_user::uapi::{
    SubvolCreate, SubvolDelete, SubvolInfo, SubvolSetDefault, SubvolSetFlags, NONE, STATE_DEFAULT,
    STATE_DROPPING, STATE_READ_ONLY, SUBVOL_READ_ONLY,
};
use rustix::io::Errno;
use serde_json::{json, Value};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;
use zerocopy::FromZeros;

/// Runs `oxfs subvolume`.
pub fn run(command: &Subvolume) -> Result<Answer> {
    match command {
        Subvolume::Create { parents, paths } => create(*parents, paths),
        Subvolume::Snapshot {
            read_only,
            source,
            dest,
        } => snapshot(*read_only, source, dest),
        Subvolume::Delete { paths } => delete(paths),
        Subvolume::List {
            read_only,
            snapshots,
            deleted,
            path,
        } => list(path, |info| {
            let dropping = info.state & STATE_DROPPING != 0;
            dropping == *deleted
                && (!read_only || info.state & STATE_READ_ONLY != 0)
                && (!snapshots || info.source != NONE)
        }),
        Subvolume::Show { path } => show(path),
        Subvolume::GetDefault { path } => get_default(path),
        Subvolume::SetDefault { which } => set_default(which),
        Subvolume::Sync { path, ids } => sync(path, ids),
    }
}

/// Creates the subvolume `path`, a snapshot if there is a `source`; its id.
fn make(path: &Path, source: Option<&Place>, read_only: bool) -> Result<u64> {
    let (parent, name) = parent_and_name(path)?;
    let dir = Place::open(&parent)?;
    let mut request = SubvolCreate::new_zeroed();
    request.flags = if read_only { SUBVOL_READ_ONLY } else { 0 };
    request.source_fd = source.map_or(-1, |place| place.file.as_raw_fd().into());
    request.name = name;
    let target = Place {
        path: path.to_owned(),
        ..dir
    };
    oxfs_user::subvol_create(&target.file, &mut request).map_err(|error| {
        let doing = match source {
            Some(_) => "cannot take the snapshot",
            None => "cannot create the subvolume",
        };
        target.error(error, doing)
    })?;
    Ok(request.id)
}

fn create(parents: bool, paths: &[PathBuf]) -> Result<Answer> {
    let mut made = Vec::new();
    let mut text = String::new();
    for path in paths {
        if let Some(parent) = path.parent().filter(|_| parents) {
            std::fs::create_dir_all(parent)
                .map_err(|error| format!("{}: {error}", parent.display()))?;
        }
        let id = make(path, None, false)?;
        made.push(json!({"id": id, "path": path}));
        text += &format!("Created subvolume '{}' (ID {id})\n", path.display());
    }
    Ok(Answer {
        json: Value::Array(made),
        text,
    })
}

/// Where the snapshot goes: into a directory under its source's name, or to the path itself.
fn destination(source: &Path, dest: &Path) -> Result<PathBuf> {
    if !dest.is_dir() {
        return Ok(dest.to_owned());
    }
    let whole = source
        .canonicalize()
        .map_err(|error| format!("{}: {error}", source.display()))?;
    let name = whole.file_name().ok_or_else(|| {
        format!(
            "{} has no name that the snapshot could get: give one, like {}",
            source.display(),
            dest.join("root").display()
        )
    })?;
    Ok(dest.join(name))
}

fn snapshot(read_only: bool, source: &Path, dest: &Path) -> Result<Answer> {
    let from = Place::open_subvolume(source)?;
    let path = destination(source, dest)?;
    let id = make(&path, Some(&from), read_only)?;
    let kind = if read_only { "read-only " } else { "" };
    Ok(Answer {
        json: json!({"id": id, "path": path, "source": source, "read_only": read_only}),
        text: format!(
            "Created {kind}snapshot of '{}' in '{}' (ID {id})\n",
            source.display(),
            path.display()
        ),
    })
}

fn delete(paths: &[PathBuf]) -> Result<Answer> {
    let mut gone = Vec::new();
    let mut text = String::new();
    for path in paths {
        let root = Place::open_subvolume(path)?;
        let info = root.own_info()?;
        let (parent, name) = parent_and_name(path)?;
        let dir = Place::open(&parent)?;
        let mut request = SubvolDelete::new_zeroed();
        request.name = name;
        if let Err(error) = oxfs_user::subvol_delete(&dir.file, &mut request) {
            return Err(why_not_deleted(&root, &info, error));
        }
        gone.push(json!({"id": info.id, "path": path}));
        text += &format!("Deleted subvolume '{}' (ID {})\n", path.display(), info.id);
    }
    Ok(Answer {
        json: Value::Array(gone),
        text,
    })
}

/// The kernel says that something is in the way; what it is can be found out.
fn why_not_deleted(root: &Place, info: &SubvolInfo, error: std::io::Error) -> String {
    let name = root.path.display();
    let shown = |infos: Vec<SubvolInfo>| {
        let paths: Vec<String> = infos.iter().map(path_of).collect();
        paths.join(", ")
    };
    if is(&error, Errno::NOTEMPTY) {
        let mut inside = root.subvolumes().unwrap_or_default();
        inside.retain(|other| other.home_subvol == info.id);
        return format!(
            "{name} holds other subvolumes: delete these first: {}",
            shown(inside)
        );
    }
    if is(&error, Errno::BUSY) && info.state & STATE_DEFAULT != 0 {
        return format!(
            "{name} is the default subvolume: choose another one with `oxfs subvolume set-default` first"
        );
    }
    if is(&error, Errno::BUSY) {
        let shift = MAX_INO.0.count_ones();
        let files = root.swapfiles().unwrap_or_default();
        let active: Vec<String> = files
            .iter()
            .filter(|file| file.st_ino >> shift == info.id)
            .map(|file| shown_path(&file.path, file.path_len))
            .collect();
        if !active.is_empty() {
            return format!(
                "{name} holds active swapfiles: swapoff these first: {}",
                active.join(", ")
            );
        }
        return format!("{name} is in use: is it mounted, or the root of a mount? (see dmesg)");
    }
    root.error(error, "cannot delete")
}

fn optional(value: u64) -> Value {
    match value {
        NONE => Value::Null,
        value => value.into(),
    }
}

fn uuid(bytes: [u8; 16]) -> Option<String> {
    (bytes != [0; 16]).then(|| Uuid::from_bytes(bytes).to_string())
}

fn record(info: &SubvolInfo) -> Value {
    json!({
        "id": info.id,
        "path": (!is_untold(info)).then(|| kernel_path(&info.path, info.path_len)),
        "generation": info.generation,
        "read_only": info.state & STATE_READ_ONLY != 0,
        "default": info.state & STATE_DEFAULT != 0,
        "deleted": info.state & STATE_DROPPING != 0,
        "parent": optional(info.home_subvol),
        "source": optional(info.source),
        "uuid": uuid(info.uuid),
        "source_uuid": uuid(info.source_uuid),
        "created": time(info.created_sec),
        "dropped_blocks": optional(info.dropped_blocks),
    })
}

fn flags(info: &SubvolInfo) -> String {
    let names = [
        (STATE_READ_ONLY, "read-only"),
        (STATE_DEFAULT, "default"),
        (STATE_DROPPING, "deleted"),
    ];
    let set: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| info.state & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    match set.is_empty() {
        true => "-".into(),
        false => set.join(","),
    }
}

fn number(value: u64) -> String {
    match value {
        NONE => "-".into(),
        value => value.to_string(),
    }
}

/// Whether the kernel does not tell the path, though the subvolume has one.
fn is_untold(info: &SubvolInfo) -> bool {
    info.path_len == 0 && info.id != TOP.0 && info.state & STATE_DROPPING == 0
}

fn path_of(info: &SubvolInfo) -> String {
    match info.state & STATE_DROPPING != 0 {
        true => "(deleted)".into(),
        false if is_untold(info) => format!("(subvolume {}, path not known)", info.id),
        false => format!("/{}", shown_path(&info.path, info.path_len)),
    }
}

/// Bytes that came back so far, of a subvolume that is being dropped.
fn dropped(info: &SubvolInfo) -> String {
    match info.dropped_blocks {
        NONE => "-".into(),
        blocks => size(blocks.saturating_mul(BLOCK_SIZE as u64)),
    }
}

fn list(path: &Path, wanted: impl Fn(&SubvolInfo) -> bool) -> Result<Answer> {
    let mut all = Place::open(path)?.subvolumes()?;
    all.retain(wanted);
    let deleted = all.iter().any(|info| info.state & STATE_DROPPING != 0);
    let mut headings = vec![
        ">ID", ">GEN", ">PARENT", ">SOURCE", "CREATED", "FLAGS", "PATH",
    ];
    if deleted {
        headings.push(">FREED");
    }
    let rows = all.iter().map(|info| {
        let mut row = vec![
            info.id.to_string(),
            info.generation.to_string(),
            number(info.home_subvol),
            number(info.source),
            time(info.created_sec),
            flags(info),
            path_of(info),
        ];
        if deleted {
            row.push(dropped(info));
        }
        row
    });
    Ok(Answer {
        text: table(&headings, rows),
        json: all.iter().map(record).collect(),
    })
}

fn show(path: &Path) -> Result<Answer> {
    let place = Place::open_subvolume(path)?;
    let info = place.own_info()?;
    let mut answer = record(&info);
    let mut rows = vec![
        ("ID", info.id.to_string()),
        ("Path", path_of(&info)),
        ("UUID", uuid(info.uuid).unwrap_or_else(|| "-".into())),
        ("Source ID", number(info.source)),
        (
            "Source UUID",
            uuid(info.source_uuid).unwrap_or_else(|| "-".into()),
        ),
        ("Created", time(info.created_sec)),
        ("Generation", info.generation.to_string()),
        ("Parent ID", number(info.home_subvol)),
        ("Flags", flags(&info)),
    ];
    // What else there is only an administrator may see.
    if let Ok(all) = place.subvolumes() {
        let snapshots: Vec<&SubvolInfo> = all
            .iter()
            .filter(|other| other.source == info.id && other.state & STATE_DROPPING == 0)
            .collect();
        answer["snapshots"] = snapshots.iter().map(|other| record(other)).collect();
        let paths: Vec<String> = snapshots.iter().map(|other| path_of(other)).collect();
        rows.push(("Snapshots", paths.join(" ")));
    }
    Ok(Answer {
        text: fields(&rows),
        json: answer,
    })
}

fn get_default(path: &Path) -> Result<Answer> {
    let all = Place::open(path)?.subvolumes()?;
    let info = all
        .iter()
        .find(|info| info.state & STATE_DEFAULT != 0)
        .ok_or("the volume tells of no default subvolume")?;
    Ok(Answer {
        text: format!(
            "ID {} gen {} path {}\n",
            info.id,
            info.generation,
            path_of(info)
        ),
        json: record(info),
    })
}

fn set_default(which: &[PathBuf]) -> Result<Answer> {
    let (place, id) = match which {
        [path] => {
            let place = Place::open_subvolume(path)?;
            let id = place.own_info()?.id;
            (place, id)
        }
        [id, path] => {
            let text = id.to_string_lossy();
            let id = text.parse().map_err(|_| {
                format!("{text} is not an id: give one path, or an id and a path of the volume")
            })?;
            (Place::open(path)?, id)
        }
        _ => return Err("give one path, or an id and a path".into()),
    };
    let mut request = SubvolSetDefault::new_zeroed();
    request.id = id;
    oxfs_user::subvol_set_default(&place.file, &mut request).map_err(|error| {
        if is(&error, Errno::NOENT) {
            let path = place.path.display();
            return format!("there is no subvolume {id}; `oxfs subvolume list {path}` lists them");
        }
        place.error(error, "cannot set the default subvolume")
    })?;
    Ok(Answer {
        json: json!({"id": id}),
        text: String::new(),
    })
}

fn sync(path: &Path, ids: &[u64]) -> Result<Answer> {
    let place = Place::open(path)?;
    // What others delete meanwhile is not waited for.
    let mut waited: Vec<u64> = match ids {
        [] => dropping(&place)?,
        ids => ids.to_vec(),
    };
    let done = waited.clone();
    loop {
        let left = dropping(&place)?;
        waited.retain(|id| left.contains(id));
        if waited.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(Answer {
        text: lines(done.iter().map(|id| format!("Subvolume ID {id} is gone"))),
        json: json!({ "ids": done }),
    })
}

fn dropping(place: &Place) -> Result<Vec<u64>> {
    let all = place.subvolumes()?;
    Ok(all
        .iter()
        .filter(|info| info.state & STATE_DROPPING != 0)
        .map(|info| info.id)
        .collect())
}

/// Runs `oxfs property`.
pub fn property(command: &Property) -> Result<Answer> {
    match command {
        Property::Get { path, name: _ } => {
            let info = Place::open_subvolume(path)?.own_info()?;
            let read_only = info.state & STATE_READ_ONLY != 0;
            Ok(Answer {
                json: json!({ "ro": read_only }),
                text: format!("ro={read_only}\n"),
            })
        }
        Property::Set {
            path,
            name: Name::Ro,
            value,
        } => {
            let place = Place::open_subvolume(path)?;
            let mut request = SubvolSetFlags::new_zeroed();
            request.flags = if *value { SUBVOL_READ_ONLY } else { 0 };
            oxfs_user::subvol_set_flags(&place.file, &mut request).map_err(|error| {
                match is(&error, Errno::TXTBSY) || is(&error, Errno::BUSY) {
                    true => format!(
                        "{} is being written to: close the files and swapoff its swapfiles first",
                        path.display()
                    ),
                    false => place.error(error, "cannot set the property"),
                }
            })?;
            Ok(Answer {
                json: json!({ "ro": value }),
                text: String::new(),
            })
        }
    }
}
