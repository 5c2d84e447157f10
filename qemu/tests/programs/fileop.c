// SPDX-License-Identifier: GPL-2.0
/*
 * fileop OPERATION [ARG...]: does one thing to a file by the plain system call and prints the
 * outcome: OK, or the name of the error. Programs for users check beforehand, fall back to other
 * calls, and translate errors; a test wants to know what the kernel said.
 *
 * Numbers may end in K, M or G. The exit status is 0 whatever the outcome, 2 for wrong use.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

/* A failure that is not the one asked about. */
static void broken(const char *what)
{
	fprintf(stderr, "fileop: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int must_open(const char *name, int flags)
{
	int fd = open(name, flags, 0644);

	if (fd < 0)
		broken(name);
	return fd;
}

static long long number(const char *text)
{
	char *end;
	long long value = strtoll(text, &end, 0);

	switch (*end) {
	case 'G': value <<= 10; /* fallthrough */
	case 'M': value <<= 10; /* fallthrough */
	case 'K': value <<= 10; end++;
	}
	if (end == text || *end) {
		errno = EINVAL;
		broken(text);
	}
	return value;
}

static const char *outcome(int error)
{
	return error ? strerrorname_np(error) : "OK";
}

static int say(long result)
{
	puts(outcome(result < 0 ? errno : 0));
	return 0;
}

/* clone SOURCE TARGET */
static int op_clone(char **arg)
{
	int from = must_open(arg[0], O_RDONLY), to = must_open(arg[1], O_RDWR | O_CREAT);

	return say(ioctl(to, FICLONE, from));
}

/* clonerange SOURCE TARGET OFFSET LENGTH TARGET_OFFSET */
static int op_clonerange(char **arg)
{
	struct file_clone_range range = {
		.src_fd = must_open(arg[0], O_RDONLY),
		.src_offset = number(arg[2]),
		.src_length = number(arg[3]),
		.dest_offset = number(arg[4]),
	};

	return say(ioctl(must_open(arg[1], O_RDWR | O_CREAT), FICLONERANGE, &range));
}

/* dedupe SOURCE TARGET LENGTH: outcome of the call, and of the range (OK, DIFFERS, error) */
static int op_dedupe(char **arg)
{
	struct file_dedupe_range *range = calloc(1, sizeof(*range) + sizeof(range->info[0]));

	range->src_length = number(arg[2]);
	range->dest_count = 1;
	range->info[0].dest_fd = must_open(arg[1], O_RDWR);
	if (ioctl(must_open(arg[0], O_RDONLY), FIDEDUPERANGE, range) < 0)
		return say(-1);
	if (range->info[0].status > 0)
		puts("OK DIFFERS");
	else
		printf("OK %s\n", outcome(-range->info[0].status));
	return 0;
}

/* copy SOURCE TARGET LENGTH: copy_file_range */
static int op_copy(char **arg)
{
	int from = must_open(arg[0], O_RDONLY), to = must_open(arg[1], O_RDWR | O_CREAT);

	return say(copy_file_range(from, NULL, to, NULL, number(arg[2]), 0));
}

static const struct {
	const char *name;
	int mode;
} modes[] = {
	{ "allocate", 0 },
	{ "keep", FALLOC_FL_KEEP_SIZE },
	{ "punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE },
	{ "zero", FALLOC_FL_ZERO_RANGE },
	{ "unshare", FALLOC_FL_UNSHARE_RANGE },
	{ "collapse", FALLOC_FL_COLLAPSE_RANGE },
	{ "insert", FALLOC_FL_INSERT_RANGE },
	{ "write-zeroes", 0x80 /* FALLOC_FL_WRITE_ZEROES */ },
};

/* fallocate FILE MODE OFFSET LENGTH */
static int op_fallocate(char **arg)
{
	int fd = must_open(arg[0], O_RDWR | O_CREAT);

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (!strcmp(arg[1], modes[i].name))
			return say(fallocate(fd, modes[i].mode, number(arg[2]), number(arg[3])));
	errno = EINVAL;
	broken(arg[1]);
	return 2;
}

/* truncate FILE SIZE, ftruncate FILE SIZE, open-truncate FILE */
static int op_truncate(char **arg)
{
	return say(truncate(arg[0], number(arg[1])));
}

static int op_ftruncate(char **arg)
{
	return say(ftruncate(must_open(arg[0], O_RDWR), number(arg[1])));
}

static int op_open_truncate(char **arg)
{
	return say(open(arg[0], O_WRONLY | O_TRUNC));
}

static char *page(int fill)
{
	char *memory = aligned_alloc(PAGE, PAGE);

	memset(memory, fill, PAGE);
	return memory;
}

/* write FILE OFFSET, write-direct FILE OFFSET, append FILE, splice FILE: of one page */
static int op_write(char **arg)
{
	return say(pwrite(must_open(arg[0], O_RDWR), page('w'), PAGE, number(arg[1])));
}

static int op_write_direct(char **arg)
{
	return say(pwrite(must_open(arg[0], O_RDWR | O_DIRECT), page('w'), PAGE, number(arg[1])));
}

static int op_append(char **arg)
{
	return say(write(must_open(arg[0], O_WRONLY | O_APPEND), page('w'), PAGE));
}

static int op_splice(char **arg)
{
	int pipes[2];
	off_t at = PAGE;

	if (pipe(pipes) || write(pipes[1], page('w'), PAGE) != PAGE)
		broken("pipe");
	return say(splice(pipes[0], NULL, must_open(arg[0], O_WRONLY), &at, PAGE, 0));
}

/* read FILE OFFSET, read-direct FILE OFFSET: of one page */
static int op_read(char **arg)
{
	return say(pread(must_open(arg[0], O_RDONLY), page(0), PAGE, number(arg[1])));
}

static int op_read_direct(char **arg)
{
	return say(pread(must_open(arg[0], O_RDONLY | O_DIRECT), page(0), PAGE, number(arg[1])));
}

/* seek FILE data|hole OFFSET: where it got */
static int op_seek(char **arg)
{
	int whence = !strcmp(arg[1], "hole") ? SEEK_HOLE : SEEK_DATA;
	off_t at = lseek(must_open(arg[0], O_RDONLY), number(arg[2]), whence);

	if (at < 0)
		return say(-1);
	printf("%lld\n", (long long)at);
	return 0;
}

/* map FILE shared|private: writable */
static int op_map(char **arg)
{
	int shared = !strcmp(arg[1], "shared");
	void *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE,
			 must_open(arg[0], O_RDWR), 0);

	return say(map == MAP_FAILED ? -1 : 0);
}

static void store(volatile char *at)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		broken("fork");
	if (!child) {
		*at = 's';
		_exit(0);
	}
	waitpid(child, &status, 0);
	puts(WIFSIGNALED(status) ? (WTERMSIG(status) == SIGBUS ? "SIGBUS" : "signal") : "OK");
}

/*
 * old-map FILE COMMAND: maps FILE shared, stores to its second and third page, runs COMMAND, stores
 * to the second page (touched) and the fourth (not touched): the outcome of each.
 */
static int op_old_map(char **arg)
{
	char *map = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			 must_open(arg[0], O_RDWR), 0);

	if (map == MAP_FAILED)
		broken("mmap");
	map[PAGE] = 'm';
	map[2 * PAGE] = 'm';
	if (system(arg[1]))
		broken(arg[1]);
	fflush(stdout);
	/* In children, which share the mapping, so that the signal ends nothing else. */
	store(map + PAGE);
	store(map + 3 * PAGE);
	return 0;
}

/* setflags FILE FLAGS */
static int op_setflags(char **arg)
{
	int flags = number(arg[1]);

	return say(ioctl(must_open(arg[0], O_RDONLY), FS_IOC_SETFLAGS, &flags));
}

/* setxflags FILE XFLAGS EXTENT_SIZE, by ioctl; file-setattr the same by system call */
static int op_setxflags(char **arg)
{
	struct fsxattr attr = { .fsx_xflags = number(arg[1]), .fsx_extsize = number(arg[2]) };

	return say(ioctl(must_open(arg[0], O_RDONLY), FS_IOC_FSSETXATTR, &attr));
}

static int op_file_setattr(char **arg)
{
	struct {
		__u64 xflags;
		__u32 extsize, nextents, projid, cowextsize;
	} attr = { .xflags = number(arg[1]), .extsize = number(arg[2]) };

	return say(syscall(469 /* file_setattr */, AT_FDCWD, arg[0], &attr, sizeof(attr), 0));
}

/* swapon FILE, swapoff FILE */
static int op_swapon(char **arg)
{
	return say(swapon(arg[0], 0));
}

static int op_swapoff(char **arg)
{
	return say(swapoff(arg[0]));
}

/* unlink FILE, rename FROM TO, exchange ONE OTHER, rename-new FROM TO, link OLD NEW */
static int op_unlink(char **arg)
{
	return say(unlink(arg[0]));
}

static int op_rename(char **arg)
{
	return say(rename(arg[0], arg[1]));
}

static int op_exchange(char **arg)
{
	return say(renameat2(AT_FDCWD, arg[0], AT_FDCWD, arg[1], RENAME_EXCHANGE));
}

static int op_rename_new(char **arg)
{
	return say(renameat2(AT_FDCWD, arg[0], AT_FDCWD, arg[1], RENAME_NOREPLACE));
}

static int op_link(char **arg)
{
	return say(link(arg[0], arg[1]));
}

static int op_rmdir(char **arg)
{
	return say(rmdir(arg[0]));
}

static int op_mkdir(char **arg)
{
	return say(mkdir(arg[0], 0755));
}

/* markers: how many pages of the standard input hold what `swapmem -m` has in its pages */
static int op_markers(char **arg)
{
	static const char marker[] = "oxfs: this page was swapped out\n";
	char *memory = page(0);
	long found = 0;

	(void)arg;
	while (fread(memory, 1, PAGE, stdin) == PAGE)
		found += memmem(memory, PAGE, marker, sizeof(marker) - 1) != NULL;
	printf("%ld\n", found);
	return 0;
}

/* fill FILE MIB SEED: writes content in which no two pages are the same */
static int op_fill(char **arg)
{
	int fd = must_open(arg[0], O_WRONLY | O_CREAT);
	unsigned long words = number(arg[1]) << 17;
	__u64 x = number(arg[2]) * 0x9e3779b97f4a7c15 + 1, *chunk = malloc(1 << 20);

	for (unsigned long i = 0; i < words; i++) {
		x ^= x >> 12;
		x ^= x << 25;
		x ^= x >> 27;
		chunk[i % (1 << 17)] = x;
		if ((i + 1) % (1 << 17) == 0 && write(fd, chunk, 1 << 20) != 1 << 20)
			return say(-1);
	}
	return say(0);
}

/*
 * scatter FILE BLOCKS: gives FILE all space that there is, then takes every second block of it away
 * again, BLOCKS times, so that free space is single blocks. Prints nothing if that worked.
 */
static int op_scatter(char **arg)
{
	int fd = must_open(arg[0], O_RDWR | O_CREAT);
	long long blocks = number(arg[1]), size = 0;

	for (long long step = 1 << 30; step >= PAGE; step /= 2) {
		while (!fallocate(fd, 0, size, step))
			size += step;
		if (errno != ENOSPC)
			broken("fallocate");
	}
	if (size < 2 * blocks * PAGE) {
		errno = ENOSPC;
		broken(arg[0]);
	}
	for (long long i = 0; i < blocks; i++)
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (2 * i + 1) * PAGE, PAGE))
			broken("punch hole");
	if (fsync(fd))
		broken("fsync");
	return 0;
}

static const struct {
	const char *name;
	__u32 flag;
} extent_flags[] = {
	{ "unknown", FIEMAP_EXTENT_UNKNOWN },
	{ "delalloc", FIEMAP_EXTENT_DELALLOC },
	{ "encoded", FIEMAP_EXTENT_ENCODED },
	{ "unwritten", FIEMAP_EXTENT_UNWRITTEN },
	{ "shared", FIEMAP_EXTENT_SHARED },
	{ "last", FIEMAP_EXTENT_LAST },
};

/* fiemap FILE: a line for each extent: file block, block, blocks, flags */
static int op_fiemap(char **arg)
{
	int fd = must_open(arg[0], O_RDONLY), done = 0;
	struct fiemap *map = calloc(1, sizeof(*map) + 256 * sizeof(map->fm_extents[0]));

	while (!done) {
		map->fm_length = ~0ULL - map->fm_start;
		map->fm_flags = FIEMAP_FLAG_SYNC;
		map->fm_extent_count = 256;
		if (ioctl(fd, FS_IOC_FIEMAP, map))
			return say(-1);
		done = !map->fm_mapped_extents;
		for (unsigned i = 0; i < map->fm_mapped_extents; i++) {
			struct fiemap_extent *extent = &map->fm_extents[i];

			printf("%llu %llu %llu", extent->fe_logical / PAGE, extent->fe_physical / PAGE,
			       extent->fe_length / PAGE);
			for (size_t j = 0; j < sizeof(extent_flags) / sizeof(extent_flags[0]); j++)
				if (extent->fe_flags & extent_flags[j].flag)
					printf(" %s", extent_flags[j].name);
			puts("");
			map->fm_start = extent->fe_logical + extent->fe_length;
			done = extent->fe_flags & FIEMAP_EXTENT_LAST;
		}
	}
	return 0;
}

static const struct {
	const char *name;
	int args;
	int (*run)(char **arg);
} operations[] = {
	{ "append", 1, op_append },
	{ "clone", 2, op_clone },
	{ "clonerange", 5, op_clonerange },
	{ "copy", 3, op_copy },
	{ "dedupe", 3, op_dedupe },
	{ "exchange", 2, op_exchange },
	{ "fallocate", 4, op_fallocate },
	{ "fiemap", 1, op_fiemap },
	{ "file-setattr", 3, op_file_setattr },
	{ "fill", 3, op_fill },
	{ "ftruncate", 2, op_ftruncate },
	{ "link", 2, op_link },
	{ "map", 2, op_map },
	{ "markers", 0, op_markers },
	{ "mkdir", 1, op_mkdir },
	{ "old-map", 2, op_old_map },
	{ "open-truncate", 1, op_open_truncate },
	{ "read", 2, op_read },
	{ "read-direct", 2, op_read_direct },
	{ "rename", 2, op_rename },
	{ "rename-new", 2, op_rename_new },
	{ "rmdir", 1, op_rmdir },
	{ "scatter", 2, op_scatter },
	{ "seek", 3, op_seek },
	{ "setflags", 2, op_setflags },
	{ "setxflags", 3, op_setxflags },
	{ "splice", 1, op_splice },
	{ "swapoff", 1, op_swapoff },
	{ "swapon", 1, op_swapon },
	{ "truncate", 2, op_truncate },
	{ "unlink", 1, op_unlink },
	{ "write", 2, op_write },
	{ "write-direct", 2, op_write_direct },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(operations) / sizeof(operations[0]); i++)
		if (!strcmp(argv[1], operations[i].name) && argc == operations[i].args + 2)
			return operations[i].run(argv + 2);
	fprintf(stderr, "fileop: no such operation, or another number of arguments\n");
	return 2;
}
