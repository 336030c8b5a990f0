/* Scales folded into a tensor: an operation's outputs are divided by s, and the columns of all matrices that read them
 * multiplied, so that the model computes what it did, with weights that round better. Of a matrix value [r][c] becomes
 *     x[r][c] * columns[r / part_rows][c] / rows[r],
 * and norms (n_cols = 1), which may be stored less by 1 (Gemma), (x + shift) / rows[r] - shift. The pipeline does it to
 * the values that it reads, so that plain tensors need nothing else and errors are told of what is rounded. */
#ifndef TMS_TARGET_FOLD_H
#define TMS_TARGET_FOLD_H

#include "target/target.h"

struct tms_fold {
    uint64_t n_rows, n_cols;
    uint64_t part_rows; /* of each matrix that is stacked in the tensor */
    float shift;
    float *columns; /* [n_rows / part_rows][n_cols] */
    float *rows;    /* [n_rows] */
};

/* Values [first, first + n) of the tensor; x may be out. */
void tms_fold_apply(const struct tms_fold *fold, uint64_t first, uint64_t n, const float *x, float *out);

/* The fold of a source tensor, made of ones if there is none yet, in all its routes. What was to be copied is encoded
 * from then on. NULL if memory is short. */
struct tms_fold *tms_fold_make(struct tms_target *t, size_t source, uint64_t n_rows, uint64_t n_cols,
                               uint64_t part_rows);
struct tms_fold *tms_fold_of(const struct tms_target *t, size_t source);
/* True if the tensor goes only where a fold can be: what is copied are plain floats, and no codes are taken over. */
bool tms_fold_can(const struct tms_target *t, size_t source);

/* The folds of some source tensors, in a file; loading gives them to the target. */
tms_status tms_folds_save(const struct tms_target *t, const size_t *sources, size_t n, const char *path,
                          struct tms_error *err);
tms_status tms_folds_load(struct tms_target *t, const char *path, struct tms_error *err);

#endif
