/* SPDX-License-Identifier: MIT */
/*
 * command.c - finds and runs a command; what its options say; help and quit.
 *
 * A line is words between blanks; there is no quoting.
 */
#include "io/io.h"

static const IoCommand *const tables[] = {
    io_sync_commands, io_aio_commands, io_image_commands, io_file_commands, io_debug_commands, io_shell_commands,
};

static const IoCommand *find_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const IoCommand *command = tables[i]; command->name; command++) {
            if (strcmp(name, command->name) == 0 || g_strcmp0(name, command->alias) == 0) {
                return command;
            }
        }
    }
    return NULL;
}

/* Letters mean the same in all commands. */
static int take_option(const IoCommand *command, int letter, IoOptions *o)
{
    switch (letter) {
    case 'b':
        o->vm_state = true;
        break;
    case 'c':
        o->flags |= BLK_REQ_COMPRESSED;
        break;
    case 'C':
        o->machine = true;
        break;
    case 'f':
        o->flags |= BLK_REQ_FUA;
        break;
    case 'i':
        o->invalid = true;
        break;
    case 'l':
        o->length = optarg;
        break;
    case 'n':
        o->flags |= BLK_REQ_NO_FALLBACK;
        break;
    case 'p':
        break;
    case 'P':
        return io_parse_pattern(optarg, &o->pattern);
    case 'q':
        o->quiet = true;
        break;
    case 's':
        o->source = optarg;
        break;
    case 'u':
        o->flags |= BLK_REQ_UNMAP;
        break;
    case 'v':
        o->dump = true;
        break;
    case 'z':
        o->zeroes = true;
        break;
    default:
        return io_usage(command);
    }
    return 0;
}

int io_parse_options(const IoCommand *command, const char *letters, int argc, char **argv, IoOptions *options)
{
    int c, ret = 0;

    *options = (IoOptions){ .pattern = -1 };
    optind = 0;
    while (ret == 0 && (c = getopt(argc, argv, letters)) != -1) {
        ret = take_option(command, c, options);
    }
    return ret;
}

int io_usage(const IoCommand *command)
{
    printf("%s%s%s -- %s\n", command->name, command->args ? " " : "", command->args ? command->args : "",
           command->summary);
    return -EINVAL;
}

static int check_count(const IoCommand *command, const char *name, int count)
{
    if (count >= command->min_args && (command->max_args < 0 || count <= command->max_args)) {
        return 0;
    }
    if (command->max_args < 0) {
        fprintf(stderr, "bad argument count %d to %s, expected at least %d arguments\n", count, name,
                command->min_args);
    } else if (command->min_args == command->max_args) {
        fprintf(stderr, "bad argument count %d to %s, expected %d arguments\n", count, name, command->min_args);
    } else {
        fprintf(stderr, "bad argument count %d to %s, expected between %d and %d arguments\n", count, name,
                command->min_args, command->max_args);
    }
    return -EINVAL;
}

static int co_run_words(IoSession *session, int argc, char **argv)
{
    const IoCommand *command = find_command(argv[0]);
    int ret;

    if (!command) {
        fprintf(stderr, "command \"%s\" not found\n", argv[0]);
        return -EINVAL;
    }
    if (command->needs_file && !session->tree) {
        fprintf(stderr, "no file open, try 'help open'\n");
        return -EINVAL;
    }
    ret = check_count(command, argv[0], argc - 1);
    if (ret < 0) {
        return ret;
    }
    if (command->writes && blk_node_read_only(io_node(session))) {
        tool_error("Block node is read-only");
        return -EPERM;
    }
    return command->co_run(session, command, argc, argv);
}

int io_co_run_line(IoSession *session, const char *line)
{
    g_auto(GStrv) parts = g_strsplit(line, " ", -1);
    g_autofree char **argv = g_new0(char *, g_strv_length(parts) + 1);
    int argc = 0;

    for (char **part = parts; *part; part++) {
        if (**part != '\0') {
            argv[argc++] = *part;
        }
    }
    return argc > 0 ? co_run_words(session, argc, argv) : 0;
}

/* ---- help, quit ---- */

static int compare_names(gconstpointer a, gconstpointer b)
{
    const IoCommand *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static int run_help(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    const IoCommand *command;

    if (argc == 2) {
        command = find_command(argv[1]);
        if (!command) {
            printf("command %s not found\n", argv[1]);
            return -EINVAL;
        }
        io_usage(command);
        if (command->help) {
            printf("\n%s\n", command->help);
        }
        return 0;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (command = tables[i]; command->name; command++) {
            g_ptr_array_add(all, (gpointer)command);
        }
    }
    g_ptr_array_sort(all, compare_names);
    for (guint i = 0; i < all->len; i++) {
        io_usage(g_ptr_array_index(all, i));
    }
    printf("\n'help COMMAND' tells more about one command.\n");
    return 0;
}

static int run_quit(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    session->quit = true;
    return 0;
}

const IoCommand io_shell_commands[] = {
    {
        .name = "help", .alias = "?", .max_args = 1,
        .args = "[command]",
        .summary = "explains one command or lists all",
        .co_run = run_help,
    }, {
        .name = "quit", .alias = "q", .max_args = -1,
        .summary = "waits for all requests, closes and ends the program",
        .co_run = run_quit,
    },
    { 0 },
};
