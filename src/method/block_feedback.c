/* See block_feedback.h. */
#include "method/block_feedback.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/numbers.h"
#include "codec/iq4_search.h"
#include "method/block_grids.h"
#include "method/eight_flips.h"
#include "method/eights.h"
#include "method/feedback.h"
#include "method/flips.h"
#include "method/gptq.h"

enum { LANES = TMS_FEEDBACK_ROWS, MOST_BLOCK = 256, MOST_BYTES = 292, MOST_SUBS = 16 };

tms_status tms_feedback_factor_create(struct tms_feedback_factor *out, const struct tms_hessian *hessian, double damp,
                                      struct tms_pool *pool, struct tms_error *err)
{
    struct tms_feedback_factor made = {.n = hessian->n, .ld = hessian->ld, .damp = damp};
    made.u = tms_calloc((uint64_t)made.n * made.ld, sizeof *made.u);
    if (!made.u) return tms_fail_memory(err, (uint64_t)made.n * made.ld * sizeof *made.u);
    tms_status status = tms_damped_factor(hessian, NULL, &made.damp, made.u, pool, err);
    if (status == TMS_OK)
        *out = made;
    else
        free(made.u);
    return status;
}

void tms_feedback_factor_free(struct tms_feedback_factor *factor)
{
    free(factor->u);
    *factor = (struct tms_feedback_factor){0};
}

struct state {
    const struct tms_codec *codec;
    const struct tms_block_grid *grid;
    struct tms_eights *eights; /* of the codebook, or NULL */
    size_t n_rows, n_cols, n_padded;
    size_t row_bytes;
    const float *importance; /* [n_cols] */
    const float *cost;       /* [n_cols]: 1 / U[i][i]², of codebooks */
    float *steps, *offsets;  /* [n_cols / sub][n_padded] */
    float numbers[256];      /* of ranks */
    float middles[255];      /* between numbers that are not evenly spaced */
    uint8_t *ranks;          /* [n_rows][n_cols]: of numbers; of codebooks words in the first 4 of 8 */
    uint8_t *blocks;
};

/* ---- scales ---- */

/* Finds and stores the scales of block `first` of all rows. */
static void fit(void *ctx, size_t row, size_t n_rows, size_t first, size_t n, const float *w, size_t ldw)
{
    const struct state *state = ctx;
    const struct tms_codec *codec = state->codec;
    const size_t bytes = codec->block_bytes, n_subs = n / state->grid->sub, sub = first / state->grid->sub;
    float x[LANES * MOST_BLOCK];
    uint8_t encoded[LANES * MOST_BYTES];
    for (size_t r = 0; r < n_rows; r++) memcpy(x + r * n, w + r * ldw, n * sizeof *x);
    if (codec->encode_weighted)
        codec->encode_weighted(x, state->importance + first, encoded, n_rows, n);
    else
        codec->encode(x, encoded, n_rows * n);
    for (size_t r = 0; r < n_rows; r++) {
        float steps[MOST_SUBS], offsets[MOST_SUBS];
        memcpy(state->blocks + (row + r) * state->row_bytes + first / n * bytes, encoded + r * bytes, bytes);
        state->grid->open(encoded + r * bytes, steps, offsets);
        for (size_t s = 0; s < n_subs; s++) {
            state->steps[(sub + s) * state->n_padded + row + r] = steps[s];
            state->offsets[(sub + s) * state->n_padded + row + r] = offsets[s];
        }
    }
}

/* ---- numbers ---- */

TMS_INLINE void decide_even_body(const float *restrict w, const float *restrict steps, const float *restrict offsets,
                                 float first, float last, int32_t *restrict ranks, float *restrict decoded)
{
    for (size_t r = 0; r < LANES; r++) {
        float number = rintf((w[r] - offsets[r]) / steps[r]);
        number = number > first ? number : first; /* NaN, of a step of 0, too */
        number = number < last ? number : last;
        ranks[r] = (int32_t)(number - first);
        decoded[r] = steps[r] * number + offsets[r];
    }
}
TMS_BY_CPU(static, decide_even,
           (const float *restrict w, const float *restrict steps, const float *restrict offsets, float first,
            float last, int32_t *restrict ranks, float *restrict decoded),
           (w, steps, offsets, first, last, ranks, decoded))

TMS_INLINE void rank_of_body(const float *restrict w, const float *restrict steps, const float *restrict offsets,
                             const float *restrict middles, int n_middles, int32_t *restrict ranks)
{
    float t[LANES];
    for (size_t r = 0; r < LANES; r++) t[r] = (w[r] - offsets[r]) / steps[r];
    for (size_t r = 0; r < LANES; r++) ranks[r] = 0;
    for (int k = 0; k < n_middles; k++)
        for (size_t r = 0; r < LANES; r++) ranks[r] += t[r] >= middles[k];
}
TMS_BY_CPU(static, rank_of,
           (const float *restrict w, const float *restrict steps, const float *restrict offsets,
            const float *restrict middles, int n_middles, int32_t *restrict ranks),
           (w, steps, offsets, middles, n_middles, ranks))

static void decide_number(void *ctx, size_t row, size_t n_rows, size_t first, const float *w, float *decoded)
{
    const struct state *state = ctx;
    const struct tms_block_grid *grid = state->grid;
    const size_t at = first / grid->sub * state->n_padded + row;
    int32_t ranks[LANES];
    if (grid->numbers) {
        rank_of(w, state->steps + at, state->offsets + at, state->middles, grid->count - 1, ranks);
        for (size_t r = 0; r < LANES; r++)
            decoded[r] = state->steps[at + r] * state->numbers[ranks[r]] + state->offsets[at + r];
    } else {
        decide_even(w, state->steps + at, state->offsets + at, (float)grid->first,
                    (float)(grid->first + grid->count - 1), ranks, decoded);
    }
    for (size_t r = 0; r < n_rows; r++) state->ranks[(row + r) * state->n_cols + first] = (uint8_t)ranks[r];
}

/* ---- codebooks ---- */

static void decide_eight(void *ctx, size_t row, size_t n_rows, size_t first, const float *w, float *decoded)
{
    const struct state *state = ctx;
    const size_t at = first / state->grid->sub * state->n_padded + row;
    uint32_t words[LANES];
    tms_eights_nearest(state->eights, w, state->steps + at, state->grid->free_delta ? NULL : state->offsets + at,
                       state->cost + first, words, decoded);
    for (size_t r = 0; r < n_rows; r++)
        memcpy(state->ranks + (row + r) * state->n_cols + first, &words[r], sizeof *words);
}

/* ---- flips ---- */

/* The rank of the value nearest to target. */
static int rank_near(const struct state *state, size_t row, size_t col, float target)
{
    const struct tms_block_grid *grid = state->grid;
    const size_t at = col / grid->sub * state->n_padded + row;
    const float t = (target - state->offsets[at]) / state->steps[at];
    int rank = 0;
    if (grid->numbers) {
        for (int k = 0; k < grid->count - 1; k++) rank += t >= state->middles[k];
        return rank;
    }
    const float first = (float)grid->first, last = (float)(grid->first + grid->count - 1);
    float number = rintf(t);
    number = number > first ? number : first;
    return (int)((number < last ? number : last) - first);
}

static float value_of(const struct state *state, size_t row, size_t col, int rank)
{
    const size_t at = col / state->grid->sub * state->n_padded + row;
    return state->steps[at] * state->numbers[rank] + state->offsets[at];
}

static float nearest(void *ctx, size_t row, size_t col, float target)
{
    return value_of(ctx, row, col, rank_near(ctx, row, col, target));
}

static tms_status flip(struct state *state, const float *w, const struct tms_feedback_factor *factor,
                       const struct tms_block_feedback_options *options, struct tms_pool *pool, struct tms_error *err)
{
    const size_t n_cols = state->n_cols;
    if (state->eights) {
        struct tms_eight_flips flips = {.eights = state->eights,
                                        .steps = state->steps,
                                        .deltas = state->grid->free_delta ? NULL : state->offsets,
                                        .sub = state->grid->sub,
                                        .n_padded = state->n_padded,
                                        .damp = factor->damp,
                                        .n_sweeps = options->n_sweeps};
        return tms_eight_flips(w, state->ranks, state->n_rows, options->hessian, &flips, pool, err);
    }
    float *q = tms_calloc((uint64_t)state->n_rows * n_cols, sizeof *q);
    if (!q) return tms_fail_memory(err, (uint64_t)state->n_rows * n_cols * sizeof *q);
    for (size_t r = 0; r < state->n_rows; r++)
        for (size_t c = 0; c < n_cols; c++) q[r * n_cols + c] = value_of(state, r, c, state->ranks[r * n_cols + c]);
    struct tms_flips flips = {.nearest = nearest, .ctx = state, .damp = factor->damp, .n_sweeps = options->n_sweeps};
    tms_status status = tms_flips(w, q, state->n_rows, options->hessian, &flips, NULL, NULL, pool, err);
    if (status == TMS_OK)
        for (size_t r = 0; r < state->n_rows; r++)
            for (size_t c = 0; c < n_cols; c++)
                state->ranks[r * n_cols + c] = (uint8_t)rank_near(state, r, c, q[r * n_cols + c]);
    free(q);
    return status;
}

/* ---- all of it ---- */

/* Codes go into the blocks of row `index`. */
static tms_status put_row(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    const struct state *state = ctx;
    const struct tms_block_grid *grid = state->grid;
    const size_t elems = state->codec->block_elems;
    for (size_t b = 0; b < state->n_cols / elems; b++) {
        uint8_t *codes = state->ranks + index * state->n_cols + b * elems;
        if (grid->codes)
            for (size_t i = 0; i < elems; i++) codes[i] = grid->codes[codes[i]];
        grid->put(state->blocks + index * state->row_bytes + b * state->codec->block_bytes, codes);
    }
    return TMS_OK;
}

bool tms_block_feedback_knows(enum tms_type type)
{
    return tms_block_grid(type) != NULL;
}

static tms_status check(const struct tms_codec *codec, const float *w, size_t n_rows, size_t n_cols,
                        const struct tms_block_feedback_options *options, struct tms_error *err)
{
    if (!codec || !tms_block_grid(codec->id))
        return tms_fail(err, TMS_EUSAGE, "error feedback does not know the blocks of %s", codec ? codec->name : "?");
    if (n_cols % codec->block_elems != 0)
        return tms_fail(err, TMS_EUSAGE, "rows of %zu are no whole number of %s blocks of %u", n_cols, codec->name,
                        codec->block_elems);
    if (options->n_sweeps > 0 && (!options->hessian || options->hessian->n != n_cols))
        return tms_fail(err, TMS_EUSAGE, "flips need the Hessian");
    for (size_t r = 0; r < n_rows; r++) {
        const size_t bad = tms_first_nonfinite(w + r * n_cols, n_cols);
        if (bad < n_cols) return tms_fail(err, TMS_EINPUT, "weight [%zu][%zu] is not finite", r, bad);
    }
    return TMS_OK;
}

/* Numbers of all ranks and what lies between them. */
static void set_numbers(struct state *state)
{
    const struct tms_block_grid *grid = state->grid;
    for (int k = 0; k < grid->count; k++)
        state->numbers[k] = (float)(grid->numbers ? grid->numbers[k] : grid->first + k);
    for (int k = 0; k + 1 < grid->count; k++) state->middles[k] = (state->numbers[k] + state->numbers[k + 1]) / 2;
}

/* The cost of errors by column, and importances that leave no column out: encoders divide by their sum. */
static void set_weights(const struct tms_feedback_factor *factor, const float *given, float *cost, float *importance)
{
    double sum = 0;
    for (size_t i = 0; i < factor->n; i++) {
        const float d = factor->u[i * factor->ld + i];
        cost[i] = 1 / (d * d);
        importance[i] = given ? given[i] : cost[i];
        sum += (double)importance[i];
    }
    const float least = sum > 0 ? (float)(1e-6 * sum / (double)factor->n) : 1;
    for (size_t i = 0; i < factor->n; i++) importance[i] = importance[i] > least ? importance[i] : least;
}

tms_status tms_block_feedback(void *blocks, enum tms_type type, const float *w, size_t n_rows,
                              const struct tms_feedback_factor *factor,
                              const struct tms_block_feedback_options *options, double *loss, struct tms_pool *pool,
                              struct tms_error *err)
{
    const struct tms_codec *codec = tms_codec(type);
    const size_t n_cols = factor->n;
    tms_status status = check(codec, w, n_rows, n_cols, options, err);
    if (status != TMS_OK) return status;
    const struct tms_block_grid *grid = tms_block_grid(type);
    const size_t n_subs = n_cols / grid->sub, n_padded = (n_rows + LANES - 1) / LANES * LANES;
    struct state state = {.codec = codec,
                          .grid = grid,
                          .n_rows = n_rows,
                          .n_cols = n_cols,
                          .n_padded = n_padded,
                          .row_bytes = n_cols / codec->block_elems * codec->block_bytes,
                          .blocks = blocks};
    const uint64_t n_floats = 2 * (uint64_t)n_subs * n_padded + 2 * (uint64_t)n_cols;
    float *floats = tms_calloc(n_floats, sizeof *floats);
    state.ranks = tms_calloc(n_rows, n_cols);
    if (!floats || !state.ranks) {
        status = tms_fail_memory(err, n_floats * sizeof *floats + (uint64_t)n_rows * n_cols);
        goto done;
    }
    state.steps = floats;
    state.offsets = floats + n_subs * n_padded;
    float *cost = floats + 2 * n_subs * n_padded, *importance = cost + n_cols;
    set_weights(factor, options->importance, cost, importance);
    state.cost = cost, state.importance = importance;
    set_numbers(&state);
    if (grid->count == 0) {
        status = grid->ternary ? tms_eights_create_ternary(&state.eights, err)
                               : tms_eights_create(&state.eights, grid->book, grid->even_signs, err);
        if (status != TMS_OK) goto done;
    }
    struct tms_grid of_types = {.group = codec->block_elems,
                                .step = grid->count == 0 ? 8 : 1,
                                .fit = fit,
                                .decide = grid->count == 0 ? decide_eight : decide_number,
                                .ctx = &state};
    status = tms_feedback(w, n_cols, n_rows, n_cols, factor->u, factor->ld, &of_types, loss, pool, err);
    if (status == TMS_OK && options->n_sweeps > 0) status = flip(&state, w, factor, options, pool, err);
    if (status == TMS_OK) status = tms_pool_run(pool, n_rows, put_row, &state, err);
done:
    tms_eights_free(state.eights);
    free(floats);
    free(state.ranks);
    return status;
}
