// SPDX-License-Identifier: GPL-2.0

//! Lines of the kernel log that name a filesystem and its device: `oxfs (vda): ...`.
//!
//! The `kernel` crate's macros put the module's name before each line; filesystems write the
//! device too, which differs from line to line.

use crate::bindings;
use core::fmt;
use kernel::prelude::*;

/// Writes one line at level "error", unless there were too many of them just now: for what users can
/// have found again and again.
pub fn damage(device: &dyn fmt::Display, line: fmt::Arguments<'_>) {
    if may_print() {
        error(device, line);
    }
}

/// Writes one line at level "warning", which begins with the device's name, unless there were too
/// many of them just now.
pub fn warning(line: fmt::Arguments<'_>) {
    if may_print() {
        print(c"\x014oxfs %pA\n", line);
    }
}

fn may_print() -> bool {
    // SAFETY: The argument is a string; the state behind it is the kernel's.
    unsafe { bindings::__printk_ratelimit(c"oxfs".as_char_ptr()) != 0 }
}

/// Writes one line at level "error".
pub fn error(device: &dyn fmt::Display, line: fmt::Arguments<'_>) {
    print(c"\x013%pA\n", format_args!("oxfs ({device}): {line}"));
}

/// Writes one line at level "info".
pub fn info(device: &dyn fmt::Display, line: fmt::Arguments<'_>) {
    print(c"\x016%pA\n", format_args!("oxfs ({device}): {line}"));
}

fn print(format: &'static CStr, line: fmt::Arguments<'_>) {
    // SAFETY: `%pA` takes a pointer to `fmt::Arguments`.
    unsafe {
        bindings::_printk(
            format.as_char_ptr(),
            (&raw const line).cast::<core::ffi::c_void>(),
        );
    }
}
