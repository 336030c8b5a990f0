/* See pipeline.h.
 *
 * The source is cut into jobs: ranges of one tensor that are whole blocks for everything that will be done with
 * them. A job reads its range once, decodes it once, and for every target encodes, decodes again to measure the
 * error, hashes and writes. Jobs may run in any order on any thread: their places in the files are known, and sums
 * are kept per job and added in the order of jobs, so that nothing depends on threads. */
#include "target/pipeline.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/numbers.h"
#include "base/sums.h"
#include "model/packed.h"
#include "target/fold.h"
#include "target/grid_blocks.h"
#include "target/grid_route.h"

#define JOB_VALUES (1u << 18)

/* One target's part of one source tensor. */
struct use {
    struct tms_target *target;
    struct tms_route *route;
    size_t target_index;
};

/* All that is to be done with one source tensor, or with one of its equal parts if a target takes it apart (experts of
 * a GGUF file). */
struct work {
    const struct tms_tensor *tensor;
    uint64_t first;          /* of the tensor's values */
    uint64_t n_values, cols; /* of what it stands for: more than n_elems where several share a byte */
    size_t first_use, n_uses;
    size_t first_job, n_jobs;
    uint64_t step; /* values per job */
    bool decode;
    atomic_size_t jobs_left;
};

struct job {
    size_t work;
    uint64_t first, n;
};

/* What a job leaves behind for each of its uses. */
struct outcome {
    double squared_error, squared_weight, seconds;
    uint64_t n_values;
};

struct scratch {
    void *raw;
    float *x, *folded, *rounded, *turned, *back;
    uint8_t *codes;
};

struct run {
    struct tms_pipeline *p;
    size_t n_works, n_jobs, n_uses;
    struct work *works;
    struct job *jobs;
    struct use *uses;
    struct outcome *outcomes; /* [job][use of its work], from first_outcome[job] on */
    size_t *first_outcome;
    struct scratch *scratch; /* [threads] */
    atomic_ullong bytes_done;
    uint64_t bytes_total;
    double last_report;
    pthread_mutex_t lock;
    struct tms_buf *states; /* per route with a late quant_state: its text; indexed by target, then route */
    size_t *first_state;    /* per target */
};

/* ---- cutting into jobs ---- */

/* Values that must stay together: whole blocks of the source and of every use, whole rows where rows matter. */
static uint64_t unit_of(const struct run *r, const struct work *w)
{
    uint64_t cols = w->cols, n = w->n_values;
    uint64_t unit = tms_source_unit(w->tensor);
    for (size_t i = 0; i < w->n_uses; i++) {
        const struct use *use = &r->uses[w->first_use + i];
        const struct tms_route *route = use->route;
        if (route->kind == TMS_ROUTE_CODEC) unit = tms_common_multiple(unit, route->codec->block_elems, n);
        if (route->kind == TMS_ROUTE_BNB4) unit = tms_common_multiple(unit, use->target->spec.block_size, n);
        if (route->kind == TMS_ROUTE_INT8 || route->weights) unit = tms_common_multiple(unit, cols, n);
        if (route->kind == TMS_ROUTE_GRID)
            unit = tms_common_multiple(unit, tms_grid_route_unit_rows(route->grid) * cols, n);
        unit = tms_common_multiple(unit, route->turn.in, n);
    }
    return unit;
}

/* Floats always (they are checked for NaN and infinity); blocks and integers that are only copied not. */
static bool needs_decoding(const struct run *r, const struct work *w)
{
    enum tms_type type = w->tensor->type;
    if (tms_is_plain_float(type)) return true;
    for (size_t u = 0; u < w->n_uses; u++)
        if (r->uses[w->first_use + u].route->kind != TMS_ROUTE_COPY) return true;
    return false;
}

/* Works of all source tensors that have routes: first_work[source] is the first of them. */
static tms_status make_works(struct run *r, size_t *first_work, struct tms_error *err)
{
    struct tms_pipeline *p = r->p;
    size_t n_source = p->source->n_tensors;
    for (size_t k = 0; k < p->n_targets; k++)
        for (size_t i = 0; i < p->targets[k]->n_routes; i++) {
            const struct tms_route *route = &p->targets[k]->routes[i];
            if (route->n_parts > first_work[route->source]) first_work[route->source] = (size_t)route->n_parts;
        }
    for (size_t i = 0; i < n_source; i++) r->n_works += first_work[i];
    r->works = tms_calloc(r->n_works, sizeof *r->works);
    if (!r->works) return tms_fail_memory(err, r->n_works * sizeof *r->works);
    for (size_t i = 0, at = 0; i < n_source; i++) {
        const struct tms_tensor *t = &p->source->tensors[i];
        uint64_t cols = t->packed ? t->packed->shape[1] : t->cols, n = t->packed ? t->n_weights : t->n_elems;
        size_t n_parts = first_work[i];
        first_work[i] = at;
        for (size_t part = 0; part < n_parts; part++)
            r->works[at++] = (struct work){
                .tensor = t, .first = part * (n / n_parts), .n_values = n / n_parts, .cols = cols ? cols : 1};
        if (n_parts) p->source_bytes += t->bytes;
    }
    return TMS_OK;
}

/* The works that a route takes part in: one, or all of its tensor's. */
static size_t works_of(const struct run *r, const size_t *first_work, const struct tms_route *route, size_t *n)
{
    size_t first = first_work[route->source], last = first;
    const struct tms_tensor *t = r->works[first].tensor;
    *n = 1;
    if (route->n_parts > 1) return first + (size_t)route->part;
    while (last < r->n_works && r->works[last].tensor == t) last++;
    *n = last - first;
    return first;
}

/* Uses, grouped by work: count, then fill. */
static tms_status make_uses(struct run *r, const size_t *first_work, struct tms_error *err)
{
    struct tms_pipeline *p = r->p;
    for (int filling = 0; filling < 2; filling++) {
        for (size_t k = 0; k < p->n_targets; k++)
            for (size_t i = 0; i < p->targets[k]->n_routes; i++) {
                struct tms_route *route = &p->targets[k]->routes[i];
                size_t n, first = works_of(r, first_work, route, &n);
                for (struct work *w = &r->works[first]; n > 0; n--, w++) {
                    if (filling) r->uses[w->first_use + w->n_uses] = (struct use){p->targets[k], route, k};
                    w->n_uses++;
                }
            }
        if (filling) break;
        for (size_t i = 0; i < r->n_works; i++) {
            r->works[i].first_use = r->n_uses;
            r->n_uses += r->works[i].n_uses;
            r->works[i].n_uses = 0;
        }
        r->uses = tms_calloc(r->n_uses, sizeof *r->uses);
        if (!r->uses) return tms_fail_memory(err, r->n_uses * sizeof *r->uses);
    }
    return TMS_OK;
}

static tms_status cut(struct run *r, struct tms_error *err)
{
    struct tms_pipeline *p = r->p;
    size_t cap_jobs = 0, n_outcomes = 0;
    size_t *first_work = tms_calloc(p->source->n_tensors + 1, sizeof *first_work);
    if (!first_work) return tms_fail_memory(err, p->source->n_tensors * sizeof *first_work);
    tms_status status = make_works(r, first_work, err);
    if (status == TMS_OK) status = make_uses(r, first_work, err);
    free(first_work);
    for (size_t i = 0; i < r->n_works && status == TMS_OK; i++) {
        struct work *w = &r->works[i];
        w->decode = needs_decoding(r, w);
        uint64_t unit = unit_of(r, w);
        if (unit == 0) unit = 1; /* a tensor without values */
        w->step = unit >= JOB_VALUES ? unit : JOB_VALUES / unit * unit;
        w->first_job = r->n_jobs;
        w->n_jobs = (size_t)((w->n_values + w->step - 1) / w->step);
        if (!tms_grow(&r->jobs, &cap_jobs, r->n_jobs + w->n_jobs, sizeof *r->jobs))
            return tms_fail_memory(err, w->n_jobs * sizeof *r->jobs);
        for (uint64_t first = 0; first < w->n_values; first += w->step) {
            uint64_t rest = w->n_values - first;
            r->jobs[r->n_jobs++] = (struct job){i, w->first + first, rest < w->step ? rest : w->step};
        }
        atomic_init(&w->jobs_left, w->n_jobs);
    }
    if (status != TMS_OK) return status;
    r->first_outcome = tms_calloc(r->n_jobs, sizeof *r->first_outcome);
    if (!r->first_outcome) return tms_fail_memory(err, r->n_jobs * sizeof *r->first_outcome);
    for (size_t i = 0; i < r->n_jobs; i++) {
        r->first_outcome[i] = n_outcomes;
        n_outcomes += r->works[r->jobs[i].work].n_uses;
    }
    r->outcomes = tms_calloc(n_outcomes, sizeof *r->outcomes);
    r->bytes_total = p->source_bytes;
    return r->outcomes ? TMS_OK : tms_fail_memory(err, n_outcomes * sizeof *r->outcomes);
}

/* Values that pass through a shorter type first. */
static bool rounds(const struct tms_route *route, const struct tms_tensor *source)
{
    return route->through != TMS_TYPE_NONE && route->through != source->type;
}

static tms_status make_scratch(struct run *r, struct tms_error *err)
{
    uint64_t raw = 0, values = 0, folded = 0, turned = 0, rounded = 0, codes = 0;
    unsigned n_threads = tms_pool_threads(r->p->pool);
    for (size_t i = 0; i < r->n_works; i++) {
        const struct work *w = &r->works[i];
        uint64_t n = w->step < w->n_values ? w->step : w->n_values;
        uint64_t bytes = tms_source_raw_bytes(w->tensor, n);
        if (bytes > raw) raw = bytes;
        if (w->decode && n > values) values = n;
        for (size_t u = 0; u < w->n_uses; u++) {
            const struct tms_route *route = r->uses[w->first_use + u].route;
            if (route->fold && n > folded) folded = n;
            if (route->turn.kind != TMS_TURN_NONE && n > turned) turned = n;
            if (rounds(route, w->tensor) && n > rounded) rounded = n;
            uint64_t size = route->kind == TMS_ROUTE_CODEC ? tms_codec_bytes(route->codec, n) : n;
            if (route->kind == TMS_ROUTE_GRID) size *= 2; /* codes, and the same packed: never longer */
            if (route->kind != TMS_ROUTE_COPY && size > codes) codes = size;
        }
    }
    r->scratch = tms_calloc(n_threads, sizeof *r->scratch);
    if (!r->scratch) return tms_fail_memory(err, n_threads * sizeof *r->scratch);
    for (unsigned i = 0; i < n_threads; i++) {
        struct scratch *s = &r->scratch[i];
        s->raw = malloc(raw ? raw : 1);
        s->x = malloc(values ? values * sizeof(float) : 1);
        s->back = malloc(values ? values * sizeof(float) : 1);
        s->folded = malloc(folded ? folded * sizeof(float) : 1);
        s->turned = malloc(turned ? turned * sizeof(float) : 1);
        s->rounded = malloc(rounded ? rounded * sizeof(float) : 1);
        s->codes = malloc(codes ? codes : 1);
        if (!s->raw || !s->x || !s->back || !s->folded || !s->turned || !s->rounded || !s->codes)
            return tms_fail_memory(err, raw + values * 8 + (folded + turned + rounded) * 4 + codes);
    }
    return TMS_OK;
}

/* ---- one job ---- */

static tms_status fail_at(const struct run *r, const struct tms_tensor *t, uint64_t index, float value,
                          const char *problem, struct tms_error *err)
{
    uint64_t cols = t->packed ? t->packed->shape[1] : t->cols;
    return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' row %llu column %llu: %g %s", r->p->source->files[t->file]->path,
                    t->name, (unsigned long long)(index / cols), (unsigned long long)(index % cols), (double)value,
                    problem);
}

/* Writes bytes [offset, offset + n) of an output tensor and notes their hash, for reading back. */
static tms_status write_part(struct run *r, const struct use *use, size_t out, uint64_t offset, const void *bytes,
                             uint64_t n, struct tms_error *err)
{
    struct tms_pipeline *p = r->p;
    const struct tms_out_tensor *o = &use->target->outs[out];
    if (p->sink) return p->sink(p->sink_ctx, use->target, out, offset, bytes, n, err);
    struct tms_written written = {use->target, out, offset, n, XXH3_64bits(bytes, n)};
    pthread_mutex_lock(&r->lock);
    bool noted = tms_grow(&p->written, &p->cap_written, p->n_written + 1, sizeof *p->written);
    if (noted) p->written[p->n_written++] = written;
    pthread_mutex_unlock(&r->lock);
    if (!noted) return tms_fail_memory(err, p->n_written * sizeof *p->written);
    return tms_output_write(use->target->files[o->file].output, bytes, n, o->offset + offset, err);
}

/* absmax (or SCB) of a whole tensor, made by whichever job comes first. */
static tms_status need_absmax(struct run *r, const struct work *w, const struct use *use, struct tms_error *err)
{
    uint64_t n = use->route->kind == TMS_ROUTE_INT8
                     ? w->n_values / w->cols
                     : (w->n_values + use->target->spec.block_size - 1) / use->target->spec.block_size;
    pthread_mutex_lock(&r->lock);
    if (!use->route->absmax_values) use->route->absmax_values = tms_calloc(n, sizeof(float));
    bool ok = use->route->absmax_values != NULL;
    pthread_mutex_unlock(&r->lock);
    return ok ? TMS_OK : tms_fail_memory(err, n * sizeof(float));
}

/* A block whose decoded values are not finite: the weight of largest magnitude in it is at fault. */
static size_t blame(const float *x, size_t first, size_t n, const struct tms_codec *codec)
{
    size_t block = codec ? codec->block_elems : 1, worst = first;
    if (first >= n) return 0;
    for (size_t i = first / block * block; i < n && i < first / block * block + block; i++)
        if (fabsf(x[i]) > fabsf(x[worst])) worst = i;
    return worst;
}

/* n values that stand at `first` of the output. Rows with importance weights go matrix by matrix: each expert has its
 * own. */
static void encode(const struct tms_route *route, const struct tms_out_tensor *out, const float *x, uint64_t first,
                   uint64_t n, uint8_t *codes)
{
    if (!route->weights) {
        route->codec->encode(x, codes, n);
        return;
    }
    uint64_t cols = out->shape[out->n_dims - 1], mat_rows = out->n_dims > 1 ? out->shape[out->n_dims - 2] : 1;
    for (uint64_t row = first / cols, end = row + n / cols; row < end;) {
        uint64_t mat = row / mat_rows, n_rows = (mat + 1) * mat_rows - row;
        if (n_rows > end - row) n_rows = end - row;
        uint64_t at = row * cols - first;
        route->codec->encode_weighted(x + at, route->weights + mat * cols, codes + tms_codec_bytes(route->codec, at),
                                      n_rows, cols);
        row += n_rows;
    }
}

/* Codes that a method made before. */
static tms_status read_made(const struct tms_route *route, uint64_t offset, uint64_t n, uint8_t *codes,
                            struct tms_error *err)
{
    struct tms_file file;
    tms_status status = tms_file_open(&file, route->made, err);
    if (status != TMS_OK) return status;
    status = tms_file_read(&file, codes, n, offset, err);
    tms_file_close(&file);
    return status;
}

/* The value of `turned` that is at fault, as a place in the source: the first value there that became it. */
static size_t blame_source(const struct tms_route *route, const float *x, uint64_t n, const float *turned, size_t at)
{
    if (turned == x || n == 0) return at;
    float shift = route->turn.kind == TMS_TURN_PLUS_ONE ? 1.0f : route->turn.kind == TMS_TURN_MINUS_ONE ? -1.0f : 0;
    size_t i = 0;
    while (i + 1 < n && x[i] + shift != turned[at]) i++;
    return i;
}

/* Units of codes whose places in the output do not touch. */
static tms_status write_units(struct run *r, const struct use *use, const uint8_t *codes, uint64_t first, uint64_t n,
                              struct tms_error *err)
{
    const struct tms_route *route = use->route;
    const struct tms_turn *turn = &route->turn;
    tms_status status = TMS_OK;
    for (uint64_t done = 0; done < n && status == TMS_OK; done += turn->out, first += turn->stride)
        status = write_part(r, use, route->out, tms_codec_bytes(route->codec, first),
                            codes + tms_codec_bytes(route->codec, done), tms_codec_bytes(route->codec, turn->out), err);
    return status;
}

static tms_status do_use(struct run *r, const struct work *w, const struct job *job, const struct use *use, double norm,
                         struct scratch *s, struct outcome *o, struct tms_error *err)
{
    const struct tms_tensor *t = w->tensor;
    const struct tms_route *route = use->route;
    const void *codes = s->codes;
    const struct tms_turn *turn = &route->turn;
    bool turns = turn->kind != TMS_TURN_NONE;
    const float *values = route->fold ? s->folded : s->x;
    if (route->fold) tms_fold_apply(route->fold, job->first, job->n, s->x, s->folded);
    uint64_t offset = 0, bytes = 0, n = turns ? tms_turn_values(turn, values, job->n, s->turned) : job->n;
    /* Where the values stand in the output. */
    uint64_t first = turn->start + (job->first - (route->n_parts > 1 ? w->first : 0)) / turn->in * turn->stride;
    const float *x = turns ? s->turned : values, *original = x;
    tms_status status = TMS_OK;
    bool exact = false;
    o->n_values = n;
    const bool as_read = n == job->n && turn->kind != TMS_TURN_PLUS_ONE && !route->fold;
    o->squared_weight = as_read ? norm : tms_squared_norm(x, n);
    if (rounds(route, t)) {
        const struct tms_codec *through = tms_codec(route->through);
        through->encode(x, s->back, n);
        through->decode(s->back, s->rounded, n);
        x = s->rounded;
    }
    switch (route->kind) {
    case TMS_ROUTE_COPY:
        codes = s->raw;
        bytes = tms_codec_bytes(tms_codec(t->type), n);
        offset = tms_codec_bytes(tms_codec(t->type), first);
        exact = true;
        break;
    case TMS_ROUTE_CODEC:
        bytes = tms_codec_bytes(route->codec, n);
        if (route->made)
            status = read_made(route, tms_codec_bytes(route->codec, first - turn->start), bytes, s->codes, err);
        else if (route->moves)
            status = tms_grid_to_blocks(r->p->source, t, route->codec->id, job->first / w->cols, job->n / w->cols,
                                        turns ? turn->rows : 0, s->raw, s->codes, err);
        else
            encode(route, &use->target->outs[route->out], x, first, n, s->codes);
        if (status != TMS_OK) return status;
        offset = tms_codec_bytes(route->codec, first);
        exact = route->codec->id == TMS_F32;
        if (!exact) route->codec->decode(s->codes, s->back, n);
        break;
    case TMS_ROUTE_BNB4: {
        uint32_t block = use->target->spec.block_size;
        status = need_absmax(r, w, use, err);
        if (status != TMS_OK) return status;
        float *absmax = route->absmax_values + first / block;
        tms_bnb_encode4(use->target->spec.kind, block, x, n, s->codes, absmax);
        tms_bnb_decode4(tms_bnb_map(use->target->spec.kind), block, s->codes, absmax, s->back, n);
        bytes = (n + 1) / 2;
        offset = first / 2;
        break;
    }
    case TMS_ROUTE_GRID: break; /* below */
    case TMS_ROUTE_INT8:
        status = need_absmax(r, w, use, err);
        if (status != TMS_OK) return status;
        for (uint64_t row = 0; row < n / t->cols; row++) {
            float *scb = route->absmax_values + first / t->cols + row;
            int8_t *to = (int8_t *)s->codes + row * t->cols;
            size_t bad = tms_bnb_encode_int8(x + row * t->cols, t->cols, to, scb);
            if (bad < t->cols)
                return fail_at(r, t, job->first + row * t->cols + bad, x[row * t->cols + bad],
                               "does not fit into float16, which int8 goes through; take nf4", err);
            tms_bnb_decode_int8(to, *scb, s->back + row * t->cols, t->cols);
        }
        bytes = n;
        offset = first;
        break;
    }
    if (route->kind == TMS_ROUTE_GRID) {
        const uint8_t *packed;
        pthread_mutex_lock(&r->lock);
        status = tms_grid_route_begin(route->grid, err);
        pthread_mutex_unlock(&r->lock);
        uint64_t row = first / w->cols, n_rows = n / w->cols;
        if (status == TMS_OK)
            status = tms_grid_route_encode(route->grid, r->p->source, t, row, n_rows, x, s->raw, s->codes, s->codes + n,
                                           &packed, s->back, err);
        if (status != TMS_OK) return status;
        codes = packed;
        bytes = packed ? n_rows * route->grid->grid.row_bytes : 0;
        offset = packed ? row * route->grid->grid.row_bytes : 0;
    }
    if (!exact) {
        o->squared_error = tms_squared_distance(original, s->back, n);
        if (!isfinite(o->squared_error)) {
            size_t bad = blame(x, tms_first_nonfinite(s->back, n), n, route->codec);
            return fail_at(r, t, job->first + blame_source(route, values, job->n, original, bad), x[bad],
                           "cannot be stored in the target type (the result is not finite)", err);
        }
    }
    if (!tms_turn_is_dense(turn)) return write_units(r, use, codes, first, n, err);
    return bytes ? write_part(r, use, route->out, offset, codes, bytes, err) : TMS_OK;
}

struct put {
    struct run *r;
    const struct use *use;
};

static tms_status put_whole(void *ctx, size_t out, const void *bytes, uint64_t n, struct tms_error *err)
{
    const struct put *put = ctx;
    return write_part(put->r, put->use, out, 0, bytes, n, err);
}

/* After a tensor's last job: scales that need the whole tensor. */
static tms_status finish(struct run *r, const struct use *use, const struct tms_tensor *t, struct tms_error *err)
{
    struct tms_route *route = use->route;
    struct tms_target *target = use->target;
    if (route->kind == TMS_ROUTE_GRID) {
        struct put put = {r, use};
        return tms_grid_route_finish(route->grid, route->out, put_whole, &put, err);
    }
    if (!route->absmax_values) return TMS_OK;
    const struct tms_out_tensor *absmax = &target->outs[route->absmax];
    size_t n = (size_t)absmax->n_elems;
    tms_status status = TMS_OK;
    if (route->nested_absmax == TMS_NO_OUT) {
        status = write_part(r, use, route->absmax, 0, route->absmax_values, n * sizeof(float), err);
    } else {
        size_t n_nested = (size_t)target->outs[route->nested_absmax].n_elems;
        uint8_t *codes = tms_calloc(n, 1);
        float *nested = tms_calloc(n_nested, sizeof *nested), offset;
        status = codes && nested ? TMS_OK : tms_fail_memory(err, n + n_nested * 4);
        if (status == TMS_OK) {
            tms_bnb_encode_absmax(route->absmax_values, n, codes, nested, &offset);
            status = write_part(r, use, route->absmax, 0, codes, n, err);
        }
        if (status == TMS_OK)
            status = write_part(r, use, route->nested_absmax, 0, nested, n_nested * sizeof *nested, err);
        if (status == TMS_OK) {
            struct tms_buf *state = &r->states[r->first_state[use->target_index] + (size_t)(route - target->routes)];
            tms_bnb_quant_state(state, &target->spec, t, route->n_parts, route->through, &offset);
            if (state->failed) status = tms_fail_memory(err, 256);
        }
        free(codes);
        free(nested);
    }
    free(route->absmax_values);
    route->absmax_values = NULL;
    return status;
}

static void report(struct run *r, bool last)
{
    struct tms_pipeline *p = r->p;
    const char *what = p->sink ? "rebuilding" : "quantizing";
    double t = tms_seconds();
    if (!p->progress || (!last && t - r->last_report < 0.1)) return;
    r->last_report = t;
    struct tms_progress progress = {what, atomic_load(&r->bytes_done), r->bytes_total};
    p->progress(p->progress_ctx, &progress);
}

static tms_status run_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    struct run *r = ctx;
    const struct job *job = &r->jobs[index];
    struct work *w = &r->works[job->work];
    struct scratch *s = &r->scratch[worker];
    const struct tms_tensor *t = w->tensor;
    tms_status status;
    if (w->decode) {
        status = tms_source_read(r->p->source, t, job->first, job->n, s->raw, s->x, err);
        size_t bad = status == TMS_OK ? tms_first_nonfinite(s->x, job->n) : 0;
        if (status == TMS_OK && bad < job->n)
            return fail_at(r, t, job->first + bad, s->x[bad], "is no number that can be quantized", err);
    } else {
        status = tms_source_read_raw(r->p->source, t, job->first, job->n, s->raw, err);
    }
    double norm = status == TMS_OK && w->decode ? tms_squared_norm(s->x, job->n) : 0;
    for (size_t u = 0; u < w->n_uses && status == TMS_OK; u++) {
        struct outcome *o = &r->outcomes[r->first_outcome[index] + u];
        double start = tms_seconds();
        status = do_use(r, w, job, &r->uses[w->first_use + u], norm, s, o, err);
        o->seconds = tms_seconds() - start;
    }
    if (status != TMS_OK) return status;
    if (atomic_fetch_sub(&w->jobs_left, 1) == 1) {
        for (size_t u = 0; u < w->n_uses && status == TMS_OK; u++) {
            struct outcome *o = &r->outcomes[r->first_outcome[index] + u];
            double start = tms_seconds();
            status = finish(r, &r->uses[w->first_use + u], t, err);
            o->seconds += tms_seconds() - start;
        }
    }
    atomic_fetch_add(&r->bytes_done, tms_source_raw_bytes(t, job->n));
    if (worker == 0) report(r, false);
    return status;
}

/* ---- before all: the largest weight of tensors whose scales need it ---- */

struct measure {
    struct run *r;
    size_t *jobs;
    float *largest; /* [jobs] */
    size_t n;
};

static bool needs_amax(const struct run *r, const struct work *w)
{
    for (size_t u = 0; u < w->n_uses; u++) {
        const struct tms_route *route = r->uses[w->first_use + u].route;
        if (route->grid && route->grid->amax) return true;
    }
    return false;
}

static tms_status measure_job(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    struct measure *m = ctx;
    const struct job *job = &m->r->jobs[m->jobs[index]];
    struct scratch *s = &m->r->scratch[worker];
    const struct tms_tensor *t = m->r->works[job->work].tensor;
    tms_status status = tms_source_read(m->r->p->source, t, job->first, job->n, s->raw, s->x, err);
    uint32_t largest = 0; /* of bits, whose order is that of magnitudes */
    for (uint64_t i = 0; i < job->n && status == TMS_OK; i++) {
        uint32_t magnitude = tms_f32_bits(s->x[i]) & 0x7fffffff;
        largest = magnitude > largest ? magnitude : largest;
    }
    m->largest[index] = tms_f32_from_bits(largest);
    return status;
}

/* A second read of those tensors. What shares a scale shares the number. */
static tms_status measure(struct run *r, struct tms_error *err)
{
    struct measure m = {.r = r};
    tms_status status = TMS_OK;
    for (size_t i = 0; i < r->n_jobs; i++) m.n += needs_amax(r, &r->works[r->jobs[i].work]);
    if (m.n == 0) return TMS_OK;
    m.jobs = tms_calloc(m.n, sizeof *m.jobs);
    m.largest = tms_calloc(m.n, sizeof *m.largest);
    if (!m.jobs || !m.largest) status = tms_fail_memory(err, m.n * 12);
    for (size_t i = 0, n = 0; i < r->n_jobs && status == TMS_OK; i++)
        if (needs_amax(r, &r->works[r->jobs[i].work])) m.jobs[n++] = i;
    if (status == TMS_OK) status = tms_pool_run(r->p->pool, m.n, measure_job, &m, err);
    for (size_t i = 0; i < m.n && status == TMS_OK; i++) {
        const struct work *w = &r->works[r->jobs[m.jobs[i]].work];
        for (size_t u = 0; u < w->n_uses; u++) {
            const struct tms_grid_route *grid = r->uses[w->first_use + u].route->grid;
            if (grid && grid->amax) *grid->amax = fmaxf(*grid->amax, m.largest[i]);
        }
    }
    free(m.jobs);
    free(m.largest);
    return status;
}

/* ---- the whole ---- */

/* Fixed contents, late texts, headers. */
static tms_status write_rest(struct run *r, struct tms_error *err)
{
    struct tms_pipeline *p = r->p;
    tms_status status = TMS_OK;
    for (size_t k = 0; k < p->n_targets && status == TMS_OK; k++) {
        struct tms_target *t = p->targets[k];
        bool late = false;
        for (size_t i = 0; i < t->n_routes; i++) {
            if (t->routes[i].quant_state == TMS_NO_OUT) continue;
            struct tms_buf *state = &r->states[r->first_state[k] + i];
            struct tms_out_tensor *out = &t->outs[t->routes[i].quant_state];
            out->n_elems = out->bytes = out->shape[0] = state->n;
            out->contents = tms_arena_strndup(&t->arena, (const char *)state->data, state->n);
            if (!out->contents) return tms_fail_memory(err, state->n);
            late = true;
        }
        if (late) status = tms_target_relayout(t, err);
        for (size_t i = 0; i < t->n_outs && status == TMS_OK; i++) {
            struct use use = {.target = t};
            if (t->outs[i].contents) status = write_part(r, &use, i, 0, t->outs[i].contents, t->outs[i].bytes, err);
        }
        for (size_t f = 0; f < t->n_files && status == TMS_OK && !p->sink; f++) {
            struct tms_out_file *file = &t->files[f];
            status = tms_output_write(file->output, file->header.data, file->header.n, 0, err);
            /* also lengthens a file that ends in padding */
            if (status == TMS_OK) status = tms_output_truncate(file->output, file->size, err);
        }
    }
    return status;
}

/* Sums in the order of jobs. */
static void add_up(struct run *r)
{
    for (size_t i = 0; i < r->n_jobs; i++) {
        const struct job *job = &r->jobs[i];
        const struct work *w = &r->works[job->work];
        for (size_t u = 0; u < w->n_uses; u++) {
            const struct outcome *o = &r->outcomes[r->first_outcome[i] + u];
            struct tms_target_stats *stats = &r->p->stats[r->uses[w->first_use + u].target_index];
            struct tms_route *route = r->uses[w->first_use + u].route;
            route->squared_error += o->squared_error;
            route->n_values += o->n_values;
            stats->squared_error += o->squared_error;
            stats->squared_weight += o->squared_weight;
            stats->thread_seconds += o->seconds;
            stats->n_values += o->n_values;
        }
    }
}

static void run_free(struct run *r)
{
    unsigned n_threads = tms_pool_threads(r->p->pool);
    for (unsigned i = 0; r->scratch && i < n_threads; i++) {
        free(r->scratch[i].raw);
        free(r->scratch[i].x);
        free(r->scratch[i].back);
        free(r->scratch[i].folded);
        free(r->scratch[i].turned);
        free(r->scratch[i].rounded);
        free(r->scratch[i].codes);
    }
    size_t n_states = r->first_state ? r->first_state[r->p->n_targets] : 0;
    for (size_t i = 0; i < n_states; i++) tms_buf_free(&r->states[i]);
    free(r->states);
    free(r->first_state);
    free(r->scratch);
    free(r->outcomes);
    free(r->first_outcome);
    free(r->jobs);
    free(r->works);
    free(r->uses);
    pthread_mutex_destroy(&r->lock);
}

tms_status tms_pipeline_run(struct tms_pipeline *p, struct tms_error *err)
{
    struct run r = {.p = p};
    pthread_mutex_init(&r.lock, NULL);
    tms_status status = cut(&r, err);
    r.first_state = tms_calloc(p->n_targets + 1, sizeof *r.first_state);
    if (status == TMS_OK && !r.first_state) status = tms_fail_memory(err, p->n_targets * sizeof *r.first_state);
    if (status == TMS_OK) {
        for (size_t k = 0; k < p->n_targets; k++) r.first_state[k + 1] = r.first_state[k] + p->targets[k]->n_routes;
        r.states = tms_calloc(r.first_state[p->n_targets], sizeof *r.states);
        if (!r.states) {
            r.first_state[p->n_targets] = 0;
            status = tms_fail_memory(err, 256);
        }
    }
    if (status == TMS_OK) status = make_scratch(&r, err);
    if (status == TMS_OK) status = measure(&r, err);
    if (status == TMS_OK) status = tms_pool_run(p->pool, r.n_jobs, run_job, &r, err);
    if (status == TMS_OK) status = write_rest(&r, err);
    if (status == TMS_OK) {
        add_up(&r);
        report(&r, true);
    }
    run_free(&r);
    return status;
}
