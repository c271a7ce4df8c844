/* The native buffer: one unit, so that the compiler makes one run of stores of an append. What is in which room:

   native/layout.h   the shared memory, as frzmq/wire/chunk.py has it
   native/pack.h     msgpack of exact built-in types
   native/buffer.h   what the others share
   native/strings.h, opens.h, chunks.h   the three areas of the memory
   native/writer.h   one thread's appends
   native/agent.h    the cut and the slices
   native/memory.h   the type `Buffer`
   native/api.h      span, event, gauge
   native/decorated.h   a span as a decorator
   native/ticks.h, calls.h   every call

   It needs the interpreter lock: docs/design/004-the-native-buffer-needs-the-interpreter-lock.md says what a free-threaded version takes. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <structmember.h>
#include <unistd.h>

#include "native/decorated.h"
#include "native/calls.h"

static PyMethodDef module_methods[] = {
    {"span", (PyCFunction)(void (*)(void))api_span, METH_FASTCALL | METH_KEYWORDS,
     "span(name, /, **attributes)\n--\n\nAn interval, as a context manager or a decorator; nests; an exception that ends it is noted by its type."},
    {"event", (PyCFunction)(void (*)(void))api_event, METH_FASTCALL | METH_KEYWORDS, "event(name, /, **attributes)\n--\n\nAn instant."},
    {"gauge", (PyCFunction)(void (*)(void))api_gauge, METH_FASTCALL, "gauge(name, value, /)\n--\n\nA named value over time."},
    {"install", api_install, METH_O, "From now on all is recorded into this; None: nothing is."},
    {"watch_spans", api_watch_spans, METH_O, "While this is set it is called with the name and the duration of each span that ends."},
    {"notice", api_notice, METH_NOARGS, "The current operation of this thread changed within its context."},
    {"calls_begin", calls_begin, METH_VARARGS, "From now on every call is recorded, of the code that the judge gives a name."},
    {"calls_end", calls_end, METH_NOARGS, "From now on no call is recorded."},
    {"calls_not_here", calls_not_here, METH_NOARGS, "No call of this thread is recorded."},
#if PY_VERSION_HEX < 0x030c0000
    {"calls_of_thread", calls_of_thread, METH_VARARGS, "For threading.setprofile()."},
#endif
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, PyTypeObject **place, PyType_Spec *spec, const char *name) {
    if (*place == NULL && (*place = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL)) == NULL) return -1;
    return name == NULL ? 0 : PyModule_AddObjectRef(module, name, (PyObject *)*place);
}

/* For a test that holds it against frzmq/wire/chunk.py. */
static PyObject *layout_constants(void) {
#define CONSTANT(name) #name, (int)name
    return Py_BuildValue(
        "{sisisisisisisisisisisisisisisisisi}", CONSTANT(OPEN_ENTRY_BYTES), CONSTANT(SMALL_CHUNK_BYTES), CONSTANT(LARGE_CHUNK_BYTES),
        CONSTANT(CHUNK_HEADER_BYTES), CONSTANT(GENERATION_WORD), CONSTANT(STRINGS_WORD), CONSTANT(OPEN_OMITTED_WORD),
        CONSTANT(STATE_WORD), CONSTANT(SERIAL_WORD), CONSTANT(BASE_WORD), CONSTANT(FIRST_INDEX_WORD), CONSTANT(PUBLISHED_WORD),
        CONSTANT(LAST_WORDS), CONSTANT(CUT_GENERATION_WORD), CONSTANT(CUT_WORD), CONSTANT(CUT_BASE_WORD), CONSTANT(MAX_STRINGS_BYTES)
    );
#undef CONSTANT
}

static int module_exec(PyObject *module) {
    /* its state is the process's: of the main interpreter, and made once */
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "frzmq.tracer._buffer: wanted the main interpreter, got another");
        return -1;
    }
    static int made;
    if (!made) {
        if (pthread_atfork(NULL, NULL, after_fork_in_child) != 0) {
            PyErr_SetString(PyExc_ImportError, "frzmq.tracer._buffer: pthread_atfork failed");
            return -1;
        }
        made = 1;
    }
    if (spans == NULL && (spans = PyDict_New()) == NULL) return -1;
    if ((py.empty == NULL && (py.empty = PyUnicode_InternFromString("")) == NULL) ||
        (py.str_id == NULL && (py.str_id = PyUnicode_InternFromString("id")) == NULL) ||
        (py.asyncio_tasks == NULL && (py.asyncio_tasks = PyUnicode_InternFromString("asyncio.tasks")) == NULL) ||
        (py.asyncio_events == NULL && (py.asyncio_events = PyUnicode_InternFromString("asyncio.events")) == NULL))
        return -1;
    PyObject *layout = layout_constants();
    int failed = layout == NULL || PyModule_AddObjectRef(module, "LAYOUT", layout) < 0;
    Py_XDECREF(layout);
    if (failed) return -1;
    return add_type(module, &BufferType, &buffer_spec, "Buffer") < 0 || add_type(module, &WriterType, &writer_spec, "Writer") < 0 ||
                   add_type(module, &TrackType, &track_spec, NULL) < 0 || add_type(module, &ThreadEndType, &thread_end_spec, NULL) < 0 ||
                   add_type(module, &SpanType, &span_spec, "Span") < 0 ||
                   add_type(module, &DecoratedType, &decorated_spec, NULL) < 0
#if PY_VERSION_HEX >= 0x030c0000
                   || add_type(module, &HookType, &hook_spec, NULL) < 0 || add_hooks(module) < 0
#endif
               ? -1
               : 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, .m_name = "frzmq.tracer._buffer", .m_doc = "The buffer, and what a program calls, in C.", .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__buffer(void) { return PyModuleDef_Init(&module_def); }
