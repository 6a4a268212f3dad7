/* SPDX-License-Identifier: MIT */
/*
 * img.h - what the subcommands of blkstack-img share.
 *
 * A subcommand is one function, run as one coroutine: it reads its arguments, works and returns the exit status.
 */
#ifndef BLKSTACK_TOOLS_IMG_H
#define BLKSTACK_TOOLS_IMG_H

#include "common/tool.h"

typedef struct ImgCommand {
    const char *name;
    const char *arguments;      /* for the usage text */
    const char *help;           /* one line */
    int (*run)(BlkContext *ctx, int argc, char **argv);     /* coroutine; argv[0] is the name; the exit status */
    int failure;                /* exit status of failures, if it is not 1 */
} ImgCommand;

extern const ImgCommand img_commands[];     /* ends with a NULL name */

int img_amend(BlkContext *ctx, int argc, char **argv);
int img_bench(BlkContext *ctx, int argc, char **argv);
int img_bitmap(BlkContext *ctx, int argc, char **argv);
int img_check(BlkContext *ctx, int argc, char **argv);
int img_commit(BlkContext *ctx, int argc, char **argv);
int img_compact(BlkContext *ctx, int argc, char **argv);
int img_compare(BlkContext *ctx, int argc, char **argv);
int img_convert(BlkContext *ctx, int argc, char **argv);
int img_create(BlkContext *ctx, int argc, char **argv);
int img_dd(BlkContext *ctx, int argc, char **argv);
int img_info(BlkContext *ctx, int argc, char **argv);
int img_map(BlkContext *ctx, int argc, char **argv);
int img_measure(BlkContext *ctx, int argc, char **argv);
int img_rebase(BlkContext *ctx, int argc, char **argv);
int img_resize(BlkContext *ctx, int argc, char **argv);
int img_snapshot(BlkContext *ctx, int argc, char **argv);

/* ---- arguments ---- */

/* Values of the long options that several subcommands know and that have no letter. */
enum { IMG_OPTION_OUTPUT = 256, IMG_OPTION_IMAGE_OPTS, IMG_OPTION_OBJECT, IMG_OPTION_OWN };

#define IMG_LONG_HELP        { "help", no_argument, NULL, 'h' }
/* Those of every subcommand. */
#define IMG_LONG_COMMON      IMG_LONG_HELP, { "object", required_argument, NULL, IMG_OPTION_OBJECT }
#define IMG_LONG_FORMAT      { "format", required_argument, NULL, 'f' }
#define IMG_LONG_IMAGE_OPTS  { "image-opts", no_argument, NULL, IMG_OPTION_IMAGE_OPTS }
#define IMG_LONG_OUTPUT      { "output", required_argument, NULL, IMG_OPTION_OUTPUT }
#define IMG_LONG_FORCE_SHARE { "force-share", no_argument, NULL, 'U' }
#define IMG_LONG_END         { NULL, 0, NULL, 0 }

typedef struct ImgArgs {
    ToolOpen open;              /* -f, --image-opts, -U, -T: how to open the image(s) */
    const char *cache_mode;     /* -T as given */
    bool json;                  /* --output=json */
    bool quiet, progress;       /* -q, -p */
    int usage_status;           /* exit status after wrong arguments */
    int object_status;          /* exit status after an --object that cannot be made; 0: it is 1 */
    int status;                 /* when IMG_STOP is returned */
} ImgArgs;

#define IMG_STOP (-2)

/**
 * img_next_option:
 *
 * getopt_long() that deals itself with the options of ImgArgs, --object, -h and errors. @short_options begins with ':'.
 * Returns: the next other option; -1: there are no more; IMG_STOP: return args->status.
 */
int img_next_option(ImgArgs *args, int argc, char **argv, const char *short_options, const struct option *long_options);

/* Reports contradictions among the options of ImgArgs. @status: of the failure. Returns: whether all is well. */
bool img_args_valid(ImgArgs *args, int status);

/* Opens the image that the arguments name, runs @fn on it and closes it. Returns: its status; 1 if it did not open. */
int img_co_on_image(BlkContext *ctx, ImgArgs *args, int (*fn)(BlkNode *node, void *opaque), void *opaque);

/* Reports the message and points to --help. Returns: 1. */
int img_usage_error(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* Parses a size of @min..@max; @what it is ("image size") stands in the message. Returns: whether it is one. */
bool img_parse_size(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *bytes);

int img_print_help(BlkContext *ctx);    /* returns 0 */

/* ---- options of creation ---- */

/* What `-o help` among -o texts asks for. */
bool img_is_help(const char *text);
/* Prints the options of a NULL-terminated array of tables, sorted by name. */
void img_print_options(const BlkOption *const *tables);
/* Prints the table of @format for `-o help`, and that of the protocol if @filename is given. Returns: the exit status. */
int img_print_create_help(BlkContext *ctx, const char *format, const char *filename);
/* Adds the -o text @text to @options; a later key replaces an earlier one. @help: (nullable): set if that is what it asks
 * for; then nothing is added. Returns: false: reported, and the exit status is in @args. */
bool img_take_create_options(ImgArgs *args, JsonObject *options, const char *text, bool *help);
/* The driver for a new image, or NULL with an error that does not name the image. */
const BlkDriver *img_find_create_driver(BlkContext *ctx, const char *format, GError **error);
/* Checks @options against the tables of the driver and of the protocol of @filename, the new image. (transfer full) */
BlkOptions *img_parse_create_options(BlkContext *ctx, const BlkDriver *driver, const char *filename, JsonObject *options,
                                     GError **error);
/* What a file named so can be made with, beside the options that @format has itself: an empty table if it cannot. */
const BlkOption *img_protocol_options(BlkContext *ctx, const char *filename, const BlkDriver *format);
bool img_has_create_option(const BlkDriver *driver, const char *name);

/* ---- internal snapshots ---- */

/* The table of what BlkInfo tells of. */
void img_print_snapshots(JsonArray *snapshots);

/* ---- output ---- */

/* JSON in the peer's layout: four spaces, "key": value; and a new line. */
void img_print_json(JsonNode *node);

/* "    (12.34/100%)" on one line, when it has moved by a percent. */
typedef struct ImgProgress {
    bool enabled;
    double shown;               /* percent; -1: nothing yet */
} ImgProgress;
void img_progress_begin(ImgProgress *progress, bool enabled);
void img_progress_report(double fraction, void *progress);
void img_progress_end(ImgProgress *progress);      /* as far as it got */

#endif
