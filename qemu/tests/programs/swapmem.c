// SPDX-License-Identifier: GPL-2.0
/*
 * swapmem [OPTION]... MIB: fills anonymous memory with a pattern that differs in every 8 bytes,
 * has it swapped out, and compares every byte. One wrong byte is a wrong page.
 *
 *   -o         page it out (MADV_PAGEOUT) after every fill; otherwise memory pressure must do it
 *   -s BYTES   start paging out so many bytes into an area that is aligned to 2 MiB
 *   -H, -N     MADV_HUGEPAGE, MADV_NOHUGEPAGE
 *   -m         write the marker instead: every 32 bytes of it say so (to look for on the disk)
 *   -r ROUNDS  fill, page out and compare so often (1)
 *   -t N       so many threads, each with its part
 *   -w FILE    after the first fill (and page out), make FILE and wait until it is gone
 *   -S SEED    of the pattern
 *
 * Prints the number of wrong pages. Exit status: 0 none, 1 some, 2 failure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL
#define HUGE (2UL << 20)
#define WORDS (PAGE / 8)
#define MARKER "oxfs: this page was swapped out\n"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static int page_out, advice = -1, marker, rounds = 1, threads = 1;
static unsigned long skip;
static const char *wait_file;
static uint64_t seed = 1;
static pthread_barrier_t filled;

struct part {
	pthread_t thread;
	uint64_t *memory;
	unsigned long first, pages, wrong;
};

static void broken(const char *what)
{
	fprintf(stderr, "swapmem: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* The word at `index` of all the memory, in one round (splitmix64). */
static uint64_t word(uint64_t index, int round)
{
	uint64_t x = index + (seed + round) * 0x9e3779b97f4a7c15;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static void fill(struct part *part, int round)
{
	for (unsigned long i = 0; i < part->pages * WORDS; i++)
		part->memory[i] = word(part->first * WORDS + i, round);
	if (!marker)
		return;
	for (unsigned long i = 0; i < part->pages * PAGE; i += sizeof(MARKER) - 1)
		memcpy((char *)part->memory + i, MARKER, sizeof(MARKER) - 1);
}

static int right(struct part *part, unsigned long page, int round)
{
	uint64_t *at = part->memory + page * WORDS;

	if (marker) {
		for (unsigned long i = 0; i < PAGE; i += sizeof(MARKER) - 1)
			if (memcmp((char *)at + i, MARKER, sizeof(MARKER) - 1))
				return 0;
		return 1;
	}
	for (unsigned long i = 0; i < WORDS; i++)
		if (at[i] != word((part->first + page) * WORDS + i, round))
			return 0;
	return 1;
}

static void advise(void *at, unsigned long len, int what, const char *name)
{
	if (len && madvise(at, len, what))
		broken(name);
}

static void *work(void *argument)
{
	struct part *part = argument;
	unsigned long len = part->pages * PAGE;

	for (int round = 0; round < rounds; round++) {
		if (advice >= 0)
			advise(part->memory, len, advice, "advice for the page size");
		fill(part, round);
		/* Swap slots are given in this order, so what is left out shifts them. */
		if (page_out)
			advise((char *)part->memory + skip, len - skip, MADV_PAGEOUT, "MADV_PAGEOUT");
		if (wait_file && !round)
			pthread_barrier_wait(&filled);
		if (wait_file && !round)
			pthread_barrier_wait(&filled);
		for (unsigned long page = 0; page < part->pages; page++)
			if (!right(part, page, round) && part->wrong++ < 3)
				fprintf(stderr, "swapmem: round %d: page %lu is wrong\n", round,
					part->first + page);
	}
	return NULL;
}

static void wait_for_file(void)
{
	int fd = open(wait_file, O_CREAT | O_WRONLY, 0644);

	if (fd < 0)
		broken(wait_file);
	close(fd);
	while (!access(wait_file, F_OK))
		usleep(50000);
}

static struct part *make_parts(unsigned long pages)
{
	struct part *parts = calloc(threads, sizeof(*parts));
	/* Whole huge pages for each, so that they do not share one. */
	unsigned long each = (pages / threads + HUGE / PAGE - 1) / (HUGE / PAGE) * (HUGE / PAGE);
	char *memory = mmap(NULL, (each * threads) * PAGE + HUGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (!parts || memory == MAP_FAILED)
		broken("memory");
	memory += -(uintptr_t)memory % HUGE;
	for (int i = 0; i < threads; i++) {
		parts[i].memory = (uint64_t *)(memory + each * i * PAGE);
		parts[i].first = each * i;
		parts[i].pages = each;
	}
	return parts;
}

static unsigned long parse(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "os:HNmr:t:w:S:")) >= 0) {
		switch (option) {
		case 'o': page_out = 1; break;
		case 's': skip = strtoul(optarg, NULL, 0); break;
		case 'H': advice = MADV_HUGEPAGE; break;
		case 'N': advice = MADV_NOHUGEPAGE; break;
		case 'm': marker = 1; break;
		case 'r': rounds = atoi(optarg); break;
		case 't': threads = atoi(optarg); break;
		case 'w': wait_file = optarg; break;
		case 'S': seed = strtoull(optarg, NULL, 0); break;
		default: exit(2);
		}
	}
	if (optind + 1 != argc || threads < 1 || strtoul(argv[optind], NULL, 10) < 1) {
		fprintf(stderr, "swapmem: wrong use, see its source\n");
		exit(2);
	}
	return (strtoul(argv[optind], NULL, 10) << 20) / PAGE;
}

int main(int argc, char **argv)
{
	struct part *parts = make_parts(parse(argc, argv));
	unsigned long wrong = 0;

	if (pthread_barrier_init(&filled, NULL, threads + 1))
		broken("barrier");
	for (int i = 0; i < threads; i++)
		if (pthread_create(&parts[i].thread, NULL, work, &parts[i]))
			broken("thread");
	if (wait_file) {
		pthread_barrier_wait(&filled);
		wait_for_file();
		pthread_barrier_wait(&filled);
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(parts[i].thread, NULL);
		wrong += parts[i].wrong;
	}
	printf("%lu\n", wrong);
	return wrong != 0;
}
