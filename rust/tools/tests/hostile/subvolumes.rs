// SPDX-License-Identifier: GPL-2.0

//! What is done with the subvolumes of a hostile volume.

use super::base::snapshot;
use super::{STEPS, V};
use crate::common::{at, new_inode, Choice};
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::subvolume::{root_of, NewSubvolume, TOP};
use oxfs::engine::types::{InodeId, SubvolId};

/// Asks everything about all subvolumes, and opens them.
pub fn read(volume: &V) -> Vec<SubvolId> {
    let (mut ids, mut from) = (vec![TOP], TOP);
    for _ in 0..STEPS {
        let Ok(Some(info)) = volume.next_subvolume(from) else {
            break;
        };
        from = SubvolId(info.id.0 + 1);
        ids.push(info.id);
        let top = root_of(info.id);
        let _ = volume.open_subvolume(info.id);
        let _ = volume.path(top);
        let _ = volume.parent(top);
        let _ = volume.orphan_next(info.id, None);
        let _ = volume.readdir(top, 0, 50, &mut Vec::new());
    }
    ids
}

/// Where a subvolume hangs, and its name there.
fn place(volume: &V, id: SubvolId) -> Option<(InodeId, Vec<u8>)> {
    let path = volume.path(root_of(id)).ok()?;
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    Some((volume.parent(root_of(id)).ok()?, name.to_vec()))
}

/// One change, of `ids` or next to them.
pub fn change(volume: &V, ids: &[SubvolId], random: &mut dyn Choice) {
    let mut pick = || ids[random.below(ids.len() as u64) as usize];
    let (id, dir) = (pick(), root_of(pick()));
    let new_name = format!("new {}", random.below(8)).into_bytes();
    match random.below(9) {
        0 => {
            let _ = volume.create_subvolume(&NewSubvolume {
                dir,
                name: &new_name,
                root: new_inode(0o040755, at(9)),
                uuid: [9; 16],
            });
        }
        1 | 2 => {
            let read_only = random.below(2) == 0;
            let _ = volume.snapshot(&snapshot(id, dir, &new_name, read_only));
        }
        3 => {
            if let Some((dir, name)) = place(volume, id) {
                let _ = volume.delete_subvolume(dir, &name, at(9));
            }
        }
        4 => {
            if let Some((old_dir, name)) = place(volume, id) {
                let flags = match random.below(2) {
                    0 => RenameFlags::Replace,
                    _ => RenameFlags::Exchange,
                };
                let _ = volume.rename(&Rename {
                    old_dir,
                    old_name: &name,
                    new_dir: dir,
                    new_name: &new_name,
                    flags,
                    whiteout: None,
                    time: at(9),
                });
            }
        }
        5 => {
            let _ = volume.set_subvolume_read_only(id, random.below(2) == 0);
        }
        6 => {
            let _ = volume.set_default_subvolume(id);
        }
        _ => drop_some(volume, 1 + random.below(20) as usize),
    }
}

/// Some steps of dropping what was deleted.
pub fn drop_some(volume: &V, steps: usize) {
    let mut from = TOP;
    for _ in 0..steps {
        let Ok(Some(id)) = volume.next_dropping(from) else {
            return;
        };
        // What cannot be dropped must not stand in the way of the others.
        if volume.drop_step(id).is_err() {
            from = SubvolId(id.0 + 1);
        }
    }
}
