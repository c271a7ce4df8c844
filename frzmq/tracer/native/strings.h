/* The string table: appended, never changed, never removed; full, strings go into the records themselves. */

#ifndef FRZMQ_STRINGS_H
#define FRZMQ_STRINGS_H

#include "buffer.h"

static void strings_init(Buffer *b, uint64_t offset, uint64_t bytes) {
    b->strings = b->mem + offset;
    b->strings_room = bytes < MAX_STRINGS_BYTES ? (uint32_t)bytes : MAX_STRINGS_BYTES;
}

static inline KnownName *known_slot(Buffer *b, PyObject *text) {
    uintptr_t address = (uintptr_t)text;
    return &b->known[(address >> 4 ^ address >> 16) % KNOWN_NAMES];
}

/* `text`, an exact str, as msgpack of at most `most` bytes: a new reference to bytes. NULL: raised. */
static PyObject *text_bytes(PyObject *text, int most) {
    return PyObject_CallFunction(py.pack_text, "Oi", text, most);
}

/* The id of an exact str, which is put into the table; 0: it is empty, or the table is full. -1: raised. Runs no code of the program. */
static int64_t string_id(Buffer *b, PyObject *text) {
    PyObject *found = PyDict_GetItemWithError(b->string_ids, text);
    if (found != NULL) return PyLong_AsLong(found);
    if (PyErr_Occurred()) return -1;
    if (PyUnicode_GET_LENGTH(text) == 0) return 0;
    Packer packer;
    packer_init(&packer);
    PyObject *slow = NULL;
    const uint8_t *data = packer.bytes;
    size_t size;
    if (pack_easy_text(&packer, text, MAX_NAME_BYTES)) {
        size = packer_size(&packer);
    } else {
        if ((slow = text_bytes(text, MAX_NAME_BYTES)) == NULL) return -1;
        data = (const uint8_t *)PyBytes_AS_STRING(slow);
        size = (size_t)PyBytes_GET_SIZE(slow);
        /* Python code has run: another thread may have brought it in the meantime */
        if ((found = PyDict_GetItemWithError(b->string_ids, text)) != NULL) {
            Py_DECREF(slow);
            return PyLong_AsLong(found);
        }
    }
    int64_t id = 0;
    uint32_t end = word_end(b->strings_word);
    if (size <= b->strings_room - end && !b->closed) {
        id = (int64_t)word_count(b->strings_word) + 1;
        PyObject *number = PyLong_FromLongLong(id);
        if (number == NULL || PyDict_SetItem(b->string_ids, text, number) < 0) {
            id = -1;
        } else {
            memcpy(b->strings + end, data, size);
            b->strings_word = make_word((uint64_t)id, end + size);
            publish(&b->words[STRINGS_WORD], b->strings_word);
        }
        Py_XDECREF(number);
    }
    Py_XDECREF(slow);
    return id;
}

/* What was seen at this address, also made so. NULL without an exception: the name is not in the table. */
static KnownName *known_name(Buffer *b, PyObject *text) {
    KnownName *known = known_slot(b, text);
    if (LIKELY(known->key == text)) return known;
    int64_t id = string_id(b, text);
    if (id <= 0) return NULL;
    PyObject *before = known->key;
    known->key = Py_NewRef(text);
    known->size = (uint8_t)(put_uint(known->bytes, (uint64_t)id) - known->bytes);
    known->id = (uint32_t)id;
    known->secret = -1;
    /* exact strings: nothing runs when one goes */
    Py_XDECREF(before);
    return known;
}

/* A reference to `text`, an exact str: its id, or itself. -1: raised. */
static int pack_name(Buffer *b, Packer *packer, PyObject *text) {
    KnownName *known = known_name(b, text);
    if (known != NULL) {
        pack_bytes_of(packer, known->bytes, known->size);
        return 0;
    }
    if (PyErr_Occurred()) return -1;
    if (pack_easy_text(packer, text, MAX_NAME_BYTES)) return 0;
    PyObject *bytes = text_bytes(text, MAX_NAME_BYTES);
    if (bytes == NULL) return -1;
    pack_bytes_of(packer, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return 0;
}

/* 1, 0, or -1: raised. */
static int name_is_secret(Buffer *b, PyObject *text) {
    KnownName *known = known_name(b, text);
    if (known != NULL && known->secret >= 0) return known->secret;
    if (PyErr_Occurred()) return -1;
    PyObject *answer = PyObject_CallOneArg(py.is_secret, text);
    if (answer == NULL) return -1;
    int secret = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    /* it was Python code: the slot may be another name's now */
    if (known != NULL && known->key == text) known->secret = (int8_t)secret;
    return secret;
}

/* -1: raised. */
static int pack_value(Packer *packer, PyObject *value) {
    if (pack_easy_value(packer, value)) return 0;
    PyObject *bytes = PyObject_CallOneArg(py.pack_value, value);
    if (bytes == NULL) return -1;
    pack_bytes_of(packer, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return 0;
}

/* One pair of a map. -1: raised. */
static int pack_pair(Buffer *b, Packer *packer, PyObject *name, PyObject *value) {
    int secret = name_is_secret(b, name);
    if (secret < 0 || pack_name(b, packer, name) < 0) return -1;
    return pack_value(packer, secret ? py.redacted : value);
}

static void pack_map_head(Packer *packer, size_t pairs) {
    if (pairs == 0)
        pack_byte(packer, NIL);
    else if (pairs < 16)
        pack_byte(packer, (uint8_t)(0x80 | pairs));
    else if (packer_room(packer, 3)) {
        *packer->p = 0xde;
        packer->p = put_be16(packer->p + 1, (uint16_t)pairs);
    }
}

/* A map, or nil. -1: raised. Sets `failed` where they are not easily packed. */
static int pack_attributes(Buffer *b, Packer *packer, PyObject *attributes) {
    if (attributes == NULL || PyDict_GET_SIZE(attributes) == 0) {
        pack_byte(packer, NIL);
        return 0;
    }
    if (PyDict_GET_SIZE(attributes) <= MAX_ATTRIBUTES) {
        PyObject *name, *value;
        Py_ssize_t at = 0;
        pack_map_head(packer, (size_t)PyDict_GET_SIZE(attributes));
        while (PyDict_Next(attributes, &at, &name, &value)) {
            if (!PyUnicode_CheckExact(name)) {
                packer->failed = 1;
                return 0;
            }
            if (pack_pair(b, packer, name, value) < 0) return -1;
        }
    } else {
        packer->failed = 1;
    }
    return 0;
}

/* What is packed already, and behind it attributes that are not easily packed: a new reference to bytes. NULL: raised. */
static PyObject *packed_slowly(Buffer *b, const uint8_t *head, size_t size, PyObject *attributes) {
    PyObject *intern = PyObject_GetAttrString((PyObject *)b, "intern"), *bytes = NULL;
    PyObject *tail = intern == NULL ? NULL : PyObject_CallFunctionObjArgs(py.pack_attributes, attributes, intern, NULL);
    if (tail != NULL && (bytes = PyBytes_FromStringAndSize((const char *)head, (Py_ssize_t)size)) != NULL) PyBytes_Concat(&bytes, tail);
    Py_XDECREF(tail);
    Py_XDECREF(intern);
    return bytes;
}

static PyObject *new_strings(Buffer *b) {
    uint64_t from = b->strings_taken, to = b->strings_word;
    b->strings_taken = to;
    if (word_count(from) == word_count(to)) Py_RETURN_NONE;
    return Py_BuildValue(
        "KKy#", (unsigned long long)word_count(from) + 1, (unsigned long long)(word_count(to) - word_count(from)),
        (const char *)b->strings + word_end(from), (Py_ssize_t)(word_end(to) - word_end(from))
    );
}

static void strings_clear(Buffer *b) {
    if (b->known != NULL)
        for (int n = 0; n < KNOWN_NAMES; n++) Py_CLEAR(b->known[n].key);
    PyMem_Free(b->known);
    b->known = NULL;
    Py_CLEAR(b->string_ids);
}

#endif
