// SPDX-License-Identifier: GPL-2.0

//! `oxfs inspect`: any part of a volume, for people who debug.

mod items;
mod reader;

use super::options::{Inspect, Tree as TreeName};
use super::output::{fields, inline, lines, Answer};
use super::place::Result;
use crate::engine::bitmap;
use crate::engine::format::{
    extent_state, item_kind, tree_kind, ExtentItem, NodeHeader, ParentItem, RefsItem, SpaceItem,
    GROUP_BLOCKS, NODE_MAGIC,
};
use crate::engine::node::{self, Identity, Key, Ptr};
use crate::engine::super_block;
use crate::engine::types::{BlockNr, Generation, MAX_INO};
use crate::platform::Block;
use reader::{Go, Met, Reader, Tree};
use serde_json::{json, Value};
use std::collections::HashSet;
use std::path::Path;
use zerocopy::FromBytes;

/// Runs `oxfs inspect`.
pub fn run(command: &Inspect) -> Result<Answer> {
    match command {
        Inspect::Super { device } => supers(&device.device),
        Inspect::Tree {
            tree,
            subvol,
            object,
            nodes,
            device,
        } => {
            let reader = Reader::open(&device.device)?;
            let tree = chosen(&reader, *tree, *subvol)?;
            match nodes {
                true => Ok(tree_nodes(&reader, tree)),
                false => Ok(tree_items(&reader, tree, *object)),
            }
        }
        Inspect::Node { block, device } => node_at(&Reader::open(&device.device)?, *block),
        Inspect::Extent { block, device } => extent(&Reader::open(&device.device)?, *block),
        Inspect::Inode {
            ino,
            subvol,
            device,
        } => inode(&Reader::open(&device.device)?, *ino, *subvol),
    }
}

/// A list of objects, each a line of text.
fn list(values: Vec<Value>) -> Answer {
    Answer {
        text: lines(values.iter().map(inline)),
        json: Value::Array(values),
    }
}

/// An object with its fields below each other, and lists in it line by line.
fn object(value: Value) -> Answer {
    let mut text = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Array(list) if !list.is_empty() => {
                text += &format!("{name}:\n");
                text.extend(list.iter().map(|value| format!("  {}\n", inline(value))));
            }
            Value::Object(_) => text += &format!("{name}: {}\n", inline(value)),
            value => text += &fields(&[(name, inline(value))]),
        }
    }
    Answer { text, json: value }
}

fn supers(path: &Path) -> Result<Answer> {
    let reader = Reader::open(path)?;
    let mut copies = Vec::new();
    for at in reader.geometry.super_copies() {
        let block = reader.block(at)?;
        let whole = super_block::is_whole(&block, at);
        let mut copy = json!({
            "place": at,
            "whole": whole,
            "newest": whole && reader.sb.block.get() == at,
        });
        if let (true, Ok(sb)) = (whole, super_block::parse(&block)) {
            copy["super"] = items::super_block(sb);
        }
        copies.push(copy);
    }
    let mut text = String::new();
    for copy in &copies {
        let mut line = copy.clone();
        line.as_object_mut().map(|line| line.remove("super"));
        text += &format!("{}\n", inline(&line));
        if copy["newest"] == true {
            text += &object(copy["super"].clone()).text;
        }
    }
    Ok(Answer {
        text,
        json: Value::Array(copies),
    })
}

fn chosen(reader: &Reader, tree: TreeName, subvol: Option<u64>) -> Result<Tree> {
    Ok(match tree {
        TreeName::Forest => reader.tree(tree_kind::FOREST),
        TreeName::Space => reader.tree(tree_kind::SPACE),
        TreeName::Refs => reader.tree(tree_kind::REFS),
        TreeName::Swap => reader.tree(tree_kind::SWAP),
        TreeName::Subvolume => reader.subvolume(subvol)?.1,
    })
}

fn item(key: Key, data: &[u8]) -> Value {
    json!({
        "key": items::key(key),
        "value": items::value(key, data).unwrap_or_else(|| "too short".into()),
    })
}

fn fault(ptr: Ptr, why: String) -> Value {
    json!({"block": ptr.block.0, "fault": why})
}

fn tree_items(reader: &Reader, tree: Tree, object: Option<u64>) -> Answer {
    let mut values = Vec::new();
    reader.walk(tree, object, &mut |met| {
        match met {
            Met::Item(key, data, _) => values.push(item(key, data)),
            Met::Fault(ptr, why) => values.push(fault(ptr, why)),
            Met::Node(..) => {}
        }
        Go::On
    });
    list(values)
}

fn tree_nodes(reader: &Reader, tree: Tree) -> Answer {
    let mut values = Vec::new();
    reader.walk(tree, None, &mut |met| {
        match met {
            Met::Node(block, _) => values.push(head_of(block)),
            Met::Fault(ptr, why) => values.push(fault(ptr, why)),
            Met::Item(..) => {}
        }
        Go::On
    });
    list(values)
}

fn head_of(block: &Block) -> Value {
    match NodeHeader::read_from_prefix(&block[..]) {
        Ok((head, _)) => items::header(&head),
        Err(_) => Value::Null,
    }
}

fn node_at(reader: &Reader, at: u64) -> Result<Answer> {
    let block = reader.block(at)?;
    let (head, _) = NodeHeader::read_from_prefix(&block[..])
        .map_err(|_| "a block is shorter than a node's head".to_string())?;
    if head.magic.get() != NODE_MAGIC {
        return Err(format!(
            "block {at} is not a tree node; `oxfs inspect extent {at}` tells what it is"
        ));
    }
    let mut value = items::header(&head);
    // Whether it is whole, being what it says that it is.
    let id = Identity {
        uuid: &reader.sb.metadata_uuid,
        ptr: Ptr {
            block: BlockNr(at),
            generation: Generation(head.generation.get()),
        },
        tree: head.tree,
        level: head.level,
    };
    match node::check(&block, id) {
        Ok(()) => value["slots"] = slots(&block),
        Err(error) => value["fault"] = error.to_string().into(),
    }
    Ok(object(value))
}

fn slots(block: &Block) -> Value {
    let slots = 0..node::count(block);
    if node::level(block) == 0 {
        return slots
            .filter_map(|i| Some(item(node::leaf_key(block, i)?, node::leaf_data(block, i))))
            .collect();
    }
    slots
        .filter_map(|i| node::child(block, i))
        .map(|(key, ptr)| {
            json!({"key": items::key(key), "child": ptr.block.0, "generation": ptr.generation.0})
        })
        .collect()
}

/// Whether the item points to data that has `block`.
fn covers(key: Key, data: &[u8], block: u64) -> bool {
    let covers = |start: u64, len: u64| block.checked_sub(start).is_some_and(|at| at < len);
    match key.kind {
        item_kind::EXTENT | item_kind::SWAP => {
            ExtentItem::read_from_prefix(data).is_ok_and(|(e, _)| {
                e.state != extent_state::UNBACKED && covers(e.at.get(), e.len.get())
            })
        }
        item_kind::REFS => {
            RefsItem::read_from_prefix(data).is_ok_and(|(run, _)| covers(key.object, run.len.get()))
        }
        _ => false,
    }
}

fn extent(reader: &Reader, at: u64) -> Result<Answer> {
    if at >= reader.geometry.blocks {
        return Err(format!(
            "the volume ends at block {}",
            reader.geometry.blocks - 1
        ));
    }
    let mut trees: Vec<(Value, Tree)> = [
        tree_kind::FOREST,
        tree_kind::SPACE,
        tree_kind::REFS,
        tree_kind::SWAP,
    ]
    .map(|kind| (items::tree_name(kind), reader.tree(kind)))
    .into();
    for (id, forest) in reader.subvolumes() {
        let tree = Tree {
            kind: tree_kind::SUBVOLUME,
            root: forest.root,
        };
        trees.push((format!("subvolume {id}").into(), tree));
    }
    let mut owners = Vec::new();
    let mut count = Value::from(1);
    // Nodes that subvolumes share are read once.
    let mut seen = HashSet::new();
    for (name, tree) in trees {
        reader.walk(tree, None, &mut |met| {
            match met {
                Met::Node(_, ptr) => {
                    if ptr.block.0 == at {
                        owners.push(json!({"tree": name, "node": at}));
                    }
                    if !seen.insert(ptr.block.0) {
                        return Go::Past;
                    }
                }
                Met::Item(key, data, ptr) if covers(key, data, at) => match key.kind {
                    item_kind::REFS => {
                        count = items::value(key, data).map_or(Value::Null, |v| v["count"].clone());
                    }
                    _ => {
                        let mut owner = item(key, data);
                        owner["tree"] = name.clone();
                        owner["leaf"] = ptr.block.0.into();
                        owners.push(owner);
                    }
                },
                Met::Item(..) => {}
                Met::Fault(ptr, why) => owners.push(fault(ptr, why)),
            }
            Go::On
        });
    }
    let mapped = mapped(reader, at)?;
    if owners.is_empty() {
        count = 0.into();
    }
    Ok(object(json!({
        "block": at,
        "group": at / GROUP_BLOCKS,
        "mapped": mapped,
        "fixed": !reader.geometry.may_hold(at, 1),
        "count": count,
        "owners": owners,
    })))
}

/// The block's bit in its group's bitmap; null where the bitmap cannot be read.
fn mapped(reader: &Reader, at: u64) -> Result<Value> {
    let group = at / GROUP_BLOCKS;
    let mut space = None;
    reader.walk(reader.tree(tree_kind::SPACE), Some(group), &mut |met| {
        if let Met::Item(key, data, _) = met {
            if key.kind == item_kind::SPACE {
                space = SpaceItem::read_from_prefix(data).ok().map(|(item, _)| item);
            }
        }
        Go::On
    });
    let Some(space) = space else {
        // No item: nothing of the group is used but what is fixed.
        return Ok((!reader.geometry.may_hold(at, 1)).into());
    };
    let places = reader.geometry.bitmap_places(group);
    let Some(&place) = places.get(usize::from(space.place)) else {
        return Ok(Value::Null);
    };
    let bits = reader.block(place)?;
    let bit = (at % GROUP_BLOCKS) as usize;
    Ok((bitmap::ones_in(&bits, bit, bit + 1) == 1).into())
}

/// The name behind a [`ParentItem`].
fn name_of(reader: &Reader, tree: Tree, parent: &ParentItem) -> Value {
    let mut name = Value::Null;
    let cookie = parent.cookie.get();
    reader.walk(tree, Some(parent.dir.get()), &mut |met| {
        if let Met::Item(key, data, _) = met {
            if key.kind == item_kind::DIRENT && key.offset == cookie {
                name = items::value(key, data).map_or(Value::Null, |v| v["name"].clone());
            }
        }
        Go::On
    });
    name
}

fn inode(reader: &Reader, number: u64, subvol: Option<u64>) -> Result<Answer> {
    let shift = MAX_INO.0.count_ones();
    let ino = number & MAX_INO.0;
    let (subvol, tree) = reader.subvolume(Some(subvol.unwrap_or(number >> shift)))?;
    let mut attributes = Value::Null;
    let mut parents = Vec::new();
    let mut rest = Vec::new();
    reader.walk(tree, Some(ino), &mut |met| {
        match met {
            Met::Item(key, data, _) => match key.kind {
                item_kind::INODE => attributes = item(key, data)["value"].clone(),
                item_kind::PARENT => {
                    if let Ok((parent, _)) = ParentItem::read_from_prefix(data) {
                        parents.push(parent);
                    }
                }
                _ => rest.push(item(key, data)),
            },
            Met::Fault(ptr, why) => rest.push(fault(ptr, why)),
            Met::Node(..) => {}
        }
        Go::On
    });
    if attributes.is_null() {
        return Err(format!("there is no inode {ino} in subvolume {subvol}"));
    }
    let names: Value = parents
        .iter()
        .map(|parent| json!({"dir": parent.dir.get(), "name": name_of(reader, tree, parent)}))
        .collect();
    let mut orphan = false;
    reader.walk(tree, Some(0), &mut |met| {
        if let Met::Item(key, ..) = met {
            orphan |= key.kind == item_kind::ORPHAN && key.offset == ino;
        }
        Go::On
    });
    let mut swap = Vec::new();
    let owner = (subvol << shift) | ino;
    reader.walk(reader.tree(tree_kind::SWAP), Some(owner), &mut |met| {
        if let Met::Item(key, data, _) = met {
            swap.push(item(key, data));
        }
        Go::On
    });
    Ok(object(json!({
        "subvolume": subvol,
        "ino": ino,
        "st_ino": owner,
        "inode": attributes,
        "orphan": orphan,
        "names": names,
        "items": rest,
        "swap": swap,
    })))
}
