/* Every call: the hooks of sys.monitoring (3.12 and newer) or PyEval_SetProfile (3.11), and the quieting of hot code.

   Each thread has a stack of the calls that it is in, in its writer: an end is recorded if and only if its begin was, whatever the state of its code has become in
   between, and a cut can say what is open without any table that each call would have to keep. Generators and coroutines leave the stack while they are suspended.

   Code that begins more than `limit` times a second is quiet: its calls are counted. Where no other tool uses sys.monitoring the events of quiet (and of left out)
   code are disabled, once none of its calls is on a stack; all are enabled again once a second, so that code that has become calm is recorded again. */

#ifndef FRZMQ_CALLS_H
#define FRZMQ_CALLS_H

#include "api.h"
#include "ticks.h"

#if PY_VERSION_HEX < 0x030c0000
#include <opcode.h>
#define CODE_EXTRA_INDEX _PyEval_RequestCodeExtraIndex
#define CODE_GET_EXTRA _PyCode_GetExtra
#define CODE_SET_EXTRA _PyCode_SetExtra
#else
#define CODE_EXTRA_INDEX PyUnstable_Eval_RequestCodeExtraIndex
#define CODE_GET_EXTRA PyUnstable_Code_GetExtra
#define CODE_SET_EXTRA PyUnstable_Code_SetExtra
#endif

#define SECOND_NS 1000000000u

/* What is known of a code object, kept in its co_extra. */
typedef struct CodeState {
    uint64_t ready; /* the buffer into which its calls are recorded; 0: they are not, as they are */
    uint64_t bound; /* the buffer whose string table `ref` is of */
    uint8_t ref[8]; /* its name's id, packed */
    uint8_t ref_size;
    uint8_t left_out; /* by the filters */
    uint8_t nameless; /* the string table was full: an inline name is too dear */
    uint8_t quiet;
    uint8_t disabled; /* its events are: not even counted */
    uint32_t filters; /* by which it was judged */
    uint32_t window;  /* of `count` */
    uint32_t open;    /* on the stacks of all threads */
    uint64_t count;   /* begins, in this window */
    uint64_t hidden;  /* begins that were not recorded, since `told_ns` */
    uint64_t told_ns;
    PyObject *name; /* str */
    struct CodeState *before, *behind; /* of the quiet ones */
} CodeState;

enum { KEEP = 0, DISABLE = 1, RAISED = -1 };

static struct {
    int on;
    Py_ssize_t extra; /* the index in co_extra; -1: not asked for yet */
    uint32_t filters;
    uint64_t limit; /* begins a second; UINT64_MAX: nothing becomes quiet */
    PyObject *judge; /* called with code and globals: its name, or None */
    PyObject *include, *exclude; /* str, as the snapshot says it */
    PyObject *disable, *restart, *get_tool; /* of sys.monitoring; NULL on 3.11 */
    int may_disable;
    int something_disabled; /* of quiet code: to be looked at again */
    int anything_disabled;  /* since all was enabled, also of code that is left out */
    int beginning;
    int untold; /* no writer was there to say at a cut what is to be said */
    uint32_t window;
    uint64_t window_begin, window_end;
    CodeState *quiet;
    uint64_t nameless, nameless_told_ns; /* calls, since */
} calls = {.extra = -1};

/* --- what is known of code */

static void quiet_remove(CodeState *c) {
    if (c->before != NULL)
        c->before->behind = c->behind;
    else
        calls.quiet = c->behind;
    if (c->behind != NULL) c->behind->before = c->before;
    c->before = c->behind = NULL;
    c->quiet = c->disabled = 0;
}

/* Its code object is gone. */
static void code_gone(void *state) {
    CodeState *c = state;
    if (c == NULL) return;
    if (c->quiet) quiet_remove(c);
    for (Buffer *b = alive; b != NULL; b = b->next_alive)
        for (Writer *w = b->writers; w != NULL; w = w->next)
            for (int n = 0; n < w->call_depth; n++)
                if (w->calls[n].code == c) w->calls[n].code = NULL;
    Py_XDECREF(c->name);
    PyMem_Free(c);
}

static inline CodeState *code_state(PyObject *code) {
    void *state = NULL;
    CODE_GET_EXTRA(code, calls.extra, &state);
    return state;
}

/* By the filters. NULL: raised. */
static CodeState *code_judge(PyObject *code) {
    PyObject *globals = PyEval_GetGlobals();
    PyObject *name = PyObject_CallFunctionObjArgs(calls.judge, code, globals == NULL ? Py_None : globals, NULL);
    if (name == NULL) return NULL;
    /* Python code has run: another thread may have judged it in the meantime */
    CodeState *c = code_state(code);
    if (c == NULL) {
        c = PyMem_Calloc(1, sizeof *c);
        if (c == NULL || CODE_SET_EXTRA(code, calls.extra, c) < 0) {
            PyMem_Free(c);
            Py_DECREF(name);
            PyErr_NoMemory();
            return NULL;
        }
    }
    c->left_out = name == Py_None;
    c->filters = calls.filters;
    if (c->left_out) c->ready = 0;
    PyObject *before = c->name;
    c->name = name;
    Py_XDECREF(before);
    return c;
}

/* Its name into the strings of `b`. 0; -1: raised. */
static int code_bind(CodeState *c, Buffer *b) {
    int64_t id = string_id(b, c->name);
    if (id < 0) return -1;
    if (c->quiet) quiet_remove(c);
    c->nameless = id == 0;
    c->ref_size = (uint8_t)(put_uint(c->ref, (uint64_t)id) - c->ref);
    c->bound = b->serial_of_buffer;
    c->ready = c->nameless ? 0 : c->bound;
    c->open = 0;
    c->count = 0;
    return 0;
}

/* --- what is quiet */

/* `state`: msgpack of a short str. */
static void quiet_tell(Writer *w, const uint8_t *ref, size_t ref_size, uint64_t count, uint64_t ns, const char *state) {
    uint8_t args[64 + 2 * MAX_UINT_BYTES], *p = args;
    memcpy(p, ref, ref_size);
    p = put_uint(p + ref_size, count);
    p = put_uint(p, ns);
    size_t size = strlen(state);
    p = put_text_head(p, size);
    memcpy(p, state, size);
    writer_put(w, KIND_CALL_QUIET, args, (size_t)(p + size - args));
}

static void quiet_begin(Writer *w, CodeState *c, uint64_t now) {
    c->quiet = 1;
    c->ready = 0;
    c->hidden = 0;
    c->told_ns = now;
    c->before = NULL;
    c->behind = calls.quiet;
    if (calls.quiet != NULL) calls.quiet->before = c;
    calls.quiet = c;
    quiet_tell(w, c->ref, c->ref_size, 0, 0, "quiet");
}

static void quiet_tell_all(Writer *w, uint64_t now, int judged, uint64_t elapsed_ns) {
    double most = (double)calls.limit * (double)elapsed_ns / SECOND_NS;
    for (CodeState *c = calls.quiet, *behind; c != NULL; c = behind) {
        behind = c->behind;
        if (c->bound != w->buffer->serial_of_buffer) {
            quiet_remove(c);
            continue;
        }
        int calm = judged && !c->disabled && (double)c->count <= most;
        const char *state = calm ? "calm" : c->disabled ? "uncounted" : "quiet";
        quiet_tell(w, c->ref, c->ref_size, c->hidden, now - c->told_ns, state);
        c->hidden = 0;
        c->told_ns = now;
        if (judged) {
            c->count = 0;
            c->disabled = 0;
        }
        if (calm) {
            quiet_remove(c);
            c->window = calls.window;
            c->ready = c->bound;
        }
    }
    if (calls.nameless) {
        static const char beyond[] = "code beyond the table of names";
        uint8_t name[sizeof beyond + 2], *p = put_text_head(name, sizeof beyond - 1);
        memcpy(p, beyond, sizeof beyond - 1);
        p += sizeof beyond - 1;
        quiet_tell(w, name, (size_t)(p - name), calls.nameless, now - calls.nameless_told_ns, "quiet");
        calls.nameless = 0;
    }
    calls.nameless_told_ns = now;
}

/* Another tool may have come, or gone. Runs C code only. */
static void look_for_tools(void) {
    calls.may_disable = calls.get_tool != NULL;
    int tools = 0;
    for (int n = 0; n < 6 && calls.get_tool != NULL; n++) {
        PyObject *name = PyObject_CallFunction(calls.get_tool, "i", n);
        if (name == NULL) PyErr_Clear();
        tools += name != NULL && name != Py_None;
        Py_XDECREF(name);
    }
    calls.may_disable = tools == 1;
}

/* A window ends: what is quiet is said, and looked at again. */
static void window_end(Writer *w, uint64_t now) {
    uint64_t elapsed_ns = now - calls.window_begin;
    calls.window++;
    calls.window_begin = now;
    calls.window_end = now + SECOND_NS;
    quiet_tell_all(w, now, 1, elapsed_ns);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    look_for_tools();
    if (calls.something_disabled && calls.restart != NULL) {
        calls.something_disabled = calls.anything_disabled = 0;
        PyObject *done = PyObject_CallNoArgs(calls.restart);
        if (done == NULL) PyErr_Clear();
        Py_XDECREF(done);
    }
    PyErr_Restore(type, value, traceback);
}

/* A writer that can say what concerns the whole process: the oldest one; or NULL. */
static Writer *teller_of(Buffer *b) {
    Writer *teller = NULL;
    for (Writer *w = b->writers; w != NULL; w = w->next)
        if (!w->ended) teller = w;
    return teller;
}

/* Which calls are recorded. */
static void calls_tell(Buffer *b) {
    Writer *teller = teller_of(b);
    calls.untold = teller == NULL;
    if (teller == NULL) return;
    Packer packer;
    packer_init(&packer);
    if (pack_name(b, &packer, calls.include) < 0 || pack_name(b, &packer, calls.exclude) < 0) {
        fault(b);
        return;
    }
    pack_uint(&packer, calls.limit == UINT64_MAX ? 0 : calls.limit);
    writer_put(teller, KIND_CALLS, packer.bytes, packer_size(&packer));
}

/* A generation ends: how often quiet code was called in it. */
static void calls_before_cut(Buffer *b) {
    if (!calls.on || b != active) return;
    if (calls.untold) calls_tell(b);
    Writer *teller = teller_of(b);
    if (teller == NULL) return;
    uint64_t now = clock_ns();
    if (now >= calls.window_end)
        window_end(teller, now);
    else
        quiet_tell_all(teller, now, 0, 0);
}

/* A generation begins: it says by itself which calls are recorded, which are open, and what is quiet. */
static void calls_after_cut(Buffer *b) {
    if (!calls.on || b != active) return;
    calls_tell(b);
    Writer *teller = teller_of(b);
    for (CodeState *c = calls.quiet; c != NULL && teller != NULL; c = c->behind)
        if (c->bound == b->serial_of_buffer) quiet_tell(teller, c->ref, c->ref_size, 0, 0, "quiet");
    for (Writer *w = b->writers; w != NULL; w = w->next) {
        if (w->ended) continue;
        for (int n = 0; n < w->call_depth; n++) {
            OpenCall *call = &w->calls[n];
            if (call->code == NULL || !call->recorded) continue;
            uint64_t at;
            uint8_t *p = append_begin(w, KIND_CALL_OPEN, sizeof call->code->ref + 2 * MAX_UINT_BYTES, &at);
            if (p == NULL) continue;
            memcpy(p, call->code->ref, sizeof call->code->ref);
            p = put_uint(p + call->code->ref_size, at - call->begin_ns);
            append_end(w, put_uint(p, call->track), at);
        }
    }
}

/* --- one call */

/* Whether there is room for one more on the stack. */
static inline int call_room(Writer *w) {
    if (LIKELY(w->call_depth < w->call_room)) return 1;
    int room = w->call_room ? 2 * w->call_room : 64;
    OpenCall *grown = PyMem_Realloc(w->calls, (size_t)room * sizeof *grown);
    if (grown == NULL) return 0;
    w->calls = grown;
    w->call_room = room;
    return 1;
}

static inline void call_push(Writer *w, CodeState *c, uint64_t begin_ns, uint32_t track, int recorded) {
    w->calls[w->call_depth++] = (OpenCall){c, begin_ns, track, recorded};
    c->open++;
}

/* Kind, time and name, and `more` bytes behind them. 0: dropped, and counted. */
static inline int call_put(Writer *w, uint8_t kind, const CodeState *c, const uint8_t *more, size_t size, uint64_t *at) {
    if (UNLIKELY((size_t)(w->limit - w->pos) < MAX_HEAD_BYTES + sizeof c->ref + size) &&
        !writer_take(w, MAX_HEAD_BYTES + sizeof c->ref + size)) {
        w->dropped++;
        return 0;
    }
    uint64_t now = ticks_ns();
    if (UNLIKELY(now < w->last)) now = w->last;
    uint8_t *p = w->pos;
    *p = kind;
    p = put_delta(p + 1, now - w->last);
    memcpy(p, c->ref, sizeof c->ref);
    p += c->ref_size;
    if (size) memcpy(p, more, size);
    append_end(w, p + size, now);
    *at = now;
    return 1;
}

/* Counted, not recorded. */
static int call_hide(Writer *w, CodeState *c, int may_disable) {
    c->count++;
    c->hidden++;
    if (UNLIKELY((c->count & 255) == 0)) {
        uint64_t now = ticks_ns();
        if (now >= calls.window_end) window_end(w, now);
    }
    if (may_disable && calls.may_disable && c->quiet && c->open == 0 && c->count > calls.limit) {
        c->disabled = 1;
        calls.something_disabled = 1;
        return DISABLE;
    }
    if (call_room(w)) call_push(w, c, 0, 0, 0);
    return KEEP;
}

/* The call of a code that is not simply recorded. `*found`: it is, after all. */
static int call_begin_slowly(PyObject *code, CodeState *c, int may_disable, CodeState **found) {
    *found = NULL;
    if (!calls.on || (active == NULL && recording == NULL) || tls_no_calls == PyThreadState_GetID(PyThreadState_Get()) + 1) return KEEP;
    if (c == NULL || c->filters != calls.filters) {
        if ((c = code_judge(code)) == NULL) return fault(active) < 0 ? RAISED : KEEP;
    }
    if (c->left_out) return may_disable && calls.may_disable ? DISABLE : KEEP;
    if (active == NULL) {
        if (calls.beginning) return KEEP;
        calls.beginning = 1;
        int failed = begin_recording();
        calls.beginning = 0;
        if (failed < 0) return RAISED;
        /* what has begun may have other filters */
        return active == NULL ? KEEP : call_begin_slowly(code, code_state(code), may_disable, found);
    }
    Buffer *b = active;
    if (c->bound != b->serial_of_buffer && code_bind(c, b) < 0) return fault(b) < 0 ? RAISED : KEEP;
    if (b != active) return KEEP;
    if (c->nameless) {
        calls.nameless++;
        return KEEP;
    }
    Writer *w = find_writer(b);
    if (w == NULL) return PyErr_Occurred() ? RAISED : KEEP;
    if (calls.untold) calls_tell(b);
    if (c->quiet) return call_hide(w, c, may_disable);
    *found = c;
    return KEEP;
}

/* A frame begins to run, or goes on. KEEP; DISABLE: its event here is not wanted; RAISED: by the program. */
static inline int call_begin(PyObject *code, uint8_t kind, int may_disable) {
    CodeState *c = code_state(code);
    Buffer *b = active;
    if (UNLIKELY(b == NULL || c == NULL || c->ready != b->serial_of_buffer || tls_writer == NULL || tls_writer->buffer != b)) {
        int answer = call_begin_slowly(code, c, may_disable, &c);
        /* Python code may have run: the recording may be off again */
        if (c == NULL || tls_writer == NULL) return answer;
    }
    Writer *w = tls_writer;
    if (UNLIKELY(c->window != calls.window)) {
        c->window = calls.window;
        c->count = 0;
    }
    if (UNLIKELY(++c->count > calls.limit)) {
        quiet_begin(w, c, ticks_ns());
        return call_hide(w, c, may_disable);
    }
    int answer = UNLIKELY(w->busy) ? 0 : writer_look(w);
    if (UNLIKELY(answer < 0)) return RAISED;
    if (UNLIKELY(w->buffer != active || w != tls_writer || !call_room(w))) return KEEP;
    uint64_t now = 0;
    int recorded = answer && call_put(w, kind, c, NULL, 0, &now);
    call_push(w, c, now, w->track->id, recorded);
    if (UNLIKELY(now >= calls.window_end)) window_end(w, now);
    return KEEP;
}

/* Takes the call of `c` from the stack, and those inside of it whose ends were not seen. 1: it was recorded; 0: not, or it is none of those. */
static inline int call_pop(Writer *w, CodeState *c) {
    int n = w->call_depth - 1;
    while (UNLIKELY(n >= 0 && w->calls[n].code != c)) n--;
    if (UNLIKELY(n < 0)) return 0;
    while (UNLIKELY(w->call_depth - 1 > n)) {
        CodeState *inner = w->calls[--w->call_depth].code;
        if (inner != NULL && inner->open) inner->open--;
    }
    w->call_depth = n;
    c->open--;
    return w->calls[n].recorded;
}

/* A frame ends, or is suspended. As `call_begin`. `error`: what unwinds it, or NULL. */
static inline int call_end(PyObject *code, uint8_t kind, PyObject *error, int may_disable) {
    CodeState *c = code_state(code);
    Buffer *b = active;
    Writer *w = tls_writer;
    if (UNLIKELY(c == NULL || c->open == 0)) {
        int out = c != NULL && (c->disabled || (c->left_out && c->filters == calls.filters));
        return out && may_disable && calls.may_disable ? DISABLE : KEEP;
    }
    if (UNLIKELY(b == NULL || w == NULL || w->buffer != b)) return KEEP;
    if (!call_pop(w, c)) return KEEP;
    int answer = UNLIKELY(w->busy) ? 0 : writer_look(w);
    if (UNLIKELY(answer <= 0)) return answer < 0 ? RAISED : KEEP;
    uint8_t more[1 + MAX_NAME_BYTES];
    size_t size = 0;
    uint64_t now;
    if (UNLIKELY(kind == KIND_CALL_FAIL)) {
        Packer packer;
        packer_init(&packer);
        PyObject *name = error == NULL ? NULL : PyType_GetName(Py_TYPE(error));
        int64_t id = name == NULL ? 0 : string_id(b, name);
        if (id > 0)
            pack_uint(&packer, (uint64_t)id);
        else if (name == NULL || !pack_easy_text(&packer, name, 64))
            pack_bytes_of(&packer, "\xa9" "exception", 10);
        if (PyErr_Occurred()) PyErr_Clear();
        Py_XDECREF(name);
        size = packer_size(&packer);
        memcpy(more, packer.bytes, size);
    }
    if (LIKELY(w->buffer == b && c->bound == b->serial_of_buffer)) call_put(w, kind, c, more, size, &now);
    return KEEP;
}

#if PY_VERSION_HEX >= 0x030c0000

/* --- sys.monitoring: each takes the code, a place in it, and what is returned or raised */

static inline PyObject *hook_answer(int answer) {
    if (LIKELY(answer == KEEP)) Py_RETURN_NONE;
    if (answer == RAISED) return NULL;
    calls.anything_disabled = 1;
    return Py_NewRef(calls.disable);
}

#define HOOK(name, result)                                                                   \
    static PyObject *name(PyObject *self, PyObject *const *args, size_t flags, PyObject *names) { \
        (void)self;                                                                          \
        (void)names;                                                                         \
        if (UNLIKELY(PyVectorcall_NARGS(flags) < 2 || !PyCode_Check(args[0]))) Py_RETURN_NONE; \
        return hook_answer(result);                                                          \
    }

/* what is thrown in, and what unwinds, cannot be disabled */
HOOK(on_start, call_begin(args[0], KIND_CALL_BEGIN, 1))
HOOK(on_resume, call_begin(args[0], KIND_CALL_RESUME, 1))
HOOK(on_throw, call_begin(args[0], KIND_CALL_RESUME, 0))
HOOK(on_return, call_end(args[0], KIND_CALL_END, NULL, 1))
HOOK(on_yield, call_end(args[0], KIND_CALL_SUSPEND, NULL, 1))
HOOK(on_unwind, call_end(args[0], KIND_CALL_FAIL, PyVectorcall_NARGS(flags) > 2 ? args[2] : NULL, 0))

/* One of them as an object: the interpreter comes to it without the layer that a builtin function is (3 ns of 20). */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
} Hook;

static PyMemberDef hook_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Hook, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static void hook_dealloc(PyObject *hook) {
    PyTypeObject *type = Py_TYPE(hook);
    PyObject_Free(hook);
    Py_DECREF(type);
}

static PyType_Slot hook_slots[] = {
    {Py_tp_dealloc, hook_dealloc},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, hook_members},
    {0, NULL},
};
static PyType_Spec hook_spec = {
    "frzmq.tracer._buffer.CallHook", sizeof(Hook), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL, hook_slots,
};
static PyTypeObject *HookType;

/* By the names of their events in sys.monitoring.events. */
static int add_hooks(PyObject *module) {
    static const struct {
        const char *name;
        vectorcallfunc call;
    } wanted[] = {
        {"PY_START", on_start}, {"PY_RESUME", on_resume}, {"PY_THROW", on_throw},
        {"PY_RETURN", on_return}, {"PY_YIELD", on_yield}, {"PY_UNWIND", on_unwind},
    };
    PyObject *hooks = PyDict_New();
    for (size_t n = 0; hooks != NULL && n < sizeof wanted / sizeof *wanted; n++) {
        Hook *hook = PyObject_New(Hook, HookType);
        if (hook != NULL) hook->call = wanted[n].call;
        if (hook == NULL || PyDict_SetItemString(hooks, wanted[n].name, (PyObject *)hook) < 0) Py_CLEAR(hooks);
        Py_XDECREF(hook);
    }
    int answer = hooks == NULL ? -1 : PyModule_AddObjectRef(module, "call_hooks", hooks);
    Py_XDECREF(hooks);
    return answer;
}

#else

/* --- PyEval_SetProfile */

/* The instruction at which a frame is, and its argument. */
static inline void frame_at(PyFrameObject *frame, PyCodeObject *code, int *opcode, int *arg) {
    int at = PyFrame_GetLasti(frame) / (int)sizeof(_Py_CODEUNIT);
    _Py_CODEUNIT unit = at < 0 ? 0 : _PyCode_CODE(code)[at];
    *opcode = (uint8_t)unit;
    *arg = unit >> 8;
}

static int on_profile(PyObject *self, PyFrameObject *frame, int what, PyObject *result) {
    (void)self;
    if (what != PyTrace_CALL && what != PyTrace_RETURN) return 0;
    if (UNLIKELY(!calls.on)) {
        PyEval_SetProfile(NULL, NULL);
        return 0;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    int suspends = code->co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR), opcode = 0, arg = 0, answer;
    if (suspends) frame_at(frame, code, &opcode, &arg);
    if (what == PyTrace_CALL)
        /* a new frame begins at RESUME 0 */
        answer = call_begin((PyObject *)code, suspends && (opcode == YIELD_VALUE || arg != 0) ? KIND_CALL_RESUME : KIND_CALL_BEGIN, 0);
    else if (result == NULL)
        answer = call_end((PyObject *)code, KIND_CALL_FAIL, NULL, 0);
    else
        answer = call_end((PyObject *)code, suspends && opcode == YIELD_VALUE ? KIND_CALL_SUSPEND : KIND_CALL_END, NULL, 0);
    Py_DECREF(code);
    return answer < 0 ? -1 : 0;
}

/* For threading.setprofile(): the first event of a new thread, which is recorded from then on. */
static PyObject *calls_of_thread(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *frame, *result;
    const char *what;
    if (!PyArg_ParseTuple(args, "OsO", &frame, &what, &result)) return NULL;
    PyEval_SetProfile(calls.on ? on_profile : NULL, NULL);
    if (calls.on && PyFrame_Check(frame) && strcmp(what, "call") == 0 && on_profile(NULL, (PyFrameObject *)frame, PyTrace_CALL, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

#endif

/* --- on and off */

/* Whether events are disabled; the caller enables them. */
static int take_disabled(void) {
    int disabled = calls.anything_disabled;
    calls.anything_disabled = calls.something_disabled = 0;
    return disabled;
}

/* calls_begin(judge, include, exclude, limit, disable, restart, get_tool): the last three of sys.monitoring, or None. True: events are disabled that by these
   filters may be wanted. */
static PyObject *calls_begin(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *judge, *include, *exclude, *disable, *restart, *get_tool;
    unsigned long long limit;
    if (!PyArg_ParseTuple(args, "OUUKOOO", &judge, &include, &exclude, &limit, &disable, &restart, &get_tool)) return NULL;
    if (calls.extra < 0 && (calls.extra = CODE_EXTRA_INDEX(code_gone)) < 0) {
        PyErr_SetString(PyExc_RuntimeError, "calls_begin: no room is left beside code objects");
        return NULL;
    }
    Py_XSETREF(calls.judge, Py_NewRef(judge));
    Py_XSETREF(calls.include, Py_NewRef(include));
    Py_XSETREF(calls.exclude, Py_NewRef(exclude));
    Py_XSETREF(calls.disable, Py_NewRef(disable));
    Py_XSETREF(calls.restart, restart == Py_None ? NULL : Py_NewRef(restart));
    Py_XSETREF(calls.get_tool, get_tool == Py_None ? NULL : Py_NewRef(get_tool));
    calls.limit = limit ? limit : UINT64_MAX;
    calls.filters++;
    calls.on = 1;
    while (calls.quiet != NULL) quiet_remove(calls.quiet);
    calls.window++;
    calls.window_begin = calls.nameless_told_ns = clock_ns();
    calls.window_end = calls.window_begin + SECOND_NS;
    look_for_tools();
#if PY_VERSION_HEX < 0x030c0000
    PyEval_SetProfile(on_profile, NULL);
#endif
    calls.untold = 1;
    if (active != NULL) calls_tell(active);
    return PyBool_FromLong(take_disabled());
}

/* True: events are disabled. */
static PyObject *calls_end(PyObject *module, PyObject *ignored) {
    (void)module;
    (void)ignored;
    calls.on = calls.may_disable = 0;
#if PY_VERSION_HEX < 0x030c0000
    if (PyThreadState_Get()->c_profilefunc == on_profile) PyEval_SetProfile(NULL, NULL);
#endif
    return PyBool_FromLong(take_disabled());
}

/* No call of this thread is recorded. */
static PyObject *calls_not_here(PyObject *module, PyObject *ignored) {
    (void)module;
    (void)ignored;
    tls_no_calls = PyThreadState_GetID(PyThreadState_Get()) + 1;
    Py_RETURN_NONE;
}

#endif
