// SPDX-License-Identifier: GPL-2.0

//! Fuzz target `operations`: see `fuzz_operations` in `tests/hostile.rs`, which replays the corpus.

#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile::fuzz_operations(data));
