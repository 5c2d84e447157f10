// SPDX-License-Identifier: GPL-2.0

//! The few names that the engine stands on: fallible memory, ordered maps, sleeping locks,
//! crc32c, randomness and the log.
//!
//! One file implements them over the kernel, one over the host's standard library; both have
//! the same interface, so that the engine compiles from the same source in both places.
//! Every allocation can fail and says so with [`NoMemory`]; the kernel's rather waits.

#[cfg(MODULE)]
#[path = "kernel.rs"]
mod imp;
#[cfg(not(MODULE))]
#[path = "host.rs"]
mod imp;

pub use imp::{
    crc32c, log, new_arc, new_box, random_u64, zeroed_block, Arc, Box, Map, Mutex, MutexGuard,
    ReadGuard, RwLock, Vec, WriteGuard,
};
pub(crate) use imp::{mutex, rwlock};

#[cfg(not(MODULE))]
pub use imp::captured;

/// One block's bytes: 4096 of them.
pub type Block = [u8; 4096];

/// An allocation failed. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory;

/// The operations on [`Vec`] that allocate, or that would panic on a wrong index.
pub trait VecExt<T>: Sized {
    /// Appends `value`.
    fn try_push(&mut self, value: T) -> Result<(), NoMemory>;
    /// Appends a copy of `values`.
    fn try_extend(&mut self, values: &[T]) -> Result<(), NoMemory>
    where
        T: Clone;
    /// An empty vector with room for `capacity` elements.
    fn with_room(capacity: usize) -> Result<Self, NoMemory>;
    /// Removes and returns the element at `index`, if there is one.
    fn take_at(&mut self, index: usize) -> Option<T>;
}
