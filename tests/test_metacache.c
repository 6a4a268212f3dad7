/* SPDX-License-Identifier: MIT */
/*
 * test_metacache.c - the metadata cache over a disk that logs: what reaches it, in which order, and when it is stable.
 */
#include "log_disk.h"

#include "core/metacache.h"
#include "core/poll.h"

enum { BLOCK = 4096, BLOCKS = 16 };

/* A format without data of its own, whose tables the tests write. */
typedef struct Tables {
    BlkMetaCache *cache;
    unsigned freezes, good, bad;
    BlkNode *node;
    int log_ret;                    /* of the log */
} Tables;

static const BlkOption tables_options[] = {
    { "file", BLK_OPTION_NODE, "the disk" }, { "log", BLK_OPTION_BOOL, "with a log" }, { NULL },
};

static void tables_freeze(void *opaque)
{
    ((Tables *)opaque)->freezes++;
}

static void tables_done(bool ok, void *opaque)
{
    Tables *tables = opaque;

    tables->good += ok;
    tables->bad += !ok;
}

enum { LOG_BLOCKS = 2 };

/* The log is one block behind all tables. */
static int tables_co_log(BlkMetaBlock *const *blocks, const uint8_t *copies, unsigned count, void *opaque)
{
    Tables *tables = opaque;
    BlkNode *file = tables->node->file->node;

    ck_assert_uint_le(count, LOG_BLOCKS);
    for (unsigned i = 0; i < count; i++) {
        ck_assert_mem_eq(copies + i * BLOCK, blocks[i]->data, BLOCK);
    }
    int ret = tables->log_ret < 0 ? tables->log_ret : blk_co_pwrite(file, BLOCKS * BLOCK, BLOCK, copies, 0);
    return ret < 0 ? ret : blk_co_flush(file);
}

static int tables_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    Tables *tables = node->opaque;
    BlkMetaHooks hooks = { tables_freeze, tables_done, tables, { 0 } };

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    node->length = 1 << 20;
    tables->node = node;
    if (blk_options_bool(options, "log")) {
        hooks.co_log = tables_co_log;
        hooks.log_blocks = LOG_BLOCKS;
    }
    tables->cache = blk_meta_new(node, BLOCK, BLOCKS, &hooks);
    return 0;
}

static void tables_co_close(BlkNode *node)
{
    blk_meta_free(((Tables *)node->opaque)->cache);
}

static const BlkDriver tables_driver = {
    .name = "tables",
    .kind = BLK_FORMAT,
    .options = tables_options,
    .instance_size = sizeof(Tables),
    .co_open = tables_co_open,
    .co_close = tables_co_close,
};

typedef struct Stack {
    Test *t;
    BlkChild *user;
    BlkNode *disk_node;
    LogDisk *disk;
    Tables *tables;
    BlkMetaCache *cache;
    unsigned running;
    int ret;
} Stack;

/* A disk of @blocks blocks whose first bytes are their number. */
static void stack_open_with(Stack *s, Test *t, unsigned blocks, const char *tables)
{
    g_autofree uint8_t *content = g_malloc0((blocks + 1) * BLOCK);

    for (unsigned i = 0; i < blocks; i++) {
        content[i * BLOCK] = (uint8_t)i;
    }
    ck_assert_int_eq(blk_driver_register(t->ctx, &log_driver, NULL), 0);
    ck_assert_int_eq(blk_driver_register(t->ctx, &tables_driver, NULL), 0);
    *s = (Stack){ .t = t, .disk_node = try_open(t, "{'driver': 'log', 'node-name': 'disk'}", NULL) };
    ck_assert_ptr_nonnull(s->disk_node);
    log_set_initial(s->disk_node, content, (uint64_t)blocks * BLOCK);
    s->disk = log_disk(s->disk_node);
    s->user = open_for(t, BLK_PERM_READ | BLK_PERM_WRITE, tables);
    s->tables = blk_child_node(s->user)->opaque;
    s->cache = s->tables->cache;
}

static void stack_open(Stack *s, Test *t, unsigned blocks)
{
    stack_open_with(s, t, blocks, "{'driver': 'tables', 'file': 'disk'}");
}

static void stack_close(Stack *s)
{
    blk_co_detach(s->user);
    blk_co_unref(s->disk_node);
}

static void change(Stack *s, unsigned number, uint8_t value, BlkMetaRank rank)
{
    BlkMetaBlock *block;

    ck_assert_int_eq(blk_meta_co_get(s->cache, (uint64_t)number * BLOCK, &block), 0);
    block->data[1] = value;
    blk_meta_dirty(s->cache, block, rank);
    blk_meta_put(s->cache, block);
}

static const LogWrite *nth_write(const Stack *s, guint n)
{
    ck_assert_uint_lt(n, s->disk->writes->len);
    return g_ptr_array_index(s->disk->writes, n);
}

static const LogFlush *nth_flush(const Stack *s, guint n)
{
    ck_assert_uint_lt(n, s->disk->flushes->len);
    return &g_array_index(s->disk->flushes, LogFlush, n);
}

static int co_commit(void *opaque)
{
    Stack *s = opaque;
    int ret = blk_meta_co_commit(s->cache);

    s->ret = s->ret < 0 ? s->ret : ret;
    s->running--;
    return 0;
}

static void spawn_commit(Stack *s)
{
    s->running++;
    blk_co_spawn(s->t->ctx, co_commit, s);
}

static void turns(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        blk_co_reschedule();
    }
}

/* Lets held writes go on, and waits for the commits. */
static void release(Stack *s)
{
    s->disk->hold_writes = false;
    blk_co_queue_wake_all(&s->disk->held);
    while (s->running > 0) {
        blk_co_reschedule();
    }
}

/* The file is changed behind the cache, to see what comes from there. */
static void rewrite(Stack *s, unsigned number, uint8_t value)
{
    uint8_t content[BLOCK] = { value };

    ck_assert_int_eq(blk_co_pwrite(blk_child_node(s->user)->file->node, (uint64_t)number * BLOCK, BLOCK, content, 0), 0);
}

static uint8_t first_byte(Stack *s, unsigned number)
{
    BlkMetaBlock *block;

    ck_assert_int_eq(blk_meta_co_get(s->cache, (uint64_t)number * BLOCK, &block), 0);
    uint8_t value = block->data[0];
    blk_meta_put(s->cache, block);
    return value;
}

CO_TEST(test_unused_blocks_go)
{
    enum { HELD = 1, CHANGED = 2, UNUSED = 3, MS = 1000000 };
    BlkSleep sleep = { .co = NULL };
    BlkMetaBlock *held;
    Stack s;

    stack_open(&s, t, 5);
    ck_assert_int_eq(blk_meta_co_get(s.cache, HELD * BLOCK, &held), 0);
    change(&s, CHANGED, 7, BLK_META_MAP);
    ck_assert_uint_eq(first_byte(&s, UNUSED), UNUSED);
    for (unsigned i = HELD; i <= UNUSED; i++) {
        rewrite(&s, i, 100);
    }
    ck_assert_uint_eq(first_byte(&s, UNUSED), UNUSED);
    blk_meta_set_clean_interval(s.cache, 5 * MS);
    for (unsigned i = 0; i < 200 && first_byte(&s, UNUSED) == UNUSED; i++) {
        blk_co_sleep_cancellable(&sleep, blk_clock_ns() + 20 * MS);     /* longer than it may stay */
    }
    ck_assert_uint_eq(first_byte(&s, UNUSED), 100);
    ck_assert_uint_eq(held->data[0], HELD);
    ck_assert_uint_eq(first_byte(&s, HELD), HELD);
    ck_assert_uint_eq(first_byte(&s, CHANGED), CHANGED);
    blk_meta_put(s.cache, held);

    /* Then they stay again. */
    blk_meta_set_clean_interval(s.cache, 0);
    rewrite(&s, UNUSED, 101);
    blk_co_sleep_cancellable(&sleep, blk_clock_ns() + 20 * MS);
    ck_assert_uint_eq(first_byte(&s, UNUSED), 100);
    ck_assert_int_eq(blk_meta_co_commit(s.cache), 0);
    stack_close(&s);
}

CO_TEST(test_loads)
{
    Stack s;
    BlkMetaBlock *block, *again;

    stack_open(&s, t, 3);
    ck_assert_int_eq(blk_meta_co_get(s.cache, 2 * BLOCK + 77, &block), 0);
    ck_assert_uint_eq(block->offset, 2 * BLOCK);
    ck_assert_uint_eq(block->data[0], 2);
    ck_assert_int_eq(blk_meta_co_get(s.cache, 2 * BLOCK, &again), 0);
    ck_assert_ptr_eq(block, again);
    blk_meta_put(s.cache, again);
    blk_meta_put(s.cache, block);
    ck_assert_int_eq(blk_meta_co_get(s.cache, 9 * BLOCK, &block), 0);      /* behind the end of the file */
    ck_assert(blk_buffer_is_zero(block->data, BLOCK));
    blk_meta_put(s.cache, block);
    blk_meta_put(s.cache, NULL);
    ck_assert(!blk_meta_is_dirty(s.cache));
    stack_close(&s);
}

/* Rank by rank, a flush between ranks and at the end; neighbours leave in one write. */
CO_TEST(test_order)
{
    Stack s;

    stack_open(&s, t, 8);
    change(&s, 1, 1, BLK_META_MAP);
    change(&s, 5, 2, BLK_META_COUNTS);
    change(&s, 2, 3, BLK_META_MAP);
    change(&s, 4, 4, BLK_META_COUNT_TABLE);
    change(&s, 7, 5, BLK_META_COUNTS);
    ck_assert(blk_meta_is_dirty(s.cache));
    ck_assert_int_eq(blk_meta_co_commit(s.cache), 0);
    ck_assert(!blk_meta_is_dirty(s.cache));
    ck_assert_uint_eq(s.disk->writes->len, 4);
    ck_assert_uint_eq(s.disk->flushes->len, 3);
    ck_assert_uint_eq(nth_write(&s, 0)->offset + nth_write(&s, 1)->offset, (5 + 7) * BLOCK);
    for (guint i = 0; i < 2; i++) {
        ck_assert_uint_lt(nth_write(&s, i)->end, nth_flush(&s, 0)->begin);
    }
    ck_assert_uint_gt(nth_write(&s, 2)->begin, nth_flush(&s, 0)->end);
    ck_assert_uint_eq(nth_write(&s, 2)->offset, 4 * BLOCK);
    ck_assert_uint_lt(nth_write(&s, 2)->end, nth_flush(&s, 1)->begin);
    ck_assert_uint_gt(nth_write(&s, 3)->begin, nth_flush(&s, 1)->end);
    ck_assert_uint_eq(nth_write(&s, 3)->offset, 1 * BLOCK);
    ck_assert_uint_eq(nth_write(&s, 3)->bytes, 2 * BLOCK);
    ck_assert_uint_lt(nth_write(&s, 3)->end, nth_flush(&s, 2)->begin);
    ck_assert_uint_eq(s.tables->freezes, 1);
    ck_assert_uint_eq(s.tables->good, 1);
    stack_close(&s);
}

/* A mapping refers to payloads that the cache does not know: there is a flush before it even if it is alone. */
CO_TEST(test_barrier_before_mapping)
{
    Stack s;

    stack_open(&s, t, 8);
    change(&s, 1, 1, BLK_META_MAP);
    ck_assert_int_eq(blk_meta_co_commit(s.cache), 0);
    ck_assert_uint_eq(s.disk->flushes->len, 2);
    ck_assert_uint_gt(nth_write(&s, 0)->begin, nth_flush(&s, 0)->end);
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(s.user)->file->node, 7 * BLOCK, 4, "data", 0), 0);
    ck_assert_int_eq(blk_meta_co_commit(s.cache), 0);       /* no table is changed: it makes the data stable */
    ck_assert_uint_eq(s.disk->flushes->len, 3);
    ck_assert_uint_eq(s.disk->writes->len, 2);
    stack_close(&s);
}

/* What does not fit into the log at once goes in parts; nothing is written in place before the log has it, and nothing else
 * comes into the log before that is stable. */
CO_TEST(test_log)
{
    static const unsigned blocks[] = { BLOCKS, 5, BLOCKS, 1, BLOCKS, 3 };
    Stack s;

    stack_open_with(&s, t, 8, "{'driver': 'tables', 'file': 'disk', 'log': true}");
    change(&s, 1, 1, BLK_META_MAP);
    change(&s, 2, 1, BLK_META_MAP);
    change(&s, 3, 1, BLK_META_MAP);
    change(&s, 5, 1, BLK_META_COUNTS);
    s.tables->log_ret = -ENOSPC;
    ck_assert_int_eq(blk_meta_co_commit(s.cache), -ENOSPC);
    ck_assert_uint_eq(s.disk->writes->len, 0);
    ck_assert(blk_meta_is_dirty(s.cache));
    s.tables->log_ret = 0;
    ck_assert_int_eq(blk_meta_co_commit(s.cache), 0);
    ck_assert_uint_eq(s.disk->writes->len, G_N_ELEMENTS(blocks));
    ck_assert_uint_eq(s.disk->flushes->len, G_N_ELEMENTS(blocks));
    for (guint i = 0; i < G_N_ELEMENTS(blocks); i++) {
        ck_assert_uint_eq(nth_write(&s, i)->offset, blocks[i] * BLOCK);
        ck_assert_uint_lt(nth_write(&s, i)->end, nth_flush(&s, i)->begin);
        ck_assert(i == 0 || nth_write(&s, i)->begin > nth_flush(&s, i - 1)->end);
    }
    ck_assert_uint_eq(nth_write(&s, 3)->bytes, 2 * BLOCK);
    stack_close(&s);
}

/* A commit holds what was there when it began; those who come meanwhile share one more. */
CO_TEST(test_freeze_and_sharing)
{
    Stack s;

    stack_open(&s, t, 8);
    change(&s, 1, 1, BLK_META_COUNTS);
    s.disk->hold_writes = true;
    spawn_commit(&s);
    turns(30);
    ck_assert_uint_eq(s.disk->holding, 1);
    change(&s, 1, 2, BLK_META_COUNTS);
    change(&s, 3, 3, BLK_META_COUNTS);
    for (unsigned i = 0; i < 5; i++) {
        spawn_commit(&s);
    }
    turns(30);
    ck_assert_uint_eq(s.tables->freezes, 1);
    ck_assert_uint_eq(s.running, 6);
    release(&s);
    ck_assert_int_eq(s.ret, 0);
    ck_assert_uint_eq(s.tables->freezes, 2);
    ck_assert_uint_eq(s.disk->writes->len, 3);
    ck_assert_uint_eq(nth_write(&s, 0)->data[1], 1);
    ck_assert_uint_eq(s.disk->data[1 * BLOCK + 1], 2);
    ck_assert_uint_eq(s.disk->data[3 * BLOCK + 1], 3);
    ck_assert(!blk_meta_is_dirty(s.cache));
    stack_close(&s);
}

CO_TEST(test_failure_is_tried_again)
{
    Stack s;

    stack_open(&s, t, 8);
    change(&s, 1, 1, BLK_META_COUNTS);
    change(&s, 5, 1, BLK_META_MAP);
    s.disk->fail_write_from = 4 * BLOCK;
    ck_assert_int_eq(blk_meta_co_commit(s.cache), -EIO);
    ck_assert(blk_meta_is_dirty(s.cache));
    ck_assert_uint_eq(s.tables->bad, 1);
    ck_assert_uint_eq(s.tables->good, 0);
    s.disk->fail_write_from = UINT64_MAX;
    ck_assert_int_eq(blk_meta_co_commit(s.cache), 0);
    ck_assert_uint_eq(s.tables->good, 1);
    ck_assert_uint_eq(s.disk->data[1 * BLOCK + 1], 1);
    ck_assert_uint_eq(s.disk->data[5 * BLOCK + 1], 1);
    ck_assert(!blk_meta_is_dirty(s.cache));
    stack_close(&s);
}

/* Ranks that are left out stay in memory, and a commit of all of them is not served by one of some. */
CO_TEST(test_lower_ranks_wait)
{
    Stack s;

    stack_open(&s, t, 8);
    change(&s, 1, 1, BLK_META_COUNTS);
    change(&s, 4, 1, BLK_META_COUNT_TABLE);
    change(&s, 6, 1, BLK_META_MAP);
    s.disk->hold_writes = true;
    spawn_commit(&s);
    turns(30);
    change(&s, 1, 2, BLK_META_COUNTS);
    release(&s);
    ck_assert_int_eq(s.ret, 0);
    change(&s, 6, 2, BLK_META_MAP);
    ck_assert_int_eq(blk_meta_co_commit_from(s.cache, BLK_META_MAP), 0);
    ck_assert_uint_eq(s.disk->data[6 * BLOCK + 1], 2);
    ck_assert_uint_eq(s.disk->data[1 * BLOCK + 1], 1);
    ck_assert(blk_meta_is_dirty(s.cache));
    ck_assert_int_eq(blk_meta_co_commit(s.cache), 0);
    ck_assert_uint_eq(s.disk->data[1 * BLOCK + 1], 2);
    ck_assert(!blk_meta_is_dirty(s.cache));
    stack_close(&s);
}

/* Blocks that nobody holds or has changed make room; changed ones stay, and ask for a commit when they are many. */
CO_TEST(test_eviction)
{
    Stack s;
    BlkMetaBlock *block;

    stack_open(&s, t, 4 * BLOCKS);
    for (unsigned i = 0; i < BLOCKS / 2; i++) {
        change(&s, i, 9, BLK_META_MAP);
    }
    ck_assert(!blk_meta_wants_commit(s.cache));
    change(&s, BLOCKS / 2, 9, BLK_META_MAP);
    ck_assert(blk_meta_wants_commit(s.cache));
    for (unsigned i = BLOCKS; i < 3 * BLOCKS; i++) {
        ck_assert_int_eq(blk_meta_co_get(s.cache, (uint64_t)i * BLOCK, &block), 0);
        ck_assert_uint_eq(block->data[0], i);
        blk_meta_put(s.cache, block);
    }
    s.disk->data[3 * BLOCK] = 77;                   /* whoever reads again sees it */
    s.disk->data[BLOCKS * BLOCK] = 78;
    ck_assert_int_eq(blk_meta_co_get(s.cache, 3 * BLOCK, &block), 0);
    ck_assert_uint_eq(block->data[0], 3);
    ck_assert_uint_eq(block->data[1], 9);
    blk_meta_put(s.cache, block);
    ck_assert_int_eq(blk_meta_co_get(s.cache, BLOCKS * BLOCK, &block), 0);
    ck_assert_uint_eq(block->data[0], 78);
    blk_meta_put(s.cache, block);
    stack_close(&s);
}

CO_TEST(test_forget)
{
    Stack s;
    BlkMetaBlock *block;

    stack_open(&s, t, 8);
    change(&s, 2, 1, BLK_META_MAP);
    change(&s, 3, 1, BLK_META_MAP);
    blk_meta_co_forget(s.cache, 2 * BLOCK, BLOCK);
    ck_assert_int_eq(blk_meta_co_commit(s.cache), 0);
    ck_assert_uint_eq(s.disk->writes->len, 1);
    ck_assert_uint_eq(nth_write(&s, 0)->offset, 3 * BLOCK);
    ck_assert_int_eq(blk_meta_co_get(s.cache, 2 * BLOCK, &block), 0);
    ck_assert_uint_eq(block->data[1], 0);
    blk_meta_put(s.cache, block);
    blk_meta_co_forget(s.cache, 3 * BLOCK, BLOCK);
    ck_assert(!blk_meta_is_dirty(s.cache));
    stack_close(&s);
}

BLK_TEST_MAIN("metacache", test_unused_blocks_go, test_loads, test_order, test_barrier_before_mapping, test_log, test_freeze_and_sharing,
              test_failure_is_tried_again, test_lower_ranks_wait, test_eviction, test_forget)
