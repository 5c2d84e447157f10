/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads: the kernel's headers for the interfaces that kernel::bindings lacks, and
 * the helpers. Which of their names are taken is said in bindgen_parameters.
 */
#include <linux/hrtimer_types.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/iomap.h>
#include <linux/buffer_head.h>
#include <linux/swap.h>
#include <linux/swap_ops.h>
#include <linux/fileattr.h>
#include <linux/fiemap.h>
#include <linux/exportfs.h>
#include <linux/statfs.h>
#include <linux/crc32c.h>
#include <linux/percpu-rwsem.h>
#include <linux/slab.h>
#include <linux/falloc.h>
#include <linux/filelock.h>
#include <linux/namei.h>
#include <linux/posix_acl_xattr.h>
#include <linux/version.h>

#include "helpers.h"

/* Constants that bindgen cannot evaluate as they are. */
static const unsigned int OXFS_FMODE_CAN_ODIRECT = (unsigned int)FMODE_CAN_ODIRECT;
static const unsigned int OXFS_FMODE_NOWAIT = (unsigned int)FMODE_NOWAIT;
static const unsigned int OXFS_FOP_DIO_PARALLEL_WRITE = (unsigned int)FOP_DIO_PARALLEL_WRITE;
static const unsigned int OXFS_IOCB_NOWAIT = (unsigned int)IOCB_NOWAIT;
static const unsigned int OXFS_IOCB_HIPRI = (unsigned int)IOCB_HIPRI;
static const unsigned int OXFS_VM_FAULT_SIGBUS = (unsigned int)VM_FAULT_SIGBUS;

/* Constants whose macros bindgen does not see through. */
static const unsigned long OXFS_SB_RDONLY = SB_RDONLY;
static const unsigned long OXFS_SB_SILENT = SB_SILENT;
static const unsigned long OXFS_SB_POSIXACL = SB_POSIXACL;
static const slab_flags_t OXFS_SLAB_INODE_FLAGS = SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT;
static const int OXFS_I_DIRTY_SYNC = I_DIRTY_SYNC;
static const blk_opf_t OXFS_REQ_META = REQ_META;
static const blk_opf_t OXFS_REQ_SYNC = REQ_SYNC;
static const blk_opf_t OXFS_REQ_FUA = REQ_FUA;
static const gfp_t OXFS_GFP_NOIO = GFP_NOIO;
static const gfp_t OXFS_GFP_NOFAIL = GFP_KERNEL | __GFP_NOFAIL;
static const u32 OXFS_FS_XFLAG_COMMON = FS_XFLAG_COMMON;
