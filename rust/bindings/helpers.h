/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Prototypes of helpers.c. bindgen makes the Rust declarations from them, so the two sides
 * cannot differ.
 */
#ifndef OXFS_HELPERS_H
#define OXFS_HELPERS_H

#include <linux/fs.h>

unsigned int oxfs_helper_memalloc_nofs_save(void);
void oxfs_helper_memalloc_nofs_restore(unsigned int flags);

#endif
