/* See layer_codes.h. */
#include "target/layer_codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "calib/inputs.h"
#include "method/awq.h"
#include "method/flips.h"
#include "target/fold.h"
#include "target/fold_search.h"
#include "target/grid_route.h"
#include "target/layer_folds.h"

/* Of each entry of the Hessian's diagonal (tms_hessian_shrink). SmolLM2-135M, 64k tokens, KL divergence for 0.1, 0.3,
 * 1: Q4_K_M 0.0653, 0.0622, 0.0656; Q2_K 0.826, 0.772, 0.711; Q3_K_M for 0.3, 1: 0.232, 0.227. The coarser the codes,
 * the less a later layer's input is what the Hessian was measured with. */
#define SHRINK        0.3
#define SHRINK_COARSE 1.0 /* below 4 bits */
/* And of its median, with scales before feedback: without it channels with small inputs leave the range of their grid
 * (pebble, gptq:3:g128 by awq+gptq: 0.0940, 0.0609). */
#define MEDIAN 0.2
#define DAMP   1e-5 /* of its mean: only for what rounding errors might make of the factor */
#define SWEEPS 3    /* of flips behind the feedback; more find next to nothing */

/* ---- stages ---- */

static enum tms_stage stage_of(enum tms_linear linear)
{
    switch (tms_input_owner(linear)) {
    case TMS_LINEAR_Q:
    case TMS_LINEAR_KV_A: return TMS_STAGE_QKV;
    case TMS_LINEAR_Q_B:
    case TMS_LINEAR_KV_B:
    case TMS_LINEAR_K_B:
    case TMS_LINEAR_V_B: return TMS_STAGE_LATENTS;
    case TMS_LINEAR_O: return TMS_STAGE_O;
    case TMS_LINEAR_GATE:
    case TMS_LINEAR_ROUTER:
    case TMS_LINEAR_EXPERT_GATE: return TMS_STAGE_GATE_UP;
    default: return TMS_STAGE_DOWN; /* and the head, which is alone in its layer */
    }
}

static bool is_at_work(const struct tms_layer_codes *c, enum tms_linear linear, int expert)
{
    if (c->stage != TMS_STAGE_ALL && stage_of(linear) != c->stage) return false;
    return expert < 0 ? c->others : (size_t)expert >= c->first_expert && (size_t)expert < c->end_expert;
}

bool tms_layer_codes_has_stage(const struct tms_layer_codes *c, uint64_t layer, enum tms_stage stage, bool experts)
{
    struct tms_net_matrix m;
    for (size_t at = 0; tms_net_matrix(c->net, layer, &at, &m);)
        if ((stage == TMS_STAGE_ALL || stage_of(m.linear) == stage) && (m.expert >= 0 || !experts)) return true;
    return false;
}

enum { ROWS = 16 /* of a job of plain encoding */ };

/* ---- Hessians ---- */

static tms_status make_parts(struct tms_layer_codes *c, enum tms_linear owner, bool experts, struct tms_error *err)
{
    size_t n_parts = experts ? c->n_experts : 1;
    struct tms_hessian ***all = &c->hessians[owner];
    if (!*all) *all = tms_calloc(n_parts, sizeof **all);
    return *all ? TMS_OK : tms_fail_memory(err, n_parts * sizeof **all);
}

/* Room for the largest |x| of an input's columns. */
static tms_status make_largest(struct tms_layer_codes *c, enum tms_linear owner, bool experts, size_t part,
                               uint64_t cols, float **out, struct tms_error *err)
{
    size_t n_parts = experts ? c->n_experts : 1;
    float ***all = &c->largest[owner];
    if (!*all) *all = tms_calloc(n_parts, sizeof **all);
    if (!*all) return tms_fail_memory(err, n_parts * sizeof **all);
    if (!(*all)[part]) (*all)[part] = tms_calloc(cols, sizeof ***all);
    *out = (*all)[part];
    return *out ? TMS_OK : tms_fail_memory(err, cols * sizeof ***all);
}

static tms_status add_largest(struct tms_layer_codes *c, const struct tms_tap *tap, size_t part, struct tms_error *err)
{
    float *largest = NULL;
    tms_status status = make_largest(c, tap->linear, tap->expert >= 0, part, tap->cols, &largest, err);
    for (size_t i = 0; i < tap->n && status == TMS_OK; i++)
        for (uint64_t k = 0; k < tap->cols; k++) largest[k] = fmaxf(largest[k], fabsf(tap->x[i * tap->stride + k]));
    return status;
}

tms_status tms_layer_codes_add(void *ctx, const struct tms_tap *tap, struct tms_error *err)
{
    struct tms_layer_codes *c = ctx;
    size_t part = tap->expert >= 0 ? (size_t)tap->expert : 0;
    if (!c->measures || tms_input_owner(tap->linear) != tap->linear || tap->n == 0 ||
        !is_at_work(c, tap->linear, tap->expert))
        return TMS_OK;
    tms_status status = make_parts(c, tap->linear, tap->expert >= 0, err);
    if (status != TMS_OK) return status;
    struct tms_hessian **hessian = &c->hessians[tap->linear][part];
    struct tms_error problem;
    if (!*hessian) status = tms_hessian_create(hessian, (size_t)tap->cols, err);
    if (status != TMS_OK) return status;
    status = tms_hessian_add(*hessian, tap->x, tap->stride, tap->n, c->pool, &problem);
    if (status != TMS_OK)
        return tms_fail(err, status, "%s: layer %llu: %s", c->t->source->path, (unsigned long long)tap->layer,
                        problem.message);
    return c->folds == TMS_FOLDS_SMOOTH ? add_largest(c, tap, part, err) : status;
}

tms_status tms_layer_codes_load(struct tms_layer_codes *c, const struct tms_stats *stats, uint64_t layer,
                                struct tms_error *err)
{
    struct tms_net_matrix m;
    tms_status status = TMS_OK;
    for (size_t at = 0; status == TMS_OK && tms_net_matrix(c->net, layer, &at, &m);) {
        const enum tms_linear owner = tms_input_owner(m.linear);
        const size_t part = m.expert >= 0 ? (size_t)m.expert : 0;
        char name[192];
        if (!is_at_work(c, m.linear, m.expert)) continue;
        status = make_parts(c, owner, m.expert >= 0, err);
        if (status != TMS_OK || c->hessians[owner][part]) continue;
        if (!tms_net_linear_name(c->net, layer, m.linear, true, name, sizeof name)) continue;
        status = tms_stats_hessian(stats, name, part, (size_t)m.cols, &c->hessians[owner][part], err);
        float *largest = NULL;
        if (status != TMS_OK || c->folds != TMS_FOLDS_SMOOTH || !c->hessians[owner][part]) continue;
        status = make_largest(c, owner, m.expert >= 0, part, m.cols, &largest, err);
        if (status == TMS_OK) status = tms_stats_largest(stats, name, part, (size_t)m.cols, largest, err);
    }
    return status;
}

void tms_layer_codes_changed(struct tms_layer_codes *c)
{
    tms_feedback_factor_free(&c->factor);
    tms_gptq_prepared_free(&c->prepared);
    c->prepared_of = NULL;
}

void tms_layer_codes_drop_hessians(struct tms_layer_codes *c)
{
    tms_layer_codes_changed(c);
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        size_t n = i >= TMS_LINEAR_EXPERT_GATE ? (size_t)c->n_experts : 1;
        for (size_t k = 0; c->hessians[i] && k < n; k++) tms_hessian_free(c->hessians[i][k]);
        for (size_t k = 0; c->largest[i] && k < n; k++) free(c->largest[i][k]);
        free(c->hessians[i]);
        free(c->largest[i]);
        c->hessians[i] = NULL;
        c->largest[i] = NULL;
    }
}

void tms_layer_codes_drop(struct tms_layer_codes *c)
{
    tms_layer_codes_drop_hessians(c);
    for (size_t i = 0; i < c->n_made; i++) free(c->codes[i]);
    c->n_made = 0;
    free(c->chosen);
    c->chosen = NULL;
}

/* ---- codes ---- */

struct tms_route *tms_layer_codes_route(const struct tms_layer_codes *c, const struct tms_tensor *tensor)
{
    struct tms_route *found = NULL;
    size_t index = (size_t)(tensor - c->t->source->tensors);
    for (size_t i = 0; i < c->t->n_routes; i++) {
        struct tms_route *route = &c->t->routes[i];
        bool rows_only = route->turn.kind == TMS_TURN_NONE || route->turn.kind == TMS_TURN_NEIGHBOURS ||
                         route->turn.kind == TMS_TURN_HALVES;
        if (route->source != index) continue;
        bool blocks = route->kind == TMS_ROUTE_CODEC && !route->moves &&
                      (c->feedback ? tms_block_feedback_knows(route->codec->id) : route->codec->block_elems > 1);
        bool grid = route->kind == TMS_ROUTE_GRID && route->turn.kind == TMS_TURN_NONE && !route->grid->moves &&
                    route->grid->grid.values == TMS_GRID_INT && route->grid->grid.scale_rows == 1;
        if (found || !rows_only || route->n_parts > 1 || !(blocks || grid)) return NULL;
        found = route;
    }
    return found;
}

char *tms_layer_codes_path(const struct tms_layer_codes *c, const struct tms_route *route)
{
    char name[48];
    snprintf(name, sizeof name, "codes-%06zu", (size_t)(route - c->t->routes));
    return tms_path_join(c->work, name);
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

static tms_status save_codes(struct tms_layer_codes *c, const struct tms_route *route, struct tms_error *err)
{
    const struct tms_tensor *made = &c->made[c->at_work];
    const uint8_t *codes = c->chosen ? c->chosen : c->codes[c->at_work];
    const uint64_t bytes = c->chosen ? c->n_chosen : made->bytes;
    struct tms_output *output = NULL;
    char *path = tms_layer_codes_path(c, route);
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
    free(c->chosen);
    c->chosen = NULL;
    return status;
}

uint64_t tms_layer_codes_grid_bytes(const struct tms_grid_route *route)
{
    const struct tms_grid *g = &route->grid;
    return g->rows * (g->cols + 5 * tms_grid_groups(g)) + (route->order ? g->cols * sizeof *route->order : 0);
}

/* Room for the codes of a stored tensor, all of its parts; for other experts of a stack it is there already. Of grids
 * the net gets the values, and the file the codes. */
static tms_status make_room(struct tms_layer_codes *c, const struct tms_tensor *tensor, const struct tms_net_matrix *m,
                            const struct tms_route *route, struct tms_error *err)
{
    const bool grid = route && route->kind == TMS_ROUTE_GRID;
    const struct tms_codec *codec = grid || !route ? tms_codec(TMS_F32) : route->codec;
    for (c->at_work = 0; c->at_work < c->n_made; c->at_work++)
        if (c->made[c->at_work].name == tensor->name) return TMS_OK;
    if (grid) {
        c->n_chosen = tms_layer_codes_grid_bytes(route->grid);
        c->chosen = tms_calloc(c->n_chosen, 1);
        if (!c->chosen) return tms_fail_memory(err, c->n_chosen);
    }
    if (!tms_grow(&c->codes, &c->cap_codes, c->n_made + 1, sizeof *c->codes))
        return tms_fail_memory(err, (c->n_made + 1) * sizeof *c->codes);
    struct tms_tensor *made = &c->made[c->n_made];
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
    c->codes[c->n_made] = tms_calloc(made->bytes, 1);
    if (!c->codes[c->n_made]) return tms_fail_memory(err, made->bytes);
    c->n_made++;
    return TMS_OK;
}

struct tms_hessian *tms_layer_codes_hessian(const struct tms_layer_codes *c, const struct tms_net_matrix *m)
{
    struct tms_hessian **all = c->hessians[tms_input_owner(m->linear)];
    struct tms_hessian *hessian = all ? all[m->expert >= 0 ? m->expert : 0] : NULL;
    return hessian && hessian->n_tokens >= TMS_LEAST_TOKENS(m->cols) && hessian->n == m->cols ? hessian : NULL;
}

const float *tms_layer_codes_largest(const struct tms_layer_codes *c, const struct tms_net_matrix *m)
{
    float **all = c->largest[tms_input_owner(m->linear)];
    return all ? all[m->expert >= 0 ? m->expert : 0] : NULL;
}

uint64_t tms_layer_codes_part_rows(const struct tms_net_matrix *m)
{
    return m->expert >= 0 ? m->rows : m->tensor->n_weights / m->cols;
}

/* As told, or by the coarsest codes of the target. */
static double shrink_of(const struct tms_layer_codes *c)
{
    const struct tms_target *t = c->t;
    double least = 32;
    if (c->damp > 0) return c->damp;
    for (size_t i = 0; i < t->n_routes; i++) {
        const struct tms_route *route = &t->routes[i];
        const double bits = route->kind == TMS_ROUTE_GRID ? (double)route->grid->grid.bits
                            : route->codec                ? 8.0 * route->codec->block_bytes / route->codec->block_elems
                                                          : 32;
        if (bits < least) least = bits;
    }
    return least < 4 ? SHRINK_COARSE : SHRINK;
}

/* What error feedback needs of a Hessian: c->prepared with options of a grid, else c->factor. All matrices of a target
 * have the same options but for the grid's size in columns, which goes with the Hessian. */
static tms_status prepare(struct tms_layer_codes *c, const char *name, struct tms_hessian *hessian,
                          const struct tms_gptq_options *grid, struct tms_error *err)
{
    struct tms_error problem;
    if (c->prepared_of == hessian) return TMS_OK;
    tms_layer_codes_changed(c);
    tms_status status = hessian->panel ? tms_hessian_finish(hessian, c->pool, err) : TMS_OK;
    if (status != TMS_OK) return status;
    status = tms_hessian_shrink(hessian, shrink_of(c), c->folds != TMS_FOLDS_NONE ? MEDIAN : 0, err);
    if (status != TMS_OK) return status;
    status = grid ? tms_gptq_prepare(&c->prepared, hessian, grid, c->pool, &problem)
                  : tms_feedback_factor_create(&c->factor, hessian, DAMP, c->pool, &problem);
    if (status != TMS_OK)
        return tms_fail(err, status, "%s: the Hessian of '%s': %s", c->t->source->path, name, problem.message);
    c->prepared_of = hessian;
    const double damp = grid ? c->prepared.damp_used : c->factor.damp;
    if (damp <= DAMP) return TMS_OK;
    c->report.n_raised++;
    if (damp > c->report.most_damp) c->report.most_damp = damp;
    return TMS_OK;
}

tms_status tms_layer_codes_cost(struct tms_layer_codes *c, struct tms_hessian *hessian, float *cost,
                                struct tms_error *err)
{
    tms_status status = prepare(c, "a matrix to be scaled", hessian, NULL, err);
    for (size_t i = 0; i < hessian->n && status == TMS_OK; i++) {
        const float d = c->factor.u[i * c->factor.ld + i];
        cost[i] = 1 / (d * d);
    }
    return status;
}

/* AWQ's clip search, for all but queries and keys, whose products it would judge badly. */
static tms_status clip(struct tms_layer_codes *c, const struct tms_net_matrix *m, float *w,
                       const struct tms_grid_route *route, struct tms_hessian *hessian, struct tms_error *err)
{
    const struct tms_grid *g = &route->grid;
    const struct tms_awq_options o = {.bits = g->bits, .group = (size_t)g->group};
    if (c->folds != TMS_FOLDS_AWQ || route->rounding.rule != TMS_RULE_AWQ || m->linear == TMS_LINEAR_Q ||
        m->linear == TMS_LINEAR_K)
        return TMS_OK;
    const uint64_t n = m->rows * tms_grid_groups(g);
    float *limits = tms_calloc(n, sizeof *limits);
    tms_status status = limits ? TMS_OK : tms_fail_memory(err, n * sizeof *limits);
    if (status == TMS_OK && hessian->panel) status = tms_hessian_finish(hessian, c->pool, err);
    if (status == TMS_OK) status = tms_awq_clip(w, (size_t)m->rows, (size_t)m->cols, hessian, &o, limits, c->pool, err);
    if (status == TMS_OK) tms_awq_clamp(w, (size_t)m->rows, (size_t)m->cols, o.group, limits);
    free(limits);
    return status;
}

/* Codes, scales and zero points of a matrix on a grid, into c->chosen, and the values that they stand for. */
static tms_status choose_codes(struct tms_layer_codes *c, const struct tms_net_matrix *m, float *w,
                               const struct tms_grid_route *route, float *values, struct tms_error *err)
{
    const struct tms_grid *g = &route->grid;
    const uint64_t groups = tms_grid_groups(g), first = m->first_row;
    struct tms_hessian *hessian = tms_layer_codes_hessian(c, m);
    uint8_t *codes = c->chosen + first * g->cols,
            *zeros = c->chosen + g->rows * (g->cols + 4 * groups) + first * groups;
    float *scales = tms_calloc(m->rows * groups, sizeof *scales);
    tms_status status = scales ? TMS_OK : tms_fail_memory(err, m->rows * groups * sizeof *scales);
    if (status == TMS_OK && hessian && c->feedback) {
        const struct tms_gptq_options o = {
            .affine = {.bits = g->bits, .symmetric = route->rounding.symmetric, .norm = 2},
            .group = (size_t)g->group,
            .order = route->order ? TMS_GPTQ_ACT_ORDER : TMS_GPTQ_GROUP_AWARE,
            .fresh_groups = g->group % 128 == 0 || 128 % g->group == 0,
            .weighted_groups = true,
            .damp = DAMP};
        struct tms_gptq_result result = {0};
        status = prepare(c, m->tensor->name, hessian, &o, err);
        if (status == TMS_OK)
            status = tms_gptq_with(&result, w, (size_t)m->cols, (size_t)m->rows, &c->prepared, c->pool, err);
        if (status == TMS_OK) status = tms_gptq_flips(&result, w, g->bits, hessian, 0, SWEEPS, NULL, c->pool, err);
        if (status == TMS_OK) {
            memcpy(codes, result.codes, m->rows * m->cols);
            memcpy(zeros, result.zeros, m->rows * groups);
            memcpy(scales, result.scales, m->rows * groups * sizeof *scales);
            if (route->order) memcpy(route->order, result.g_idx, m->cols * sizeof *route->order);
            c->report.n_seen++;
        }
        tms_gptq_free(&result);
    } else if (status == TMS_OK) {
        struct tms_grid part = *g;
        part.rows = m->rows;
        if (hessian) status = clip(c, m, w, route, hessian, err);
        tms_grid_round(&part, &route->rounding, w, 0, m->rows, scales, g->has_zeros ? zeros : NULL, codes);
        ++*(hessian ? &c->report.n_seen : &c->report.n_unseen);
    }
    if (status == TMS_OK) {
        struct tms_grid part = *g;
        part.rows = m->rows;
        if (route->order)
            memcpy(c->chosen + g->rows * (g->cols + 5 * groups), route->order, g->cols * sizeof *route->order);
        memcpy(c->chosen + g->rows * g->cols + first * groups * sizeof *scales, scales,
               m->rows * groups * sizeof *scales);
        tms_grid_apply(&part, scales, g->has_zeros ? zeros : NULL, 0, m->rows, 0, g->cols, codes, (size_t)g->cols,
                       values, (size_t)g->cols);
    }
    free(scales);
    return status;
}

struct encoding {
    const struct tms_codec *codec;
    const float *w, *importance;
    uint8_t *codes;
    uint64_t rows, cols;
};

static tms_status encode_rows(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    const struct encoding *e = ctx;
    const uint64_t first = index * ROWS, n = e->rows - first < ROWS ? e->rows - first : ROWS;
    const float *w = e->w + first * e->cols;
    uint8_t *codes = e->codes + tms_codec_bytes(e->codec, first * e->cols);
    (void)worker, (void)err;
    if (e->importance && e->codec->encode_weighted)
        e->codec->encode_weighted(w, e->importance, codes, n, e->cols);
    else
        e->codec->encode(w, codes, n * e->cols);
    return TMS_OK;
}

/* Importance of a matrix's columns: of its inputs if they were seen, else what an imatrix said of the columns before
 * they were scaled; NULL: nothing is known. `to` [cols]. */
static tms_status importance_of(struct tms_layer_codes *c, const struct tms_net_matrix *m,
                                const struct tms_route *route, float *to, const float **out, struct tms_error *err)
{
    struct tms_hessian *hessian = tms_layer_codes_hessian(c, m);
    const uint64_t mat = c->t->outs[route->out].n_dims > 2 && m->expert >= 0 ? (uint64_t)m->expert : 0;
    *out = hessian || route->weights ? to : NULL;
    if (hessian) {
        tms_status status = hessian->panel ? tms_hessian_finish(hessian, c->pool, err) : TMS_OK;
        if (status == TMS_OK) tms_fold_importance(hessian, to);
        return status;
    }
    const float *scales = route->fold ? route->fold->columns + m->first_row / route->fold->part_rows * m->cols : NULL;
    for (uint64_t i = 0; i < m->cols && route->weights; i++)
        to[i] = route->weights[mat * m->cols + i] / (scales ? scales[i] * scales[i] : 1);
    return TMS_OK;
}

static tms_status encode_plainly(struct tms_layer_codes *c, const struct tms_net_matrix *m, const float *w,
                                 const struct tms_route *route, uint8_t *codes, struct tms_error *err)
{
    struct encoding e = {.codec = route->codec, .w = w, .codes = codes, .rows = m->rows, .cols = m->cols};
    float *importance = tms_calloc(m->cols, sizeof *importance);
    tms_status status = importance ? importance_of(c, m, route, importance, &e.importance, err)
                                   : tms_fail_memory(err, m->cols * sizeof *importance);
    if (status == TMS_OK) status = tms_pool_run(c->pool, (size_t)((m->rows + ROWS - 1) / ROWS), encode_rows, &e, err);
    free(importance);
    return status;
}

static tms_status encode_matrix(struct tms_layer_codes *c, const struct tms_net_matrix *m, const float *w,
                                const struct tms_route *route, uint8_t *codes, struct tms_error *err)
{
    struct tms_hessian *hessian = tms_layer_codes_hessian(c, m);
    ++*(hessian ? &c->report.n_seen : &c->report.n_unseen);
    if (!hessian || !c->feedback) return encode_plainly(c, m, w, route, codes, err);
    const struct tms_block_feedback_options o = {.n_sweeps = SWEEPS, .hessian = hessian};
    tms_status status = prepare(c, m->tensor->name, hessian, NULL, err);
    return status == TMS_OK
               ? tms_block_feedback(codes, route->codec->id, w, (size_t)m->rows, &c->factor, &o, NULL, c->pool, err)
               : status;
}

/* A matrix with scales that is no matter of codes here, as the net will read it: its plain type, else f32. */
static void round_plainly(const struct tms_layer_codes *c, const struct tms_tensor *tensor, float *w, uint64_t n)
{
    for (size_t i = 0; i < c->t->n_routes; i++) {
        const struct tms_route *route = &c->t->routes[i];
        if (c->t->source->tensors + route->source != tensor) continue;
        const struct tms_codec *codec = tms_codec(c->t->outs[route->out].type);
        uint8_t bytes[8];
        for (uint64_t k = 0; k < n && codec && codec->id != TMS_F32 && tms_is_plain_float(codec->id); k++) {
            codec->encode(&w[k], bytes, 1);
            codec->decode(bytes, &w[k], 1);
        }
        return;
    }
}

/* One matrix, with its scales; its codes come into c->made's last. */
static tms_status make_matrix(struct tms_layer_codes *c, uint64_t layer, size_t at, const struct tms_net_matrix *m,
                              const struct tms_route *route, const struct tms_fold *fold, struct tms_error *err)
{
    const struct tms_tensor *made = &c->made[c->at_work];
    uint8_t *codes = c->codes[c->at_work] + tms_codec_bytes(tms_codec(made->type), m->first_row * m->cols);
    const uint64_t n = m->rows * m->cols;
    tms_status status = TMS_OK;
    float *w = tms_calloc(m->rows, m->cols * sizeof *w);
    if (!w) return tms_fail_memory(err, n * sizeof *w);
    tms_net_matrix_values(c->net, layer, at, w);
    if (fold) tms_fold_apply(fold, m->first_row * m->cols, n, w, w);
    if (!route) {
        round_plainly(c, m->tensor, w, n);
        memcpy(codes, w, n * sizeof *w);
    } else if (route->kind == TMS_ROUTE_GRID) {
        status = choose_codes(c, m, w, route->grid, (float *)(void *)codes, err);
    } else {
        status = encode_matrix(c, m, w, route, codes, err);
    }
    if (status == TMS_OK) tms_net_replace(c->net, layer, at, made, codes);
    free(w);
    return status;
}

tms_status tms_layer_codes_make(struct tms_layer_codes *c, uint64_t layer, struct tms_error *err)
{
    struct tms_net_matrix m;
    const struct tms_tensor *tensor = NULL;
    struct tms_route *route = NULL;
    const struct tms_fold *fold = NULL;
    size_t n = 0;
    tms_status status = c->folds != TMS_FOLDS_NONE ? tms_layer_folds_find(c, layer, err) : TMS_OK;
    for (size_t at = 0; tms_net_matrix(c->net, layer, &at, &m);) n++;
    if (!tms_grow(&c->made, &c->cap_made, n, sizeof *c->made)) return tms_fail_memory(err, n * sizeof *c->made);
    for (size_t at = 0; status == TMS_OK && tms_net_matrix(c->net, layer, &at, &m);) {
        if (!is_at_work(c, m.linear, m.expert)) continue;
        if (m.tensor != tensor) { /* the one before is complete */
            if (route) status = save_codes(c, route, err);
            tensor = m.tensor;
            route = tms_layer_codes_route(c, tensor);
            fold = tms_fold_of(c->t, (size_t)(tensor - c->t->source->tensors));
            if ((route || fold) && status == TMS_OK) status = make_room(c, tensor, &m, route, err);
        }
        if ((route || fold) && status == TMS_OK) status = make_matrix(c, layer, at, &m, route, fold, err);
    }
    if (route && status == TMS_OK) status = save_codes(c, route, err);
    return status;
}
