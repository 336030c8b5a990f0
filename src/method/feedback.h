/* Rounding with error feedback (GPTQ, arXiv 2210.17323; OBQ with one order for all rows), for any grid of values.
 *
 * Columns are rounded from left to right. With U the upper factor of the inverse Hessian (cholesky.h), rounding column
 * i of a row from w to q moves the columns behind it so that the layer's output changes least: w[j] -= (w[i] - q) /
 * U[i][i] * U[i][j],     j > i;       the loss is ((w[i] - q) / U[i][i])² / 2 A grid says what values there are: `fit`
 * sets the parameters of a group of columns when the loop gets to it, from weights that hold the feedback of everything
 * before it; `decide` then rounds, and must return the values that a reader of the format will decode, so that feedback
 * sees all that is lost.
 *
 * Rows do not meet: tiles of 32 of them (one per lane) are worked on at once, and the result depends neither on how
 * many threads there are nor on the CPU. */
#ifndef TMS_METHOD_FEEDBACK_H
#define TMS_METHOD_FEEDBACK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/threads.h"

enum {
    TMS_FEEDBACK_ROWS = 32,  /* of a tile: the most that a grid gets at once; tiles begin at multiples of it */
    TMS_FEEDBACK_BLOCK = 128 /* columns that are done before those behind them are touched */
};

struct tms_grid {
    /* Columns with common parameters; 0: nothing is to be fitted. The last group may be shorter. */
    size_t group;
    /* Columns that are decided together, a divisor of group and of 128. Feedback runs through them afterwards. */
    size_t step;
    /* Groups are fitted to the weights as they were at the beginning of the block of 128 columns, as GPTQModel and its
     * ancestors do, not as they are. Without it, groups must divide 128 or be multiples of it. */
    bool stale;
    /* w [n_rows][ldw]: columns first … first + n - 1. */
    void (*fit)(void *ctx, size_t row, size_t n_rows, size_t first, size_t n, const float *w, size_t ldw);
    /* w [step][32], decoded likewise: columns first … of rows row …; lanes n_rows … 31 hold zeros and are not used. */
    void (*decide)(void *ctx, size_t row, size_t n_rows, size_t first, const float *w, float *decoded);
    void *ctx; /* different tiles may be worked on at the same time */
};

/* w [n_rows][ldw], columns in the order of rounding, is not changed. u [n_cols][ldu]; ldu a multiple of 16, padding
 * zero. *loss (may be NULL) gets the sum of losses. TMS_EUSAGE for a grid that breaks the rules above. */
tms_status tms_feedback(const float *w, size_t ldw, size_t n_rows, size_t n_cols, const float *u, size_t ldu,
                        const struct tms_grid *grid, double *loss, struct tms_pool *pool, struct tms_error *err);

#endif
