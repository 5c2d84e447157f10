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

#include "helpers.h"
