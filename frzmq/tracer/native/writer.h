/* One thread's stream of records: its appends, its tasks, its begin and end. */

#ifndef FRZMQ_WRITER_H
#define FRZMQ_WRITER_H

#include "chunks.h"
#include "opens.h"
#include "strings.h"
#include "ticks.h"

enum { MAX_HEAD_BYTES = 1 + MAX_UINT_BYTES };

/* --- one append */

/* The args go to the place that this gives: `MAX_HEAD_BYTES + size` bytes, behind kind and time. NULL: no room, which is counted. */
static inline uint8_t *append_begin(Writer *w, uint8_t kind, size_t size, uint64_t *now) {
    if (UNLIKELY((size_t)(w->limit - w->pos) < MAX_HEAD_BYTES + size) && !writer_take(w, MAX_HEAD_BYTES + size)) {
        w->dropped++;
        return NULL;
    }
    *now = ticks_ns();
    /* ticks.h: two processors' counters may differ */
    if (UNLIKELY(*now < w->last)) *now = w->last;
    uint8_t *p = w->pos;
    *p = kind;
    return put_delta(p + 1, *now - w->last);
}

/* `end`: behind the args. The bytes, the time in the slot that the published count does not name, and only then the count. */
static inline void append_end(Writer *w, const uint8_t *end, uint64_t now) {
    uint64_t word = w->word + (1ull << 32) + (uint64_t)(end - w->pos);
    w->words[LAST_WORDS + (word_count(word) & 1)] = now;
    /* whoever finds another byte there knows that a record was begun */
    if (LIKELY(end < w->limit)) *(uint8_t *)end = 0;
    publish(&w->words[PUBLISHED_WORD], word);
    w->word = word;
    w->last = now;
    w->pos = (uint8_t *)end;
}

/* 1; 0: dropped, and counted. */
static int writer_put(Writer *w, uint8_t kind, const uint8_t *args, size_t size) {
    uint64_t now;
    uint8_t *p = append_begin(w, kind, size, &now);
    if (p == NULL) return 0;
    if (size != 0) memcpy(p, args, size); /* without any there may be no place of theirs */
    append_end(w, p + size, now);
    return 1;
}

static uint64_t writer_next_index(const Writer *w) {
    return w->chunk == NULL ? w->index : w->chunk->first_index + word_count(w->word);
}

/* --- tracks */

static PyObject *track_gone(PyObject *self, PyObject *ref);
static PyMethodDef track_gone_method = {"track_gone", track_gone, METH_O, NULL};

/* The task of `track` is gone. */
static PyObject *track_gone(PyObject *self, PyObject *ref) {
    Track *track = (Track *)self;
    Buffer *b = track->buffer;
    Py_INCREF(track);
    if (b != NULL && track->ref == ref) {
        for (Writer *w = b->writers; w != NULL; w = w->next)
            if (w->track == track) w->seen = NOTICE;
        track_end(track);
        PyObject *key = PyLong_FromVoidPtr(track->task);
        if (key == NULL || (b->tracks != NULL && PyDict_DelItem(b->tracks, key) < 0)) PyErr_Clear();
        Py_XDECREF(key);
        track->buffer = NULL;
    }
    Py_CLEAR(track->ref);
    Py_DECREF(track);
    Py_RETURN_NONE;
}

static Track *track_new(Buffer *b, uint32_t id, PyObject *label) {
    Track *track = PyObject_New(Track, TrackType);
    if (track == NULL) return NULL;
    track->id = id;
    track->automatic = 0;
    track->label = Py_NewRef(label);
    track->ref = NULL;
    track->task = NULL;
    track->buffer = b;
    track->stack = NULL;
    track->depth = track->room = 0;
    return track;
}

static void track_dealloc(Track *track) {
    PyTypeObject *type = Py_TYPE(track);
    track_end(track);
    PyMem_Free(track->stack);
    Py_XDECREF(track->ref);
    Py_XDECREF(track->label);
    PyObject_Free(track);
    Py_DECREF(type);
}

/* That of an asyncio task: a new reference. NULL: raised. */
static Track *track_of_task(Buffer *b, PyObject *task) {
    PyObject *key = PyLong_FromVoidPtr(task);
    if (key == NULL) return NULL;
    Track *track = (Track *)PyDict_GetItemWithError(b->tracks, key);
    if (track != NULL || PyErr_Occurred()) {
        Py_XINCREF(track);
        Py_DECREF(key);
        return track;
    }
    PyObject *label = PyObject_CallOneArg(py.task_label, task), *gone = NULL;
    if (label != NULL && (track = track_new(b, 0, label)) != NULL) {
        int automatic = PyUnicode_Tailmatch(label, py.automatic_name, 0, PY_SSIZE_T_MAX, -1);
        track->automatic = automatic == 1;
        if (automatic >= 0 && (gone = PyCFunction_New(&track_gone_method, (PyObject *)track)) != NULL &&
            (track->ref = PyWeakref_NewRef(task, gone)) != NULL) {
            /* the label was asked of Python code: another thread's tasks may have come in the meantime */
            track->id = ++b->last_track;
            track->task = task;
            if (PyDict_SetItem(b->tracks, key, (PyObject *)track) < 0) Py_CLEAR(track);
        } else {
            Py_CLEAR(track);
        }
    }
    Py_XDECREF(gone);
    Py_XDECREF(label);
    Py_DECREF(key);
    return track;
}

/* asyncio's functions, once it is loaded. -1: raised. */
static int find_asyncio(void) {
    PyObject *tasks = PyImport_GetModule(py.asyncio_tasks), *events = PyImport_GetModule(py.asyncio_events);
    int ok = 0;
    if (tasks != NULL && events != NULL) {
        PyObject *loop = PyObject_GetAttrString(events, "_get_running_loop");
        PyObject *task = loop == NULL ? NULL : PyObject_GetAttrString(tasks, "current_task");
        if (loop != NULL && task != NULL) {
            PyObject *done = PyObject_CallNoArgs(py.install_asyncio_hook);
            ok = done == NULL ? -1 : 0;
            Py_XDECREF(done);
            if (py.running_loop == NULL) {
                py.current_task = Py_NewRef(task);
                py.running_loop = Py_NewRef(loop);
            }
        } else {
            PyErr_Clear(); /* it is being imported */
        }
        Py_XDECREF(loop);
        Py_XDECREF(task);
    }
    Py_XDECREF(tasks);
    Py_XDECREF(events);
    return ok;
}

/* Where this thread is: a new reference. NULL: raised. */
static Track *current_track(Writer *w) {
    if (py.running_loop == NULL && find_asyncio() < 0) return NULL;
    if (py.running_loop == NULL) return (Track *)Py_NewRef(w->thread_track);
    PyObject *loop = PyObject_CallNoArgs(py.running_loop);
    if (loop == NULL) return NULL;
    PyObject *task = loop == Py_None ? Py_NewRef(Py_None) : PyObject_CallOneArg(py.current_task, loop);
    Py_DECREF(loop);
    if (task == NULL) return NULL;
    Track *track = task == Py_None ? (Track *)Py_NewRef(w->thread_track) : track_of_task(w->buffer, task);
    Py_DECREF(task);
    return track;
}

/* The id of the current operation, or 0. -1: raised. */
static int current_op(uint64_t *id) {
    PyObject *state;
    *id = 0;
    if (PyContextVar_Get(py.current, NULL, &state) < 0) return -1;
    int ok = 0;
    if (state != NULL && state != Py_None) {
        PyObject *number = PyObject_GetAttr(state, py.str_id);
        if (number == NULL) {
            ok = -1;
        } else {
            *id = PyLong_AsUnsignedLongLong(number);
            if (PyErr_Occurred()) ok = -1;
            Py_DECREF(number);
        }
    }
    Py_XDECREF(state);
    return ok;
}

/* --- what each append looks at first */

/* Says in a CONTEXT record whose records follow: the task or the operation changed, or a generation began. 1: go on. 0: this record is dropped, which is
   counted. -1: raised by the program. */
static int writer_switch(Writer *w) {
    if (w->busy) {
        w->dropped++;
        return 0;
    }
    Buffer *b = w->buffer;
    int answer = -1;
    uint64_t op;
    Packer packer;
    Track *track = NULL;
    PyObject *context = w->tstate->context;
    w->busy = 1;
    Py_INCREF(b);
    Py_INCREF(w);
    Py_XINCREF(context);
    if (current_op(&op) == 0 && (track = current_track(w)) != NULL) {
        packer_init(&packer);
        pack_uint(&packer, track->id);
        if ((track->automatic && pack_easy_text(&packer, track->label, MAX_VALUE_BYTES)) || pack_name(b, &packer, track->label) == 0) {
            pack_uint(&packer, op);
            answer = 1;
        }
    }
    PyObject *old_context = NULL;
    Track *old_track = NULL;
    if (answer == 1 && w->buffer != NULL) {
        /* from here to the record no Python code runs */
        old_context = w->context;
        old_track = w->track;
        w->context = Py_XNewRef(context);
        w->seen = context;
        w->track = (Track *)Py_NewRef(track);
        w->op_id = op;
        writer_put(w, KIND_CONTEXT, packer.bytes, packer_size(&packer));
    } else if (answer < 0) {
        answer = fault(b);
        w->dropped += answer == 0;
    } else {
        answer = 0;
    }
    w->busy = 0;
    Py_XDECREF(old_context);
    Py_XDECREF(old_track);
    Py_XDECREF(track);
    Py_XDECREF(context);
    Py_DECREF(b);
    if (w->buffer == NULL && answer == 1) answer = 0;
    Py_DECREF(w);
    return answer;
}

/* 1, 0 or -1 as `writer_switch`; whose records follow is known then. */
static inline int writer_look(Writer *w) {
    return LIKELY(w->seen == w->tstate->context) ? 1 : writer_switch(w);
}

/* A whole append: 1; 0: dropped, and counted; -1: raised by the program. */
static int writer_append(Writer *w, uint8_t kind, const uint8_t *args, size_t size) {
    int answer = writer_look(w);
    return answer == 1 ? writer_put(w, kind, args, size) : answer;
}

/* --- begin and end */

typedef struct {
    PyObject_HEAD
    Writer **writers; /* of this thread, in one buffer each; strong */
    int count;
} ThreadEnd;

/* The thread has ended: its chunk returns, its counts stay until the next cut has reported them. */
static void writer_end(Writer *w) {
    Buffer *b = w->buffer;
    if (tls_writer == w) {
        tls_writer = NULL;
        /* what is torn down with it calls, too, and would make a writer again */
        tls_no_calls = PyThreadState_GetID(w->tstate) + 1;
    }
    if (b == NULL || w->ended) return;
    if (b->closed) {
        w->ended = 1;
        return;
    }
    /* for good: nothing more, also not from what else the thread tears down */
    w->busy = 1;
    w->seen = NOTICE;
    if (w->track != w->thread_track || w->op_id) {
        static const uint8_t nowhere[3] = {0, 0xa0, 0};
        writer_put(w, KIND_CONTEXT, nowhere, sizeof nowhere);
    }
    writer_put(w, KIND_THREAD_END, (const uint8_t *)"", 0);
    writer_seal(w);
    w->ended = 1;
    track_end(w->thread_track);
    Py_CLEAR(w->context);
    Py_CLEAR(w->track);
}

static void thread_end_dealloc(ThreadEnd *end) {
    PyTypeObject *type = Py_TYPE(end);
    for (int n = 0; n < end->count; n++) {
        writer_end(end->writers[n]);
        Py_DECREF(end->writers[n]);
    }
    PyMem_Free(end->writers);
    PyObject_Free(end);
    Py_DECREF(type);
}

/* `w` ends when this thread's state goes. -1: raised. */
static int end_with_thread(Writer *w) {
    PyObject *dict = PyThreadState_GetDict();
    if (dict == NULL) return -1;
    ThreadEnd *end = (ThreadEnd *)PyDict_GetItemWithError(dict, (PyObject *)ThreadEndType);
    if (end == NULL) {
        if (PyErr_Occurred() || (end = PyObject_New(ThreadEnd, ThreadEndType)) == NULL) return -1;
        end->writers = NULL;
        end->count = 0;
        int failed = PyDict_SetItem(dict, (PyObject *)ThreadEndType, (PyObject *)end) < 0;
        Py_DECREF(end);
        if (failed) return -1;
    }
    int kept = 0;
    for (int n = 0; n < end->count; n++) {
        /* a long thread outlives many buffers */
        if (end->writers[n]->buffer != NULL)
            end->writers[kept++] = end->writers[n];
        else
            Py_DECREF(end->writers[n]);
    }
    end->count = kept;
    Writer **writers = PyMem_Realloc(end->writers, (size_t)(kept + 1) * sizeof *writers);
    if (writers == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    end->writers = writers;
    writers[end->count++] = (Writer *)Py_NewRef(w);
    return 0;
}

static Writer *writer_new(Buffer *b) {
    Writer *w = PyObject_New(Writer, WriterType);
    if (w == NULL) return NULL;
    memset((char *)w + offsetof(Writer, pos), 0, sizeof *w - offsetof(Writer, pos));
    w->seen = NOTICE;
    w->tstate = PyThreadState_Get();
    w->buffer = b;
    w->native_id = PyThread_get_thread_native_id();
    w->last = clock_ns();
    w->name = Py_NewRef(py.empty);
    if ((w->thread_track = track_new(b, 0, py.empty)) == NULL) {
        Py_DECREF(w);
        return NULL;
    }
    w->track = (Track *)Py_NewRef(w->thread_track);
    return w;
}

/* One that drops everything, while this thread's own is being made. */
static Writer *refusing_writer(Buffer *b) {
    Writer *w = writer_new(b);
    if (w != NULL) w->busy = 1;
    b->refused++;
    return w;
}

static int append_begin_of_thread(Writer *w) {
    Packer packer;
    packer_init(&packer);
    if (w->id == 1) {
        pack_uint(&packer, (uint64_t)getpid());
        pack_uint(&packer, (uint64_t)getppid());
        if (writer_append(w, KIND_PROCESS_BEGIN, packer.bytes, packer_size(&packer)) < 0) return -1;
        packer_init(&packer);
    }
    if (pack_name(w->buffer, &packer, w->name) < 0) return -1;
    pack_uint(&packer, w->native_id);
    return writer_append(w, KIND_THREAD_BEGIN, packer.bytes, packer_size(&packer)) < 0 ? -1 : 0;
}

/* This thread's, made at first use: a new reference. NULL: raised. */
static Writer *writer_of_thread(Buffer *b) {
    if (tls_writer != NULL && tls_writer->buffer == b) return (Writer *)Py_NewRef(tls_writer);
    PyThreadState *tstate = PyThreadState_Get();
    for (Writer *w = b->writers; w != NULL; w = w->next)
        if (w->tstate == tstate && !w->ended) {
            tls_writer = w;
            return (Writer *)Py_NewRef(w);
        }
    if (tls_making || b->closed) return refusing_writer(b);
    tls_making = 1;
    Writer *w = NULL;
    PyObject *name = PyObject_CallNoArgs(py.thread_name);
    if (name != NULL && (w = writer_new(b)) != NULL) {
        Py_SETREF(w->name, Py_NewRef(name));
        if (end_with_thread(w) < 0) {
            Py_CLEAR(w);
        } else {
            w->id = ++b->last_writer;
            w->next = b->writers;
            b->writers = (Writer *)Py_NewRef(w);
            tls_writer = w;
        }
    }
    Py_XDECREF(name);
    tls_making = 0;
    if (w != NULL && append_begin_of_thread(w) < 0 && fault(b) < 0) Py_CLEAR(w);
    return w;
}

/* --- the type, for the package's own Python code */

static void writer_dealloc(Writer *w) {
    PyTypeObject *type = Py_TYPE(w);
    PyMem_Free(w->lost);
    PyMem_Free(w->calls);
    Py_XDECREF(w->context);
    Py_XDECREF(w->track);
    Py_XDECREF(w->thread_track);
    Py_XDECREF(w->name);
    PyObject_Free(w);
    Py_DECREF(type);
}

static PyObject *writer_append_method(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Writer *w = (Writer *)self;
    if (count != 2 || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "append: wanted a kind and its packed args");
        return NULL;
    }
    long kind = PyLong_AsLong(args[0]);
    if (kind == -1 && PyErr_Occurred()) return NULL;
    int answer = 0;
    if (w->buffer == NULL || w->tstate != PyThreadState_Get())
        w->dropped++;
    else
        answer = writer_append(w, (uint8_t)kind, (const uint8_t *)PyBytes_AS_STRING(args[1]), (size_t)PyBytes_GET_SIZE(args[1]));
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}

/* Its record, and its entry in the open table: a number; None when the record was dropped. */
static PyObject *writer_begin_operation(PyObject *self, PyObject *args) {
    Writer *w = (Writer *)self;
    PyObject *name, *attributes;
    unsigned long long id, parent, remote;
    const char *trace;
    Py_ssize_t trace_bytes;
    if (!PyArg_ParseTuple(args, "UKKy#KO!", &name, &id, &parent, &trace, &trace_bytes, &remote, &PyDict_Type, &attributes)) return NULL;
    Buffer *b = w->buffer;
    if (b == NULL || trace_bytes != 16 || w->tstate != PyThreadState_Get()) {
        w->dropped++;
        Py_RETURN_NONE;
    }
    Packer packer;
    packer_init(&packer);
    int64_t string = string_id(b, name);
    if (string < 0 || pack_name(b, &packer, name) < 0) return NULL;
    pack_uint(&packer, id);
    pack_uint(&packer, parent);
    pack_byte(&packer, 0xc4);
    pack_byte(&packer, 16);
    pack_bytes_of(&packer, trace, 16);
    pack_uint(&packer, remote);
    uint8_t *head = packer.p;
    int answer;
    if (pack_attributes(b, &packer, attributes) < 0) return NULL;
    if (packer.failed) {
        PyObject *bytes = packed_slowly(b, packer.bytes, (size_t)(head - packer.bytes), attributes);
        if (bytes == NULL) return NULL;
        answer = writer_append(w, KIND_OPERATION_BEGIN, (const uint8_t *)PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
        Py_DECREF(bytes);
    } else {
        answer = writer_append(w, KIND_OPERATION_BEGIN, packer.bytes, packer_size(&packer));
    }
    if (answer < 0) return NULL;
    if (answer == 0) Py_RETURN_NONE;
    return PyLong_FromLong(entry_open(
        b, KIND_OPERATION_BEGIN, w->id, w->last, (uint32_t)string, name, w->track->id, id, parent, (const uint8_t *)trace
    ));
}

static PyObject *writer_end_operation(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Writer *w = (Writer *)self;
    int32_t entry;
    if (count != 3 || !PyUnicode_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "end_operation: wanted an entry, an id and an exact str");
        return NULL;
    }
    unsigned long long id = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred()) return NULL;
    Buffer *b = w->buffer;
    if (b == NULL || w->tstate != PyThreadState_Get()) {
        w->dropped++;
        Py_RETURN_NONE;
    }
    if (entry_number(b, args[0], &entry) < 0) return NULL;
    Packer packer;
    packer_init(&packer);
    pack_uint(&packer, id);
    if (PyUnicode_GET_LENGTH(args[2]) == 0)
        pack_byte(&packer, NIL);
    else if (pack_name(b, &packer, args[2]) < 0)
        return NULL;
    if (writer_append(w, KIND_OPERATION_END, packer.bytes, packer_size(&packer)) < 0) return NULL;
    if (w->buffer == b) entry_free(b, entry, w->last);
    Py_RETURN_NONE;
}

static PyObject *writer_notice(PyObject *self, PyObject *ignored) {
    (void)ignored;
    ((Writer *)self)->seen = NOTICE;
    Py_RETURN_NONE;
}

static PyObject *get_busy(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(((Writer *)self)->busy);
}

static int set_busy(PyObject *self, PyObject *value, void *unused) {
    (void)unused;
    Writer *w = (Writer *)self;
    int busy = value == NULL ? -1 : PyObject_IsTrue(value);
    if (busy < 0) return -1;
    w->busy = busy;
    w->seen = NOTICE;
    return 0;
}

static PyObject *get_buffer(PyObject *self, void *unused) {
    (void)unused;
    Buffer *b = ((Writer *)self)->buffer;
    return Py_NewRef(b == NULL ? Py_None : (PyObject *)b);
}

static PyObject *get_track(PyObject *self, void *unused) {
    (void)unused;
    Writer *w = (Writer *)self;
    return PyLong_FromUnsignedLong(w->track == NULL ? 0 : w->track->id);
}

static PyObject *get_next_index(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(writer_next_index((Writer *)self));
}

static PyMethodDef writer_methods[] = {
    {"append", (PyCFunction)(void (*)(void))writer_append_method, METH_FASTCALL, NULL},
    {"begin_operation", writer_begin_operation, METH_VARARGS, NULL},
    {"end_operation", (PyCFunction)(void (*)(void))writer_end_operation, METH_FASTCALL, NULL},
    {"notice", writer_notice, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef writer_members[] = {
    {"id", T_UINT, offsetof(Writer, id), READONLY, NULL},
    {"name", T_OBJECT, offsetof(Writer, name), READONLY, NULL},
    {"native_id", T_ULONG, offsetof(Writer, native_id), READONLY, NULL},
    {"last", T_ULONGLONG, offsetof(Writer, last), 0, NULL},
    {"dropped", T_ULONGLONG, offsetof(Writer, dropped), 0, NULL},
    {"op_id", T_ULONGLONG, offsetof(Writer, op_id), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef writer_getset[] = {
    {"busy", get_busy, set_busy, NULL, NULL},
    {"buffer", get_buffer, NULL, NULL, NULL},
    {"track", get_track, NULL, NULL, NULL},
    {"next_index", get_next_index, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, writer_methods},
    {Py_tp_members, writer_members},
    {Py_tp_getset, writer_getset},
    {0, NULL},
};
static PyType_Spec writer_spec = {
    "frzmq.tracer._buffer.Writer", sizeof(Writer), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, writer_slots,
};

static PyType_Slot track_slots[] = {{Py_tp_dealloc, track_dealloc}, {0, NULL}};
static PyType_Spec track_spec = {
    "frzmq.tracer._buffer.Track", sizeof(Track), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, track_slots,
};

static PyType_Slot thread_end_slots[] = {{Py_tp_dealloc, thread_end_dealloc}, {0, NULL}};
static PyType_Spec thread_end_spec = {
    "frzmq.tracer._buffer.ThreadEnd", sizeof(ThreadEnd), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, thread_end_slots,
};

#endif
