// SPDX-License-Identifier: GPL-2.0

//! The rules that take more than one changed field to break: what is damaged, the rules that it
//! breaks, and those that a repair leaves broken, since putting them right would be a guess.

use super::*;
use oxfs::engine::format::{DiskKey, XattrItem};
use oxfs::engine::types::INODE_SWAP;
use oxfs::engine::{Cost, TreeId};

pub type Case = (
    &'static str,
    Damage,
    &'static [&'static str],
    &'static [&'static str],
);

const SUBVOL: TreeId = TreeId::Subvol(oxfs::engine::types::SubvolId(0));

/// Changes all copies of the super block.
fn supers(disk: &SimDisk, f: impl Fn(&mut SuperBlock)) {
    for at in Geometry::of_volume(SMALL).expect("geometry").super_copies() {
        disk.damage(BlockNr(at), |block| {
            f(super_block::parse_mut(block).expect("super block"));
            super_block::seal(block, at).expect("seal");
        });
    }
}

/// Writes an item that no operation would write.
fn put(disk: &SimDisk, tree: TreeId, key: Key, data: &[u8]) {
    let volume = mount(disk);
    volume
        .update(Cost::SMALL, |txn| txn.put(tree, &key, data))
        .expect("put");
    volume.unmount().expect("unmount");
}

fn remove(disk: &SimDisk, tree: TreeId, key: Key) {
    let volume = mount(disk);
    let gone = volume.update(Cost::SMALL, |txn| txn.remove(tree, &key));
    assert!(gone.expect("remove").value);
    volume.unmount().expect("unmount");
}

/// Changes the key of the first item that `wanted` accepts.
fn rekey(disk: &SimDisk, tree: u8, wanted: impl Fn(Key) -> bool, f: impl FnOnce(&mut DiskKey)) {
    let (block, slot) = leaf(disk, tree, |key, _| wanted(key));
    disk.damage(block, |block| {
        let at = 64 + slot * 22;
        f(DiskKey::mut_from_bytes(&mut block[at..at + 17]).expect("key"));
        node::seal(block);
    });
}

/// Changes the extent at `offset` of `file`, which nobody shares.
fn extent(disk: &SimDisk, ino: u64, offset: u64, f: impl FnOnce(&mut ExtentItem)) {
    let (block, slot) = leaf(disk, tree_kind::SUBVOLUME, |key, _| {
        key.object == ino && key.kind == item_kind::EXTENT && key.offset == offset
    });
    disk.damage(block, |block| {
        let data = node::leaf_data_mut(block, slot);
        f(ExtentItem::mut_from_bytes(data).expect("extent"));
        node::seal(block);
    });
}

/// Changes the entry in the root directory that names `ino`.
fn entry(disk: &SimDisk, ino: u64, f: impl FnOnce(&mut DirentItem)) {
    let (block, slot) = leaf(disk, tree_kind::SUBVOLUME, |key, data| {
        let named = DirentItem::read_from_prefix(data).map_or(0, |(item, _)| item.ino.get());
        key.kind == item_kind::DIRENT && named == ino
    });
    disk.damage(block, |block| {
        let data = node::leaf_data_mut(block, slot);
        f(DirentItem::mut_from_prefix(data).expect("entry").0);
        node::seal(block);
    });
}

/// The key and the value of the item that `wanted` accepts.
fn item(disk: &SimDisk, tree: u8, wanted: impl Fn(Key) -> bool) -> (Key, Vec<u8>) {
    let (at, slot) = leaf(disk, tree, |key, _| wanted(key));
    let block = read(disk, at.0);
    let key = node::leaf_key(&block, slot).expect("key");
    (key, node::leaf_data(&block, slot).to_vec())
}

fn refs_item(len: u64) -> RefsItem {
    RefsItem {
        len: len.into(),
        count: 2.into(),
        ..RefsItem::default()
    }
}

/// More files than fit into one leaf.
fn many_files(disk: &SimDisk) {
    let volume = mount(disk);
    for i in 0..100 {
        let name = format!("one of many files, number {i}");
        let new = new_inode(0o100644, at(3));
        volume
            .create(root(&volume), name.as_bytes(), &new)
            .expect("create");
    }
    volume.unmount().expect("unmount");
}

pub const MORE: &[Case] = &[
    (
        "generation of a bitmap",
        |disk, _| {
            let (sb, future) = (newest(disk), Generation(1 << 60));
            let places = Geometry::of_volume(SMALL)
                .expect("geometry")
                .bitmap_places(0);
            let bits = places.map(|place| read(disk, place));
            change(
                disk,
                tree_kind::SPACE,
                item_kind::SPACE,
                0,
                |item: &mut SpaceItem| {
                    let i = usize::from(item.place);
                    item.generation = future.0.into();
                    item.crc = bitmap_crc(&sb.metadata_uuid, places[i], future, &bits[i]).into();
                },
            );
        },
        &["bitmap-generation"],
        &[],
    ),
    (
        "a directory with two names",
        |disk, ids| {
            entry(disk, ids.copy, |item| {
                item.ino = ids.dir.into();
                item.kind = 4;
            });
        },
        &["dir-names", "parent-missing", "parent-stale", "link-count"],
        &["dir-names"],
    ),
    (
        "a removed directory with entries",
        |disk, ids| inode(disk, ids.dir, |item| item.nlink = 0.into()),
        &["dir-removed", "link-count", "orphan-unlisted"],
        &[],
    ),
    (
        "the entry of a directory",
        |disk, ids| entry(disk, ids.dir, |item| item.ino = 999.into()),
        &[
            "dirent-dangling",
            "parent-missing",
            "parent-stale",
            "link-count",
            "dir-unreachable",
        ],
        &[],
    ),
    (
        "flags of an entry",
        |disk, ids| entry(disk, ids.copy, |item| item.flags = 1),
        &["dirent-fields", "parent-stale", "link-count", "dir-size"],
        &["dirent-fields"],
    ),
    (
        "generation of an extent",
        |disk, ids| {
            extent(disk, ids.file, 20, |item| {
                item.generation = (1 << 60).into()
            })
        },
        &["extent-generation"],
        &["extent-generation"],
    ),
    (
        "length of an extent",
        |disk, ids| extent(disk, ids.file, 20, |item| item.len = 0.into()),
        &["extent-length", "inode-blocks", "bitmap-leak", "super-free"],
        &["extent-length", "inode-blocks", "bitmap-leak", "super-free"],
    ),
    (
        "blocks of an extent",
        |disk, ids| extent(disk, ids.file, 20, |item| item.at = 1.into()),
        &["extent-run", "inode-blocks", "bitmap-leak", "super-free"],
        &["extent-run", "inode-blocks", "bitmap-leak", "super-free"],
    ),
    (
        "an extent over another",
        |disk, ids| {
            let wanted = |key: Key| key.object == ids.file && key.offset == 20;
            rekey(disk, tree_kind::SUBVOLUME, wanted, |key| {
                key.offset = 5.into()
            });
        },
        &["extent-overlap"],
        &["extent-overlap"],
    ),
    (
        "the default subvolume",
        |disk, _| {
            supers(disk, |sb| {
                sb.default_subvolume = 5.into();
                sb.next_subvolume = 6.into();
            });
        },
        &["forest-default"],
        &["forest-default"],
    ),
    (
        "flags of a subvolume",
        |disk, _| {
            change(
                disk,
                tree_kind::FOREST,
                item_kind::FOREST,
                0,
                |item: &mut ForestItem| {
                    item.flags = 64.into();
                },
            );
        },
        &["forest-flags"],
        &["forest-flags"],
    ),
    (
        "last snapshot of a subvolume",
        |disk, _| {
            change(
                disk,
                tree_kind::FOREST,
                item_kind::FOREST,
                0,
                |item: &mut ForestItem| {
                    item.last_snapshot = (1 << 60).into();
                },
            );
        },
        &["forest-generation"],
        &["forest-generation"],
    ),
    (
        "number of the next subvolume",
        |disk, _| {
            let volume = mount(disk);
            common::snapshot(&volume, b"snapshot");
            volume.unmount().expect("unmount");
            supers(disk, |sb| sb.next_subvolume = 1.into());
        },
        &["forest-number"],
        &[],
    ),
    (
        "number of the next subvolume, too high",
        |disk, _| supers(disk, |sb| sb.next_subvolume = (1 << 25).into()),
        &["super-subvolume"],
        &["super-subvolume"],
    ),
    (
        "number of the next inode, too low",
        |disk, _| {
            change(
                disk,
                tree_kind::FOREST,
                item_kind::FOREST,
                0,
                |item: &mut ForestItem| item.next_ino = 7.into(),
            );
        },
        &["forest-inode", "inode-number"],
        &["forest-inode", "inode-number"],
    ),
    (
        "size of a file",
        |disk, ids| inode(disk, ids.file, |item| item.size = u64::MAX.into()),
        &["inode-bounds"],
        &["inode-bounds"],
    ),
    (
        "kind of an inode item",
        |disk, ids| {
            let wanted = |key: Key| key.object == ids.dead;
            rekey(disk, tree_kind::SUBVOLUME, wanted, |key| {
                key.kind = item_kind::PARENT
            });
        },
        &["inode-missing", "item-size", "orphan-missing"],
        &["inode-missing", "item-size"],
    ),
    (
        "a run of the swap tree over a node that is walked later",
        |disk, _| {
            let (node, _) = leaf(disk, tree_kind::SUBVOLUME, |_, _| true);
            change(
                disk,
                tree_kind::SWAP,
                item_kind::SWAP,
                0,
                |item: &mut ExtentItem| item.at = node.0.into(),
            );
        },
        &[
            "node-data",
            "block-owners",
            "swap-shared",
            "bitmap-leak",
            "super-free",
        ],
        &[
            "node-data",
            "block-owners",
            "swap-shared",
            "bitmap-leak",
            "super-free",
        ],
    ),
    (
        "an extent over a node that was walked before",
        |disk, ids| {
            let (node, _) = leaf(disk, tree_kind::FOREST, |_, _| true);
            change(
                disk,
                tree_kind::SUBVOLUME,
                item_kind::EXTENT,
                ids.copy,
                |item: &mut ExtentItem| item.at = node.0.into(),
            );
        },
        &["node-data", "block-owners", "bitmap-free", "super-free"],
        &["node-data", "block-owners", "bitmap-free", "super-free"],
    ),
    (
        "mode of an inode",
        |disk, ids| inode(disk, ids.dead, |item| item.mode = 0.into()),
        &["inode-mode", "orphan-missing"],
        &["inode-mode", "orphan-missing"],
    ),
    (
        "kind of an item",
        |disk, _| {
            rekey(
                disk,
                tree_kind::SWAP,
                |key| key.offset > 0,
                |key| key.kind = 9,
            )
        },
        &["item-kind", "bitmap-leak", "super-free"],
        &["item-kind", "bitmap-leak", "super-free"],
    ),
    (
        "an entry of the same name",
        |disk, ids| {
            let wanted = |key: Key| key.object == ids.dir && key.kind == item_kind::DIRENT;
            let (key, data) = item(disk, tree_kind::SUBVOLUME, wanted);
            let offset = key.offset + 1;
            put(disk, SUBVOL, Key { offset, ..key }, &data);
        },
        &["name-twice", "dir-size", "link-count", "parent-missing"],
        &["name-twice"],
    ),
    (
        "bounds of a node",
        |disk, _| {
            many_files(disk);
            disk.damage(
                BlockNr(root_of(disk, tree_kind::SUBVOLUME).block.get()),
                |block| {
                    // The second slot's key, one more: the first key below is less.
                    let at = 64 + 33 + 8;
                    let offset = u64::from_le_bytes(block[at..at + 8].try_into().expect("eight"));
                    block[at..at + 8].copy_from_slice(&(offset + 1).to_le_bytes());
                    node::seal(block);
                },
            );
        },
        &["node-bounds", "dir-size"],
        &["node-bounds", "dir-size"],
    ),
    (
        "generation of the super block",
        |disk, _| {
            supers(disk, |sb| sb.generation = 1.into());
        },
        &["node-generation", "bitmap-generation", "extent-generation"],
        &["node-generation", "bitmap-generation", "extent-generation"],
    ),
    (
        "root of the refs tree",
        |disk, _| supers(disk, |sb| sb.refs.block = 3.into()),
        &["node-place"],
        &[],
    ),
    (
        "height of the space tree",
        |disk, _| supers(disk, |sb| sb.space.level = 200),
        &["tree-height"],
        &[],
    ),
    (
        "an orphan that is not there",
        |disk, _| {
            let item = OrphanItem { size: 5.into() };
            put(
                disk,
                SUBVOL,
                Key::new(0, item_kind::ORPHAN, 999),
                item.as_bytes(),
            );
        },
        &["orphan-missing"],
        &[],
    ),
    (
        "an orphan that is not listed",
        |disk, ids| remove(disk, SUBVOL, Key::new(0, item_kind::ORPHAN, ids.dead)),
        &["orphan-unlisted"],
        &[],
    ),
    (
        "a shared run over another",
        |disk, ids| {
            let key = Key::new(first_extent(disk, ids.file) + 4, item_kind::REFS, 0);
            put(disk, TreeId::Refs, key, refs_item(2).as_bytes());
        },
        &["refs-overlap"],
        &[],
    ),
    (
        "a shared run of fixed blocks",
        |disk, _| {
            let key = Key::new(1, item_kind::REFS, 0);
            put(disk, TreeId::Refs, key, refs_item(5).as_bytes());
        },
        &["refs-run"],
        &[],
    ),
    (
        "the root directory",
        |disk, _| remove(disk, SUBVOL, Key::new(2, item_kind::INODE, 0)),
        &["inode-missing", "root-missing", "dir-unreachable"],
        &["inode-missing", "root-missing", "dir-unreachable"],
    ),
    (
        "the group of a space item",
        |disk, _| {
            rekey(
                disk,
                tree_kind::SPACE,
                |_| true,
                |key| key.object = 77.into(),
            )
        },
        &["space-group", "space-missing"],
        &[],
    ),
    (
        "reserved bytes of the super block",
        |disk, _| supers(disk, |sb| sb.reserved[7] = 1),
        &["super-reserved"],
        &["super-reserved"],
    ),
    (
        "swap flag of a directory",
        |disk, ids| inode(disk, ids.dir, |item| item.flags = INODE_SWAP.into()),
        &["swap-flag"],
        &["swap-flag"],
    ),
    (
        "a run of a swapfile over another",
        |disk, ids| {
            let last = |key: Key| key.offset > 0;
            let (key, data) = item(disk, tree_kind::SWAP, last);
            let mut extent = ExtentItem::read_from_bytes(&data).expect("extent");
            extent.at = (extent.at.get() + 3).into();
            extent.len = 1.into();
            let offset = key.offset + 1;
            assert_eq!(key.object, ids.swap);
            put(disk, TreeId::Swap, Key { offset, ..key }, extent.as_bytes());
        },
        &["swap-overlap", "swap-shared", "block-owners"],
        &["swap-overlap", "swap-shared"],
    ),
    (
        "state of a swapfile's run",
        |disk, _| {
            change(
                disk,
                tree_kind::SWAP,
                item_kind::SWAP,
                0,
                |item: &mut ExtentItem| {
                    item.at = 0.into();
                    item.state = extent_state::UNBACKED;
                },
            );
        },
        &["swap-state", "bitmap-leak", "super-free"],
        &["swap-state", "bitmap-leak", "super-free"],
    ),
    (
        "a piece of a symbolic link",
        |disk, ids| {
            let wanted = |key: Key| key.object == ids.link && key.kind == item_kind::SYMLINK;
            rekey(disk, tree_kind::SUBVOLUME, wanted, |key| {
                key.offset = 1.into()
            });
        },
        &["symlink-pieces"],
        &["symlink-pieces"],
    ),
    (
        "name of an attribute",
        |disk, ids| {
            let kind = item_kind::XATTR;
            change(
                disk,
                tree_kind::SUBVOLUME,
                kind,
                ids.file,
                |item: &mut XattrItem| {
                    item.name_len = 0;
                },
            );
        },
        &["xattr-fields"],
        &["xattr-fields"],
    ),
];

/// A disk with a block that cannot be read.
pub struct Unreadable {
    pub disk: SimDisk,
    pub bad: BlockNr,
}

impl BlockDevice for Unreadable {
    fn name(&self) -> &dyn std::fmt::Display {
        &"disk with a bad block"
    }

    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }

    fn read(&self, block: BlockNr, data: &mut Block) -> oxfs::engine::Result<()> {
        if block == self.bad {
            return Err(oxfs::engine::Error::Io(block));
        }
        self.disk.read(block, data)
    }

    fn write(&self, writes: &[Write<'_>]) -> oxfs::engine::Result<()> {
        self.disk.write(writes)
    }

    fn flush(&self) -> oxfs::engine::Result<()> {
        self.disk.flush()
    }

    fn write_durable(&self, write: Write<'_>) -> oxfs::engine::Result<()> {
        self.disk.write_durable(write)
    }

    fn discard(&self, _run: oxfs::engine::types::Run) {}
}
