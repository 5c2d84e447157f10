// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the kernel complain on purpose, for the test of qemu/vm: `insmod provoke.ko what=...`.
 * The module does not stay loaded.
 */
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>

static char *what = "warning";
module_param(what, charp, 0);
MODULE_PARM_DESC(what, "warning, bug, oops, hung");

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
	}
	return -EAGAIN;
}
module_init(provoke_init);

MODULE_DESCRIPTION("Makes the kernel complain on purpose");
MODULE_LICENSE("GPL");
