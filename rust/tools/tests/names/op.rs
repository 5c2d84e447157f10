// SPDX-License-Identifier: GPL-2.0

//! The operations of a history, and how often each comes. Numbers choose among what there is.

use oxfs::engine::rename::RenameFlags;
use oxfs::engine::types::FileType;
use oxfs::engine::xattr::XattrMode;
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub enum Op {
    Create(usize, usize, FileType),
    Symlink(usize, usize, usize),
    Tmpfile(usize),
    Link(usize, usize, usize),
    Unlink(usize, usize),
    Rmdir(usize, usize),
    Rename(usize, usize, usize, usize, RenameFlags),
    Xattr(usize, usize, Option<usize>, XattrMode),
    Finish(usize),
    Subvolume(usize, usize),
    Snapshot(usize, usize, usize, bool),
    Move(usize, usize, usize, RenameFlags),
    Delete(usize, usize),
    ReadOnly(usize, bool),
    Default(usize),
    Drop(usize),
    Commit,
    Remount,
    Check,
}

pub fn any_op() -> impl Strategy<Value = Op> {
    let n = || 0..4096usize;
    let flags = || {
        prop_oneof![
            3 => Just(RenameFlags::Replace),
            1 => Just(RenameFlags::NoReplace),
            2 => Just(RenameFlags::Exchange),
        ]
    };
    let kind = prop_oneof![
        4 => Just(FileType::Directory),
        3 => Just(FileType::Regular),
        1 => Just(FileType::Fifo),
    ];
    let mode = prop_oneof![
        Just(XattrMode::Any),
        Just(XattrMode::Create),
        Just(XattrMode::Replace)
    ];
    // Not so many that most operations are refused.
    let read_only = || proptest::bool::weighted(0.2);
    prop_oneof![
        10 => (n(), n(), kind).prop_map(|(d, n, k)| Op::Create(d, n, k)),
        2 => (n(), n(), 1..4096usize).prop_map(|(d, n, l)| Op::Symlink(d, n, l)),
        1 => n().prop_map(Op::Tmpfile),
        4 => (n(), n(), n()).prop_map(|(i, d, n)| Op::Link(i, d, n)),
        5 => (n(), n()).prop_map(|(d, n)| Op::Unlink(d, n)),
        4 => (n(), n()).prop_map(|(d, n)| Op::Rmdir(d, n)),
        12 => (n(), n(), n(), n(), flags()).prop_map(|(a, b, c, d, f)| Op::Rename(a, b, c, d, f)),
        4 => (n(), n(), proptest::option::weighted(0.7, 0..1400usize), mode)
            .prop_map(|(i, n, v, m)| Op::Xattr(i, n, v, m)),
        3 => n().prop_map(Op::Finish),
        3 => (n(), n()).prop_map(|(d, n)| Op::Subvolume(d, n)),
        4 => (n(), n(), n(), read_only()).prop_map(|(s, d, n, r)| Op::Snapshot(s, d, n, r)),
        3 => (n(), n(), n(), flags()).prop_map(|(s, d, n, f)| Op::Move(s, d, n, f)),
        2 => (n(), n()).prop_map(|(s, n)| Op::Delete(s, n)),
        2 => (n(), read_only()).prop_map(|(s, r)| Op::ReadOnly(s, r)),
        1 => n().prop_map(Op::Default),
        2 => (1..6usize).prop_map(Op::Drop),
        2 => Just(Op::Commit),
        1 => Just(Op::Remount),
        1 => Just(Op::Check),
    ]
}
