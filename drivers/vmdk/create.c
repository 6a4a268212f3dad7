/* SPDX-License-Identifier: MIT */
/*
 * create.c - new images: monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, streamOptimized.
 *
 *     header | descriptor | redundant GD, its tables | GD, its tables | to the next whole grain      a sparse extent
 *
 * All grain tables are there from the beginning. The files of extents are made before the descriptor that names them;
 * after a failure those that were not there before are gone.
 */
#include "drivers/vmdk/vmdk.h"

#include <inttypes.h>
#include <unistd.h>

#define SPLIT_BYTES (UINT64_C(2) << 30)         /* of the disk in one extent of twoGbMax... */

enum { CHUNK_ENTRIES = 16384 };

typedef enum Subformat {
    MONOLITHIC_SPARSE, MONOLITHIC_FLAT, SPLIT_SPARSE, SPLIT_FLAT, STREAM_OPTIMIZED,
} Subformat;

static const char *const subformats[] = {
    "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized", NULL,
};

static const char *const adapters[] = { "ide", "buslogic", "lsilogic", "legacyESX", NULL };

const BlkOption vmdk_create_options[] = {
    { "size", BLK_OPTION_SIZE, "length of the disk", .max = BLK_MAX_LENGTH, .required = true },
    { "adapter_type", BLK_OPTION_ENUM, "virtual adapter: ide (default), buslogic, lsilogic or legacyESX",
      .values = adapters },
    { "backing_file", BLK_OPTION_STRING, "file name of a base image" },
    { "backing_fmt", BLK_OPTION_STRING, "format of the base image: must be vmdk" },
    { "compat6", BLK_OPTION_BOOL, "hardware version 6", "off" },
    { "hwversion", BLK_OPTION_STRING, "hardware version (default: 4)", "undefined" },
    { "toolsversion", BLK_OPTION_STRING, "version of the guest tools" },
    { "subformat", BLK_OPTION_ENUM, "monolithicSparse (default), monolithicFlat, twoGbMaxExtentSparse, "
      "twoGbMaxExtentFlat or streamOptimized", .values = subformats },
    { "zeroed_grain", BLK_OPTION_BOOL, "grains of zeroes take no space (zeroed-grain entries)" },
    { "footer", BLK_OPTION_BOOL, "streamOptimized: the file ends with a footer and an end-of-stream marker" },
    { 0 },
};

static Subformat subformat_of(const BlkOptions *options)
{
    return blk_options_has(options, "subformat")
           ? (Subformat)blk_options_enum(options, "subformat") : MONOLITHIC_SPARSE;
}

static bool is_flat(Subformat subformat)
{
    return subformat == MONOLITHIC_FLAT || subformat == SPLIT_FLAT;
}

static bool is_split(Subformat subformat)
{
    return subformat == SPLIT_SPARSE || subformat == SPLIT_FLAT;
}

bool vmdk_is_stream(const BlkOptions *options)
{
    return subformat_of(options) == STREAM_OPTIMIZED;
}

static uint64_t sectors_of(const BlkOptions *options)
{
    return (blk_options_uint(options, "size") + VMDK_SECTOR - 1) / VMDK_SECTOR;
}

static int check_text(const BlkOptions *options, const char *key, GError **error)
{
    const char *value = blk_options_string(options, key);

    return value && strpbrk(value, "\"\r\n")
           ? blk_error(error, -EINVAL, "%s cannot have quotes or line ends in it", key) : 0;
}

int vmdk_check_create(const BlkOptions *options, GError **error)
{
    static const char *const texts[] = { "backing_file", "hwversion", "toolsversion" };
    const Subformat subformat = subformat_of(options);
    const char *format = blk_options_string(options, "backing_fmt");
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < G_N_ELEMENTS(texts); i++) {
        ret = check_text(options, texts[i], error);
    }
    if (ret < 0) {
        return ret;
    }
    if (blk_options_bool(options, "compat6") && strcmp(blk_options_string(options, "hwversion"), "undefined") != 0) {
        return blk_error(error, -EINVAL, "compat6 cannot be enabled with hwversion set");
    }
    if (is_flat(subformat) && blk_options_has(options, "backing_file")) {
        return blk_error(error, -EINVAL, "Flat image can't have backing file");
    }
    if (is_flat(subformat) && blk_options_bool(options, "zeroed_grain")) {
        return blk_error(error, -EINVAL, "Flat image can't enable zeroed grain");
    }
    if (format && strcmp(format, "vmdk") != 0) {
        return blk_error(error, -EINVAL, "backing_file must be a vmdk image");
    }
    if (blk_options_bool(options, "footer") && subformat != STREAM_OPTIMIZED) {
        return blk_error(error, -EINVAL, "footer=on is for subformat=streamOptimized");
    }
    if (is_split(subformat) && blk_options_uint(options, "size") > SPLIT_BYTES * VMDK_MAX_EXTENTS) {
        return blk_error(error, -EFBIG, "A disk in extents of 2 GiB can have %" PRIu64 " bytes at most",
                         SPLIT_BYTES * VMDK_MAX_EXTENTS);
    }
    VmdkHeader header;
    vmdk_plan_header(options, sectors_of(options), true, &header);
    if (!is_flat(subformat) && !is_split(subformat) &&
        (header.gd_entries > VMDK_MAX_TABLES || header.overhead_sectors > VMDK_MAX_SECTOR)) {
        return blk_error(error, -EFBIG, "A sparse VMDK image can have %" PRIu64 " bytes at most",
                         VMDK_MAX_TABLES * VMDK_GT_ENTRIES * VMDK_GRAIN);
    }
    return 0;
}

int vmdk_check_compressed(const BlkOptions *options, GError **error)
{
    const Subformat subformat = subformat_of(options);

    return subformat == STREAM_OPTIMIZED
           ? 0 : blk_error(error, -ENOTSUP, "Compression not supported for this file format: %s images have no "
                           "compressed grains; add -o subformat=streamOptimized", subformats[subformat]);
}

/* ---- text ---- */

static const char *adapter_of(const BlkOptions *options)
{
    return blk_options_has(options, "adapter_type") ? blk_options_string(options, "adapter_type") : "ide";
}

static const char *hardware_version(const BlkOptions *options)
{
    const char *version = blk_options_string(options, "hwversion");

    return blk_options_bool(options, "compat6") ? "6" : strcmp(version, "undefined") == 0 ? "4" : version;
}

char *vmdk_descriptor_text(const BlkOptions *options, const char *lines, uint32_t parent_cid)
{
    const char *backing = blk_options_string(options, "backing_file");
    const char *tools = blk_options_string(options, "toolsversion");
    unsigned heads = strcmp(adapter_of(options), "ide") == 0 ? 16 : 255;
    g_autofree char *parent = backing ? g_strdup_printf("parentFileNameHint=\"%s\"\n", backing) : g_strdup("");

    return g_strdup_printf("# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\ncreateType=\"%s\"\n%s\n"
                           "# Extent description\n%s\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"%s\"\n"
                           "ddb.geometry.cylinders = \"%" PRIu64 "\"\nddb.geometry.heads = \"%u\"\n"
                           "ddb.geometry.sectors = \"63\"\nddb.adapterType = \"%s\"\nddb.toolsVersion = \"%s\"\n",
                           g_random_int() & INT32_MAX, parent_cid, subformats[subformat_of(options)], parent, lines,
                           hardware_version(options),
                           blk_options_uint(options, "size") / (UINT64_C(63) * heads * VMDK_SECTOR), heads,
                           adapter_of(options), tools ? tools : "2147483647");
}

/* ---- sparse extents ---- */

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

void vmdk_plan_header(const BlkOptions *options, uint64_t sectors, bool with_descriptor, VmdkHeader *h)
{
    bool stream = vmdk_is_stream(options), zeroed = blk_options_bool(options, "zeroed_grain");

    *h = (VmdkHeader){
        .kind = VMDK_HOSTED,
        .version = stream ? 3 : zeroed ? 2 : 1,
        .flags = VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT | (zeroed ? VMDK_FLAG_ZEROED : 0) |
                 (stream ? VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS : 0),
        .capacity_sectors = sectors,
        .grain_sectors = VMDK_GRAIN / VMDK_SECTOR,
        .descriptor_sector = with_descriptor ? VMDK_DESCRIPTOR_SECTOR : 0,
        .descriptor_sectors = with_descriptor ? VMDK_DESCRIPTOR_SECTORS : 0,
        .gt_entries = VMDK_GT_ENTRIES,
        .rgd_sector = VMDK_DESCRIPTOR_SECTOR + VMDK_DESCRIPTOR_SECTORS,
        .compression = stream,
    };
    h->gd_entries = vmdk_count_tables(h);
    uint64_t tables = round_up(h->gd_entries * 4, VMDK_SECTOR) / VMDK_SECTOR +
                      h->gd_entries * (VMDK_GT_ENTRIES * 4 / VMDK_SECTOR);
    h->gd_sector = h->rgd_sector + tables;
    h->overhead_sectors = round_up(h->gd_sector + tables, h->grain_sectors);
}

/* A directory, whose tables follow it. */
static int co_write_directory(BlkNode *file, uint64_t gd_sector, uint64_t entries)
{
    uint64_t table = gd_sector + round_up(entries * 4, VMDK_SECTOR) / VMDK_SECTOR;
    g_autofree uint8_t *chunk = g_malloc(CHUNK_ENTRIES * 4);
    int ret = 0;

    for (uint64_t first = 0; ret == 0 && first < entries; first += CHUNK_ENTRIES) {
        uint64_t count = MIN(entries - first, CHUNK_ENTRIES);
        for (uint64_t i = 0; i < count; i++, table += VMDK_GT_ENTRIES * 4 / VMDK_SECTOR) {
            blk_put_le32(chunk + i * 4, (uint32_t)table);
        }
        ret = blk_co_pwrite(file, gd_sector * VMDK_SECTOR + first * 4, count * 4, chunk, 0);
    }
    return ret;
}

/* The header comes last: a file without is no extent. */
static int co_write_sparse(BlkNode *file, const VmdkHeader *h, const char *descriptor, bool footer, GError **error)
{
    uint8_t sector[VMDK_SECTOR], tail[VMDK_FOOTER_BYTES];
    int ret = blk_co_truncate(file, h->overhead_sectors * VMDK_SECTOR, BLK_PREALLOC_OFF, error);

    if (ret < 0) {
        return ret;
    }
    ret = co_write_directory(file, h->rgd_sector, h->gd_entries);
    if (ret == 0) {
        ret = co_write_directory(file, h->gd_sector, h->gd_entries);
    }
    if (ret == 0 && descriptor) {
        ret = blk_co_pwrite(file, VMDK_DESCRIPTOR_SECTOR * VMDK_SECTOR, strlen(descriptor), descriptor, 0);
    }
    if (ret == 0 && footer) {
        vmdk_footer_build(h, tail);
        ret = blk_co_pwrite(file, h->overhead_sectors * VMDK_SECTOR, sizeof(tail), tail, 0);
    }
    if (ret == 0) {
        ret = blk_co_flush(file);
    }
    if (ret == 0) {
        vmdk_header_build(h, sector);
        ret = blk_co_pwrite(file, 0, sizeof(sector), sector, 0);
    }
    return ret < 0 ? blk_error_errno(error, ret, "Could not write the tables of '%s'", blk_node_filename(file)) : 0;
}

/* ---- files of extents ---- */

typedef struct Creation {
    BlkContext *ctx;
    BlkNode *file;
    const BlkOptions *options;
    Subformat subformat;
    GPtrArray *made;            /* names of files that were not there before */
    GString *lines;
} Creation;

/* "disk.vmdk", number 3 of a split flat image: "disk-f003.vmdk" */
static char *extent_name(const Creation *c, unsigned number)
{
    g_autofree char *base = g_path_get_basename(blk_node_filename(c->file));
    const char *dot = strrchr(base, '.');
    int stem = (int)(dot ? dot - base : (ptrdiff_t)strlen(base));

    if (c->subformat == MONOLITHIC_FLAT) {
        return g_strdup_printf("%.*s-flat%s", stem, base, dot ? dot : "");
    }
    return g_strdup_printf("%.*s-%c%03u%s", stem, base, c->subformat == SPLIT_FLAT ? 'f' : 's', number, dot ? dot : "");
}

static int co_fill_sparse(const Creation *c, const char *path, uint64_t sectors, GError **error)
{
    g_autoptr(JsonObject) tree = blk_options_parse_filename(c->ctx, path, "file", error);
    BlkNode *node = tree ? blk_co_open(c->ctx, tree, error) : NULL;
    unsigned perm = BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE;
    BlkChild *user = node ? blk_co_attach(node, "create", perm, 0, error) : NULL;
    VmdkHeader header;

    blk_co_unref(node);
    if (!user) {
        return -EIO;
    }
    vmdk_plan_header(c->options, sectors, false, &header);
    int ret = co_write_sparse(blk_child_node(user), &header, NULL, false, error);
    if (ret == 0) {
        ret = blk_co_flush(blk_child_node(user));
        ret = ret < 0 ? blk_error_errno(error, ret, "Could not flush '%s'", path) : 0;
    }
    blk_co_detach(user);
    return ret;
}

static int co_create_extent(Creation *c, unsigned number, uint64_t sectors, GError **error)
{
    g_autofree char *name = extent_name(c, number);
    g_autofree char *path = blk_node_resolve_name(c->file, name, error);
    g_autoptr(JsonObject) options = json_object_new();

    if (!path || strpbrk(name, "\"\r\n")) {
        return path
               ? blk_error(error, -EINVAL, "The descriptor of a VMDK image cannot hold the name '%s'", name) : -EINVAL;
    }
    if (blk_node_is_in_file(c->file, path)) {
        return blk_error(error, -EINVAL, "The extent '%s' is the image itself", path);
    }
    bool there = access(path, F_OK) == 0;
    json_object_set_int_member(options, "size", is_flat(c->subformat) ? (gint64)(sectors * VMDK_SECTOR) : 0);
    int ret = blk_co_create(c->ctx, path, "raw", options, error);
    if (ret < 0) {
        return ret;
    }
    if (!there) {
        g_ptr_array_add(c->made, g_strdup(path));
    }
    g_string_append_printf(c->lines, "RW %" PRIu64 " %s \"%s\"%s\n", sectors, is_flat(c->subformat) ? "FLAT" : "SPARSE",
                           name, is_flat(c->subformat) ? " 0" : "");
    return is_flat(c->subformat) ? 0 : co_fill_sparse(c, path, sectors, error);
}

static void co_take_back(const Creation *c)
{
    const BlkDriver *protocol = blk_driver_find(c->ctx, blk_node_driver_name(c->file));

    for (unsigned i = 0; protocol && protocol->co_delete_file && i < c->made->len; i++) {
        protocol->co_delete_file(c->ctx, g_ptr_array_index(c->made, i));    /* the first error is what matters */
    }
}

static int co_create_extents(Creation *c, GError **error)
{
    uint64_t sectors = sectors_of(c->options);
    uint64_t most = is_split(c->subformat) ? SPLIT_BYTES / VMDK_SECTOR : MAX(sectors, 1);
    unsigned number = 1;
    uint64_t done = 0;
    int ret = 0;

    do {
        uint64_t count = MIN(most, sectors - done);
        ret = co_create_extent(c, number++, count, error);
        done += count;
    } while (ret == 0 && done < sectors);
    return ret;
}

/* ---- images ---- */

/* What the image is made over, and its content ID. */
static int co_look_at_parent(BlkNode *file, const BlkOptions *options, uint32_t *cid, GError **error)
{
    const char *backing = blk_options_string(options, "backing_file");

    *cid = VMDK_NO_CID;
    return backing ? vmdk_co_read_cid(file, backing, cid, error) : 0;
}

static int co_create_monolithic(const Creation *c, uint32_t parent_cid, GError **error)
{
    g_autofree char *name = g_path_get_basename(blk_node_filename(c->file));
    g_autofree char *line = g_strdup_printf("RW %" PRIu64 " SPARSE \"%s\"\n", sectors_of(c->options), name);
    g_autofree char *text = vmdk_descriptor_text(c->options, line, parent_cid);
    VmdkHeader header;

    vmdk_plan_header(c->options, sectors_of(c->options), true, &header);
    if (strpbrk(name, "\"\r\n") || strlen(text) > VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR) {
        return blk_error(error, -EINVAL, "The names do not fit in the descriptor of the image");
    }
    return co_write_sparse(c->file, &header, text, blk_options_bool(c->options, "footer"), error);
}

static int co_create_of_files(Creation *c, uint32_t parent_cid, GError **error)
{
    int ret = co_create_extents(c, error);

    if (ret == 0) {
        g_autofree char *text = vmdk_descriptor_text(c->options, c->lines->str, parent_cid);
        ret = blk_co_pwrite(c->file, 0, strlen(text), text, 0);
        ret = ret < 0 ? blk_error_errno(error, ret, "Could not write the descriptor") : 0;
    }
    if (ret < 0) {
        co_take_back(c);
    }
    return ret;
}

int vmdk_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error)
{
    g_autoptr(GPtrArray) made = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) lines = g_string_new(NULL);
    Creation creation = {
        .ctx = ctx, .file = file, .options = options, .subformat = subformat_of(options), .made = made, .lines = lines,
    };
    uint32_t parent_cid;
    int ret = co_look_at_parent(file, options, &parent_cid, error);

    if (ret < 0) {
        return ret;
    }
    return is_flat(creation.subformat) || is_split(creation.subformat)
           ? co_create_of_files(&creation, parent_cid, error) : co_create_monolithic(&creation, parent_cid, error);
}
