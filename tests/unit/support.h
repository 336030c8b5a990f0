/* What all unit tests share: golden files, scratch folders, hashes. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"

/* "tests/golden/NAME" as an absolute path, packed or not, in one of a few rotating buffers. */
const char *golden(const char *name);
/* The model that the repository carries. */
const char *pebble(void);
/* "../shared/NAME", or NULL when it is not there (then call skip()). */
const char *shared_path(const char *name);

/* A fresh folder that is removed at exit; the path of `name` in it, in one of a few rotating buffers. */
const char *scratch(const char *name);

/* Whole file; fails the test if it cannot be read. Free with free. */
uint8_t *read_whole(const char *path, size_t *n);
/* Their bytes are equal; `want` names what differs. */
void assert_same_files(const char *got, const char *want);
void write_whole(const char *path, const void *bytes, size_t n);

/* Lower-case hex of the SHA-256. */
void sha256_hex(const void *bytes, size_t n, char hex[65]);

/* Fails with the message if status is not TMS_OK. */
#define assert_ok(status, err) assert_ok_at((status), &(err), __FILE__, __LINE__)
void assert_ok_at(tms_status status, const struct tms_error *err, const char *file, int line);
/* Fails, naming the first difference, if the two differ. */
#define assert_same_bytes(got, want, n, what) assert_same_bytes_at((got), (want), (n), (what), __FILE__, __LINE__)
void assert_same_bytes_at(const void *got, const void *want, size_t n, const char *what, const char *file, int line);

/* The levels that this kind of machine knows, the lowest first (base/cpu.h). */
#if defined(__aarch64__)
#define ALL_CPU_LEVELS TMS_CPU_SCALAR, TMS_CPU_NEON
#else
#define ALL_CPU_LEVELS TMS_CPU_SCALAR, TMS_CPU_AVX2, TMS_CPU_AVX512
#endif

/* A small reproducible generator (splitmix64). */
uint64_t next_random(uint64_t *state);
float random_normal(uint64_t *state);
/* Finite floats that ordinary data do not hold, of one of N_STRANGE kinds. */
void fill_strange(float *x, size_t n, int kind, uint64_t *seed);
enum { N_STRANGE = 13 };

#endif
