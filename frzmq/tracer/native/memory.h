/* The type of a buffer: how it is made, and how it goes. */

#ifndef FRZMQ_MEMORY_H
#define FRZMQ_MEMORY_H

#include "agent.h"

static int bind_package(void) {
    static const struct {
        PyObject **place;
        const char *module, *name;
    } wanted[] = {
        {&py.make_memory, "frzmq.tracer.memory", "make_memory"},
        {&py.thread_name, "frzmq.tracer.places", "thread_name"},
        {&py.task_label, "frzmq.tracer.places", "task_label"},
        {&py.install_asyncio_hook, "frzmq.tracer.places", "install_asyncio_hook"},
        {&py.automatic_name, "frzmq.tracer.places", "AUTOMATIC_NAME"},
        {&py.current, "frzmq.tracer.context", "current"},
        {&py.is_fault, "frzmq.tracer.faults", "is_fault"},
        {&py.is_secret, "frzmq.tracer.redact", "is_secret"},
        {&py.redacted, "frzmq.tracer.redact", "REDACTED"},
        {&py.pack_text, "frzmq.tracer.attributes", "pack_text"},
        {&py.pack_value, "frzmq.tracer.attributes", "pack_value"},
        {&py.type_name, "frzmq.tracer.attributes", "type_name"},
        {&py.pack_attributes, "frzmq.tracer.attributes", "pack_attributes"},
        {&py.Slice, "frzmq.tracer.slices", "Slice"},
        {&py.Cut, "frzmq.tracer.slices", "Cut"},
        {&py.Totals, "frzmq.tracer.slices", "Totals"},
        {&py.WriterEnd, "frzmq.wire.batch", "WriterEnd"},
        {&py.WriterInfo, "frzmq.wire.batch", "WriterInfo"},
        {&py.OpenItem, "frzmq.wire.batch", "OpenItem"},
    };
    for (size_t n = 0; n < sizeof wanted / sizeof *wanted; n++)
        if (bind_one(wanted[n].place, wanted[n].module, wanted[n].name) < 0) return -1;
    return 0;
}

static int number_of(PyObject *layout, const char *name, unsigned long long *number) { return slice_number(layout, name, number); }

static PyObject *buffer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *uuid, *directory, *made = NULL;
    unsigned long long incarnation, size, strings_offset, strings_bytes, open_offset, entries, chunks_offset, small, large;
    static char *names[] = {"uuid", "incarnation", "directory", "size_bytes", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "SKOK", names, &uuid, &incarnation, &directory, &size) || bind_package() < 0)
        return NULL;
    Buffer *b = (Buffer *)type->tp_alloc(type, 0);
    if (b == NULL) return NULL;
    if ((made = PyObject_CallFunction(py.make_memory, "OKOK", uuid, incarnation, directory, size)) == NULL ||
        !PyArg_ParseTuple(made, "OOO", &b->path, &b->map, &b->layout))
        goto failed;
    Py_INCREF(b->path);
    Py_INCREF(b->map);
    Py_INCREF(b->layout);
    Py_CLEAR(made);
    if (PyObject_GetBuffer(b->map, &b->view, PyBUF_WRITABLE) < 0 || number_of(b->layout, "strings_offset", &strings_offset) < 0 ||
        number_of(b->layout, "strings_bytes", &strings_bytes) < 0 || number_of(b->layout, "open_offset", &open_offset) < 0 ||
        number_of(b->layout, "open_entries", &entries) < 0 || number_of(b->layout, "chunks_offset", &chunks_offset) < 0 ||
        number_of(b->layout, "small_chunks", &small) < 0 || number_of(b->layout, "large_chunks", &large) < 0)
        goto failed;
    b->mem = b->view.buf;
    b->words = (uint64_t *)b->mem;
    b->serial_of_buffer = ++buffers_made;
    b->known = PyMem_Calloc(KNOWN_NAMES, sizeof *b->known);
    b->string_ids = PyDict_New();
    b->tracks = PyDict_New();
    strings_init(b, strings_offset, strings_bytes);
    if (b->known == NULL || b->string_ids == NULL || b->tracks == NULL || opens_init(b, open_offset, (uint32_t)entries) < 0 ||
        chunks_init(b, chunks_offset, (uint32_t)small, (uint32_t)large) < 0) {
        PyErr_NoMemory();
        goto failed;
    }
    b->next_alive = alive;
    alive = b;
    return (PyObject *)b;
failed:
    Py_XDECREF(made);
    Py_DECREF(b);
    return NULL;
}

/* What could lead from here to the program's objects, and back to this buffer. */
static void let_go(Buffer *b) {
    b->closed = 1;
    for (Writer *w = b->writers; w != NULL; w = w->next) {
        w->seen = NOTICE;
        PyObject *context = w->context;
        w->context = NULL;
        Py_XDECREF(context);
    }
}

static void buffer_dealloc(Buffer *b) {
    PyTypeObject *type = Py_TYPE(b);
    for (Buffer **at = &alive; *at != NULL; at = &(*at)->next_alive)
        if (*at == b) {
            *at = b->next_alive;
            break;
        }
    let_go(b);
    PyObject *key, *value, *tracks = b->tracks;
    Py_ssize_t at = 0;
    b->tracks = NULL;
    while (tracks != NULL && PyDict_Next(tracks, &at, &key, &value)) {
        ((Track *)value)->buffer = NULL;
        Py_CLEAR(((Track *)value)->ref);
    }
    for (Writer *w = b->writers, *next; w != NULL; w = next) {
        next = w->next;
        w->buffer = NULL;
        w->thread_track->buffer = NULL;
        w->chunk = NULL;
        w->pos = w->limit = NULL;
        w->words = NULL;
        Py_DECREF(w);
    }
    for (uint32_t n = 0; b->chunks != NULL && n < b->chunk_count; n++) Py_XDECREF(b->chunks[n].writer);
    PyMem_Free(b->chunks);
    for (uint32_t n = 0; b->names != NULL && n < b->entries; n++) Py_XDECREF(b->names[n]);
    PyMem_Free(b->names);
    PyMem_Free(b->free_entries);
    strings_clear(b);
    Py_XDECREF(tracks);
    if (b->view.obj != NULL) PyBuffer_Release(&b->view);
    Py_XDECREF(b->path);
    Py_XDECREF(b->map);
    Py_XDECREF(b->layout);
    type->tp_free(b);
    Py_DECREF(type);
}

/* In the child of a fork, before anything else runs there: the memory is the parent's. Also for a C library's own fork(), which Python does not hear of. */
static void after_fork_in_child(void) {
    active = NULL;
    for (Buffer *b = alive; b != NULL; b = b->next_alive) b->closed = 1;
}

/* --- methods */

static PyObject *buffer_writer(PyObject *self, PyObject *ignored) {
    (void)ignored;
    return (PyObject *)writer_of_thread((Buffer *)self);
}

static PyObject *buffer_intern(PyObject *self, PyObject *text) {
    Packer packer;
    packer_init(&packer);
    if (!PyUnicode_CheckExact(text)) {
        PyErr_SetString(PyExc_TypeError, "intern: wanted an exact str");
        return NULL;
    }
    if (pack_name((Buffer *)self, &packer, text) < 0) return NULL;
    return PyBytes_FromStringAndSize((const char *)packer.bytes, (Py_ssize_t)packer_size(&packer));
}

static PyObject *buffer_name_id(PyObject *self, PyObject *text) {
    int64_t id = PyUnicode_CheckExact(text) ? string_id((Buffer *)self, text) : 0;
    return id < 0 ? NULL : PyLong_FromLongLong(id);
}

static PyObject *buffer_new_strings(PyObject *self, PyObject *ignored) {
    (void)ignored;
    return new_strings((Buffer *)self);
}

static PyObject *buffer_strings_from_start(PyObject *self, PyObject *ignored) {
    (void)ignored;
    ((Buffer *)self)->strings_taken = 0;
    return new_strings((Buffer *)self);
}

/* Takes an entry: its number; beyond the table -1, which is counted. `free_entry` gives it back. */
static PyObject *buffer_open(PyObject *self, PyObject *args) {
    unsigned int kind, writer, track;
    unsigned long long begin_ns, op, parent;
    PyObject *name;
    const char *trace;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "IIKUIKKy#", &kind, &writer, &begin_ns, &name, &track, &op, &parent, &trace, &size)) return NULL;
    Buffer *b = (Buffer *)self;
    int64_t id = string_id(b, name);
    if (id < 0) return NULL;
    return PyLong_FromLong(entry_open(
        b, kind, writer, begin_ns, (uint32_t)id, name, track, op, parent, size == 16 ? (const uint8_t *)trace : NULL
    ));
}

static PyObject *buffer_free_entry(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    int32_t n;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "free_entry: wanted an entry and a time");
        return NULL;
    }
    unsigned long long end_ns = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred() || entry_number((Buffer *)self, args[0], &n) < 0) return NULL;
    entry_free((Buffer *)self, n, end_ns);
    Py_RETURN_NONE;
}

/* What an entry stands for is called so from now on. */
static PyObject *buffer_rename(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Buffer *b = (Buffer *)self;
    int32_t n;
    if (count != 2 || !PyUnicode_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "rename: wanted an entry and an exact str");
        return NULL;
    }
    int64_t id = string_id(b, args[1]);
    if (id < 0 || entry_number(b, args[0], &n) < 0) return NULL;
    if (n >= 0) {
        b->table[n].name = (uint32_t)id;
        PyObject *before = b->names[n];
        b->names[n] = id ? NULL : Py_NewRef(args[1]);
        Py_XDECREF(before);
    }
    Py_RETURN_NONE;
}

/* Removes the file. The mapping goes with the buffer. */
static PyObject *buffer_close(PyObject *self, PyObject *ignored) {
    (void)ignored;
    Buffer *b = (Buffer *)self;
    if (!b->closed && b->path != Py_None) {
        const char *path = PyUnicode_AsUTF8(b->path);
        if (path == NULL || unlink(path) < 0) PyErr_Clear();
    }
    let_go(b);
    Py_RETURN_NONE;
}

/* In a forked child: this is the parent's. Or what is left is for the recorder to find. */
static PyObject *buffer_abandon(PyObject *self, PyObject *ignored) {
    (void)ignored;
    let_go((Buffer *)self);
    Py_RETURN_NONE;
}

/* The native spans look for a hook themselves. */
static PyObject *buffer_slow_spans(PyObject *self, PyObject *slow) {
    (void)self;
    (void)slow;
    Py_RETURN_NONE;
}

static PyObject *buffer_kind(PyObject *self, void *unused) {
    (void)self;
    (void)unused;
    return PyUnicode_FromString("c");
}

static PyObject *buffer_size_bytes(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromSsize_t(((Buffer *)self)->view.len);
}

static PyObject *buffer_free_chunks(PyObject *self, void *unused) {
    (void)unused;
    Buffer *b = (Buffer *)self;
    long count = 0;
    for (uint32_t n = 0; n < b->chunk_count; n++) count += b->chunks[n].state == CHUNK_FREE;
    return PyLong_FromLong(count);
}

static PyMethodDef buffer_methods[] = {
    {"writer", buffer_writer, METH_NOARGS, NULL},
    {"intern", buffer_intern, METH_O, NULL},
    {"name_id", buffer_name_id, METH_O, NULL},
    {"new_strings", buffer_new_strings, METH_NOARGS, NULL},
    {"strings_from_start", buffer_strings_from_start, METH_NOARGS, NULL},
    {"open", buffer_open, METH_VARARGS, NULL},
    {"free_entry", (PyCFunction)(void (*)(void))buffer_free_entry, METH_FASTCALL, NULL},
    {"rename", (PyCFunction)(void (*)(void))buffer_rename, METH_FASTCALL, NULL},
    {"open_items", (PyCFunction)(void (*)(void))buffer_open_items, METH_FASTCALL, NULL},
    {"cut", buffer_cut, METH_O, NULL},
    {"slices", buffer_slices, METH_O, NULL},
    {"read", buffer_read, METH_O, NULL},
    {"release", (PyCFunction)(void (*)(void))buffer_release, METH_FASTCALL, NULL},
    {"writer_infos", buffer_writer_infos, METH_NOARGS, NULL},
    {"totals", buffer_totals, METH_NOARGS, NULL},
    {"slow_spans", buffer_slow_spans, METH_O, NULL},
    {"close", buffer_close, METH_NOARGS, NULL},
    {"abandon", buffer_abandon, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef buffer_members[] = {
    {"path", T_OBJECT, offsetof(Buffer, path), READONLY, NULL},
    {"layout", T_OBJECT, offsetof(Buffer, layout), READONLY, NULL},
    {"errors", T_ULONGLONG, offsetof(Buffer, errors), 0, NULL},
    {"generation", T_ULONGLONG, offsetof(Buffer, generation), READONLY, NULL},
    {"tracks", T_OBJECT, offsetof(Buffer, tracks), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef buffer_getset[] = {
    {"kind", buffer_kind, NULL, NULL, NULL},
    {"size_bytes", buffer_size_bytes, NULL, NULL, NULL},
    {"free_chunks", buffer_free_chunks, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, "A tracer's memory: `frzmq.tracer._buffer_py.Buffer`, in C."},
    {Py_tp_new, buffer_new},
    {Py_tp_dealloc, buffer_dealloc},
    {Py_tp_methods, buffer_methods},
    {Py_tp_members, buffer_members},
    {Py_tp_getset, buffer_getset},
    {0, NULL},
};
static PyType_Spec buffer_spec = {"frzmq.tracer._buffer.Buffer", sizeof(Buffer), 0, Py_TPFLAGS_DEFAULT, buffer_slots};

#endif
