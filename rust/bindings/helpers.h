/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Prototypes of helpers.c. bindgen makes the Rust declarations from them, so the two sides
 * cannot differ.
 */
#ifndef OXFS_HELPERS_H
#define OXFS_HELPERS_H

#include <linux/fs.h>
#include <linux/workqueue.h>

unsigned int oxfs_helper_memalloc_nofs_save(void);
void oxfs_helper_memalloc_nofs_restore(unsigned int flags);

struct kiocb;
struct iov_iter;
struct folio;
void oxfs_helper_sb_start_pagefault(struct super_block *sb);
void oxfs_helper_sb_end_pagefault(struct super_block *sb);
void oxfs_helper_file_accessed(struct file *file);
bool oxfs_helper_file_synchronous(struct file *file);
ssize_t oxfs_helper_generic_write_sync(struct kiocb *iocb, ssize_t count);
bool oxfs_helper_fatal_signal_pending(void);
bool oxfs_helper_freezing(void);
void oxfs_helper_try_to_freeze(void);
size_t oxfs_helper_iov_iter_count(const struct iov_iter *iter);
bool oxfs_helper_user_backed_iter(const struct iov_iter *iter);
void oxfs_helper_pagefault_disable(void);
void oxfs_helper_pagefault_enable(void);
void oxfs_helper_folio_put(struct folio *folio);
size_t oxfs_helper_folio_size(const struct folio *folio);
struct folio *oxfs_helper_read_mapping_folio(struct address_space *mapping, pgoff_t index,
					     struct file *file);
void oxfs_helper_memcpy_from_folio(char *to, struct folio *folio, size_t offset, size_t len);
unsigned long oxfs_helper_folio_swp_offset(const struct folio *folio);
bool oxfs_helper_bdev_synchronous(struct block_device *bdev);
unsigned long oxfs_helper_spin_lock_irqsave(spinlock_t *lock);
void oxfs_helper_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);

struct dir_context;
loff_t oxfs_helper_i_size_read(const struct inode *inode);
void oxfs_helper_i_size_write(struct inode *inode, loff_t size);
void oxfs_helper_inode_set_blocks(struct inode *inode, u64 sectors);
uid_t oxfs_helper_i_uid_read(const struct inode *inode);
gid_t oxfs_helper_i_gid_read(const struct inode *inode);
void oxfs_helper_i_uid_write(struct inode *inode, uid_t uid);
void oxfs_helper_i_gid_write(struct inode *inode, gid_t gid);
struct timespec64 oxfs_helper_inode_get_ctime(const struct inode *inode);
bool oxfs_helper_is_dirsync(struct inode *inode);
bool oxfs_helper_inode_is_new(struct inode *inode);
void oxfs_helper_mapping_set_large_folios(struct address_space *mapping);
void oxfs_helper_wait_for_folios(struct address_space *mapping, pgoff_t first, pgoff_t last);
void oxfs_helper_super_set_uuid(struct super_block *sb, const u8 *uuid, unsigned int len);
void oxfs_helper_sb_start_intwrite(struct super_block *sb);
bool oxfs_helper_sb_start_intwrite_trylock(struct super_block *sb);
void oxfs_helper_sb_end_intwrite(struct super_block *sb);
bool oxfs_helper_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino,
			  unsigned int type);
bool oxfs_helper_dir_emit_dots(struct file *file, struct dir_context *ctx);
u64 oxfs_helper_bdev_nr_bytes(struct block_device *bdev);
bool oxfs_helper_bdev_is_zoned(struct block_device *bdev);
unsigned int oxfs_helper_bdev_max_discard_sectors(struct block_device *bdev);
unsigned int oxfs_helper_bdev_dma_alignment(struct block_device *bdev);
unsigned int oxfs_helper_bdev_logical_block_size(struct block_device *bdev);
void oxfs_helper_init_delayed_work(struct delayed_work *work, work_func_t func);

int oxfs_helper_security_inode_init_security(struct inode *inode, struct inode *dir,
					     const struct qstr *qstr, initxattrs initxattrs,
					     void *fs_data);
struct dentry *oxfs_helper_dget(struct dentry *dentry);
struct mnt_idmap *oxfs_helper_file_mnt_idmap(const struct file *file);
bool oxfs_helper_inode_generic_drop(struct inode *inode);
void oxfs_helper_fsnotify_mkdir(struct inode *dir, struct dentry *dentry);
void oxfs_helper_d_delete_notify(struct inode *dir, struct dentry *dentry);

#endif
