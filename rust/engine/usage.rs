// SPDX-License-Identifier: GPL-2.0

//! What the space of a volume is used for, as far as that is known without reading all of it.

use super::device::BlockDevice;
use super::error::Result;
use super::extent;
use super::node::Key;
use super::subvolume::TOP;
use super::tree::TreeId;
use super::types::{Generation, SubvolId};
use super::volume::Volume;
use core::ops::ControlFlow;

/// Space, in blocks of 4096 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Size of the volume.
    pub blocks: u64,
    /// Blocks that nothing maps.
    pub free: u64,
    /// Blocks that data can have.
    pub available: u64,
    /// Blocks that were freed and come back with the next commit.
    pub pinned: u64,
    /// Blocks that are promised to data.
    pub reserved: u64,
    /// Blocks that are kept back so that a full volume can still delete.
    pub metadata_reserve: u64,
    /// Private blocks of swapfiles.
    pub swap: u64,
    /// Subvolumes, those that are being dropped too.
    pub subvolumes: u64,
    /// The running transaction.
    pub generation: Generation,
}

impl<D: BlockDevice> Volume<D> {
    /// What is known cheaply: the cost follows the number of subvolumes and of swapfiles' extents.
    pub fn usage(&self) -> Result<Usage> {
        let stat = self.statfs();
        let (mut subvolumes, mut from) = (0u64, TOP);
        while let Some(info) = self.next_subvolume(from)? {
            subvolumes = subvolumes.saturating_add(1);
            from = SubvolId(info.id.0.saturating_add(1));
        }
        self.query(|view| {
            let mut swap = 0u64;
            view.scan(TreeId::Swap, &Key::MIN, &Key::MAX, |key, data| {
                let extent = extent::decode(view.store.geometry(), key, data)?;
                swap = swap.saturating_add(extent.run().map_or(0, |run| run.len));
                Ok(ControlFlow::Continue(()))
            })?;
            let space = &view.state.space;
            Ok(Usage {
                blocks: stat.blocks,
                free: stat.free,
                available: stat.available,
                pinned: space.pinned(),
                reserved: space.reserved(),
                metadata_reserve: view.state.metadata_reserve(view.store.geometry()),
                swap,
                subvolumes,
                generation: view.state.generation,
            })
        })
    }
}
