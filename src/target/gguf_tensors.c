/* The tensors of a GGUF file: every source tensor gets its GGUF name, its shape there, and what is done to its values.
 * Experts, which folders have one by one, become stacks. See gguf_tensors.h. */
#include "target/gguf_tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/metadata.h"

struct walk {
    struct tms_gguf_plan *plan;
    struct stacks *stacks; /* of mixtures: [layers] */
};

/* A table of n divisors of rope's frequencies; they live as long as the target. */
static struct tms_planned *plan_table(struct walk *p, const char *name, uint64_t n, float **contents)
{
    *contents = tms_arena_alloc(&p->plan->t->arena, n * sizeof(float));
    if (!*contents) return NULL;
    struct tms_planned *to = &p->plan->tensors[p->plan->n++];
    *to = (struct tms_planned){.name = name, .contents = *contents, .n_dims = 1, .shape = {n}, .type = TMS_F32};
    return to;
}

static tms_status plan_rope_tables(struct walk *p)
{
    const struct tms_config *config = &p->plan->t->source->config;
    const struct tms_rope *rope = &config->rope;
    uint64_t half = tms_config_rope_dim(config) / 2;
    float *freqs, *factors[2];
    if (rope->kind == TMS_ROPE_LLAMA3) {
        if (!plan_table(p, "rope_freqs.weight", half, &freqs)) return tms_fail_memory(p->plan->err, half * 4);
        tms_rope_freqs(config, freqs);
    } else if (rope->kind == TMS_ROPE_LONGROPE) {
        if (rope->n_factors != half)
            return tms_fail(p->plan->err, TMS_EINPUT,
                            "%s/config.json: rope scaling has %llu factors, half a head is %llu",
                            p->plan->t->source->path, (unsigned long long)rope->n_factors, (unsigned long long)half);
        if (!plan_table(p, "rope_factors_long.weight", half, &factors[0]) ||
            !plan_table(p, "rope_factors_short.weight", half, &factors[1]))
            return tms_fail_memory(p->plan->err, half * 8);
        memcpy(factors[0], rope->long_factors, half * sizeof(float));
        memcpy(factors[1], rope->short_factors, half * sizeof(float));
    }
    return TMS_OK;
}

static const char *file_of(const struct tms_source *s, const struct tms_tensor *tensor)
{
    return s->n_files ? s->files[tensor->file]->path : s->path;
}

static tms_status check_hf_tensor(const struct walk *p, const struct tms_tensor *tensor,
                                  const struct tms_arch_tensor *row)
{
    const struct tms_source *s = p->plan->t->source;
    uint64_t want[2];
    uint32_t n_dims = tms_arch_shape(&s->config, row, want);
    if (tensor->n_dims != n_dims || tensor->shape[0] != want[0] || (n_dims == 2 && tensor->shape[1] != want[1]))
        return tms_fail(p->plan->err, TMS_EINPUT,
                        "%s: tensor '%s': its shape is not [%llu%s%.0llu] as config.json says", file_of(s, tensor),
                        tensor->name, (unsigned long long)want[0], n_dims == 2 ? ", " : "",
                        (unsigned long long)(n_dims == 2 ? want[1] : 0));
    if (!tms_source_decodes(tensor))
        return tms_fail(p->plan->err, TMS_EINPUT, "%s: tensor '%s' has type %s, which tamis cannot decode",
                        file_of(s, tensor), tensor->name, tms_codec(tensor->type)->name);
    return TMS_OK;
}

static struct tms_turn turn_of(const struct tms_source *s, const struct tms_tensor *tensor,
                               const struct tms_arch_tensor *row)
{
    bool q = row->transform == TMS_PERMUTE_Q, k = row->transform == TMS_PERMUTE_K;
    if (row->transform == TMS_PLUS_ONE) return tms_turn_shift(TMS_TURN_PLUS_ONE);
    if (!s->arch->permutes || !(q || k)) return tms_turn_none(0);
    return tms_turn_heads(TMS_TURN_NEIGHBOURS, s->config.head_dim, tensor->n_dims > 1 ? tensor->cols : 1);
}

static tms_status plan_one(struct walk *p, size_t index, const struct tms_arch_tensor *row, int layer)
{
    const struct tms_source *s = p->plan->t->source;
    const struct tms_tensor *tensor = &s->tensors[index];
    char name[128];
    tms_arch_name(name, sizeof name, row->gguf, layer, -1);
    struct tms_planned *to = &p->plan->tensors[p->plan->n++];
    *to = (struct tms_planned){.n_parts = 1,
                               .source = index,
                               .name = tms_arena_strndup(&p->plan->t->arena, name, strlen(name)),
                               .turn = turn_of(s, tensor, row),
                               .n_dims = tensor->n_dims};
    memcpy(to->shape, tensor->shape, sizeof to->shape);
    return to->name ? TMS_OK : tms_fail_memory(p->plan->err, sizeof name);
}

/* DeepSeek's kv_b: keys and values become tensors of their own. */
static tms_status plan_kv(struct walk *p, size_t index, int layer)
{
    const struct tms_source *s = p->plan->t->source;
    for (enum tms_kv_part part = TMS_KV_PART_KEYS; part <= TMS_KV_PART_VALUES; part++) {
        char name[128];
        tms_arch_kv_name(name, sizeof name, part, layer);
        struct tms_planned *to = &p->plan->tensors[p->plan->n++];
        *to = (struct tms_planned){
            .n_parts = 1,
            .source = index,
            .name = tms_arena_strndup(&p->plan->t->arena, name, strlen(name)),
            .turn = tms_turn_latent(part == TMS_KV_PART_KEYS ? TMS_TURN_KEYS : TMS_TURN_VALUES, &s->config.latent),
            .n_dims = 3};
        if (!to->name) return tms_fail_memory(p->plan->err, sizeof name);
        tms_arch_kv_shape(&s->config, part, to->shape);
    }
    return TMS_OK;
}

/* ---- experts ---- */

/* The three stacks of a layer, while its tensors come by: they stand where the last of them was read, in the order of
 * their Hugging Face names, as llama.cpp's converter writes them. */
enum { STACKS = 3 };
struct stacks {
    const struct tms_arch_tensor *rows[STACKS];
    size_t *parts[STACKS]; /* [experts] */
    size_t n_seen;
};

static tms_status close_stacks(struct walk *p, const struct stacks *stacks, int layer)
{
    const struct tms_source *s = p->plan->t->source;
    bool done[STACKS] = {false};
    for (int count = 0; count < STACKS; count++) {
        int next = -1;
        char name[128];
        for (int k = 0; k < STACKS; k++)
            if (!done[k] && (next < 0 || strcmp(stacks->rows[k]->hf, stacks->rows[next]->hf) < 0)) next = k;
        done[next] = true;
        tms_arch_name(name, sizeof name, stacks->rows[next]->gguf, layer, -1);
        struct tms_planned *to = &p->plan->tensors[p->plan->n++];
        *to = (struct tms_planned){.n_parts = (size_t)s->config.experts.n,
                                   .parts = stacks->parts[next],
                                   .name = tms_arena_strndup(&p->plan->t->arena, name, strlen(name)),
                                   .turn = tms_turn_none(0),
                                   .n_dims = 3,
                                   .shape = {s->config.experts.n}};
        if (!to->name) return tms_fail_memory(p->plan->err, sizeof name);
        tms_arch_shape(&s->config, stacks->rows[next], to->shape + 1);
    }
    return TMS_OK;
}

static tms_status plan_expert(struct walk *p, size_t index, const struct tms_arch_tensor *row, int layer, int expert)
{
    const struct tms_source *s = p->plan->t->source;
    uint64_t n = s->config.experts.n;
    struct stacks *stacks = &p->stacks[layer];
    int k = 0;
    while (k < STACKS && stacks->rows[k] && stacks->rows[k] != row) k++;
    if (k == STACKS || expert < 0 || (uint64_t)expert >= n)
        return tms_fail(p->plan->err, TMS_EINPUT, "%s: tensor '%s': config.json says %llu experts",
                        file_of(s, &s->tensors[index]), s->tensors[index].name, (unsigned long long)n);
    if (!stacks->rows[k]) {
        stacks->rows[k] = row;
        stacks->parts[k] = tms_arena_alloc(&p->plan->t->arena, n * sizeof(size_t));
        if (!stacks->parts[k]) return tms_fail_memory(p->plan->err, n * sizeof(size_t));
    }
    stacks->parts[k][expert] = index;
    /* all are there: require_all looked */
    return ++stacks->n_seen == STACKS * n ? close_stacks(p, stacks, layer) : TMS_OK;
}

/* ---- all of a folder ---- */

static tms_status plan_hf_tensor(struct walk *p, size_t index)
{
    const struct tms_source *s = p->plan->t->source;
    const struct tms_tensor *tensor = &s->tensors[index];
    int layer, expert;
    if (tensor->is_scale || tms_arch_ignores(tensor->name) || tms_arch_is_spare(s->arch, &s->config, tensor->name))
        return TMS_OK;
    const struct tms_arch_tensor *row = tms_arch_explain(s->arch, tensor->name, &layer, &expert);
    if (!row || layer >= (int)s->config.n_layers ||
        (row->when >= TMS_DENSE && !tms_arch_has(s->arch, &s->config, row, layer)))
        return tms_fail(p->plan->err, TMS_EINPUT,
                        "%s: tensor '%s' is nothing that %s has; it has no place in a GGUF file", file_of(s, tensor),
                        tensor->name, s->arch->class_name);
    if (row->when == TMS_UNTIED && s->config.tied) return TMS_OK; /* a second copy of the embedding */
    tms_status status = check_hf_tensor(p, tensor, row);
    if (status != TMS_OK) return status;
    if (row->transform == TMS_STACK) return plan_expert(p, index, row, layer, expert);
    if (row->transform == TMS_SPLIT_KV) return plan_kv(p, index, layer);
    return plan_one(p, index, row, layer);
}

/* Every tensor that the architecture has must be there. */
static tms_status require_all(const struct walk *p)
{
    const struct tms_source *s = p->plan->t->source;
    struct tms_arch_step step = {0};
    while (tms_arch_next(&step, s->arch, &s->config)) {
        char name[128];
        tms_arch_name(name, sizeof name, step.row->hf, step.layer, step.expert);
        if (!tms_source_find(s, name))
            return tms_fail(p->plan->err, TMS_EINPUT, "%s: tensor '%s' is missing", s->path, name);
    }
    return TMS_OK;
}

static tms_status plan_hf(struct walk *p)
{
    const struct tms_source *s = p->plan->t->source;
    if (!s->has_config)
        return tms_fail(p->plan->err, TMS_EINPUT,
                        "%s: a GGUF file needs the whole folder (config.json, tokenizer), not one shard", s->path);
    if (!s->arch)
        return tms_fail(p->plan->err, TMS_EINPUT, "%s: architecture '%s' cannot be written as GGUF yet; known are %s",
                        s->path, tms_source_arch_name(s), tms_arch_known());
    if (!tms_source_method_known(s) || strcmp(s->config.quant_method, "bitsandbytes") == 0)
        return tms_fail(p->plan->err, TMS_EINPUT, "%s: its weights are quantized already (%s); give the original",
                        s->path, s->config.quant_method);
    if (!s->config.has_shape)
        return tms_fail(p->plan->err, TMS_EINPUT, "%s/config.json: lacks numbers that give the shape of a decoder",
                        s->path);
    const json_t *part = json_object_get(s->config_json, "partial_rotary_factor");
    if (part && !json_is_null(part) && json_number_value(part) != 1)
        return tms_fail(p->plan->err, TMS_EINPUT,
                        "%s/config.json: \"partial_rotary_factor\" is not 1, the only one supported", s->path);
    if (tms_config_rope_dim(&s->config) % 2 != 0)
        return tms_fail(p->plan->err, TMS_EINPUT,
                        "%s/config.json: %llu values of a head cannot be rotated: an odd number", s->path,
                        (unsigned long long)tms_config_rope_dim(&s->config));
    tms_status status = require_all(p);
    p->stacks = tms_calloc(s->config.n_layers, sizeof *p->stacks);
    if (!p->stacks) status = tms_fail_memory(p->plan->err, s->config.n_layers * sizeof *p->stacks);
    if (status == TMS_OK) status = plan_rope_tables(p);
    for (size_t i = 0; i < s->n_tensors && status == TMS_OK; i++) status = plan_hf_tensor(p, i);
    return status;
}

static tms_status plan_gguf_source(struct walk *p)
{
    const struct tms_source *s = p->plan->t->source;
    if (p->plan->options->converter)
        return tms_fail(p->plan->err, TMS_EUSAGE, "%s: is a GGUF file already; `tamis quantize` changes its types",
                        s->path);
    for (size_t i = 0; i < s->n_tensors; i++) {
        struct tms_planned *to = &p->plan->tensors[p->plan->n++];
        *to = (struct tms_planned){.n_parts = 1,
                                   .source = i,
                                   .name = s->tensors[i].name,
                                   .turn = tms_turn_none(0),
                                   .n_dims = s->tensors[i].n_dims,
                                   .type = s->tensors[i].type};
        memcpy(to->shape, s->tensors[i].shape, sizeof to->shape);
    }
    return TMS_OK;
}

tms_status tms_gguf_plan_tensors(struct tms_gguf_plan *plan)
{
    const struct tms_source *s = plan->t->source;
    struct walk w = {.plan = plan};
    /* kv_b becomes two, tables of rope are two at most */
    plan->tensors = tms_calloc(2 * (uint64_t)s->n_tensors + 2, sizeof *plan->tensors);
    if (!plan->tensors) return tms_fail_memory(plan->err, s->n_tensors * sizeof *plan->tensors);
    tms_status status = s->kind == TMS_SOURCE_GGUF ? plan_gguf_source(&w) : plan_hf(&w);
    free(w.stacks);
    return status;
}
