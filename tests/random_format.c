/* SPDX-License-Identifier: MIT */
/*
 * random_format.c - properties of random images in formats other than qcow2: they have neither compressed clusters that can
 * be written again nor snapshots nor bitmaps, so that requests and reopening are all that happens to them.
 */
#include "random_image.h"

typedef struct Format {
    const char *name;
    uint32_t cluster_size;
    bool checks;                /* our check and the peer's know it */
    void (*pick)(Rng *rng, ImageConfig *config);
} Format;

static void pick_vmdk(Rng *rng, ImageConfig *config)
{
    static const char *const subformats[] = { "monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized",
                                              "monolithicFlat", "twoGbMaxExtentFlat" };
    unsigned n = rng_below(rng, G_N_ELEMENTS(subformats));
    bool sparse = n < 3;

    json_object_set_string_member(config->options, "subformat", subformats[n]);
    config->once = n == 2;
    if (config->once && rng_percent(rng, 50)) {
        json_object_set_boolean_member(config->options, "footer", true);
    }
    if ((n == 1 || n == 4) && rng_percent(rng, 70)) {
        config->extents = rng_range(rng, 2, 4);
    }
    if (sparse && rng_percent(rng, 50)) {
        json_object_set_boolean_member(config->options, "zeroed_grain", true);
    }
    if (sparse && rng_percent(rng, 40)) {
        config->backing_format = g_strdup("vmdk");
    }
}

static void pick_vdi(Rng *rng, ImageConfig *config)
{
    json_object_set_boolean_member(config->options, "static", rng_percent(rng, 30));
}

static void pick_vpc(Rng *rng, ImageConfig *config)
{
    json_object_set_string_member(config->options, "subformat", rng_percent(rng, 25) ? "fixed" : "dynamic");
    json_object_set_boolean_member(config->options, "force_size", rng_percent(rng, 50));
}

static void pick_vhdx(Rng *rng, ImageConfig *config)
{
    json_object_set_string_member(config->options, "subformat", rng_percent(rng, 25) ? "fixed" : "dynamic");
    json_object_set_int_member(config->options, "block_size", rng_percent(rng, 70) ? 1 << 20 : 2 << 20);
    json_object_set_int_member(config->options, "log_size", rng_percent(rng, 70) ? 1 << 20 : 3 << 20);
    json_object_set_boolean_member(config->options, "block_state_zero", rng_percent(rng, 70));
}

static const Format formats[] = {
    { "vmdk", 64 << 10, true, pick_vmdk },
    { "vdi", 1 << 20, true, pick_vdi },
    { "vpc", 2 << 20, false, pick_vpc },
    { "vhdx", 1 << 20, true, pick_vhdx },
};

static const Format *find_format(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (g_str_equal(formats[i].name, name)) {
            return &formats[i];
        }
    }
    return NULL;
}

bool format_is_known(const char *name)
{
    return find_format(name) != NULL;
}

void format_pick_config(Rng *rng, const char *name, ImageConfig *config)
{
    const Format *format = find_format(name);
    uint64_t most = format->cluster_size > 65536 ? 6 << 20 : 2 << 20;

    config->format = format->name;
    config->checks = format->checks;
    config->cluster_size = format->cluster_size;
    config->size = rng_range(rng, most / 4, most) / SECTOR_SIZE * SECTOR_SIZE;
    config->most = 2 * most;            /* some formats round the size up */
    config->options = json_object_new();
    config->no_flush = rng_percent(rng, 85);
    config->unmap = rng_percent(rng, 70);
    format->pick(rng, config);
    config->backing_size = config->size;
}

/* ---- vmdk: several extents ---- */

/* An image of its own, of which the file and the line that names it are taken. (transfer full): its descriptor; NULL: noted. */
static char *co_make_part(Sequence *seq, char letter, uint64_t bytes, bool flat)
{
    const ImageConfig *config = &seq->config;
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *name = g_strdup_printf("image-%c.vmdk", letter), *path = g_build_filename(seq->dir, name, NULL);
    g_autoptr(GError) error = NULL;
    char *text = NULL;

    json_object_set_int_member(options, "size", (gint64)bytes);
    json_object_set_string_member(options, "subformat", flat ? "twoGbMaxExtentFlat" : "twoGbMaxExtentSparse");
    if (!flat && json_object_has_member(config->options, "zeroed_grain")) {
        json_object_set_boolean_member(options, "zeroed_grain", true);
    }
    if (config->backing_format) {
        json_object_set_string_member(options, "backing_file", BACKING_NAME);
        json_object_set_string_member(options, "backing_fmt", config->backing_format);
    }
    if (blk_co_create(seq->ctx, path, "vmdk", options, &error) < 0 || !g_file_get_contents(path, &text, NULL, &error)) {
        sequence_fail(seq, "create an extent: %s", error->message);
        return NULL;
    }
    return text;
}

int format_co_create_extents(Sequence *seq)
{
    const ImageConfig *config = &seq->config;
    g_autofree char *path = g_build_filename(seq->dir, seq->image, NULL), *first = NULL;
    g_autoptr(GString) lines = g_string_new(NULL), all = g_string_new(NULL);
    uint64_t left = config->size;

    for (unsigned i = 0; i < config->extents; i++) {
        uint64_t grains = left / config->cluster_size / (config->extents - i);
        uint64_t bytes = i + 1 == config->extents ? left : rng_range(&seq->rng, 1, MAX(grains, 1)) * config->cluster_size;
        bool mixed = !config->backing_format && rng_percent(&seq->rng, 30);
        g_autofree char *text = co_make_part(seq, (char)('a' + i), bytes, mixed);
        const char *line = text ? strstr(text, "\nRW ") : NULL;

        if (!line) {
            return -EIO;
        }
        g_string_append_len(lines, line + 1, strchr(line + 1, '\n') - line);
        if (!first) {
            first = g_steal_pointer(&text);
        }
        left -= bytes;
    }
    char *own = strstr(first, "\nRW ") + 1;
    g_string_append_len(all, first, own - first);
    g_string_append(all, lines->str);
    g_string_append(all, strchr(own, '\n') + 1);
    sequence_log(seq, "%s", lines->str);
    return g_file_set_contents(path, all->str, -1, NULL) ? 0 : sequence_fail(seq, "cannot write the descriptor");
}

/* ---- vmdk: clusters that are written once ---- */

static int co_write_once(Sequence *seq, uint64_t cluster, bool zeroes)
{
    const ImageConfig *config = &seq->config;
    uint64_t offset = cluster * config->cluster_size, bytes = MIN(config->cluster_size, config->size - offset);
    unsigned flags = rng_percent(&seq->rng, 50) ? BLK_REQ_COMPRESSED : 0;
    uint8_t *buf = blk_buffer_try_alloc(NULL, config->cluster_size);
    bool again = seq->written[cluster];
    int ret;

    rng_fill(&seq->rng, buf, bytes);
    buf[0] |= 1;                /* nothing is stored of zeroes */
    ret = zeroes ? blk_co_pwrite_zeroes(sequence_node(seq), offset, bytes, 0)
                 : blk_co_pwrite(sequence_node(seq), offset, bytes, buf, flags);
    sequence_log(seq, " %s cluster %" PRIu64 ": %d", zeroes ? "zero" : "write", cluster, ret);
    if (ret == 0 && zeroes) {
        memset(seq->model + offset, 0, bytes);
    } else if (ret == 0) {
        memcpy(seq->model + offset, buf, bytes);
        seq->written[cluster] = 1;
    }
    blk_buffer_free(buf);
    return ret == (again ? -EIO : 0) ? 0 : sequence_fail(seq, "a write %s ends with %d", again ? "again" : "at first", ret);
}

int format_co_once(Sequence *seq)
{
    const ImageConfig *config = &seq->config;
    uint64_t clusters = (config->size + config->cluster_size - 1) / config->cluster_size;
    uint64_t cluster = rng_below(&seq->rng, clusters), offset = rng_below(&seq->rng, config->size), bytes;
    bool can_zero = !config->backing_format || json_object_has_member(config->options, "zeroed_grain");
    unsigned n = rng_below(&seq->rng, 100);

    if (n < 45) {
        return co_write_once(seq, cluster, false);
    }
    if (n < 60 && can_zero) {
        return co_write_once(seq, cluster, true);
    }
    if (n < 65) {
        int ret = blk_co_flush(sequence_node(seq));
        return ret < 0 ? sequence_fail(seq, "flush: %s", g_strerror(-ret)) : 0;
    }
    bytes = rng_range(&seq->rng, 1, 200000);
    return sequence_co_compare(seq, offset, MIN(bytes, config->size - offset));
}
