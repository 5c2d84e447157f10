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
    unreachable_pub,
    unused_imports
)]

pub(crate) use kernel::bindings::*;
use kernel::ffi;
use pin_init::MaybeZeroable;

include!(concat!(env!("OXFS_OBJ"), "/rust/bindings/generated.rs"));
