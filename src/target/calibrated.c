/* See calibrated.h. */
#include "target/calibrated.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/json.h"
#include "base/mem.h"
#include "calib/inputs.h"
#include "calib/layers.h"
#include "method/block_feedback.h"
#include "method/gptq.h"
#include "target/grid_route.h"

#define DAMP   0.02 /* of the mean of the Hessian's diagonal; 0.005 to 0.1 do nearly as well */
#define SWEEPS 3    /* of flips behind the feedback; more find next to nothing */

/* A matrix that fewer tokens than this share of its columns reached is left to the plain encoder: its Hessian would
 * say more about these tokens than about the matrix. */
#define LEAST_TOKENS(cols) ((cols) / 16 + 1)

struct run {
    struct tms_target *t;
    struct tms_pool *pool;
    const struct tms_quantize_options *options;
    struct tms_net *net;
    struct tms_net_info info;
    struct tms_layers layers;
    char *work;
    /* of the layer at work */
    struct tms_hessian **hessians[TMS_LINEAR_EXPERT_DOWN + 1]; /* [experts] or [1], of inputs' owners */
    /* what the last matrix used of its Hessian: those of one input, which follow one another, share it */
    const struct tms_hessian *prepared_of;
    struct tms_feedback_factor factor; /* for blocks */
    struct tms_gptq_prepared prepared; /* for grids */
    struct tms_tensor *made;           /* [n_made] */
    uint8_t **codes;                   /* [n_made]: rows in the source's order */
    size_t n_made, cap_made, cap_codes;
    uint8_t *chosen; /* for grids: what grid_route.h reads, of the tensor at work */
    uint64_t n_chosen;
    bool measures; /* the tap adds up */
    size_t n_feedback, n_unseen;
};

/* ---- options ---- */

tms_status tms_calibrated_check(const struct tms_quantize_options *o, bool *calibrated, struct tms_error *err)
{
    *calibrated = o->method && strcmp(o->method, "gptq") == 0;
    if (o->method && !*calibrated && strcmp(o->method, "rtn") != 0 && strcmp(o->method, "search") != 0)
        return tms_fail(err, TMS_EUSAGE, "method '%s' is unknown: rtn, search or gptq", o->method);
    if (o->method && strcmp(o->method, "search") == 0 && !o->imatrix)
        return tms_fail(err, TMS_EUSAGE, "method search needs importance weights: --imatrix FILE");
    if (*calibrated && !o->data) return tms_fail(err, TMS_EUSAGE, "method gptq needs a text: --data TEXT");
    if (!*calibrated && o->data)
        return tms_fail(err, TMS_EUSAGE, "a text is for method gptq; importance weights come from `tamis calibrate`");
    return TMS_OK;
}

tms_status tms_calibrated_samples(struct tms_samples *out, const struct tms_source *source,
                                  const struct tms_quantize_options *o, struct tms_error *err)
{
    const struct tms_calibrate_options how = {
        .data = o->data, .n_samples = o->n_samples, .length = o->sample_length, .template_name = o->template_name};
    struct tms_tokenizer *tokenizer = NULL;
    if (!source->has_config && source->kind != TMS_SOURCE_GGUF)
        return tms_fail(err, TMS_EINPUT, "%s: is one file of tensors; a method that reads a text needs the folder",
                        source->path);
    tms_status status = tms_tokenizer_open(&tokenizer, source, err);
    if (status == TMS_OK)
        status = tms_samples_read(out, tokenizer, source->path, tms_tokenizer_n_vocab(tokenizer), &how, err);
    tms_tokenizer_close(tokenizer);
    return status;
}

/* ---- Hessians ---- */

static tms_status add_inputs(void *ctx, const struct tms_tap *tap, struct tms_error *err)
{
    struct run *r = ctx;
    size_t part = tap->expert >= 0 ? (size_t)tap->expert : 0;
    if (!r->measures || tms_input_owner(tap->linear) != tap->linear || tap->n == 0) return TMS_OK;
    struct tms_hessian ***all = &r->hessians[tap->linear];
    size_t n_parts = tap->expert >= 0 ? (size_t)r->info.n_experts : 1;
    if (!*all) *all = tms_calloc(n_parts, sizeof **all);
    if (!*all) return tms_fail_memory(err, n_parts * sizeof **all);
    tms_status status = (*all)[part] ? TMS_OK : tms_hessian_create(&(*all)[part], (size_t)tap->cols, err);
    return status == TMS_OK ? tms_hessian_add((*all)[part], tap->x, tap->stride, tap->n, r->pool, err) : status;
}

static void drop_prepared(struct run *r)
{
    tms_feedback_factor_free(&r->factor);
    tms_gptq_prepared_free(&r->prepared);
    r->prepared_of = NULL;
}

static void drop_layer(struct run *r)
{
    drop_prepared(r);
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        size_t n = i >= TMS_LINEAR_EXPERT_GATE ? (size_t)r->info.n_experts : 1;
        for (size_t k = 0; r->hessians[i] && k < n; k++) tms_hessian_free(r->hessians[i][k]);
        free(r->hessians[i]);
        r->hessians[i] = NULL;
    }
    for (size_t i = 0; i < r->n_made; i++) free(r->codes[i]);
    r->n_made = 0;
    free(r->chosen);
    r->chosen = NULL;
}

/* ---- codes ---- */

/* The route that a stored matrix takes, if error feedback can make its codes. */
static struct tms_route *route_of(const struct run *r, const struct tms_tensor *tensor)
{
    struct tms_route *found = NULL;
    size_t index = (size_t)(tensor - r->t->source->tensors);
    for (size_t i = 0; i < r->t->n_routes; i++) {
        struct tms_route *route = &r->t->routes[i];
        bool rows_only = route->turn.kind == TMS_TURN_NONE || route->turn.kind == TMS_TURN_NEIGHBOURS ||
                         route->turn.kind == TMS_TURN_HALVES;
        if (route->source != index) continue;
        bool blocks = route->kind == TMS_ROUTE_CODEC && !route->moves && tms_block_feedback_knows(route->codec->id);
        bool grid = route->kind == TMS_ROUTE_GRID && route->turn.kind == TMS_TURN_NONE && !route->grid->moves &&
                    route->grid->grid.values == TMS_GRID_INT && route->grid->grid.scale_rows == 1;
        if (found || !rows_only || route->n_parts > 1 || !(blocks || grid)) return NULL;
        found = route;
    }
    return found;
}

static char *codes_path(const struct run *r, const struct tms_route *route)
{
    char name[48];
    snprintf(name, sizeof name, "codes-%06zu", (size_t)(route - r->t->routes));
    return tms_path_join(r->work, name);
}

/* Rows in the output's order: of each head as heads.h says. */
static void turn_rows(const struct tms_turn *turn, const uint8_t *from, uint8_t *to, uint64_t n_rows, size_t row_bytes)
{
    uint64_t rows = turn->rows, half = rows / 2;
    for (uint64_t head = 0; head < n_rows; head += rows)
        for (uint64_t i = 0; i < rows; i++) {
            uint64_t apart = i % 2 * half + i / 2; /* where neighbour i stands when halves are apart */
            uint64_t out = turn->kind == TMS_TURN_NEIGHBOURS ? i : apart;
            uint64_t in = turn->kind == TMS_TURN_NEIGHBOURS ? apart : i;
            memcpy(to + (head + out) * row_bytes, from + (head + in) * row_bytes, row_bytes);
        }
}

static tms_status save_codes(struct run *r, const struct tms_route *route, struct tms_error *err)
{
    const struct tms_tensor *made = &r->made[r->n_made - 1];
    const uint8_t *codes = r->chosen ? r->chosen : r->codes[r->n_made - 1];
    const uint64_t bytes = r->chosen ? r->n_chosen : made->bytes;
    struct tms_output *output = NULL;
    char *path = codes_path(r, route);
    uint8_t *turned = NULL;
    tms_status status = path ? TMS_OK : tms_fail_memory(err, 256);
    if (status == TMS_OK && route->turn.kind != TMS_TURN_NONE) {
        turned = tms_calloc(made->bytes, 1);
        if (!turned) status = tms_fail_memory(err, made->bytes);
        if (turned) turn_rows(&route->turn, codes, turned, made->rows, (size_t)(made->bytes / made->rows));
    }
    if (status == TMS_OK) status = tms_output_create(&output, path, bytes, err);
    if (status == TMS_OK) status = tms_output_write(output, turned ? turned : codes, bytes, 0, err);
    if (status == TMS_OK)
        status = tms_output_commit(output, err);
    else
        tms_output_discard(output);
    free(turned);
    free(path);
    free(r->chosen);
    r->chosen = NULL;
    return status;
}

/* Room for the codes of a stored tensor, all of its parts. Of grids the net gets the values, and the file the codes. */
static tms_status make_room(struct run *r, const struct tms_tensor *tensor, const struct tms_net_matrix *m,
                            const struct tms_route *route, struct tms_error *err)
{
    const struct tms_codec *codec = route->kind == TMS_ROUTE_GRID ? tms_codec(TMS_F32) : route->codec;
    if (route->kind == TMS_ROUTE_GRID) {
        const struct tms_grid *g = &route->grid->grid;
        r->n_chosen = g->rows * (g->cols + 5 * tms_grid_groups(g));
        r->chosen = tms_calloc(r->n_chosen, 1);
        if (!r->chosen) return tms_fail_memory(err, r->n_chosen);
    }
    if (!tms_grow(&r->codes, &r->cap_codes, r->n_made + 1, sizeof *r->codes))
        return tms_fail_memory(err, (r->n_made + 1) * sizeof *r->codes);
    struct tms_tensor *made = &r->made[r->n_made];
    uint64_t rows = tensor->n_weights / m->cols;
    *made = (struct tms_tensor){.name = tensor->name,
                                .type = codec->id,
                                .n_dims = 2,
                                .shape = {rows, m->cols},
                                .rows = rows,
                                .cols = m->cols,
                                .n_elems = tensor->n_weights,
                                .n_weights = tensor->n_weights,
                                .file = tensor->file,
                                .bytes = tms_codec_bytes(codec, tensor->n_weights),
                                .scale = TMS_NO_SCALE};
    r->codes[r->n_made] = tms_calloc(made->bytes, 1);
    if (!r->codes[r->n_made]) return tms_fail_memory(err, made->bytes);
    r->n_made++;
    return TMS_OK;
}

static struct tms_hessian *hessian_of(const struct run *r, const struct tms_net_matrix *m)
{
    struct tms_hessian **all = r->hessians[tms_input_owner(m->linear)];
    return all ? all[m->expert >= 0 ? m->expert : 0] : NULL;
}

static bool is_seen(const struct tms_hessian *hessian, uint64_t cols)
{
    return hessian && hessian->n_tokens >= LEAST_TOKENS(cols) && hessian->n == cols;
}

/* What error feedback needs of a Hessian: r->prepared with options of a grid, else r->factor. All matrices of a target
 * have the same options but for the grid's size in columns, which goes with the Hessian. */
static tms_status prepare(struct run *r, struct tms_hessian *hessian, const struct tms_gptq_options *grid,
                          struct tms_error *err)
{
    if (r->prepared_of == hessian) return TMS_OK;
    drop_prepared(r);
    tms_status status = hessian->panel ? tms_hessian_finish(hessian, r->pool, err) : TMS_OK;
    if (status == TMS_OK)
        status = grid ? tms_gptq_prepare(&r->prepared, hessian, grid, r->pool, err)
                      : tms_feedback_factor_create(&r->factor, hessian, DAMP, r->pool, err);
    if (status == TMS_OK) r->prepared_of = hessian;
    return status;
}

/* Codes, scales and zero points of a matrix on a grid, into r->chosen, and the values that they stand for. */
static tms_status choose_codes(struct run *r, const struct tms_net_matrix *m, const float *w,
                               const struct tms_grid_route *route, float *values, struct tms_error *err)
{
    const struct tms_grid *g = &route->grid;
    const uint64_t groups = tms_grid_groups(g), first = m->first_row;
    struct tms_hessian *hessian = hessian_of(r, m);
    uint8_t *codes = r->chosen + first * g->cols,
            *zeros = r->chosen + g->rows * (g->cols + 4 * groups) + first * groups;
    float *scales = tms_calloc(m->rows * groups, sizeof *scales);
    tms_status status = scales ? TMS_OK : tms_fail_memory(err, m->rows * groups * sizeof *scales);
    if (status == TMS_OK && is_seen(hessian, m->cols)) {
        const struct tms_gptq_options o = {
            .affine = {.bits = g->bits, .symmetric = route->rounding.symmetric, .norm = 2.4F},
            .group = (size_t)g->group,
            .order = TMS_GPTQ_GROUP_AWARE,
            .fresh_groups = g->group % 128 == 0 || 128 % g->group == 0,
            .damp = DAMP};
        struct tms_gptq_result result = {0};
        status = prepare(r, hessian, &o, err);
        if (status == TMS_OK)
            status = tms_gptq_with(&result, w, (size_t)m->cols, (size_t)m->rows, &r->prepared, r->pool, err);
        if (status == TMS_OK) {
            memcpy(codes, result.codes, m->rows * m->cols);
            memcpy(zeros, result.zeros, m->rows * groups);
            memcpy(scales, result.scales, m->rows * groups * sizeof *scales);
            r->n_feedback++;
        }
        tms_gptq_free(&result);
    } else if (status == TMS_OK) {
        struct tms_grid part = *g;
        part.rows = m->rows;
        tms_grid_round(&part, &route->rounding, w, 0, m->rows, scales, g->has_zeros ? zeros : NULL, codes);
        r->n_unseen++;
    }
    if (status == TMS_OK) {
        struct tms_grid part = *g;
        part.rows = m->rows;
        memcpy(r->chosen + g->rows * g->cols + first * groups * sizeof *scales, scales,
               m->rows * groups * sizeof *scales);
        tms_grid_apply(&part, scales, g->has_zeros ? zeros : NULL, 0, m->rows, 0, g->cols, codes, (size_t)g->cols,
                       values, (size_t)g->cols);
    }
    free(scales);
    return status;
}

static tms_status encode_matrix(struct run *r, const struct tms_net_matrix *m, const float *w,
                                const struct tms_route *route, uint8_t *codes, struct tms_error *err)
{
    struct tms_hessian *hessian = hessian_of(r, m);
    if (!is_seen(hessian, m->cols)) {
        uint64_t mats = r->t->outs[route->out].n_dims > 2 && m->expert >= 0 ? (uint64_t)m->expert : 0;
        r->n_unseen++;
        if (route->weights)
            route->codec->encode_weighted(w, route->weights + mats * m->cols, codes, m->rows, m->cols);
        else
            route->codec->encode(w, codes, m->rows * m->cols);
        return TMS_OK;
    }
    const struct tms_block_feedback_options o = {.n_sweeps = SWEEPS, .hessian = hessian};
    tms_status status = prepare(r, hessian, NULL, err);
    if (status == TMS_OK)
        status = tms_block_feedback(codes, route->codec->id, w, (size_t)m->rows, &r->factor, &o, NULL, r->pool, err);
    r->n_feedback++;
    return status;
}

/* All matrices of a layer: codes are made, kept in files, and take the weights' place in the net. */
static tms_status encode_layer(struct run *r, uint64_t layer, struct tms_error *err)
{
    struct tms_net_matrix m;
    const struct tms_tensor *tensor = NULL;
    struct tms_route *route = NULL;
    tms_status status = TMS_OK;
    size_t n = 0;
    for (size_t at = 0; tms_net_matrix(r->net, layer, &at, &m);) n++;
    if (!tms_grow(&r->made, &r->cap_made, n, sizeof *r->made)) return tms_fail_memory(err, n * sizeof *r->made);
    for (size_t at = 0; status == TMS_OK && tms_net_matrix(r->net, layer, &at, &m);) {
        if (m.tensor != tensor) { /* the one before is complete */
            if (route) status = save_codes(r, route, err);
            tensor = m.tensor;
            route = route_of(r, tensor);
            if (route && status == TMS_OK) status = make_room(r, tensor, &m, route, err);
        }
        if (!route || status != TMS_OK) continue;
        float *w = tms_calloc(m.rows, m.cols * sizeof *w);
        if (!w) return tms_fail_memory(err, m.rows * m.cols * sizeof *w);
        const struct tms_codec *codec = tms_codec(r->made[r->n_made - 1].type);
        uint8_t *codes = r->codes[r->n_made - 1] + tms_codec_bytes(codec, m.first_row * m.cols);
        tms_net_matrix_values(r->net, layer, at, w);
        if (route->kind == TMS_ROUTE_GRID)
            status = choose_codes(r, &m, w, route->grid, (float *)(void *)codes, err);
        else
            status = encode_matrix(r, &m, w, route, codes, err);
        if (status == TMS_OK) tms_net_replace(r->net, layer, at, &r->made[r->n_made - 1], codes);
        free(w);
    }
    if (route && status == TMS_OK) status = save_codes(r, route, err);
    return status;
}

static tms_status run_layer(struct run *r, uint64_t layer, struct tms_error *err)
{
    tms_status status = tms_net_hold(r->net, layer, 1, err);
    r->measures = true;
    if (status == TMS_OK) status = tms_layers_run(&r->layers, layer, false, err);
    r->measures = false;
    if (status == TMS_OK) status = encode_layer(r, layer, err);
    if (status == TMS_OK && layer < r->info.n_layers) status = tms_layers_run(&r->layers, layer, true, err);
    if (status == TMS_OK && layer > 0) tms_layers_forget(&r->layers, layer);
    (void)tms_net_hold(r->net, layer, 0, err); /* the net forgets the codes before they are freed */
    drop_layer(r);
    return status;
}

/* ---- the whole ---- */

/* What else a layer needs beside the walk: Hessians, a factor, a matrix in f32 and what feedback keeps of it, codes. */
static uint64_t bytes_of_layer(const struct run *r)
{
    uint64_t most = 0;
    for (uint64_t l = 0; l <= r->info.n_layers; l++) {
        struct tms_net_matrix m;
        uint64_t hessians = 0, largest = 0, width = 0, codes = 0;
        for (size_t at = 0; tms_net_matrix(r->net, l, &at, &m);) {
            if (tms_input_owner(m.linear) == m.linear) hessians += m.cols * m.cols * 4 + m.cols * 2112;
            if (m.rows * m.cols > largest) largest = m.rows * m.cols;
            if (m.cols > width) width = m.cols;
            codes += m.rows * m.cols * (r->t->spec.dialect == TMS_DIALECT_GGUF ? 1 : 6); /* or a byte and a bit */
        }
        uint64_t bytes = hessians + width * width * 8 + largest * 14 + codes;
        if (bytes > most) most = bytes;
    }
    return most;
}

static void tell(void *ctx, uint64_t layer, double share)
{
    struct run *r = ctx;
    struct tms_progress p = {.what = "calibrating",
                             .done = (uint64_t)(((double)layer + share) * 1e6),
                             .total = (r->info.n_layers + 1) * 1000000};
    if (r->options->progress) r->options->progress(r->options->progress_ctx, &p);
}

/* What a run's codes depend on, in one line. */
static char *about_run(const struct run *r, const struct tms_samples *s)
{
    struct tms_buf b = {0};
    uint64_t hash = XXH3_64bits(s->ids, s->n_tokens * sizeof *s->ids);
    hash = XXH3_64bits_withSeed(s->starts, (s->n + 1) * sizeof *s->starts, hash);
    for (size_t i = 0; i < r->t->n_routes; i++) {
        const struct tms_route *route = &r->t->routes[i];
        const uint64_t facts[] = {route->source,
                                  route->kind,
                                  route->codec ? route->codec->id : 0,
                                  route->turn.kind,
                                  route->grid ? route->grid->grid.bits : 0,
                                  route->grid ? route->grid->grid.group : 0,
                                  route->grid ? route->grid->grid.has_zeros : 0};
        hash = XXH3_64bits_withSeed(facts, sizeof facts, hash);
    }
    tms_buf_printf(&b, "gptq %s of %016llx by %016llx\n", r->t->spec.name,
                   (unsigned long long)tms_net_fingerprint(r->net), (unsigned long long)hash);
    tms_buf_put(&b, "", 1);
    if (!b.failed) return (char *)b.data;
    tms_buf_free(&b);
    return NULL;
}

/* Layers that an earlier run finished, and where their codes are. */
static uint64_t find_finished(const struct run *r)
{
    uint64_t first = 0;
    for (uint64_t i = 1; i <= r->info.n_layers; i++)
        if (tms_layers_done(&r->layers, i)) first = i;
    return first;
}

static tms_status set_made(struct run *r, struct tms_error *err)
{
    for (size_t i = 0; i < r->t->n_routes; i++) {
        char *path = codes_path(r, &r->t->routes[i]);
        if (!path) return tms_fail_memory(err, 256);
        if (tms_path_exists(path)) {
            char *made = tms_arena_strndup(&r->t->arena, path, strlen(path));
            if (!made) {
                free(path);
                return tms_fail_memory(err, 256);
            }
            if (r->t->routes[i].grid)
                r->t->routes[i].grid->made = made;
            else
                r->t->routes[i].made = made;
        }
        free(path);
    }
    return TMS_OK;
}

static char *work_path(const struct tms_target *t)
{
    char *work = tms_calloc(strlen(t->path) + 8, 1);
    if (work) sprintf(work, "%s.work", t->path);
    return work;
}

static void report(const struct run *r)
{
    struct tms_error line;
    if (!r->options->warning || !r->n_unseen) return;
    tms_set_message(&line,
                    "%s: %zu of %zu matrices were reached by too few tokens of the text; they are rounded without it",
                    r->t->spec.name, r->n_unseen, r->n_unseen + r->n_feedback);
    r->options->warning(r->options->warning_ctx, line.message);
}

tms_status tms_calibrated_make(struct tms_target *t, struct tms_pool *pool, const struct tms_samples *samples,
                               const struct tms_quantize_options *options, struct tms_error *err)
{
    const struct tms_net_options bounded = {.bounded = true};
    struct run r = {.t = t, .pool = pool, .options = options, .work = work_path(t)};
    char *about = NULL;
    bool same = false;
    uint64_t first = 0;
    tms_status status = r.work ? tms_net_open(&r.net, t->source, pool, &bounded, err) : tms_fail_memory(err, 256);
    if (status == TMS_OK) {
        tms_net_describe(r.net, &r.info);
        tms_net_tap(r.net, add_inputs, &r);
        about = about_run(&r, samples);
        status = about ? tms_work_open(r.work, about, &same, err) : tms_fail_memory(err, 256);
    }
    if (status == TMS_OK) {
        r.layers = (struct tms_layers){.model = t->source->path,
                                       .work = r.work,
                                       .net = r.net,
                                       .samples = samples,
                                       .ram = options->ram,
                                       .more = bytes_of_layer(&r),
                                       .tap = add_inputs,
                                       .tap_ctx = &r,
                                       .progress = tell,
                                       .progress_ctx = &r};
        status = tms_layers_open(&r.layers, err);
    }
    if (status == TMS_OK && same) first = find_finished(&r);
    for (uint64_t i = first; i <= r.info.n_layers && status == TMS_OK; i++) status = run_layer(&r, i, err);
    if (status == TMS_OK) status = set_made(&r, err);
    if (status == TMS_OK) report(&r);
    tms_layers_close(&r.layers);
    drop_layer(&r);
    tms_net_close(r.net);
    free(r.made);
    free(r.codes);
    free(r.work);
    free(about);
    return status;
}

void tms_calibrated_done(const struct tms_target *t)
{
    char *work = work_path(t);
    if (work) tms_work_remove(work);
    free(work);
}
