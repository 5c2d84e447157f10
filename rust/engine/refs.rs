// SPDX-License-Identifier: GPL-2.0

//! Owners of blocks: nodes of subvolume trees and data.
//!
//! The refs tree has the runs with two owners or more. A mapped block that it does not have has one
//! owner. When the last owner goes, the block is freed. A block whose count fell counts as shared
//! until the transaction in which it fell is durable: overwriting it before would show through to
//! the owner that it has again after a crash. And until nobody reads it any more for the owner that
//! it lost ([`super::readers`]): for so long it cannot be overwritten on a full volume.

use super::device::BlockDevice;
use super::error::{Error, Result};
use super::format::{item_kind, Geometry, RefsItem};
use super::node::Key;
use super::tree::{TreeId, View};
use super::tree_write::Txn;
use super::types::{BlockNr, Run};
use zerocopy::{FromBytes, IntoBytes};

/// A run in the refs tree.
#[derive(Clone, Copy)]
struct Shared {
    run: Run,
    count: u32,
}

fn key(block: u64) -> Key {
    Key::new(block, item_kind::REFS, 0)
}

fn parse(geometry: Geometry, key: &Key, data: &[u8]) -> Result<Shared> {
    let bad = || Error::corrupt(BlockNr(key.object), "refs item");
    let item = RefsItem::read_from_bytes(data).map_err(|_| bad())?;
    let run = Run::new(BlockNr(key.object), item.len.get());
    let fits = geometry.may_hold(run.start.0, run.len);
    if key.kind != item_kind::REFS || key.offset != 0 || item.count.get() < 2 || !fits {
        return Err(bad());
    }
    Ok(Shared {
        run,
        count: item.count.get(),
    })
}

impl<D: BlockDevice> View<'_, D> {
    /// The run of the refs tree that has `block`.
    fn refs_at(&self, block: u64) -> Result<Option<Shared>> {
        let found = self.prev(TreeId::Refs, &key(block), |key, data| {
            parse(self.store.geometry(), key, data)
        })?;
        Ok(found.filter(|found| found.run.end() > block))
    }

    /// How many owners the block at `run.start` has, and how many blocks from there on, within
    /// `run`, have as many.
    pub fn owners(&self, run: Run) -> Result<(u32, u64)> {
        if let Some(found) = self.refs_at(run.start.0)? {
            return Ok((found.count, found.run.end().min(run.end()) - run.start.0));
        }
        let after = self.first(TreeId::Refs, &key(run.start.0), &Key::MAX, |key, data| {
            parse(self.store.geometry(), key, data)
        })?;
        let end = after.map_or(run.end(), |found| found.run.start.0.min(run.end()));
        Ok((1, end - run.start.0))
    }

    /// Whether the block at `start` must not be written in place because of its count, and how
    /// many of the `len` blocks from there on are alike.
    pub fn shared(&self, start: BlockNr, len: u64) -> Result<(bool, u64)> {
        let (count, mut alike) = self.owners(Run::new(start, len))?;
        if count > 1 {
            return Ok((true, alike));
        }
        let older = self.state.fallen.iter().map(|(_, fallen)| fallen);
        for fallen in older.chain([&self.state.unshared]) {
            match fallen.first(start.0, alike) {
                Some((at, n)) if at == start.0 => return Ok((true, n)),
                Some((at, _)) => alike = at - start.0,
                None => {}
            }
        }
        Ok((false, alike))
    }
}

/// Runs of blocks with the same number of owners that one extent is counted in at a time.
const PIECES: usize = 16;

impl<D: BlockDevice> View<'_, D> {
    /// In how many pieces of equal count the shared blocks of `run` are; `most` if it is more.
    pub fn shared_pieces(&self, run: Run, most: usize) -> Result<usize> {
        let (mut at, mut pieces) = (run.start.0, 0);
        while at < run.end() && pieces < most {
            let (count, alike) = self.owners(Run::new(BlockNr(at), run.end() - at))?;
            pieces += usize::from(count > 1);
            at += alike;
        }
        Ok(pieces)
    }

    /// How many of the blocks of `run`, from its first on, one step can count: an extent may be in
    /// as many pieces as it has blocks.
    pub fn countable(&self, run: Run) -> Result<u64> {
        let mut len = 0;
        for _ in 0..PIECES {
            if len >= run.len {
                break;
            }
            let rest = Run::new(BlockNr(run.start.0 + len), run.len - len);
            len += self.owners(rest)?.1;
        }
        Ok(len)
    }
}

impl<D: BlockDevice> Txn<'_, D> {
    /// Every block of `run` gains an owner.
    pub fn share(&mut self, run: Run) -> Result<()> {
        self.count(run, true)
    }

    /// Every block of `run` loses an owner; those without one are free when this is durable.
    pub fn release(&mut self, run: Run) -> Result<()> {
        self.count(run, false)
    }

    /// What the blocks of `from` hold goes to those from `to` on, and so do their owners.
    pub(super) fn move_owners(&mut self, from: Run, to: BlockNr) -> Result<()> {
        let mut at = from.start.0;
        while at < from.end() {
            let rest = Run::new(BlockNr(at), from.end() - at);
            let (count, alike) = self.view().owners(rest)?;
            if count > 1 {
                self.cut(Run::new(BlockNr(at), alike))?;
                let moved = BlockNr(to.0 + (at - from.start.0));
                self.put_refs(Run::new(moved, alike), count)?;
            }
            at += alike;
        }
        Ok(())
    }

    /// A new node has as many owners as the one that it comes from.
    pub(super) fn put_owners(&mut self, node: BlockNr, count: u32) -> Result<()> {
        match count {
            0 | 1 => Ok(()),
            _ => self.put_refs(Run::new(node, 1), count),
        }
    }

    /// Takes the owners of a node away, which nothing points to any more.
    pub(super) fn forget_owners(&mut self, node: BlockNr) -> Result<()> {
        self.cut(Run::new(node, 1))
    }

    fn count(&mut self, run: Run, up: bool) -> Result<()> {
        if !self.store.geometry().may_hold(run.start.0, run.len) {
            return Err(Error::corrupt(run.start, "extent out of bounds"));
        }
        self.state.changes += 1;
        let mut at = run.start.0;
        while at < run.end() {
            let rest = Run::new(BlockNr(at), run.end() - at);
            let (count, alike) = self.view().owners(rest)?;
            self.count_piece(Run::new(BlockNr(at), alike), count, up)?;
            at += alike;
        }
        Ok(())
    }

    /// Counts a piece whose blocks all have `count` owners.
    fn count_piece(&mut self, piece: Run, count: u32, up: bool) -> Result<()> {
        let new = match up {
            true => count.checked_add(1).ok_or(Error::TooManyLinks)?,
            false => count - 1,
        };
        if count > 1 {
            self.cut(piece)?;
        }
        match new {
            0 => return self.state.space.unmap(self.store, piece),
            1 => {
                self.state.unshared.insert(piece.start.0, piece.len)?;
            }
            _ => self.put_refs(piece, new)?,
        }
        Ok(())
    }

    /// Takes `piece`, which is inside one run, out of the refs tree.
    fn cut(&mut self, piece: Run) -> Result<()> {
        let Some(old) = self.view().refs_at(piece.start.0)? else {
            return Ok(());
        };
        self.remove(TreeId::Refs, &key(old.run.start.0))?;
        if old.run.start < piece.start {
            let left = Run::new(old.run.start, piece.start.0 - old.run.start.0);
            self.write_refs(left, old.count)?;
        }
        if old.run.end() > piece.end() {
            let right = Run::new(BlockNr(piece.end()), old.run.end() - piece.end());
            self.write_refs(right, old.count)?;
        }
        Ok(())
    }

    fn write_refs(&mut self, run: Run, count: u32) -> Result<()> {
        let item = RefsItem {
            len: run.len.into(),
            count: count.into(),
            reserved: 0.into(),
        };
        self.put(TreeId::Refs, &key(run.start.0), item.as_bytes())
    }

    /// Puts a run into the refs tree, as one with the neighbours that have the same count.
    fn put_refs(&mut self, mut run: Run, count: u32) -> Result<()> {
        if let Some(next) = self
            .view()
            .refs_at(run.end())?
            .filter(|next| next.count == count)
        {
            self.remove(TreeId::Refs, &key(next.run.start.0))?;
            run.len += next.run.len;
        }
        let before = match run.start.0.checked_sub(1) {
            Some(block) => self.view().refs_at(block)?,
            None => None,
        };
        if let Some(before) = before.filter(|before| before.count == count) {
            self.remove(TreeId::Refs, &key(before.run.start.0))?;
            run = Run::new(before.run.start, before.run.len + run.len);
        }
        self.write_refs(run, count)
    }
}
