/* SPDX-License-Identifier: MIT */
/*
 * plist.c - the property list of a dmg image: XML, of which a few elements matter.
 *
 *     <plist><dict>
 *         <key>resource-fork</key> <dict>
 *             <key>blkx</key> <array>
 *                 <dict> ... <key>Data</key> <data>base64 of a block</data> ... </dict> ...
 *
 * GLib's parser reads the XML: it knows no external entities, and cuts nothing short. What else is in the list is
 * passed over.
 */
#include "drivers/dmg/dmg.h"

#include <string.h>

enum { MAX_DEPTH = 16 };

/* A dict or an array that is open. */
typedef struct Level {
    bool array;
    char *key;                      /* (nullable): the last one of a dict */
} Level;

typedef struct Plist {
    Level levels[MAX_DEPTH];
    unsigned depth;
    GString *text;                  /* of the element that is open; NULL: it has none that matters */
    GPtrArray *blocks;
} Plist;

static bool key_is(const Plist *p, unsigned level, const char *key)
{
    return !p->levels[level].array && g_strcmp0(p->levels[level].key, key) == 0;
}

static bool at_block(const Plist *p)
{
    return p->depth == 4 && key_is(p, 0, "resource-fork") && key_is(p, 1, "blkx") && p->levels[2].array &&
           key_is(p, 3, "Data");
}

static void start_element(GMarkupParseContext *context, const char *name, const char **attributes, const char **values,
                          gpointer opaque, GError **error)
{
    Plist *p = opaque;
    bool array = g_str_equal(name, "array");

    if (array || g_str_equal(name, "dict")) {
        if (p->depth == MAX_DEPTH) {
            g_set_error(error, G_MARKUP_ERROR, G_MARKUP_ERROR_INVALID_CONTENT, "it is nested too deeply");
            return;
        }
        p->levels[p->depth++] = (Level){ .array = array };
    } else if (!p->text && p->depth > 0 && (g_str_equal(name, "key") || (g_str_equal(name, "data") && at_block(p)))) {
        p->text = g_string_new(NULL);
    }
}

static void text(GMarkupParseContext *context, const char *text, gsize bytes, gpointer opaque, GError **error)
{
    Plist *p = opaque;

    if (p->text) {
        g_string_append_len(p->text, text, (gssize)bytes);
    }
}

static void end_text(Plist *p, bool key)
{
    char *string = g_string_free(g_steal_pointer(&p->text), FALSE);

    if (key) {
        g_free(p->levels[p->depth - 1].key);
        p->levels[p->depth - 1].key = string;
    } else {
        gsize bytes = 0;
        guchar *data = *string ? g_base64_decode_inplace(string, &bytes) : (guchar *)string;

        g_ptr_array_add(p->blocks, g_byte_array_new_take(data, bytes));
    }
}

static void end_element(GMarkupParseContext *context, const char *name, gpointer opaque, GError **error)
{
    Plist *p = opaque;
    bool key = g_str_equal(name, "key");

    if (g_str_equal(name, "array") || g_str_equal(name, "dict")) {
        g_clear_pointer(&p->levels[--p->depth].key, g_free);
    } else if (p->text && (key || g_str_equal(name, "data"))) {
        end_text(p, key);
    }
}

int dmg_plist_parse(const char *xml, size_t bytes, GPtrArray **blocks, GError **error)
{
    static const GMarkupParser parser = { .start_element = start_element, .end_element = end_element, .text = text };
    g_autoptr(GError) local = NULL;
    Plist p = { .blocks = g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref) };
    g_autoptr(GMarkupParseContext) context = g_markup_parse_context_new(&parser, 0, &p, NULL);
    bool ok = g_markup_parse_context_parse(context, xml, (gssize)strnlen(xml, bytes), &local) &&
              g_markup_parse_context_end_parse(context, &local);

    while (p.depth > 0) {
        g_free(p.levels[--p.depth].key);
    }
    if (p.text) {
        g_string_free(p.text, TRUE);
    }
    if (!ok) {
        g_ptr_array_unref(p.blocks);
        return blk_error(error, -EINVAL, "The property list of the dmg image is damaged: %s", local->message);
    }
    *blocks = p.blocks;
    return 0;
}
