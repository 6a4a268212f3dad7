/* SPDX-License-Identifier: MIT */
/*
 * descriptor.c - the descriptor of an image: lines of text ("Virtual Disk Format", section "The Descriptor File").
 *
 *     # Disk DescriptorFile
 *     version=1
 *     CID=2f5dee46
 *     parentCID=ffffffff
 *     createType="twoGbMaxExtentSparse"
 *     RW 4194304 SPARSE "disk-s001.vmdk"           access, sectors, type, file, where in the file (sectors)
 *     ddb.adapterType = "ide"
 *
 * Limitations: names are bytes, whatever "encoding" says; keys that mean nothing to us are kept, not read.
 */
#include "drivers/vmdk/vmdk.h"

#include <string.h>

static const struct {
    const char *type;
    VmdkKind kind;
} types[] = {
    { "FLAT", VMDK_FLAT }, { "VMFS", VMDK_FLAT }, { "ZERO", VMDK_ZERO }, { "SPARSE", VMDK_HOSTED },
    { "VMFSSPARSE", VMDK_COWD }, { "SESPARSE", VMDK_SESPARSE },
};

static const char *const accesses[] = { "RW", "RDONLY", "NOACCESS" };

/* ---- lines ---- */

static void line_clear(gpointer data)
{
    g_free(((VmdkExtentLine *)data)->name);
}

void vmdk_descriptor_clear(VmdkDescriptor *d)
{
    g_free(d->text);
    g_free(d->create_type);
    g_free(d->parent_name);
    g_clear_pointer(&d->extents, g_array_unref);
    *d = (VmdkDescriptor){ 0 };
}

/* Takes a word off the front of *rest; NULL: there is none. The word is ended in place. */
static char *take_word(char **rest)
{
    char *word = *rest + strspn(*rest, " \t");
    size_t length = strcspn(word, " \t");

    if (length == 0) {
        return NULL;
    }
    *rest = word + length;
    if (**rest) {
        *(*rest)++ = '\0';
    }
    return word;
}

/* The same for a word in quotes. */
static char *take_quoted(char **rest)
{
    char *word = *rest + strspn(*rest, " \t");
    char *end = *word == '"' ? strchr(word + 1, '"') : NULL;

    if (!end) {
        return NULL;
    }
    *end = '\0';
    *rest = end + 1;
    return word + 1;
}

static bool take_number(char **rest, uint64_t *number)
{
    const char *word = take_word(rest);

    return word && g_ascii_string_to_unsigned(word, 10, 0, BLK_MAX_LENGTH / VMDK_SECTOR, number, NULL);
}

static bool set_type(VmdkExtentLine *extent, const char *word)
{
    for (size_t i = 0; word && i < G_N_ELEMENTS(types); i++) {
        if (strcmp(types[i].type, word) == 0) {
            extent->kind = types[i].kind;
            g_strlcpy(extent->type, word, sizeof(extent->type));
            return true;
        }
    }
    return false;
}

static int add_extent(VmdkDescriptor *d, VmdkAccess access, const char *line, GError **error)
{
    g_autofree char *copy = g_strdup(line);
    char *rest = copy, *type;
    VmdkExtentLine extent = { .access = access };
    const char *name;

    take_word(&rest);
    if (d->extents->len >= VMDK_MAX_EXTENTS) {
        return blk_error(error, -EFBIG, "The image has more than %d extents", VMDK_MAX_EXTENTS);
    }
    if (!take_number(&rest, &extent.sectors) || !(type = take_word(&rest))) {
        return blk_error(error, -EINVAL, "Invalid extent line: %s", line);
    }
    if (!set_type(&extent, type)) {
        return blk_error(error, -ENOTSUP, "Unsupported extent type '%s': it may be FLAT, VMFS, ZERO, SPARSE, "
                         "VMFSSPARSE or SESPARSE", type);
    }
    if (extent.kind != VMDK_ZERO) {
        name = take_quoted(&rest);
        rest += strspn(rest, " \t");
        if (!name || *name == '\0' || (*rest && !take_number(&rest, &extent.offset_sectors))) {
            return blk_error(error, -EINVAL, "Invalid extent line: %s", line);
        }
        extent.name = g_strdup(name);
    }
    g_array_append_val(d->extents, extent);
    return 0;
}

/* What stands behind '=', without quotes. */
static char *value_of(const char *text)
{
    g_autofree char *value = g_strstrip(g_strdup(text));
    size_t length = strlen(value);

    return length >= 2 && value[0] == '"' && value[length - 1] == '"' ? g_strndup(value + 1, length - 2)
                                                                      : g_steal_pointer(&value);
}

static int parse_cid(const char *value, uint32_t *cid, GError **error)
{
    uint64_t number;

    if (strlen(value) > VMDK_CID_DIGITS || !g_ascii_string_to_unsigned(value, 16, 0, UINT32_MAX, &number, NULL)) {
        return blk_error(error, -EINVAL, "'%s' in the descriptor is no content ID: it has up to 8 hexadecimal digits",
                         value);
    }
    *cid = (uint32_t)number;
    return 0;
}

/* @at: of @line in the text */
static int take_key(VmdkDescriptor *d, const char *line, size_t at, GError **error)
{
    const char *equals = strchr(line, '='), *digits = equals + 1 + strspn(equals + 1, " \t");
    g_autofree char *key = g_strstrip(g_strndup(line, (size_t)(equals - line)));
    g_autofree char *value = value_of(equals + 1);

    if (strcmp(key, "CID") == 0) {
        d->cid_digits = (unsigned)strspn(digits, "0123456789abcdefABCDEF");
        d->cid_at = at + (size_t)(digits - line);
        return parse_cid(value, &d->cid, error);
    }
    if (strcmp(key, "parentCID") == 0) {
        return parse_cid(value, &d->parent_cid, error);
    }
    if (strcmp(key, "createType") == 0) {
        g_free(d->create_type);
        d->create_type = g_steal_pointer(&value);
    } else if (strcmp(key, "parentFileNameHint") == 0 && *value) {
        g_free(d->parent_name);
        d->parent_name = g_steal_pointer(&value);
    }
    return 0;
}

static int take_line(VmdkDescriptor *d, const char *line, size_t at, GError **error)
{
    g_autofree char *stripped = g_strstrip(g_strdup(line));
    size_t word = strcspn(stripped, " \t");

    if (*stripped == '#' || *stripped == '\0') {
        return 0;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(accesses); i++) {
        if (strlen(accesses[i]) == word && strncmp(stripped, accesses[i], word) == 0) {
            return add_extent(d, (VmdkAccess)i, stripped, error);
        }
    }
    return strchr(line, '=') ? take_key(d, line, at, error) : 0;
}

int vmdk_descriptor_parse(VmdkDescriptor *d, char *text, GError **error)
{
    size_t length;
    int ret = 0;

    d->text = text;
    d->parent_cid = VMDK_NO_CID;
    d->create_type = g_strdup("");
    d->extents = g_array_new(FALSE, FALSE, sizeof(VmdkExtentLine));
    g_array_set_clear_func(d->extents, line_clear);
    for (const char *pos = text; ret == 0 && *pos; pos += length + strspn(pos + length, "\r\n")) {
        length = strcspn(pos, "\r\n");
        g_autofree char *line = g_strndup(pos, length);
        ret = take_line(d, line, (size_t)(pos - text), error);
    }
    return ret;
}

/* The first line that says something says the version. */
bool vmdk_descriptor_probe(const uint8_t *head, size_t bytes)
{
    g_autofree char *text = g_strndup((const char *)head, bytes);
    const char *pos = text;

    while (*pos == '#' || *pos == '\n' || *pos == '\r' || *pos == ' ' || *pos == '\t') {
        pos += *pos == '#' ? strcspn(pos, "\n") : 1;
    }
    return pos != text && strncmp(pos, "version=", 8) == 0 && pos[8] >= '1' && pos[8] <= '3' &&
           (pos[9] == '\n' || pos[9] == '\r');
}

static bool is_key(const char *line, const char *key)
{
    line += strspn(line, " \t");
    return g_str_has_prefix(line, key) && line[strlen(key) + strspn(line + strlen(key), " \t")] == '=';
}

char *vmdk_descriptor_with_parent(const VmdkDescriptor *d, const char *name, uint32_t cid)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_auto(GStrv) lines = g_strsplit(d->text, "\n", -1);
    g_autofree char *hint = name ? g_strdup_printf("parentFileNameHint=\"%s\"\n", name) : g_strdup("");

    for (char **line = lines; *line; line++) {
        if (is_key(*line, "parentCID")) {
            g_string_append_printf(text, "parentCID=%08x\n", cid);
        } else if (is_key(*line, "createType")) {
            g_string_append_printf(text, "%s\n%s", *line, hint);
        } else if (!is_key(*line, "parentFileNameHint")) {
            g_string_append_printf(text, "%s%s", *line, line[1] ? "\n" : "");
        }
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}
