/* SPDX-License-Identifier: MIT */
/*
 * options.h - core's own side of options: trees, file names and the common options of every node.
 */
#ifndef BLKSTACK_CORE_OPTIONS_H
#define BLKSTACK_CORE_OPTIONS_H

#include <blkstack/driver.h>

/* driver, node-name, read-only, auto-read-only, force-share, metadata-only, check-only, cache.direct, cache.no-flush, discard,
 * detect-zeroes. "driver" and "node-name" are strings, absent when not given. "metadata-only" sets no_backing. */
extern const BlkOption blk_node_options[];

/* Of the JSON that is read. */
#define BLK_JSON_MAX_DEPTH 64
#define BLK_JSON_MAX_BYTES ((size_t)1 << 20)

/* As blk_json_parse_object(), for a value of any type. (transfer full): NULL with @error set. */
JsonNode *blk_json_parse(const char *text, size_t bytes, const char *what, GError **error);
/* The same for a text of up to @max_bytes, which may be more than BLK_JSON_MAX_BYTES. */
JsonNode *blk_json_parse_long(const char *text, size_t bytes, size_t max_bytes, const char *what, GError **error);

/* A deep copy. */
JsonObject *blk_json_copy(JsonObject *object);

/* JSON text on one line as `{"a": 1, "b": [true, null]}`, keys in the order of the object. */
char *blk_json_to_string(JsonObject *object);
void blk_json_append(GString *out, JsonNode *node);

/* {"a.b": 1, "c.0.d": 2} becomes {"a": {"b": 1}, "c": [{"d": 2}]}: groups whose keys are all numbers become arrays,
 * which must be complete. -EINVAL when a key is both a value and a group. Not changed; NULL with @error set. */
JsonObject *blk_options_expand(JsonObject *object, GError **error);

/* A copy in which {"a": {"b": 1}} has become {"a.b": 1}, except below keys that @tables declare as NODE or JSON, and
 * in which "a.b": 1 stands below "a" again if @tables declare "a" as NODE (children given by dotted keys). -EINVAL
 * when both forms give the same key. NULL with @error set. */
JsonObject *blk_options_normalise(const BlkOption *const *tables, JsonObject *object, GError **error);

/* A letter, then letters, digits, '-', '.' and '_': what objects, exports and jobs may be called. */
bool blk_id_is_valid(const char *id);

/* The nearest of @names (NULL-terminated) to @word for "did you mean", or NULL if none is near. Of two that are equally
 * near the one of the word's length is taken, else the first. */
const char *blk_nearest_word(const char *word, const char *const *names);

/* What the protocol of @name opens: {"driver": "file", "filename": name}, or what the driver makes of "prefix:rest".
 * A json: name is refused. (transfer full) */
JsonObject *blk_filename_parse_protocol(BlkContext *ctx, const char *name, GError **error);

/* True if @name begins with "prefix:", without a '/' before the colon; "json:" is one too. */
bool blk_filename_has_prefix(const char *name);

/* What @name means when the image @base names it: a relative @name starts from @base's directory; absolute names and
 * names with a prefix are kept. -EINVAL if @base has no directory. (transfer full) */
char *blk_filename_resolve(const char *base, const char *name, GError **error);

/* @table: (nullable) */
bool blk_options_table_has(const BlkOption *table, const char *name);

/* Appends what --help prints about one table: "  name=<type>  - help (default: x)" lines, sorted as in the table. */
void blk_options_describe(const BlkOption *table, GString *out);

#endif
