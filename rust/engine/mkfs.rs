// SPDX-License-Identifier: GPL-2.0

//! Making a volume: four trees and a subvolume with an empty root directory, in one commit.

use super::device::{BlockDevice, Write};
use super::error::{Error, Result};
use super::format::{
    state as volume_state, ForestItem, Geometry, RootItem, SuperBlock, CHECKSUM_CRC32C,
    GROUP_BLOCKS, SUPER_MAGIC, VERSION,
};
use super::inode;
use super::mount::MountOptions;
use super::node::{self, Identity, Ptr};
use super::super_block;
use super::tree::{Root, TreeId};
use super::types::{
    Attr, BlockNr, Generation, InodeId, SubvolId, Time, BLOCK_SHIFT, FIRST_INO, ROOT_INO,
};
use super::volume::{Cost, Subvol, Volume};
use crate::platform::{zeroed_block, Block};

/// What to make.
pub struct MkfsOptions<'a> {
    /// The volume's uuid.
    pub uuid: [u8; 16],
    /// UTF-8, at most 255 bytes.
    pub label: &'a [u8],
    /// Key of the hashes of names: random.
    pub hash_seed: [u8; 16],
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// Now.
    pub time: Time,
}

/// What was made.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Size in blocks.
    pub blocks: u64,
    /// Number of groups.
    pub groups: u64,
    /// Free blocks.
    pub free: u64,
}

/// Makes a volume of the whole device. What the device held is lost.
///
/// `Invalid` if the device is smaller than 16 MiB or the label too long.
pub fn format<D: BlockDevice>(dev: D, options: &MkfsOptions<'_>) -> Result<Summary> {
    let geometry = Geometry::for_device(dev.blocks()).ok_or(Error::Invalid(
        "the device is smaller than 16 MiB, or larger than 2^50 bytes",
    ))?;
    if options.label.len() > 255 {
        return Err(Error::Invalid("the label is longer than 255 bytes"));
    }
    wipe(&dev, geometry)?;
    // A volume with trees that are not written yet: the first commit writes them.
    let bootstrap = first_super_block(geometry, options)?;
    let volume = Volume::with_empty_trees(dev, geometry, bootstrap)?;
    volume.make_trees()?;
    volume.make_root(options)?;
    volume.commit()?;
    // The second commit fills the other slot.
    volume.remount(true)?;
    let space = volume.statfs();
    Ok(Summary {
        blocks: geometry.blocks,
        groups: geometry.groups(),
        free: space.free,
    })
}

/// Removes every earlier super block, so that a crash in between leaves nothing to mount.
fn wipe<D: BlockDevice>(dev: &D, geometry: Geometry) -> Result<()> {
    let zeros = zeroed_block()?;
    let copies = geometry.super_copies().map(|at| Write {
        block: BlockNr(at),
        data: &zeros,
    });
    dev.write(&copies)?;
    dev.write(&[Write {
        block: BlockNr(0),
        data: &zeros,
    }])?;
    dev.flush()
}

fn first_super_block(
    geometry: Geometry,
    options: &MkfsOptions<'_>,
) -> Result<crate::platform::Box<Block>> {
    let mut block = zeroed_block()?;
    let sb: &mut SuperBlock = super_block::parse_mut(&mut block)?;
    sb.magic = SUPER_MAGIC;
    sb.uuid = options.uuid;
    sb.metadata_uuid = options.uuid;
    sb.version = VERSION.into();
    sb.checksum = CHECKSUM_CRC32C;
    sb.block_shift = BLOCK_SHIFT as u8;
    sb.node_shift = BLOCK_SHIFT as u8;
    sb.group_shift = GROUP_BLOCKS.trailing_zeros() as u8;
    sb.blocks = geometry.blocks.into();
    sb.state = volume_state::CLEAN.into();
    sb.hash_seed = options.hash_seed;
    sb.next_subvolume = 1.into();
    sb.devices = 1.into();
    // "The last one was written to slot B": the first goes to A.
    sb.block = geometry.mirror(1).into();
    for (to, from) in sb.label.iter_mut().zip(options.label) {
        *to = *from;
    }
    Ok(block)
}

impl<D: BlockDevice> Volume<D> {
    /// Puts an empty leaf below every root.
    fn make_trees(&self) -> Result<()> {
        let trees = [
            TreeId::Forest,
            TreeId::Space,
            TreeId::Refs,
            TreeId::Swap,
            TreeId::Subvol(SubvolId(0)),
        ];
        let mut state = self.state.write();
        for tree in trees {
            let mut data = zeroed_block()?;
            let block = state.space.take_node(&self.store)?;
            let ptr = Ptr {
                block,
                generation: state.generation,
            };
            let id = Identity {
                uuid: &self.store.uuid,
                ptr,
                tree: tree.kind(),
                level: 0,
            };
            node::init(&mut data, id, tree.owner());
            state.dirty.insert(block.0, data)?;
            state.changes += 1;
            let root = Root { ptr, level: 0 };
            match tree {
                TreeId::Forest => state.forest = root,
                TreeId::Space => state.space_root = root,
                TreeId::Refs => state.refs = root,
                TreeId::Swap => state.swap = root,
                TreeId::Subvol(id) => {
                    let subvol = Subvol {
                        root,
                        last_snapshot: Generation(0),
                        next_ino: FIRST_INO.0,
                        item: ForestItem {
                            parent: u64::MAX.into(),
                            ..ForestItem::default()
                        },
                        dirty: true,
                    };
                    state.subvols.insert(id.0, subvol)?;
                }
            }
        }
        Ok(())
    }

    fn make_root(&self, options: &MkfsOptions<'_>) -> Result<()> {
        let time = options.time;
        let attr = Attr {
            mode: 0o040755,
            uid: options.uid,
            gid: options.gid,
            nlink: 2,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            ..Attr::default()
        };
        let root = InodeId {
            subvol: SubvolId(0),
            ino: ROOT_INO,
        };
        self.update(Cost::SMALL, |txn| {
            let subvol = txn.subvol_mut(root.subvol)?;
            subvol.item.uuid = options.uuid;
            subvol.item.created_sec = (time.sec as u64).into();
            subvol.item.created_nsec = time.nsec.into();
            inode::store(txn, root, &attr)
        })?;
        Ok(())
    }

    fn with_empty_trees(
        dev: D,
        geometry: Geometry,
        bootstrap: crate::platform::Box<Block>,
    ) -> Result<Self> {
        debug_assert_eq!(super_block::parse(&bootstrap)?.forest, RootItem::default());
        Self::assemble(dev, geometry, bootstrap, &MountOptions::default())
    }
}
