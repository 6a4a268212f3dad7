/* SPDX-License-Identifier: MIT */
/*
 * main.c - blkstack-img: finds the subcommand and runs it.
 */
#include "config.h"
#include "img/img.h"

#include <stdio.h>

const ImgCommand img_commands[] = {
    { "amend", "[--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force] -o options filename",
      "changes properties of an image", img_amend },
    { "bench", "[--image-opts] [-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n] "
      "[--no-drain] [-o offset] [--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename",
      "says how long many requests take", img_bench },
    { "bitmap", "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b source_file [-F source_fmt]] "
      "[-g granularity] [--image-opts | -f fmt] filename bitmap",
      "changes a dirty bitmap of an image", img_bitmap },
    { "check", "[--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [--data] [-T src_cache] [-U] filename",
      "looks for errors in an image's metadata and repairs them", img_check },
    { "commit", "[--image-opts] [-q] [-f fmt] [-t cache] [-b base] [-r rate_limit] [-c] [-d] [-p] filename",
      "writes what an image holds into its backing file", img_commit },
    { "compact", "[--image-opts] [-p] [-q] [-f fmt] [-T src_cache] [--no-compress] filename",
      "makes an image as small as a compressed copy would be, in place", img_compact },
    { "compare", "[--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2",
      "tells whether two images have the same content", img_compare, 2 },
    { "convert", "[--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps [--skip-broken-bitmaps]] [-U] [-C] "
      "[-c] [-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] "
      "[-l snapshot_param] [-S sparse_size] "
      "[-r rate_limit] [-m num_coroutines] [-W] [--salvage] filename [filename2 [...]] output_filename",
      "copies one or several images into another one", img_convert },
    { "create", "[-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]",
      "makes a new image", img_create },
    { "dd", "[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] [skip=blocks] if=input of=output",
      "copies part of an image into a new one", img_dd },
    { "info", "[--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename",
      "shows what an image is", img_info },
    { "map", "[--image-opts] [-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] filename",
      "shows where the content of an image lies", img_map },
    { "measure", "[--output=ofmt] [-O output_fmt] [-o options] [--size N | [--image-opts] [-f fmt] [-l snapshot_param] [-U] filename]",
      "tells how long the file of a new image will be", img_measure },
    { "rebase", "[--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] [-c] -b backing_file [-F backing_fmt] "
      "filename", "lets an image stand on another backing file", img_rebase },
    { "resize", "[--image-opts] [-f fmt] [--preallocation=prealloc] [-q] [--shrink] filename [+ | -]size",
      "changes the length of an image", img_resize },
    { "snapshot", "[--image-opts] [-U] [-q] [-l | -a snapshot | -c snapshot | -d snapshot] filename",
      "lists, applies, creates or deletes internal snapshots", img_snapshot },
    { NULL }
};

typedef struct Run {
    BlkContext *ctx;
    const ImgCommand *command;
    int argc;
    char **argv;
} Run;

static int run_command(void *opaque)
{
    Run *run = opaque;

    return run->command->run(run->ctx, run->argc, run->argv);
}

static int start_command(const char *name, int argc, char **argv)
{
    Run run = { .command = img_commands, .argc = argc, .argv = argv };
    GError *error = NULL;
    int status;

    while (run.command->name && strcmp(run.command->name, name) != 0) {
        run.command++;
    }
    if (!run.command->name) {
        return img_usage_error("Command not found: %s", name);
    }
    run.ctx = blk_context_new(NULL, &error);
    if (!run.ctx) {
        tool_report(error);
        return 1;
    }
    blk_context_set_message_handler(run.ctx, tool_node_message, NULL);
    status = blk_run(run.ctx, run_command, &run);
    blk_context_free(run.ctx);
    return tool_end(status, run.command->failure ? run.command->failure : EXIT_FAILURE);
}

static int print_help(void)
{
    GError *error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, &error);

    if (!ctx) {
        tool_report(error);
        return 1;
    }
    return img_print_help(ctx);
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_HELP,
        { "trace", required_argument, NULL, 'T' },
        { "version", no_argument, NULL, 'V' },
        IMG_LONG_END,
    };
    int c;

    tool_begin(argv[0]);
    tool_turn_signals_into_errors();
    while ((c = getopt_long(argc, argv, "+:hT:V", long_options, NULL)) != -1) {
        switch (c) {
        case 'h':
            return tool_end(print_help(), EXIT_FAILURE);
        case 'T':
            if (tool_take_trace(optarg)) {
                return 0;
            }
            break;
        case 'V':
            printf("%s version %s\n", tool_program(), BLK_VERSION);
            return tool_end(EXIT_SUCCESS, EXIT_FAILURE);
        default:
            tool_option_error(c, argv);
            fprintf(stderr, "Try '%s --help' for more information\n", tool_program());
            return 1;
        }
    }
    if (optind == argc) {
        return img_usage_error("Not enough arguments");
    }
    argc -= optind;
    argv += optind;
    optind = 0;     /* getopt_long() starts anew */
    return start_command(argv[0], argc, argv);
}
