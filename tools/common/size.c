/* SPDX-License-Identifier: MIT */
/*
 * size.c - sizes as the user writes and reads them.
 */
#include "common/tool.h"

/* Whether @text is written like a size, however large. */
static bool looks_like_size(const char *text)
{
    bool fraction;

    text += strspn(text, "0123456789");
    text += *text == '.';
    fraction = text[0] != '\0' && g_ascii_isdigit(text[0]);
    text += strspn(text, "0123456789");
    return text[0] == '\0' ? !fraction : strchr(fraction ? "kKmMgGtTpPeE" : "bBkKmMgGtTpPeE", text[0]) && text[1] == '\0';
}

int tool_parse_size(const char *text, uint64_t *bytes)
{
    uint64_t value = UINT64_MAX;

    while (g_ascii_isspace(*text)) {
        text++;
    }
    if (*text == '+') {
        text++;
    }
    if (!g_ascii_isdigit(*text)) {
        return -EINVAL;
    }
    if (!blk_parse_size(text, &value) && !looks_like_size(text)) {
        return -EINVAL;
    }
    if (value > INT64_MAX) {
        return -ERANGE;
    }
    *bytes = value;
    return 0;
}

char *tool_size_text(uint64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = bytes;
    unsigned unit = 0;

    /* From 1000 on, not 1024, so that three digits are enough. */
    while (value >= 1000 && unit + 1 < G_N_ELEMENTS(units)) {
        value /= 1024;
        unit++;
    }
    return g_strdup_printf("%.3g %s", value, units[unit]);
}
