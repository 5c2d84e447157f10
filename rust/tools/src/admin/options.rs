// SPDX-License-Identifier: GPL-2.0

//! The command line of `oxfs`. The manual pages and the shells' completions are made from it.
//!
//! Words and flags are those of `btrfs` where they mean the same.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use uuid::Uuid;

/// Administer oxfs volumes: subvolumes, snapshots, swapfiles, space.
#[derive(Debug, Parser)]
#[command(
    name = "oxfs",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  A swapfile, and a snapshot while it is in use:
    oxfs swapfile create --size 8G /swapfile
    swapon /swapfile
    oxfs subvolume snapshot -r / /snapshots/before-upgrade

  Roll back, from the next mount on:
    oxfs subvolume snapshot /snapshots/before-upgrade /snapshots/again
    oxfs subvolume set-default /snapshots/again

  For scripts:
    oxfs --json subvolume list /

Commands can be shortened as long as they are clear: oxfs su sn / /backup"
)]
#[command(infer_subcommands = true)]
pub struct Options {
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, snapshot, list and delete subvolumes
    #[command(subcommand, infer_subcommands = true)]
    Subvolume(Subvolume),
    /// Read and set properties of a subvolume
    #[command(subcommand, infer_subcommands = true)]
    Property(Property),
    /// Create swapfiles and see what they do
    #[command(subcommand, infer_subcommands = true)]
    Swapfile(Swapfile),
    /// The whole volume: space, discard, label
    #[command(subcommand, infer_subcommands = true)]
    Filesystem(Filesystem),
    /// Print parts of the format on disk, for debugging
    #[command(subcommand, infer_subcommands = true)]
    Inspect(Inspect),
}

/// `oxfs subvolume`.
#[derive(Debug, Subcommand)]
pub enum Subvolume {
    /// Create empty subvolumes
    ///
    /// A subvolume looks like a directory. It can be snapshotted and mounted by itself, and a
    /// snapshot of the subvolume around it shows it empty.
    #[command(after_help = "Example:\n  oxfs subvolume create /mnt/root /mnt/home")]
    Create {
        /// Create parent directories that are missing
        #[arg(short = 'p', long)]
        parents: bool,
        /// Where; nothing may be there yet
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Take a snapshot of a subvolume
    ///
    /// It costs the same for every size, and active swapfiles are not in its way: in the snapshot a
    /// swapfile has its size and its header and reads as zeros, and `swapon` of it works.
    #[command(after_help = "\
Examples:
  oxfs subvolume snapshot -r / /snapshots/monday   read-only, as a backup
  oxfs subvolume snapshot / /snapshots/            named like its source")]
    Snapshot {
        /// Nothing in the snapshot can be changed
        #[arg(short, long)]
        read_only: bool,
        /// The subvolume
        source: PathBuf,
        /// The new path, or a directory in which it gets the name of its source
        dest: PathBuf,
    },
    /// Delete subvolumes with all that is in them
    ///
    /// The command returns at once; the space comes back in the background, also after a crash. `oxfs
    /// subvolume sync` waits for it.
    #[command(
        after_help = "Example:\n  oxfs subvolume delete /snapshots/monday && oxfs subvolume sync /"
    )]
    Delete {
        /// The subvolumes
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// List the subvolumes of a volume
    List {
        /// Only read-only ones
        #[arg(short, long)]
        read_only: bool,
        /// Only snapshots
        #[arg(short, long)]
        snapshots: bool,
        /// Only those that were deleted and whose space is on the way back
        #[arg(short, long, conflicts_with_all = ["read_only", "snapshots"])]
        deleted: bool,
        /// Any path of the volume
        path: PathBuf,
    },
    /// Show all about one subvolume
    Show {
        /// The subvolume
        path: PathBuf,
    },
    /// Show which subvolume a mount without `subvol=` gets
    GetDefault {
        /// Any path of the volume
        path: PathBuf,
    },
    /// Choose the subvolume that a mount without `subvol=` gets
    #[command(
        override_usage = "oxfs subvolume set-default [OPTIONS] <SUBVOLUME>\n       \
            oxfs subvolume set-default [OPTIONS] <ID> <PATH>",
        after_help = "\
Examples:
  oxfs subvolume set-default /snapshots/monday
  oxfs subvolume set-default 0 /            the top level again"
    )]
    SetDefault {
        /// The subvolume's path, or its id and any path of the volume
        #[arg(required = true, num_args = 1..=2, value_name = "SUBVOLUME|ID PATH")]
        which: Vec<PathBuf>,
    },
    /// Wait until the space of deleted subvolumes is back
    Sync {
        /// Any path of the volume
        path: PathBuf,
        /// Only these; all by default
        ids: Vec<u64>,
    },
}

/// A property of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Read-only: true or false
    Ro,
}

/// `oxfs property`.
#[derive(Debug, Subcommand)]
pub enum Property {
    /// Print properties
    Get {
        /// The subvolume
        path: PathBuf,
        /// Which one; all by default
        #[arg(value_enum)]
        name: Option<Name>,
    },
    /// Set a property
    #[command(after_help = "Example:\n  oxfs property set /snapshots/monday ro true")]
    Set {
        /// The subvolume
        path: PathBuf,
        /// Which one
        #[arg(value_enum)]
        name: Name,
        /// true or false
        #[arg(action = clap::ArgAction::Set)]
        value: bool,
    },
}

/// `oxfs swapfile`.
#[derive(Debug, Subcommand)]
pub enum Swapfile {
    /// Create a swapfile: space, mode 0600, swap header
    ///
    /// Prints the line for fstab(5). `swapon` it then. Nothing else is needed: no `chattr +C`, no
    /// subvolume of its own, and it may be cloned and snapshotted.
    #[command(
        after_help = "Example:\n  oxfs swapfile create --size 8G /swapfile && swapon /swapfile"
    )]
    Create {
        /// Its size: bytes, or a number with K, M, G or T (powers of 1024)
        #[arg(short, long, value_parser = super::output::parse_size)]
        size: u64,
        /// UUID of the swap space instead of a random one
        #[arg(short = 'U', long)]
        uuid: Option<Uuid>,
        /// Label of the swap space, up to 16 bytes
        #[arg(short = 'L', long, default_value = "", hide_default_value = true)]
        label: String,
        /// Where; nothing may be there yet
        path: PathBuf,
    },
    /// List active swapfiles, and what activation did with them
    Status {
        /// Any path of a volume; all mounted volumes by default
        path: Option<PathBuf>,
    },
    /// Print what the kernel wants as `resume_offset=` to hibernate to a swapfile
    #[command(after_help = "\
Example:
  swapon /swapfile
  echo resume=UUID=$(findmnt -no UUID /) resume_offset=$(oxfs swapfile offset /swapfile)")]
    Offset {
        /// The swapfile; it must be active, so that its blocks are final
        path: PathBuf,
    },
}

/// `oxfs filesystem`.
#[derive(Debug, Subcommand)]
pub enum Filesystem {
    /// Show what the space of a volume is used for
    Usage {
        /// Any path of the volume
        path: PathBuf,
    },
    /// Make a mounted volume larger or smaller
    ///
    /// A volume grows within its device: make that larger first. To shrink it, everything beyond the
    /// new end is moved, for which all metadata is read; writers wait for up to 256 MiB of it at a
    /// time. Snapshots stay as they are, and share what they shared. An active swapfile moves
    /// nowhere: if it is in the way, swapoff it first. (Inactive ones move, and what `resume_offset=`
    /// wants changes: see `oxfs swapfile offset`.) If it ends early, by ^C too, the volume has the
    /// size that it had.
    ///
    /// A size that would leave less than 8 MiB in the last 128 MiB is rounded down to those.
    #[command(
        after_help = "Examples:\n  oxfs filesystem resize max /mnt\n  oxfs filesystem resize -10G /mnt"
    )]
    Resize {
        /// The new size, like 100G; what to add or take away, like +10G or -10G; or max: all of the
        /// device
        #[arg(value_name = "[+-]SIZE|max", allow_hyphen_values = true)]
        size: super::filesystem::NewSize,
        /// Any path of the volume
        path: PathBuf,
    },
    /// Tell the device which blocks are free (as fstrim does)
    Trim {
        /// Leave free runs shorter than this
        #[arg(short, long, default_value = "4K", value_parser = super::output::parse_size)]
        minimum: u64,
        /// Any path of the volume
        path: PathBuf,
    },
    /// Print or change the label
    Label {
        /// Any path of a mounted volume; to print it also a device or an image
        path: PathBuf,
        /// The new label, up to 255 bytes
        label: Option<String>,
    },
}

/// A tree of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tree {
    /// Subvolumes
    Forest,
    /// Free space, by group
    Space,
    /// Blocks with more than one owner
    Refs,
    /// Private blocks of swapfiles
    Swap,
    /// Inodes, names and extents of a subvolume
    Subvolume,
}

/// What all of `oxfs inspect` reads.
#[derive(Debug, Args)]
pub struct Device {
    /// Block device or image; of a mounted one what is read is the last commit, and a commit
    /// meanwhile can get in the way
    pub device: PathBuf,
}

/// `oxfs inspect`.
#[derive(Debug, Subcommand)]
pub enum Inspect {
    /// The four copies of the super block
    Super {
        /// What to read
        #[command(flatten)]
        device: Device,
    },
    /// The items of a tree
    #[command(after_help = "\
Examples:
  oxfs inspect tree forest /dev/sdX1
  oxfs inspect tree subvolume --subvol 3 --object 2 /dev/sdX1   items of the root directory")]
    Tree {
        /// Which one
        #[arg(value_enum)]
        tree: Tree,
        /// The subvolume; the default one by default
        #[arg(long, value_name = "ID")]
        subvol: Option<u64>,
        /// Only items whose key begins with this number
        #[arg(long, value_name = "NUMBER")]
        object: Option<u64>,
        /// The tree's nodes instead of its items
        #[arg(long, conflicts_with = "object")]
        nodes: bool,
        /// What to read
        #[command(flatten)]
        device: Device,
    },
    /// A tree node
    Node {
        /// Its block
        block: u64,
        /// What to read
        #[command(flatten)]
        device: Device,
    },
    /// Who owns a block: its bit in the bitmap, its count, everything that points to it
    Extent {
        /// The block
        block: u64,
        /// What to read
        #[command(flatten)]
        device: Device,
    },
    /// All about one inode: attributes, names, attributes, extents, private swap blocks
    #[command(after_help = "\
Example:
  oxfs inspect inode $(stat -c %i /mnt/file) /dev/sdX1")]
    Inode {
        /// Its number, as stat(1) shows it or within `--subvol`
        ino: u64,
        /// The subvolume, if not in the number
        #[arg(long, value_name = "ID")]
        subvol: Option<u64>,
        /// What to read
        #[command(flatten)]
        device: Device,
    },
}
