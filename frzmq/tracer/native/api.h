/* What a program calls: `span`, `event`, `gauge`. Nothing here raises into it, and off it is nearly free.

   While something else than a buffer of this kind is recorded into (the one in pure Python, or what makes a buffer at the first record), all goes to the
   functions of frzmq/tracer/_api_py.py. */

#ifndef FRZMQ_API_H
#define FRZMQ_API_H

#include "memory.h"

static PyObject *recording; /* what is recorded into; NULL: off */
static PyObject *on_span;   /* called with name and duration of each span that ends; or NULL */
static PyObject *spans;     /* {name: Span} of names that were asked for; emptied when there are too many */

enum { MAX_SPANS = 1024, KNOWN_SPANS = 1024, FIRST_SPANS = 512 };

/* The packed args of a span's record. Those of a name that is in the string table have at most seven bytes, and are copied by one move of 16. */
typedef struct {
    uint32_t size;
    uint8_t small[16];
    uint8_t *large; /* when it is longer than that */
} Args;

typedef struct {
    PyObject_HEAD
    PyObject *name, *attributes; /* str, dict or NULL */
    PyObject *python;            /* its twin of _api_py, when it was needed */
    PyObject *weakrefs;
    uint64_t bound; /* the buffer whose strings the args name */
    uint32_t id;    /* of the name */
    Args begin, end;
} Span;

/* Of the address of a name: the kept span. */
static struct {
    PyObject *key, *span; /* strong */
} known_spans[KNOWN_SPANS];

static int args_set(Args *args, const uint8_t *data, size_t size) {
    PyMem_Free(args->large);
    args->large = NULL;
    if (size > sizeof args->small) {
        if ((args->large = PyMem_Malloc(size)) == NULL) {
            args->size = 0;
            PyErr_NoMemory();
            return -1;
        }
        memcpy(args->large, data, size);
    } else {
        memcpy(args->small, data, size);
    }
    args->size = (uint32_t)size;
    return 0;
}

/* `sizeof args->small` bytes of room are always there. */
static inline uint8_t *args_put(uint8_t *p, const Args *args) {
    if (LIKELY(args->large == NULL))
        memcpy(p, args->small, sizeof args->small);
    else
        memcpy(p, args->large, args->size);
    return p + args->size;
}

static inline size_t args_room(const Args *args) { return args->size > sizeof args->small ? args->size : sizeof args->small; }

/* A function of _api_py. NULL: raised. */
static PyObject *python_api(const char *name) {
    PyObject *module = PyImport_ImportModule("frzmq.tracer._api_py");
    if (module == NULL) return NULL;
    PyObject *found = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return found;
}

static PyObject *call_python_api(const char *name, PyObject *const *args, size_t count, PyObject *names) {
    PyObject *function = python_api(name);
    if (function == NULL) return NULL;
    PyObject *result = PyObject_Vectorcall(function, args, count, names);
    Py_DECREF(function);
    return result;
}

/* As call_python_api, of a record. An interpreter that ends imports nothing any more: then the record is not kept, and nobody hears of it. */
static PyObject *record_by_python_api(const char *name, PyObject *const *args, size_t count, PyObject *names) {
    PyObject *result = call_python_api(name, args, count, names);
    if (result != NULL || !PyErr_ExceptionMatches(PyExc_ImportError)) return result;
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* This thread's writer into `b`, borrowed from its list. NULL: none, or (an exception set) raised by the program. */
static Writer *slow_writer(Buffer *b) {
    Py_INCREF(b);
    Writer *w = writer_of_thread(b);
    if (w == NULL) {
        fault(b);
    } else {
        Py_DECREF(w);
        /* one that refuses is kept by nobody */
        if (tls_writer != w) w = NULL;
    }
    Py_DECREF(b);
    return w;
}

static inline Writer *find_writer(Buffer *b) {
    Writer *w = tls_writer;
    return LIKELY(w != NULL && w->buffer == b) ? w : slow_writer(b);
}

/* --- spans */

/* Into the strings of `b`. -1: raised. */
static int span_bind(Span *s, Buffer *b) {
    Packer packer;
    packer_init(&packer);
    int64_t id = string_id(b, s->name);
    if (id < 0 || pack_name(b, &packer, s->name) < 0) return -1;
    uint8_t *behind_name = packer.p;
    if (pack_attributes(b, &packer, s->attributes) < 0) return -1;
    if (!packer.failed) {
        if (args_set(&s->begin, packer.bytes, packer_size(&packer)) < 0) return -1;
    } else {
        PyObject *bytes = packed_slowly(b, packer.bytes, (size_t)(behind_name - packer.bytes), s->attributes);
        if (bytes == NULL) return -1;
        int failed = args_set(&s->begin, (const uint8_t *)PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
        Py_DECREF(bytes);
        if (failed < 0) return -1;
    }
    packer.p = behind_name;
    packer.failed = 0;
    pack_byte(&packer, NIL);
    if (args_set(&s->end, packer.bytes, packer_size(&packer)) < 0) return -1;
    s->id = (uint32_t)id;
    s->bound = b->serial_of_buffer;
    return 0;
}

/* 0: this goes to the twin. -1: raised. */
static int span_in_python(Span *s, const char *method, PyObject *kind) {
    PyObject *result = NULL;
    if (s->python == NULL) {
        PyObject *none = NULL;
        PyObject *attributes = s->attributes != NULL ? Py_NewRef(s->attributes) : (none = PyDict_New());
        PyObject *args[2] = {s->name, attributes};
        PyObject *made = attributes == NULL ? NULL : call_python_api("Span", args, 2, NULL);
        Py_XDECREF(attributes);
        if (made == NULL) return fault(NULL);
        if (s->python == NULL)
            s->python = made;
        else
            Py_DECREF(made);
    }
    if (kind == NULL)
        result = PyObject_CallMethod(s->python, method, NULL);
    else
        result = PyObject_CallMethod(s->python, method, "OOO", kind, Py_None, Py_None);
    if (result == NULL) return -1;
    Py_DECREF(result);
    return 0;
}

/* The first record of all makes the buffer. -1: raised by the program. */
static int begin_recording(void) {
    PyObject *armed = Py_NewRef(recording);
    PyObject *w = PyObject_CallMethod(armed, "writer", NULL);
    Py_DECREF(armed);
    if (w == NULL) return fault(NULL);
    Py_DECREF(w);
    return 0;
}

/* 0; -1: raised by the program. */
static int span_begin(Span *s) {
    Buffer *b = active;
    if (UNLIKELY(b == NULL)) {
        if (recording == NULL) return 0;
        if (begin_recording() < 0) return -1;
        if ((b = active) == NULL) return recording == NULL ? 0 : span_in_python(s, "__enter__", NULL);
    }
    Writer *w = find_writer(b);
    if (UNLIKELY(w == NULL)) return PyErr_Occurred() ? -1 : 0;
    if (UNLIKELY(s->bound != b->serial_of_buffer) && span_bind(s, b) < 0) {
        w->dropped++;
        return fault(b);
    }
    int answer = writer_look(w);
    if (UNLIKELY(answer != 1)) return answer;
    if (UNLIKELY(s->bound != b->serial_of_buffer)) {
        w->dropped++;
        return 0;
    }
    uint64_t now;
    uint8_t *p = append_begin(w, KIND_SPAN_BEGIN, args_room(&s->begin), &now);
    if (UNLIKELY(p == NULL)) return 0;
    append_end(w, args_put(p, &s->begin), now);
    int32_t entry = entry_open(b, KIND_SPAN_BEGIN, w->id, now, s->id, s->name, w->track->id, w->op_id, 0, NULL);
    if (UNLIKELY(track_push(w->track, (PyObject *)s, entry) < 0)) entry_free(b, entry, now);
    return 0;
}

/* The innermost entry of this span on this track, wherever it is in the stack: an iteration may end after what began inside of it. */
static int span_close(Span *s, Buffer *b, Track *track, uint64_t now) {
    int n = track->depth - 1;
    while (UNLIKELY(n >= 0 && track->stack[n].owner != (PyObject *)s)) n--;
    if (UNLIKELY(n < 0)) return 0;
    OpenSlot slot = track->stack[n];
    track->depth--;
    if (UNLIKELY(n < track->depth)) memmove(&track->stack[n], &track->stack[n + 1], (size_t)(track->depth - n) * sizeof slot);
    uint64_t begin_ns = slot.entry >= 0 ? b->table[slot.entry].begin_ns : 0;
    entry_free(b, slot.entry, now);
    int answer = 0;
    if (UNLIKELY(on_span != NULL) && slot.entry >= 0) {
        PyObject *hook = Py_NewRef(on_span);
        PyObject *result = PyObject_CallFunction(hook, "OK", s->name, (unsigned long long)(now - begin_ns));
        Py_DECREF(hook);
        if (result == NULL) answer = fault(b);
        Py_XDECREF(result);
    }
    Py_DECREF(slot.owner);
    return answer;
}

/* An end with an error: -1: raised by the program. */
static int span_fail(Span *s, Buffer *b, Writer *w, PyObject *kind) {
    Packer packer;
    packer_init(&packer);
    PyObject *name = PyObject_CallOneArg(py.type_name, kind);
    int failed = name == NULL || pack_name(b, &packer, s->name) < 0 || pack_name(b, &packer, name) < 0;
    Py_XDECREF(name);
    if (failed) {
        w->dropped++;
        return fault(b);
    }
    int answer = writer_append(w, KIND_SPAN_END, packer.bytes, packer_size(&packer));
    return answer == 1 ? span_close(s, b, w->track, w->last) : answer;
}

/* `kind`: the class of the exception that ends it, or None. 0; -1: raised by the program. */
static int span_end(Span *s, PyObject *kind) {
    Buffer *b = active;
    if (UNLIKELY(b == NULL)) return recording == NULL ? 0 : span_in_python(s, "__exit__", kind);
    Writer *w = find_writer(b);
    if (UNLIKELY(w == NULL)) return PyErr_Occurred() ? -1 : 0;
    if (UNLIKELY(kind != Py_None)) return span_fail(s, b, w, kind);
    if (UNLIKELY(s->bound != b->serial_of_buffer) && span_bind(s, b) < 0) {
        w->dropped++;
        return fault(b);
    }
    int answer = writer_look(w);
    if (UNLIKELY(answer != 1)) return answer;
    if (UNLIKELY(s->bound != b->serial_of_buffer)) {
        w->dropped++;
        return 0;
    }
    uint64_t now;
    uint8_t *p = append_begin(w, KIND_SPAN_END, args_room(&s->end), &now);
    if (UNLIKELY(p == NULL)) return 0;
    append_end(w, args_put(p, &s->end), now);
    return span_close(s, b, w->track, now);
}

/* Both are called in two ways: as functions of a kept span's own type, without arguments or (contextlib.ExitStack) with the span before the others; and as
   methods of any other span. */
static PyObject *span_enter(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)args;
    (void)count;
    return span_begin((Span *)self) < 0 ? NULL : Py_NewRef(self);
}

static PyObject *span_exit(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (UNLIKELY(count != 3 && count != 4)) {
        PyErr_SetString(PyExc_TypeError, "__exit__: wanted the three parts of an exception");
        return NULL;
    }
    if (span_end((Span *)self, args[count - 3]) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *api_decorated(PyObject *module, PyObject *const *args, Py_ssize_t count);
static PyMethodDef decorated_method = {"decorated", (PyCFunction)(void (*)(void))api_decorated, METH_FASTCALL, "A plain function with a span around each call."};

static PyObject *span_call(PyObject *self, PyObject *args, PyObject *kwargs) {
    PyObject *function;
    static char *names[] = {"function", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &function)) return NULL;
    PyObject *plain = PyCFunction_New(&decorated_method, NULL);
    if (plain == NULL) return NULL;
    PyObject *all[3] = {self, function, plain};
    PyObject *result = call_python_api("decorate_with_span", all, 3, NULL);
    Py_DECREF(plain);
    return result;
}

static PyObject *span_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *name, *attributes = NULL;
    static char *names[] = {"name", "attributes", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|O!", names, &name, &PyDict_Type, &attributes)) return NULL;
    Span *s = (Span *)type->tp_alloc(type, 0);
    if (s == NULL) return NULL;
    s->name = Py_NewRef(name);
    if (attributes != NULL && PyDict_GET_SIZE(attributes)) s->attributes = Py_NewRef(attributes);
    return (PyObject *)s;
}

static int span_traverse(Span *s, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(s));
    Py_VISIT(s->attributes);
    Py_VISIT(s->python);
    return 0;
}

static int span_clear(Span *s) {
    Py_CLEAR(s->attributes);
    Py_CLEAR(s->python);
    return 0;
}

static void span_dealloc(Span *s) {
    PyTypeObject *type = Py_TYPE(s);
    PyObject_GC_UnTrack(s);
    if (s->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)s);
    span_clear(s);
    Py_XDECREF(s->name);
    PyMem_Free(s->begin.large);
    PyMem_Free(s->end.large);
    type->tp_free(s);
    Py_DECREF(type);
}

static PyMethodDef span_methods[] = {
    {"__enter__", (PyCFunction)(void (*)(void))span_enter, METH_FASTCALL, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))span_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef span_members[] = {
    {"name", T_OBJECT, offsetof(Span, name), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Span, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot span_slots[] = {
    {Py_tp_doc, "An interval on this thread or asyncio task; see `span`. May be kept, nested in itself and shared between threads."},
    {Py_tp_new, span_new},
    {Py_tp_call, span_call},
    {Py_tp_dealloc, span_dealloc},
    {Py_tp_traverse, span_traverse},
    {Py_tp_clear, span_clear},
    {Py_tp_methods, span_methods},
    {Py_tp_members, span_members},
    {0, NULL},
};
static PyType_Spec span_spec = {
    "frzmq.tracer._buffer.Span", sizeof(Span), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, span_slots,
};

/* A span of a type of its own, whose __enter__ and __exit__ are functions already bound to it: having no __get__ they are called as they are, and the two
   bound methods that `with` otherwise makes are gone (an empty `with` of a C type costs 89-120 ns, of such a one 35). */
static PyObject *kept_span(PyObject *name) {
    PyObject *type = PyObject_CallFunction((PyObject *)&PyType_Type, "s(O){s()ss}", "Span", SpanType, "__slots__", "__module__", "frzmq.tracer._buffer");
    PyObject *s = type == NULL ? NULL : PyObject_CallOneArg(type, name);
    PyObject *enter = s == NULL ? NULL : PyCFunction_New(&span_methods[0], s);
    PyObject *exit = enter == NULL ? NULL : PyCFunction_New(&span_methods[1], s);
    if (exit == NULL || PyObject_SetAttrString(type, "__enter__", enter) < 0 || PyObject_SetAttrString(type, "__exit__", exit) < 0)
        Py_CLEAR(s);
    Py_XDECREF(enter);
    Py_XDECREF(exit);
    Py_XDECREF(type);
    return s;
}

static PyObject *exact_name(PyObject *name) {
    if (bind_one(&py.type_name, "frzmq.tracer.attributes", "type_name") < 0) return NULL;
    return PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_CallOneArg(py.type_name, (PyObject *)Py_TYPE(name));
}

/* The first names get a kept span at once: spans that a module makes once and keeps are among them. After that only a name that comes again does: one that
   never does (made of a request's id, say) costs no type, which is 20 us. */
static PyObject *span_of_name(PyObject *name, size_t slot) {
    PyObject *found = PyDict_GetItemWithError(spans, name);
    if (found == NULL && PyErr_Occurred()) return NULL;
    if (found != NULL && Py_TYPE(found) != SpanType) {
        Py_INCREF(found);
    } else {
        static int made;
        int keep = found != NULL || made < FIRST_SPANS;
        made += keep && made < FIRST_SPANS;
        found = keep ? kept_span(name) : PyObject_CallOneArg((PyObject *)SpanType, name);
        if (found == NULL) return NULL;
        if (PyDict_GET_SIZE(spans) >= MAX_SPANS) PyDict_Clear(spans);
        if (PyDict_SetItem(spans, name, found) < 0) {
            Py_DECREF(found);
            return NULL;
        }
    }
    if (Py_TYPE(found) != SpanType) {
        PyObject *key = known_spans[slot].key, *span = known_spans[slot].span;
        known_spans[slot].key = Py_NewRef(name);
        known_spans[slot].span = Py_NewRef(found);
        Py_XDECREF(key);
        Py_XDECREF(span);
    }
    return found;
}

static PyObject *api_span(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    (void)module;
    if (UNLIKELY(count != 1)) {
        PyErr_Format(PyExc_TypeError, "span() takes 1 positional argument but %zd were given", count);
        return NULL;
    }
    PyObject *name = args[0];
    uintptr_t address = (uintptr_t)name;
    size_t slot = (address >> 4 ^ address >> 14) % KNOWN_SPANS;
    if (LIKELY(names == NULL && known_spans[slot].key == name)) return Py_NewRef(known_spans[slot].span);
    if (names == NULL && PyUnicode_CheckExact(name)) return span_of_name(name, slot);
    PyObject *attributes = PyDict_New(), *exact = exact_name(name), *made = NULL;
    Py_ssize_t pairs = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    int failed = attributes == NULL || exact == NULL;
    for (Py_ssize_t n = 0; !failed && n < pairs; n++) failed = PyDict_SetItem(attributes, PyTuple_GET_ITEM(names, n), args[1 + n]) < 0;
    if (!failed) made = PyObject_CallFunctionObjArgs((PyObject *)SpanType, exact, attributes, NULL);
    Py_XDECREF(attributes);
    Py_XDECREF(exact);
    return made;
}

/* --- event and gauge */

/* Into a buffer of this kind. 1: done. 0: for Python to do. -1: raised by the program. */
static int event_natively(Buffer *b, Writer *w, PyObject *name, PyObject *const *values, PyObject *names) {
    Packer packer;
    packer_init(&packer);
    Py_ssize_t pairs = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (!PyUnicode_CheckExact(name) || pairs > MAX_ATTRIBUTES) return 0;
    int failed = pack_name(b, &packer, name) < 0;
    pack_map_head(&packer, (size_t)pairs);
    for (Py_ssize_t n = 0; !failed && n < pairs; n++) {
        PyObject *key = PyTuple_GET_ITEM(names, n);
        if (!PyUnicode_CheckExact(key)) return 0;
        failed = pack_pair(b, &packer, key, values[n]) < 0;
    }
    if (failed) {
        w->dropped++;
        return fault(b) < 0 ? -1 : 1;
    }
    if (packer.failed) return 0;
    return writer_append(w, KIND_EVENT, packer.bytes, packer_size(&packer)) < 0 ? -1 : 1;
}

static PyObject *api_event(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    (void)module;
    if (UNLIKELY(count != 1)) {
        PyErr_Format(PyExc_TypeError, "event() takes 1 positional argument but %zd were given", count);
        return NULL;
    }
    Buffer *b = active;
    if (UNLIKELY(b == NULL)) {
        if (recording == NULL) Py_RETURN_NONE;
        return record_by_python_api("event", args, 1, names);
    }
    Writer *w = find_writer(b);
    if (UNLIKELY(w == NULL)) goto done;
    KnownName *known = known_slot(b, args[0]);
    if (LIKELY(known->key == args[0] && names == NULL)) {
        /* taken before the look, which may run Python code */
        size_t size = known->size;
        uint64_t name = 0;
        memcpy(&name, known->bytes, sizeof name - 1);
        int answer = writer_look(w);
        if (LIKELY(answer == 1)) {
            uint64_t now;
            uint8_t *p = append_begin(w, KIND_EVENT, sizeof name + 1, &now);
            if (LIKELY(p != NULL)) {
                memcpy(p, &name, sizeof name);
                p += size;
                *p = NIL;
                append_end(w, p + 1, now);
            }
        } else if (answer < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    switch (event_natively(b, w, args[0], args + 1, names)) {
    case 0:
        return record_by_python_api("event_slowly", args, 1, names);
    case -1:
        return NULL;
    }
done:
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *api_gauge(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (UNLIKELY(count != 2)) {
        PyErr_Format(PyExc_TypeError, "gauge() takes 2 positional arguments but %zd were given", count);
        return NULL;
    }
    Buffer *b = active;
    if (UNLIKELY(b == NULL)) {
        if (recording == NULL) Py_RETURN_NONE;
        return record_by_python_api("gauge", args, 2, NULL);
    }
    Writer *w = find_writer(b);
    if (UNLIKELY(w == NULL)) goto done;
    Packer packer;
    packer_init(&packer);
    PyObject *name = exact_name(args[0]);
    int failed = name == NULL || pack_name(b, &packer, name) < 0 || pack_value(&packer, args[1]) < 0;
    Py_XDECREF(name);
    if (failed) {
        w->dropped++;
        if (fault(b) < 0) return NULL;
    } else if (writer_append(w, KIND_GAUGE, packer.bytes, packer_size(&packer)) < 0) {
        return NULL;
    }
done:
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* --- on and off */

static PyObject *api_install(PyObject *module, PyObject *buffer) {
    (void)module;
    PyObject *before = recording;
    recording = buffer == Py_None ? NULL : Py_NewRef(buffer);
    active = Py_TYPE(buffer) == BufferType && !((Buffer *)buffer)->closed ? (Buffer *)buffer : NULL;
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyObject *api_watch_spans(PyObject *module, PyObject *hook) {
    (void)module;
    PyObject *before = on_span;
    on_span = hook == Py_None ? NULL : Py_NewRef(hook);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

/* The current operation of this thread changed within its context. */
static PyObject *api_notice(PyObject *module, PyObject *ignored) {
    (void)module;
    (void)ignored;
    if (tls_writer != NULL) tls_writer->seen = NOTICE;
    Py_RETURN_NONE;
}

#endif
