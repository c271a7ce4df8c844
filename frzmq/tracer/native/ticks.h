/* A clock for records: CLOCK_MONOTONIC costs 30 ns where the processor's counter costs 12, and a span or call asks twice (docs/design/005).

   Between two looks at the real clock the time is that of the last look and the counter's ticks since, at a rate that is a little too low: it is never ahead of the
   real clock, which other records of the same writer are timed by, and at most 0.2 us behind it. A counter that does not keep to that is used no more. */

#ifndef FRZMQ_TICKS_H
#define FRZMQ_TICKS_H

#include "buffer.h"

#ifdef __x86_64__
#include <x86intrin.h>

enum {
    RATE_NS = 10000000,    /* over so much time a rate is taken */
    LOOK_NS = 200000,      /* so long the clock is not looked at */
    AHEAD_NS = 2000,       /* more is not the difference of two processors' counters */
    INTERRUPTED = 5000,    /* ticks: a look that takes longer was not one moment */
    MAX_FAULTS = 16,
};

static struct {
    uint64_t ns, ticks;           /* the last look, the clock read first */
    uint64_t rate_ns, rate_ticks; /* where the rate's measurement begins */
    uint64_t rate;                /* ns per tick, << 32 */
    uint64_t most;                /* ticks until the next look; 0: the rate is not known */
    int faults;                   /* how often it was ahead */
} ticks;

static uint64_t ticks_look(void) {
    if (ticks.faults > MAX_FAULTS) return clock_ns();
    uint64_t before = __rdtsc(), ns = clock_ns(), now = __rdtsc(), since = before - ticks.ticks;
    if (ticks.most && since < ticks.most * 64 && ticks.ns + (since * ticks.rate >> 32) > ns + AHEAD_NS) {
        ticks.faults++;
        ticks.most = ticks.rate_ns = 0;
    }
    ticks.ns = ns;
    ticks.ticks = now;
    uint64_t took_ns = ns - ticks.rate_ns, took = now - ticks.rate_ticks;
    if (took_ns >= RATE_NS && now - before < INTERRUPTED) {
        /* a pause (a suspended machine, a program that waits) says nothing about the rate of what follows */
        if (took_ns < 100 * (uint64_t)RATE_NS && took > took_ns / 16 && took < took_ns * 16) {
            uint64_t rate = (uint64_t)((double)took_ns / (double)took * 4294967296.0);
            ticks.rate = rate - (rate >> 11);
            ticks.most = ((uint64_t)LOOK_NS << 32) / ticks.rate;
        }
        ticks.rate_ns = ns;
        ticks.rate_ticks = now;
    }
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
