// SPDX-License-Identifier: GPL-2.0
//! oxfs: a copy-on-write filesystem on which any swapfile works, always.
//!
//! The crate root of `oxfs.ko`: the module's declaration and the list of its modules.

use kernel::prelude::*;

mod bindings;

module! {
    type: Oxfs,
    name: "oxfs",
    authors: ["oxfs developers"],
    description: "oxfs: copy-on-write filesystem with swapfiles that always work",
    license: "GPL",
    alias: ["fs-oxfs"],
}

struct Oxfs;

impl kernel::Module for Oxfs {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Oxfs)
    }
}
