/* SPDX-License-Identifier: MIT */
/*
 * report.c - numbers in and words out: arguments, statistics, dumps and pattern verification.
 */
#include "io/io.h"

#include <math.h>
#include <time.h>

#define NS_PER_S 1000000000LL

char *io_size_text(double bytes)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    unsigned unit = 0;
    g_autofree char *number = NULL;

    while (bytes >= 1024 && unit + 1 < G_N_ELEMENTS(units)) {
        bytes /= 1024;
        unit++;
    }
    number = unit ? g_strdup_printf("%.3f", bytes) : g_strdup_printf("%f", bytes);
    if (fmod(bytes, 1) == 0 || g_str_has_suffix(number, ".000")) {
        *strchr(number, '.') = '\0';
    }
    return g_strdup_printf("%s %s", number, units[unit]);
}

int64_t io_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static char *time_text(int64_t ns, bool machine)
{
    int64_t s = ns / NS_PER_S;
    int hundredths = ns % NS_PER_S / 10000000;

    if (machine || s >= 60) {
        return g_strdup_printf("%" PRId64 ":%02d:%02d.%02d", s / 3600, (int)(s / 60 % 60), (int)(s % 60), hundredths);
    }
    return g_strdup_printf("%02d.%02d sec", (int)s, hundredths);
}

void io_report(const char *verb, int64_t start_ns, uint64_t offset, uint64_t bytes, uint64_t done, bool machine)
{
    int64_t ns = MAX(io_clock_ns() - start_ns, 1);
    double seconds = (double)ns / NS_PER_S;
    g_autofree char *time = time_text(ns, machine);

    if (machine) {
        printf("%" PRIu64 ",%d,%s,%.3f,%.3f\n", done, 1, time, done / seconds, 1 / seconds);
    } else {
        g_autofree char *size = io_size_text(done);
        g_autofree char *rate = io_size_text(done / seconds);

        printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", verb, done, bytes, offset);
        printf("%s, %d ops; %s (%s/sec and %.4f ops/sec)\n", size, 1, time, rate, 1 / seconds);
    }
}

void io_dump(const uint8_t *data, size_t bytes, uint64_t offset)
{
    for (size_t line = 0; line < bytes; line += 16) {
        size_t n = MIN(bytes - line, 16);

        printf("%08" PRIx64 ":  ", offset + line);
        for (size_t i = 0; i < n; i++) {
            printf("%02x ", data[line + i]);
        }
        putchar(' ');
        for (size_t i = 0; i < n; i++) {
            putchar(g_ascii_isalnum(data[line + i]) ? data[line + i] : '.');
        }
        putchar('\n');
    }
}

int io_parse_number(const char *text, uint64_t *number)
{
    int ret = tool_parse_size(text, number);

    if (ret == -ERANGE) {
        printf("Parsing error: argument too large -- %s\n", text);
    } else if (ret < 0) {
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n", text);
    }
    return ret;
}

int io_parse_length(const char *text, uint64_t *bytes)
{
    int ret = io_parse_number(text, bytes);

    if (ret == 0 && *bytes > IO_MAX_BYTES) {
        printf("length cannot exceed %" PRIu64 ", given %s\n", IO_MAX_BYTES, text);
        ret = -EINVAL;
    }
    return ret;
}

int io_parse_pattern(const char *text, int *pattern)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0' || value < 0 || value > UINT8_MAX) {
        printf("%s is not a valid pattern byte\n", text);
        return -EINVAL;
    }
    *pattern = value;
    return 0;
}

int io_verify(const uint8_t *data, int pattern, uint64_t skip, uint64_t bytes, uint64_t offset)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (data[skip + i] != pattern) {
            printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n", offset + skip, bytes);
            return -EINVAL;
        }
    }
    return 0;
}
