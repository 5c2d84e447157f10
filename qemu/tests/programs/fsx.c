// SPDX-License-Identifier: GPL-2.0
/*
 * fsx FILE SEED OPERATIONS [MAXSIZE [EXCLUDE,...]]: does random operations to a file and its
 * companion FILE.b (for clones), keeps a model of both contents in memory, and compares what is
 * read with it. Exits 0 when all agreed; 1 with the last operations and the first wrong byte when
 * not. An operation that the filesystem does not support counts as skipped and is named.
 *
 * In the spirit of the file system exerciser that Apple made public; written anew.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 4096
#define HISTORY 40

struct file {
	char path[256];
	int fd, direct;
	uint8_t *model;
	size_t size;
};

static struct file files[2];
static size_t maxsize = 1 << 20;
static uint64_t state;
static char history[HISTORY][160];
static unsigned long done, skipped;
static const char *excluded = "";
static uint8_t *buffer;

static uint32_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state >> 16;
}

static size_t below(size_t n)
{
	return n ? (((uint64_t)rnd() << 32) | rnd()) % n : 0;
}

static void note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(history[done % HISTORY], sizeof(history[0]), format, args);
	va_end(args);
}

static void fail(const char *what)
{
	unsigned long first = done >= HISTORY ? done - HISTORY + 1 : 0;

	fprintf(stderr, "fsx: %s (operation %lu, %s)\n", what, done, strerror(errno));
	for (unsigned long i = first; i <= done; i++)
		fprintf(stderr, "%8lu %s\n", i, history[i % HISTORY]);
	exit(1);
}

static void compare(struct file *f, const uint8_t *data, size_t pos, size_t len, const char *how)
{
	char text[512];

	for (size_t i = 0; i < len; i++) {
		if (data[i] == f->model[pos + i])
			continue;
		snprintf(text, sizeof(text), "%s %s: byte 0x%zx is %02x, not %02x (range 0x%zx+0x%zx)",
			 how, f->path, pos + i, data[i], f->model[pos + i], pos, len);
		errno = 0;
		fail(text);
	}
}

static void check_size(struct file *f)
{
	struct stat st;

	if (fstat(f->fd, &st))
		fail("fstat");
	errno = 0;
	if ((size_t)st.st_size != f->size)
		fail("wrong size");
}

/* Bytes that tell the operation and the place. */
static void fill(size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = ((uint64_t)(done + 1) << 32) | rnd();

		memcpy(buffer + i, &word, len - i < 8 ? len - i : 8);
	}
}

static void grow(struct file *f, size_t size)
{
	if (size > f->size)
		f->size = size;
}

static void zero(struct file *f, size_t pos, size_t end)
{
	if (end > f->size)
		end = f->size;
	if (pos < end)
		memset(f->model + pos, 0, end - pos);
}

/* Whether an answer says that the operation is not there; anything else that fails is wrong. */
static int refused(int answer, const char *what)
{
	if (!answer)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOTTY && errno != ENOSPC)
		fail(what);
	skipped++;
	return 1;
}

static void do_read(struct file *f, int fd, size_t unit, const char *how)
{
	size_t pos = below(f->size + unit) / unit * unit, len = (1 + below(65536)) / unit * unit;
	ssize_t got, want;

	if (!len)
		len = unit;
	note("%s %s 0x%zx+0x%zx", how, f->path, pos, len);
	got = pread(fd, buffer, len, pos);
	if (got < 0)
		fail(how);
	want = pos >= f->size ? 0 : f->size - pos < len ? f->size - pos : len;
	errno = 0;
	if (got != want)
		fail("wrong length");
	compare(f, buffer, pos, got, how);
}

static void do_write(struct file *f, int fd, size_t unit, const char *how)
{
	size_t len = (1 + below(65536)) / unit * unit, pos;

	if (!len)
		len = unit;
	pos = below(maxsize - len) / unit * unit;
	note("%s %s 0x%zx+0x%zx (size 0x%zx)", how, f->path, pos, len, f->size);
	fill(len);
	if (pwrite(fd, buffer, len, pos) != (ssize_t)len) {
		if (errno == ENOSPC) {
			skipped++;
			return;
		}
		fail(how);
	}
	memcpy(f->model + pos, buffer, len);
	grow(f, pos + len);
}

static void do_mapread(struct file *f)
{
	size_t pos = below(f->size), len = 1 + below(65536), start = pos / BLOCK * BLOCK;
	uint8_t *map;

	if (!f->size)
		return;
	if (len > f->size - pos)
		len = f->size - pos;
	note("mapread %s 0x%zx+0x%zx", f->path, pos, len);
	map = mmap(NULL, pos + len - start, PROT_READ, MAP_SHARED, f->fd, start);
	if (map == MAP_FAILED)
		fail("mmap");
	compare(f, map + pos - start, pos, len, "mapread");
	/* What is behind the end of the file in its last page is zero. */
	if (pos + len == f->size)
		for (size_t i = f->size; i % BLOCK; i++)
			if (map[i - start])
				fail("mapread: not zero behind the end");
	munmap(map, pos + len - start);
}

static void do_mapwrite(struct file *f)
{
	size_t pos = below(f->size), len = 1 + below(65536), start = pos / BLOCK * BLOCK;
	uint8_t *map;

	if (!f->size)
		return;
	if (len > f->size - pos)
		len = f->size - pos;
	note("mapwrite %s 0x%zx+0x%zx", f->path, pos, len);
	fill(len);
	map = mmap(NULL, pos + len - start, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, start);
	if (map == MAP_FAILED)
		fail("mmap");
	memcpy(map + pos - start, buffer, len);
	if (rnd() % 4 == 0 && msync(map, pos + len - start, MS_SYNC))
		fail("msync");
	munmap(map, pos + len - start);
	memcpy(f->model + pos, buffer, len);
}

static void do_truncate(struct file *f)
{
	size_t size = below(maxsize);

	note("truncate %s 0x%zx -> 0x%zx", f->path, f->size, size);
	if (ftruncate(f->fd, size))
		fail("ftruncate");
	if (size < f->size)
		memset(f->model + size, 0, f->size - size);
	f->size = size;
}

static void do_allocate(struct file *f)
{
	size_t pos = below(maxsize - 1), len = 1 + below(maxsize - pos - 1);
	int keep = rnd() % 2;

	note("allocate %s 0x%zx+0x%zx keep=%d (size 0x%zx)", f->path, pos, len, keep, f->size);
	if (!refused(fallocate(f->fd, keep ? FALLOC_FL_KEEP_SIZE : 0, pos, len), "allocate") && !keep)
		grow(f, pos + len);
}

static void do_punch(struct file *f)
{
	size_t pos = below(f->size + BLOCK), len = 1 + below(65536 * 2);

	note("punch %s 0x%zx+0x%zx (size 0x%zx)", f->path, pos, len, f->size);
	if (!refused(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, pos, len), "punch"))
		zero(f, pos, pos + len);
}

static void do_zero(struct file *f)
{
	size_t pos = below(maxsize - 1), len = 1 + below((maxsize - pos - 1) % 131072);
	int keep = rnd() % 2;

	note("zero %s 0x%zx+0x%zx keep=%d (size 0x%zx)", f->path, pos, len, keep, f->size);
	if (refused(fallocate(f->fd, FALLOC_FL_ZERO_RANGE | (keep ? FALLOC_FL_KEEP_SIZE : 0), pos, len),
		    "zero"))
		return;
	zero(f, pos, pos + len);
	if (!keep)
		grow(f, pos + len);
}

static void do_collapse(struct file *f)
{
	size_t blocks = f->size / BLOCK, pos, len;

	if (blocks < 3)
		return;
	pos = below(blocks - 2) * BLOCK;
	len = (1 + below(16)) * BLOCK;
	if (pos + len >= f->size)
		return;
	note("collapse %s 0x%zx+0x%zx (size 0x%zx)", f->path, pos, len, f->size);
	if (refused(fallocate(f->fd, FALLOC_FL_COLLAPSE_RANGE, pos, len), "collapse"))
		return;
	memmove(f->model + pos, f->model + pos + len, f->size - pos - len);
	memset(f->model + f->size - len, 0, len);
	f->size -= len;
}

static void do_insert(struct file *f)
{
	size_t pos = below(f->size) / BLOCK * BLOCK, len = (1 + below(16)) * BLOCK;

	if (!f->size || f->size + len > maxsize)
		return;
	note("insert %s 0x%zx+0x%zx (size 0x%zx)", f->path, pos, len, f->size);
	if (refused(fallocate(f->fd, FALLOC_FL_INSERT_RANGE, pos, len), "insert"))
		return;
	memmove(f->model + pos + len, f->model + pos, f->size - pos);
	memset(f->model + pos, 0, len);
	f->size += len;
}

static void do_unshare(struct file *f)
{
	size_t pos = below(f->size), len = 1 + below(65536);

	if (!f->size)
		return;
	if (pos + len > f->size)
		len = f->size - pos;
	note("unshare %s 0x%zx+0x%zx", f->path, pos, len);
	refused(fallocate(f->fd, FALLOC_FL_UNSHARE_RANGE, pos, len), "unshare");
}

static void share(struct file *src, struct file *dst, size_t from, size_t to, size_t len)
{
	memmove(dst->model + to, src->model + from, len);
	grow(dst, to + len);
}

static void do_clone(struct file *src, struct file *dst)
{
	size_t from = below(src->size) / BLOCK * BLOCK, to, len;
	struct file_clone_range range;

	if (!src->size)
		return;
	len = (1 + below(32)) * BLOCK;
	if (from + len > src->size)
		len = src->size - from;
	to = below(maxsize - len) / BLOCK * BLOCK;
	/* A part of a block can only become the end of a file. */
	if (len % BLOCK && to + len < dst->size)
		len = len / BLOCK * BLOCK;
	if (!len || (src == dst && to < from + len && from < to + len))
		return;
	note("clone %s 0x%zx+0x%zx -> %s 0x%zx (size 0x%zx)", src->path, from, len, dst->path, to,
	     dst->size);
	range.src_fd = src->fd;
	range.src_offset = from;
	range.src_length = len;
	range.dest_offset = to;
	if (!refused(ioctl(dst->fd, FICLONERANGE, &range), "clone"))
		share(src, dst, from, to, len);
}

static void do_clone_all(struct file *src, struct file *dst)
{
	note("clone all %s -> %s", src->path, dst->path);
	if (src == dst || !src->size)
		return;
	if (src->size % BLOCK && dst->size > src->size)
		return;
	if (!refused(ioctl(dst->fd, FICLONE, src->fd), "clone all"))
		share(src, dst, 0, 0, src->size);
}

static void do_dedupe(struct file *src, struct file *dst)
{
	size_t pos = below(src->size) / BLOCK * BLOCK, len = (1 + below(16)) * BLOCK;
	struct {
		struct file_dedupe_range range;
		struct file_dedupe_range_info info;
	} arg = { 0 };
	int same;

	if (src == dst || pos + len > src->size || pos + len > dst->size)
		return;
	same = !memcmp(src->model + pos, dst->model + pos, len);
	note("dedupe %s 0x%zx+0x%zx -> %s same=%d", src->path, pos, len, dst->path, same);
	arg.range.src_offset = pos;
	arg.range.src_length = len;
	arg.range.dest_count = 1;
	arg.info.dest_fd = dst->fd;
	arg.info.dest_offset = pos;
	if (refused(ioctl(src->fd, FIDEDUPERANGE, &arg), "dedupe"))
		return;
	errno = -arg.info.status;
	if (arg.info.status < 0)
		fail("dedupe status");
	errno = 0;
	if ((arg.info.status == FILE_DEDUPE_RANGE_SAME) != same)
		fail("dedupe was wrong about the content");
}

static void do_copy(struct file *src, struct file *dst)
{
	size_t from = below(src->size), len = 1 + below(65536), to;
	off_t in, out;
	ssize_t n;

	if (!src->size)
		return;
	if (from + len > src->size)
		len = src->size - from;
	to = below(maxsize - len);
	if (src == dst && to < from + len && from < to + len)
		return;
	note("copy %s 0x%zx+0x%zx -> %s 0x%zx (size 0x%zx)", src->path, from, len, dst->path, to,
	     dst->size);
	in = from;
	out = to;
	n = copy_file_range(src->fd, &in, dst->fd, &out, len, 0);
	if (n < 0) {
		refused(-1, "copy");
		return;
	}
	share(src, dst, from, to, n);
}

static void do_seek(struct file *f)
{
	off_t pos = 0, hole;

	note("seek %s (size 0x%zx)", f->path, f->size);
	while ((size_t)pos < f->size) {
		off_t data = lseek(f->fd, pos, SEEK_DATA);

		if (data < 0 && errno != ENXIO)
			fail("SEEK_DATA");
		if (data < 0)
			data = f->size;
		for (off_t i = pos; i < data; i++)
			if (f->model[i]) {
				errno = 0;
				fail("data in a hole");
			}
		if ((size_t)data >= f->size)
			return;
		hole = lseek(f->fd, data, SEEK_HOLE);
		if (hole < 0)
			fail("SEEK_HOLE");
		errno = 0;
		if (hole <= data)
			fail("SEEK_HOLE before SEEK_DATA");
		pos = hole;
	}
}

static void do_sync(struct file *f)
{
	int how = rnd() % 4;

	note("sync %d %s", how, f->path);
	if (how == 0 ? fdatasync(f->fd) : how == 1 ? fsync(f->fd) :
	    how == 2 ? syncfs(f->fd) : sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WRITE))
		fail("sync");
	if (rnd() % 2)
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void check_all(struct file *f, const char *how)
{
	check_size(f);
	for (size_t pos = 0; pos < f->size;) {
		ssize_t n = pread(f->fd, buffer, 65536, pos);

		if (n <= 0)
			fail(how);
		compare(f, buffer, pos, n, how);
		pos += n;
	}
}

static void open_file(struct file *f, int flags)
{
	f->fd = open(f->path, O_RDWR | flags, 0600);
	f->direct = open(f->path, O_RDWR | O_DIRECT);
	if (f->fd < 0 || f->direct < 0)
		fail(f->path);
}

static void reopen(struct file *f)
{
	note("reopen %s", f->path);
	if (close(f->fd) || close(f->direct))
		fail("close");
	open_file(f, 0);
}

static int allowed(const char *name)
{
	return !strstr(excluded, name);
}

static void step(void)
{
	struct file *f = &files[rnd() % 4 == 0], *g = &files[rnd() % 2];

#define OP(name, call) do { if (allowed(name)) call; } while (0)
	switch (rnd() % 26) {
	case 0: case 1: OP("read", do_read(f, f->fd, 1, "read")); break;
	case 2: case 3: case 4: case 5: OP("write", do_write(f, f->fd, 1, "write")); break;
	case 6: OP("dread", do_read(f, f->direct, 512, "dread")); break;
	case 7: OP("dwrite", do_write(f, f->direct, BLOCK, "dwrite")); break;
	case 8: OP("dwrite512", do_write(f, f->direct, 512, "dwrite512")); break;
	case 9: case 10: OP("mapread", do_mapread(f)); break;
	case 11: case 12: OP("mapwrite", do_mapwrite(f)); break;
	case 13: OP("truncate", do_truncate(f)); break;
	case 14: OP("allocate", do_allocate(f)); break;
	case 15: OP("punch", do_punch(f)); break;
	case 16: OP("zero", do_zero(f)); break;
	case 17: OP("collapse", do_collapse(f)); break;
	case 18: OP("insert", do_insert(f)); break;
	case 19: OP("unshare", do_unshare(f)); break;
	case 20: OP("clone", do_clone(f, g)); break;
	case 21: OP("cloneall", do_clone_all(f, g)); break;
	case 22: OP("dedupe", do_dedupe(f, g)); break;
	case 23: OP("copy", do_copy(f, g)); break;
	case 24: OP("seek", do_seek(f)); break;
	case 25: OP("sync", do_sync(f)); break;
	}
#undef OP
	check_size(f);
	check_size(g);
	if (getenv("FSX_CHECK")) {
		/* Where it went wrong, and not where that was seen. */
		check_all(f, "check");
		check_all(g, "check");
	}
	if (rnd() % 200 == 0)
		reopen(f);
	if (rnd() % 300 == 0) {
		check_all(f, "check");
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
	}
}

int main(int argc, char **argv)
{
	unsigned long operations;

	if (argc < 4)
		return 2;
	state = strtoull(argv[2], NULL, 0) * 2654435761u + 88172645463325252ull;
	operations = strtoul(argv[3], NULL, 0);
	if (argc > 4)
		maxsize = strtoul(argv[4], NULL, 0);
	if (argc > 5)
		excluded = argv[5];
	if (maxsize < 262144 || posix_memalign((void **)&buffer, BLOCK, 262144))
		return 2;
	for (int i = 0; i < 2; i++) {
		struct file *f = &files[i];

		snprintf(f->path, sizeof(f->path), "%s%s", argv[1], i ? ".b" : "");
		f->model = calloc(1, maxsize + 262144);
		if (!f->model)
			return 2;
		open_file(f, O_CREAT | O_TRUNC);
	}
	for (done = 0; done < operations; done++)
		step();
	for (int i = 0; i < 2; i++) {
		check_all(&files[i], "final");
		if (fsync(files[i].fd))
			fail("fsync");
		posix_fadvise(files[i].fd, 0, 0, POSIX_FADV_DONTNEED);
		check_all(&files[i], "from disk");
	}
	printf("fsx: %lu operations, %lu skipped\n", done, skipped);
	return 0;
}
