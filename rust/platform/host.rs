// SPDX-License-Identifier: GPL-2.0

//! The platform on the host: the standard library, with the kernel's fallible interface.

use super::{Block, NoMemory, VecExt};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};
use std::sync::TryLockError;

pub use std::boxed::Box;
pub use std::sync::Arc;
pub use std::sync::{MutexGuard, RwLockReadGuard as ReadGuard, RwLockWriteGuard as WriteGuard};
pub use std::vec::Vec;

impl<T> VecExt<T> for Vec<T> {
    fn try_push(&mut self, value: T) -> Result<(), NoMemory> {
        self.try_reserve(1).map_err(|_| NoMemory)?;
        self.push(value);
        Ok(())
    }

    fn try_extend(&mut self, values: &[T]) -> Result<(), NoMemory>
    where
        T: Clone,
    {
        self.try_reserve(values.len()).map_err(|_| NoMemory)?;
        self.extend_from_slice(values);
        Ok(())
    }

    fn with_room(capacity: usize) -> Result<Self, NoMemory> {
        let mut vec = Vec::new();
        vec.try_reserve_exact(capacity).map_err(|_| NoMemory)?;
        Ok(vec)
    }

    fn take_at(&mut self, index: usize) -> Option<T> {
        (index < self.len()).then(|| self.remove(index))
    }
}

/// Moves `value` to the heap.
pub fn new_box<T>(value: T) -> Result<Box<T>, NoMemory> {
    Ok(Box::new(value))
}

/// A block of zeros on the heap.
pub fn zeroed_block() -> Result<Box<Block>, NoMemory> {
    Ok(Box::new([0; 4096]))
}

/// Moves `value` to the heap, shared.
pub fn new_arc<T>(value: T) -> Result<Arc<T>, NoMemory> {
    Ok(Arc::new(value))
}

/// crc32c (Castagnoli) of `data`, continued from `seed`; 0 starts a new one.
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, data)
}

/// A random number that an adversary cannot guess.
pub fn random_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

thread_local! {
    static CAPTURED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// What `work` returns, and the lines that it wrote to the log.
pub fn captured<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    CAPTURED.set(Some(Vec::new()));
    let result = work();
    (result, CAPTURED.take().unwrap_or_default())
}

/// Writes one line to the log.
pub fn log(line: core::fmt::Arguments<'_>) {
    CAPTURED.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            lines.push(line.to_string());
        }
    });
    if std::env::var_os("OXFS_LOG").is_some() {
        eprintln!("oxfs: {line}");
    }
}

/// A lock that sleeps.
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    #[doc(hidden)]
    pub fn create(value: T) -> Result<Self, NoMemory> {
        Ok(Self(std::sync::Mutex::new(value)))
    }

    /// Waits for the lock. A holder that panicked in a test does not poison it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The lock, if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A lock that sleeps, with many readers or one writer.
pub struct RwLock<T>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    #[doc(hidden)]
    pub fn create(value: T) -> Result<Self, NoMemory> {
        Ok(Self(std::sync::RwLock::new(value)))
    }

    /// Waits for the lock, shared.
    pub fn read(&self) -> ReadGuard<'_, T> {
        self.0.read().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for the lock, exclusive.
    pub fn write(&self) -> WriteGuard<'_, T> {
        self.0.write().unwrap_or_else(|e| e.into_inner())
    }
}

/// `mutex!(value, "name")`: a new [`Mutex`], or [`NoMemory`]. Each use is a lock class of its own.
macro_rules! mutex {
    ($value:expr, $name:literal) => {
        $crate::platform::Mutex::create($value)
    };
}
pub(crate) use mutex;

/// `rwlock!(value, "name")`: a new [`RwLock`], or [`NoMemory`]. Each use is a lock class of its own.
macro_rules! rwlock {
    ($value:expr, $name:literal) => {
        $crate::platform::RwLock::create($value)
    };
}
pub(crate) use rwlock;

/// An ordered map.
pub struct Map<K, V>(BTreeMap<K, V>);

impl<K: Ord + Copy, V> Map<K, V> {
    /// An empty map.
    pub fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets the value of `key` and returns the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>, NoMemory> {
        Ok(self.0.insert(key, value))
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    /// Whether `key` has a value.
    pub fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// The value of `key`, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key)
    }

    /// The entry with the smallest key that is `key` or more.
    pub fn at_or_after(&self, key: &K) -> Option<(K, &V)> {
        self.0
            .range((Included(*key), Unbounded))
            .next()
            .map(|(k, v)| (*k, v))
    }

    /// The entry with the greatest key that is `key` or less.
    pub fn at_or_before(&self, key: &K) -> Option<(K, &V)> {
        self.0
            .range((Unbounded, Included(*key)))
            .next_back()
            .map(|(k, v)| (*k, v))
    }

    /// The entry with the smallest key.
    pub fn first(&self) -> Option<(K, &V)> {
        self.0.iter().next().map(|(k, v)| (*k, v))
    }

    /// All entries in ascending order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Ord + Copy, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}
