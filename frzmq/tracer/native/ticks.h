/* A clock for calls: CLOCK_MONOTONIC costs 30 ns where the processor's counter costs 12, and a call that is recorded asks twice.

   Between two looks at the real clock the time is that of the last look and the counter's ticks since, at a rate that is a little too low: it is never ahead of the
   real clock, which other records of the same writer are timed by, and at most 0.2 us behind it. A counter that does not keep to that is used no more. */

#ifndef FRZMQ_TICKS_H
#define FRZMQ_TICKS_H

#include "buffer.h"

#ifdef __x86_64__
#include <x86intrin.h>

enum {
    RATE_NS = 10000000,  /* over so much time a rate is taken */
    LOOK_NS = 200000,    /* so long the clock is not looked at */
    AHEAD_NS = 2000,     /* the counter of another processor may differ by its synchronization: more is not to be borne */
};

static struct {
    uint64_t ns, ticks;           /* the last look, the clock read first */
    uint64_t rate_ns, rate_ticks; /* where the rate's measurement begins */
    uint64_t rate;                /* ns per tick, << 32; 0: not known yet */
    uint64_t most;                /* ticks until the next look */
    int broken;
} ticks;

static uint64_t ticks_look(void) {
    uint64_t ns = clock_ns(), now = __rdtsc();
    if (ticks.broken) return ns;
    uint64_t since = now - ticks.ticks;
    if (ticks.rate && since < ticks.most * 64 && ticks.ns + (since * ticks.rate >> 32) > ns + AHEAD_NS) {
        ticks.broken = 1;
        ticks.most = 0;
        return ns;
    }
    uint64_t took_ns = ns - ticks.rate_ns, took = now - ticks.rate_ticks;
    if (took_ns >= RATE_NS) {
        /* a pause (a suspended machine, a program that waits) says nothing about the rate of what follows */
        if (took_ns < 100 * (uint64_t)RATE_NS && took > took_ns / 16 && took < took_ns * 16) {
            uint64_t rate = (uint64_t)((double)took_ns / (double)took * 4294967296.0);
            ticks.rate = rate - (rate >> 11);
            ticks.most = ((uint64_t)LOOK_NS << 32) / ticks.rate;
        }
        ticks.rate_ns = ns;
        ticks.rate_ticks = now;
    }
    ticks.ns = ns;
    ticks.ticks = now;
    return ns;
}

static inline uint64_t ticks_ns(void) {
    uint64_t since = __rdtsc() - ticks.ticks;
    return LIKELY(since < ticks.most) ? ticks.ns + (since * ticks.rate >> 32) : ticks_look();
}
#else
static inline uint64_t ticks_ns(void) { return clock_ns(); }
#endif

#endif
