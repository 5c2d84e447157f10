// SPDX-License-Identifier: GPL-2.0
//! The kernel's C interface: what `kernel::bindings` has, and what Kbuild's bindgen run adds to
//! it from `bindings.h` and `helpers.h`. Only `vfs` and the kernel half of `platform` use it.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::restriction,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    rust_2024_compatibility,
    unreachable_pub,
    unused_imports
)]

use kernel::alloc::Flags;
pub(crate) use kernel::bindings::*;
use kernel::ffi;
use pin_init::MaybeZeroable;

include!(concat!(env!("OXFS_OBJ"), "/rust/bindings/generated.rs"));

/// `GFP_KERNEL | __GFP_NOFAIL`: the allocator waits for memory as long as it takes. For what must
/// not fail half way, as changes of metadata and their commit. The `kernel` crate has no such flag.
pub(crate) const GFP_NOFAIL: Flags = {
    // SAFETY: `Flags` is a `u32` and, by the sizes that the compiler compares here, nothing else;
    // every combination of bits is one of flags.
    unsafe { core::mem::transmute::<u32, Flags>(OXFS_GFP_NOFAIL) }
};
