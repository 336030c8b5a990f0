/* Hidden states of all groups between layers: in memory, or in a file that has no name and goes with the process. */
#ifndef TMS_EVAL_HIDDEN_H
#define TMS_EVAL_HIDDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tms_hidden {
    size_t stride; /* floats of a row */
    float *rows;   /* [n_rows][stride], or one group's when on disk */
    int fd;        /* -1: all is in memory */
};

/* The file lies in $TMPDIR, else in /tmp. */
tms_status tms_hidden_create(struct tms_hidden *out, size_t n_rows, size_t group_rows, size_t stride, bool on_disk,
                             struct tms_error *err);
/* Where rows [row, row + n) are to be worked on; read from the file if there is one and `load`. */
tms_status tms_hidden_take(struct tms_hidden *h, size_t row, size_t n, bool load, float **out, struct tms_error *err);
/* Puts them back. */
tms_status tms_hidden_put(struct tms_hidden *h, size_t row, size_t n, struct tms_error *err);
/* Copies rows to `to`, which may be the start of a group in memory that holds them. */
tms_status tms_hidden_copy(struct tms_hidden *h, size_t row, size_t n, float *to, struct tms_error *err);
void tms_hidden_free(struct tms_hidden *h);

#endif
