/* See mixture.h.
 *
 * The rules look at what a tensor is for (its kind), at how many of that kind came before (the first and last
 * layers get more bits) and at a few properties of the model. Counters run in llama-quantize's order of tensors. */
#include "plan/mixture.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

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
    K_QKV, /* fused queries, keys and values: a kind of their own by the rules of 2025, K_ATTN_V by today's */
    K_OTHER
};

struct rules {
    enum tms_ftype ftype;
    enum tms_type base;
    const struct tms_mixture_options *options;
    bool has_output, is_falcon, is_70b;
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

bool tms_mixture_needs_weights(const struct tms_file_type *ftype, const char *name, enum tms_type type, bool of_2025)
{
    if (of_2025 && (type == TMS_IQ1_S || type == TMS_IQ2_XXS || type == TMS_IQ2_XS)) return true;
    if (strcmp(name, "token_embd.weight") == 0 || strcmp(name, "output.weight") == 0) return false;
    switch (type) {
    case TMS_IQ1_S:
    case TMS_IQ1_M:
    case TMS_IQ2_XXS:
    case TMS_IQ2_XS:
    case TMS_IQ2_S: return true;
    case TMS_IQ3_XXS: return !of_2025;
    case TMS_Q2_K: return ftype->id == TMS_FTYPE_Q2_K_S;
    default: return false;
    }
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

/* The file types below three bits have rules of their own. */
static bool is_tiny(enum tms_ftype ftype)
{
    switch (ftype) {
    case TMS_FTYPE_IQ1_S:
    case TMS_FTYPE_IQ1_M:
    case TMS_FTYPE_IQ2_XXS:
    case TMS_FTYPE_IQ2_XS:
    case TMS_FTYPE_IQ2_S:
    case TMS_FTYPE_IQ2_M: return true;
    default: return false;
    }
}

/* What sensitive tensors of a tiny file get. */
static enum tms_type tiny_better(enum tms_ftype ftype)
{
    return ftype == TMS_FTYPE_IQ2_S || ftype == TMS_FTYPE_IQ2_M ? TMS_IQ3_S : TMS_Q2_K;
}

static enum tms_type tiny_type(struct rules *r, enum tms_type t, enum kind kind)
{
    switch (kind) {
    case K_ATTN_V: r->i_attn_v++; return r->n_gqa >= 4 || r->n_experts >= 4 ? TMS_Q4_K : tiny_better(r->ftype);
    case K_ATTN_K: return r->n_experts == 8 ? TMS_Q4_K : t;
    case K_FFN_DOWN: return r->i_down++ < r->n_layers / 8 ? tiny_better(r->ftype) : t;
    case K_ATTN_OUTPUT:
        if (r->n_experts == 8) return TMS_Q5_K;
        if (r->ftype == TMS_FTYPE_IQ1_S || r->ftype == TMS_FTYPE_IQ1_M) return TMS_IQ2_XXS;
        return r->ftype == TMS_FTYPE_IQ2_S || r->ftype == TMS_FTYPE_IQ2_M ? TMS_IQ3_S : t;
    default: return t;
    }
}

static enum tms_type attn_v_type(struct rules *r, enum tms_type t)
{
    bool shared = r->n_gqa >= 4;
    switch (r->ftype) {
    case TMS_FTYPE_Q2_K: t = shared ? TMS_Q4_K : TMS_Q3_K; break;
    case TMS_FTYPE_Q2_K_S:
    case TMS_FTYPE_IQ3_XS:
    case TMS_FTYPE_IQ3_S: t = shared ? TMS_Q4_K : t; break;
    case TMS_FTYPE_IQ3_XXS: t = shared ? TMS_Q4_K : r->options->has_weights ? TMS_IQ3_XXS : TMS_IQ3_S; break;
    case TMS_FTYPE_IQ3_M: t = TMS_Q4_K; break;
    case TMS_FTYPE_Q3_K_M: t = r->i_attn_v < 2 ? TMS_Q5_K : TMS_Q4_K; break;
    case TMS_FTYPE_Q3_K_L: t = TMS_Q5_K; break;
    case TMS_FTYPE_IQ4_NL:
    case TMS_FTYPE_IQ4_XS: t = shared ? TMS_Q5_K : t; break;
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

static enum tms_type qkv_type(const struct rules *r, enum tms_type t)
{
    switch (r->ftype) {
    case TMS_FTYPE_Q3_K_M:
    case TMS_FTYPE_Q3_K_L:
    case TMS_FTYPE_IQ3_M: return TMS_Q4_K;
    case TMS_FTYPE_Q4_K_M: return TMS_Q5_K;
    case TMS_FTYPE_Q5_K_M: return TMS_Q6_K;
    default: return t;
    }
}

/* IQ3_XS and IQ3_XXS save on the queries and keys. */
static enum tms_type attn_qk_type(const struct rules *r, enum tms_type t)
{
    if (r->ftype == TMS_FTYPE_IQ3_XS) return TMS_IQ3_XXS;
    return r->ftype == TMS_FTYPE_IQ3_XXS ? TMS_IQ2_S : t;
}

static enum tms_type ffn_down_type(struct rules *r, enum tms_type t, const char *name)
{
    int i = ffn_layer(r, r->i_down, name), n = r->n_layers;
    bool weights = r->options->has_weights, early = i < n / 8, more = use_more_bits(i, n);
    switch (r->ftype) {
    case TMS_FTYPE_Q2_K: t = TMS_Q3_K; break;
    case TMS_FTYPE_Q2_K_S: t = early ? TMS_Q4_K : t; break;
    case TMS_FTYPE_IQ3_XXS: t = weights ? t : early ? TMS_Q4_K : TMS_Q3_K; break;
    case TMS_FTYPE_IQ3_M: t = early || (r->n_experts == 8 && more) ? TMS_Q4_K : t; break;
    case TMS_FTYPE_Q3_K_M: t = i < n / 16 ? TMS_Q5_K : !r->is_falcon || more ? TMS_Q4_K : TMS_Q3_K; break;
    case TMS_FTYPE_Q3_K_L: t = r->is_falcon ? TMS_Q4_K : TMS_Q5_K; break;
    case TMS_FTYPE_Q4_K_M:
        if (r->is_falcon)
            t = i < n / 16 ? TMS_Q6_K : more ? TMS_Q5_K : TMS_Q4_K;
        else if (more)
            t = TMS_Q6_K;
        break;
    case TMS_FTYPE_IQ4_NL:
    case TMS_FTYPE_IQ4_XS: t = early && !weights ? TMS_Q5_K : t; break;
    case TMS_FTYPE_Q5_K_M: t = more ? TMS_Q6_K : t; break;
    case TMS_FTYPE_Q4_K_S: t = early && !r->is_falcon ? TMS_Q5_K : t; break;
    case TMS_FTYPE_Q4_0: t = early && weights ? TMS_Q4_1 : t; break;
    case TMS_FTYPE_Q5_0: t = early && weights ? TMS_Q5_1 : t; break;
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
        case TMS_FTYPE_Q4_K_M:
        case TMS_FTYPE_IQ3_XXS:
        case TMS_FTYPE_IQ3_XS:
        case TMS_FTYPE_IQ3_S:
        case TMS_FTYPE_IQ3_M:
        case TMS_FTYPE_IQ4_NL:
        case TMS_FTYPE_IQ4_XS: return TMS_Q5_K;
        default: return t;
        }
    }
    switch (r->ftype) {
    case TMS_FTYPE_Q2_K: return TMS_Q3_K;
    case TMS_FTYPE_IQ3_XXS: return TMS_IQ3_S;
    case TMS_FTYPE_Q3_K_M:
    case TMS_FTYPE_IQ3_M: return TMS_Q4_K;
    case TMS_FTYPE_Q3_K_L: return TMS_Q5_K;
    default: return t;
    }
}

/* IQ3_XS saves on the feed-forward matrices of the middle layers. */
static enum tms_type ffn_up_type(const struct rules *r, enum tms_type t, int *counter, const char *name)
{
    int i = ffn_layer(r, (*counter)++, name), n = r->n_layers;
    return r->ftype == TMS_FTYPE_IQ3_XS && i >= n / 8 && i < 7 * n / 8 ? TMS_IQ3_XXS : t;
}

/* The output matrix, and the embedding where it serves as one. */
static enum tms_type output_type(const struct rules *r, enum tms_type t, uint64_t n_cols)
{
    if (r->options->output_type != TMS_TYPE_NONE) return r->options->output_type;
    if (r->ftype == TMS_FTYPE_MXFP4_MOE || r->is_falcon || n_cols % tms_codec(t)->block_elems != 0) return TMS_Q8_0;
    if (is_tiny(r->ftype) || r->ftype == TMS_FTYPE_IQ3_XXS) return TMS_Q5_K;
    return t != TMS_Q8_0 ? TMS_Q6_K : t;
}

static enum tms_type token_embd_type(const struct rules *r, enum tms_type t)
{
    switch (r->ftype) {
    case TMS_FTYPE_IQ2_XXS:
    case TMS_FTYPE_IQ2_XS:
    case TMS_FTYPE_IQ1_S:
    case TMS_FTYPE_IQ1_M: return TMS_Q2_K;
    case TMS_FTYPE_IQ2_S:
    case TMS_FTYPE_IQ2_M:
    case TMS_FTYPE_IQ3_XXS: return TMS_IQ3_S;
    case TMS_FTYPE_TQ1_0:
    case TMS_FTYPE_TQ2_0:
    case TMS_FTYPE_Q2_0: return TMS_Q4_K;
    default: return t;
    }
}

static enum tms_type rule_type(struct rules *r, const struct tms_mixture_tensor *tensor)
{
    enum tms_type t = r->base;
    enum kind kind = kind_of(tensor->name);
    if (kind == K_OUTPUT || (kind == K_TOKEN_EMBD && !r->has_output)) return output_type(r, t, tensor->n_cols);
    if (r->ftype == TMS_FTYPE_MXFP4_MOE) return tensor->n_mats > 1 ? TMS_MXFP4 : TMS_Q8_0;
    if (kind == K_TOKEN_EMBD) return token_embd_type(r, t);
    if (is_tiny(r->ftype)) return tiny_type(r, t, kind);
    if (r->options->of_2025 && kind == K_ATTN_V && !contains(tensor->name, "attn_v.weight"))
        kind = contains(tensor->name, "attn_qkv.weight") ? K_QKV : K_OTHER;
    switch (kind) {
    case K_QKV: return qkv_type(r, t);
    case K_ATTN_V: return attn_v_type(r, t);
    case K_ATTN_K: return r->n_experts == 8 ? TMS_Q8_0 : attn_qk_type(r, t);
    case K_ATTN_Q: return attn_qk_type(r, t);
    case K_FFN_DOWN: return ffn_down_type(r, t, tensor->name);
    case K_FFN_GATE: return ffn_up_type(r, t, &r->i_gate, tensor->name);
    case K_FFN_UP: return ffn_up_type(r, t, &r->i_up, tensor->name);
    case K_ATTN_OUTPUT: return attn_output_type(r, t);
    default: return t;
    }
}

/* What stands in where a row is no multiple of the type's block; TMS_TYPE_NONE where llama-quantize stops. */
static enum tms_type fallback_type(enum tms_type t, bool of_2025)
{
    if (of_2025 && (t == TMS_Q2_K || t == TMS_Q3_K)) return TMS_IQ4_NL;
    switch (t) {
    case TMS_IQ1_S:
    case TMS_IQ1_M:
    case TMS_IQ2_XXS:
    case TMS_IQ2_XS:
    case TMS_IQ2_S:
    case TMS_IQ3_XXS:
    case TMS_IQ3_S:
    case TMS_IQ4_XS: return TMS_IQ4_NL;
    case TMS_Q2_0:
    case TMS_Q2_K:
    case TMS_Q3_K:
    case TMS_TQ1_0:
    case TMS_TQ2_0: return TMS_Q4_0;
    case TMS_Q4_K: return TMS_Q5_0;
    case TMS_Q5_K: return TMS_Q5_1;
    case TMS_Q6_K: return TMS_Q8_0;
    default: return tms_codec(t)->block_elems <= 32 ? TMS_F16 : TMS_TYPE_NONE;
    }
}

static bool fits(enum tms_type t, uint64_t n_cols)
{
    return n_cols % tms_codec(t)->block_elems == 0;
}

static void make_fit(struct tms_mixture_tensor *t, bool of_2025)
{
    if (fits(t->type, t->n_cols)) return;
    enum tms_type type = fallback_type(t->type, of_2025);
    if (type == TMS_TYPE_NONE) {
        t->problem = "its rows are no multiple of the type's block, and no other type stands in for it";
        return;
    }
    t->fallback = true;
    t->type = fits(type, t->n_cols) ? type : TMS_F16;
}

/* The type that the user asked for this tensor, or TMS_TYPE_NONE. */
static enum tms_type asked_type(const struct tms_mixture_options *o, const char *name)
{
    enum tms_type found = TMS_TYPE_NONE;
    pcre2_match_data *match = o->n_overrides ? pcre2_match_data_create(1, NULL) : NULL;
    for (size_t i = 0; match && i < o->n_overrides && found == TMS_TYPE_NONE; i++)
        if (pcre2_match(o->overrides[i].pattern, (PCRE2_SPTR)name, strlen(name), 0, 0, match, NULL) >= 0)
            found = o->overrides[i].type;
    pcre2_match_data_free(match);
    return found;
}

static void choose(struct rules *r, struct tms_mixture_tensor *t)
{
    const struct tms_mixture_options *o = r->options;
    enum kind kind = kind_of(t->name);
    if (kind == K_OUTPUT && o->leave_output) return;
    if (kind == K_TOKEN_EMBD && o->token_embd_type != TMS_TYPE_NONE) {
        t->type = o->token_embd_type;
    } else if (kind == K_OUTPUT && o->output_type != TMS_TYPE_NONE) {
        t->type = o->output_type;
    } else if (r->base == TMS_F32 || r->base == TMS_F16 || r->base == TMS_BF16) {
        t->type = r->base;
    } else {
        enum tms_type asked = asked_type(o, t->name);
        t->type = asked != TMS_TYPE_NONE ? asked : o->pure ? r->base : rule_type(r, t);
    }
    make_fit(t, o->of_2025);
}

static int compare_tensors(const void *a, const void *b)
{
    const struct tms_mixture_tensor *const *ta = a, *const *tb = b;
    return tms_mixture_compare_names((*ta)->name, (*tb)->name);
}

bool tms_mixture_assign(const struct tms_file_type *ftype, const struct tms_mixture_model *model,
                        const struct tms_mixture_options *options, struct tms_mixture_tensor *tensors, size_t n)
{
    struct tms_mixture_tensor **order = calloc(n ? n : 1, sizeof *order);
    if (!order) return false;
    struct rules r = {
        .ftype = ftype->id,
        .base = ftype->type,
        .options = options,
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
        t->problem = NULL;
        if (ftype->id != TMS_FTYPE_COPY && tms_mixture_quantizes(t->name, t->n_dims)) choose(&r, t);
    }
    free(order);
    return true;
}

tms_status tms_type_override_parse(struct tms_type_override *out, const char *text, struct tms_error *err)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || !equals[1])
        return tms_fail(err, TMS_EUSAGE, "--tensor-type '%s': expected REGEX=TYPE", text);
    const struct tms_codec *codec = tms_codec_by_name(equals + 1);
    if (!codec || codec->id >= TMS_GGML_TYPES)
        return tms_fail(err, TMS_EUSAGE, "--tensor-type '%s': '%s' is no tensor type", text, equals + 1);
    char *pattern = strndup(text, (size_t)(equals - text));
    if (!pattern) return tms_fail_memory(err, strlen(text));
    for (char *c = pattern; *c; c++) *c = (char)tolower((unsigned char)*c);
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR problem[128];
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, 0, &code, &at, NULL);
    free(pattern);
    if (!compiled) {
        pcre2_get_error_message(code, problem, sizeof problem);
        return tms_fail(err, TMS_EUSAGE, "--tensor-type '%s': character %zu of the expression: %s", text, (size_t)at,
                        (const char *)problem);
    }
    *out = (struct tms_type_override){compiled, codec->id};
    return TMS_OK;
}

void tms_type_override_free(struct tms_type_override *override)
{
    pcre2_code_free(override->pattern);
    override->pattern = NULL;
}
