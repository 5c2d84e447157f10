// SPDX-License-Identifier: GPL-2.0

//! Subvolumes among the names: what leads into them, what a snapshot shows of them, what may be
//! renamed, removed and linked, and what is refused.

use crate::common::{assert_clean, at, formatted, mount, new_inode, SimVolume, SMALL};
use oxfs::engine::error::Error;
use oxfs::engine::namei::Created;
use oxfs::engine::rename::{Rename, RenameFlags};
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::subvolume::{root_of, NewSubvolume, TOP};
use oxfs::engine::types::{FileType, InodeId, SubvolId};
use oxfs::sim::SimDisk;

const DIR: u32 = 0o040755;
const FILE: u32 = 0o100644;

fn volume() -> (SimDisk, SimVolume) {
    let disk = formatted(SMALL);
    let volume = mount(&disk);
    (disk, volume)
}

fn make(volume: &SimVolume, dir: InodeId, name: &str, mode: u32) -> InodeId {
    let new = new_inode(mode, at(2));
    let done = volume.create(dir, name.as_bytes(), &new).expect("create");
    done.value.id
}

fn subvolume(volume: &SimVolume, dir: InodeId, name: &str) -> Created {
    let new = NewSubvolume {
        dir,
        name: name.as_bytes(),
        root: new_inode(0o040750, at(3)),
        uuid: [4; 16],
    };
    volume.create_subvolume(&new).expect("subvolume").value
}

fn try_snapshot(
    volume: &SimVolume,
    source: SubvolId,
    dir: InodeId,
    name: &str,
    read_only: bool,
) -> Result<SubvolId, Error> {
    let new = NewSnapshot {
        source,
        dir,
        name: name.as_bytes(),
        read_only,
        uuid: [5; 16],
        time: at(4),
    };
    volume.snapshot(&new).map(|done| done.value.id.subvol)
}

fn snapshot(volume: &SimVolume, source: SubvolId, dir: InodeId, name: &str) -> SubvolId {
    try_snapshot(volume, source, dir, name, false).expect("snapshot")
}

fn rename(
    volume: &SimVolume,
    (old_dir, old): (InodeId, &str),
    (new_dir, new): (InodeId, &str),
    flags: RenameFlags,
) -> Result<(InodeId, Option<InodeId>), Error> {
    let what = Rename {
        old_dir,
        old_name: old.as_bytes(),
        new_dir,
        new_name: new.as_bytes(),
        flags,
        whiteout: None,
        time: at(7),
    };
    let done = volume.rename(&what)?.value;
    Ok((done.moved.0, done.replaced.map(|(id, _)| id)))
}

fn find(volume: &SimVolume, dir: InodeId, name: &str) -> Option<InodeId> {
    let found = volume.lookup(dir, name.as_bytes()).expect("lookup");
    found.map(|(id, _)| id)
}

fn names(volume: &SimVolume, dir: InodeId) -> Vec<(String, InodeId)> {
    let mut entries = Vec::new();
    volume.readdir(dir, 2, 1000, &mut entries).expect("readdir");
    let name = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("name");
    let mut names: Vec<_> = entries.iter().map(|e| (name(&e.name), e.id)).collect();
    names.sort();
    names
}

fn path(volume: &SimVolume, id: InodeId) -> String {
    String::from_utf8(volume.path(id).expect("path")).expect("path")
}

fn drop_all(volume: &SimVolume) {
    while let Some(id) = volume.next_dropping(TOP).expect("next_dropping") {
        while !volume.drop_step(id).expect("drop_step").value {}
    }
}

fn done(disk: &SimDisk, volume: &SimVolume) {
    drop_all(volume);
    volume.commit().expect("commit");
    assert_clean(disk);
}

#[test]
fn names_lead_into_subvolumes_and_back() {
    let (disk, volume) = volume();
    let top = root_of(TOP);
    let home = make(&volume, top, "home", DIR);
    let made = subvolume(&volume, home, "alice");
    assert_eq!(made.id, root_of(SubvolId(1)));
    assert_eq!((made.attr.nlink, made.attr.mode), (2, 0o040750));
    assert_eq!(made.dir.nlink, 3);
    let file = make(&volume, made.id, "file", FILE);
    let deep = make(&volume, made.id, "deep", DIR);
    let inner = subvolume(&volume, deep, "inner").id;

    let mut volume = volume;
    // Before the first commit, and after it.
    for _ in 0..2 {
        let alice = volume.lookup(home, b"alice").expect("lookup");
        assert_eq!(alice, Some((made.id, FileType::Directory)));
        assert_eq!(names(&volume, home), [("alice".into(), made.id)]);
        assert_eq!(find(&volume, made.id, "file"), Some(file));
        assert_eq!(find(&volume, deep, "inner"), Some(inner));
        assert_eq!(volume.parent(made.id), Ok(home));
        assert_eq!(volume.parent(inner), Ok(deep));
        assert_eq!(volume.parent(top), Ok(top));
        assert_eq!(path(&volume, inner), "home/alice/deep/inner");
        assert_eq!(path(&volume, file), "home/alice/file");
        assert_eq!(path(&volume, top), "");
        let info = volume.subvolume(SubvolId(2)).expect("subvolume");
        assert_eq!(info.home.map(|home| home.subvol), Some(SubvolId(1)));
        assert_eq!((info.uuid, info.source), ([4; 16], None));
        let mut ids = Vec::new();
        let mut from = TOP;
        while let Some(info) = volume.next_subvolume(from).expect("next") {
            ids.push(info.id.0);
            from = SubvolId(info.id.0 + 1);
        }
        assert_eq!(ids, [0, 1, 2]);
        done(&disk, &volume);
        volume = mount(&disk);
    }
}

#[test]
fn nested_subvolumes_are_no_part_of_a_snapshot() {
    let (disk, volume) = volume();
    let top = root_of(TOP);
    let a = subvolume(&volume, top, "a").id;
    let file = make(&volume, a, "file", FILE);
    let inner = subvolume(&volume, a, "inner").id;
    make(&volume, inner, "secret", FILE);
    let copy = root_of(snapshot(&volume, a.subvol, a, "copy"));
    let info = volume.subvolume(copy.subvol).expect("subvolume");
    assert_eq!((info.source, info.source_uuid), (Some(a.subvol), [4; 16]));

    // It does not show itself, and of what hangs in its source an empty directory.
    let names_of = |dir| {
        let names = names(&volume, dir).into_iter();
        names.map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names_of(copy), ["file", "inner"]);
    assert_eq!(names_of(a), ["copy", "file", "inner"]);
    let plain = find(&volume, copy, "inner").expect("plain directory");
    assert_eq!(plain.subvol, copy.subvol);
    assert_eq!(names_of(plain), [] as [&str; 0]);
    assert_eq!(volume.parent(plain), Ok(copy));
    assert_eq!(find(&volume, copy, "file").map(|id| id.ino), Some(file.ino));
    done(&disk, &volume);

    // It is as good as any other directory.
    make(&volume, plain, "new", FILE);
    done(&disk, &volume);
    assert_eq!(
        volume.rmdir(copy, b"inner", at(5)).map(drop),
        Err(Error::NotEmpty)
    );
    assert_eq!(
        volume.delete_subvolume(copy, b"inner", at(5)).map(drop),
        Err(Error::Invalid("no subvolume"))
    );
    volume.unlink(plain, b"new", at(5)).expect("unlink");
    volume.rmdir(copy, b"inner", at(5)).expect("rmdir");
    assert_eq!(names_of(inner), ["secret"]);
    done(&disk, &volume);
}

#[test]
fn deletes() {
    let (disk, volume) = volume();
    let top = root_of(TOP);
    let a = subvolume(&volume, top, "a").id;
    let file = make(&volume, a, "file", FILE);
    let inner = subvolume(&volume, a, "inner").id;
    make(&volume, top, "dir", DIR);
    make(&volume, top, "file", FILE);

    let delete = |dir, name: &str| {
        volume
            .delete_subvolume(dir, name.as_bytes(), at(5))
            .map(drop)
    };
    assert_eq!(delete(top, "none"), Err(Error::NotFound));
    assert_eq!(delete(top, "dir"), Err(Error::Invalid("no subvolume")));
    assert_eq!(delete(top, "file"), Err(Error::NotDirectory));
    assert_eq!(delete(top, "a"), Err(Error::NotEmpty));
    assert_eq!(
        volume.rmdir(top, b"a", at(5)).map(drop),
        Err(Error::NotEmpty)
    );
    assert_eq!(
        volume.unlink(top, b"a", at(5)).map(drop),
        Err(Error::IsDirectory)
    );
    volume.set_default_subvolume(inner.subvol).expect("default");
    assert_eq!(delete(a, "inner"), Err(Error::Busy));
    assert_eq!(volume.rmdir(a, b"inner", at(5)).map(drop), Err(Error::Busy));
    volume.set_default_subvolume(TOP).expect("default");
    volume.set_swapping(file, true).expect("pin");
    // An empty one goes with rmdir as well.
    let gone = volume.rmdir(a, b"inner", at(5)).expect("rmdir").value;
    assert_eq!((gone.id, gone.target.nlink, gone.dir.nlink), (inner, 0, 2));
    assert_eq!(delete(top, "a"), Err(Error::Busy));
    volume.set_swapping(file, false).expect("unpin");
    assert_eq!(volume.parent(inner), Err(Error::NotFound));
    assert!(volume.subvolume(inner.subvol).expect("subvolume").dropping);
    assert_eq!(delete(top, "a"), Ok(()));
    assert_eq!(names(&volume, top).len(), 2);
    let nothing_in_it = volume.create(a, b"x", &new_inode(FILE, at(6))).map(drop);
    assert_eq!(nothing_in_it, Err(Error::NotFound));
    assert_eq!(
        try_snapshot(&volume, a.subvol, top, "late", false),
        Err(Error::NotFound)
    );
    volume.commit().expect("commit");
    assert_clean(&disk);
    done(&disk, &volume);
    assert_eq!(volume.subvolume(a.subvol), Err(Error::NotFound));
    // Numbers are never used twice.
    assert_eq!(subvolume(&volume, top, "b").id.subvol, SubvolId(3));
    done(&disk, &volume);
}

#[test]
fn read_only_and_default() {
    let (disk, volume) = volume();
    let top = root_of(TOP);
    let a = subvolume(&volume, top, "a").id;
    let file = make(&volume, a, "file", FILE);
    let copy = root_of(try_snapshot(&volume, a.subvol, top, "copy", true).expect("snapshot"));
    let refused = Err(Error::ReadOnly);
    let new = new_inode(FILE, at(5));
    let create = || volume.create(copy, b"new", &new).map(drop);
    assert_eq!(create(), refused);
    assert_eq!(volume.unlink(copy, b"file", at(5)).map(drop), refused);
    let into = rename(
        &volume,
        (copy, "file"),
        (copy, "other"),
        RenameFlags::Replace,
    );
    assert_eq!(into.map(drop), refused);
    let nested = try_snapshot(&volume, a.subvol, copy, "nested", true).map(drop);
    assert_eq!(nested, refused);
    volume
        .set_subvolume_read_only(copy.subvol, false)
        .expect("writable");
    assert_eq!(create(), Ok(()));
    volume.set_swapping(file, true).expect("pin");
    let set = volume.set_subvolume_read_only(a.subvol, true).map(drop);
    assert_eq!(set, Err(Error::Busy));
    volume.set_swapping(file, false).expect("unpin");
    volume
        .set_subvolume_read_only(a.subvol, true)
        .expect("read-only");
    assert_eq!(
        volume.set_default_subvolume(SubvolId(9)).map(drop),
        Err(Error::NotFound)
    );
    volume.set_default_subvolume(copy.subvol).expect("default");
    done(&disk, &volume);
    let volume = mount(&disk);
    assert_eq!(volume.default_subvolume(), copy.subvol);
    assert!(volume.subvolume(a.subvol).expect("subvolume").read_only);
    assert!(!volume.subvolume(copy.subvol).expect("subvolume").read_only);
    assert_eq!(names(&volume, root_of(volume.default_subvolume())).len(), 2);
}

#[test]
fn renames() {
    let (disk, volume) = volume();
    let top = root_of(TOP);
    let a = subvolume(&volume, top, "a").id;
    let b = subvolume(&volume, top, "b").id;
    let inner = subvolume(&volume, a, "inner").id;
    let dir = make(&volume, top, "dir", DIR);
    let file = make(&volume, a, "file", FILE);
    let (replace, exchange) = (RenameFlags::Replace, RenameFlags::Exchange);
    let mv = |old, new, flags| rename(&volume, old, new, flags);

    // Inside its parent, as any directory.
    assert_eq!(mv((top, "a"), (dir, "A"), replace), Ok((a, None)));
    assert_eq!(path(&volume, inner), "dir/A/inner");
    assert_eq!(
        mv((dir, "A"), (top, "dir"), exchange),
        Err(Error::Invalid("a directory cannot go into itself"))
    );
    assert_eq!(mv((dir, "A"), (top, "b"), exchange), Ok((a, Some(b))));
    assert_eq!(
        (path(&volume, a), path(&volume, b)),
        ("b".into(), "dir/A".into())
    );
    assert_eq!(mv((dir, "A"), (top, "b"), exchange), Ok((b, Some(a))));
    assert_eq!(mv((dir, "A"), (top, "b"), replace), Err(Error::NotEmpty));
    assert_eq!(mv((top, "b"), (dir, "A"), replace), Err(Error::NotEmpty));
    let empty = make(&volume, top, "empty", DIR);
    assert_eq!(
        mv((dir, "A"), (top, "empty"), replace),
        Ok((a, Some(empty)))
    );
    assert_eq!(find(&volume, top, "empty"), Some(a));
    while !volume.finish_orphan(empty).expect("finish").value {}

    // Between subvolumes: only subvolumes themselves.
    assert_eq!(
        mv((a, "file"), (b, "file"), replace),
        Err(Error::CrossSubvolume)
    );
    assert_eq!(
        volume.link(file, b, b"file", at(7)).map(drop),
        Err(Error::CrossSubvolume)
    );
    assert_eq!(mv((a, "inner"), (b, "in"), exchange), Err(Error::NotFound));
    assert_eq!(mv((a, "inner"), (b, "in"), replace), Ok((inner, None)));
    assert_eq!(path(&volume, inner), "b/in");
    let into_itself = Err(Error::Invalid("a directory cannot go into itself"));
    assert_eq!(mv((top, "b"), (inner, "b"), replace), into_itself);
    assert_eq!(mv((top, "b"), (b, "b"), replace), into_itself);
    let empty = make(&volume, a, "inner", DIR);
    assert_eq!(
        mv((b, "in"), (a, "inner"), exchange),
        Err(Error::CrossSubvolume)
    );
    assert_eq!(
        mv((b, "in"), (a, "inner"), RenameFlags::NoReplace),
        Err(Error::Exists)
    );
    assert_eq!(
        mv((b, "in"), (a, "file"), replace),
        Err(Error::NotDirectory)
    );
    assert_eq!(
        mv((b, "in"), (a, "inner"), replace),
        Ok((inner, Some(empty)))
    );
    while !volume.finish_orphan(empty).expect("finish").value {}
    assert_eq!(path(&volume, inner), "empty/inner");
    assert_eq!(names(&volume, b), []);
    assert_eq!(volume.parent(inner), Ok(a));
    done(&disk, &volume);
    let volume = mount(&disk);
    assert_eq!(path(&volume, inner), "empty/inner");
    assert_eq!(find(&volume, a, "inner"), Some(inner));
}
