/* Reading statistics. See stats.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/numbers.h"
#include "calib/stats_parts.h"

const struct tms_stats_kind_row tms_stats_kinds[KINDS] = {
    [COUNT] = {".count", TMS_I64, 1},        [SQUARES] = {".sum_squares", TMS_F64, 2},
    [MAGNITUDES] = {".sum_abs", TMS_F64, 2}, [LOWS] = {".min", TMS_F32, 2},
    [HIGHS] = {".max", TMS_F32, 2},          [DEAD] = {".dead", TMS_I64, 1},
    [DAMP] = {".damp", TMS_F64, 1},          [HISTOGRAM] = {".histogram", TMS_I64, 1},
    [REACH] = {".reach", TMS_F64, 1},        [HESSIAN] = {".hessian", TMS_F32, 2}};

size_t tms_stats_strip(size_t first, size_t n)
{
    size_t end = first + 1;
    while (end < n && tms_hessian_packed(end + 1) - tms_hessian_packed(first) <= STRIP) end++;
    return end;
}

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
    snprintf(name, sizeof name, "%s%s", input, tms_stats_kinds[kind].ending);
    *out = tms_safetensors_find(s->file, name);
    if (*out && (*out)->type == tms_stats_kinds[kind].type && (*out)->n_dims == tms_stats_kinds[kind].n_dims)
        return TMS_OK;
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

/* ---- of which model ---- */

const char *tms_stats_fingerprint(const struct tms_stats *stats)
{
    return json_string_value(json_object_get(stats->about, "fingerprint"));
}

const char *tms_stats_model(const struct tms_stats *stats)
{
    const char *name = json_string_value(json_object_get(stats->about, "architecture"));
    return name ? name : "model";
}

tms_status tms_stats_check_model(const char *path, const char *architecture, const char *fingerprint,
                                 const struct tms_source *source, struct tms_error *err)
{
    const struct tms_net_options bounded = {.bounded = true};
    struct tms_net *net = NULL;
    struct tms_pool *pool = NULL;
    struct tms_error problem;
    char own[TMS_FINGERPRINT];
    tms_status status = tms_pool_create(&pool, 1, &problem);
    if (status == TMS_OK) status = tms_net_open(&net, source, pool, &bounded, &problem);
    if (status != TMS_OK) {
        status = tms_fail(err, status, "%s: statistics of a model that %s may not be: %s", path, source->path,
                          problem.message);
    } else {
        tms_net_fingerprint_text(net, own);
        if (strcmp(own, fingerprint) != 0)
            status = tms_fail(
                err, TMS_EINPUT, "%s: statistics of another model, a %.64s of fingerprint %.32s; %s is a %s of %s",
                path, architecture, fingerprint, source->path, source->arch ? source->arch->class_name : "model", own);
    }
    tms_net_close(net);
    tms_pool_free(pool);
    return status;
}

/* ---- experts and Hessians ---- */

tms_status tms_stats_counts(const struct tms_stats *stats, const char *input, uint64_t **counts, size_t *n,
                            struct tms_error *err)
{
    const struct tms_st_tensor *t;
    char name[256];
    snprintf(name, sizeof name, "%s%s", input, tms_stats_kinds[COUNT].ending);
    *counts = NULL;
    if (!tms_safetensors_find(stats->file, name)) return TMS_OK;
    tms_status status = find(stats, input, COUNT, &t, err);
    if (status != TMS_OK) return status;
    uint64_t *read = tms_calloc(t->n_elems, sizeof *read);
    if (!read) return tms_fail_memory(err, t->bytes);
    status = tms_file_read(&stats->file->file, read, t->bytes, t->offset, err);
    if (status != TMS_OK) {
        free(read);
        return status;
    }
    *counts = read;
    *n = (size_t)t->n_elems;
    return TMS_OK;
}

tms_status tms_stats_hessians_seen(const struct tms_stats *stats, const char *input, struct tms_hessians_seen *seen,
                                   struct tms_error *err)
{
    const struct tms_st_tensor *dead, *damp;
    char name[256];
    snprintf(name, sizeof name, "%s%s", input, tms_stats_kinds[DAMP].ending);
    if (!tms_safetensors_find(stats->file, name)) return TMS_OK;
    tms_status status = find(stats, input, DEAD, &dead, err);
    if (status == TMS_OK) status = find(stats, input, DAMP, &damp, err);
    for (uint64_t i = 0; status == TMS_OK && i < damp->n_elems && i < dead->n_elems; i++) {
        int64_t n_dead;
        double used;
        status = tms_file_read(&stats->file->file, &n_dead, sizeof n_dead, dead->offset + i * 8, err);
        if (status == TMS_OK) status = tms_file_read(&stats->file->file, &used, sizeof used, damp->offset + i * 8, err);
        if (status != TMS_OK || used == 0) continue;
        seen->n++;
        seen->n_dead += n_dead > 0 ? (size_t)n_dead : 0;
        seen->n_raised += used > TMS_STATS_DAMP;
        if (used > seen->most_damp) seen->most_damp = used;
    }
    return status;
}

/* Rows first … end - 1 came from a file. */
static tms_status check_rows(const struct tms_stats *stats, const struct tms_st_tensor *t,
                             const struct tms_hessian *hessian, size_t first, size_t end, struct tms_error *err)
{
    for (size_t i = first; i < end; i++) {
        const float *row = hessian->h + i * hessian->ld;
        size_t bad = tms_first_nonfinite(row, i + 1);
        if (bad <= i || row[i] < 0)
            return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': %g in row %zu, column %zu can be in no Hessian",
                            stats->file->file.path, t->name, (double)row[bad <= i ? bad : i], i, bad <= i ? bad : i);
    }
    return TMS_OK;
}

static tms_status read_hessian(const struct tms_stats *stats, const struct tms_st_tensor *t, uint64_t offset,
                               struct tms_hessian *hessian, struct tms_error *err)
{
    const size_t n = hessian->n;
    uint64_t room = (n > STRIP ? n : STRIP) * sizeof(float);
    float *strip = malloc(room);
    tms_status status = strip ? TMS_OK : tms_fail_memory(err, room);
    for (size_t first = 0, end; first < n && status == TMS_OK; first = end) {
        uint64_t at = tms_hessian_packed(first);
        end = tms_stats_strip(first, n);
        status = tms_file_read(&stats->file->file, strip, (tms_hessian_packed(end) - at) * sizeof *strip,
                               offset + at * sizeof *strip, err);
        if (status == TMS_OK) tms_hessian_unpack_rows(hessian, first, end, strip);
        if (status == TMS_OK) status = check_rows(stats, t, hessian, first, end, err);
    }
    free(strip);
    return status;
}

tms_status tms_stats_hessian(const struct tms_stats *stats, const char *weight, size_t part, size_t cols,
                             struct tms_hessian **out, struct tms_error *err)
{
    const char *path = stats->file->file.path;
    const char *input = json_string_value(json_object_get(json_object_get(stats->about, "weights"), weight));
    const struct tms_st_tensor *counts, *triangles;
    struct tms_hessian *hessian = NULL;
    char name[256];
    int64_t count;
    if (!input) return TMS_OK;
    tms_status status = find(stats, input, COUNT, &counts, err);
    if (status != TMS_OK) return status;
    snprintf(name, sizeof name, "%s%s", input, tms_stats_kinds[HESSIAN].ending);
    if (!tms_safetensors_find(stats->file, name))
        return tms_fail(err, TMS_EINPUT, "%s: holds no Hessian of '%s'; `tamis calibrate --keep-hessian` writes them",
                        path, input);
    status = find(stats, input, HESSIAN, &triangles, err);
    if (status != TMS_OK) return status;
    if (cols > UINT32_MAX || triangles->shape[0] != counts->n_elems || triangles->shape[1] != tms_hessian_packed(cols))
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is [%llu, %llu], not [%llu, %llu] as %zu columns need it",
                        path, triangles->name, (unsigned long long)triangles->shape[0],
                        (unsigned long long)triangles->shape[1], (unsigned long long)counts->n_elems,
                        (unsigned long long)tms_hessian_packed(cols), cols);
    if (part >= counts->n_elems) return TMS_OK;
    status = tms_file_read(&stats->file->file, &count, sizeof count, counts->offset + part * sizeof count, err);
    if (status == TMS_OK && count < 0)
        status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s': count %zu is negative", path, counts->name, part);
    if (status != TMS_OK || count == 0) return status;
    status = tms_hessian_empty(&hessian, cols, err);
    if (status == TMS_OK)
        status = read_hessian(stats, triangles, triangles->offset + part * (triangles->bytes / counts->n_elems),
                              hessian, err);
    if (status != TMS_OK) {
        tms_hessian_free(hessian);
        return status;
    }
    hessian->n_tokens = (uint64_t)count;
    *out = hessian;
    return TMS_OK;
}

tms_status tms_stats_largest(const struct tms_stats *stats, const char *weight, size_t part, size_t cols, float *out,
                             struct tms_error *err)
{
    const char *input = json_string_value(json_object_get(json_object_get(stats->about, "weights"), weight));
    tms_status status = input ? TMS_OK : tms_fail(err, TMS_EINPUT, "%s: knows no '%s'", stats->file->file.path, weight);
    float *row = tms_calloc(cols, sizeof *row);
    if (!row) status = tms_fail_memory(err, cols * sizeof *row);
    for (size_t i = 0; i < cols; i++) out[i] = 0;
    for (int kind = LOWS; kind <= HIGHS && status == TMS_OK; kind++) {
        const struct tms_st_tensor *t;
        status = find(stats, input, kind, &t, err);
        if (status == TMS_OK && (t->shape[1] != cols || part >= t->shape[0]))
            status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is not of %zu columns", stats->file->file.path, t->name,
                              cols);
        if (status == TMS_OK)
            status =
                tms_file_read(&stats->file->file, row, cols * sizeof *row, t->offset + part * cols * sizeof *row, err);
        for (size_t i = 0; i < cols && status == TMS_OK; i++) {
            if (!isfinite(row[i]))
                status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s': value %zu is not finite", stats->file->file.path,
                                  t->name, part * cols + i);
            out[i] = fmaxf(out[i], fabsf(row[i]));
        }
    }
    free(row);
    return status;
}
