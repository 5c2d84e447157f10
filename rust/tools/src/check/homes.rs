// SPDX-License-Identifier: GPL-2.0

//! Subvolumes against the directories that stand for them.
//!
//! A subvolume that was not deleted, other than the top level, has one home: a directory of another
//! one that is marked for it and has no entries. A marked directory that is nobody's home is what
//! a snapshot copied; nothing more is asked of it.

use super::ways::{ends_at_top, Up};
use super::Checker;
use crate::engine::format::ForestItem;
use crate::engine::types::{Ino, InodeId, SubvolId, FIRST_INO};

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

/// For each subvolume whether the way up from it ends, at the top level or at one that hangs nowhere:
/// what is wrong with that is said there.
fn ways_up(forest: &[(u64, ForestItem)]) -> Vec<bool> {
    ends_at_top(forest.len(), |i| {
        let below = forest.get(i).filter(|(id, _)| *id != 0);
        let Some(home) = below.and_then(|(_, item)| home(item)) else {
            return Up::Top;
        };
        // Ascending, as the tree has them.
        forest
            .binary_search_by_key(&home.subvol.0, |(id, _)| *id)
            .map_or(Up::Top, Up::To)
    })
}

impl Checker<'_> {
    /// Compares every subvolume with its home.
    pub fn homes(&mut self, forest: &[(u64, ForestItem)]) {
        let stands = std::mem::take(&mut self.stands);
        let up = ways_up(forest);
        for ((id, item), leads_up) in forest.iter().zip(up) {
            match home(item) {
                Some(home) if *id == 0 || dropped(item) => {
                    self.fault("home-stale", 0, format!("subvolume {id} hangs in {home}"));
                }
                None if *id == 0 || dropped(item) => {}
                None => self.fault("home-missing", 0, format!("subvolume {id} hangs nowhere")),
                Some(home) => {
                    let stand = stands.get(&home).filter(|stand| stand.subvol == *id);
                    self.home(*id, home, stand);
                    if !leads_up {
                        let what = format!("subvolume {id} hangs below itself");
                        self.fault("home-loop", 0, what);
                    }
                }
            }
        }
    }

    fn home(&mut self, id: u64, home: InodeId, stand: Option<&Stand>) {
        let Some(stand) = stand.filter(|stand| stand.named && home.ino >= FIRST_INO) else {
            let what = format!("subvolume {id} hangs in {home}, which does not stand for it");
            return self.fault("home-unmarked", 0, what);
        };
        if stand.entries > 0 {
            let what = format!("{home}, which stands for subvolume {id}, has entries");
            self.fault("home-entries", stand.node, what);
        }
    }
}
