/* SPDX-License-Identifier: MIT */
/*
 * help.c - what there is, from the server's schema.
 */
#include "ctl/ctl.h"

#include <stdio.h>

static void print_safely(const char *text, int width)
{
    g_autofree char *printable = blk_printable_text(text, 4096);

    printf("%-*s", width, printable);
}

static void print_member(const CtlSchema *schema, const char *prefix, const CtlMember *member)
{
    g_autofree char *kind = ctl_schema_describe(schema, member->type);
    g_autofree char *name = g_strconcat(prefix, member->name, NULL);

    printf("  ");
    print_safely(name, 24);
    printf(member->optional ? "  (optional)  " : "  (required)  ");
    print_safely(kind, 0);
    if (member->help) {
        printf("  - ");
        print_safely(member->help, 0);
    }
    if (member->default_text) {
        printf(" (default: ");
        print_safely(member->default_text, 0);
        putchar(')');
    }
    putchar('\n');
}

/* The members of @type, and of the objects in it of which something is @given. */
static void print_members(const CtlSchema *schema, const char *type, const char *prefix, JsonObject *given)
{
    g_autoptr(GArray) members = ctl_schema_members(schema, type, given);

    for (guint i = 0; i < members->len; i++) {
        print_member(schema, prefix, &g_array_index(members, CtlMember, i));
    }
    for (guint i = 0; i < members->len; i++) {
        const CtlMember *member = &g_array_index(members, CtlMember, i);
        JsonObject *below = ctl_object_of(given, member->name);
        g_autofree char *path = g_strconcat(prefix, member->name, ".", NULL);

        if (below) {
            print_members(schema, member->type, path, below);
        }
    }
}

static void print_all(const CtlSchema *schema)
{
    printf("COMMAND [key=value ...]     send a command; a.b=value is {\"a\": {\"b\": value}}\n"
           "COMMAND {JSON}              the same with all arguments as JSON\n"
           "{\"execute\": ...}            the same as the protocol has it\n"
           "help [COMMAND [key=value]]  list all commands, or the arguments of one\n"
           "wait COMMAND ...            send a command that starts or changes a job, and wait for the job's end\n"
           "watch [ID ...]              show jobs until they have ended\n"
           "events [NAME ...]           print events until the connection ends\n"
           "exit                        leave; quit ends the server\n"
           "\n");
    for (guint i = 0; i < schema->commands->len; i++) {
        const char *name = schema->commands->pdata[i], *help = ctl_text_of(ctl_schema_find(schema, name), "x-help");

        print_safely(name, help ? 38 : 0);
        if (help) {
            printf(" - ");
            print_safely(help, 0);
        }
        putchar('\n');
    }
}

CtlStatus ctl_help(const CtlSchema *schema, char **words)
{
    const char *command = words[0], *type = ctl_schema_arguments(schema, command), *help;
    g_autoptr(JsonObject) given = NULL;
    GError *error = NULL;

    if (!command) {
        print_all(schema);
        return CTL_DONE;
    }
    if (!type) {
        tool_error("there is no command '%s'; 'help' lists all", command);
        return CTL_USAGE;
    }
    given = ctl_words_to_texts(schema, command, words + 1, &error);
    if (!given) {
        tool_report(error);
        return CTL_USAGE;
    }
    print_safely(command, 0);
    help = ctl_text_of(ctl_schema_find(schema, command), "x-help");
    if (help) {
        printf(": ");
        print_safely(help, 0);
    }
    putchar('\n');
    print_members(schema, type, "", given);
    return CTL_DONE;
}
