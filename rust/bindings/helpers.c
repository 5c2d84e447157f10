// SPDX-License-Identifier: GPL-2.0
/*
 * Functions that stand for the kernel's static inlines and macros, which Rust cannot call.
 * Nothing else belongs here: each does exactly what its name without the prefix does.
 */
#include <linux/folio_batch.h>
#include <linux/freezer.h>
#include <linux/fs.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/workqueue.h>

#include <linux/blkdev.h>
#include <linux/fs_struct.h>
#include <linux/fsnotify.h>
#include <linux/highmem.h>
#include <linux/security.h>
#include <linux/swapops.h>
#include <linux/uio.h>

#include "helpers.h"

/* The scheduler looks at the flags of other tasks, which is the kernel's own affair: no KCSAN. */

__no_kcsan unsigned int oxfs_helper_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

__no_kcsan void oxfs_helper_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

/* The data path. */

void oxfs_helper_sb_start_pagefault(struct super_block *sb)
{
	sb_start_pagefault(sb);
}

void oxfs_helper_sb_end_pagefault(struct super_block *sb)
{
	sb_end_pagefault(sb);
}

void oxfs_helper_file_accessed(struct file *file)
{
	file_accessed(file);
}

bool oxfs_helper_file_synchronous(struct file *file)
{
	return (file->f_flags & O_DSYNC) || IS_SYNC(file_inode(file));
}

ssize_t oxfs_helper_generic_write_sync(struct kiocb *iocb, ssize_t count)
{
	return generic_write_sync(iocb, count);
}

bool oxfs_helper_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

bool oxfs_helper_freezing(void)
{
	return freezing(current);
}

void oxfs_helper_try_to_freeze(void)
{
	try_to_freeze();
}

size_t oxfs_helper_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

bool oxfs_helper_user_backed_iter(const struct iov_iter *iter)
{
	return user_backed_iter(iter);
}

void oxfs_helper_pagefault_disable(void)
{
	pagefault_disable();
}

void oxfs_helper_pagefault_enable(void)
{
	pagefault_enable();
}

void oxfs_helper_folio_put(struct folio *folio)
{
	folio_put(folio);
}

size_t oxfs_helper_folio_size(const struct folio *folio)
{
	return folio_size(folio);
}

struct folio *oxfs_helper_read_mapping_folio(struct address_space *mapping, pgoff_t index,
					     struct file *file)
{
	return read_mapping_folio(mapping, index, file);
}

void oxfs_helper_memcpy_from_folio(char *to, struct folio *folio, size_t offset, size_t len)
{
	memcpy_from_folio(to, folio, offset, len);
}

unsigned long oxfs_helper_folio_swp_offset(const struct folio *folio)
{
	return swp_offset(folio->swap);
}

bool oxfs_helper_bdev_synchronous(struct block_device *bdev)
{
	return bdev_synchronous(bdev);
}

unsigned long oxfs_helper_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

void oxfs_helper_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}

loff_t oxfs_helper_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

void oxfs_helper_i_size_write(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

void oxfs_helper_inode_set_blocks(struct inode *inode, u64 sectors)
{
	spin_lock(&inode->i_lock);
	inode->i_blocks = sectors;
	inode->i_bytes = 0;
	spin_unlock(&inode->i_lock);
}

uid_t oxfs_helper_i_uid_read(const struct inode *inode)
{
	return i_uid_read(inode);
}

gid_t oxfs_helper_i_gid_read(const struct inode *inode)
{
	return i_gid_read(inode);
}

void oxfs_helper_i_uid_write(struct inode *inode, uid_t uid)
{
	i_uid_write(inode, uid);
}

void oxfs_helper_i_gid_write(struct inode *inode, gid_t gid)
{
	i_gid_write(inode, gid);
}

struct timespec64 oxfs_helper_inode_get_ctime(const struct inode *inode)
{
	return inode_get_ctime(inode);
}

bool oxfs_helper_is_dirsync(struct inode *inode)
{
	return IS_DIRSYNC(inode);
}

bool oxfs_helper_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

void oxfs_helper_mapping_set_large_folios(struct address_space *mapping)
{
	mapping_set_large_folios(mapping);
}

/* Sees every folio of a range of the mapping unlocked once. */
void oxfs_helper_wait_for_folios(struct address_space *mapping, pgoff_t first, pgoff_t last)
{
	struct folio_batch batch;
	unsigned int i;

	folio_batch_init(&batch);
	while (filemap_get_folios(mapping, &first, last, &batch)) {
		for (i = 0; i < folio_batch_count(&batch); i++)
			folio_wait_locked(batch.folios[i]);
		folio_batch_release(&batch);
		cond_resched();
	}
}

void oxfs_helper_super_set_uuid(struct super_block *sb, const u8 *uuid, unsigned int len)
{
	super_set_uuid(sb, uuid, len);
}

void oxfs_helper_sb_start_intwrite(struct super_block *sb)
{
	sb_start_intwrite(sb);
}

bool oxfs_helper_sb_start_intwrite_trylock(struct super_block *sb)
{
	return sb_start_intwrite_trylock(sb);
}

void oxfs_helper_sb_end_intwrite(struct super_block *sb)
{
	sb_end_intwrite(sb);
}

bool oxfs_helper_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino,
			  unsigned int type)
{
	return dir_emit(ctx, name, len, ino, type);
}

bool oxfs_helper_dir_emit_dots(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dots(file, ctx);
}

u64 oxfs_helper_bdev_nr_bytes(struct block_device *bdev)
{
	return bdev_nr_bytes(bdev);
}

bool oxfs_helper_bdev_is_zoned(struct block_device *bdev)
{
	return bdev_is_zoned(bdev);
}

unsigned int oxfs_helper_bdev_max_discard_sectors(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev);
}

unsigned int oxfs_helper_bdev_dma_alignment(struct block_device *bdev)
{
	return bdev_dma_alignment(bdev);
}

unsigned int oxfs_helper_bdev_logical_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

void oxfs_helper_init_delayed_work(struct delayed_work *work, work_func_t func)
{
	INIT_DELAYED_WORK(work, func);
}

/* Names outside of the VFS's own operations. */

int oxfs_helper_security_inode_init_security(struct inode *inode, struct inode *dir,
					     const struct qstr *qstr, initxattrs initxattrs,
					     void *fs_data)
{
	return security_inode_init_security(inode, dir, qstr, initxattrs, fs_data);
}

struct dentry *oxfs_helper_dget(struct dentry *dentry)
{
	return dget(dentry);
}

struct mnt_idmap *oxfs_helper_file_mnt_idmap(const struct file *file)
{
	return file_mnt_idmap(file);
}

bool oxfs_helper_inode_generic_drop(struct inode *inode)
{
	return inode_generic_drop(inode);
}

void oxfs_helper_fsnotify_mkdir(struct inode *dir, struct dentry *dentry)
{
	fsnotify_mkdir(dir, dentry);
}

void oxfs_helper_d_delete_notify(struct inode *dir, struct dentry *dentry)
{
	d_delete_notify(dir, dentry);
}
