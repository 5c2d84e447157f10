// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the kernel complain on purpose, for the test of qemu/vm: `insmod provoke.ko what=...`.
 * The module does not stay loaded.
 */
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>

static char *what = "warning";
module_param(what, charp, 0);
MODULE_PARM_DESC(what, "warning, bug, oops, hung; with the debug kernel lock, atomic, freed, beyond, shift, leak");

/* Longer than the time-out that the test has set for hung tasks. */
static int hang(void *unused)
{
	unsigned long left = 20 * HZ;

	while (left) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		left = schedule_timeout(left);
	}
	return 0;
}

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(two);
static DEFINE_SPINLOCK(spin);
static int bits = 40;

/* Locks in both orders: nothing is stuck, but it could be. */
static void lock_both_ways(void)
{
	mutex_lock(&one);
	mutex_lock(&two);
	mutex_unlock(&two);
	mutex_unlock(&one);
	mutex_lock(&two);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&two);
}

/* What only the debug kernel notices. */
static void provoke_checker(void)
{
	char *memory;

	if (!strcmp(what, "lock")) {
		lock_both_ways();
	} else if (!strcmp(what, "atomic")) {
		spin_lock(&spin);
		msleep(1);
		spin_unlock(&spin);
	} else if (!strcmp(what, "freed")) {
		memory = kmalloc(100, GFP_KERNEL);
		OPTIMIZER_HIDE_VAR(memory);
		kfree(memory);
		WRITE_ONCE(memory[50], 1);
	} else if (!strcmp(what, "beyond")) {
		memory = vmalloc(5000);
		OPTIMIZER_HIDE_VAR(memory);
		WRITE_ONCE(memory[5001], 1);
		vfree(memory);
	} else if (!strcmp(what, "shift")) {
		pr_info("shifted: %d\n", 1 << READ_ONCE(bits));
	} else if (!strcmp(what, "leak")) {
		memory = kmalloc(777, GFP_KERNEL);
		OPTIMIZER_HIDE_VAR(memory);
	}
}

static int __init provoke_init(void)
{
	struct task_struct *task;

	if (!strcmp(what, "warning")) {
		WARN(1, "provoked on purpose\n");
	} else if (!strcmp(what, "bug")) {
		BUG();
	} else if (!strcmp(what, "oops")) {
		WRITE_ONCE(*(int *)8, 1);
	} else if (!strcmp(what, "hung")) {
		task = kthread_run(hang, NULL, "provoke_hung");
		if (IS_ERR(task))
			return PTR_ERR(task);
		/* The task's code must stay until it has ended. */
		ssleep(25);
	} else {
		provoke_checker();
	}
	return -EAGAIN;
}
module_init(provoke_init);

MODULE_DESCRIPTION("Makes the kernel complain on purpose");
MODULE_LICENSE("GPL");
