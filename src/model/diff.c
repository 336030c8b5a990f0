/* Two models compared value by value: tms_diff_models of <tamis/tamis.h>.
 *
 * Each pair of tensors is cut into ranges that both sides can hand out; a range is read, decoded and compared by one
 * thread. Sums are kept per range and added in the order of ranges, so that threads do not change them. */
#include <tamis/tamis.h>

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/numbers.h"
#include "base/sums.h"
#include "base/threads.h"
#include "model/keys.h"
#include "model/packed.h"
#include "model/packed_grid.h"
#include "model/pairs.h"

#define RANGE_VALUES (1u << 18)

struct tms_diff {
    struct tms_diff_info info;
    struct tms_source *models[2];
    struct tms_pairs pairs;
    struct tms_diff_tensor *tensors; /* [pairs.n] */
    struct tms_key_list keys;
    struct tms_arena arena; /* names of types */
};

struct range {
    size_t pair;
    uint64_t first, n;
    bool bytes; /* of elements that tamis cannot decode: only equal or not */
    /* what was found */
    double squared_error, squared_a, max_error;
    uint64_t max_at, n_differing;
};

struct scratch {
    void *raw[2];
    float *values[2], *turned;
};

struct work {
    const struct tms_diff *diff;
    const struct tms_diff_options *options;
    size_t n_ranges, cap_ranges;
    struct range *ranges;
    struct scratch *scratch; /* [threads] */
    atomic_ullong bytes_done;
    uint64_t bytes_total;
    double last_report;
};

/* ---- one range ---- */

/* |a - b|; infinite if they are not both numbers and not the same bits. */
static double distance(float a, float b)
{
    if (isfinite(a) && isfinite(b)) return fabs((double)a - (double)b);
    return tms_f32_bits(a) == tms_f32_bits(b) ? 0 : INFINITY;
}

static void compare_values(struct range *range, const float *a, const float *b)
{
    size_t n = (size_t)range->n;
    range->squared_a = tms_squared_norm(a, n);
    range->squared_error = tms_squared_distance(a, b, n);
    if (range->squared_error == 0) return;
    bool finite = isfinite(range->squared_error);
    if (!finite) range->squared_a = range->squared_error = 0;
    for (size_t i = 0; i < n; i++) {
        double d = distance(a[i], b[i]);
        range->n_differing += d > 0;
        if (d > range->max_error) {
            range->max_error = d;
            range->max_at = range->first + i;
        }
        if (finite) continue;
        range->squared_error += d * d;
        if (isfinite(a[i])) range->squared_a += (double)a[i] * (double)a[i];
    }
}

static tms_status run_range(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    struct work *w = ctx;
    struct range *range = &w->ranges[index];
    const struct tms_pair *pair = &w->diff->pairs.items[range->pair];
    struct scratch *s = &w->scratch[worker];
    tms_status status = TMS_OK;
    uint64_t bytes = 0;
    for (int k = 0; k < 2 && status == TMS_OK; k++) {
        const struct tms_source *model = w->diff->models[k];
        const struct tms_tensor *t = pair->side[k].tensor;
        if (range->bytes) {
            status = tms_file_read(model->files[t->file], s->raw[k], range->n, t->offset + range->first, err);
            bytes += range->n;
        } else {
            status = tms_pair_read(pair, k, model, range->first, range->n, s->raw[k], s->turned, s->values[k], err);
            bytes += tms_source_raw_bytes(t, tms_pair_source_values(pair, k, range->n));
        }
    }
    if (status != TMS_OK) return status;
    if (range->bytes)
        range->n_differing = memcmp(s->raw[0], s->raw[1], range->n) != 0;
    else
        compare_values(range, s->values[0], s->values[1]);
    unsigned long long done = atomic_fetch_add(&w->bytes_done, bytes) + bytes;
    double now = tms_seconds();
    if (worker == 0 && w->options->progress && (now - w->last_report > 0.1 || done == w->bytes_total)) {
        w->last_report = now;
        struct tms_progress progress = {"comparing", done, w->bytes_total};
        w->options->progress(w->options->progress_ctx, &progress);
    }
    return TMS_OK;
}

/* ---- all ranges ---- */

/* Bytes of a pair are compared as they are if neither side can be decoded and nothing moved. */
static bool same_layout(const struct tms_pair *pair)
{
    const struct tms_tensor *a = pair->side[0].tensor, *b = pair->side[1].tensor;
    for (int k = 0; k < 2; k++)
        if (pair->side[k].turn.kind != TMS_TURN_NONE || pair->side[k].n_parts > 1) return false;
    return a->type == b->type && a->bytes == b->bytes && !a->packed && !b->packed;
}

static tms_status cut(struct work *w, struct tms_error *err)
{
    const struct tms_diff *d = w->diff;
    for (size_t i = 0; i < d->pairs.n; i++) {
        const struct tms_pair *pair = &d->pairs.items[i];
        const struct tms_tensor *a = pair->side[0].tensor, *b = pair->side[1].tensor;
        if (!a || !b || d->tensors[i].state == TMS_DIFF_SHAPE) continue;
        bool bytes = !tms_source_decodes(a) || !tms_source_decodes(b);
        if (bytes && !same_layout(pair)) continue;
        uint64_t unit = bytes ? 1 : tms_pair_unit(pair), all = bytes ? a->bytes : pair->side[0].n_values;
        uint64_t step = unit >= RANGE_VALUES ? unit : RANGE_VALUES / unit * unit;
        w->bytes_total += a->bytes / pair->side[0].n_parts + b->bytes / pair->side[1].n_parts;
        for (uint64_t first = 0; first < all; first += step) {
            uint64_t n = all - first < step ? all - first : step;
            if (!tms_grow(&w->ranges, &w->cap_ranges, w->n_ranges + 1, sizeof *w->ranges))
                return tms_fail_memory(err, w->n_ranges * sizeof *w->ranges);
            w->ranges[w->n_ranges++] = (struct range){.pair = i, .first = first, .n = n, .bytes = bytes};
        }
    }
    return TMS_OK;
}

static tms_status make_scratch(struct work *w, unsigned n_threads, struct tms_error *err)
{
    uint64_t raw = 1, values = 1;
    for (size_t i = 0; i < w->n_ranges; i++) {
        const struct range *range = &w->ranges[i];
        if (range->bytes && range->n > raw) raw = range->n;
        for (int k = 0; k < 2 && !range->bytes; k++) {
            const struct tms_pair *pair = &w->diff->pairs.items[range->pair];
            uint64_t n = tms_pair_source_values(pair, k, range->n);
            uint64_t bytes = tms_source_raw_bytes(pair->side[k].tensor, n);
            if (bytes > raw) raw = bytes;
            if (n > values) values = n;
        }
    }
    w->scratch = tms_calloc(n_threads, sizeof *w->scratch);
    if (!w->scratch) return tms_fail_memory(err, n_threads * sizeof *w->scratch);
    for (unsigned i = 0; i < n_threads; i++) {
        struct scratch *s = &w->scratch[i];
        s->turned = tms_calloc(values, sizeof(float));
        for (int k = 0; k < 2; k++) {
            s->raw[k] = tms_calloc(raw, 1);
            s->values[k] = tms_calloc(values, sizeof(float));
            if (!s->raw[k] || !s->values[k] || !s->turned) return tms_fail_memory(err, raw + values * 4);
        }
    }
    return TMS_OK;
}

static void free_work(struct work *w, unsigned n_threads)
{
    for (unsigned i = 0; w->scratch && i < n_threads; i++) {
        for (int k = 0; k < 2; k++) {
            free(w->scratch[i].raw[k]);
            free(w->scratch[i].values[k]);
        }
        free(w->scratch[i].turned);
    }
    free(w->scratch);
    free(w->ranges);
}

/* ---- what was found ---- */

/* "bfloat16", "q4_k", "nf4:dq" for what bitsandbytes packed; NULL if memory is short. */
static const char *type_text(struct tms_diff *d, int side, const struct tms_tensor *t)
{
    const char *torch = d->models[side]->kind == TMS_SOURCE_GGUF ? NULL : tms_torch_dtype_name(t->type);
    if (!t->packed) return torch ? torch : tms_codec(t->type)->name;
    if (t->packed->grid) return t->packed->grid->type;
    if (t->packed->eight) return "int8";
    char block[16] = "";
    if (t->packed->block_size != 64) snprintf(block, sizeof block, ":b%u", t->packed->block_size);
    return tms_arena_printf(&d->arena, "%s%s%s", t->packed->kind == TMS_BNB_NF4 ? "nf4" : "fp4", block,
                            t->packed->nested ? ":dq" : "");
}

/* What is known before any value is read. */
static tms_status begin_tensors(struct tms_diff *d, struct tms_error *err)
{
    d->tensors = tms_calloc(d->pairs.n, sizeof *d->tensors);
    if (!d->tensors) return tms_fail_memory(err, d->pairs.n * sizeof *d->tensors);
    for (size_t i = 0; i < d->pairs.n; i++) {
        const struct tms_pair *pair = &d->pairs.items[i];
        struct tms_diff_tensor *to = &d->tensors[i];
        const struct tms_tensor *a = pair->side[0].tensor, *b = pair->side[1].tensor;
        *to = (struct tms_diff_tensor){
            .name = pair->name, .type_a = a ? type_text(d, 0, a) : NULL, .type_b = b ? type_text(d, 1, b) : NULL};
        if ((a && !to->type_a) || (b && !to->type_b)) return tms_fail_memory(err, 32);
        if (!a || !b)
            to->state = a ? TMS_DIFF_ONLY_A : TMS_DIFF_ONLY_B;
        else if (!tms_pair_same_shape(pair))
            to->state = TMS_DIFF_SHAPE;
        else if ((!tms_source_decodes(a) || !tms_source_decodes(b)) && !same_layout(pair))
            to->state = TMS_DIFF_UNDECODED;
        else
            to->n_values = pair->side[0].n_values;
    }
    return TMS_OK;
}

static void add_up(struct tms_diff *d, const struct work *w)
{
    struct tms_diff_info *info = &d->info;
    double squared_error = 0, squared_a = 0;
    size_t at = 0;
    for (size_t i = 0; i < d->pairs.n; i++) {
        struct tms_diff_tensor *t = &d->tensors[i];
        double error = 0, norm = 0;
        bool bytes = false;
        for (; at < w->n_ranges && w->ranges[at].pair == i; at++) {
            const struct range *range = &w->ranges[at];
            error += range->squared_error;
            norm += range->squared_a;
            bytes |= range->bytes;
            t->n_differing += range->n_differing;
            if (range->max_error > t->max_error) {
                const struct tms_piece *a = &d->pairs.items[i].side[0];
                uint64_t cols = a->n_dims ? a->shape[a->n_dims - 1] : 1;
                t->max_error = range->max_error;
                t->max_row = range->max_at / cols;
                t->max_column = range->max_at % cols;
            }
        }
        if (t->n_differing) t->state = bytes ? TMS_DIFF_UNDECODED : TMS_DIFF_VALUES;
        if (t->n_values) t->rms_error = sqrt(error / (double)t->n_values);
        if (error > 0) t->relative_error = norm > 0 ? sqrt(error / norm) : INFINITY;
        squared_error += error;
        squared_a += norm;
        info->n_values += t->n_values;
        info->n_equal += t->state == TMS_DIFF_EQUAL;
        info->n_only_a += t->state == TMS_DIFF_ONLY_A;
        info->n_only_b += t->state == TMS_DIFF_ONLY_B;
        info->n_undecoded += t->state == TMS_DIFF_UNDECODED;
        info->n_types += t->type_a && t->type_b && strcmp(t->type_a, t->type_b) != 0;
        if (t->max_error > info->max_error) info->max_error = t->max_error;
    }
    info->n_tensors = d->pairs.n;
    info->n_differing = info->n_tensors - info->n_equal - info->n_only_a - info->n_only_b;
    info->equal = info->n_equal == info->n_tensors;
    if (info->n_values) info->rms_error = sqrt(squared_error / (double)info->n_values);
    if (squared_error > 0) info->relative_error = squared_a > 0 ? sqrt(squared_error / squared_a) : INFINITY;
}

static tms_status compare_keys(struct tms_diff *d, struct tms_error *err)
{
    const struct tms_source *a = d->models[0], *b = d->models[1];
    if (a->kind == TMS_SOURCE_GGUF && b->kind == TMS_SOURCE_GGUF)
        tms_keys_compare_kvs(&d->keys, &a->gguf->kvs, &b->gguf->kvs);
    else if (a->config_json && b->config_json)
        tms_keys_compare_json(&d->keys, a->config_json, b->config_json);
    else
        return TMS_OK;
    d->info.keys_compared = true;
    d->info.n_keys = d->keys.n;
    return d->keys.failed ? tms_fail_memory(err, 256) : TMS_OK;
}

tms_status tms_diff_models(struct tms_diff **out, const char *a, const char *b, const struct tms_diff_options *options,
                           struct tms_error *err)
{
    struct tms_pool *pool = NULL;
    struct tms_diff *d = calloc(1, sizeof *d);
    if (!d) return tms_fail_memory(err, sizeof *d);
    struct work w = {.diff = d, .options = options};
    tms_status status = tms_source_open(&d->models[0], a, NULL, NULL, err);
    if (status == TMS_OK) status = tms_source_open(&d->models[1], b, NULL, NULL, err);
    if (status == TMS_OK) {
        const struct tms_source *const models[2] = {d->models[0], d->models[1]};
        status = tms_pairs_find(&d->pairs, models, err);
    }
    if (status == TMS_OK) status = compare_keys(d, err);
    if (status == TMS_OK) status = begin_tensors(d, err);
    if (status == TMS_OK) status = tms_pool_create(&pool, options->n_threads, err);
    if (status == TMS_OK) status = cut(&w, err);
    if (status == TMS_OK) status = make_scratch(&w, tms_pool_threads(pool), err);
    if (status == TMS_OK) status = tms_pool_run(pool, w.n_ranges, run_range, &w, err);
    if (status == TMS_OK) add_up(d, &w);
    if (pool) free_work(&w, tms_pool_threads(pool));
    tms_pool_free(pool);
    if (status != TMS_OK) {
        tms_diff_free(d);
        return status;
    }
    *out = d;
    return TMS_OK;
}

void tms_diff_free(struct tms_diff *diff)
{
    if (!diff) return;
    tms_pairs_free(&diff->pairs);
    tms_keys_free(&diff->keys);
    for (int k = 0; k < 2; k++) tms_source_close(diff->models[k]);
    free(diff->tensors);
    tms_arena_free(&diff->arena);
    free(diff);
}

void tms_diff_describe(const struct tms_diff *diff, struct tms_diff_info *info)
{
    *info = diff->info;
}

void tms_diff_tensor_at(const struct tms_diff *diff, size_t i, struct tms_diff_tensor *tensor)
{
    *tensor = diff->tensors[i];
}

void tms_diff_key_at(const struct tms_diff *diff, size_t i, struct tms_diff_key *key)
{
    *key = diff->keys.items[i];
}
