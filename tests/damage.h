/* SPDX-License-Identifier: MIT */
/*
 * damage.h - random damage of the files of images.
 */
#ifndef BLKSTACK_TEST_DAMAGE_H
#define BLKSTACK_TEST_DAMAGE_H

#include <glib.h>

/* Changes a few bytes of @file, an image in @format or an extent of one, where that may matter, or its length. Checksums that would
 * only hide the damage are made to fit, most of the time. */
void damage_file(GRand *rand, GByteArray *file, const char *format);

#endif
