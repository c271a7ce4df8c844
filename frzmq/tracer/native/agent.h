/* The agent's side of a buffer: it cuts, takes slices, and releases. */

#ifndef FRZMQ_AGENT_H
#define FRZMQ_AGENT_H

#include "writer.h"

/* What a `Slice` says: gathered without running Python code, made into objects after. */
typedef struct {
    uint32_t chunk, writer, offset, size;
    uint64_t serial, first_index, count, base_ns, last_ns;
    PyObject *body;
    int final;
} Piece;

typedef struct {
    Piece *pieces;
    Py_ssize_t count, room;
    size_t bytes;
} Pieces;

static uint64_t last_time(const Chunk *chunk) {
    uint64_t count = word_count(chunk->words[PUBLISHED_WORD]);
    return count ? chunk->words[LAST_WORDS + (count & 1)] : chunk->base_ns;
}

/* What was published of `chunk` since the last time. -1: no memory. */
static int take_piece(Pieces *into, Chunk *chunk) {
    if (chunk->told_final || chunk->state == CHUNK_FREE) return 0;
    uint64_t word = chunk->words[PUBLISHED_WORD], last_ns = last_time(chunk);
    uint32_t start = word_end(chunk->taken), end = word_end(word);
    int final = chunk->state == CHUNK_SEALED;
    if (end <= start && !final) return 0;
    if (into->count == into->room) {
        Py_ssize_t room = into->room ? 2 * into->room : 16;
        Piece *pieces = PyMem_Realloc(into->pieces, (size_t)room * sizeof *pieces);
        if (pieces == NULL) return -1;
        into->pieces = pieces;
        into->room = room;
    }
    PyObject *body = PyBytes_FromStringAndSize((const char *)chunk->mem + start, end - start);
    if (body == NULL) return -1;
    into->pieces[into->count++] = (Piece){
        chunk->number, chunk->writer->id, start, end - start, chunk->serial, chunk->first_index + word_count(chunk->taken),
        word_count(word) - word_count(chunk->taken), chunk->taken_ns, last_ns, body, final,
    };
    into->bytes += end - start;
    chunk->taken = word;
    chunk->taken_ns = last_ns;
    chunk->told_final = final;
    return 0;
}

/* Sealed chunks, oldest first, then owned ones, as long as `most` is not reached. */
static int take_pieces(Buffer *b, Pieces *into, size_t most) {
    for (Chunk *chunk = b->sealed.first; chunk != NULL && into->bytes < most; chunk = chunk->behind)
        if (take_piece(into, chunk) < 0) return -1;
    for (Writer *w = b->writers; w != NULL && into->bytes < most; w = w->next)
        if (w->chunk != NULL && take_piece(into, w->chunk) < 0) return -1;
    return 0;
}

/* A list of Slice; what was gathered goes. NULL: raised. */
static PyObject *slices_of(Pieces *from, int failed) {
    PyObject *list = failed ? PyErr_NoMemory() : PyList_New(0);
    for (Py_ssize_t n = 0; n < from->count; n++) {
        Piece *p = &from->pieces[n];
        if (list != NULL) {
            PyObject *slice = PyObject_CallFunction(
                py.Slice, "IKIIIKKKKOO", p->chunk, (unsigned long long)p->serial, p->offset, p->size, p->writer,
                (unsigned long long)p->first_index, (unsigned long long)p->count, (unsigned long long)p->base_ns,
                (unsigned long long)p->last_ns, p->body, p->final ? Py_True : Py_False
            );
            if (slice == NULL || PyList_Append(list, slice) < 0) Py_CLEAR(list);
            Py_XDECREF(slice);
        }
        Py_DECREF(p->body);
    }
    PyMem_Free(from->pieces);
    return list;
}

static PyObject *buffer_slices(PyObject *self, PyObject *arg) {
    long long most = PyLong_AsLongLong(arg);
    if (most == -1 && PyErr_Occurred()) return NULL;
    Pieces pieces = {NULL, 0, 0, 0};
    int failed = take_pieces((Buffer *)self, &pieces, (size_t)(most > 0 ? most : 1)) < 0;
    return slices_of(&pieces, failed);
}

/* --- the cut */

static void calls_before_cut(Buffer *b);
static void calls_after_cut(Buffer *b);

typedef struct {
    uint32_t writer;
    uint64_t first_index, next_index, dropped;
    Range *lost; /* taken over */
    int lost_count;
} End;

/* The writers that have news, and the end of those whose thread has ended. -1: no memory. */
static int take_ends(Buffer *b, End **ends, Py_ssize_t *count, Writer **gone) {
    Py_ssize_t room = 0;
    for (Writer *w = b->writers; w != NULL; w = w->next) room++;
    *ends = PyMem_Calloc((size_t)room + 1, sizeof **ends);
    if (*ends == NULL) return -1;
    for (Writer **at = &b->writers; *at != NULL;) {
        Writer *w = *at;
        uint64_t next = writer_next_index(w);
        if (next != w->reported_index || w->dropped != w->reported_dropped || w->lost_count) {
            (*ends)[(*count)++] = (End){w->id, w->reported_index, next, w->dropped, w->lost, w->lost_count};
            w->lost = NULL;
            w->lost_count = w->lost_room = 0;
            w->reported_index = next;
            w->reported_dropped = w->dropped;
        }
        if (w->ended) {
            b->past_recorded += w->index;
            b->past_dropped += w->dropped;
            *at = w->next;
            w->next = *gone;
            *gone = w;
        } else {
            at = &w->next;
        }
    }
    return 0;
}

/* Oldest writer first. NULL: raised. */
static PyObject *ends_of(End *ends, Py_ssize_t count) {
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t n = 0; n < count; n++) {
        End *end = &ends[count - 1 - n];
        PyObject *lost = tuple == NULL ? NULL : PyTuple_New(end->lost_count);
        for (int r = 0; lost != NULL && r < end->lost_count; r++) {
            PyObject *range = Py_BuildValue("KK", (unsigned long long)end->lost[r].start, (unsigned long long)end->lost[r].end);
            if (range == NULL)
                Py_CLEAR(lost);
            else
                PyTuple_SET_ITEM(lost, r, range);
        }
        PyObject *made = lost == NULL ? NULL : PyObject_CallFunction(
            py.WriterEnd, "IKKKO", end->writer, (unsigned long long)end->first_index, (unsigned long long)end->next_index,
            (unsigned long long)end->dropped, lost
        );
        if (made == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, n, made);
        Py_XDECREF(lost);
        PyMem_Free(end->lost);
    }
    PyMem_Free(ends);
    return tuple;
}

/* Opens a generation: what was appended until now is of the one before. One step for all threads: no thread needs to notice it by itself. */
static PyObject *buffer_cut(PyObject *self, PyObject *arg) {
    Buffer *b = (Buffer *)self;
    unsigned long long generation = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    Pieces pieces = {NULL, 0, 0, 0};
    End *ends = NULL;
    Py_ssize_t count = 0;
    Writer *gone = NULL;
    calls_before_cut(b);
    b->generation = generation;
    publish(&b->words[GENERATION_WORD], generation);
    for (Writer *w = b->writers; w != NULL; w = w->next) {
        w->seen = NOTICE;
        if (w->chunk == NULL) continue;
        w->words[CUT_WORD] = w->word;
        w->words[CUT_BASE_WORD] = w->last;
        publish(&w->words[CUT_GENERATION_WORD], generation);
    }
    int failed = take_pieces(b, &pieces, SIZE_MAX) < 0;
    failed |= take_ends(b, &ends, &count, &gone) < 0;
    while (gone != NULL) {
        Writer *next = gone->next;
        gone->next = NULL;
        Py_DECREF(gone);
        gone = next;
    }
    calls_after_cut(b);
    PyObject *slices = slices_of(&pieces, failed), *tuple = ends_of(ends, count), *cut = NULL;
    if (slices != NULL && tuple != NULL) cut = PyObject_CallFunctionObjArgs(py.Cut, slices, tuple, NULL);
    Py_XDECREF(slices);
    Py_XDECREF(tuple);
    return cut;
}

/* --- what was taken */

static int slice_number(PyObject *slice, const char *name, unsigned long long *number) {
    PyObject *value = PyObject_GetAttrString(slice, name);
    if (value == NULL) return -1;
    *number = PyLong_AsUnsignedLongLong(value);
    Py_DECREF(value);
    return PyErr_Occurred() ? -1 : 0;
}

/* The bytes again; None when the chunk is in another use. */
static PyObject *buffer_read(PyObject *self, PyObject *slice) {
    Buffer *b = (Buffer *)self;
    unsigned long long chunk, serial, offset, size;
    if (slice_number(slice, "chunk", &chunk) < 0 || slice_number(slice, "serial", &serial) < 0 ||
        slice_number(slice, "offset", &offset) < 0 || slice_number(slice, "size", &size) < 0)
        return NULL;
    if (chunk >= b->chunk_count || b->chunks[chunk].serial != serial || offset > b->chunks[chunk].size ||
        size > b->chunks[chunk].size - offset)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)b->chunks[chunk].mem + offset, (Py_ssize_t)size);
}

/* All of this use of the chunk is acknowledged: it may be used again. Does nothing when it already is in another use. */
static PyObject *buffer_release(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Buffer *b = (Buffer *)self;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "release: wanted a chunk and a serial");
        return NULL;
    }
    unsigned long number = PyLong_AsUnsignedLong(args[0]);
    unsigned long long serial = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (number < b->chunk_count) {
        Chunk *chunk = &b->chunks[number];
        if (chunk->serial == serial && chunk->state == CHUNK_SEALED && chunk->told_final) {
            list_remove(&b->sealed, chunk);
            chunk_free(b, chunk);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *buffer_writer_infos(PyObject *self, PyObject *ignored) {
    (void)ignored;
    PyObject *list = PyList_New(0), *rows = PyList_New(0);
    /* as numbers first: making a WriterInfo runs Python code */
    for (Writer *w = ((Buffer *)self)->writers; w != NULL && rows != NULL; w = w->next) {
        PyObject *row = Py_BuildValue("IOk", w->id, w->name, w->native_id);
        if (row == NULL || PyList_Insert(rows, 0, row) < 0) Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    for (Py_ssize_t n = 0; list != NULL && rows != NULL && n < PyList_GET_SIZE(rows); n++) {
        PyObject *info = PyObject_CallObject(py.WriterInfo, PyList_GET_ITEM(rows, n));
        if (info == NULL || PyList_Append(list, info) < 0) Py_CLEAR(list);
        Py_XDECREF(info);
    }
    if (rows == NULL) Py_CLEAR(list);
    Py_XDECREF(rows);
    return list;
}

static PyObject *buffer_totals(PyObject *self, PyObject *ignored) {
    (void)ignored;
    Buffer *b = (Buffer *)self;
    unsigned long long recorded = b->past_recorded, dropped = b->past_dropped + b->refused, overwritten = b->overwritten;
    for (Writer *w = b->writers; w != NULL; w = w->next) {
        recorded += writer_next_index(w);
        dropped += w->dropped;
    }
    return PyObject_CallFunction(py.Totals, "KKK", recorded, dropped, overwritten);
}

/* --- what is open */

/* The moment of a writer, which may have one of its own; -1: an error is set. */
static int moment_of(PyObject *moments, uint32_t writer, unsigned long long *at_ns) {
    if (moments == NULL) return 0;
    PyObject *key = PyLong_FromUnsignedLong(writer);
    if (key == NULL) return -1;
    PyObject *found = PyDict_GetItemWithError(moments, key);
    Py_DECREF(key);
    if (found != NULL) *at_ns = PyLong_AsUnsignedLongLong(found);
    return PyErr_Occurred() ? -1 : 0;
}

/* `(items, how many were open beyond the table)`: what was open at a moment of the recent past; by writer, it may be another one. */
static PyObject *buffer_open_items(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Buffer *b = (Buffer *)self;
    if (count < 1 || count > 2 || (count == 2 && !PyDict_CheckExact(args[1]))) {
        PyErr_SetString(PyExc_TypeError, "open_items: wanted a moment, and a dict of others by writer");
        return NULL;
    }
    PyObject *moments = count == 2 && PyDict_GET_SIZE(args[1]) ? args[1] : NULL, *value;
    unsigned long long most_ns = PyLong_AsUnsignedLongLong(args[0]), first_ns = most_ns;
    for (Py_ssize_t at = 0; !PyErr_Occurred() && moments != NULL && PyDict_Next(moments, &at, NULL, &value);) {
        unsigned long long moment_ns = PyLong_AsUnsignedLongLong(value);
        if (moment_ns < first_ns) first_ns = moment_ns;
    }
    if (PyErr_Occurred()) return NULL;
    unsigned long long omitted = b->omitted;
    PyObject *rows = PyList_New(0);
    for (uint32_t n = 0; rows != NULL && n < b->entries; n++) {
        OpenEntry *e = &b->table[n];
        unsigned long long at_ns = most_ns;
        if (e->kind == 0 || (e->end_ns != 0 && e->end_ns < first_ns)) continue;
        if (moment_of(moments, e->writer, &at_ns) < 0) {
            Py_CLEAR(rows);
            break;
        }
        if (e->begin_ns >= at_ns || (e->end_ns != 0 && e->end_ns < at_ns)) continue;
        static const uint8_t no_trace[16];
        Py_ssize_t trace = memcmp(e->trace, no_trace, sizeof no_trace) ? (Py_ssize_t)sizeof e->trace : 0;
        PyObject *name = e->name ? PyLong_FromUnsignedLong(e->name) : Py_NewRef(b->names[n] ? b->names[n] : Py_None);
        PyObject *row = Py_BuildValue(
            "IIIKNKKy#", e->kind, e->writer, e->track, (unsigned long long)e->begin_ns, name, (unsigned long long)e->op,
            (unsigned long long)e->parent, (const char *)e->trace, trace
        );
        if (row == NULL || PyList_Append(rows, row) < 0) Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    for (Py_ssize_t n = 0; rows != NULL && n < PyList_GET_SIZE(rows); n++) {
        PyObject *item = PyObject_CallObject(py.OpenItem, PyList_GET_ITEM(rows, n));
        if (item == NULL || PyList_SetItem(rows, n, item) < 0) Py_CLEAR(rows);
    }
    return rows == NULL ? NULL : Py_BuildValue("NK", rows, omitted);
}

#endif
