/* The chunk pool: which thread has which chunk, and whose records go when none is free. */

#ifndef FRZMQ_CHUNKS_H
#define FRZMQ_CHUNKS_H

#include "buffer.h"

static void list_append(ChunkList *list, Chunk *chunk) {
    chunk->before = list->last;
    chunk->behind = NULL;
    if (list->last != NULL)
        list->last->behind = chunk;
    else
        list->first = chunk;
    list->last = chunk;
}

static void list_remove(ChunkList *list, Chunk *chunk) {
    if (chunk->before != NULL)
        chunk->before->behind = chunk->behind;
    else
        list->first = chunk->behind;
    if (chunk->behind != NULL)
        chunk->behind->before = chunk->before;
    else
        list->last = chunk->before;
}

static int chunks_init(Buffer *b, uint64_t offset, uint32_t small, uint32_t large) {
    b->chunk_count = small + large;
    b->chunks = PyMem_Calloc(b->chunk_count, sizeof *b->chunks);
    if (b->chunks == NULL) return -1;
    for (uint32_t n = 0; n < b->chunk_count; n++) {
        Chunk *chunk = &b->chunks[n];
        chunk->number = n;
        chunk->size = n < small ? SMALL_CHUNK_BYTES : LARGE_CHUNK_BYTES;
        chunk->mem = b->mem + offset;
        chunk->words = (uint64_t *)chunk->mem;
        offset += chunk->size;
        list_append(n < small ? &b->free_small : &b->free_large, chunk);
    }
    return 0;
}

/* 0; -1: no memory, and the range is not reported, only counted. */
static int writer_lost(Writer *w, uint64_t start, uint64_t end) {
    if (w->lost_count && w->lost[w->lost_count - 1].end == start) {
        w->lost[w->lost_count - 1].end = end;
        return 0;
    }
    if (w->lost_count == w->lost_room) {
        int room = w->lost_room ? 2 * w->lost_room : 4;
        Range *lost = PyMem_Realloc(w->lost, (size_t)room * sizeof *lost);
        if (lost == NULL) return -1;
        w->lost = lost;
        w->lost_room = room;
    }
    w->lost[w->lost_count++] = (Range){start, end};
    return 0;
}

static void chunk_free(Buffer *b, Chunk *chunk) {
    chunk->state = CHUNK_FREE;
    /* with the writer: until it is used again it still says what it held */
    publish(&chunk->words[STATE_WORD], make_word(CHUNK_FREE, chunk->writer->id));
    list_append(chunk->size == SMALL_CHUNK_BYTES ? &b->free_small : &b->free_large, chunk);
    Py_CLEAR(chunk->writer);
}

static Chunk *find_chunk(Buffer *b, Writer *w, size_t size) {
    ChunkList *pools[2] = {&b->free_small, &b->free_large};
    int first = w->index ? 1 : 0;
    for (int n = 0; n < 2; n++) {
        ChunkList *pool = pools[first ^ n];
        if (pool->first != NULL && pool->first->size >= size) {
            Chunk *chunk = pool->first;
            list_remove(pool, chunk);
            return chunk;
        }
    }
    for (Chunk *chunk = b->sealed.first; chunk != NULL; chunk = chunk->behind) {
        if (chunk->size < size) continue;
        list_remove(&b->sealed, chunk);
        uint64_t start = chunk->first_index + word_count(chunk->taken);
        uint64_t end = chunk->first_index + word_count(chunk->words[PUBLISHED_WORD]);
        if (start < end) {
            b->overwritten += end - start;
            writer_lost(chunk->writer, start, end);
        }
        return chunk;
    }
    return NULL;
}

static void writer_seal(Writer *w) {
    Buffer *b = w->buffer;
    Chunk *chunk = w->chunk;
    if (chunk == NULL) return;
    w->index = chunk->first_index + word_count(w->word);
    w->chunk = NULL;
    w->pos = w->limit = NULL;
    w->words = NULL;
    if (w->word == EMPTY_WORD) {
        chunk_free(b, chunk);
        return;
    }
    chunk->state = CHUNK_SEALED;
    publish(&chunk->words[STATE_WORD], make_word(CHUNK_SEALED, w->id));
    list_append(&b->sealed, chunk);
}

/* Another chunk with room for `need` bytes. 0: none is free, and none may be overwritten. */
static int writer_take(Writer *w, size_t need) {
    Buffer *b = w->buffer;
    if (need > LARGE_CHUNK_BYTES - CHUNK_HEADER_BYTES || b->closed) return 0;
    writer_seal(w);
    Chunk *chunk = find_chunk(b, w, need + CHUNK_HEADER_BYTES);
    if (chunk == NULL) return 0;
    Writer *before = chunk->writer;
    chunk->writer = (Writer *)Py_NewRef(w);
    chunk->serial = ++b->serial;
    chunk->state = CHUNK_OWNED;
    chunk->first_index = w->index;
    chunk->base_ns = chunk->taken_ns = w->last;
    chunk->taken = EMPTY_WORD;
    chunk->told_final = 0;
    uint64_t *words = chunk->words;
    publish(&words[STATE_WORD], 0);
    /* who reads a FREE state before and behind what it reads of the rest knows that it is of one use */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    publish(&words[PUBLISHED_WORD], EMPTY_WORD);
    words[BASE_WORD] = words[LAST_WORDS] = words[LAST_WORDS + 1] = words[CUT_BASE_WORD] = w->last;
    words[FIRST_INDEX_WORD] = w->index;
    words[CUT_WORD] = EMPTY_WORD;
    words[CUT_GENERATION_WORD] = b->generation;
    words[SERIAL_WORD] = chunk->serial;
    publish(&words[STATE_WORD], make_word(CHUNK_OWNED, w->id));
    w->chunk = chunk;
    w->words = words;
    w->word = EMPTY_WORD;
    w->pos = chunk->mem + CHUNK_HEADER_BYTES;
    w->limit = chunk->mem + chunk->size;
    Py_XDECREF(before);
    return 1;
}

#endif
