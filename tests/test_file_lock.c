/* SPDX-License-Identifier: MIT */
/* test_file_lock.c - image locks: which bytes, who excludes whom, and that a refusal leaves nothing behind. */
#include "drivers/file.h"
#include "test.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Two descriptors exclude each other like two processes. */
static void open_users(BlkFileLock *users, unsigned count)
{
    char name[] = "/tmp/blkstack-lock-XXXXXX";
    int fd = mkstemp(name);

    ck_assert_int_ge(fd, 0);
    for (unsigned i = 0; i < count; i++) {
        int user_fd = open(name, O_RDWR | O_CLOEXEC);
        ck_assert_int_ge(user_fd, 0);
        ck_assert_int_eq(blk_file_lock_init(&users[i], user_fd, BLK_FILE_LOCKING_ON, NULL), 0);
    }
    unlink(name);
    close(fd);
}

static void close_users(BlkFileLock *users, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        close(users[i].fd);
    }
}

/* Bytes from @base on that others hold, as bits, seen from @user. */
static unsigned bytes_held(const BlkFileLock *user, unsigned base)
{
    unsigned bits = 0;

    for (unsigned i = 0; i < 8; i++) {
        struct flock probe = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + i, .l_len = 1 };
        ck_assert_int_eq(fcntl(user->fd, F_OFD_GETLK, &probe), 0);
        if (probe.l_type != F_UNLCK) {
            ck_assert_int_eq(probe.l_type, F_RDLCK);
            bits |= 1u << i;
        }
    }
    return bits;
}

static int set(BlkFileLock *user, unsigned perm, unsigned shared)
{
    return blk_file_lock_set(user, perm, shared, "disk", NULL);
}

START_TEST(bytes_are_where_other_programs_look)
{
    BlkFileLock users[2];

    open_users(users, 2);
    ck_assert_int_eq(set(&users[0], BLK_PERM_READ | BLK_PERM_RESIZE, BLK_PERM_ALL & ~BLK_PERM_WRITE), 0);
    ck_assert_uint_eq(bytes_held(&users[1], 100), BLK_PERM_READ | BLK_PERM_RESIZE);
    ck_assert_uint_eq(bytes_held(&users[1], 200), BLK_PERM_WRITE);
    ck_assert_int_eq(set(&users[0], 0, BLK_PERM_ALL), 0);
    ck_assert_uint_eq(bytes_held(&users[1], 100) | bytes_held(&users[1], 200), 0);
    close_users(users, 2);
}
END_TEST

START_TEST(readers_share)
{
    BlkFileLock users[3];

    open_users(users, 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(set(&users[i], BLK_PERM_READ, BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED), 0);
    }
    close_users(users, 3);
}
END_TEST

START_TEST(second_writer_is_refused)
{
    BlkFileLock users[2];
    g_autoptr(GError) error = NULL;
    unsigned writer = BLK_PERM_READ | BLK_PERM_WRITE;

    open_users(users, 2);
    ck_assert_int_eq(set(&users[0], writer, BLK_PERM_READ), 0);
    ck_assert_int_eq(blk_file_lock_set(&users[1], writer, BLK_PERM_READ, "disk", &error), -EAGAIN);
    ck_assert_str_eq(error->message, "Failed to get \"write\" lock\nIs another process using the image [disk]?");
    close_users(users, 1);
    ck_assert_int_eq(set(&users[1], writer, BLK_PERM_READ), 0);
    close(users[1].fd);
}
END_TEST

START_TEST(reader_that_does_not_share_is_refused)
{
    BlkFileLock users[2];
    g_autoptr(GError) error = NULL;

    open_users(users, 2);
    ck_assert_int_eq(set(&users[0], BLK_PERM_WRITE, BLK_PERM_ALL), 0);
    ck_assert_int_eq(blk_file_lock_set(&users[1], BLK_PERM_READ, BLK_PERM_READ, "disk", &error), -EAGAIN);
    ck_assert_str_eq(error->message,
                     "Failed to get shared \"write\" lock\nIs another process using the image [disk]?");
    ck_assert_int_eq(set(&users[1], BLK_PERM_READ, BLK_PERM_ALL), 0);
    close_users(users, 2);
}
END_TEST

START_TEST(refusal_keeps_what_was_held)
{
    BlkFileLock users[3];

    open_users(users, 3);
    ck_assert_int_eq(set(&users[0], BLK_PERM_READ, BLK_PERM_ALL & ~BLK_PERM_WRITE), 0);
    ck_assert_int_eq(set(&users[1], BLK_PERM_READ, BLK_PERM_ALL & ~BLK_PERM_RESIZE), 0);
    ck_assert_int_eq(set(&users[1], BLK_PERM_WRITE, BLK_PERM_READ), -EAGAIN);
    close_users(users, 1);
    ck_assert_uint_eq(bytes_held(&users[2], 100), BLK_PERM_READ);
    ck_assert_uint_eq(bytes_held(&users[2], 200), BLK_PERM_RESIZE);
    close_users(users + 1, 2);
}
END_TEST

START_TEST(giving_up_never_fails)
{
    BlkFileLock users[2];

    open_users(users, 2);
    ck_assert_int_eq(set(&users[0], BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_ALL), 0);
    /* The second one comes without locks of ours being asked, as a program of another kind might. */
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 200, .l_len = 8 };
    ck_assert_int_eq(fcntl(users[1].fd, F_OFD_SETLK, &lock), 0);
    ck_assert_int_eq(set(&users[0], BLK_PERM_READ, BLK_PERM_ALL), 0);
    ck_assert_uint_eq(bytes_held(&users[1], 100), BLK_PERM_READ);
    ck_assert_int_eq(set(&users[0], BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_ALL), -EAGAIN);
    close_users(users, 2);
}
END_TEST

START_TEST(locking_can_be_off)
{
    BlkFileLock users[2];

    open_users(users, 2);
    ck_assert_int_eq(blk_file_lock_init(&users[1], users[1].fd, BLK_FILE_LOCKING_OFF, NULL), 0);
    ck_assert_int_eq(set(&users[0], BLK_PERM_WRITE, 0), 0);
    ck_assert_int_eq(set(&users[1], BLK_PERM_WRITE, 0), 0);
    ck_assert_uint_eq(bytes_held(&users[0], 100), 0);
    close_users(users, 2);
}
END_TEST

BLK_TEST_MAIN("file_lock", bytes_are_where_other_programs_look, readers_share, second_writer_is_refused,
              reader_that_does_not_share_is_refused, refusal_keeps_what_was_held, giving_up_never_fails,
              locking_can_be_off)
