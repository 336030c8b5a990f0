/* See layer_folds.h. */
#include "target/layer_folds.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "calib/inputs.h"
#include "method/smooth.h"
#include "target/fold.h"
#include "target/fold_search.h"
#include "target/grid_route.h"

enum {
    MOST_ROWS = 128, /* of a matrix that are looked at, if there are not too many matrices */
    LEAST_ROWS = 8,
    BLOCK = 32, /* a guess of how many columns share a step in block types */
};
#define STRENGTH 0.5 /* of SmoothQuant */

struct reader {
    size_t at; /* for tms_net_matrix_values */
    struct tms_net_matrix m;
};

/* Where scales may stand: behind a norm, or behind the last rows of a matrix. */
struct place {
    struct tms_layer_codes *c;
    uint64_t layer;
    bool behind_norm;
    struct tms_net_values norm, bias; /* bias: of the writer; values NULL: none */
    struct reader writer;
    size_t n, n_readers;
    struct reader *readers; /* [n_readers] */
    uint32_t *of;           /* column of the reader -> scale; NULL: the same */
    float *input;           /* [n]: how large the channels are */
    float *scales;          /* [n] */
};

static void place_free(struct place *p)
{
    free(p->readers);
    free(p->of);
    free(p->input);
    *p = (struct place){0};
}

/* ---- what is there ---- */

static bool find_matrix(const struct tms_layer_codes *c, uint64_t layer, enum tms_linear linear, int expert,
                        struct reader *out)
{
    for (out->at = 0; tms_net_matrix(c->net, layer, &out->at, &out->m);)
        if (out->m.linear == linear && out->m.expert == expert) return true;
    return false;
}

static bool reads_norm(enum tms_net_vector norm, enum tms_linear linear)
{
    switch (linear) {
    case TMS_LINEAR_Q:
    case TMS_LINEAR_K:
    case TMS_LINEAR_V:
    case TMS_LINEAR_Q_A:
    case TMS_LINEAR_KV_A: return norm == TMS_VECTOR_ATTN_NORM;
    case TMS_LINEAR_Q_B: return norm == TMS_VECTOR_Q_A_NORM;
    case TMS_LINEAR_GATE:
    case TMS_LINEAR_UP:
    case TMS_LINEAR_ROUTER:
    case TMS_LINEAR_SHARED_SWITCH:
    case TMS_LINEAR_SHARED_GATE:
    case TMS_LINEAR_SHARED_UP:
    case TMS_LINEAR_EXPERT_GATE:
    case TMS_LINEAR_EXPERT_UP: return norm == TMS_VECTOR_FFN_NORM;
    case TMS_LINEAR_KV_B:
    case TMS_LINEAR_K_B:
    case TMS_LINEAR_V_B: return norm == TMS_VECTOR_KV_A_NORM;
    default: return false;
    }
}

static size_t source_of(const struct tms_layer_codes *c, const struct tms_tensor *tensor)
{
    return (size_t)(tensor - c->t->source->tensors);
}

static tms_status add_reader(struct place *p, size_t *cap, const struct reader *reader, struct tms_error *err)
{
    if (!tms_grow(&p->readers, cap, p->n_readers + 1, sizeof *p->readers))
        return tms_fail_memory(err, (p->n_readers + 1) * sizeof *p->readers);
    p->readers[p->n_readers++] = *reader;
    return TMS_OK;
}

/* Readers of a norm; none if there is no such norm. */
static tms_status behind_norm(struct place *p, enum tms_net_vector norm, struct tms_error *err)
{
    struct reader reader = {0};
    size_t cap = 0;
    tms_status status = TMS_OK;
    p->behind_norm = true;
    if (!tms_net_vector(p->c->net, p->layer, norm, &p->norm)) return TMS_OK;
    p->n = (size_t)p->norm.tensor->n_weights;
    while (status == TMS_OK && tms_net_matrix(p->c->net, p->layer, &reader.at, &reader.m))
        if (reads_norm(norm, reader.m.linear)) status = add_reader(p, &cap, &reader, err);
    return status;
}

/* Column c of O reads head c / d of attention's result, which is made of values of head c / d / sharing. */
static tms_status share_heads(struct place *p, struct tms_error *err)
{
    const uint64_t cols = p->readers[0].m.cols, d = p->n / p->c->n_kv_heads;
    if (cols == p->n || cols % p->n != 0) return TMS_OK;
    p->of = tms_calloc(cols, sizeof *p->of);
    if (!p->of) return tms_fail_memory(err, cols * sizeof *p->of);
    for (uint64_t c = 0; c < cols; c++) p->of[c] = (uint32_t)(c / d / (cols / p->n) * d + c % d);
    return TMS_OK;
}

/* The matrix that reads what another one's rows make. */
static tms_status behind_rows(struct place *p, enum tms_linear writer, enum tms_linear linear, int expert,
                              struct tms_error *err)
{
    struct reader reader;
    size_t cap = 0;
    if (!find_matrix(p->c, p->layer, writer, expert, &p->writer) ||
        !find_matrix(p->c, p->layer, linear, expert, &reader))
        return TMS_OK;
    p->n = (size_t)p->writer.m.rows;
    if (expert < 0)
        (void)tms_net_vector(p->c->net, p->layer, (enum tms_net_vector)(TMS_VECTOR_BIAS + (int)writer), &p->bias);
    tms_status status = add_reader(p, &cap, &reader, err);
    return status == TMS_OK && writer == TMS_LINEAR_V ? share_heads(p, err) : status;
}

/* All that would change can. */
static bool is_possible(const struct place *p)
{
    const struct tms_layer_codes *c = p->c;
    if (!tms_fold_can(c->t, source_of(c, p->behind_norm ? p->norm.tensor : p->writer.m.tensor))) return false;
    if (p->bias.values && !tms_fold_can(c->t, source_of(c, p->bias.tensor))) return false;
    for (size_t i = 0; i < p->n_readers; i++) {
        const struct tms_net_matrix *m = &p->readers[i].m;
        if (!tms_fold_can(c->t, source_of(c, m->tensor)) || (!p->of && m->cols != p->n)) return false;
    }
    return true;
}

/* ---- which scales ---- */

/* Of the input: largest values for SmoothQuant, else root mean squares. Heads that share a channel: their largest or
 * mean. The reader that saw most tokens tells. */
static tms_status measure_input(struct place *p, bool *seen, struct tms_error *err)
{
    const struct tms_layer_codes *c = p->c;
    const struct tms_net_matrix *best = NULL;
    struct tms_hessian *hessian = NULL;
    for (size_t i = 0; i < p->n_readers; i++) {
        struct tms_hessian *own = tms_layer_codes_hessian(c, &p->readers[i].m);
        if (!own || (hessian && own->n_tokens <= hessian->n_tokens)) continue;
        hessian = own;
        best = &p->readers[i].m;
    }
    *seen = hessian != NULL;
    if (!hessian) return TMS_OK;
    tms_status status = hessian->panel ? tms_hessian_finish(hessian, c->pool, err) : TMS_OK;
    if (status != TMS_OK) return status;
    const float *largest = c->folds == TMS_FOLDS_SMOOTH ? tms_layer_codes_largest(c, best) : NULL;
    for (size_t i = 0; i < hessian->n; i++) {
        float *to = &p->input[p->of ? p->of[i] : i];
        if (largest)
            *to = *to > largest[i] ? *to : largest[i];
        else
            *to += hessian->h[i * hessian->ld + i];
    }
    for (size_t i = 0; i < p->n && !largest; i++) p->input[i] = sqrtf(p->input[i]);
    return TMS_OK;
}

static tms_status read_matrix(const struct place *p, const struct reader *reader, float **out, struct tms_error *err)
{
    const struct tms_net_matrix *m = &reader->m;
    const struct tms_fold *fold = tms_fold_of(p->c->t, source_of(p->c, m->tensor));
    *out = tms_calloc(m->rows, m->cols * sizeof **out);
    if (!*out) return tms_fail_memory(err, m->rows * m->cols * sizeof **out);
    tms_net_matrix_values(p->c->net, p->layer, reader->at, *out);
    if (fold) tms_fold_apply(fold, m->first_row * m->cols, m->rows * m->cols, *out, *out);
    return TMS_OK;
}

/* Weights of channels: means for AWQ (summed up by rows), largest for SmoothQuant. */
static void add_weights(const struct place *p, const struct tms_fold_reader *reader, const float *w, size_t n_rows,
                        float *of_columns, double *sums)
{
    const struct tms_awq_layer layer = {w, n_rows};
    const size_t n = reader->n_cols;
    const size_t group = reader->route->kind == TMS_ROUTE_GRID ? (size_t)reader->route->grid->grid.group : BLOCK;
    if (p->c->folds == TMS_FOLDS_SMOOTH)
        tms_smooth_weight_max(&layer, 1, n, of_columns);
    else
        tms_awq_weight_mean(&layer, 1, n, group < n ? group : n, of_columns);
    for (size_t c = 0; c < n; c++) {
        double *to = &sums[p->of ? p->of[c] : c];
        if (p->c->folds == TMS_FOLDS_SMOOTH)
            *to = *to > (double)of_columns[c] ? *to : (double)of_columns[c];
        else
            *to += (double)of_columns[c] * (double)n_rows;
    }
}

/* A reader's sample, its part in the sums of weights, and what its errors cost. */
static tms_status look_at(const struct place *p, const struct reader *from, size_t most_rows,
                          struct tms_fold_reader *to, double *weights, struct tms_error *err)
{
    const struct tms_net_matrix *m = &from->m;
    struct tms_hessian *hessian = tms_layer_codes_hessian(p->c, m);
    const size_t n = (size_t)m->cols, n_rows = (size_t)m->rows;
    float *w = NULL;
    *to = (struct tms_fold_reader){.route = tms_layer_codes_route(p->c, m->tensor), .hessian = hessian, .n_cols = n};
    to->n_rows = n_rows < most_rows ? n_rows : most_rows;
    to->share = (double)hessian->n_tokens;
    to->rows = tms_calloc((uint64_t)to->n_rows * n + n, sizeof *to->rows);
    tms_status status = to->rows ? read_matrix(p, from, &w, err) : tms_fail_memory(err, (uint64_t)to->n_rows * n * 4);
    if (status == TMS_OK && hessian->panel) status = tms_hessian_finish(hessian, p->c->pool, err);
    if (status == TMS_OK) add_weights(p, to, w, n_rows, to->rows + to->n_rows * n, weights);
    for (size_t i = 0; i < to->n_rows && status == TMS_OK; i++)
        memcpy(to->rows + i * n, w + i * n_rows / to->n_rows * n, n * sizeof *w);
    free(w);
    if (status != TMS_OK || !p->c->feedback) return status;
    to->cost = tms_calloc(n, sizeof *to->cost);
    return to->cost ? tms_layer_codes_cost(p->c, hessian, to->cost, err) : tms_fail_memory(err, n * sizeof *to->cost);
}

/* Ratios of AWQ behind no scaling at all; SmoothQuant has one choice. */
static tms_status choose(struct place *p, const struct tms_fold_reader *readers, size_t n_readers, float *weights,
                         struct tms_error *err)
{
    const size_t n = TMS_AWQ_RATIOS + 1;
    float *candidates;
    size_t best;
    if (p->c->folds == TMS_FOLDS_SMOOTH) {
        tms_smooth_scales(p->input, weights, STRENGTH, p->n, p->scales);
        return TMS_OK;
    }
    candidates = tms_calloc(n, p->n * sizeof *candidates);
    if (!candidates) return tms_fail_memory(err, n * p->n * sizeof *candidates);
    for (size_t i = 0; i < p->n; i++) candidates[i] = 1;
    for (size_t k = 1; k < n; k++)
        tms_awq_scales_at((double)(k - 1) / TMS_AWQ_RATIOS, p->input, weights, false, p->n, candidates + k * p->n);
    tms_status status = tms_fold_search(&best, readers, n_readers, candidates, n, p->n, p->of, p->c->pool, err);
    if (status == TMS_OK) memcpy(p->scales, candidates + best * p->n, p->n * sizeof *candidates);
    free(candidates);
    return status;
}

/* *found: there is a reader whose rounding is known. */
static tms_status find_scales(struct place *p, bool *found, struct tms_error *err)
{
    size_t n = 0, n_rows = 0, most_rows = TMS_LAYER_FOLDS_ROWS / (p->n_readers ? p->n_readers : 1);
    struct tms_fold_reader *readers = tms_calloc(p->n_readers, sizeof *readers);
    double *sums = tms_calloc(p->n, sizeof *sums);
    float *weights = tms_calloc(p->n, sizeof *weights);
    tms_status status = readers && sums && weights ? TMS_OK : tms_fail_memory(err, p->n * 12);
    most_rows = most_rows > MOST_ROWS ? MOST_ROWS : most_rows < LEAST_ROWS ? LEAST_ROWS : most_rows;
    for (size_t i = 0; i < p->n_readers && status == TMS_OK; i++) {
        const struct tms_net_matrix *m = &p->readers[i].m;
        if (!tms_layer_codes_route(p->c, m->tensor) || !tms_layer_codes_hessian(p->c, m)) continue;
        status = look_at(p, &p->readers[i], most_rows, &readers[n++], sums, err);
        n_rows += (size_t)m->rows * (p->of ? m->cols / p->n : 1);
    }
    *found = n > 0;
    for (size_t i = 0; i < p->n && n; i++)
        weights[i] = (float)(p->c->folds == TMS_FOLDS_SMOOTH ? sums[i] : sums[i] / (double)n_rows);
    if (status == TMS_OK && n) status = choose(p, readers, n, weights, err);
    for (size_t i = 0; i < n; i++) {
        free(readers[i].rows);
        free(readers[i].cost);
    }
    free(readers);
    free(sums);
    free(weights);
    return status;
}

/* ---- putting them in ---- */

static tms_status note(struct tms_layer_codes *c, size_t source, struct tms_error *err)
{
    for (size_t i = 0; i < c->n_folded_sources; i++)
        if (c->folded_sources[i] == source) return TMS_OK;
    if (!tms_grow(&c->folded_sources, &c->cap_folded_sources, c->n_folded_sources + 1, sizeof source))
        return tms_fail_memory(err, c->n_folded_sources * sizeof source);
    c->folded_sources[c->n_folded_sources++] = source;
    return TMS_OK;
}

static tms_status fold_of(struct tms_layer_codes *c, const struct tms_tensor *tensor, uint64_t n_cols,
                          uint64_t part_rows, struct tms_fold **out, struct tms_error *err)
{
    const size_t source = source_of(c, tensor);
    *out = tms_fold_make(c->t, source, tensor->n_weights / n_cols, n_cols, part_rows);
    return *out ? note(c, source, err) : tms_fail_memory(err, tensor->n_weights / n_cols * sizeof(float));
}

/* What a norm's values are when they were stored: all its routes', or the first's. */
static float as_stored(const struct tms_layer_codes *c, const struct tms_net_values *norm, float value)
{
    const size_t source = source_of(c, norm->tensor);
    for (size_t i = 0; i < c->t->n_routes; i++) {
        const struct tms_route *route = &c->t->routes[i];
        if (route->source != source) continue;
        const enum tms_turn_kind turn = route->turn.kind;
        const float less = (norm->plus_one ? 1.0F : 0.0F) - (turn == TMS_TURN_PLUS_ONE ? 1.0F : 0.0F) +
                           (turn == TMS_TURN_MINUS_ONE ? 1.0F : 0.0F);
        const struct tms_codec *codec = tms_codec(c->t->outs[route->out].type);
        const float stored = value - less;
        uint8_t bytes[16];
        float read;
        codec->encode(&stored, bytes, 1);
        codec->decode(bytes, &read, 1);
        return read + less;
    }
    return value;
}

static tms_status divide_norm(struct place *p, struct tms_error *err)
{
    struct tms_fold *fold;
    tms_status status = fold_of(p->c, p->norm.tensor, 1, p->n, &fold, err);
    if (status != TMS_OK) return status;
    fold->shift = p->norm.plus_one ? 1 : 0;
    for (size_t i = 0; i < p->n; i++) {
        const float was = p->norm.values[i];
        float now = as_stored(p->c, &p->norm, was / p->scales[i]);
        if (!isfinite(now) || now == 0 || !isfinite(was / now)) now = as_stored(p->c, &p->norm, was);
        p->scales[i] = isfinite(now) && now != 0 && was != 0 ? was / now : 1;
        p->norm.values[i] = now;
        fold->rows[i] = p->scales[i];
    }
    return TMS_OK;
}

static tms_status divide_rows(struct place *p, struct tms_error *err)
{
    const struct tms_net_matrix *m = &p->writer.m;
    struct tms_fold *fold;
    tms_status status = fold_of(p->c, m->tensor, m->cols, tms_layer_codes_part_rows(m), &fold, err);
    for (size_t i = 0; i < p->n && status == TMS_OK; i++) fold->rows[m->first_row + i] *= p->scales[i];
    if (status != TMS_OK || !p->bias.values) return status;
    status = fold_of(p->c, p->bias.tensor, 1, p->n, &fold, err);
    for (size_t i = 0; i < p->n && status == TMS_OK; i++) {
        p->bias.values[i] /= p->scales[i];
        fold->rows[i] *= p->scales[i];
    }
    return status;
}

/* Matrices that are fused share their columns, those of one input their Hessian. */
static tms_status multiply_readers(struct place *p, struct tms_error *err)
{
    tms_status status = TMS_OK;
    for (size_t i = 0; i < p->n_readers && status == TMS_OK; i++) {
        const struct tms_net_matrix *m = &p->readers[i].m;
        const uint64_t part_rows = tms_layer_codes_part_rows(m), part = m->first_row / part_rows;
        bool done = false;
        for (size_t k = 0; k < i; k++) {
            const struct tms_net_matrix *other = &p->readers[k].m;
            done |= other->tensor == m->tensor && other->first_row / part_rows == part;
        }
        if (done) continue;
        struct tms_fold *fold;
        status = fold_of(p->c, m->tensor, m->cols, part_rows, &fold, err);
        for (uint64_t c = 0; c < m->cols && status == TMS_OK; c++)
            fold->columns[part * m->cols + c] *= p->scales[p->of ? p->of[c] : c];
    }
    return status;
}

static tms_status scale_hessians(struct place *p, struct tms_error *err)
{
    const uint64_t cols = p->readers[0].m.cols;
    float *scales = tms_calloc(cols, sizeof *scales);
    tms_status status = scales ? TMS_OK : tms_fail_memory(err, cols * sizeof *scales);
    for (uint64_t c = 0; c < cols && scales; c++) scales[c] = p->scales[p->of ? p->of[c] : c];
    for (size_t i = 0; i < p->n_readers && status == TMS_OK; i++) {
        struct tms_hessian *hessian = tms_layer_codes_hessian(p->c, &p->readers[i].m);
        bool done = !hessian;
        for (size_t k = 0; k < i; k++) done |= tms_layer_codes_hessian(p->c, &p->readers[k].m) == hessian;
        if (done) continue;
        if (hessian->panel) status = tms_hessian_finish(hessian, p->c->pool, err);
        if (status == TMS_OK) tms_awq_scale_hessian(hessian, scales);
    }
    free(scales);
    tms_layer_codes_changed(p->c);
    return status;
}

/* Finds and folds the scales of a place that has been looked up; a place without readers is none. */
static tms_status settle(struct place *p, struct tms_error *err)
{
    bool can = p->n_readers > 0 && is_possible(p);
    tms_status status = TMS_OK;
    if (p->n_readers > 0) {
        p->input = tms_calloc(2 * (uint64_t)p->n, sizeof *p->input);
        if (!p->input) return tms_fail_memory(err, 2 * (uint64_t)p->n * sizeof *p->input);
        p->scales = p->input + p->n;
    }
    if (can) status = measure_input(p, &can, err);
    if (status == TMS_OK && can) status = find_scales(p, &can, err);
    if (status == TMS_OK && can) status = p->behind_norm ? divide_norm(p, err) : divide_rows(p, err);
    if (status == TMS_OK && can) status = multiply_readers(p, err);
    if (status == TMS_OK && can) status = scale_hessians(p, err);
    if (p->n_readers > 0) ++*(can ? &p->c->n_folded : &p->c->n_unfolded);
    return status;
}

static tms_status try_norm(struct tms_layer_codes *c, uint64_t layer, enum tms_net_vector norm, struct tms_error *err)
{
    struct place p = {.c = c, .layer = layer};
    tms_status status = behind_norm(&p, norm, err);
    if (status == TMS_OK) status = settle(&p, err);
    place_free(&p);
    return status;
}

static tms_status try_rows(struct tms_layer_codes *c, uint64_t layer, enum tms_linear writer, enum tms_linear reader,
                           int expert, struct tms_error *err)
{
    struct place p = {.c = c, .layer = layer};
    tms_status status = behind_rows(&p, writer, reader, expert, err);
    if (status == TMS_OK) status = settle(&p, err);
    place_free(&p);
    return status;
}

static char *folds_path(const struct tms_layer_codes *c, uint64_t layer)
{
    char name[48];
    snprintf(name, sizeof name, "folds-%05llu", (unsigned long long)layer);
    return tms_path_join(c->work, name);
}

tms_status tms_layer_folds_find(struct tms_layer_codes *c, uint64_t layer, struct tms_error *err)
{
    c->n_folded_sources = 0;
    tms_status status = try_norm(c, layer, TMS_VECTOR_ATTN_NORM, err);
    if (status == TMS_OK) status = try_norm(c, layer, TMS_VECTOR_Q_A_NORM, err);
    if (status == TMS_OK) status = try_norm(c, layer, TMS_VECTOR_KV_A_NORM, err);
    if (status == TMS_OK) status = try_rows(c, layer, TMS_LINEAR_V, TMS_LINEAR_O, -1, err);
    if (status == TMS_OK) status = try_norm(c, layer, TMS_VECTOR_FFN_NORM, err);
    if (status == TMS_OK) status = try_rows(c, layer, TMS_LINEAR_UP, TMS_LINEAR_DOWN, -1, err);
    if (status == TMS_OK) status = try_rows(c, layer, TMS_LINEAR_SHARED_UP, TMS_LINEAR_SHARED_DOWN, -1, err);
    for (int e = 0; e < (int)c->n_experts && status == TMS_OK; e++)
        status = try_rows(c, layer, TMS_LINEAR_EXPERT_UP, TMS_LINEAR_EXPERT_DOWN, e, err);
    char *path = folds_path(c, layer);
    if (!path && status == TMS_OK) status = tms_fail_memory(err, 256);
    if (status == TMS_OK) status = tms_folds_save(c->t, c->folded_sources, c->n_folded_sources, path, err);
    free(path);
    return status;
}

tms_status tms_layer_folds_load(struct tms_layer_codes *c, uint64_t layer, struct tms_error *err)
{
    char *path = folds_path(c, layer);
    tms_status status = path ? tms_folds_load(c->t, path, err) : tms_fail_memory(err, 256);
    free(path);
    return status;
}
