/* A span around each call of a plain function: what functools.wraps makes of a Python function, without its frame. */

#ifndef FRZMQ_DECORATED_H
#define FRZMQ_DECORATED_H

#include "api.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Span *span;
    PyObject *function, *dict, *weakrefs;
} Decorated;

static PyTypeObject *DecoratedType;

static PyObject *decorated_vectorcall(PyObject *self, PyObject *const *args, size_t count, PyObject *names) {
    Decorated *d = (Decorated *)self;
    if (span_begin(d->span) < 0) return NULL;
    PyObject *result = PyObject_Vectorcall(d->function, args, count, names);
    if (LIKELY(result != NULL)) {
        if (span_end(d->span, Py_None) < 0) Py_CLEAR(result);
        return result;
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    if (span_end(d->span, type) < 0) {
        /* a signal handler of the program raised: that is what goes on */
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
    } else {
        PyErr_Restore(type, error, traceback);
    }
    return NULL;
}

static PyObject *decorated_get(PyObject *self, PyObject *object, PyObject *type) {
    (void)type;
    return object == NULL || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

/* What is not its own is the function's: __code__, __globals__, __defaults__. */
static PyObject *decorated_getattr(PyObject *self, PyObject *name) {
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) return found;
    PyErr_Clear();
    return PyObject_GetAttr(((Decorated *)self)->function, name);
}

/* By its name, as functions are pickled and copied. */
static PyObject *decorated_reduce(PyObject *self, PyObject *ignored) {
    (void)ignored;
    return PyObject_GetAttrString(self, "__qualname__");
}

static PyObject *decorated_repr(PyObject *self) { return PyObject_Repr(((Decorated *)self)->function); }

static int decorated_traverse(Decorated *d, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(d));
    Py_VISIT(d->span);
    Py_VISIT(d->function);
    Py_VISIT(d->dict);
    return 0;
}

static int decorated_clear(Decorated *d) {
    Py_CLEAR(d->function);
    Py_CLEAR(d->dict);
    return 0;
}

static void decorated_dealloc(Decorated *d) {
    PyTypeObject *type = Py_TYPE(d);
    PyObject_GC_UnTrack(d);
    if (d->weakrefs != NULL) PyObject_ClearWeakRefs((PyObject *)d);
    decorated_clear(d);
    Py_CLEAR(d->span);
    type->tp_free(d);
    Py_DECREF(type);
}

static PyObject *api_decorated(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 2 || !PyObject_TypeCheck(args[0], SpanType)) {
        PyErr_SetString(PyExc_TypeError, "decorated: wanted a span and a function");
        return NULL;
    }
    Decorated *d = (Decorated *)DecoratedType->tp_alloc(DecoratedType, 0);
    if (d == NULL) return NULL;
    d->vectorcall = decorated_vectorcall;
    d->span = (Span *)Py_NewRef(args[0]);
    d->function = Py_NewRef(args[1]);
    return (PyObject *)d;
}

static PyMethodDef decorated_methods[] = {
    {"__reduce__", decorated_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef decorated_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Decorated, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Decorated, weakrefs), READONLY, NULL},
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Decorated, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef decorated_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot decorated_slots[] = {
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, decorated_get},
    {Py_tp_getattro, decorated_getattr},
    {Py_tp_repr, decorated_repr},
    {Py_tp_traverse, decorated_traverse},
    {Py_tp_clear, decorated_clear},
    {Py_tp_dealloc, decorated_dealloc},
    {Py_tp_methods, decorated_methods},
    {Py_tp_members, decorated_members},
    {Py_tp_getset, decorated_getset},
    {0, NULL},
};
static PyType_Spec decorated_spec = {
    "frzmq.tracer._buffer.Decorated", sizeof(Decorated), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    decorated_slots,
};

#endif
