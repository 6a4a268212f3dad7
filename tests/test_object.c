/* SPDX-License-Identifier: MIT */
/*
 * test_object.c - objects of a context: ids, users, removal; rules about names. What options do is in iotests/objects.sh.
 */
#include "core/authz.h"
#include "core/object.h"
#include "core/secret.h"
#include "core/tls_creds.h"

#include "test.h"

static int add(BlkContext *ctx, const char *text, GError **error)
{
    g_autoptr(JsonObject) options = blk_options_parse_keyval(text, "qom-type", NULL);

    ck_assert_ptr_nonnull(options);
    return blk_object_add(ctx, options, error);
}

START_TEST(test_ids)
{
    g_autoptr(BlkContext) one = blk_context_new(NULL, NULL), two = blk_context_new(NULL, NULL);
    g_autoptr(GError) taken = NULL, gone = NULL;
    char *text;

    ck_assert_int_eq(add(one, "secret,id=s,data=first", NULL), 0);
    ck_assert_int_eq(add(one, "secret,id=s,data=again", &taken), -EEXIST);
    ck_assert_ptr_nonnull(taken);
    /* Contexts share nothing. */
    ck_assert_int_eq(add(two, "secret,id=s,data=second", NULL), 0);
    text = blk_secret_text(one, "s", NULL);
    ck_assert_str_eq(text, "first");
    blk_secret_wipe(text);

    ck_assert_int_eq(blk_object_remove(one, "s", NULL), 0);
    ck_assert_int_eq(blk_object_remove(one, "s", &gone), -ENOENT);
    ck_assert_ptr_nonnull(gone);
    text = blk_secret_text(two, "s", NULL);
    ck_assert_str_eq(text, "second");
    blk_secret_wipe(text);
    /* One that was refused leaves nothing. */
    ck_assert_int_eq(add(one, "secret,id=s", NULL), -EINVAL);
    ck_assert_int_eq(add(one, "secret,id=s,data=third", NULL), 0);
}
END_TEST

START_TEST(test_users)
{
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, NULL);
    g_autoptr(GError) busy = NULL, wrong = NULL;
    BlkObject *object;

    ck_assert_int_eq(add(ctx, "authz-simple,id=a,identity=x", NULL), 0);
    object = blk_authz_use(ctx, "a", NULL);
    ck_assert_int_eq(blk_object_remove(ctx, "a", &busy), -EBUSY);
    ck_assert_ptr_nonnull(busy);
    blk_object_unuse(object);
    /* Neither is a refusal for the wrong type a use. */
    ck_assert_ptr_null(blk_tls_creds_use(ctx, "a", BLK_TLS_SERVER, &wrong));
    ck_assert_ptr_nonnull(wrong);
    ck_assert_ptr_null(blk_secret_text(ctx, "a", NULL));
    ck_assert_int_eq(blk_object_remove(ctx, "a", NULL), 0);
    ck_assert_ptr_null(blk_authz_use(ctx, "a", NULL));
}
END_TEST

START_TEST(test_text)
{
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, NULL);
    g_autoptr(GError) error = NULL;
    char *empty;

    ck_assert_int_eq(add(ctx, "secret,id=empty,data=", NULL), 0);
    ck_assert_int_eq(add(ctx, "secret,id=nul,format=base64,data=YQBi", NULL), 0);
    ck_assert_int_eq(add(ctx, "secret,id=binary,format=base64,data=/w==", NULL), 0);
    empty = blk_secret_text(ctx, "empty", NULL);
    ck_assert_str_eq(empty, "");
    blk_secret_wipe(empty);
    ck_assert_ptr_null(blk_secret_text(ctx, "nul", &error));
    ck_assert_ptr_nonnull(error);
    ck_assert_ptr_null(blk_secret_text(ctx, "binary", NULL));
    ck_assert_ptr_null(blk_secret_text(ctx, "none", NULL));
}
END_TEST

static bool allows(BlkContext *ctx, const char *id, const char *name)
{
    BlkObject *object = blk_authz_use(ctx, id, NULL);
    bool allowed = blk_authz_allows(object, name);

    blk_object_unuse(object);
    return allowed;
}

START_TEST(test_rules)
{
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, NULL);

    ck_assert_int_eq(add(ctx, "authz-simple,id=one,identity=CN=a,,O=b", NULL), 0);
    ck_assert(allows(ctx, "one", "CN=a,O=b"));
    ck_assert(!allows(ctx, "one", "CN=a"));
    ck_assert(!allows(ctx, "one", "CN=a,O=bc"));
    ck_assert(!allows(ctx, "one", ""));

    ck_assert_int_eq(add(ctx, "authz-list,id=none", NULL), 0);
    ck_assert(!allows(ctx, "none", "CN=a"));
    ck_assert_int_eq(add(ctx, "authz-list,id=all,policy=allow", NULL), 0);
    ck_assert(allows(ctx, "all", "CN=a"));

    /* The first rule that matches decides. */
    ck_assert_int_eq(add(ctx, "authz-list,id=list,rules.0.match=CN=bad,rules.0.policy=deny,"
                         "rules.1.match=CN=*,rules.1.policy=allow,rules.1.format=glob,"
                         "rules.2.match=O=?,rules.2.policy=allow", NULL), 0);
    ck_assert(!allows(ctx, "list", "CN=bad"));
    ck_assert(allows(ctx, "list", "CN=badly"));
    ck_assert(!allows(ctx, "list", "O=x"));
    ck_assert(allows(ctx, "list", "O=?"));
}
END_TEST

BLK_TEST_MAIN("object", test_ids, test_users, test_text, test_rules)
