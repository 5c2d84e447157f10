// SPDX-License-Identifier: GPL-2.0

//! The super block: its four copies, and the one that counts.

use super::Report;
use crate::engine::device::BlockDevice;
use crate::engine::error::{Error, Result};
use crate::engine::format::{
    feature, Geometry, SuperBlock, CHECKSUM_CRC32C, GROUP_BLOCKS, SUPER_MAGIC, SUPER_SLOTS, VERSION,
};
use crate::engine::types::{BlockNr, BLOCK_SHIFT};
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

/// Finds the newest super block, as a mount does, and checks it and its copies.
pub fn read(dev: &dyn BlockDevice, report: &mut Report) -> Result<SuperBlock> {
    let places = Geometry::for_device(dev.blocks()).map_or_else(
        || SUPER_SLOTS.to_vec(),
        |geometry| geometry.super_copies().to_vec(),
    );
    let mut newest: Option<SuperBlock> = None;
    let mut places: Vec<u64> = places;
    let mut damaged = None;
    for pass in 0..2 {
        for &block in &places {
            match load(dev, block) {
                Copy::Good(sb) => {
                    let newer = |old: &SuperBlock| sb.generation.get() > old.generation.get();
                    if newest.as_ref().is_none_or(newer) {
                        newest = Some(*sb);
                    }
                }
                Copy::Bad(why) => {
                    // One torn copy is what a power cut leaves: the next commit writes over it.
                    damaged = Some(Error::corrupt(BlockNr(block), "super block"));
                    report
                        .notes
                        .push(format!("super block copy at block {block} {why}"));
                }
                Copy::None if pass == 0 => {}
                Copy::None => {
                    report
                        .notes
                        .push(format!("no super block copy at block {block}"));
                }
            }
        }
        // The mirrors are where the volume's own size says, which the device's may exceed.
        let Some(sb) = &newest else { break };
        let Some(geometry) = Geometry::of_volume(sb.blocks.get()) else {
            break;
        };
        let seen = std::mem::take(&mut places);
        places = geometry
            .super_copies()
            .into_iter()
            .filter(|p| !seen.contains(p))
            .collect();
    }
    let sb = newest.ok_or(damaged.unwrap_or(Error::NotOxfs))?;
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
    if sb.reserved.iter().any(|&byte| byte != 0) {
        report.fault("super-reserved", block, "reserved bytes are not zero");
    }
    if sb.state.get() & crate::engine::format::state::ERROR != 0 {
        report.notes.push("the volume is marked as damaged".into());
    }
    Ok(())
}
