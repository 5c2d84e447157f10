// SPDX-License-Identifier: GPL-2.0

//! Everything of the format as JSON, with the names that `format.rs` gives it.

use crate::admin::output::time;
use crate::engine::format::{
    extent_state, item_kind, subvolume_flag, tree_kind, DirentItem, DiskTime, ExtentItem,
    ForestItem, InodeItem, NodeHeader, OrphanItem, ParentItem, RefsItem, RootItem, SpaceItem,
    SuperBlock, XattrItem,
};
use crate::engine::node::Key;
use crate::engine::types::{INODE_SUBVOLUME, INODE_SWAP};
use serde_json::{json, Value};
use uuid::Uuid;
use zerocopy::FromBytes;

/// The name of a tree's kind.
pub fn tree_name(kind: u8) -> Value {
    match kind {
        tree_kind::FOREST => "forest".into(),
        tree_kind::SPACE => "space".into(),
        tree_kind::REFS => "refs".into(),
        tree_kind::SWAP => "swap".into(),
        tree_kind::SUBVOLUME => "subvolume".into(),
        other => other.into(),
    }
}

fn kind_name(kind: u8) -> Value {
    match kind {
        item_kind::FOREST => "FOREST".into(),
        item_kind::SPACE => "SPACE".into(),
        item_kind::REFS => "REFS".into(),
        item_kind::SWAP => "SWAP".into(),
        item_kind::ORPHAN => "ORPHAN".into(),
        item_kind::INODE => "INODE".into(),
        item_kind::DIRENT => "DIRENT".into(),
        item_kind::XATTR => "XATTR".into(),
        item_kind::PARENT => "PARENT".into(),
        item_kind::SYMLINK => "SYMLINK".into(),
        item_kind::EXTENT => "EXTENT".into(),
        other => other.into(),
    }
}

/// A key.
pub fn key(key: Key) -> Value {
    json!([key.object, kind_name(key.kind), key.offset])
}

fn text(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into_owned().into()
}

fn uuid(bytes: [u8; 16]) -> Value {
    Uuid::from_bytes(bytes).to_string().into()
}

/// `u64::MAX` is none.
fn optional(value: u64) -> Value {
    match value {
        u64::MAX => Value::Null,
        value => value.into(),
    }
}

fn root(root: &RootItem) -> Value {
    json!({
        "block": root.block.get(),
        "generation": root.generation.get(),
        "level": root.level,
    })
}

fn disk_time(at: &DiskTime) -> Value {
    let (sec, nsec) = (at.sec.get() as i64, at.nsec.get());
    json!({"sec": sec, "nsec": nsec, "utc": time(sec)})
}

/// A super block.
pub fn super_block(sb: &SuperBlock) -> Value {
    let label = sb.label.split(|&byte| byte == 0).next().unwrap_or_default();
    json!({
        "label": text(label),
        "uuid": uuid(sb.uuid),
        "metadata_uuid": uuid(sb.metadata_uuid),
        "version": sb.version.get(),
        "generation": sb.generation.get(),
        "state": sb.state.get(),
        "clean": sb.state.get() & crate::engine::format::state::CLEAN != 0,
        "error": sb.state.get() & crate::engine::format::state::ERROR != 0,
        "blocks": sb.blocks.get(),
        "free_blocks": sb.free_blocks.get(),
        "block_shift": sb.block_shift,
        "node_shift": sb.node_shift,
        "group_shift": sb.group_shift,
        "checksum": sb.checksum,
        "compat": sb.compat.get(),
        "ro_compat": sb.ro_compat.get(),
        "incompat": sb.incompat.get(),
        "default_subvolume": sb.default_subvolume.get(),
        "next_subvolume": sb.next_subvolume.get(),
        "forest": root(&sb.forest),
        "space": root(&sb.space),
        "refs": root(&sb.refs),
        "swap": root(&sb.swap),
        "log": root(&sb.log),
        "device": sb.device.get(),
        "devices": sb.devices.get(),
    })
}

/// The head of a node.
pub fn header(head: &NodeHeader) -> Value {
    json!({
        "block": head.block.get(),
        "tree": tree_name(head.tree),
        "level": head.level,
        "count": head.count.get(),
        "generation": head.generation.get(),
        "owner": head.owner.get(),
        "uuid": uuid(head.uuid),
        "crc": head.crc.get(),
        "data_start": head.data_start.get(),
    })
}

/// A value of type `T`, and what follows it.
fn split<T: FromBytes>(data: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(data).ok()
}

/// The value of an item; `None` if it is too short.
pub fn value(key: Key, data: &[u8]) -> Option<Value> {
    Some(match key.kind {
        item_kind::FOREST => forest(&split::<ForestItem>(data)?.0),
        item_kind::SPACE => space(&split::<SpaceItem>(data)?.0),
        item_kind::REFS => {
            let (item, _) = split::<RefsItem>(data)?;
            json!({"len": item.len.get(), "count": item.count.get()})
        }
        item_kind::SWAP | item_kind::EXTENT => extent(&split::<ExtentItem>(data)?.0),
        item_kind::INODE => inode(&split::<InodeItem>(data)?.0),
        item_kind::DIRENT => {
            let (item, name) = split::<DirentItem>(data)?;
            json!({
                "name": text(name), "ino": item.ino.get(), "kind": item.kind, "flags": item.flags,
            })
        }
        item_kind::XATTR => {
            let (item, rest) = split::<XattrItem>(data)?;
            let (name, value) = rest.split_at_checked(item.name_len.into())?;
            json!({"name": text(name), "value": text(value)})
        }
        item_kind::PARENT => {
            let (item, _) = split::<ParentItem>(data)?;
            json!({"dir": item.dir.get(), "cookie": item.cookie.get()})
        }
        item_kind::SYMLINK => json!({"target": text(data)}),
        item_kind::ORPHAN => {
            let (item, _) = split::<OrphanItem>(data)?;
            json!({"size": optional(item.size.get())})
        }
        _ => json!({"bytes": data.len()}),
    })
}

fn forest(item: &ForestItem) -> Value {
    let flags = item.flags.get();
    json!({
        "root": root(&item.root),
        "read_only": flags & subvolume_flag::READ_ONLY != 0,
        "dropping": flags & subvolume_flag::DROPPING != 0,
        "parent": optional(item.parent.get()),
        "home_subvolume": item.home_subvolume.get(),
        "home_ino": item.home_ino.get(),
        "dropped": item.dropped.get(),
        "last_snapshot": item.last_snapshot.get(),
        "next_ino": item.next_ino.get(),
        "uuid": uuid(item.uuid),
        "parent_uuid": uuid(item.parent_uuid),
        "created": time(item.created_sec.get() as i64),
    })
}

fn space(item: &SpaceItem) -> Value {
    json!({
        "generation": item.generation.get(),
        "free": item.free.get(),
        "longest": item.longest.get(),
        "place": item.place,
        "crc": item.crc.get(),
    })
}

fn extent(item: &ExtentItem) -> Value {
    let state = match item.state {
        extent_state::WRITTEN => "written".into(),
        extent_state::PREALLOC => "prealloc".into(),
        extent_state::UNBACKED => "unbacked".into(),
        other => Value::from(other),
    };
    json!({
        "at": item.at.get(),
        "len": item.len.get(),
        "generation": item.generation.get(),
        "state": state,
        "flags": item.flags,
    })
}

fn inode(item: &InodeItem) -> Value {
    let mode = item.mode.get();
    json!({
        "mode": format!("{mode:06o}"),
        "size": item.size.get(),
        "blocks": item.blocks.get(),
        "nlink": item.nlink.get(),
        "uid": item.uid.get(),
        "gid": item.gid.get(),
        "rdev": item.rdev.get(),
        "flags": format!("{:#x}", item.flags.get()),
        "swap": item.flags.get() & INODE_SWAP != 0,
        "subvolume": item.flags.get() & INODE_SUBVOLUME != 0,
        "project": item.project.get(),
        "generation": item.generation.get(),
        "change": item.change.get(),
        "atime": disk_time(&item.atime),
        "mtime": disk_time(&item.mtime),
        "ctime": disk_time(&item.ctime),
        "btime": disk_time(&item.btime),
    })
}
