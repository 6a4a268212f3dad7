/* SPDX-License-Identifier: MIT */
/*
 * uring-works.c - exits with 0 if the kernel lets this process use io_uring. It asks the kernel and not the library, so
 * that a defect of the library's engine shows as failing tests and not as skipped ones.
 */
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/io_uring.h>

int main(void)
{
    struct io_uring_params params;
    long fd;

    memset(&params, 0, sizeof(params));
    fd = syscall(SYS_io_uring_setup, 1, &params);
    return fd < 0;
}
