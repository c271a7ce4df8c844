/* The layout of the shared memory: the twin of frzmq/wire/chunk.py, and docs/buffer.md in C. A test holds the two together. */

#ifndef FRZMQ_LAYOUT_H
#define FRZMQ_LAYOUT_H

#include <stdint.h>

enum {
    OPEN_ENTRY_BYTES = 64,
    SMALL_CHUNK_BYTES = 4 << 10,
    LARGE_CHUNK_BYTES = 64 << 10,
    CHUNK_HEADER_BYTES = 128,
    MAX_STRINGS_BYTES = 512 << 10,
};

/* words of the file header */
enum { GENERATION_WORD = 64, STRINGS_WORD = 65, OPEN_OMITTED_WORD = 66 };

/* words of a chunk */
enum {
    STATE_WORD = 0,
    SERIAL_WORD = 1,
    BASE_WORD = 2,
    FIRST_INDEX_WORD = 3,
    PUBLISHED_WORD = 4,
    LAST_WORDS = 5,
    CUT_GENERATION_WORD = 7,
    CUT_WORD = 8,
    CUT_BASE_WORD = 9,
};

enum { CHUNK_FREE = 0, CHUNK_OWNED = 1, CHUNK_SEALED = 2 };

typedef struct {
    uint32_t kind, writer;
    uint64_t begin_ns, end_ns;
    uint32_t name, track;
    uint64_t op, parent;
    uint8_t trace[16];
} OpenEntry;

/* of frzmq/wire/kinds.py */
enum {
    KIND_SPAN_BEGIN = 1,
    KIND_SPAN_END = 2,
    KIND_OPERATION_BEGIN = 3,
    KIND_OPERATION_END = 4,
    KIND_EVENT = 5,
    KIND_GAUGE = 6,
    KIND_CONTEXT = 9,
    KIND_THREAD_BEGIN = 10,
    KIND_THREAD_END = 11,
    KIND_PROCESS_BEGIN = 12,
    KIND_CALL_BEGIN = 18,
    KIND_CALL_END = 19,
    KIND_CALL_FAIL = 20,
    KIND_CALL_RESUME = 21,
    KIND_CALL_SUSPEND = 22,
    KIND_CALL_OPEN = 23,
    KIND_CALL_QUIET = 24,
    KIND_CALLS = 25,
};

static inline uint64_t make_word(uint64_t count, uint64_t end) { return count << 32 | end; }
static inline uint64_t word_count(uint64_t word) { return word >> 32; }
static inline uint32_t word_end(uint64_t word) { return (uint32_t)word; }

static const uint64_t EMPTY_WORD = CHUNK_HEADER_BYTES;

/* What a reader may trust at any moment is published by one store, behind all that it stands for. */
static inline void publish(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

#endif
