// SPDX-License-Identifier: GPL-2.0

//! Reads trees of a device without the engine's transactions: what is seen is what the newest super
//! block points to. Nothing that is read is believed: a walk ends at a fault, which it tells, and
//! goes on beside it.

use crate::admin::place::Result;
use crate::engine::device::BlockDevice;
use crate::engine::format::{
    item_kind, tree_kind, ForestItem, Geometry, RootItem, SuperBlock, MAX_LEVELS,
};
use crate::engine::node::{self, Identity, Key, Ptr};
use crate::engine::super_block;
use crate::engine::types::{BlockNr, Generation};
use crate::file::{Access, FileDevice};
use crate::platform::Block;
use std::path::Path;
use zerocopy::FromBytes;

/// A device with a volume.
pub struct Reader {
    /// The device.
    pub device: FileDevice,
    /// The super block that a mount would take.
    pub sb: SuperBlock,
    /// Where everything fixed is.
    pub geometry: Geometry,
    path: String,
}

/// A tree: what its nodes carry, and where it begins.
#[derive(Clone, Copy)]
pub struct Tree {
    /// One of [`tree_kind`].
    pub kind: u8,
    /// Its root.
    pub root: RootItem,
}

/// What a walk meets, each node before its items.
pub enum Met<'a> {
    /// A node.
    Node(&'a Block, Ptr),
    /// An item, and the leaf that has it.
    Item(Key, &'a [u8], Ptr),
    /// A node that is not what its parent says, and why.
    Fault(Ptr, String),
}

/// What a walk shall do after a node.
#[derive(PartialEq, Eq)]
pub enum Go {
    /// Down to what it holds.
    On,
    /// Past it.
    Past,
}

type Visit<'v> = &'v mut dyn FnMut(Met<'_>) -> Go;

impl Reader {
    /// Opens a device or an image, mounted or not.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let device =
            FileDevice::open(path, Access::Read).map_err(|error| format!("{name}: {error}"))?;
        let (block, geometry) =
            super_block::read_newest(&device, true).map_err(|error| format!("{name}: {error}"))?;
        let sb = *super_block::parse(&block).map_err(|error| format!("{name}: {error}"))?;
        Ok(Self {
            device,
            sb,
            geometry,
            path: name,
        })
    }

    /// Reads one block.
    pub fn block(&self, at: u64) -> Result<Box<Block>> {
        let mut block = Box::new([0; 4096]);
        self.device
            .read(BlockNr(at), &mut block)
            .map_err(|error| format!("{}: {error}", self.path))?;
        Ok(block)
    }

    /// The four trees that are not of a subvolume.
    pub fn tree(&self, kind: u8) -> Tree {
        let root = match kind {
            tree_kind::SPACE => self.sb.space,
            tree_kind::REFS => self.sb.refs,
            tree_kind::SWAP => self.sb.swap,
            _ => self.sb.forest,
        };
        Tree { kind, root }
    }

    /// The subvolumes, by id.
    pub fn subvolumes(&self) -> Vec<(u64, ForestItem)> {
        let mut all = Vec::new();
        self.walk(self.tree(tree_kind::FOREST), None, &mut |met| {
            if let Met::Item(key, data, _) = met {
                let item = ForestItem::read_from_prefix(data);
                if let (item_kind::FOREST, Ok((item, _))) = (key.kind, item) {
                    all.push((key.object, item));
                }
            }
            Go::On
        });
        all
    }

    /// The tree of a subvolume, of the default one if `id` is `None`; and its id.
    pub fn subvolume(&self, id: Option<u64>) -> Result<(u64, Tree)> {
        let id = id.unwrap_or(self.sb.default_subvolume.get());
        let all = self.subvolumes();
        let found = all.iter().find(|(other, _)| *other == id);
        let ids: Vec<String> = all.iter().map(|(id, _)| id.to_string()).collect();
        let (_, item) = found.ok_or_else(|| {
            let ids = ids.join(", ");
            format!("{}: there is no subvolume {id}, but: {ids}", self.path)
        })?;
        let tree = Tree {
            kind: tree_kind::SUBVOLUME,
            root: item.root,
        };
        Ok((id, tree))
    }

    /// Shows a tree in ascending order; with `object`, only where keys begin with it.
    pub fn walk(&self, tree: Tree, object: Option<u64>, visit: Visit<'_>) {
        let ptr = Ptr {
            block: BlockNr(tree.root.block.get()),
            generation: Generation(tree.root.generation.get()),
        };
        // No tree has a node twice: what has more nodes than the device blocks goes in circles.
        let mut left = self.geometry.blocks;
        if usize::from(tree.root.level) < MAX_LEVELS {
            self.walk_node(tree.kind, ptr, tree.root.level, object, &mut left, visit);
        } else {
            visit(Met::Fault(ptr, format!("{} levels", tree.root.level)));
        }
    }

    fn walk_node(
        &self,
        kind: u8,
        ptr: Ptr,
        level: u8,
        object: Option<u64>,
        left: &mut u64,
        visit: Visit<'_>,
    ) {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let block = match self.node(kind, ptr, level) {
            Ok(block) => block,
            Err(why) => {
                visit(Met::Fault(ptr, why));
                return;
            }
        };
        if visit(Met::Node(&block, ptr)) == Go::Past {
            return;
        }
        for i in 0..node::count(&block) {
            if level == 0 {
                let Some(key) = node::leaf_key(&block, i) else {
                    break;
                };
                if object.is_none_or(|object| key.object == object) {
                    visit(Met::Item(key, node::leaf_data(&block, i), ptr));
                }
                continue;
            }
            let Some((lower, child)) = node::child(&block, i) else {
                break;
            };
            let upper = node::child(&block, i + 1).map(|(key, _)| key);
            let wanted = object.is_none_or(|object| {
                lower.object <= object && upper.is_none_or(|upper| upper > Key::new(object, 0, 0))
            });
            if wanted {
                self.walk_node(kind, child, level - 1, object, left, visit);
            }
        }
    }

    fn node(&self, tree: u8, ptr: Ptr, level: u8) -> Result<Box<Block>> {
        let block = self.block(ptr.block.0)?;
        let uuid = &self.sb.metadata_uuid;
        let id = Identity {
            uuid,
            ptr,
            tree,
            level,
        };
        match node::check(&block, id) {
            Ok(()) => Ok(block),
            Err(error) => Err(error.to_string()),
        }
    }
}
