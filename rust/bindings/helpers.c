// SPDX-License-Identifier: GPL-2.0
/*
 * Functions that stand for the kernel's static inlines and macros, which Rust cannot call.
 * Nothing else belongs here: each does exactly what its name without the prefix does.
 */
#include <linux/fs.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>

#include "helpers.h"

unsigned int oxfs_helper_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

void oxfs_helper_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}
