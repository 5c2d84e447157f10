// SPDX-License-Identifier: GPL-2.0

//! A disk in memory that records what is written to it, and can lose power at every write.
//!
//! The disk has a volatile cache like a real one: what was written since the last flush may or may
//! not be there after a power cut, each block by itself, and the block being written may be torn
//! at a 512-byte sector. A block written with FUA is durable on return, other blocks stay in
//! the cache. [`SimDisk::history`] gives the recorded history, [`History::cut`] the disks that a cut
//! can leave behind.

use crate::engine::device::{BlockDevice, Write};
use crate::engine::error::{Error, Result};
use crate::engine::types::{BlockNr, Run};
use crate::platform::Block;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the disk was told to do.
#[derive(Debug, Clone)]
pub enum Event {
    /// A block was written to the cache.
    Write(BlockNr, Arc<Block>),
    /// Everything written before became durable.
    Flush,
    /// A block was written through the cache.
    Fua(BlockNr, Arc<Block>),
    /// A test said that from here on something must survive every cut.
    Mark(u64),
}

/// The content of a disk. Blocks that were never written are zeros. Copies share their blocks.
#[derive(Debug, Clone, Default)]
pub struct Image {
    base: Arc<HashMap<u64, Arc<Block>>>,
    changes: HashMap<u64, Arc<Block>>,
}

impl Image {
    /// The content of `block`, or `None` when it was never written.
    pub fn get(&self, block: BlockNr) -> Option<&Arc<Block>> {
        self.changes
            .get(&block.0)
            .or_else(|| self.base.get(&block.0))
    }

    /// Sets the content of `block`.
    pub fn set(&mut self, block: BlockNr, data: Arc<Block>) {
        self.changes.insert(block.0, data);
        // Copies are made for every cut: they must stay cheap.
        if self.changes.len() > 256 {
            self.settle();
        }
    }

    /// The blocks that were ever written.
    pub fn blocks(&self) -> Vec<BlockNr> {
        let mut blocks: Vec<_> = self
            .base
            .keys()
            .chain(self.changes.keys())
            .map(|&b| BlockNr(b))
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    fn settle(&mut self) {
        Arc::make_mut(&mut self.base).extend(self.changes.drain());
    }
}

#[derive(Debug, Default)]
struct State {
    image: Image,
    /// What the disk held when the recording began, and what came after.
    history: Option<History>,
    reads: u64,
    writes: u64,
    flushes: u64,
    /// Writes that still succeed; then every one fails.
    writes_left: Option<u64>,
}

/// A handle of a disk in memory; clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    blocks: u64,
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// A disk of zeros.
    pub fn new(blocks: u64) -> Self {
        Self::with_image(blocks, Image::default())
    }

    /// A disk that holds `image`.
    pub fn with_image(blocks: u64, image: Image) -> Self {
        let state = State {
            image,
            ..State::default()
        };
        Self {
            blocks,
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What the disk holds now, the cache included.
    pub fn image(&self) -> Image {
        self.state().image.clone()
    }

    /// Starts a recording; everything written before counts as durable.
    pub fn record(&self) {
        let mut state = self.state();
        state.image.settle();
        let base = state.image.clone();
        state.history = Some(History {
            blocks: self.blocks,
            base,
            events: Vec::new(),
        });
    }

    /// Puts a mark into the recording.
    pub fn mark(&self, mark: u64) {
        if let Some(history) = &mut self.state().history {
            history.events.push(Event::Mark(mark));
        }
    }

    /// Ends the recording.
    pub fn history(&self) -> Option<History> {
        self.state().history.take()
    }

    /// Number of blocks read so far.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Number of blocks written so far.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// Number of flushes so far.
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// Lets `count` more blocks be written, then every write fails; `None` lets all be written.
    pub fn fail_writes_after(&self, count: Option<u64>) {
        self.state().writes_left = count;
    }

    /// Changes one block behind the filesystem's back.
    pub fn damage(&self, block: BlockNr, change: impl FnOnce(&mut Block)) {
        let mut state = self.state();
        let mut data = state.image.get(block).map_or([0; 4096], |data| **data);
        change(&mut data);
        state.image.set(block, Arc::new(data));
    }

    fn store(&self, write: &Write<'_>, fua: bool) -> Result<()> {
        if write.block.0 >= self.blocks {
            return Err(Error::Io(write.block));
        }
        let mut state = self.state();
        if let Some(left) = &mut state.writes_left {
            *left = left.checked_sub(1).ok_or(Error::Io(write.block))?;
        }
        let data = Arc::new(*write.data);
        state.writes += 1;
        state.image.set(write.block, data.clone());
        if let Some(history) = &mut state.history {
            let make = if fua { Event::Fua } else { Event::Write };
            history.events.push(make(write.block, data));
        }
        Ok(())
    }
}

impl BlockDevice for SimDisk {
    fn name(&self) -> &dyn Display {
        &"simulated disk"
    }

    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&self, block: BlockNr, data: &mut Block) -> Result<()> {
        if block.0 >= self.blocks {
            return Err(Error::Io(block));
        }
        let mut state = self.state();
        state.reads += 1;
        match state.image.get(block) {
            Some(found) => *data = **found,
            None => data.fill(0),
        }
        Ok(())
    }

    fn write(&self, writes: &[Write<'_>]) -> Result<()> {
        writes.iter().try_for_each(|write| self.store(write, false))
    }

    fn flush(&self) -> Result<()> {
        let mut state = self.state();
        state.flushes += 1;
        if let Some(history) = &mut state.history {
            history.events.push(Event::Flush);
        }
        Ok(())
    }

    fn write_durable(&self, write: Write<'_>) -> Result<()> {
        self.store(&write, true)
    }

    fn discard(&self, _run: Run) {}
}

/// What was done to a disk since its recording began.
#[derive(Debug, Clone)]
pub struct History {
    blocks: u64,
    base: Image,
    events: Vec<Event>,
}

/// A moment at which the power is cut: some events are done, the writes in the cache may be lost.
#[derive(Debug)]
pub struct Cut {
    blocks: u64,
    /// What is durable.
    durable: Image,
    /// What is in the cache, in the order of writing.
    pub cached: Vec<(BlockNr, Arc<Block>)>,
    /// The last mark before the cut.
    pub mark: Option<u64>,
}

impl History {
    /// The recorded events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The same history on a disk that ignores flushes.
    pub fn without_flushes(&self) -> Self {
        let ignored = |event: &&Event| !matches!(event, Event::Flush);
        Self {
            events: self.events.iter().filter(ignored).cloned().collect(),
            ..self.clone()
        }
    }

    /// Calls `f` for the cut after each write, flush and FUA, and for the one before the first.
    pub fn cuts(&self, mut f: impl FnMut(usize, &Cut)) {
        let mut cut = Cut {
            blocks: self.blocks,
            durable: self.base.clone(),
            cached: Vec::new(),
            mark: None,
        };
        f(0, &cut);
        for (index, event) in self.events.iter().enumerate() {
            match event {
                Event::Write(block, data) => cut.cached.push((*block, data.clone())),
                Event::Flush => {
                    for (block, data) in cut.cached.drain(..) {
                        cut.durable.set(block, data);
                    }
                }
                Event::Fua(block, data) => {
                    // While it is under way it may be there, torn or not at all.
                    cut.cached.push((*block, data.clone()));
                    f(index, &cut);
                    cut.cached.retain(|(cached, _)| cached != block);
                    cut.durable.set(*block, data.clone());
                }
                Event::Mark(mark) => {
                    cut.mark = Some(*mark);
                    continue;
                }
            }
            f(index + 1, &cut);
        }
    }
}

impl Cut {
    /// The disk after the cut, when `keep` says for each cached write how much of it arrived:
    /// the number of its 512-byte sectors, from the first, 0 to 8.
    pub fn disk(&self, mut keep: impl FnMut(usize) -> usize) -> SimDisk {
        let mut image = self.durable.clone();
        for (index, (block, data)) in self.cached.iter().enumerate() {
            match keep(index) {
                0 => {}
                8.. => image.set(*block, data.clone()),
                sectors => {
                    let mut torn = image.get(*block).map_or([0; 4096], |old| **old);
                    let end = sectors * 512;
                    torn[..end].copy_from_slice(&data[..end]);
                    image.set(*block, Arc::new(torn));
                }
            }
        }
        SimDisk::with_image(self.blocks, image)
    }
}
