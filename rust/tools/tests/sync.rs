// SPDX-License-Identifier: GPL-2.0

//! What a sync to a transaction says is durable, and what is not.

use crate::common::{assert_clean, at, formatted, mount, new_inode, root, SimVolume, SMALL};
use oxfs::engine::types::Generation;

/// Makes a file, and returns the transaction that has it.
fn create(volume: &SimVolume, name: &[u8]) -> Generation {
    let new = new_inode(0o100644, at(2));
    let done = volume.create(root(volume), name, &new).expect("create");
    done.generation
}

fn next(generation: Generation) -> Generation {
    Generation(generation.0 + 1)
}

#[test]
fn a_change_is_durable_when_its_transaction_is() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let generation = create(&volume, b"file");
    assert_eq!(volume.last_change(), generation);
    assert!(volume.sync_to(generation).expect("sync") >= generation);
    // What the device has, without what is in memory.
    assert!(mount(&disk).lookup(root(&volume), b"file").is_ok());
}

/// A file that is synced before anything was changed, and again after a change, as databases do.
#[test]
fn a_sync_without_changes_says_nothing_of_the_running_transaction() {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    let running = next(create(&volume, b"one"));
    volume.commit().expect("commit");
    assert!(volume.last_change() < running);
    assert!(volume.sync_to(running).expect("sync") < running);
    assert_eq!(create(&volume, b"two"), running);
    assert!(volume.sync_to(running).expect("sync") >= running);
    assert!(mount(&disk).lookup(root(&volume), b"two").is_ok());
    drop(volume);
    assert_clean(&disk);
}
