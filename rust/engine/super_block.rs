// SPDX-License-Identifier: GPL-2.0

//! The super block: four copies, of which the newest whole one counts.
//!
//! Slots A and B take turns; each has a mirror near the end of the device. A commit writes the slot
//! that does not hold the newest durable super block, then that slot's mirror. So a torn write
//! costs that commit only, and the later loss of any one copy costs nothing.

use super::device::{BlockDevice, Write};
use super::error::{Error, Result};
use super::format::{
    feature, Geometry, SuperBlock, CHECKSUM_CRC32C, GROUP_BLOCKS, SUPER_MAGIC, SUPER_SLOTS, VERSION,
};
use super::types::{BlockNr, BLOCK_SHIFT, MAX_SUBVOL};
use crate::platform::{crc32c, zeroed_block, Block, Box};
use zerocopy::FromBytes;

/// The super block in `block`. Only its size is checked, which always holds.
pub fn parse(block: &Block) -> Result<&SuperBlock> {
    SuperBlock::ref_from_bytes(block).map_err(|_| Error::NotOxfs)
}

/// The super block in `block`, to change it.
pub fn parse_mut(block: &mut Block) -> Result<&mut SuperBlock> {
    SuperBlock::mut_from_bytes(block).map_err(|_| Error::NotOxfs)
}

fn checksum(block: &Block) -> u32 {
    crc32c(0, block.get(4..).unwrap_or(&[]))
}

/// Whether `block` is a whole super block that belongs at `at`.
pub fn is_whole(block: &Block, at: u64) -> bool {
    parse(block).is_ok_and(|sb| {
        sb.magic == SUPER_MAGIC && sb.crc.get() == checksum(block) && sb.block.get() == at
    })
}

/// Whether this code can write to the volume.
pub fn check_may_write(sb: &SuperBlock) -> Result<()> {
    match sb.ro_compat.get() & !feature::RO_COMPAT {
        0 => Ok(()),
        _ => Err(Error::Unsupported("ro_compat feature: mount it read-only")),
    }
}

/// Whether this code can use the volume.
fn check(block: &Block, device_blocks: u64, read_only: bool) -> Result<Geometry> {
    let sb = parse(block)?;
    let at = BlockNr(sb.block.get());
    if sb.version.get() != VERSION {
        return Err(Error::Unsupported("version of the format"));
    }
    if sb.incompat.get() & !feature::INCOMPAT != 0 {
        return Err(Error::Unsupported("incompat feature"));
    }
    if !read_only {
        check_may_write(sb)?;
    }
    if sb.checksum != CHECKSUM_CRC32C || sb.devices.get() != 1 || sb.device.get() != 0 {
        return Err(Error::Unsupported("checksum type or number of devices"));
    }
    let shifts = (
        u32::from(sb.block_shift),
        u32::from(sb.node_shift),
        sb.group_shift,
    );
    if shifts
        != (
            BLOCK_SHIFT,
            BLOCK_SHIFT,
            GROUP_BLOCKS.trailing_zeros() as u8,
        )
    {
        return Err(Error::Unsupported("block, node or group size"));
    }
    let geometry =
        Geometry::of_volume(sb.blocks.get()).ok_or(Error::corrupt(at, "size of the volume"))?;
    if geometry.blocks > device_blocks {
        return Err(Error::Invalid("the device is smaller than the volume"));
    }
    if sb.next_subvolume.get() <= sb.default_subvolume.get() {
        return Err(Error::corrupt(at, "default subvolume"));
    }
    if sb.next_subvolume.get() > MAX_SUBVOL.0 + 1 {
        return Err(Error::corrupt(at, "next subvolume"));
    }
    Ok(geometry)
}

/// Fills in the place and the checksum.
pub fn seal(block: &mut Block, at: u64) -> Result<()> {
    parse_mut(block)?.block = at.into();
    let crc = checksum(block);
    parse_mut(block)?.crc = crc.into();
    Ok(())
}

/// Whether `block` counts more than `known`. A mirror of another volume than a slot's is what was left
/// there by an older one.
fn is_newer(block: &Block, known: &Block, is_slot: bool) -> bool {
    match (parse(block), parse(known)) {
        (Ok(new), Ok(old)) => {
            new.generation.get() > old.generation.get()
                && (is_slot || new.metadata_uuid == old.metadata_uuid)
        }
        _ => false,
    }
}

/// The newest super block of a device.
///
/// A slot that cannot be read or is not whole is skipped. The mirrors are where the size that a
/// whole slot tells says, or, without one, where the device's own size puts them.
pub fn read_newest<D: BlockDevice>(dev: &D, read_only: bool) -> Result<(Box<Block>, Geometry)> {
    let mut newest: Option<Box<Block>> = None;
    let mut failed = None;
    let mut consider = |at: u64, newest: &mut Option<Box<Block>>| -> Result<()> {
        let mut block = zeroed_block()?;
        if let Err(error) = dev.read(BlockNr(at), &mut block) {
            failed = Some(error);
            return Ok(());
        }
        let is_slot = SUPER_SLOTS.contains(&at);
        let newer = newest
            .as_ref()
            .is_none_or(|known| is_newer(&block, known, is_slot));
        if is_whole(&block, at) && newer {
            *newest = Some(block);
        }
        Ok(())
    };
    for at in SUPER_SLOTS {
        if at < dev.blocks() {
            consider(at, &mut newest)?;
        }
    }
    let told = newest
        .as_ref()
        .and_then(|b| parse(b).ok())
        .map(|sb| sb.blocks.get());
    let geometry = match told {
        Some(blocks) => Geometry::of_volume(blocks).filter(|g| g.blocks <= dev.blocks()),
        None => Geometry::for_device(dev.blocks()),
    };
    for slot in 0..SUPER_SLOTS.len() {
        if let Some(geometry) = geometry {
            consider(geometry.mirror(slot), &mut newest)?;
        }
    }
    let block = newest.ok_or(failed.unwrap_or(Error::NotOxfs))?;
    let geometry = check(&block, dev.blocks(), read_only)?;
    Ok((block, geometry))
}

/// Writes `block` to the slot that does not hold the newest durable super block, durably, and then
/// to that slot's mirror. `block` is the new super block; where it is says which slot is next.
///
/// An error of the mirror alone is not one of the commit: it is returned as `Ok(Some(error))`.
pub fn write_next<D: BlockDevice>(
    dev: &D,
    geometry: Geometry,
    block: &mut Block,
) -> Result<Option<Error>> {
    let last = parse(block)?.block.get();
    let in_a = last == SUPER_SLOTS[0] || last == geometry.mirror(0);
    let slot = usize::from(in_a);
    seal(block, SUPER_SLOTS[slot])?;
    dev.write_durable(Write {
        block: BlockNr(SUPER_SLOTS[slot]),
        data: block,
    })?;
    let mut copy = zeroed_block()?;
    copy.copy_from_slice(block);
    let mirror = geometry.mirror(slot);
    seal(&mut copy, mirror)?;
    Ok(dev
        .write_durable(Write {
            block: BlockNr(mirror),
            data: &copy,
        })
        .err())
}
