// SPDX-License-Identifier: GPL-2.0

//! The super block: its four copies, and the one that counts.

use super::Report;
use crate::engine::device::BlockDevice;
use crate::engine::error::{Error, Result};
use crate::engine::format::{
    feature, Geometry, SuperBlock, CHECKSUM_CRC32C, GROUP_BLOCKS, SUPER_MAGIC, SUPER_SLOTS, VERSION,
};
use crate::engine::types::{BlockNr, BLOCK_SHIFT, MAX_SUBVOL};
use crate::platform::crc32c;
use zerocopy::FromBytes;

/// What a block is that may hold a copy of the super block.
enum Copy {
    Good(Box<SuperBlock>),
    Bad(&'static str),
    None,
}

fn load(dev: &dyn BlockDevice, block: u64) -> Copy {
    let mut data = [0; 4096];
    if block >= dev.blocks() {
        return Copy::None;
    }
    if dev.read(BlockNr(block), &mut data).is_err() {
        return Copy::Bad("cannot be read");
    }
    let Ok(sb) = SuperBlock::read_from_bytes(&data) else {
        return Copy::None;
    };
    if sb.magic != SUPER_MAGIC {
        return Copy::None;
    }
    if sb.crc.get() != crc32c(0, &data[4..]) {
        return Copy::Bad("has a wrong checksum");
    }
    if sb.block.get() != block {
        return Copy::Bad("belongs elsewhere");
    }
    Copy::Good(Box::new(sb))
}

/// What is found of a super block.
struct Found {
    newest: Option<SuperBlock>,
    damaged: Option<Error>,
}

impl Found {
    /// Looks at the copy at `block`; whether there is none. A mirror of another volume than a slot's is
    /// what was left there by an older one.
    fn consider(&mut self, dev: &dyn BlockDevice, block: u64, report: &mut Report) -> bool {
        match load(dev, block) {
            Copy::Good(sb) => {
                let newer = self.newest.as_ref().is_none_or(|known| {
                    sb.generation.get() > known.generation.get()
                        && (SUPER_SLOTS.contains(&block) || sb.metadata_uuid == known.metadata_uuid)
                });
                if newer {
                    self.newest = Some(*sb);
                }
            }
            Copy::Bad(why) => {
                // One torn copy is what a power cut leaves: the next commit writes over it.
                self.damaged = Some(Error::corrupt(BlockNr(block), "super block"));
                report
                    .notes
                    .push(format!("super block copy at block {block} {why}"));
            }
            Copy::None => return true,
        }
        false
    }
}

/// Finds the newest super block, as a mount does, and checks it and its copies.
pub fn read(dev: &dyn BlockDevice, report: &mut Report) -> Result<SuperBlock> {
    let mut found = Found {
        newest: None,
        damaged: None,
    };
    let missing = SUPER_SLOTS.map(|block| found.consider(dev, block, report));
    // The mirrors are where the volume's own size says. The device's may exceed that: what is at its
    // end may be left from an older volume, or the data of a file.
    let geometry = match &found.newest {
        Some(sb) => Geometry::of_volume(sb.blocks.get()),
        None => Geometry::for_device(dev.blocks()),
    };
    for (slot, missing) in missing.into_iter().enumerate() {
        let Some(block) = geometry.map(|geometry| geometry.mirror(slot)) else {
            break;
        };
        // A new volume has had one commit: the other slot, and its mirror, were not written yet.
        if found.consider(dev, block, report) && !missing {
            report
                .notes
                .push(format!("no super block copy at block {block}"));
        }
    }
    let sb = found
        .newest
        .ok_or(found.damaged.unwrap_or(Error::NotOxfs))?;
    verify(dev, &sb, report)?;
    Ok(sb)
}

fn verify(dev: &dyn BlockDevice, sb: &SuperBlock, report: &mut Report) -> Result<()> {
    let block = sb.block.get();
    if sb.version.get() != VERSION {
        return Err(Error::Unsupported("version of the format"));
    }
    if sb.incompat.get() & !feature::INCOMPAT != 0 {
        return Err(Error::Unsupported(
            "feature that this version does not know",
        ));
    }
    if sb.ro_compat.get() & !feature::RO_COMPAT != 0 {
        return Err(Error::Unsupported("feature that this version cannot check"));
    }
    if sb.devices.get() != 1 || sb.device.get() != 0 {
        return Err(Error::Unsupported("number of devices"));
    }
    let shifts = [sb.block_shift, sb.node_shift, sb.group_shift].map(u32::from);
    if sb.checksum != CHECKSUM_CRC32C
        || shifts != [BLOCK_SHIFT, BLOCK_SHIFT, GROUP_BLOCKS.trailing_zeros()]
    {
        return Err(Error::Unsupported("checksum, block, node or group size"));
    }
    if sb.blocks.get() > dev.blocks() {
        let what = format!(
            "volume of {} blocks on a device of {}",
            sb.blocks,
            dev.blocks()
        );
        report.fault("super-size", block, what);
    }
    if sb.next_subvolume.get() > MAX_SUBVOL.0 + 1 {
        report.fault("super-subvolume", block, "next subvolume beyond the last");
    }
    if sb.reserved.iter().any(|&byte| byte != 0) {
        report.fault("super-reserved", block, "reserved bytes are not zero");
    }
    if sb.state.get() & crate::engine::format::state::ERROR != 0 {
        report.notes.push("the volume is marked as damaged".into());
    }
    Ok(())
}
