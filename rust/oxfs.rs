// SPDX-License-Identifier: GPL-2.0

//! oxfs: a copy-on-write filesystem on which any swapfile works, always.
//!
//! The crate root of `oxfs.ko`: the module's declaration and the list of its modules.

// The host crate uses the engine too, from outside.
#![allow(unreachable_pub)]

use crate::vfs::fs_type::Registration;
use kernel::prelude::*;

mod bindings;
// The host crate uses parts of these two that the module does not.
#[allow(dead_code, unused_imports)]
mod engine;
mod fs;
#[allow(dead_code, unused_imports)]
mod platform;
// Shared with programs.
#[allow(dead_code)]
mod uapi;
mod vfs;

module! {
    type: Module,
    name: "oxfs",
    authors: ["oxfs developers"],
    description: "oxfs: copy-on-write filesystem with swapfiles that always work",
    license: "GPL",
    alias: ["fs-oxfs"],
    params: {
        swap_whole_folios: u8 {
            default: 1,
            description: "Swap large folios out whole where the swapfile allows it (0: split them)",
        },
    },
}

/// The loaded module.
pub struct Module {
    _type: Registration<fs::Oxfs>,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _type: fs::TYPE.register()?,
        })
    }
}
