/* SPDX-License-Identifier: MIT */
/*
 * test_notice.c - notices reach the handler of their own context, whole, and belong to nobody afterwards.
 */
#include "test.h"

typedef struct Heard {
    BlkContext *ctx;
    unsigned count;
    char *name;
    JsonObject *data;       /* (nullable): a reference */
} Heard;

static void hear(BlkContext *ctx, const char *name, JsonObject *data, void *opaque)
{
    Heard *heard = opaque;

    heard->ctx = ctx;
    heard->count++;
    g_free(heard->name);
    heard->name = g_strdup(name);
    g_clear_pointer(&heard->data, json_object_unref);
    heard->data = data ? json_object_ref(data) : NULL;
}

static void heard_clear(Heard *heard)
{
    g_free(heard->name);
    g_clear_pointer(&heard->data, json_object_unref);
}

static JsonObject *make_data(const char *id)
{
    JsonObject *data = json_object_new();

    json_object_set_string_member(data, "id", id);
    return data;
}

START_TEST(test_heard)
{
    g_autoptr(BlkContext) one = blk_context_new(NULL, NULL), two = blk_context_new(NULL, NULL);
    Heard by_one = { NULL }, by_two = { NULL };

    blk_context_set_notice_handler(one, hear, &by_one);
    blk_context_set_notice_handler(two, hear, &by_two);
    blk_notify(one, "JOB_STATUS_CHANGE", make_data("j"));
    ck_assert_uint_eq(by_one.count, 1);
    ck_assert_ptr_eq(by_one.ctx, one);
    ck_assert_str_eq(by_one.name, "JOB_STATUS_CHANGE");
    /* Who keeps the data has it longer than the notice lasts. */
    ck_assert_str_eq(json_object_get_string_member(by_one.data, "id"), "j");
    ck_assert_uint_eq(by_two.count, 0);

    blk_notify(one, "SHUTDOWN", NULL);
    ck_assert_uint_eq(by_one.count, 2);
    ck_assert_ptr_null(by_one.data);
    heard_clear(&by_one);
    heard_clear(&by_two);
}
END_TEST

START_TEST(test_nobody_hears)
{
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, NULL);
    Heard heard = { NULL };

    ck_assert(!blk_context_wants_notices(ctx));
    blk_notify(ctx, "JOB_STATUS_CHANGE", make_data("j"));
    blk_context_set_notice_handler(ctx, hear, &heard);
    ck_assert(blk_context_wants_notices(ctx));
    blk_context_set_notice_handler(ctx, NULL, NULL);
    ck_assert(!blk_context_wants_notices(ctx));
    blk_notify(ctx, "JOB_STATUS_CHANGE", make_data("j"));
    ck_assert_uint_eq(heard.count, 0);
}
END_TEST

BLK_TEST_MAIN("notice", test_heard, test_nobody_hears)
