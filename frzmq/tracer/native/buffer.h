/* A tracer's memory and who writes in it: what the other pages of this extension share.

   The interpreter lock is the only lock. Each function of C that runs no Python code is one step for all other threads, signal handlers and finalizers:
   an append and a cut need nothing else. Where Python code may run (PyObject_Call, Py_DECREF of the program's objects), what is half done is written down
   as such, or is done after. */

#ifndef FRZMQ_BUFFER_H
#define FRZMQ_BUFFER_H

#include "layout.h"
#include "pack.h"

#include <stddef.h>
#include <time.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the shared memory is little-endian"
#endif

#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

typedef struct Buffer Buffer;
typedef struct Writer Writer;
typedef struct Track Track;

typedef struct Chunk {
    uint8_t *mem;
    uint64_t *words;
    uint32_t size;
    uint32_t number;
    int state;
    int told_final;
    uint64_t serial;
    Writer *writer; /* strong, while it is not free */
    uint64_t first_index;
    uint64_t base_ns;
    uint64_t taken; /* up to here the agent has it: a published word of the past */
    uint64_t taken_ns;
    struct Chunk *before, *behind; /* in one list */
} Chunk;

typedef struct {
    Chunk *first, *last;
} ChunkList;

typedef struct {
    uint64_t start, end;
} Range;

/* An open entry on a track; what a matching end must bring is `owner` (strong). */
typedef struct {
    PyObject *owner;
    int32_t entry; /* -1: beyond the table, only counted */
} OpenSlot;

/* The thread itself (id 0) or an asyncio task, with the open entries of its spans, innermost last. */
struct Track {
    PyObject_HEAD
    uint32_t id;
    int automatic;    /* a name that no other task has: it goes into each record, not into the string table */
    PyObject *label;  /* str */
    PyObject *ref;    /* a weak one to the task; NULL for a thread */
    void *task;       /* its address, as long as it lives */
    Buffer *buffer;   /* NULL when it is gone */
    OpenSlot *stack;
    int depth, room;
};

/* A call that has not ended, of calls.h. */
typedef struct {
    struct CodeState *code; /* borrowed; NULL: its code is gone */
    uint64_t begin_ns;
    uint32_t track;
    int recorded;
} OpenCall;

struct Writer {
    PyObject_HEAD
    /* what each append looks at */
    uint8_t *pos, *limit; /* in the chunk; both NULL without one */
    uint64_t *words;
    uint64_t word;
    uint64_t last;
    PyObject *seen; /* the context of the last append, or `notice`, which none is */
    PyThreadState *tstate;
    Buffer *buffer; /* NULL when it is gone */
    Track *track;
    uint64_t op_id;
    OpenCall *calls; /* innermost last */
    int call_depth, call_room;
    /* the rest */
    Chunk *chunk;
    PyObject *context; /* keeps `seen`: an address alone comes back */
    Track *thread_track;
    PyObject *name;
    uint32_t id;
    unsigned long native_id;
    int busy; /* Python code runs in the middle of an append, or nothing more is appended */
    int ended;
    uint64_t index; /* of the first record of the chunk in use, or of the next one */
    uint64_t dropped;
    Range *lost; /* overwritten before they were taken, not yet reported */
    int lost_count, lost_room;
    uint64_t reported_index, reported_dropped;
    Writer *next; /* of the buffer's */
};

/* A name that was seen at this address: its packed reference. */
typedef struct {
    PyObject *key; /* strong, so that no other string can have its address */
    uint8_t size;
    uint8_t bytes[7];
    uint32_t id;
    int8_t secret; /* -1: not asked yet */
} KnownName;

enum { KNOWN_NAMES = 2048 };

struct Buffer {
    PyObject_HEAD
    PyObject *path, *map, *layout; /* str or None, mmap, Layout */
    Py_buffer view;
    uint8_t *mem;
    uint64_t *words;
    uint64_t serial_of_buffer; /* no other buffer of this process had it */
    unsigned long long errors;
    uint64_t generation;
    int closed; /* or another process's */
    /* chunks */
    Chunk *chunks;
    uint32_t chunk_count;
    ChunkList free_small, free_large, sealed;
    uint64_t serial;
    /* writers */
    Writer *writers; /* strong, newest first */
    uint32_t last_writer;
    uint64_t past_recorded, past_dropped, overwritten, refused;
    /* strings */
    uint8_t *strings;
    uint32_t strings_room;
    uint64_t strings_word, strings_taken;
    PyObject *string_ids; /* {str: id} */
    KnownName *known;
    /* open table */
    OpenEntry *table;
    PyObject **names; /* of the entries whose name is not in the string table: strong */
    uint32_t entries;
    uint32_t *free_entries; /* a ring: the one that ended longest ago is taken first */
    uint32_t free_head, free_count;
    uint64_t omitted;
    /* asyncio tasks */
    PyObject *tracks; /* {address of the task: Track} */
    uint32_t last_track;
    Buffer *next_alive;
};

/* Never equal to a context: the next append looks closer. */
static char notice;
#define NOTICE ((PyObject *)&notice)

/* Of the thread. On glibc the fastest model, which a library that is loaded late may use for so few bytes; others (musl) refuse it. */
#ifdef __GLIBC__
#define THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))
#else
#define THREAD_LOCAL static __thread
#endif
THREAD_LOCAL Writer *tls_writer;
THREAD_LOCAL int tls_making; /* a writer of this thread is being made */
THREAD_LOCAL uint64_t tls_no_calls; /* the id of a thread state, and 1: it is the agent's, or at its end. A thread of C has one state after the other */

/* Where the api records into; NULL while it is off, or armed by something that is no buffer of this kind. */
static Buffer *active;
static Buffer *alive; /* all of them, for the child of a fork */
static uint64_t buffers_made;

static PyTypeObject *BufferType, *WriterType, *TrackType, *ThreadEndType, *SpanType;

/* What this extension uses of the package, bound when the first buffer is made. */
static struct {
    PyObject *make_memory, *thread_name, *task_label, *install_asyncio_hook, *current, *is_fault, *is_secret;
    PyObject *pack_text, *pack_value, *type_name, *redacted, *pack_attributes;
    PyObject *Slice, *Cut, *Totals, *WriterEnd, *WriterInfo, *OpenItem;
    PyObject *running_loop, *current_task; /* asyncio's, once it is loaded */
    PyObject *empty, *automatic_name, *str_id;
    PyObject *asyncio_tasks, *asyncio_events; /* the names of the modules */
} py;

static inline uint64_t clock_ns(void) {
#ifdef __APPLE__
    return clock_gettime_nsec_np(CLOCK_UPTIME_RAW); /* as time.monotonic_ns() */
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
}

static int bind_one(PyObject **place, const char *module, const char *name) {
    if (*place != NULL) return 0;
    PyObject *found = PyImport_ImportModule(module);
    if (found == NULL) return -1;
    *place = PyObject_GetAttrString(found, name);
    Py_DECREF(found);
    return *place == NULL ? -1 : 0;
}

/* After Python code has raised in the middle of an append. 0: a fault of ours, now counted and forgotten. -1: what the program raised, from a signal
   handler: still raised. */
static int fault(Buffer *buffer) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    int ours = 1;
    /* what C code raised has no traceback, and is ours */
    if (traceback != NULL && value != NULL) {
        PyException_SetTraceback(value, traceback);
        PyObject *answer = bind_one(&py.is_fault, "frzmq.tracer.faults", "is_fault") < 0 ? NULL : PyObject_CallOneArg(py.is_fault, value);
        ours = answer == NULL || PyObject_IsTrue(answer) == 1;
        PyErr_Clear();
        Py_XDECREF(answer);
    }
    if (!ours) {
        PyErr_Restore(type, value, traceback);
        return -1;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    if (buffer != NULL) buffer->errors++;
    return 0;
}

#endif
