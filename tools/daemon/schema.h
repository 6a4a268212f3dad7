/* SPDX-License-Identifier: MIT */
/*
 * schema.h - what commands and events there are, for programs.
 */
#ifndef BLKSTACK_TOOLS_DAEMON_SCHEMA_H
#define BLKSTACK_TOOLS_DAEMON_SCHEMA_H

#include "daemon/daemon.h"

/* (transfer full): the entities, as query-qmp-schema returns them. Does not yield. */
JsonArray *daemon_make_schema(Daemon *d);

#endif
