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
    static const char *const subformats[] = { "monolithicSparse", "twoGbMaxExtentSparse", "monolithicSparse",
                                              "monolithicFlat", "twoGbMaxExtentFlat" };
    unsigned n = rng_below(rng, G_N_ELEMENTS(subformats));
    bool sparse = n < 3;

    json_object_set_string_member(config->options, "subformat", subformats[n]);
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
