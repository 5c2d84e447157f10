// SPDX-License-Identifier: GPL-2.0

//! The program `oxfs` where it needs no kernel: its options, what it says of an image, its JSON,
//! its manual pages.

use crate::common::{at, new_inode};
use clap::CommandFactory;
use oxfs::admin::options::Options;
use oxfs::engine::data::Written;
use oxfs::engine::mount::MountOptions;
use oxfs::engine::snapshot::NewSnapshot;
use oxfs::engine::types::{FileBlock, InodeId, SubvolId, ROOT_INO};
use oxfs::engine::volume::Volume;
use oxfs::file::{Access, FileDevice};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const OXFS: &str = env!("CARGO_BIN_EXE_oxfs");
const MKFS: &str = env!("CARGO_BIN_EXE_mkfs-oxfs");
const DOCS: &str = env!("CARGO_BIN_EXE_oxfs-docs");

/// A folder that goes when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("oxfs-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Exit status, standard output, standard error.
fn run(program: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program).args(arguments).output().expect("run");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn oxfs(arguments: &[&str]) -> String {
    let (code, said, why) = run(OXFS, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {why}");
    said
}

fn json(arguments: &[&str]) -> Value {
    let said = oxfs(&[&["--json"], arguments].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
}

fn refused(arguments: &[&str]) -> String {
    let (code, said, why) = run(OXFS, arguments);
    assert_ne!(code, Some(0), "{arguments:?}");
    assert_eq!(said, "", "{arguments:?}");
    why
}

/// What [`image`] made.
struct Made {
    file: u64,
    block: u64,
}

/// An image with a directory, a file of eight blocks in it, and a snapshot of that.
fn image(path: &Path) -> Made {
    let file = std::fs::File::create(path).expect("image");
    file.set_len(24 << 20).expect("size");
    let name = path.to_str().expect("path");
    assert_eq!(run(MKFS, &["-q", "-L", "inspected", name]).0, Some(0));
    let device = FileDevice::open(path, Access::WriteExclusive).expect("open");
    let volume = Volume::mount(device, &MountOptions { read_only: false }).expect("mount");
    let root = InodeId {
        subvol: SubvolId(0),
        ino: ROOT_INO,
    };
    let create = |dir, name: &[u8], mode| {
        let made = volume.create(dir, name, &new_inode(mode, at(1_795_378_507)));
        made.expect("create").value.id
    };
    let dir = create(root, b"dir", 0o40755);
    let file = create(dir, b"my file", 0o100644);
    volume.reserve(8).expect("reserve");
    let run = volume.stage(file, FileBlock(0), 8).expect("stage");
    assert_eq!(run.len, 8);
    volume
        .finish_write(
            file,
            FileBlock(0),
            8,
            Written::Staged(run.start),
            Some(32768),
        )
        .expect("write");
    let new = NewSnapshot {
        source: SubvolId(0),
        dir: root,
        name: b"snap",
        read_only: true,
        uuid: [9; 16],
        time: at(1_795_378_508),
    };
    volume.snapshot(&new).expect("snapshot");
    volume.unmount().expect("unmount");
    Made {
        file: file.ino.0,
        block: run.start.0,
    }
}

#[test]
fn options_are_consistent() {
    Options::command().debug_assert();
    // Without a command it teaches; a wrong word is answered with the right one.
    let (code, _, why) = run(OXFS, &[]);
    assert_eq!(code, Some(2));
    assert!(why.contains("oxfs swapfile create --size 8G"), "{why}");
    assert!(refused(&["subvolume", "lst"]).contains("list"));
    assert!(oxfs(&["su", "sn", "--help"]).contains("--read-only"));
    assert!(refused(&["swapfile", "create", "--size", "8X", "/x"]).contains("none of K, M, G, T"));
    assert!(refused(&["filesystem", "resize", "+8X", "/"]).contains("none of K, M, G, T"));
    assert!(refused(&["subvolume", "list", "-d", "-r", "/"]).contains("cannot be used with"));
}

#[test]
fn errors_say_what_to_do() {
    let folder = Folder::new("errors");
    let path = folder.0.to_str().expect("path");
    for command in [
        &["subvolume", "list", path][..],
        &["subvolume", "create", &format!("{path}/new")],
        &["subvolume", "snapshot", path, &format!("{path}/new")],
        &["subvolume", "delete", path],
        &["subvolume", "get-default", path],
        &["subvolume", "set-default", path],
        &["property", "set", path, "ro", "true"],
        &["swapfile", "create", "-s", "1M", &format!("{path}/swap")],
        &["swapfile", "status", path],
        &["filesystem", "usage", path],
        &["filesystem", "resize", "-1G", path],
        &["filesystem", "resize", "max", path],
        &["filesystem", "trim", path],
        &["filesystem", "label", path],
    ] {
        let why = refused(command);
        assert!(why.contains("findmnt -t oxfs"), "{command:?}: {why}");
    }
    // Nothing of it is left behind.
    assert_eq!(std::fs::read_dir(path).expect("folder").count(), 0);
    assert!(refused(&["inspect", "super", path]).contains("not a regular file or a block device"));
    assert!(refused(&["subvolume", "list", "/does/not/exist"]).contains("No such file"));
}

#[test]
fn inspects_an_image() {
    let folder = Folder::new("inspect");
    let path = folder.0.join("image");
    let made = image(&path);
    let device = path.to_str().expect("path");

    let supers = json(&["inspect", "super", device]);
    let copies = supers.as_array().expect("copies");
    assert_eq!(copies.len(), 4);
    assert!(copies.iter().all(|copy| copy["whole"] == true));
    let newest: Vec<_> = copies.iter().filter(|c| c["newest"] == true).collect();
    assert_eq!(newest.len(), 1);
    let sb = &newest[0]["super"];
    assert_eq!(sb["label"], "inspected");
    assert_eq!((&sb["blocks"], &sb["clean"]), (&6144.into(), &true.into()));
    assert!(oxfs(&["filesystem", "label", device]).contains("inspected"));

    let forest = json(&["inspect", "tree", "forest", device]);
    assert_eq!(forest[1]["value"]["parent"], 0);
    assert_eq!(forest[1]["value"]["read_only"], true);
    assert_eq!(forest[1]["value"]["created"], "2026-11-22 20:15:08 UTC");
    let root = forest[1]["value"]["root"]["block"].as_u64().expect("root");
    let node = json(&["inspect", "node", &root.to_string(), device]);
    assert_eq!(node["tree"], "subvolume");
    assert!(node.get("fault").is_none());
    assert_eq!(
        node["slots"].as_array().map(Vec::len),
        node["count"].as_u64().map(|n| n as usize)
    );
    let nodes = json(&["inspect", "tree", "subvolume", "--nodes", device]);
    assert_eq!(nodes[0]["tree"], "subvolume");

    let inode = json(&["inspect", "inode", &made.file.to_string(), device]);
    assert_eq!(inode["inode"]["size"], 32768);
    assert_eq!(inode["inode"]["mode"], "100644");
    assert_eq!(inode["names"][0]["name"], "my file");
    assert_eq!(inode["items"][0]["value"]["at"], made.block);
    let first = ((1u64 << 40) | made.file).to_string();
    let copy = json(&["inspect", "inode", &first, device]);
    assert_eq!(
        (&copy["subvolume"], &copy["ino"]),
        (&1.into(), &made.file.into())
    );

    let block = (made.block + 7).to_string();
    let extent = json(&["inspect", "extent", &block, device]);
    assert_eq!(extent["mapped"], true);
    assert_eq!(extent["owners"][0]["key"][1], "EXTENT");
    let past = json(&["inspect", "extent", &(made.block + 8).to_string(), device]);
    assert_eq!(
        past["owners"]
            .as_array()
            .map(|o| o.iter().filter(|o| o["key"][1] == "EXTENT").count()),
        Some(0)
    );
    let super_block = json(&["inspect", "extent", "16", device]);
    assert_eq!(
        (&super_block["fixed"], &super_block["mapped"]),
        (&true.into(), &true.into())
    );

    assert!(refused(&["inspect", "node", &block, device]).contains("inspect extent"));
    assert!(refused(&["inspect", "inode", "99999", device]).contains("no inode 99999"));
    assert!(refused(&["inspect", "tree", "subvolume", "--subvol", "7", device]).contains("0, 1"));
    assert!(refused(&["inspect", "extent", "6144", device]).contains("ends at block 6143"));
    for tree in ["forest", "space", "refs", "swap", "subvolume"] {
        let items = json(&["inspect", "tree", tree, device]);
        let text = oxfs(&["inspect", "tree", tree, device]);
        assert_eq!(
            items.as_array().map(Vec::len),
            Some(text.lines().count()),
            "{tree}"
        );
    }
}

#[test]
fn tells_of_damage() {
    use std::os::unix::fs::FileExt;
    let folder = Folder::new("damage");
    let path = folder.0.join("image");
    image(&path);
    let device = path.to_str().expect("path");
    let forest = json(&["inspect", "tree", "forest", device]);
    let root = forest[0]["value"]["root"]["block"].as_u64().expect("root");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("image");
    file.write_all_at(b"damage", root * 4096 + 200)
        .expect("write");
    file.write_all_at(b"damage", 16 * 4096 + 100)
        .expect("write");

    let supers = json(&["inspect", "super", device]);
    assert_eq!(supers[0]["whole"], false);
    let items = json(&["inspect", "tree", "subvolume", device]);
    assert_eq!(items[0]["block"], root);
    assert!(items[0]["fault"]
        .as_str()
        .expect("fault")
        .contains("corrupt"));
    let node = json(&["inspect", "node", &root.to_string(), device]);
    assert!(
        node["fault"].as_str().expect("fault").contains("checksum"),
        "{node}"
    );
}

#[test]
fn documents_every_command() {
    let folder = Folder::new("docs");
    let path = folder.0.to_str().expect("path");
    assert_eq!(run(DOCS, &[path]).0, Some(0));
    let read = |name: &str| {
        std::fs::read_to_string(folder.0.join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let pages = "share/man/man8";
    assert!(read(&format!("{pages}/oxfs.8")).contains("before\\-upgrade"));
    assert!(read(&format!("{pages}/oxfs-subvolume-snapshot.8")).contains("read\\-only"));
    assert!(read(&format!("{pages}/mkfs.oxfs.8")).contains("label"));
    assert!(read(&format!("{pages}/fsck.oxfs.8")).contains("fsck"));
    assert!(read("share/bash-completion/completions/oxfs").contains("swapfile"));
    assert!(read("share/zsh/site-functions/_oxfs").contains("swapfile"));
    assert!(read("share/fish/vendor_completions.d/oxfs.fish").contains("swapfile"));
}
