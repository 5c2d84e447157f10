// SPDX-License-Identifier: GPL-2.0

//! The tests of the host crate, in one program: each would compile the engine again.

mod common;

mod beyond;
mod crash;
mod damage;
mod data_model;
mod faults;
mod full;
mod golden;
mod homes;
mod hostile;
mod lies;
mod names;
mod oxfs_program;
mod programs;
mod resize;
mod subvolumes;
mod swap_snapshots;
mod sync;
mod tree_model;
mod truncate;
