/* See stats.h. */
#include "calib/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { COUNT, SQUARES, MAGNITUDES, LOWS, HIGHS, HESSIAN, KINDS };
static const struct {
    const char *ending;
    enum tms_type type;
} kinds[KINDS] = {
    [COUNT] = {".count", TMS_I64}, [SQUARES] = {".sum_squares", TMS_F64}, [MAGNITUDES] = {".sum_abs", TMS_F64},
    [LOWS] = {".min", TMS_F32},    [HIGHS] = {".max", TMS_F32},           [HESSIAN] = {".hessian", TMS_F32}};

static const void *values_of(const struct tms_input *in, int kind)
{
    switch (kind) {
    case COUNT: return in->counts;
    case SQUARES: return in->squares;
    case MAGNITUDES: return in->magnitudes;
    case LOWS: return in->lows;
    case HIGHS: return in->highs;
    default: return in->hessian;
    }
}

/* ---- writing ---- */

static tms_status plan_layer(struct tms_st_plan_tensor *plan, size_t *n, struct tms_arena *arena,
                             const struct tms_net *net, uint64_t layer, const struct tms_layer_inputs *inputs,
                             struct tms_error *err)
{
    for (size_t i = 0; i <= TMS_LINEAR_EXPERT_DOWN; i++) {
        const struct tms_input *in = &inputs->of[i];
        char name[192];
        if (!in->cols) continue;
        if (!tms_net_linear_name(net, layer, (enum tms_linear)i, false, name, sizeof name))
            return tms_fail(err, TMS_EINPUT, "layer %llu: a linear layer without a name", (unsigned long long)layer);
        for (int k = 0; k < KINDS; k++) {
            if (!values_of(in, k)) continue;
            struct tms_st_plan_tensor *t = &plan[(*n)++];
            *t = (struct tms_st_plan_tensor){.name = tms_arena_printf(arena, "%s%s", name, kinds[k].ending),
                                             .type = kinds[k].type,
                                             .n_dims = k == COUNT     ? 1
                                                       : k == HESSIAN ? 3
                                                                      : 2,
                                             .shape = {in->parts, in->cols, in->cols},
                                             .tag = i * KINDS + (size_t)k};
            if (!t->name) return tms_fail_memory(err, sizeof name);
        }
    }
    return TMS_OK;
}

tms_status tms_stats_write_layer(const char *path, const struct tms_net *net, uint64_t layer,
                                 const struct tms_layer_inputs *inputs, struct tms_error *err)
{
    struct tms_st_plan_tensor plan[(TMS_LINEAR_EXPERT_DOWN + 1) * KINDS];
    struct tms_arena arena = {0};
    struct tms_buf header = {0};
    struct tms_output *output = NULL;
    uint64_t size = 0;
    size_t n = 0;
    tms_status status = plan_layer(plan, &n, &arena, net, layer, inputs, err);
    if (status == TMS_OK) status = tms_st_layout(plan, n, 0, &header, &size, err);
    if (status == TMS_OK) status = tms_output_create(&output, path, size, err);
    if (status == TMS_OK) status = tms_output_write(output, header.data, header.n, 0, err);
    for (size_t i = 0; i < n && status == TMS_OK; i++)
        status = tms_output_write(output, values_of(&inputs->of[plan[i].tag / KINDS], (int)(plan[i].tag % KINDS)),
                                  plan[i].bytes, plan[i].offset, err);
    if (status == TMS_OK)
        status = tms_output_commit(output, err);
    else
        tms_output_discard(output);
    tms_buf_free(&header);
    tms_arena_free(&arena);
    return status;
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

/* ---- reading ---- */

bool tms_is_stats(const struct tms_file *file)
{
    uint8_t head[9] = {0};
    bool is = file->size > sizeof head && tms_file_read(file, head, sizeof head, 0, NULL) == TMS_OK && head[8] == '{';
    for (size_t i = 4; i < 8; i++) is = is && head[i] == 0;
    return is;
}

static tms_status read_about(struct tms_stats *s, const struct tms_st_tensor *t, struct tms_error *err)
{
    const char *path = s->file->file.path;
    char *text = tms_calloc(t->bytes + 1, 1);
    json_error_t problem;
    if (!text) return tms_fail_memory(err, t->bytes);
    tms_status status = tms_file_read(&s->file->file, text, t->bytes, t->offset, err);
    if (status == TMS_OK) {
        s->about = json_loadb(text, (size_t)t->bytes, 0, &problem);
        if (!s->about)
            status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s' at byte %llu is no JSON: %s", path, t->name,
                              (unsigned long long)t->offset, problem.text);
        else if (json_integer_value(json_object_get(s->about, "format")) != 1)
            status = tms_fail(err, TMS_EINPUT, "%s: is of another version of tamis: its format is not 1", path);
        else if (!json_is_object(json_object_get(s->about, "weights")) ||
                 !json_is_string(json_object_get(s->about, "fingerprint")))
            status =
                tms_fail(err, TMS_EINPUT, "%s: tensor '%s' does not say what the statistics are of", path, t->name);
    }
    free(text);
    return status;
}

tms_status tms_stats_open(struct tms_stats **out, const char *path, struct tms_error *err)
{
    struct tms_stats *s = tms_calloc(1, sizeof *s);
    if (!s) return tms_fail_memory(err, sizeof *s);
    tms_status status = tms_safetensors_open(&s->file, path, err);
    const struct tms_st_tensor *about = status == TMS_OK ? tms_safetensors_find(s->file, TMS_STATS_ABOUT) : NULL;
    if (status == TMS_OK && (!about || about->type != TMS_U8))
        status = tms_fail(err, TMS_EINPUT, "%s: no statistics of tamis calibrate: it has no tensor '%s'", path,
                          TMS_STATS_ABOUT);
    if (status == TMS_OK) status = read_about(s, about, err);
    if (status != TMS_OK) {
        tms_stats_close(s);
        return status;
    }
    *out = s;
    return TMS_OK;
}

void tms_stats_close(struct tms_stats *stats)
{
    if (!stats) return;
    tms_safetensors_close(stats->file);
    json_decref(stats->about);
    free(stats);
}

static tms_status find(const struct tms_stats *s, const char *input, int kind, const struct tms_st_tensor **out,
                       struct tms_error *err)
{
    char name[256];
    snprintf(name, sizeof name, "%s%s", input, kinds[kind].ending);
    *out = tms_safetensors_find(s->file, name);
    if (*out && (*out)->type == kinds[kind].type && (*out)->n_dims == (kind == COUNT ? 1u : 2u)) return TMS_OK;
    return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is missing or of another kind: the file is damaged",
                    s->file->file.path, name);
}

tms_status tms_stats_read(const struct tms_stats *stats, const char *weight, struct tms_stats_input *out,
                          struct tms_error *err)
{
    const char *input = json_string_value(json_object_get(json_object_get(stats->about, "weights"), weight));
    const struct tms_st_tensor *counts, *squares;
    *out = (struct tms_stats_input){0};
    if (!input) return TMS_OK;
    tms_status status = find(stats, input, COUNT, &counts, err);
    if (status == TMS_OK) status = find(stats, input, SQUARES, &squares, err);
    if (status != TMS_OK) return status;
    if (squares->shape[0] != counts->shape[0] || squares->n_elems == 0)
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' does not fit its counts", stats->file->file.path,
                        squares->name);
    out->counts = tms_calloc(counts->n_elems, sizeof *out->counts);
    out->squares = tms_calloc(squares->n_elems, sizeof *out->squares);
    if (!out->counts || !out->squares) status = tms_fail_memory(err, squares->bytes);
    if (status == TMS_OK) status = tms_file_read(&stats->file->file, out->counts, counts->bytes, counts->offset, err);
    if (status == TMS_OK)
        status = tms_file_read(&stats->file->file, out->squares, squares->bytes, squares->offset, err);
    for (uint64_t i = 0; i < counts->n_elems && status == TMS_OK; i++)
        if (out->counts[i] < 0)
            status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s': count %llu is negative", stats->file->file.path,
                              counts->name, (unsigned long long)i);
    for (uint64_t i = 0; i < squares->n_elems && status == TMS_OK; i++)
        if (!(out->squares[i] >= 0) || isinf(out->squares[i]))
            status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s': value %llu is no sum of squares",
                              stats->file->file.path, squares->name, (unsigned long long)i);
    if (status != TMS_OK) {
        tms_stats_drop(out);
        return status;
    }
    out->parts = (size_t)squares->shape[0];
    out->cols = (size_t)squares->shape[1];
    return TMS_OK;
}

void tms_stats_drop(struct tms_stats_input *input)
{
    free(input->counts);
    free(input->squares);
    *input = (struct tms_stats_input){0};
}
