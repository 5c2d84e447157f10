// SPDX-License-Identifier: GPL-2.0

//! oxfs: a copy-on-write filesystem on which any swapfile works, always.
//!
//! The crate root of `oxfs.ko`: the module's declaration and the list of its modules.

// Much of the engine serves the host's tools too.
#![allow(unreachable_pub)]

use crate::vfs::fs_type::Registration;
use kernel::prelude::*;

mod bindings;
#[allow(dead_code)]
mod engine;
mod fs;
mod platform;
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
        Ok(Self { _type: fs::TYPE.register()? })
    }
}
