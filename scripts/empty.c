/* What a call from Python into C costs by itself, and an empty `with` of a C type: the units of bench_record.py. */

#include <Python.h>

static PyObject *empty_call(PyObject *module, PyObject *unused) { Py_RETURN_NONE; }

static PyObject *with_enter(PyObject *self, PyObject *unused) { return Py_NewRef(self); }

static PyObject *with_exit(PyObject *self, PyObject *const *arguments, Py_ssize_t count) { Py_RETURN_NONE; }

static PyMethodDef with_methods[] = {
    {"__enter__", with_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))with_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject With = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "empty.With",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = with_methods,
    .tp_new = PyType_GenericNew,
};

static PyMethodDef functions[] = {{"call", empty_call, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module_def = {PyModuleDef_HEAD_INIT, .m_name = "empty", .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit_empty(void) {
    PyObject *module = PyModule_Create(&module_def);
    if (module != NULL && PyModule_AddType(module, &With) < 0) Py_CLEAR(module);
    return module;
}
