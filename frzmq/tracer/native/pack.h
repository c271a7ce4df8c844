/* msgpack, as frzmq/tracer/attributes.py writes it: exact built-in types, bounded. Nothing here runs code of the program's objects. */

#ifndef FRZMQ_PACK_H
#define FRZMQ_PACK_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { MAX_NAME_BYTES = 256, MAX_VALUE_BYTES = 1024, MAX_ATTRIBUTES = 32, MAX_UINT_BYTES = 9, NIL = 0xc0 };

static inline uint8_t *put_be16(uint8_t *p, uint16_t value) {
    value = __builtin_bswap16(value);
    memcpy(p, &value, 2);
    return p + 2;
}

static inline uint8_t *put_be32(uint8_t *p, uint32_t value) {
    value = __builtin_bswap32(value);
    memcpy(p, &value, 4);
    return p + 4;
}

static inline uint8_t *put_be64(uint8_t *p, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(p, &value, 8);
    return p + 8;
}

static inline uint8_t *put_uint(uint8_t *p, uint64_t value) {
    if (value < 128) {
        *p = (uint8_t)value;
        return p + 1;
    }
    if (value < 1 << 16) {
        *p = 0xcd;
        return put_be16(p + 1, (uint16_t)value);
    }
    if (value < 1ull << 32) {
        *p = 0xce;
        return put_be32(p + 1, (uint32_t)value);
    }
    *p = 0xcf;
    return put_be64(p + 1, value);
}

/* A time since the record before: no one-byte form, whose border at 128 ns real deltas straddle (a branch that is guessed wrong costs more than two bytes). */
static inline uint8_t *put_delta(uint8_t *p, uint64_t value) {
    if (value < 1 << 16) {
        *p = 0xcd;
        return put_be16(p + 1, (uint16_t)value);
    }
    if (value < 1ull << 32) {
        *p = 0xce;
        return put_be32(p + 1, (uint32_t)value);
    }
    *p = 0xcf;
    return put_be64(p + 1, value);
}

static inline uint8_t *put_text_head(uint8_t *p, size_t size) {
    if (size < 32) {
        *p = (uint8_t)(0xa0 | size);
        return p + 1;
    }
    if (size < 256) {
        p[0] = 0xd9;
        p[1] = (uint8_t)size;
        return p + 2;
    }
    *p = 0xda;
    return put_be16(p + 1, (uint16_t)size);
}

/* The args of one record, gathered before space is reserved: on the stack, so that what a call in between may run (a collector, of 3.11) cannot meet it. */
typedef struct {
    uint8_t *p, *end;
    int failed; /* it did not fit */
    uint8_t bytes[2048];
} Packer;

static inline void packer_init(Packer *packer) {
    packer->p = packer->bytes;
    packer->end = packer->bytes + sizeof packer->bytes;
    packer->failed = 0;
}

static inline size_t packer_size(const Packer *packer) { return (size_t)(packer->p - packer->bytes); }

static inline int packer_room(Packer *packer, size_t size) {
    if ((size_t)(packer->end - packer->p) >= size) return 1;
    packer->failed = 1;
    return 0;
}

static inline void pack_bytes_of(Packer *packer, const void *data, size_t size) {
    if (packer_room(packer, size)) {
        memcpy(packer->p, data, size);
        packer->p += size;
    }
}

static inline void pack_byte(Packer *packer, uint8_t byte) { pack_bytes_of(packer, &byte, 1); }

static inline void pack_uint(Packer *packer, uint64_t value) {
    if (packer_room(packer, MAX_UINT_BYTES)) packer->p = put_uint(packer->p, value);
}

/* 1: packed. 0: not an easy one (not ASCII, too long): for the reference to pack. */
static inline int pack_easy_text(Packer *packer, PyObject *text, size_t most) {
    if (!PyUnicode_IS_COMPACT_ASCII(text)) return 0;
    size_t size = (size_t)PyUnicode_GET_LENGTH(text);
    if (size > most) return 0;
    if (packer_room(packer, 3 + size)) {
        packer->p = put_text_head(packer->p, size);
        memcpy(packer->p, PyUnicode_1BYTE_DATA(text), size);
        packer->p += size;
    }
    return 1;
}

/* As above, of any value. */
static int pack_easy_value(Packer *packer, PyObject *value) {
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow) return 0;
        if (number >= 0)
            pack_uint(packer, (uint64_t)number);
        else if (packer_room(packer, MAX_UINT_BYTES)) {
            *packer->p = 0xd3;
            packer->p = put_be64(packer->p + 1, (uint64_t)number);
        }
        return 1;
    }
    if (PyUnicode_CheckExact(value)) return pack_easy_text(packer, value, MAX_VALUE_BYTES);
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        uint64_t bits;
        memcpy(&bits, &number, 8);
        if (packer_room(packer, 9)) {
            *packer->p = 0xcb;
            packer->p = put_be64(packer->p + 1, bits);
        }
        return 1;
    }
    if (value == Py_None || value == Py_True || value == Py_False) {
        pack_byte(packer, value == Py_None ? NIL : value == Py_True ? 0xc3 : 0xc2);
        return 1;
    }
    return 0;
}

#endif
