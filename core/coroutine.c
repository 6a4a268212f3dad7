/* SPDX-License-Identifier: MIT */
/*
 * coroutine.c - stackful coroutines: stacks and switches.
 *
 *     mapping:  | guard page | stack, grows downwards from the end |
 *
 * A new stack is entered once through ucontext, which makes two system calls. All other switches are a sigsetjmp and a
 * siglongjmp that leave the signal mask alone and stay in user space. A coroutine whose function has returned waits at
 * the end of its stack for the next function, so that reuse costs no more than a switch.
 *
 * Limitations: the stack does not grow; what overruns it into the guard page dies of SIGSEGV. A coroutine stays in the
 * thread that made it.
 */

/* The checked longjmp takes a jump to another stack for an attack. */
#undef _FORTIFY_SOURCE
#define _FORTIFY_SOURCE 0

#include "core/coroutine.h"

#include <sys/mman.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define BLK_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define BLK_TSAN 1
#include <sanitizer/tsan_interface.h>
#endif

/* Sanitizers put redzones around every variable. */
#if defined(BLK_ASAN) || defined(BLK_TSAN)
#define STACK_BYTES ((size_t)1024 * 1024)
#else
#define STACK_BYTES ((size_t)128 * 1024)
#endif

static _Thread_local BlkCo *current;

static size_t guard_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static char *stack_of(const BlkCo *co)
{
    return (char *)co->mapping + guard_bytes();
}

/* ---- what the sanitizers must know: begin is called on the old stack, end on the new one ---- */

static inline void begin_enter(BlkCo *co)
{
#ifdef BLK_ASAN
    __sanitizer_start_switch_fiber(&co->loop_fake_stack, stack_of(co), STACK_BYTES);
#endif
#ifdef BLK_TSAN
    co->loop_fibre = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(co->fibre, 0);
#endif
}

static inline void end_enter(BlkCo *co)
{
#ifdef BLK_ASAN
    __sanitizer_finish_switch_fiber(co->fake_stack, &co->loop_stack, &co->loop_stack_bytes);
#endif
}

static inline void begin_leave(BlkCo *co, bool for_ever)
{
#ifdef BLK_ASAN
    __sanitizer_start_switch_fiber(for_ever ? NULL : &co->fake_stack, co->loop_stack, co->loop_stack_bytes);
#endif
#ifdef BLK_TSAN
    __tsan_switch_to_fiber(co->loop_fibre, 0);
#endif
}

static inline void end_leave(BlkCo *co)
{
#ifdef BLK_ASAN
    __sanitizer_finish_switch_fiber(co->loop_fake_stack, NULL, NULL);
#endif
}

/* ---- switches ---- */

static void leave(BlkCo *co)
{
    if (sigsetjmp(co->env, 0) == 0) {
        begin_leave(co, false);
        siglongjmp(*co->back, 1);
    }
    end_enter(current);
}

/* The bottom frame of every coroutine. */
static void run_functions(void)
{
    BlkCo *co = current;

    end_enter(co);
    g_clear_pointer(&co->beginning, g_free);
    while (co->fn) {
        co->ret = co->fn(co->opaque);
        co->fn = NULL;
        leave(co);
    }
    begin_leave(co, true);
    siglongjmp(*co->back, 1);
}

bool blk_coroutine_enter(BlkCo *co)
{
    sigjmp_buf here;

    g_assert(current == NULL);
    current = co;
    co->back = &here;
    if (sigsetjmp(here, 0) == 0) {
        begin_enter(co);
        if (co->started) {
            siglongjmp(co->env, 1);
        }
        co->started = true;
        setcontext(co->beginning);
        g_error("setcontext: %s", g_strerror(errno));
    }

    BlkCo *left = current;

    end_leave(left);
    current = NULL;
    return left->fn == NULL;
}

void blk_coroutine_leave(void)
{
    leave(current);
}

BlkCo *blk_co_self(void)
{
    return current;
}

BlkContext *blk_co_context(void)
{
    return current ? current->ctx : NULL;
}

/* ---- stacks ---- */

/* On the heap: the frame of a function that leaves by setcontext() would stay poisoned for AddressSanitizer. */
static ucontext_t *make_beginning(const BlkCo *co)
{
    ucontext_t *context = g_new0(ucontext_t, 1);

    if (getcontext(context) != 0) {
        g_error("getcontext: %s", g_strerror(errno));
    }
    context->uc_link = NULL;
    context->uc_stack.ss_sp = stack_of(co);
    context->uc_stack.ss_size = STACK_BYTES;
    makecontext(context, run_functions, 0);
    return context;
}

BlkCo *blk_coroutine_new(BlkContext *ctx)
{
    BlkCo *co = g_new0(BlkCo, 1);

    co->ctx = ctx;
    co->mapping = mmap(NULL, guard_bytes() + STACK_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (co->mapping == MAP_FAILED || mprotect(co->mapping, guard_bytes(), PROT_NONE) != 0) {
        g_error("no memory for the stack of a coroutine: %s", g_strerror(errno));
    }
    co->beginning = make_beginning(co);
#ifdef BLK_ASAN
    __lsan_register_root_region(stack_of(co), STACK_BYTES);
#endif
#ifdef BLK_TSAN
    co->fibre = __tsan_create_fiber(0);
#endif
    return co;
}

void blk_coroutine_free(BlkCo *co)
{
    g_assert(co->state == BLK_CO_IDLE && co->fn == NULL);
    if (co->started) {
        blk_coroutine_enter(co);
    }
#ifdef BLK_ASAN
    __lsan_unregister_root_region(stack_of(co), STACK_BYTES);
    __asan_unpoison_memory_region(stack_of(co), STACK_BYTES);
#endif
#ifdef BLK_TSAN
    __tsan_destroy_fiber(co->fibre);
#endif
    g_free(co->beginning);
    munmap(co->mapping, guard_bytes() + STACK_BYTES);
    g_free(co);
}
