/* Writing statistics: a file per layer, and all of them joined. See stats.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "calib/stats_parts.h"
#include "method/gptq.h"

/* What a layer's Hessians turned out to be like, by input and part. */
struct findings {
    int64_t *dead[TMS_LINEAR_EXPERT_DOWN + 1];
    double *damp[TMS_LINEAR_EXPERT_DOWN + 1];
};

static const void *values_of(const struct tms_input *in, const struct findings *f, size_t i, int kind)
{
    switch (kind) {
    case COUNT: return in->counts;
    case SQUARES: return in->squares;
    case MAGNITUDES: return in->magnitudes;
    case LOWS: return in->lows;
    case HIGHS: return in->highs;
    case DEAD: return f->dead[i];
    case DAMP: return f->damp[i];
    case HISTOGRAM: return in->histogram ? in->histogram->counts : NULL;
    case REACH: return in->histogram ? &in->histogram->reach : NULL;
    default: return in->hessians;
    }
}

static void drop_findings(struct findings *f)
{
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        free(f->dead[i]);
        free(f->damp[i]);
    }
}

static tms_status examine(const struct tms_hessian *hessian, int64_t *dead, double *damp, struct tms_pool *pool,
                          struct tms_error *err)
{
    float *u = tms_calloc(hessian->n, hessian->ld * sizeof *u);
    if (!u) return tms_fail_memory(err, hessian->n * hessian->ld * sizeof *u);
    *damp = TMS_STATS_DAMP;
    for (size_t c = 0; c < hessian->n; c++) *dead += hessian->h[c * hessian->ld + c] == 0;
    tms_status status = tms_damped_factor(hessian, NULL, damp, u, pool, err);
    free(u);
    return status;
}

static tms_status make_findings(struct findings *f, const struct tms_layer_inputs *inputs, struct tms_error *err)
{
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        const struct tms_input *in = &inputs->of[i];
        if (!in->hessians) continue;
        f->dead[i] = tms_calloc(in->parts, sizeof *f->dead[i]);
        f->damp[i] = tms_calloc(in->parts, sizeof *f->damp[i]);
        if (!f->dead[i] || !f->damp[i]) return tms_fail_memory(err, in->parts * 16);
    }
    return TMS_OK;
}

struct tms_stats_layer {
    const struct tms_layer_inputs *inputs;
    bool keep_hessians;
    struct findings findings;
    struct tms_st_plan_tensor plan[(TMS_LINEAR_EXPERT_DOWN + 1) * KINDS];
    size_t n;
    struct tms_arena arena;
    struct tms_output *output;
};

static tms_status plan_layer(struct tms_stats_layer *f, const struct tms_net *net, uint64_t layer,
                             struct tms_error *err)
{
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        const struct tms_input *in = &f->inputs->of[i];
        char name[192];
        if (!in->cols) continue;
        if (!tms_net_linear_name(net, layer, (enum tms_linear)i, false, name, sizeof name))
            return tms_fail(err, TMS_EINPUT, "layer %llu: a linear layer without a name", (unsigned long long)layer);
        for (int k = 0; k < KINDS; k++) {
            if (!values_of(in, &f->findings, i, k) || (k == HESSIAN && !f->keep_hessians)) continue;
            struct tms_st_plan_tensor *t = &f->plan[f->n++];
            *t = (struct tms_st_plan_tensor){.name =
                                                 tms_arena_printf(&f->arena, "%s%s", name, tms_stats_kinds[k].ending),
                                             .type = tms_stats_kinds[k].type,
                                             .n_dims = tms_stats_kinds[k].n_dims,
                                             .shape = {in->parts, in->cols},
                                             .tag = i * KINDS + (size_t)k};
            if (!t->name) return tms_fail_memory(err, sizeof name);
            if (k == HESSIAN) t->shape[1] = tms_hessian_packed(in->cols);
            if (k == HISTOGRAM) t->shape[0] = TMS_HISTOGRAM_BINS;
            if (k == REACH) t->shape[0] = 1;
        }
    }
    return TMS_OK;
}

static tms_status write_hessian(struct tms_output *output, const struct tms_hessian *hessian, uint64_t offset,
                                struct tms_error *err)
{
    uint64_t room = (hessian->n > STRIP ? hessian->n : STRIP) * sizeof(float);
    float *strip = malloc(room);
    tms_status status = strip ? TMS_OK : tms_fail_memory(err, room);
    for (size_t first = 0, end; first < hessian->n && status == TMS_OK; first = end) {
        uint64_t at = tms_hessian_packed(first);
        end = tms_stats_strip(first, hessian->n);
        tms_hessian_pack_rows(hessian, first, end, strip);
        status = tms_output_write(output, strip, (tms_hessian_packed(end) - at) * sizeof *strip,
                                  offset + at * sizeof *strip, err);
    }
    free(strip);
    return status;
}

tms_status tms_stats_layer_begin(struct tms_stats_layer **out, const char *path, const struct tms_net *net,
                                 uint64_t layer, const struct tms_layer_inputs *inputs, bool keep_hessians,
                                 struct tms_error *err)
{
    struct tms_stats_layer *f = tms_calloc(1, sizeof *f);
    struct tms_buf header = {0};
    uint64_t size = 0;
    if (!f) return tms_fail_memory(err, sizeof *f);
    f->inputs = inputs;
    f->keep_hessians = keep_hessians;
    tms_status status = make_findings(&f->findings, inputs, err);
    if (status == TMS_OK) status = plan_layer(f, net, layer, err);
    if (status == TMS_OK) status = tms_st_layout(f->plan, f->n, 0, &header, &size, err);
    if (status == TMS_OK) status = tms_output_create(&f->output, path, size, err);
    if (status == TMS_OK) status = tms_output_write(f->output, header.data, header.n, 0, err);
    tms_buf_free(&header);
    if (status == TMS_OK)
        *out = f;
    else
        tms_stats_layer_free(f);
    return status;
}

/* Where the Hessians of an input go; NULL: they are not kept. */
static const struct tms_st_plan_tensor *place_of(const struct tms_stats_layer *f, size_t i)
{
    for (size_t k = 0; k < f->n; k++)
        if (f->plan[k].tag == i * KINDS + HESSIAN) return &f->plan[k];
    return NULL;
}

tms_status tms_stats_layer_hessians(struct tms_stats_layer *f, struct tms_pool *pool, struct tms_error *err)
{
    tms_status status = TMS_OK;
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        const struct tms_input *in = &f->inputs->of[i];
        const struct tms_st_plan_tensor *t = place_of(f, i);
        for (size_t k = 0; in->hessians && k < in->parts && status == TMS_OK; k++) {
            if (!in->hessians[k]) continue;
            status = examine(in->hessians[k], &f->findings.dead[i][k], &f->findings.damp[i][k], pool, err);
            if (status == TMS_OK && t)
                status = write_hessian(f->output, in->hessians[k], t->offset + k * (t->bytes / in->parts), err);
        }
    }
    return status;
}

tms_status tms_stats_layer_end(struct tms_stats_layer *f, struct tms_error *err)
{
    tms_status status = TMS_OK;
    for (size_t k = 0; k < f->n && status == TMS_OK; k++) {
        const struct tms_st_plan_tensor *t = &f->plan[k];
        const size_t i = t->tag / KINDS;
        if (t->tag % KINDS == HESSIAN) continue; /* those of parts without tokens stay zero */
        status = tms_output_write(f->output, values_of(&f->inputs->of[i], &f->findings, i, (int)(t->tag % KINDS)),
                                  t->bytes, t->offset, err);
    }
    if (status != TMS_OK) return status;
    status = tms_output_commit(f->output, err);
    f->output = NULL;
    return status;
}

void tms_stats_layer_free(struct tms_stats_layer *f)
{
    if (!f) return;
    tms_output_discard(f->output);
    drop_findings(&f->findings);
    tms_arena_free(&f->arena);
    free(f);
}

char *tms_stats_layer_path(const char *dir, uint64_t layer)
{
    char name[48];
    snprintf(name, sizeof name, "layer-%05llu.safetensors", (unsigned long long)layer);
    return tms_path_join(dir, name);
}

static tms_status copy_tensors(struct tms_output *output, const struct tms_safetensors *from,
                               const struct tms_st_plan_tensor *plan, size_t n_plan, size_t file, struct tms_error *err)
{
    enum { CHUNK = 1 << 20 };
    tms_status status = TMS_OK;
    uint8_t *chunk = malloc(CHUNK);
    if (!chunk) return tms_fail_memory(err, CHUNK);
    for (size_t i = 0; i < n_plan && status == TMS_OK; i++) {
        if (plan[i].tag != file) continue;
        const struct tms_st_tensor *t = tms_safetensors_find(from, plan[i].name);
        for (uint64_t at = 0; at < plan[i].bytes && status == TMS_OK; at += CHUNK) {
            uint64_t n = plan[i].bytes - at < CHUNK ? plan[i].bytes - at : CHUNK;
            status = tms_file_read(&from->file, chunk, n, t->offset + at, err);
            if (status == TMS_OK) status = tms_output_write(output, chunk, n, plan[i].offset + at, err);
        }
    }
    free(chunk);
    return status;
}

struct joining {
    const char *dir;
    uint64_t n;
    struct tms_st_plan_tensor *plan; /* tag: the file; n: the JSON */
    size_t n_plan, cap;
    struct tms_arena arena; /* names */
    struct tms_output *output;
};

/* Opens one layer's file; with an output its tensors are copied, else they are planned. */
static tms_status visit_layer(struct joining *j, uint64_t layer, struct tms_error *err)
{
    struct tms_safetensors *st = NULL;
    char *path = tms_stats_layer_path(j->dir, layer);
    tms_status status = path ? tms_safetensors_open(&st, path, err) : tms_fail_memory(err, 256);
    if (status == TMS_OK && j->output)
        status = copy_tensors(j->output, st, j->plan, j->n_plan, (size_t)layer, err);
    else if (status == TMS_OK && !tms_grow(&j->plan, &j->cap, j->n_plan + st->n_tensors + 1, sizeof *j->plan))
        status = tms_fail_memory(err, st->n_tensors * sizeof *j->plan);
    for (size_t i = 0; status == TMS_OK && !j->output && i < st->n_tensors; i++) {
        const struct tms_st_tensor *t = &st->tensors[i];
        struct tms_st_plan_tensor *to = &j->plan[j->n_plan++];
        *to = (struct tms_st_plan_tensor){.name = tms_arena_strndup(&j->arena, t->name, strlen(t->name)),
                                          .type = t->type,
                                          .n_dims = t->n_dims,
                                          .tag = (size_t)layer};
        memcpy(to->shape, t->shape, sizeof to->shape);
        if (!to->name) status = tms_fail_memory(err, 256);
    }
    tms_safetensors_close(st);
    free(path);
    return status;
}

tms_status tms_stats_join(const char *path, const char *dir, uint64_t n, const json_t *about, struct tms_error *err)
{
    struct joining j = {.dir = dir, .n = n};
    struct tms_buf header = {0};
    uint64_t size = 0;
    char *text = json_dumps(about, JSON_COMPACT);
    tms_status status = text ? TMS_OK : tms_fail_memory(err, 4096);
    if (status == TMS_OK && !tms_grow(&j.plan, &j.cap, 1, sizeof *j.plan)) status = tms_fail_memory(err, 256);
    for (uint64_t i = 0; i < n && status == TMS_OK; i++) status = visit_layer(&j, i, err);
    if (status == TMS_OK) {
        j.plan[j.n_plan++] = (struct tms_st_plan_tensor){
            .name = TMS_STATS_ABOUT, .type = TMS_U8, .n_dims = 1, .shape = {strlen(text)}, .tag = (size_t)n};
        status = tms_st_layout(j.plan, j.n_plan, 0, &header, &size, err);
    }
    if (status == TMS_OK) status = tms_output_create(&j.output, path, size, err);
    if (status == TMS_OK) status = tms_output_write(j.output, header.data, header.n, 0, err);
    for (uint64_t i = 0; i < n && status == TMS_OK; i++) status = visit_layer(&j, i, err);
    for (size_t i = 0; i < j.n_plan && status == TMS_OK; i++)
        if (j.plan[i].tag == n) status = tms_output_write(j.output, text, j.plan[i].bytes, j.plan[i].offset, err);
    if (status == TMS_OK)
        status = tms_output_commit(j.output, err);
    else
        tms_output_discard(j.output);
    free(text);
    free(j.plan);
    tms_buf_free(&header);
    tms_arena_free(&j.arena);
    return status;
}
