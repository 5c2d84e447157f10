// SPDX-License-Identifier: GPL-2.0

//! Reading tree nodes: the device, and a cache of nodes that were checked once.
//!
//! A node in the cache never changes: changing one makes a new one at another place. A node that a
//! commit is writing is pinned here until that commit is durable.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::Geometry;
use super::node::{self, Identity};
use super::types::BlockNr;
use crate::platform::{mutex, new_arc, zeroed_block, Arc, Block, Box, Map, Mutex};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A node that does not change any more.
pub type Clean = Arc<Box<Block>>;

/// Nodes that the cache keeps unless memory is short: 64 MiB.
const CACHE_NODES: usize = 16384;

struct Entry {
    node: Clean,
    used: bool,
    pinned: bool,
}

#[derive(Default)]
struct Cache {
    nodes: Map<u64, Entry>,
    /// Where the search for something to evict goes on.
    hand: u64,
}

impl Cache {
    /// Evicts up to `want` nodes that were not used since the hand last came by.
    fn evict(&mut self, want: usize) -> usize {
        let mut evicted = 0;
        // Bounded, since all that it meets may be pinned or in use.
        for _ in 0..self.nodes.len().min(want.saturating_mul(4)) {
            if evicted >= want {
                break;
            }
            let next = self
                .nodes
                .at_or_after(&self.hand)
                .or_else(|| self.nodes.first());
            let Some((block, _)) = next else { break };
            self.hand = block.saturating_add(1);
            let Some(entry) = self.nodes.get_mut(&block) else {
                break;
            };
            if !entry.used && !entry.pinned {
                self.nodes.remove(&block);
                evicted += 1;
            } else {
                entry.used = false;
            }
        }
        evicted
    }
}

/// The device and what was read from it.
pub struct Store<D> {
    /// The device.
    pub dev: D,
    /// Size of the volume in blocks. It changes with the state lock held exclusively.
    blocks: AtomicU64,
    /// `SuperBlock::metadata_uuid`.
    pub uuid: [u8; 16],
    cache: Mutex<Cache>,
    /// Number of nodes in the cache, for whoever must not wait: reclaim asks for it while the lock
    /// is held by a task that allocates.
    count: AtomicUsize,
}

impl<D: BlockDevice> Store<D> {
    /// A store of a device whose super block was read.
    pub fn new(dev: D, geometry: Geometry, uuid: [u8; 16]) -> Result<Self> {
        Ok(Self {
            dev,
            blocks: AtomicU64::new(geometry.blocks),
            uuid,
            cache: mutex!(Cache::default(), "oxfs node cache")?,
            count: AtomicUsize::new(0),
        })
    }

    /// Where everything fixed is.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            blocks: self.blocks.load(Relaxed),
        }
    }

    /// The volume's size changes.
    pub(super) fn set_geometry(&self, geometry: Geometry) {
        self.blocks.store(geometry.blocks, Relaxed);
    }

    /// The node that `id` expects.
    pub fn node(&self, id: Identity<'_>) -> Result<Clean> {
        let block = id.ptr.block;
        if !self.geometry().may_hold(block.0, 1) {
            return Err(Error::corrupt(block, "pointer to a place for no node"));
        }
        if let Some(entry) = self.cache.lock().nodes.get_mut(&block.0) {
            let same = node::generation(&entry.node) == id.ptr.generation
                && node::level(&entry.node) == id.level
                && node::tree(&entry.node) == id.tree;
            if !same {
                return Err(Error::corrupt(block, "node with two identities"));
            }
            entry.used = true;
            return Ok(entry.node.clone());
        }
        let mut data = zeroed_block()?;
        self.dev.read(block, &mut data)?;
        node::check(&data, id)?;
        let clean = new_arc(data)?;
        self.keep(block, clean.clone(), false)?;
        Ok(clean)
    }

    /// Puts a node into the cache.
    pub fn keep(&self, block: BlockNr, node: Clean, pinned: bool) -> Result<()> {
        let mut cache = self.cache.lock();
        if cache.nodes.len() >= CACHE_NODES {
            cache.evict(64);
        }
        cache.nodes.insert(
            block.0,
            Entry {
                node,
                used: true,
                pinned,
            },
        )?;
        self.count.store(cache.nodes.len(), Relaxed);
        Ok(())
    }

    /// Lets the cache evict a node that [`Store::keep`] pinned.
    pub fn unpin(&self, block: BlockNr) {
        if let Some(entry) = self.cache.lock().nodes.get_mut(&block.0) {
            entry.pinned = false;
        }
    }

    /// Drops the node of a block that was freed.
    pub fn forget(&self, block: BlockNr) {
        let mut cache = self.cache.lock();
        cache.nodes.remove(&block.0);
        self.count.store(cache.nodes.len(), Relaxed);
    }

    /// Number of nodes in the cache. Does not wait.
    pub fn cached(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Evicts up to `want` nodes and returns how many went. Does not wait: who has the lock may be
    /// waiting for memory, and for the caller to find some.
    pub fn shrink(&self, want: usize) -> usize {
        let Some(mut cache) = self.cache.try_lock() else {
            return 0;
        };
        let evicted = cache.evict(want);
        self.count.store(cache.nodes.len(), Relaxed);
        evicted
    }
}
