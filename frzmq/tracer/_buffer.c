/* The place of the native buffer: an empty module. */

#include <Python.h>

static struct PyModuleDef module_def = {PyModuleDef_HEAD_INIT, .m_name = "frzmq.tracer._buffer"};

PyMODINIT_FUNC PyInit__buffer(void) { return PyModuleDef_Init(&module_def); }
