/* See mixture.h.
 *
 * The rules look at what a tensor is for (its kind), at how many of that kind came before (the first and last
 * layers get more bits) and at a few properties of the model. Counters run in llama-quantize's order of tensors. */
#include "plan/mixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum kind {
    K_OUTPUT,
    K_TOKEN_EMBD,
    K_ATTN_V,
    K_ATTN_K,
    K_ATTN_Q,
    K_ATTN_OUTPUT,
    K_FFN_UP,
    K_FFN_GATE,
    K_FFN_DOWN,
    K_OTHER
};

struct rules {
    enum tms_ftype ftype;
    enum tms_type base;
    bool has_weights, has_output, is_falcon, is_70b;
    uint64_t n_gqa, n_experts;
    int n_attn_v, n_layers;
    int i_attn_v, i_down, i_gate, i_up;
};

static bool contains(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static enum kind kind_of(const char *name)
{
    if (strcmp(name, "output.weight") == 0) return K_OUTPUT;
    if (strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0) return K_TOKEN_EMBD;
    if (contains(name, "attn_qkv.weight") || contains(name, "attn_kv_b.weight") || contains(name, "attn_v.weight"))
        return K_ATTN_V;
    if (contains(name, "attn_k.weight")) return K_ATTN_K;
    if (contains(name, "attn_q.weight")) return K_ATTN_Q;
    if (contains(name, "attn_output.weight")) return K_ATTN_OUTPUT;
    if (contains(name, "ffn_up")) return K_FFN_UP;
    if (contains(name, "ffn_gate")) return K_FFN_GATE;
    if (contains(name, "ffn_down")) return K_FFN_DOWN;
    return K_OTHER;
}

bool tms_mixture_quantizes(const char *name, uint32_t n_dims)
{
    static const char *const never[] = {
        "_norm.weight",
        "ffn_gate_inp.weight",
        "ffn_gate_tid2eid",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "indexer.k_proj.weight",
        "indexer.q_proj.weight",
        "time_mix_first.weight",
        "time_mix_w0.weight",
        "time_mix_w1.weight",
        "time_mix_w2.weight",
        "time_mix_v0.weight",
        "time_mix_v1.weight",
        "time_mix_v2.weight",
        "time_mix_a0.weight",
        "time_mix_a1.weight",
        "time_mix_a2.weight",
        "time_mix_g1.weight",
        "time_mix_g2.weight",
        "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight",
        "time_mix_lerp_fused.weight",
        "attn_rel_b.weight",
        ".position_embd",
        "sam.pos_embd",
        "sam.neck.",
        "sam.net_",
        ".rel_pos",
        ".patch_embd",
        ".patch_merger",
        "a.rvq.codebook",
        "mm.a.code_embd",
    };
    if (n_dims < 2 || !tms_ends_with(name, "weight")) return false;
    if (strcmp(name, "position_embd.weight") == 0 || strcmp(name, "token_types.weight") == 0) return false;
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (contains(name, never[i])) return false;
    return true;
}

bool tms_mixture_needs_weights(const struct tms_file_type *ftype, const char *name, enum tms_type type)
{
    return ftype->id == TMS_FTYPE_Q2_K_S && type == TMS_Q2_K && strcmp(name, "token_embd.weight") != 0;
}

/* N of "blk.N.…", or -1. */
static int layer_of(const char *name)
{
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9') return -1;
    char *end;
    long n = strtol(name + 4, &end, 10);
    return *end == '.' && n < 1 << 20 ? (int)n : -1;
}

int tms_mixture_compare_names(const char *a, const char *b)
{
    int la = layer_of(a), lb = layer_of(b);
    if (la != lb) return la < lb ? -1 : 1;
    return strcmp(a, b);
}

/* The first and last eighth of the layers and every third between them. */
static bool use_more_bits(int i, int n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* Mixtures of experts count layers from the name: shared and routed experts of a layer are the same layer. */
static int ffn_layer(const struct rules *r, int counter, const char *name)
{
    if (r->n_experts <= 1) return counter;
    int layer = layer_of(name);
    return layer < 0 ? counter : layer;
}

static enum tms_type attn_v_type(struct rules *r, enum tms_type t)
{
    switch (r->ftype) {
    case TMS_FTYPE_Q2_K: t = r->n_gqa >= 4 ? TMS_Q4_K : TMS_Q3_K; break;
    case TMS_FTYPE_Q2_K_S: t = r->n_gqa >= 4 ? TMS_Q4_K : t; break;
    case TMS_FTYPE_Q3_K_M: t = r->i_attn_v < 2 ? TMS_Q5_K : TMS_Q4_K; break;
    case TMS_FTYPE_Q3_K_L: t = TMS_Q5_K; break;
    case TMS_FTYPE_Q4_K_M:
    case TMS_FTYPE_Q5_K_M: t = use_more_bits(r->i_attn_v, r->n_attn_v) ? TMS_Q6_K : t; break;
    case TMS_FTYPE_Q4_K_S: t = r->i_attn_v < 4 ? TMS_Q5_K : t; break;
    default: break;
    }
    /* Few key/value heads are shared by many query heads: their few bits are cheap and matter. */
    if (r->is_70b && (t == TMS_Q3_K || t == TMS_Q4_K)) t = TMS_Q5_K;
    if (r->n_experts == 8) t = TMS_Q8_0;
    r->i_attn_v++;
    return t;
}

static enum tms_type ffn_down_type(struct rules *r, enum tms_type t, const char *name)
{
    int i = ffn_layer(r, r->i_down, name), n = r->n_layers;
    switch (r->ftype) {
    case TMS_FTYPE_Q2_K: t = TMS_Q3_K; break;
    case TMS_FTYPE_Q2_K_S: t = i < n / 8 ? TMS_Q4_K : t; break;
    case TMS_FTYPE_Q3_K_M:
        t = i < n / 16 ? TMS_Q5_K : !r->is_falcon || use_more_bits(i, n) ? TMS_Q4_K : TMS_Q3_K;
        break;
    case TMS_FTYPE_Q3_K_L: t = r->is_falcon ? TMS_Q4_K : TMS_Q5_K; break;
    case TMS_FTYPE_Q4_K_M:
        if (r->is_falcon)
            t = i < n / 16 ? TMS_Q6_K : use_more_bits(i, n) ? TMS_Q5_K : TMS_Q4_K;
        else if (use_more_bits(i, n))
            t = TMS_Q6_K;
        break;
    case TMS_FTYPE_Q5_K_M: t = use_more_bits(i, n) ? TMS_Q6_K : t; break;
    case TMS_FTYPE_Q4_K_S: t = !r->is_falcon && i < n / 8 ? TMS_Q5_K : t; break;
    case TMS_FTYPE_Q4_0: t = r->has_weights && i < n / 8 ? TMS_Q4_1 : t; break;
    case TMS_FTYPE_Q5_0: t = r->has_weights && i < n / 8 ? TMS_Q5_1 : t; break;
    default: break;
    }
    r->i_down++;
    return t;
}

static enum tms_type attn_output_type(const struct rules *r, enum tms_type t)
{
    if (r->is_falcon) return r->ftype == TMS_FTYPE_Q3_K_L ? TMS_Q4_K : t;
    if (r->n_experts == 8) {
        switch (r->ftype) {
        case TMS_FTYPE_Q2_K:
        case TMS_FTYPE_Q3_K_S:
        case TMS_FTYPE_Q3_K_M:
        case TMS_FTYPE_Q4_K_S:
        case TMS_FTYPE_Q4_K_M: return TMS_Q5_K;
        default: return t;
        }
    }
    switch (r->ftype) {
    case TMS_FTYPE_Q2_K: return TMS_Q3_K;
    case TMS_FTYPE_Q3_K_M: return TMS_Q4_K;
    case TMS_FTYPE_Q3_K_L: return TMS_Q5_K;
    default: return t;
    }
}

static enum tms_type rule_type(struct rules *r, const struct tms_mixture_tensor *tensor)
{
    enum tms_type t = r->base;
    enum kind kind = kind_of(tensor->name);
    if (kind == K_OUTPUT || (kind == K_TOKEN_EMBD && !r->has_output)) {
        const struct tms_codec *codec = tms_codec(t);
        if (r->is_falcon || tensor->n_cols % codec->block_elems != 0) return TMS_Q8_0;
        return t != TMS_Q8_0 ? TMS_Q6_K : t;
    }
    switch (kind) {
    case K_ATTN_V: return attn_v_type(r, t);
    case K_ATTN_K: return r->n_experts == 8 ? TMS_Q8_0 : t;
    case K_FFN_DOWN: return ffn_down_type(r, t, tensor->name);
    case K_ATTN_OUTPUT: return attn_output_type(r, t);
    default: return t;
    }
}

/* What stands in where a row is no multiple of the type's block; F16 where even that does not fit. */
static enum tms_type fallback_type(enum tms_type t)
{
    switch (t) {
    case TMS_Q2_K:
    case TMS_Q3_K: return TMS_Q4_0;
    case TMS_Q4_K: return TMS_Q5_0;
    case TMS_Q5_K: return TMS_Q5_1;
    case TMS_Q6_K: return TMS_Q8_0;
    default: return TMS_F16;
    }
}

static bool fits(enum tms_type t, uint64_t n_cols)
{
    return n_cols % tms_codec(t)->block_elems == 0;
}

static int compare_tensors(const void *a, const void *b)
{
    const struct tms_mixture_tensor *const *ta = a, *const *tb = b;
    return tms_mixture_compare_names((*ta)->name, (*tb)->name);
}

bool tms_mixture_assign(const struct tms_file_type *ftype, const struct tms_mixture_model *model, bool has_weights,
                        bool pure, struct tms_mixture_tensor *tensors, size_t n)
{
    struct tms_mixture_tensor **order = calloc(n ? n : 1, sizeof *order);
    if (!order) return false;
    struct rules r = {
        .ftype = ftype->id,
        .base = ftype->type,
        .has_weights = has_weights,
        .is_falcon = strcmp(model->arch, "falcon") == 0,
        .n_gqa = model->n_kv_heads ? model->n_heads / model->n_kv_heads : 0,
        .n_experts = model->n_experts,
        .n_layers = (int)model->n_layers,
    };
    /* llama.cpp's "70B": the llama shape with 80 layers and grouped queries. */
    r.is_70b = model->n_layers == 80 && ((strcmp(model->arch, "llama") == 0 && model->n_heads != model->n_kv_heads) ||
                                         strcmp(model->arch, "qwen2") == 0 || strcmp(model->arch, "deci") == 0);
    for (size_t i = 0; i < n; i++) {
        order[i] = &tensors[i];
        enum kind kind = kind_of(tensors[i].name);
        if (kind == K_OUTPUT) r.has_output = true;
        if (kind == K_ATTN_V) r.n_attn_v++;
    }
    qsort(order, n, sizeof *order, compare_tensors);

    for (size_t i = 0; i < n; i++) {
        struct tms_mixture_tensor *t = order[i];
        t->type = t->source;
        t->fallback = false;
        if (ftype->id == TMS_FTYPE_COPY || !tms_mixture_quantizes(t->name, t->n_dims)) continue;
        bool is_float = ftype->type == TMS_F32 || ftype->type == TMS_F16 || ftype->type == TMS_BF16;
        t->type = pure || is_float ? r.base : rule_type(&r, t);
        if (!fits(t->type, t->n_cols)) {
            t->fallback = true;
            t->type = fallback_type(t->type);
            if (!fits(t->type, t->n_cols)) t->type = TMS_F16;
        }
    }
    free(order);
    return true;
}
