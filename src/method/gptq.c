/* See gptq.h. */
#include "method/gptq.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/numbers.h"
#include "method/cholesky.h"
#include "method/feedback.h"

enum { LANES = TMS_FEEDBACK_ROWS };

/* ---- order and factor ---- */

struct keyed {
    float key;
    uint32_t index;
};

static int falling(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    if (x->key != y->key) return x->key > y->key ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static float diagonal(const struct tms_hessian *hessian, size_t i)
{
    float entry = hessian->h[i * hessian->ld + i];
    return entry == 0 ? 1 : entry;
}

tms_status tms_column_order(const struct tms_hessian *hessian, enum tms_gptq_order kind, size_t group, uint32_t *order,
                            struct tms_error *err)
{
    const size_t n = hessian->n;
    if (kind == TMS_GPTQ_IN_ORDER) {
        for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
        return TMS_OK;
    }
    struct keyed *columns = tms_calloc(2 * (uint64_t)n, sizeof *columns), *groups = columns + n;
    if (!columns) return tms_fail_memory(err, 2 * (uint64_t)n * sizeof *columns);
    for (size_t i = 0; i < n; i++) columns[i] = (struct keyed){diagonal(hessian, i), (uint32_t)i};
    if (kind == TMS_GPTQ_ACT_ORDER || group == 0) {
        qsort(columns, n, sizeof *columns, falling);
        for (size_t i = 0; i < n; i++) order[i] = columns[i].index;
    } else {
        /* What is left behind the last whole group keeps its place. */
        const size_t whole = n / group;
        for (size_t g = 0; g < whole; g++) {
            qsort(columns + g * group, group, sizeof *columns, falling);
            groups[g] = (struct keyed){columns[g * group].key, (uint32_t)g};
        }
        qsort(groups, whole, sizeof *groups, falling);
        for (size_t i = 0; i < n; i++)
            order[i] = i < whole * group ? columns[groups[i / group].index * group + i % group].index : (uint32_t)i;
    }
    free(columns);
    return TMS_OK;
}

struct copying {
    const struct tms_hessian *hessian;
    const uint32_t *order;
    float added, *to;
};

/* Rows 16 index … of the upper triangle. */
static tms_status copy_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    const struct copying *copying = ctx;
    const struct tms_hessian *hessian = copying->hessian;
    const size_t n = hessian->n, ld = hessian->ld, end = 16 * index + 16 < n ? 16 * index + 16 : n;
    for (size_t i = 16 * index; i < end; i++) {
        const float *row = hessian->h + (copying->order ? copying->order[i] : i) * ld;
        float *to = copying->to + i * ld;
        memset(to, 0, ld * sizeof *to);
        if (copying->order)
            for (size_t j = i; j < n; j++) to[j] = row[copying->order[j]];
        else
            memcpy(to + i, row + i, (n - i) * sizeof *to);
        if (to[i] == 0) to[i] = 1;
        to[i] += copying->added;
    }
    return TMS_OK;
}

tms_status tms_damped_factor(const struct tms_hessian *hessian, const uint32_t *order, double *damp, float *u,
                             struct tms_pool *pool, struct tms_error *err)
{
    const size_t n = hessian->n;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)diagonal(hessian, i);
    for (double used = *damp;; used += used > 0.05 ? used / 2 : 0.01) {
        struct copying copying = {hessian, order, (float)(used * (sum / (double)n)), u};
        tms_status status = tms_pool_run(pool, (n + 15) / 16, copy_rows, &copying, err);
        if (status == TMS_OK) status = tms_inverse_factor(u, n, hessian->ld, pool, err);
        /* A diagonal of squares that is not finite, or negative, will not get better. */
        if (status != TMS_EINPUT || used >= 1 || !(sum > 0) || !(sum < 1e38)) {
            if (status == TMS_OK) *damp = used;
            return status;
        }
    }
}

/* ---- the grid ---- */

struct state {
    const struct tms_gptq_options *options;
    const uint32_t *order;
    size_t n_cols, group, n_padded; /* n_padded: rows, to a multiple of 32 */
    float *scales, *zeros;          /* [n_groups][n_padded] */
    uint8_t *codes;                 /* [n_rows][n_cols] */
    const uint32_t *group_of;       /* of each place in the order */
    const float *cost; /* [n_cols] of places in the order, or NULL: of squared errors when groups are fitted */
    const float *w;    /* for fit_rows: [n_rows][ldw] */
    size_t ldw, n_rows;
};

static void fit(void *ctx, size_t row, size_t n_rows, size_t first, size_t n, const float *w, size_t ldw)
{
    const struct state *state = ctx;
    const size_t at = state->group_of[first] * state->n_padded + row;
    struct tms_affine affine = state->options->affine;
    if (state->cost) affine.norm = 2, affine.weights = state->cost + first;
    for (size_t r = 0; r < n_rows; r++)
        tms_affine_fit(&affine, w + r * ldw, n, &state->scales[at + r], &state->zeros[at + r]);
}

TMS_INLINE void decide_lanes_body(const float *restrict w, const float *restrict scales, const float *restrict zeros,
                                  float top, float *restrict codes, float *restrict decoded)
{
    for (size_t r = 0; r < LANES; r++) {
        codes[r] = tms_affine_code(w[r], scales[r], zeros[r], top);
        decoded[r] = scales[r] * (codes[r] - zeros[r]);
    }
}
TMS_BY_CPU(static, decide_lanes,
           (const float *restrict w, const float *restrict scales, const float *restrict zeros, float top,
            float *restrict codes, float *restrict decoded),
           (w, scales, zeros, top, codes, decoded))

static void decide(void *ctx, size_t row, size_t n_rows, size_t first, const float *w, float *decoded)
{
    const struct state *state = ctx;
    const size_t at = state->group_of[first] * state->n_padded + row;
    float codes[LANES];
    decide_lanes(w, state->scales + at, state->zeros + at, (float)((1u << state->options->affine.bits) - 1), codes,
                 decoded);
    for (size_t r = 0; r < n_rows; r++)
        state->codes[(row + r) * state->n_cols + state->order[first]] = (uint8_t)codes[r];
}

/* Parameters of all groups from the weights as they are: tile number `index`. */
static tms_status fit_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker, (void)err;
    const struct state *state = ctx;
    const size_t row = index * LANES, n_rows = state->n_rows - row < LANES ? state->n_rows - row : LANES;
    for (size_t g = 0; g * state->group < state->n_cols; g++) {
        const size_t first = g * state->group, left = state->n_cols - first;
        const size_t at = g * state->n_padded + row;
        for (size_t r = 0; r < n_rows; r++)
            tms_affine_fit(&state->options->affine, state->w + (row + r) * state->ldw + first,
                           left < state->group ? left : state->group, &state->scales[at + r], &state->zeros[at + r]);
    }
    return TMS_OK;
}

/* ---- all of it ---- */

void tms_gptq_free(struct tms_gptq_result *result)
{
    free(result->codes);
    free(result->scales);
    free(result->zeros);
    free(result->g_idx);
    *result = (struct tms_gptq_result){0};
}

void tms_gptq_decode(const struct tms_gptq_result *result, float *w)
{
    for (size_t r = 0; r < result->n_rows; r++)
        for (size_t c = 0; c < result->n_cols; c++) {
            const size_t at = r * result->n_groups + result->g_idx[c];
            w[r * result->n_cols + c] =
                result->scales[at] * (float)(result->codes[r * result->n_cols + c] - result->zeros[at]);
        }
}

static size_t group_size(const struct tms_gptq_options *options, size_t n_cols)
{
    return options->group == 0 || options->group > n_cols ? n_cols : options->group;
}

tms_status tms_gptq_prepare(struct tms_gptq_prepared *out, const struct tms_hessian *hessian,
                            const struct tms_gptq_options *options, struct tms_pool *pool, struct tms_error *err)
{
    const size_t n = hessian->n;
    if (options->affine.bits < 2 || options->affine.bits > 8)
        return tms_fail(err, TMS_EUSAGE, "GPTQ with %u bits: 2 to 8 are possible", options->affine.bits);
    if (!(options->damp >= 0) || !(options->damp <= 1))
        return tms_fail(err, TMS_EUSAGE, "damping of %g: 0 to 1 is possible", options->damp);
    struct tms_gptq_prepared made = {.hessian = hessian, .options = *options, .damp_used = options->damp};
    tms_status status = TMS_OK;
    made.order = tms_calloc(n, sizeof *made.order);
    made.u = tms_calloc((uint64_t)n * hessian->ld, sizeof *made.u);
    if (!made.order || !made.u) status = tms_fail_memory(err, (uint64_t)n * hessian->ld * sizeof *made.u);
    if (status == TMS_OK)
        status = tms_column_order(hessian, options->order, group_size(options, n) == n ? 0 : group_size(options, n),
                                  made.order, err);
    if (status == TMS_OK) status = tms_damped_factor(hessian, made.order, &made.damp_used, made.u, pool, err);
    if (status == TMS_OK)
        *out = made;
    else
        tms_gptq_prepared_free(&made);
    return status;
}

void tms_gptq_prepared_free(struct tms_gptq_prepared *prepared)
{
    free(prepared->order);
    free(prepared->u);
    *prepared = (struct tms_gptq_prepared){0};
}

/* Weights [n_rows][n_cols] with zeros in dead channels; order NULL: as they are. */
static void copy_living(const float *w, size_t ldw, size_t n_rows, const struct tms_hessian *hessian,
                        const uint32_t *order, float *to)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < hessian->n; c++) {
            const size_t from = order ? order[c] : c;
            to[r * hessian->n + c] = hessian->h[from * hessian->ld + from] == 0 ? 0 : w[r * ldw + from];
        }
}

tms_status tms_gptq_with(struct tms_gptq_result *out, const float *w, size_t ldw, size_t n_rows,
                         const struct tms_gptq_prepared *prepared, struct tms_pool *pool, struct tms_error *err)
{
    const struct tms_hessian *hessian = prepared->hessian;
    const struct tms_gptq_options *options = &prepared->options;
    const uint32_t *order = prepared->order;
    const size_t n_cols = hessian->n, ld = hessian->ld, group = group_size(options, n_cols);
    for (size_t r = 0; r < n_rows; r++) {
        const size_t bad = tms_first_nonfinite(w + r * ldw, n_cols);
        if (bad < n_cols) return tms_fail(err, TMS_EINPUT, "weight [%zu][%zu] is not finite", r, bad);
    }
    const size_t n_groups = (n_cols + group - 1) / group, n_padded = (n_rows + LANES - 1) / LANES * LANES;
    struct tms_gptq_result made = {
        .n_rows = n_rows, .n_cols = n_cols, .n_groups = n_groups, .damp_used = prepared->damp_used};
    made.codes = tms_calloc(n_rows, n_cols);
    made.scales = tms_calloc((uint64_t)n_rows * n_groups, sizeof *made.scales);
    made.zeros = tms_calloc(n_rows, n_groups);
    made.g_idx = tms_calloc(n_cols, sizeof *made.g_idx);
    float *parameters = tms_calloc(2 * (uint64_t)n_padded * n_groups + n_cols, sizeof *parameters);
    uint32_t *group_of = tms_calloc(n_cols, sizeof *group_of);
    float *sorted = tms_calloc((uint64_t)n_rows * n_cols, sizeof *sorted);
    tms_status status = TMS_OK;
    if (!made.codes || !made.scales || !made.zeros || !made.g_idx || !parameters || !group_of || !sorted) {
        status = tms_fail_memory(err, 2 * (uint64_t)n_rows * n_cols * sizeof *sorted);
        goto done;
    }
    /* Lanes without a row divide by this. */
    for (size_t i = 0; i < n_padded * n_groups; i++) parameters[i] = 1;
    struct state state = {.options = options,
                          .order = order,
                          .n_cols = n_cols,
                          .group = group,
                          .n_padded = n_padded,
                          .scales = parameters,
                          .zeros = parameters + n_padded * n_groups,
                          .codes = made.codes,
                          .group_of = group_of,
                          .w = w,
                          .ldw = ldw,
                          .n_rows = n_rows};
    float *cost = parameters + 2 * n_padded * n_groups;
    for (size_t i = 0; i < n_cols; i++) cost[i] = 1 / (prepared->u[i * ld + i] * prepared->u[i * ld + i]);
    if (options->weighted_groups) state.cost = cost;
    /* Act-order makes groups of what stands together in the order, unless they are static. */
    for (size_t i = 0; i < n_cols; i++) {
        const bool moved = options->order == TMS_GPTQ_ACT_ORDER && !options->static_groups;
        group_of[i] = (uint32_t)((moved ? i : order[i]) / group);
        made.g_idx[order[i]] = group_of[i];
        made.n_dead += hessian->h[i * ld + i] == 0;
    }
    /* Whole rows are fitted with the weights of dead channels, static groups without them, as GPTQModel does. */
    if (group == n_cols) {
        status = tms_pool_run(pool, n_padded / LANES, fit_rows, &state, err);
        if (status != TMS_OK) goto done;
    } else if (options->static_groups) {
        copy_living(w, ldw, n_rows, hessian, NULL, sorted);
        state.w = sorted, state.ldw = n_cols;
        status = tms_pool_run(pool, n_padded / LANES, fit_rows, &state, err);
        if (status != TMS_OK) goto done;
    }
    copy_living(w, ldw, n_rows, hessian, order, sorted);
    struct tms_grid grid = {.group = options->static_groups || group == n_cols ? 0 : group,
                            .step = 1,
                            .stale = !options->fresh_groups,
                            .fit = fit,
                            .decide = decide,
                            .ctx = &state};
    status = tms_feedback(sorted, n_cols, n_rows, n_cols, prepared->u, ld, &grid, &made.loss, pool, err);
    if (status != TMS_OK) goto done;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t g = 0; g < n_groups; g++) {
            made.scales[r * n_groups + g] = state.scales[g * n_padded + r];
            made.zeros[r * n_groups + g] = (uint8_t)state.zeros[g * n_padded + r];
        }
done:
    free(parameters);
    free(group_of);
    free(sorted);
    if (status == TMS_OK)
        *out = made;
    else
        tms_gptq_free(&made);
    return status;
}

tms_status tms_gptq(struct tms_gptq_result *out, const float *w, size_t ldw, size_t n_rows,
                    const struct tms_hessian *hessian, const struct tms_gptq_options *options, struct tms_pool *pool,
                    struct tms_error *err)
{
    struct tms_gptq_prepared prepared;
    tms_status status = tms_gptq_prepare(&prepared, hessian, options, pool, err);
    if (status != TMS_OK) return status;
    status = tms_gptq_with(out, w, ldw, n_rows, &prepared, pool, err);
    tms_gptq_prepared_free(&prepared);
    return status;
}
