/* The open table: one entry for each operation and span that is open now. */

#ifndef FRZMQ_OPENS_H
#define FRZMQ_OPENS_H

#include "buffer.h"

static int opens_init(Buffer *b, uint64_t offset, uint32_t entries) {
    b->table = (OpenEntry *)(b->mem + offset);
    b->entries = entries;
    b->names = PyMem_Calloc(entries, sizeof *b->names);
    b->free_entries = PyMem_Calloc(entries, sizeof *b->free_entries);
    if (b->names == NULL || b->free_entries == NULL) return -1;
    for (uint32_t n = 0; n < entries; n++) {
        b->table[n].end_ns = 1; /* never taken: it ended long ago */
        b->free_entries[n] = n;
    }
    b->free_count = entries;
    return 0;
}

/* An entry; -1: the table is full, which is counted. `id`: of the name; 0: it is not in the string table. */
static inline int32_t entry_open(
    Buffer *b, uint32_t kind, uint32_t writer, uint64_t begin_ns, uint32_t id, PyObject *name, uint32_t track, uint64_t op,
    uint64_t parent, const uint8_t *trace
) {
    if (UNLIKELY(b->free_count == 0)) {
        publish(&b->words[OPEN_OMITTED_WORD], ++b->omitted);
        return -1;
    }
    uint32_t n = b->free_entries[b->free_head];
    b->free_head = b->free_head + 1 == b->entries ? 0 : b->free_head + 1;
    b->free_count--;
    OpenEntry *entry = &b->table[n];
    entry->kind = kind;
    entry->writer = writer;
    entry->begin_ns = begin_ns;
    entry->name = id;
    entry->track = track;
    entry->op = op;
    entry->parent = parent;
    if (trace != NULL)
        memcpy(entry->trace, trace, sizeof entry->trace);
    else
        memset(entry->trace, 0, sizeof entry->trace);
    if (UNLIKELY(id == 0)) b->names[n] = Py_NewRef(name);
    /* last: open */
    __atomic_store_n(&entry->end_ns, 0, __ATOMIC_RELEASE);
    return (int32_t)n;
}

static inline void entry_free(Buffer *b, int32_t n, uint64_t end_ns) {
    if (UNLIKELY(n < 0)) {
        publish(&b->words[OPEN_OMITTED_WORD], --b->omitted);
        return;
    }
    __atomic_store_n(&b->table[n].end_ns, end_ns, __ATOMIC_RELEASE);
    if (UNLIKELY(b->names[n] != NULL)) Py_CLEAR(b->names[n]);
    uint32_t tail = b->free_head + b->free_count;
    b->free_entries[tail >= b->entries ? tail - b->entries : tail] = (uint32_t)n;
    b->free_count++;
}

/* Of an entry, as Python code has it. -1: raised. */
static int entry_number(Buffer *b, PyObject *number, int32_t *n) {
    long value = PyLong_AsLong(number);
    if (value == -1 && PyErr_Occurred()) return -1;
    *n = value >= 0 && (unsigned long)value < b->entries ? (int32_t)value : -1;
    return 0;
}

/* 0; -1: no memory. */
static inline int track_push(Track *track, PyObject *owner, int32_t entry) {
    if (UNLIKELY(track->depth == track->room)) {
        int room = track->room ? 2 * track->room : 8;
        OpenSlot *stack = PyMem_Realloc(track->stack, (size_t)room * sizeof *stack);
        if (stack == NULL) return -1;
        track->stack = stack;
        track->room = room;
    }
    track->stack[track->depth++] = (OpenSlot){Py_NewRef(owner), entry};
    return 0;
}

/* What is open on a track that ends has ended. */
static void track_end(Track *track) {
    while (track->depth) {
        OpenSlot slot = track->stack[--track->depth];
        if (track->buffer != NULL) entry_free(track->buffer, slot.entry, clock_ns());
        Py_DECREF(slot.owner);
    }
}

#endif
