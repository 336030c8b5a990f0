/* See pairs.h. */
#include "model/pairs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sums.h"
#include "model/heads.h"

/* What is known of one side while names are matched. */
struct side {
    const struct tms_source *source;
    bool translate; /* GGUF names become Hugging Face names */
    bool mixed;     /* the other side is of the other kind */
};

static bool is_weight(const struct side *side, const struct tms_tensor *t)
{
    if (t->is_scale || tms_arch_ignores(t->name)) return false;
    if (!side->mixed) return true;
    if (side->translate) return strncmp(t->name, "rope_f", 6) != 0;
    return !(side->source->config.tied && strcmp(t->name, "lm_head.weight") == 0);
}

/* The tensor's name as the other side would say it. */
static void common_name(const struct side *side, const struct tms_tensor *t, char *out, size_t size)
{
    int layer;
    const struct tms_arch_tensor *row =
        side->translate ? tms_arch_explain_gguf(side->source->arch, t->name, &layer) : NULL;
    if (row)
        tms_arch_name(out, size, row->hf, layer, -1);
    else
        snprintf(out, size, "%s", t->name);
}

/* By its common name; NULL if the side has no such tensor. */
static const struct tms_tensor *find(const struct side *side, const char *name)
{
    int layer, expert;
    char text[TMS_ST_MAX_NAME + 1];
    const struct tms_arch_tensor *row =
        side->translate ? tms_arch_explain(side->source->arch, name, &layer, &expert) : NULL;
    if (row && row->gguf) {
        tms_arch_name(text, sizeof text, row->gguf, layer, expert);
        name = text;
    }
    const struct tms_tensor *found = tms_source_find(side->source, name);
    return found && is_weight(side, found) ? found : NULL;
}

static uint64_t head_count(const struct tms_source *s, bool keys)
{
    char name[160];
    uint64_t n = 0;
    snprintf(name, sizeof name, "%.100s.attention.head_count%s", tms_source_arch_name(s), keys ? "_kv" : "");
    if (tms_kv_as_u64(tms_kvs_find(&s->gguf->kvs, name), &n)) return n;
    return keys ? head_count(s, false) : 0;
}

/* Sets head_rows of a tensor that a conversion to GGUF permutes. */
static tms_status undo_transform(const struct side *side, const struct tms_tensor *t, uint64_t *head_rows,
                                 struct tms_error *err)
{
    int layer;
    const struct tms_source *s = side->source;
    const struct tms_arch_tensor *row = side->translate && t ? tms_arch_explain_gguf(s->arch, t->name, &layer) : NULL;
    if (!row || !s->arch->permutes || row->transform == TMS_AS_IS) return TMS_OK;
    uint64_t n_heads = head_count(s, row->transform == TMS_PERMUTE_K);
    uint64_t rows = t->n_dims > 1 ? t->rows : t->n_elems;
    if (n_heads == 0 || rows % n_heads != 0 || rows / n_heads % 2 != 0)
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': its %llu rows are no %llu heads of an even size", s->path,
                        t->name, (unsigned long long)rows, (unsigned long long)n_heads);
    *head_rows = rows / n_heads;
    return TMS_OK;
}

static tms_status add(struct tms_pairs *pairs, const char *name, const struct tms_tensor *a, const struct tms_tensor *b,
                      const struct side sides[2], struct tms_error *err)
{
    struct tms_pair pair = {.name = tms_arena_strndup(&pairs->arena, name, strlen(name)), .tensor = {a, b}};
    if (!pair.name) return tms_fail_memory(err, strlen(name));
    for (int k = 0; k < 2; k++) {
        tms_status status = undo_transform(&sides[k], pair.tensor[k], &pair.head_rows[k], err);
        if (status != TMS_OK) return status;
    }
    pairs->items[pairs->n++] = pair;
    return TMS_OK;
}

tms_status tms_pairs_find(struct tms_pairs *out, const struct tms_source *const models[2], struct tms_error *err)
{
    struct side sides[2];
    struct tms_pairs pairs = {0};
    tms_status status = TMS_OK;
    char name[TMS_ST_MAX_NAME + 1];
    bool mixed = (models[0]->kind == TMS_SOURCE_GGUF) != (models[1]->kind == TMS_SOURCE_GGUF);
    for (int k = 0; k < 2; k++) {
        sides[k] = (struct side){models[k], mixed && models[k]->kind == TMS_SOURCE_GGUF, mixed};
        if (models[k]->kind == TMS_SOURCE_CONFIG)
            return tms_fail(err, TMS_EINPUT, "%s: holds no weights; give the folder", models[k]->path);
        if (sides[k].translate && !models[k]->arch)
            return tms_fail(err, TMS_EINPUT,
                            "%s: architecture '%s' is not known, so its tensors cannot be matched with those of a "
                            "folder; known are %s",
                            models[k]->path, tms_source_arch_name(models[k]), tms_arch_known());
    }
    pairs.items = tms_calloc((uint64_t)models[0]->n_tensors + models[1]->n_tensors, sizeof *pairs.items);
    if (!pairs.items) return tms_fail_memory(err, models[0]->n_tensors * sizeof *pairs.items);
    for (size_t i = 0; i < models[0]->n_tensors && status == TMS_OK; i++) {
        const struct tms_tensor *t = &models[0]->tensors[i];
        if (!is_weight(&sides[0], t)) continue;
        common_name(&sides[0], t, name, sizeof name);
        status = add(&pairs, name, t, find(&sides[1], name), sides, err);
    }
    for (size_t i = 0; i < models[1]->n_tensors && status == TMS_OK; i++) {
        const struct tms_tensor *t = &models[1]->tensors[i];
        if (!is_weight(&sides[1], t)) continue;
        common_name(&sides[1], t, name, sizeof name);
        if (!find(&sides[0], name)) status = add(&pairs, name, NULL, t, sides, err);
    }
    if (status != TMS_OK) {
        tms_pairs_free(&pairs);
        return status;
    }
    *out = pairs;
    return TMS_OK;
}

void tms_pairs_free(struct tms_pairs *pairs)
{
    free(pairs->items);
    tms_arena_free(&pairs->arena);
    *pairs = (struct tms_pairs){0};
}

bool tms_pair_same_shape(const struct tms_pair *pair)
{
    uint64_t shape[2][TMS_ST_MAX_DIMS];
    uint32_t n[2], at[2] = {0, 0};
    for (int k = 0; k < 2; k++) n[k] = tms_source_shape(pair->tensor[k], shape[k]);
    for (;;) {
        for (int k = 0; k < 2; k++)
            while (at[k] < n[k] && shape[k][at[k]] == 1) at[k]++;
        if (at[0] == n[0] || at[1] == n[1]) return at[0] == n[0] && at[1] == n[1];
        if (shape[0][at[0]++] != shape[1][at[1]++]) return false;
    }
}

uint64_t tms_pair_unit(const struct tms_pair *pair)
{
    uint64_t unit = 1, all = pair->tensor[0]->n_weights;
    for (int k = 0; k < 2; k++) {
        const struct tms_tensor *t = pair->tensor[k];
        unit = tms_common_multiple(unit, tms_source_unit(t), all);
        if (pair->head_rows[k])
            unit = tms_common_multiple(unit, pair->head_rows[k] * (t->n_dims > 1 ? t->cols : 1), all);
    }
    return unit ? unit : 1;
}

tms_status tms_pair_read(const struct tms_pair *pair, int side, const struct tms_source *source, uint64_t first,
                         uint64_t n, void *raw, float *turned, float *out, struct tms_error *err)
{
    const struct tms_tensor *t = pair->tensor[side];
    uint64_t head_rows = pair->head_rows[side];
    tms_status status = tms_source_read(source, t, first, n, raw, head_rows ? turned : out, err);
    if (status == TMS_OK && head_rows) tms_heads_to_halves(turned, out, n, head_rows, t->n_dims > 1 ? t->cols : 1);
    return status;
}
