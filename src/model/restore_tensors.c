/* The tensors of a GGUF file as a Hugging Face folder has them: names, order, what is undone to their values. See
 * restore.h. */
#include "model/restore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct restoring {
    const struct tms_source *source;
    const struct tms_config *config;
    struct tms_arena *arena;
    struct tms_error *err;
    struct tms_restored_tensor *items;
    size_t n, cap;
};

/* By name; the pieces of one stay in order. */
static int compare(const void *a, const void *b)
{
    const struct tms_restored_tensor *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c ? c : (int)x->continues - (int)y->continues;
}

static const char *file_of(const struct restoring *r, const struct tms_tensor *tensor)
{
    return r->source->files[tensor->file]->path;
}

static struct tms_restored_tensor *add(struct restoring *r, const struct tms_arch_tensor *row, int layer, int expert,
                                       size_t source)
{
    char name[128];
    if (!tms_grow(&r->items, &r->cap, r->n + 1, sizeof *r->items)) return NULL;
    struct tms_restored_tensor *to = &r->items[r->n];
    tms_arch_name(name, sizeof name, row->hf, layer, expert);
    *to = (struct tms_restored_tensor){.name = tms_arena_strndup(r->arena, name, strlen(name)),
                                       .source = source,
                                       .n_parts = 1,
                                       .turn = tms_turn_none(0)};
    to->n_dims = tms_arch_shape(r->config, row, to->shape);
    if (to->name) r->n++;
    return to->name ? to : NULL;
}

/* The tensor's dimensions must be these, apart from leading ones. */
static tms_status expect_shape(const struct restoring *r, const struct tms_tensor *t, const uint64_t *want, uint32_t n)
{
    uint32_t at = 0, from = 0;
    while (at < t->n_dims && t->n_dims - at > 1 && t->shape[at] == 1) at++;
    while (from < n && n - from > 1 && want[from] == 1) from++;
    bool same = t->n_dims - at == n - from;
    for (uint32_t d = 0; same && from + d < n; d++) same = t->shape[at + d] == want[from + d];
    if (same) return TMS_OK;
    char text[96] = "";
    for (uint32_t d = 0; d < n; d++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%llu", d ? ", " : "", (unsigned long long)want[d]);
    return tms_fail(r->err, TMS_EINPUT, "%s: tensor '%s': its shape is not [%s] as the keys say", file_of(r, t),
                    t->name, text);
}

static tms_status expect_decodes(const struct restoring *r, const struct tms_tensor *t)
{
    if (tms_source_decodes(t)) return TMS_OK;
    return tms_fail(r->err, TMS_EINPUT, "%s: tensor '%s' has type %s, which tamis cannot decode yet", file_of(r, t),
                    t->name, tms_codec(t->type)->name);
}

static tms_status add_experts(struct restoring *r, const struct tms_arch_tensor *row, int layer, size_t index)
{
    const struct tms_tensor *t = &r->source->tensors[index];
    uint64_t n = r->config->experts.n, want[3] = {n};
    tms_arch_shape(r->config, row, want + 1);
    tms_status status = expect_shape(r, t, want, 3);
    for (uint64_t e = 0; e < n && status == TMS_OK; e++) {
        struct tms_restored_tensor *to = add(r, row, layer, (int)e, index);
        if (!to) return tms_fail_memory(r->err, sizeof *to);
        to->part = e;
        to->n_parts = n;
    }
    return status;
}

static tms_status add_kv(struct restoring *r, enum tms_kv_part part, int layer, size_t index)
{
    const struct tms_tensor *t = &r->source->tensors[index];
    bool keys = part == TMS_KV_PART_KEYS;
    uint64_t want[3];
    tms_arch_kv_shape(r->config, part, want);
    tms_status status = expect_shape(r, t, want, 3);
    if (status != TMS_OK) return status;
    struct tms_restored_tensor *to = add(r, tms_arch_kv_row(r->source->arch), layer, -1, index);
    if (!to) return tms_fail_memory(r->err, sizeof *to);
    to->turn = tms_turn_latent(keys ? TMS_TURN_KEYS_BACK : TMS_TURN_VALUES_BACK, &r->config->latent);
    to->continues = !keys;
    return TMS_OK;
}

static tms_status add_tensor(struct restoring *r, size_t index)
{
    const struct tms_source *s = r->source;
    const struct tms_tensor *t = &s->tensors[index];
    int layer;
    uint64_t want[2];
    tms_status status = expect_decodes(r, t);
    if (status != TMS_OK) return status;
    enum tms_kv_part part = tms_arch_kv_part(s->arch, t->name, &layer);
    if (part && layer < (int)r->config->n_layers) return add_kv(r, part, layer, index);
    const struct tms_arch_tensor *row = tms_arch_explain_gguf(s->arch, t->name, &layer);
    if (!row || layer >= (int)r->config->n_layers || !tms_arch_has(s->arch, r->config, row, layer))
        return tms_fail(r->err, TMS_EINPUT, "%s: tensor '%s' is nothing that %s has; it has no place in the folder",
                        file_of(r, t), t->name, s->arch->class_name);
    if (row->transform == TMS_STACK) return add_experts(r, row, layer, index);
    uint32_t n_dims = tms_arch_shape(r->config, row, want);
    status = expect_shape(r, t, want, n_dims);
    if (status != TMS_OK) return status;
    struct tms_restored_tensor *to = add(r, row, layer, -1, index);
    if (!to) return tms_fail_memory(r->err, sizeof *to);
    if (row->transform == TMS_PLUS_ONE) to->turn = tms_turn_shift(TMS_TURN_MINUS_ONE);
    if (s->arch->permutes && (row->transform == TMS_PERMUTE_Q || row->transform == TMS_PERMUTE_K))
        to->turn = tms_turn_heads(TMS_TURN_HALVES, r->config->head_dim, n_dims > 1 ? t->cols : 1);
    return TMS_OK;
}

static tms_status require_all(const struct restoring *r)
{
    const struct tms_source *s = r->source;
    struct tms_arch_step step = {0};
    while (tms_arch_next(&step, s->arch, r->config)) {
        char names[2][128] = {"", ""};
        if (step.expert > 0) continue; /* all are in one tensor */
        if (step.row->gguf) tms_arch_name(names[0], sizeof names[0], step.row->gguf, step.layer, step.expert);
        for (enum tms_kv_part part = TMS_KV_PART_KEYS; part <= TMS_KV_PART_VALUES && !step.row->gguf; part++)
            tms_arch_kv_name(names[part - TMS_KV_PART_KEYS], sizeof names[0], part, step.layer);
        for (size_t i = 0; i < 2; i++)
            if (names[i][0] && !tms_source_find(s, names[i]))
                return tms_fail(r->err, TMS_EINPUT, "%s: tensor '%s' is missing; %s has it", s->path, names[i],
                                s->arch->class_name);
    }
    return TMS_OK;
}

tms_status tms_restore_tensors(struct tms_restored_tensor **out, size_t *n, const struct tms_source *source,
                               const struct tms_config *config, struct tms_arena *arena, struct tms_error *err)
{
    struct restoring r = {.source = source, .config = config, .arena = arena, .err = err};
    tms_status status = require_all(&r);
    for (size_t i = 0; i < source->n_tensors && status == TMS_OK; i++) {
        /* tables of rope are in config.json's rope_scaling */
        if (strncmp(source->tensors[i].name, "rope_f", 6) != 0) status = add_tensor(&r, i);
    }
    if (status != TMS_OK) {
        free(r.items);
        return status;
    }
    if (r.n) qsort(r.items, r.n, sizeof *r.items, compare);
    *out = r.items;
    *n = r.n;
    return TMS_OK;
}
