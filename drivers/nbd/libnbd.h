/* SPDX-License-Identifier: MIT */
/*
 * libnbd.h - the functions of libnbd that the driver "nbd" calls.
 *
 * libnbd is loaded when the first such node is opened, or the exports of a server are listed: it brings a library for XML and,
 * with that, one for Unicode, which every program would pay for at its start. Headers are those of the build, so whatever is
 * loaded has their major version.
 */
#ifndef BLKSTACK_DRIVERS_NBD_LIBNBD_H
#define BLKSTACK_DRIVERS_NBD_LIBNBD_H

#include <glib.h>
#include <libnbd.h>

/* Each member is the function of its name behind "nbd_". */
#define NBD_LIBNBD_FUNCTIONS(F) \
    F(add_meta_context) F(aio_block_status) F(aio_command_completed) F(aio_connect_socket) F(aio_connect_tcp) \
    F(aio_connect_unix) F(aio_disconnect) F(aio_flush) F(aio_get_direction) F(aio_get_fd) F(aio_is_closed) \
    F(aio_is_dead) F(aio_is_ready) F(aio_notify_read) F(aio_notify_write) F(aio_pread) F(aio_pwrite) F(aio_trim) \
    F(aio_zero) F(can_cache) F(can_df) F(can_fast_zero) F(can_flush) F(can_fua) F(can_meta_context) \
    F(can_multi_conn) F(can_trim) F(can_zero) F(close) F(connect_tcp) F(connect_unix) F(create) F(get_block_size) \
    F(get_errno) F(get_error) F(get_size) F(get_structured_replies_negotiated) F(is_read_only) F(is_rotational) \
    F(opt_abort) F(opt_info) F(opt_list) F(opt_list_meta_context) F(set_export_name) F(set_full_info) \
    F(set_opt_mode) F(set_tls) F(set_tls_certificates) F(set_tls_psk_file) F(set_tls_username) \
    F(set_tls_verify_peer)

typedef struct NbdLibnbd {
#define F(name) typeof(nbd_##name) *name;
    NBD_LIBNBD_FUNCTIONS(F)
#undef F
} NbdLibnbd;

/* To be called where nbd_libnbd_load() has succeeded; read only. */
extern NbdLibnbd libnbd;

/* Context: any thread; does not yield. Returns: 0; -ENOTSUP with an error. */
int nbd_libnbd_load(GError **error);

#endif
