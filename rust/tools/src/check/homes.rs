// SPDX-License-Identifier: GPL-2.0

//! Subvolumes against the directories that stand for them.
//!
//! A subvolume that was not deleted, other than the top level, has one home: a directory of another
//! one that is marked for it and has no entries. A marked directory that is nobody's home is what
//! a snapshot copied; nothing more is asked of it.

use super::Checker;
use crate::engine::format::ForestItem;
use crate::engine::types::{Ino, InodeId, SubvolId};
use std::collections::HashMap;

/// Bit 1 of a forest item's flags: the subvolume is being dropped.
const DROPPED: u64 = 2;

/// A directory that was made to stand for a subvolume.
pub struct Stand {
    /// The subvolume.
    pub subvol: u64,
    /// Number of entries.
    pub entries: u64,
    /// Whether it has a name.
    pub named: bool,
    /// The leaf that has its inode.
    pub node: u64,
}

fn home(item: &ForestItem) -> Option<InodeId> {
    let id = InodeId {
        subvol: SubvolId(item.home_subvolume.get()),
        ino: Ino(item.home_ino.get()),
    };
    (id.ino.0 != 0).then_some(id)
}

fn dropped(item: &ForestItem) -> bool {
    item.flags.get() & DROPPED != 0
}

impl Checker<'_> {
    /// Compares every subvolume with its home.
    pub fn homes(&mut self, forest: &[(u64, ForestItem)]) {
        let items: HashMap<u64, &ForestItem> =
            forest.iter().map(|(id, item)| (*id, item)).collect();
        let stands = std::mem::take(&mut self.stands);
        for (id, item) in forest {
            match home(item) {
                Some(home) if *id == 0 || dropped(item) => {
                    self.fault("home-stale", 0, format!("subvolume {id} hangs in {home}"));
                }
                None if *id == 0 || dropped(item) => {}
                None => self.fault("home-missing", 0, format!("subvolume {id} hangs nowhere")),
                Some(home) => {
                    let stand = stands.get(&home).filter(|stand| stand.subvol == *id);
                    self.home(*id, home, stand);
                    self.leads_up(*id, &items);
                }
            }
        }
    }

    fn home(&mut self, id: u64, home: InodeId, stand: Option<&Stand>) {
        let Some(stand) = stand.filter(|stand| stand.named) else {
            let what = format!("subvolume {id} hangs in {home}, which does not stand for it");
            return self.fault("home-unmarked", 0, what);
        };
        if stand.entries > 0 {
            let what = format!("{home}, which stands for subvolume {id}, has entries");
            self.fault("home-entries", stand.node, what);
        }
    }

    /// The way up from a subvolume ends at the top level.
    fn leads_up(&mut self, id: u64, items: &HashMap<u64, &ForestItem>) {
        let mut at = id;
        for _ in 0..=items.len() {
            match items
                .get(&at)
                .filter(|_| at != 0)
                .and_then(|item| home(item))
            {
                Some(home) => at = home.subvol.0,
                // What is wrong with one that hangs nowhere is said there.
                None => return,
            }
        }
        self.fault("home-loop", 0, format!("subvolume {id} hangs below itself"));
    }
}
