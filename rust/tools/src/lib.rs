// SPDX-License-Identifier: GPL-2.0

//! The host crate of oxfs: the engine of the kernel module compiled from the same files, and
//! what programs and tests need around it.
//!
//! - [`admin`]: the commands of the program `oxfs`.
//! - [`file`]: a volume in a file or on a block device.
//! - [`sim`]: a disk in memory that can lose power at every write.
//! - [`check`]: reads a whole volume and names every rule that it breaks.
//! - [`repair`]: puts right what takes no guess.
//! - [`probe`]: whether a device is in use or holds something else.

#[path = "../../engine/mod.rs"]
pub mod engine;
#[path = "../../platform/mod.rs"]
pub mod platform;

pub mod admin;
pub mod check;
pub mod file;
pub mod probe;
pub mod repair;
pub mod sim;

use engine::types::Time;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time of what is made or changed now. A clock before 1970 is one that was never set.
pub fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time {
        sec: since.as_secs() as i64,
        nsec: since.subsec_nanos(),
    }
}
