/* SPDX-License-Identifier: MIT */
/*
 * files.c - the work of the guest in iotests/nbd-linux-guest.sh: files whose content follows from a seed.
 *
 *     files write DIRECTORY SEED              batches of changes without end, each followed by a sync and "SYNCED batch"
 *     files verify DIRECTORY SEED BATCH       the directory is what a guest left that died after it had said "SYNCED BATCH"
 *
 * Each batch creates files, overwrites parts of others in place and deletes some. Whoever knows the seed and the last
 * batch that was synced knows all files: what the batch behind that was to change may be old or new, sector by sector.
 * Files that it was to create may be anything. No other file may exist.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SECTOR = 512, MAX_SECTORS = 512, DIRECTORIES = 16, MAX_FILES = 1 << 20,
    CREATED = 24, OVERWRITTEN = 10, MOST_LIVE = 250,       /* per batch; in all */
};

typedef enum Change { CREATE, OVERWRITE, DELETE } Change;

typedef struct File {
    bool doomed;                        /* deleted by the batch that was not synced */
    unsigned sectors;
    uint16_t generation[MAX_SECTORS];   /* of each sector */
    uint16_t next[MAX_SECTORS];         /* what the batch that was not synced makes of it */
} File;

typedef struct Work {
    int directory;
    uint64_t seed, random;
    bool act;                           /* change the directory, not only the model */
    bool tolerated;                     /* the batch may or may not have happened */
    File *files[MAX_FILES];             /* by number; NULL: not yet, or no more */
    unsigned n_files, n_live, n_before; /* the last: before this batch */
} Work;

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    printf("WRONG ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    exit(EXIT_FAILURE);
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static unsigned below(Work *work, unsigned n)
{
    work->random += UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(mix(work->random) % n);
}

/* Every third file does not compress. */
static void sector_content(const Work *work, unsigned number, unsigned sector, unsigned generation, uint64_t *words)
{
    uint64_t state = mix(work->seed ^ (uint64_t)number << 32 ^ sector << 16 ^ generation);

    for (unsigned i = 0; i < SECTOR / sizeof(*words); i++) {
        words[i] = number % 3 == 0 || i % 16 == 0 ? mix(state + i) : state;
    }
}

static const char *file_name(unsigned number)
{
    static char name[32];

    snprintf(name, sizeof(name), "d%02u/f%06u", number % DIRECTORIES, number);
    return name;
}

static void write_sectors(const Work *work, unsigned number, unsigned first, unsigned count, int flags)
{
    static uint64_t data[MAX_SECTORS][SECTOR / sizeof(uint64_t)];
    const File *file = work->files[number];
    int fd = openat(work->directory, file_name(number), O_WRONLY | flags, 0644);

    for (unsigned i = 0; i < count; i++) {
        sector_content(work, number, first + i, file->generation[first + i], data[i]);
    }
    if (fd < 0 || pwrite(fd, data, (size_t)count * SECTOR, (off_t)first * SECTOR) != (ssize_t)count * SECTOR || close(fd) < 0) {
        printf("ERROR writing %s: %m\n", file_name(number));
        pause();
    }
}

static void create_file(Work *work)
{
    unsigned number = work->n_files++;
    File *file = calloc(1, sizeof(*file));

    if (!file || number >= MAX_FILES) {
        fail("no room for another file");
    }
    *file = (File){ .sectors = 1 + below(work, MAX_SECTORS) };
    work->files[number] = file;
    work->n_live++;
    if (work->act) {
        write_sectors(work, number, 0, file->sectors, O_CREAT | O_EXCL);
    }
}

/* None that this batch created. */
static unsigned any_file(Work *work)
{
    unsigned number;

    do {
        number = below(work, work->n_before);
    } while (!work->files[number] || work->files[number]->doomed);
    return number;
}

static void overwrite_file(Work *work)
{
    unsigned number = any_file(work), first, count;
    File *file = work->files[number];
    uint16_t *generation = work->tolerated ? file->next : file->generation;

    first = below(work, file->sectors);
    count = 1 + below(work, file->sectors - first);
    for (unsigned i = first; i < first + count; i++) {
        generation[i]++;
    }
    if (work->act) {
        write_sectors(work, number, first, count, 0);
    }
}

static void delete_file(Work *work)
{
    unsigned number = any_file(work);

    work->n_live--;
    if (work->tolerated) {
        work->files[number]->doomed = true;
        return;
    }
    if (work->act && unlinkat(work->directory, file_name(number), 0) < 0) {
        printf("ERROR deleting %s: %m\n", file_name(number));
        pause();
    }
    free(work->files[number]);
    work->files[number] = NULL;
}

static void run_batch(Work *work, unsigned batch)
{
    work->random = mix(work->seed + batch);
    work->n_before = work->n_files;
    for (unsigned i = 0; i < CREATED; i++) {
        create_file(work);
    }
    for (unsigned i = 0; batch > 0 && i < OVERWRITTEN; i++) {
        overwrite_file(work);
    }
    while (work->n_live > MOST_LIVE) {
        delete_file(work);
    }
}

/* ---- verifying ---- */

static void verify_sector(const Work *work, unsigned number, unsigned sector, const uint8_t *found)
{
    const File *file = work->files[number];
    uint64_t wanted[SECTOR / sizeof(uint64_t)];

    /* It may have been overwritten more than once by the batch that was not synced. */
    for (unsigned generation = file->generation[sector]; generation <= file->next[sector]; generation++) {
        sector_content(work, number, sector, generation, wanted);
        if (memcmp(found, wanted, SECTOR) == 0) {
            return;
        }
    }
    fail("sector %u of %s begins %016" PRIx64, sector, file_name(number), *(const uint64_t *)(const void *)found);
}

static bool verify_file(const Work *work, unsigned number)
{
    static uint8_t data[MAX_SECTORS * SECTOR + 1] __attribute__((aligned(8)));
    const File *file = work->files[number];
    int fd = openat(work->directory, file_name(number), O_RDONLY);

    if (fd < 0 && file->doomed) {
        return false;
    }
    ssize_t got = fd < 0 ? -1 : read(fd, data, sizeof(data));
    if (got != (ssize_t)file->sectors * SECTOR) {
        fail("%s has %zd bytes, not %u", file_name(number), got, file->sectors * SECTOR);
    }
    close(fd);
    for (unsigned sector = 0; sector < file->sectors; sector++) {
        verify_sector(work, number, sector, data + (size_t)sector * SECTOR);
    }
    return true;
}

/* No file came back, or out of nowhere. */
static void verify_directory(const Work *work, unsigned number)
{
    char name[8];
    struct dirent *entry;
    snprintf(name, sizeof(name), "d%02u", number);
    DIR *dir = fdopendir(openat(work->directory, name, O_RDONLY | O_DIRECTORY));

    if (!dir) {
        fail("directory %s: %m", name);
    }
    while ((entry = readdir(dir)) != NULL) {
        unsigned file = entry->d_name[0] == 'f' ? (unsigned)strtoul(entry->d_name + 1, NULL, 10) : MAX_FILES;
        if (entry->d_name[0] != '.' && (file >= work->n_files || !work->files[file])) {
            fail("%s/%s should not exist", name, entry->d_name);
        }
    }
    closedir(dir);
}

static void verify(Work *work, unsigned batch)
{
    unsigned verified = 0;

    for (unsigned i = 0; i <= batch; i++) {
        run_batch(work, i);
    }
    for (unsigned i = 0; i < work->n_files; i++) {
        if (work->files[i]) {
            memcpy(work->files[i]->next, work->files[i]->generation, sizeof(work->files[i]->next));
        }
    }
    work->tolerated = true;
    run_batch(work, batch + 1);
    for (unsigned i = 0; i < work->n_before; i++) {
        verified += work->files[i] && verify_file(work, i);
    }
    for (unsigned i = 0; i < DIRECTORIES; i++) {
        verify_directory(work, i);
    }
    printf("VERIFIED %u files of batches up to %u\n", verified, batch);
}

static void write_for_ever(Work *work)
{
    work->act = true;
    for (unsigned i = 0; i < DIRECTORIES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "d%02u", i);
        if (mkdirat(work->directory, name, 0755) < 0) {
            fail("directory %s: %m", name);
        }
    }
    for (unsigned batch = 0;; batch++) {
        run_batch(work, batch);
        if (syncfs(work->directory) < 0) {
            printf("ERROR syncing: %m\n");
            pause();
        }
        printf("SYNCED %u\n", batch);
    }
}

int main(int argc, char **argv)
{
    static Work work;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc < 4 || (work.directory = open(argv[2], O_RDONLY | O_DIRECTORY)) < 0) {
        fail("usage: files write DIRECTORY SEED, or files verify DIRECTORY SEED BATCH");
    }
    work.seed = strtoull(argv[3], NULL, 10);
    if (strcmp(argv[1], "verify") == 0 && argc == 5) {
        verify(&work, (unsigned)strtoul(argv[4], NULL, 10));
    } else {
        write_for_ever(&work);
    }
    return EXIT_SUCCESS;
}
