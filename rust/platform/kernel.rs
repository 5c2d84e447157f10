// SPDX-License-Identifier: GPL-2.0

//! The platform in the kernel: its allocators, red-black trees, mutexes and rw semaphores.
//!
//! Allocations wait for memory as long as it takes (`__GFP_NOFAIL`): a change of metadata that
//! fails half way would cost the volume. Even small ones fail otherwise, in a task that the OOM
//! killer has chosen. Whoever calls the engine does so in a NOFS scope where that is needed. Only
//! locks are made with `GFP_KERNEL`, before anything depends on them; they are allocated, so that
//! the types that hold them can be moved.

use super::{Block, NoMemory, VecExt};
use crate::bindings;
use crate::vfs::{self, nofs::GFP_NOFAIL};
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use kernel::alloc::AllocError;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::LockClassKey;
use kernel::types::{NotThreadSafe, Opaque};

pub use kernel::alloc::{KBox as Box, KVVec as Vec};
pub use kernel::sync::{Arc, MutexGuard};

impl From<AllocError> for NoMemory {
    fn from(_: AllocError) -> Self {
        Self
    }
}

impl<T> VecExt<T> for Vec<T> {
    fn try_push(&mut self, value: T) -> Result<(), NoMemory> {
        Ok(self.push(value, GFP_NOFAIL)?)
    }

    fn try_extend(&mut self, values: &[T]) -> Result<(), NoMemory>
    where
        T: Clone,
    {
        Ok(self.extend_from_slice(values, GFP_NOFAIL)?)
    }

    fn with_room(capacity: usize) -> Result<Self, NoMemory> {
        Ok(Self::with_capacity(capacity, GFP_NOFAIL)?)
    }

    fn take_at(&mut self, index: usize) -> Option<T> {
        self.remove(index).ok()
    }
}

/// Moves `value` to the heap.
pub fn new_box<T>(value: T) -> Result<Box<T>, NoMemory> {
    Ok(Box::new(value, GFP_NOFAIL)?)
}

/// A block of zeros on the heap: directly mapped memory, aligned to its size.
pub fn zeroed_block() -> Result<Box<Block>, NoMemory> {
    Ok(Box::zeroed(GFP_NOFAIL)?)
}

/// Moves `value` to the heap, shared.
pub fn new_arc<T>(value: T) -> Result<Arc<T>, NoMemory> {
    Ok(Arc::new(value, GFP_NOFAIL)?)
}

/// crc32c (Castagnoli) of `data`, continued from `seed`; 0 starts a new one.
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    // SAFETY: The data is only read.
    !unsafe { bindings::crc32c(!seed, data.as_ptr().cast(), data.len()) }
}

/// A random number that an adversary cannot guess.
pub fn random_u64() -> u64 {
    // SAFETY: It has no preconditions.
    unsafe { bindings::get_random_u64() }
}

/// Writes one line to the log, unless there were too many of them just now: a damaged volume has
/// much to complain about. The line begins with the device's name.
pub fn log(line: core::fmt::Arguments<'_>) {
    vfs::log::warning(line);
}

/// A lock that sleeps.
pub struct Mutex<T>(Pin<Box<kernel::sync::Mutex<T>>>);

impl<T> Mutex<T> {
    #[doc(hidden)]
    pub fn create(
        value: T,
        name: &'static CStr,
        class: Pin<&'static LockClassKey>,
    ) -> Result<Self, NoMemory> {
        let lock = Box::pin_init(kernel::sync::Mutex::new(value, name, class), GFP_KERNEL);
        Ok(Self(lock.map_err(|_| NoMemory)?))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    /// The lock, if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}

/// A lock that sleeps, with many readers or one writer.
///
/// # Invariants
///
/// The semaphore is initialised, and `value` is only accessed by holders of it.
pub struct RwLock<T> {
    semaphore: Box<Opaque<bindings::rw_semaphore>>,
    value: UnsafeCell<T>,
}

// SAFETY: The semaphore can be used from every task; the value goes where the lock goes.
unsafe impl<T: Send> Send for RwLock<T> {}
// SAFETY: The semaphore lets in many readers, hence `Sync`, or one writer, hence `Send`.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    #[doc(hidden)]
    pub fn create(
        value: T,
        name: &'static CStr,
        class: Pin<&'static LockClassKey>,
    ) -> Result<Self, NoMemory> {
        // The semaphore is never moved out of its box, which its list head would not survive.
        let semaphore = Box::new(Opaque::<bindings::rw_semaphore>::uninit(), GFP_KERNEL)?;
        // SAFETY: The memory is ours and stays where it is; name and class live for ever.
        unsafe { bindings::__init_rwsem(semaphore.get(), name.as_char_ptr(), class.as_ptr()) };
        Ok(Self {
            semaphore,
            value: UnsafeCell::new(value),
        })
    }

    /// Waits for the lock, shared.
    pub fn read(&self) -> ReadGuard<'_, T> {
        // SAFETY: By the type invariant the semaphore is initialised.
        unsafe { bindings::down_read(self.semaphore.get()) };
        ReadGuard {
            lock: self,
            _task: NotThreadSafe,
        }
    }

    /// Waits for the lock, exclusive.
    pub fn write(&self) -> WriteGuard<'_, T> {
        // SAFETY: By the type invariant the semaphore is initialised.
        unsafe { bindings::down_write(self.semaphore.get()) };
        WriteGuard {
            lock: self,
            _task: NotThreadSafe,
        }
    }
}

/// A shared hold on a [`RwLock`].
#[must_use = "the lock is let go when the guard is dropped"]
pub struct ReadGuard<'a, T> {
    lock: &'a RwLock<T>,
    _task: NotThreadSafe,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The semaphore is held shared, so there is no writer.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The semaphore is held shared by this task.
        unsafe { bindings::up_read(self.lock.semaphore.get()) }
    }
}

/// The exclusive hold on a [`RwLock`].
#[must_use = "the lock is let go when the guard is dropped"]
pub struct WriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    _task: NotThreadSafe,
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The semaphore is held exclusively.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The semaphore is held exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The semaphore is held exclusively by this task.
        unsafe { bindings::up_write(self.lock.semaphore.get()) }
    }
}

/// `mutex!(value, "name")`: a new [`Mutex`], or [`NoMemory`]. Each use is a lock class of its own.
macro_rules! mutex {
    ($value:expr, $name:literal) => {
        $crate::platform::Mutex::create(
            $value,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
pub(crate) use mutex;

/// `rwlock!(value, "name")`: a new [`RwLock`], or [`NoMemory`]. Each use is a lock class of its own.
macro_rules! rwlock {
    ($value:expr, $name:literal) => {
        $crate::platform::RwLock::create(
            $value,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
pub(crate) use rwlock;

/// An ordered map.
pub struct Map<K, V> {
    tree: RBTree<K, V>,
    len: usize,
}

impl<K: Ord + Copy, V> Map<K, V> {
    /// An empty map.
    pub fn new() -> Self {
        Self {
            tree: RBTree::new(),
            len: 0,
        }
    }

    /// Sets the value of `key` and returns the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>, NoMemory> {
        let old = self.tree.try_create_and_insert(key, value, GFP_NOFAIL);
        let old = old.map_err(|_| NoMemory)?.map(|node| node.to_key_value().1);
        if old.is_none() {
            self.len = self.len.saturating_add(1);
        }
        Ok(old)
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.tree.get(key)
    }

    /// The value of `key`, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.tree.get_mut(key)
    }

    /// Whether there is an entry of `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.tree.get(key).is_some()
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.tree.remove(key);
        if value.is_some() {
            self.len = self.len.saturating_sub(1);
        }
        value
    }

    /// The entry with the smallest key that is `key` or more.
    pub fn at_or_after(&self, key: &K) -> Option<(K, &V)> {
        let found = *self.tree.cursor_lower_bound(key)?.current().0;
        self.entry(found)
    }

    /// The entry with the greatest key that is `key` or less.
    pub fn at_or_before(&self, key: &K) -> Option<(K, &V)> {
        let found = match self.tree.cursor_lower_bound(key) {
            Some(cursor) if cursor.current().0 == key => *key,
            Some(cursor) => *cursor.peek_prev()?.0,
            None => *self.tree.cursor_back()?.current().0,
        };
        self.entry(found)
    }

    /// A cursor's references end with it; those of a lookup live as long as the map's.
    fn entry(&self, key: K) -> Option<(K, &V)> {
        self.tree.get(&key).map(|value| (key, value))
    }

    /// The entry with the smallest key.
    pub fn first(&self) -> Option<(K, &V)> {
        self.tree.iter().next().map(|(key, value)| (*key, value))
    }

    /// All entries in ascending order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.tree.iter()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K: Ord + Copy, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}
