/* SPDX-License-Identifier: MIT */
/*
 * file.c - protocol driver "file": regular files and block devices of the host.
 *
 * A regular file grows when something is written beyond its end. A length that is no multiple of 512 is rounded up; the
 * missing bytes read as zeroes. Block devices, and the character devices that can seek, keep their length.
 * With cache.direct the page cache is passed by, and the limits say which alignment that needs.
 * After a failed flush nobody knows what reached the disk: every later flush fails too.
 *
 * Limitations: a device that changes its size while it is open is not noticed.
 */
#include "drivers/file.h"

#include "drivers/file_create.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { SECTOR = 512, MAX_DIRECT_ALIGN = BLK_FILE_MAX_DIRECT_ALIGN };

typedef enum FileKind { FILE_REGULAR, FILE_BLOCK, FILE_CHARACTER } FileKind;

typedef struct FileState {
    BlkAioFile io;
    FileKind kind;
    char *filename;
    BlkFileLock lock;
    uint32_t align, mem_align;      /* what O_DIRECT needs; 1 without */
    uint32_t block_size;            /* of the file system or device */
    bool unmap, no_flush;
    bool no_zero_range, no_punch_hole, no_discard;      /* the system said that it cannot */
    bool flush_failed;
    struct FileState *before;       /* while it is reopened: what it was; else NULL */
} FileState;

static const char *const aio_values[] = { "threads", "native", "io_uring", NULL };
static const char *const locking_values[] = { "auto", "on", "off", NULL };

static const BlkOption file_options[] = {
    { "filename", BLK_OPTION_STRING, "path of the file or device", .required = true },
    { "aio", BLK_OPTION_ENUM, "accepted for compatibility; the context chooses the I/O engine", .values = aio_values },
    { "locking", BLK_OPTION_ENUM, "keep other processes from contradicting use of the file",
      .default_text = "auto", .values = locking_values },
    { NULL },
};

/* ---- opening ---- */

/* Says what kind of file @st is; refuses what has no offsets. */
static int file_kind(const struct stat *st, const char *filename, FileKind *kind, GError **error)
{
    const char *is = "something else";

    if (S_ISREG(st->st_mode)) {
        *kind = FILE_REGULAR;
        return 0;
    }
    if (S_ISBLK(st->st_mode)) {
        *kind = FILE_BLOCK;
        return 0;
    }
    if (S_ISCHR(st->st_mode)) {
        *kind = FILE_CHARACTER;
        return 0;
    }
    if (S_ISDIR(st->st_mode)) {
        is = "a directory";
    } else if (S_ISFIFO(st->st_mode)) {
        is = "a pipe";
    } else if (S_ISSOCK(st->st_mode)) {
        is = "a socket";
    }
    return blk_error(error, -EINVAL, "'file' driver requires '%s' to be a regular file or a device, but it is %s",
                     filename, is);
}

/* Opens without waiting for anybody, whatever the name leads to. Returns: a descriptor or -errno. */
static int file_open_fd(const char *filename, int flags, FileKind *kind, struct stat *st, GError **error)
{
    if (stat(filename, st) == 0) {          /* opening some devices has effects: look first */
        int ret = file_kind(st, filename, kind, error);
        if (ret < 0) {
            return ret;
        }
    }
    int fd = open(filename, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd < 0) {
        int err = errno;
        if (err == EINVAL && (flags & O_DIRECT)) {
            return blk_error(error, -EINVAL, "Could not open '%s': the file system does not support O_DIRECT "
                             "(use cache.direct=off)", filename);
        }
        return blk_error_errno(error, -err, "Could not open '%s'", filename);
    }
    int ret;
    if (fstat(fd, st) < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0) {
        ret = blk_error_errno(error, -errno, "Could not open '%s'", filename);
    } else {
        ret = file_kind(st, filename, kind, error);
    }
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static bool is_power_of_two(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* Does a read of @align bytes at @align work with O_DIRECT? */
static bool file_try_direct(int fd, uint32_t align, void *buffer)
{
    return pread(fd, buffer, align, align) >= 0 || errno != EINVAL;
}

static int file_probe_direct(FileState *s, const struct stat *st, GError **error)
{
    s->mem_align = MAX_DIRECT_ALIGN;
#ifdef STATX_DIOALIGN
    struct statx stx;
    if (statx(s->io.fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && (stx.stx_mask & STATX_DIOALIGN)) {
        if (stx.stx_dio_offset_align == 0) {
            return blk_error(error, -EINVAL, "'%s' does not support O_DIRECT (use cache.direct=off)", s->filename);
        }
        if (is_power_of_two(stx.stx_dio_offset_align) && is_power_of_two(stx.stx_dio_mem_align)) {
            s->align = stx.stx_dio_offset_align;
            s->mem_align = MAX(stx.stx_dio_mem_align, SECTOR);
            return 0;
        }
    }
#endif
    int sector_size = 0;
    if (s->kind == FILE_BLOCK && ioctl(s->io.fd, BLKSSZGET, &sector_size) == 0 && is_power_of_two(sector_size)) {
        s->align = sector_size;
        return 0;
    }
    void *buffer = aligned_alloc(MAX_DIRECT_ALIGN, MAX_DIRECT_ALIGN);
    if (!buffer) {
        return blk_error(error, -ENOMEM, "No memory to find out the alignment that '%s' needs", s->filename);
    }
    s->align = SECTOR;
    while (s->align < MAX_DIRECT_ALIGN && (st->st_size <= MAX_DIRECT_ALIGN ||
                                           !file_try_direct(s->io.fd, s->align, buffer))) {
        s->align *= 2;          /* a read at the end of the file proves nothing: take the safe value */
    }
    free(buffer);
    return 0;
}

/* Length in bytes of what @s->io.fd is, rounded up to sectors. */
static int file_get_length(const FileState *s, const struct stat *st, uint64_t *length, GError **error)
{
    uint64_t bytes = 0;

    if (s->kind == FILE_REGULAR) {
        bytes = st->st_size;
    } else if (s->kind == FILE_BLOCK) {
        if (ioctl(s->io.fd, BLKGETSIZE64, &bytes) < 0) {
            return blk_error_errno(error, -errno, "Could not get the size of device '%s'", s->filename);
        }
    } else {
        off_t end = lseek(s->io.fd, 0, SEEK_END);
        if (end < 0) {
            return blk_error_errno(error, -errno, "Could not get the size of device '%s'", s->filename);
        }
        bytes = end;
    }
    if (bytes > BLK_MAX_LENGTH) {
        return blk_error(error, -EFBIG, "'%s' is too large: %" PRIu64 " bytes", s->filename, bytes);
    }
    *length = round_up(bytes, SECTOR);
    return 0;
}

/* Do writes to the file system only copy to the page cache, as long as that has room? Not where a process serves it, which
 * may be this one. */
static bool file_copies_writes(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0) {
        return false;
    }
    switch ((uint32_t)fs.f_type) {
    case EXT4_SUPER_MAGIC:      /* ext2 and ext3 have the same */
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
        return true;
    default:
        return false;
    }
}

/* From now on the file is read and written through @fd, which is the state's own also after an error. */
static int file_use_fd(FileState *s, int fd, const BlkOpenFlags *flags, const struct stat *st, GError **error)
{
    s->io = (BlkAioFile) { .fd = fd, .cached = !flags->direct };
    s->io.copy_align = s->io.cached && s->kind == FILE_REGULAR && file_copies_writes(fd) ? s->block_size : 0;
    s->align = s->mem_align = 1;
    s->unmap = flags->unmap;
    s->no_flush = flags->no_flush;
    return flags->direct ? file_probe_direct(s, st, error) : 0;
}

static int file_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    FileState *s = node->opaque;
    const BlkOpenFlags *flags = blk_node_open_flags(node);
    int direct = flags->direct ? O_DIRECT : 0;
    struct stat st;

    s->io.fd = -1;
    s->filename = g_strdup(blk_options_string(options, "filename"));
    if (*s->filename == '\0') {
        return blk_error(error, -EINVAL, "The 'file' block driver requires a file name");
    }

    g_autoptr(GError) local = NULL;
    int ret = file_open_fd(s->filename, (node->read_only ? O_RDONLY : O_RDWR) | direct, &s->kind, &st, &local);
    if ((ret == -EACCES || ret == -EPERM || ret == -EROFS) && !node->read_only && flags->auto_read_only) {
        g_clear_error(&local);
        ret = file_open_fd(s->filename, O_RDONLY | direct, &s->kind, &st, &local);
        node->read_only = true;
    }
    if (ret < 0) {
        g_propagate_error(error, g_steal_pointer(&local));
        return ret;
    }
    s->block_size = is_power_of_two(st.st_blksize) ? CLAMP(st.st_blksize, SECTOR, 1 << 16) : 4096;
    ret = file_use_fd(s, ret, flags, &st, error);
    if (ret == 0) {
        ret = blk_file_lock_init(&s->lock, s->io.fd, blk_options_enum(options, "locking"), error);
    }
    if (ret == 0) {
        ret = file_get_length(s, &st, &node->length, error);
    }
    node->caps = BLK_CAP_FUA | (s->kind == FILE_REGULAR ? BLK_CAP_ZERO_INIT : 0);
    return ret;
}

static void file_co_close(BlkNode *node)
{
    FileState *s = node->opaque;

    blk_file_lock_release(&s->lock);
    if (s->filename && s->io.fd >= 0) {
        close(s->io.fd);
    }
    if (s->lock.enabled && s->lock.fd != s->io.fd) {
        close(s->lock.fd);
    }
    g_free(s->filename);
}

/* ---- reopening ---- */

/* A new way into the same file, whatever its name leads to now. Returns: a descriptor or -errno. */
static int file_open_again(const FileState *s, int flags, GError **error)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", s->io.fd);
    int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

    if (fd < 0) {
        return blk_error_errno(error, -errno, "Could not open '%s' %s", s->filename,
                               (flags & O_ACCMODE) == O_RDWR ? "for writing" : "again");
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    return fd;
}

static void file_co_reopen_abort(BlkNode *node)
{
    FileState *s = node->opaque, *before = g_steal_pointer(&s->before);

    close(s->io.fd);
    s->io = before->io;
    s->align = before->align;
    s->mem_align = before->mem_align;
    s->unmap = before->unmap;
    s->no_flush = before->no_flush;
    g_free(before);
}

/* The locks stay with the old descriptor until it is closed: the new one would be refused what the old one holds. */
static int file_co_reopen_prepare(BlkNode *node, const BlkReopen *to, GError **error)
{
    FileState *s = node->opaque;
    struct stat st;
    int fd = file_open_again(s, (to->read_only ? O_RDONLY : O_RDWR) | (to->flags->direct ? O_DIRECT : 0), error);

    if (fd < 0) {
        return fd;
    }
    s->before = g_memdup2(s, sizeof(*s));
    s->io.fd = fd;
    int ret = fstat(fd, &st) < 0 ? blk_error_errno(error, -errno, "Could not open '%s' again", s->filename)
                                 : file_use_fd(s, fd, to->flags, &st, error);
    if (ret < 0) {
        file_co_reopen_abort(node);
    }
    return ret;
}

/* It may have become longer otherwise than through the node. */
static void file_follow_growth(BlkNode *node)
{
    const FileState *s = node->opaque;
    struct stat st;
    uint64_t length;

    if (s->kind == FILE_REGULAR && fstat(s->io.fd, &st) == 0 && file_get_length(s, &st, &length, NULL) == 0) {
        node->length = MAX(node->length, length);
    }
}

static void file_co_reopen_commit(BlkNode *node)
{
    FileState *s = node->opaque, *before = g_steal_pointer(&s->before);
    int old = before->io.fd, locks = s->lock.fd;
    bool moved = blk_file_lock_move(&s->lock, s->io.fd) == 0;       /* if not, they stay where they are */

    if (moved || old != locks) {
        close(old);
    }
    if (moved && old != locks) {
        close(locks);
    }
    g_free(before);
    file_follow_growth(node);
}

static void file_refresh_limits(BlkNode *node)
{
    FileState *s = node->opaque;
    int sector_size = 0;

    node->limits.read_align = node->limits.write_align = s->align;
    node->limits.mem_align = s->mem_align;
    node->limits.zeroes_align = s->block_size;
    node->limits.discard_align = s->unmap ? s->align : 0;
    if (s->kind == FILE_BLOCK && ioctl(s->io.fd, BLKSSZGET, &sector_size) == 0 && is_power_of_two(sector_size)) {
        node->limits.zeroes_align = sector_size;
        node->limits.discard_align = s->unmap ? sector_size : 0;
    } else if (s->kind == FILE_CHARACTER) {
        node->limits.zeroes_align = node->limits.discard_align = 0;
    }
}

static int file_set_perm(BlkNode *node, unsigned perm, unsigned shared, GError **error)
{
    FileState *s = node->opaque;

    return blk_file_lock_set(&s->lock, perm, shared, s->filename, error);
}

/* ---- requests ---- */

static void file_note_end(BlkNode *node, const BlkRequest *req)
{
    FileState *s = node->opaque;
    uint64_t end = round_up(req->offset + req->bytes, SECTOR);

    if (s->kind == FILE_REGULAR && end > node->length) {
        node->length = end;
    }
}

static int file_co_preadv(BlkNode *node, BlkRequest *req)
{
    FileState *s = node->opaque;

    return blk_aio_co_preadv(node->ctx, &s->io, req->offset, req->bytes, req->iov);
}

static int file_co_pwritev(BlkNode *node, BlkRequest *req)
{
    FileState *s = node->opaque;
    bool dsync = (req->flags & BLK_REQ_FUA) && !s->no_flush;

    int ret = blk_aio_co_pwritev(node->ctx, &s->io, req->offset, req->bytes, req->iov, dsync);
    if (ret == 0) {
        file_note_end(node, req);
    } else if (ret == -EIO && dsync) {
        s->flush_failed = true;
    }
    return ret;
}

static bool means_unsupported(int ret)
{
    return ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -ENODEV || ret == -EINVAL;
}

/* fallocate() that remembers in *@unsupported if it cannot be. */
static int file_co_fallocate(BlkNode *node, int mode, const BlkRequest *req, bool *unsupported)
{
    FileState *s = node->opaque;

    if (*unsupported) {
        return -ENOTSUP;
    }
    int ret = blk_aio_co_fallocate(node->ctx, s->io.fd, mode, req->offset, req->bytes);
    if (means_unsupported(ret)) {
        *unsupported = ret != -EINVAL;      /* that may be due to this one range */
        return -ENOTSUP;
    }
    return ret;
}

static int file_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    FileState *s = node->opaque;
    bool grows = req->offset + req->bytes > node->length;
    int ret = -ENOTSUP;

    if (s->kind == FILE_CHARACTER) {
        return -ENOTSUP;
    }
    if ((req->flags & BLK_REQ_UNMAP) && !grows) {
        ret = file_co_fallocate(node, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, req, &s->no_punch_hole);
    }
    /* On a device this may mean that the kernel writes zeroes, which is not what NO_FALLBACK asks for. */
    if (ret == -ENOTSUP && !(s->kind == FILE_BLOCK && (req->flags & BLK_REQ_NO_FALLBACK))) {
        int keep = s->kind == FILE_BLOCK ? FALLOC_FL_KEEP_SIZE : 0;
        ret = file_co_fallocate(node, FALLOC_FL_ZERO_RANGE | keep, req, &s->no_zero_range);
    }
    if (ret == 0) {
        file_note_end(node, req);
        if ((req->flags & BLK_REQ_FUA) && !s->no_flush) {
            ret = node->driver->co_flush(node);
        }
    }
    return ret;
}

typedef struct FileDiscard {
    int fd;
    uint64_t range[2];
} FileDiscard;

static int file_discard_device(void *arg)
{
    FileDiscard *d = arg;

    return ioctl(d->fd, BLKDISCARD, d->range) < 0 ? -errno : 0;
}

static int file_co_discard(BlkNode *node, BlkRequest *req)
{
    FileState *s = node->opaque;
    int ret = 0;

    if (!s->unmap || s->kind == FILE_CHARACTER) {
        return 0;
    }
    if (s->kind == FILE_REGULAR) {
        ret = file_co_fallocate(node, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, req, &s->no_punch_hole);
    } else if (!s->no_discard) {
        FileDiscard d = { .fd = s->io.fd, .range = { req->offset, req->bytes } };
        ret = blk_aio_co_call(node->ctx, file_discard_device, &d);
        if (means_unsupported(ret)) {
            s->no_discard = true;
            ret = -ENOTSUP;
        }
    }
    return ret == -ENOTSUP ? 0 : ret;       /* a hint */
}

static int file_co_flush(BlkNode *node)
{
    FileState *s = node->opaque;

    if (s->no_flush || s->kind == FILE_CHARACTER) {
        return 0;
    }
    if (s->flush_failed) {
        return -EIO;
    }
    int ret = blk_aio_co_fdatasync(node->ctx, s->io.fd);
    if (ret < 0) {
        s->flush_failed = true;
    }
    return ret;
}

/* Where the hole or the data at @offset of a file ends; UINT64_MAX: not before the end of the file. */
static uint64_t file_extent_end(int fd, uint64_t offset, bool *data)
{
    off_t next = lseek(fd, offset, SEEK_DATA);

    *data = true;
    if (next < 0) {
        *data = errno != ENXIO;     /* else nothing but holes from here on, or no answer */
        return UINT64_MAX;
    }
    if ((uint64_t)next > offset) {
        *data = false;
        return next;
    }
    next = lseek(fd, offset, SEEK_HOLE);
    return next < 0 || (uint64_t)next <= offset ? UINT64_MAX : (uint64_t)next;
}

static int file_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    FileState *s = node->opaque;
    uint64_t align = MAX(s->align, SECTOR);
    bool data = true;

    if (s->kind == FILE_REGULAR) {
        uint64_t end = file_extent_end(s->io.fd, offset, &data);
        if (end - offset < bytes && end != UINT64_MAX) {
            /* Holes begin and end at blocks; the end of the file may be anywhere. */
            uint64_t cut = data ? round_up(end, align) : end;
            bytes = MIN(bytes, cut - offset);
        }
    }
    status->bytes = bytes;
    status->flags = (data ? BLK_STATUS_DATA : BLK_STATUS_ZERO) | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET;
    status->file = node;
    status->host_offset = offset;
    return 0;
}

static int file_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    FileState *s = node->opaque;
    struct stat st;

    if (fstat(s->io.fd, &st) < 0) {
        return blk_error_errno(error, -errno, "Could not get the state of '%s'", s->filename);
    }
    info->allocated_bytes = (uint64_t)st.st_blocks * SECTOR;
    info->has_allocated = true;
    return 0;
}

/* ---- length and creation ---- */

static int file_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    FileState *s = node->opaque;
    struct stat st;

    if (s->kind != FILE_REGULAR) {
        if (length > node->length) {
            return blk_error(error, -EINVAL, "Cannot grow device files");
        }
        return 0;
    }
    if (fstat(s->io.fd, &st) < 0) {
        return blk_error_errno(error, -errno, "Could not get the state of '%s'", s->filename);
    }
    int ret = 0;
    if (length >= (uint64_t)st.st_size) {
        ret = blk_file_co_grow(node->ctx, s->io.fd, st.st_size, length, prealloc, error);
    } else if (prealloc != BLK_PREALLOC_OFF) {
        ret = blk_error(error, -ENOTSUP, "Preallocation can't be used for shrinking files");
    } else {
        ret = blk_file_co_ftruncate(node->ctx, s->io.fd, length);
        if (ret < 0) {
            blk_error_errno(error, ret, "Failed to resize the file");
        }
    }
    if (ret == 0) {
        node->length = round_up(length, SECTOR);
    }
    return ret;
}

static int file_co_delete_file(BlkContext *ctx, const char *filename)
{
    struct stat st;

    if (lstat(filename, &st) < 0) {
        return -errno;
    }
    return !S_ISREG(st.st_mode) ? -EINVAL : unlink(filename) < 0 ? -errno : 0;
}

/* Opens the file for writing; *made: it was not there. */
static int file_make_fd(const char *filename, FileKind *kind, struct stat *st, bool *made, GError **error)
{
    int fd = file_open_fd(filename, O_RDWR | O_CREAT | O_EXCL, kind, st, NULL);

    *made = fd >= 0;
    return *made ? fd : file_open_fd(filename, O_RDWR | O_CREAT, kind, st, error);
}

static int file_co_create_file(BlkContext *ctx, const char *filename, uint64_t length, const BlkOptions *options,
                               bool *made, GError **error)
{
    FileState s = { .filename = (char *)filename };
    struct stat st;
    uint64_t device_length;

    if (length > BLK_MAX_LENGTH) {
        return blk_error(error, -EFBIG, "Image size %" PRIu64 " is too large", length);
    }
    s.io.fd = file_make_fd(filename, &s.kind, &st, made, error);
    if (s.io.fd < 0) {
        return s.io.fd;
    }
    int ret;
    if (s.kind == FILE_REGULAR) {
        ret = blk_file_co_format(ctx, s.io.fd, filename, length, options, error);
        if (ret < 0 && *made) {
            (void)file_co_delete_file(ctx, filename);
        }
    } else {
        ret = file_get_length(&s, &st, &device_length, error);
        if (ret == 0 && device_length < length) {
            ret = blk_error(error, -ENOSPC, "Device '%s' is too small: it has %" PRIu64 " bytes, the image needs %"
                            PRIu64, filename, device_length, length);
        }
    }
    close(s.io.fd);
    return ret;
}

static const char *const file_prefixes[] = { "file", "host_device", NULL };

static JsonObject *file_parse_filename(const char *name, GError **error)
{
    JsonObject *options = json_object_new();

    for (unsigned i = 0; file_prefixes[i]; i++) {
        size_t length = strlen(file_prefixes[i]);
        if (g_str_has_prefix(name, file_prefixes[i]) && name[length] == ':') {
            name += length + 1;
            break;
        }
    }
    json_object_set_string_member(options, "filename", name);
    return options;
}

const BlkDriver blk_driver_file = {
    .name = "file",
    .alias = "host_device",
    .kind = BLK_PROTOCOL,
    .help = "regular files and block devices of the host",
    .options = file_options,
    .create_options = blk_file_create_options,
    .instance_size = sizeof(FileState),
    .prefixes = file_prefixes,
    .parse_filename = file_parse_filename,
    .co_open = file_co_open,
    .co_close = file_co_close,
    .co_reopen_prepare = file_co_reopen_prepare,
    .co_reopen_commit = file_co_reopen_commit,
    .co_reopen_abort = file_co_reopen_abort,
    .refresh_limits = file_refresh_limits,
    .set_perm = file_set_perm,
    .co_preadv = file_co_preadv,
    .co_pwritev = file_co_pwritev,
    .co_pwrite_zeroes = file_co_pwrite_zeroes,
    .co_discard = file_co_discard,
    .co_flush = file_co_flush,
    .co_block_status = file_co_block_status,
    .co_truncate = file_co_truncate,
    .co_info = file_co_info,
    .co_create_file = file_co_create_file,
    .co_delete_file = file_co_delete_file,
};
