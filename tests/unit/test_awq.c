/* AWQ against a whole run of AutoAWQ on a small Qwen2, which this file runs again: attention and all, in f32. */
#include "support.h"

#include <math.h>

#include "base/cpu.h"
#include "base/numbers.h"
#include "base/threads.h"
#include "file/safetensors.h"
#include "method/awq.h"

enum { LAYERS = 2, HIDDEN = 64, HEADS = 4, HEAD = 16, WIDE = 192, TEXTS = 8, LENGTH = 48, TOKENS = 384, GROUP = 32 };

static struct tms_error err;
static struct tms_pool *one, *many;

struct archive {
    struct tms_safetensors *st;
    uint8_t *bytes;
};
static struct archive run, source, packing;

static void archive_open(struct archive *archive, const char *name)
{
    size_t n;
    assert_ok(tms_safetensors_open(&archive->st, golden(name), &err), err);
    archive->bytes = read_whole(golden(name), &n);
}

static void archive_close(struct archive *archive)
{
    tms_safetensors_close(archive->st);
    free(archive->bytes);
}

static const struct tms_st_tensor *lookup(const struct archive *archive, const char *format, va_list arguments)
{
    char name[200];
    vsnprintf(name, sizeof name, format, arguments);
    const struct tms_st_tensor *found = tms_safetensors_find(archive->st, name);
    if (!found) fail_msg("no tensor %s", name);
    return found;
}

static const void *raw(const struct archive *archive, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const struct tms_st_tensor *found = lookup(archive, format, arguments);
    va_end(arguments);
    return archive->bytes + found->offset;
}

/* As f32, to be freed. */
static float *numbers(const struct archive *archive, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const struct tms_st_tensor *found = lookup(archive, format, arguments);
    va_end(arguments);
    float *x = malloc((size_t)found->n_elems * sizeof *x);
    tms_codec(found->type)->decode(archive->bytes + found->offset, x, (size_t)found->n_elems);
    return x;
}

/* ---- the model ---- */

enum linear { Q, K, V, O, GATE, UP, DOWN, N_LINEARS };
static const char *const linear_names[N_LINEARS] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                    "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                    "mlp.down_proj"};
static const size_t rows_of[N_LINEARS] = {HIDDEN, HIDDEN, HIDDEN, HIDDEN, WIDE, WIDE, HIDDEN};
static const size_t cols_of[N_LINEARS] = {HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, WIDE};

/* A layer and what its linear layers get: [TOKENS][…]. */
static struct layer {
    float *w[N_LINEARS], *bias[3], *norm[2];
    float *into[N_LINEARS];
} layers[LAYERS];

static void linear(const float *x, const float *w, const float *bias, size_t n_rows, size_t n_cols, float *y)
{
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t r = 0; r < n_rows; r++) {
            double sum = bias ? (double)bias[r] : 0;
            for (size_t c = 0; c < n_cols; c++) sum += (double)x[t * n_cols + c] * (double)w[r * n_cols + c];
            y[t * n_rows + r] = (float)sum;
        }
}

static void rotate(float *x)
{
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t h = 0; h < HEADS; h++)
            for (size_t i = 0; i < HEAD / 2; i++) {
                float *v = x + t * HIDDEN + h * HEAD + i;
                double angle = (double)(t % LENGTH) * pow(10000, -2.0 * (double)i / HEAD);
                float a = v[0], b = v[HEAD / 2];
                v[0] = (float)((double)a * cos(angle) - (double)b * sin(angle));
                v[HEAD / 2] = (float)((double)b * cos(angle) + (double)a * sin(angle));
            }
}

/* What o_proj gets, from the normed input and given weights of q, k, v. */
static void attend(const struct layer *layer, const float *x, float *const *qkv, float *out)
{
    float *p[3];
    for (int i = 0; i < 3; i++) {
        p[i] = malloc(TOKENS * HIDDEN * sizeof **p);
        linear(x, qkv[i], layer->bias[i], HIDDEN, HIDDEN, p[i]);
        if (i < 2) rotate(p[i]);
    }
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t h = 0; h < HEADS; h++) {
            double scores[LENGTH], largest = -HUGE_VAL, total = 0, sums[HEAD] = {0};
            size_t first = t / LENGTH * LENGTH;
            for (size_t s = first; s <= t; s++) {
                double score = 0;
                for (size_t i = 0; i < HEAD; i++)
                    score += (double)p[0][t * HIDDEN + h * HEAD + i] * (double)p[1][s * HIDDEN + h * HEAD + i];
                scores[s - first] = score / 4;
                largest = fmax(largest, score / 4);
            }
            for (size_t s = first; s <= t; s++) {
                double weight = exp(scores[s - first] - largest);
                total += weight;
                for (size_t i = 0; i < HEAD; i++) sums[i] += weight * (double)p[2][s * HIDDEN + h * HEAD + i];
            }
            for (size_t i = 0; i < HEAD; i++) out[t * HIDDEN + h * HEAD + i] = (float)(sums[i] / total);
        }
    for (int i = 0; i < 3; i++) free(p[i]);
}

static void gated(const float *x, const float *gate, const float *up, float *out)
{
    float *g = malloc(TOKENS * WIDE * sizeof *g);
    linear(x, gate, NULL, WIDE, HIDDEN, g);
    linear(x, up, NULL, WIDE, HIDDEN, out);
    for (size_t i = 0; i < TOKENS * WIDE; i++) out[i] *= (float)((double)g[i] / (1 + exp(-(double)g[i])));
    free(g);
}

static void normed(const float *x, const float *weight, float *out)
{
    for (size_t t = 0; t < TOKENS; t++) {
        double sum = 0;
        for (size_t c = 0; c < HIDDEN; c++) sum += (double)x[t * HIDDEN + c] * (double)x[t * HIDDEN + c];
        double factor = 1 / sqrt(sum / HIDDEN + 1e-6);
        for (size_t c = 0; c < HIDDEN; c++)
            out[t * HIDDEN + c] = (float)((double)x[t * HIDDEN + c] * factor) * weight[c];
    }
}

static void add(float *x, const float *y)
{
    for (size_t i = 0; i < TOKENS * HIDDEN; i++) x[i] += y[i];
}

static int run_model(void **state)
{
    (void)state;
    assert_ok(tms_pool_create(&one, 1, &err), err);
    assert_ok(tms_pool_create(&many, 5, &err), err);
    archive_open(&run, "hf/awq/run.safetensors");
    archive_open(&source, "hf/awq/source.safetensors");
    archive_open(&packing, "hf/awq/packing.safetensors");
    const int32_t *ids = raw(&run, "calibration_ids");
    float *embedding = numbers(&source, "model.embed_tokens.weight");
    float *x = malloc(TOKENS * HIDDEN * sizeof *x), *y = malloc(TOKENS * HIDDEN * sizeof *y);
    for (size_t t = 0; t < TOKENS; t++) memcpy(x + t * HIDDEN, embedding + ids[t] * HIDDEN, HIDDEN * sizeof *x);
    free(embedding);
    for (int l = 0; l < LAYERS; l++) {
        struct layer *layer = &layers[l];
        for (int i = 0; i < N_LINEARS; i++) {
            layer->w[i] = numbers(&source, "model.layers.%d.%s.weight", l, linear_names[i]);
            if (i < 3) layer->bias[i] = numbers(&source, "model.layers.%d.%s.bias", l, linear_names[i]);
        }
        layer->norm[0] = numbers(&source, "model.layers.%d.input_layernorm.weight", l);
        layer->norm[1] = numbers(&source, "model.layers.%d.post_attention_layernorm.weight", l);
        float *in = malloc(TOKENS * HIDDEN * sizeof *in), *mixed = malloc(TOKENS * HIDDEN * sizeof *mixed);
        float *mlp = malloc(TOKENS * HIDDEN * sizeof *mlp), *inner = malloc(TOKENS * WIDE * sizeof *inner);
        normed(x, layer->norm[0], in);
        attend(layer, in, layer->w, mixed);
        linear(mixed, layer->w[O], NULL, HIDDEN, HIDDEN, y);
        add(x, y);
        normed(x, layer->norm[1], mlp);
        gated(mlp, layer->w[GATE], layer->w[UP], inner);
        linear(inner, layer->w[DOWN], NULL, HIDDEN, WIDE, y);
        add(x, y);
        layer->into[Q] = layer->into[K] = layer->into[V] = in;
        layer->into[O] = mixed, layer->into[DOWN] = inner;
        layer->into[GATE] = layer->into[UP] = mlp;
    }
    free(x), free(y);
    return 0;
}

static int free_model(void **state)
{
    (void)state;
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < N_LINEARS; i++) free(layers[l].w[i]);
        for (int i = 0; i < 3; i++) free(layers[l].bias[i]);
        free(layers[l].norm[0]), free(layers[l].norm[1]);
        free(layers[l].into[Q]), free(layers[l].into[O]), free(layers[l].into[GATE]), free(layers[l].into[DOWN]);
    }
    archive_close(&run), archive_close(&source), archive_close(&packing);
    tms_pool_free(one);
    tms_pool_free(many);
    return 0;
}

/* ---- scale search ---- */

static const struct search {
    const char *before; /* what is divided */
    enum linear first;
    size_t n;
} searches[] = {{"input_layernorm", Q, 3},
                {"self_attn.v_proj", O, 1},
                {"post_attention_layernorm", GATE, 2},
                {"mlp.up_proj", DOWN, 1}};

struct module {
    const struct layer *layer;
    const struct search *search;
    float *want; /* its output with the original weights; made when first needed */
};

static size_t module_output(const struct module *module, float *const *weights, float *y)
{
    const struct layer *layer = module->layer;
    const float *x = layer->into[module->search->first];
    float *inner = malloc(TOKENS * WIDE * sizeof *inner);
    switch (module->search->first) {
    case Q:
        attend(layer, x, weights, inner);
        linear(inner, layer->w[O], NULL, HIDDEN, HIDDEN, y);
        break;
    case GATE:
        gated(x, weights[0], weights[1], inner);
        linear(inner, layer->w[DOWN], NULL, HIDDEN, WIDE, y);
        break;
    default: linear(x, weights[0], NULL, HIDDEN, cols_of[module->search->first], y); break;
    }
    free(inner);
    return TOKENS * HIDDEN;
}

static tms_status module_loss(void *ctx, float *const *weights, double *loss, struct tms_error *e)
{
    (void)e;
    struct module *module = ctx;
    float *got = malloc(TOKENS * HIDDEN * sizeof *got);
    if (!module->want) {
        module->want = malloc(TOKENS * HIDDEN * sizeof *module->want);
        module_output(module, module->layer->w + module->search->first, module->want);
    }
    const float *want = module->want;
    const size_t n = module_output(module, weights, got);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((double)want[i] - (double)got[i]) * ((double)want[i] - (double)got[i]);
    *loss = sum / (double)n;
    free(got);
    return TMS_OK;
}

static float *input_mean(const float *x, size_t n_cols)
{
    float *mean = calloc(n_cols, sizeof *mean);
    for (size_t c = 0; c < n_cols; c++) {
        double sum = 0;
        for (size_t t = 0; t < TOKENS; t++) sum += fabs((double)x[t * n_cols + c]);
        mean[c] = (float)(sum / TOKENS);
    }
    return mean;
}

static double furthest(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)a[i] / (double)b[i] - 1));
    return most;
}

static struct tms_hessian *hessian_of(const float *x, size_t n_cols)
{
    struct tms_hessian *hessian;
    assert_ok(tms_hessian_create(&hessian, n_cols, &err), err);
    assert_ok(tms_hessian_add(hessian, x, n_cols, TOKENS, one, &err), err);
    assert_ok(tms_hessian_finish(hessian, one, &err), err);
    return hessian;
}

static void losses_ratios_and_scales_are_those_of_autoawq(void **state)
{
    (void)state;
    for (int l = 0; l < LAYERS; l++)
        for (size_t s = 0; s < 4; s++) {
            char of[100];
            snprintf(of, sizeof of, "f32/layer%d/scale/%s", l, searches[s].before);
            const size_t n = cols_of[searches[s].first];
            struct module module = {&layers[l], &searches[s], NULL};
            struct tms_awq_layer list[3];
            for (size_t i = 0; i < searches[s].n; i++)
                list[i] = (struct tms_awq_layer){layers[l].w[searches[s].first + i], rows_of[searches[s].first + i]};
            float *mean = input_mean(layers[l].into[searches[s].first], n), weight_mean[WIDE], scales[WIDE];
            const float *want_mean = raw(&run, "%s/input_mean", of), *want = raw(&run, "%s/scales", of);
            const double *losses = raw(&run, "%s/losses", of);
            const float ratio = *(const float *)raw(&run, "%s/best_ratio", of);
            assert_true(furthest(mean, want_mean, n) < 1e-4);
            tms_awq_weight_mean(list, searches[s].n, n, GROUP, weight_mean);
            assert_true(furthest(weight_mean, raw(&run, "%s/weight_mean", of), n) < 1e-5);
            tms_awq_scales_at((double)ratio, want_mean, raw(&run, "%s/weight_mean", of), false, n, scales);
            assert_true(furthest(scales, want, n) < 1e-5);

            struct tms_awq_options options = {.bits = 4, .group = GROUP};
            struct tms_awq_scales found;
            assert_ok(
                tms_awq_search(&found, list, searches[s].n, mean, n, NULL, &options, module_loss, &module, many, &err),
                err);
            double worst = 0;
            for (int k = 0; k < TMS_AWQ_RATIOS; k++) worst = fmax(worst, fabs(found.losses[k] / losses[k] - 1));
            if (getenv("AWQ_SHOW"))
                printf("%-44s losses within %.5f %%, ratio %g (%g)\n", of, 100 * worst, found.ratio, (double)ratio);
            assert_true(worst < 0.01);
            const int chosen = (int)lrint(found.ratio * TMS_AWQ_RATIOS), theirs = (int)lrint((double)ratio * 20);
            assert_true(losses[chosen] <= 1.01 * losses[theirs]);

            /* A module that is one layer needs no forward pass. */
            if (searches[s].n == 1) {
                struct tms_hessian *hessian = hessian_of(layers[l].into[searches[s].first], n);
                struct tms_awq_scales again;
                assert_ok(tms_awq_search(&again, list, 1, mean, n, hessian, &options, NULL, NULL, one, &err), err);
                for (int k = 0; k < TMS_AWQ_RATIOS; k++)
                    assert_true(fabs(again.losses[k] / found.losses[k] - 1) < 1e-3);
                tms_awq_scales_free(&again);
                tms_hessian_free(hessian);
            }
            tms_awq_scales_free(&found);
            free(mean), free(module.want);
        }
}

/* ---- clipping and what is stored ---- */

/* Weights with the golden scales applied, as they come to the clip search; order of AutoAWQ. */
static void scale_layer(int l, float **w)
{
    for (int i = 0; i < N_LINEARS; i++) {
        w[i] = malloc(rows_of[i] * cols_of[i] * sizeof **w);
        memcpy(w[i], layers[l].w[i], rows_of[i] * cols_of[i] * sizeof **w);
    }
    for (size_t s = 0; s < 4; s++) {
        const float *scales = raw(&run, "f32/layer%d/scale/%s/scales", l, searches[s].before);
        if (searches[s].first == O) tms_awq_divide_rows(w[V], NULL, HIDDEN, HIDDEN, scales, HIDDEN);
        if (searches[s].first == DOWN) tms_awq_divide_rows(w[UP], NULL, WIDE, HIDDEN, scales, WIDE);
        for (size_t i = 0; i < searches[s].n; i++)
            tms_awq_scale_columns(w[searches[s].first + i], rows_of[searches[s].first + i], cols_of[searches[s].first],
                                  scales);
    }
}

static const char *before_of(enum linear i)
{
    return i <= V    ? "input_layernorm"
           : i == O  ? "self_attn.v_proj"
           : i <= UP ? "post_attention_layernorm"
                     : "mlp.up_proj";
}

static void clip_limits_are_those_of_autoawq(void **state)
{
    (void)state;
    for (int l = 0; l < LAYERS; l++) {
        float *w[N_LINEARS];
        scale_layer(l, w);
        if (l == 0) /* the stored input of a search */
            assert_true(furthest(w[V], raw(&run, "f32/layer0/clip/self_attn.v_proj/weight"), HIDDEN * HIDDEN) < 1e-5);
        for (int i = V; i < N_LINEARS; i++) {
            struct tms_hessian *hessian = hessian_of(layers[l].into[i], cols_of[i]);
            tms_awq_scale_hessian(hessian, raw(&run, "f32/layer%d/scale/%s/scales", l, before_of(i)));
            const size_t n = rows_of[i] * cols_of[i] / GROUP;
            float *limits = malloc(n * sizeof *limits);
            const float *want = raw(&run, "f32/layer%d/clip/%s/max", l, linear_names[i]);
            struct tms_awq_options options = {.bits = 4, .group = GROUP};
            assert_ok(tms_awq_clip(w[i], rows_of[i], cols_of[i], hessian, &options, limits, many, &err), err);
            size_t equal = 0;
            for (size_t k = 0; k < n; k++) equal += fabs((double)(limits[k] / want[k]) - 1) < 1e-5;
            if (getenv("AWQ_SHOW")) printf("layer %d %-18s limits %zu/%zu\n", l, linear_names[i], equal, n);
            assert_true(100 * equal >= 95 * n);
            free(limits);
            tms_hessian_free(hessian);
        }
        for (int i = 0; i < N_LINEARS; i++) free(w[i]);
    }
}

static int nibble(const int32_t *words, size_t i, size_t out, size_t o)
{
    static const int place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return (int)((uint32_t)words[i * (out / 8) + o / 8] >> 4 * place[o % 8] & 15);
}

static void final_codes_are_exact_given_scales_and_limits(void **state)
{
    (void)state;
    for (int l = 0; l < LAYERS; l++) {
        float *w[N_LINEARS];
        scale_layer(l, w);
        for (int i = 0; i < N_LINEARS; i++) {
            const size_t rows = rows_of[i], cols = cols_of[i], n = rows * cols, groups = cols / GROUP;
            if (i >= V)
                tms_awq_clamp(w[i], rows, cols, GROUP, raw(&run, "f32/layer%d/clip/%s/max", l, linear_names[i]));
            for (size_t k = 0; k < n; k++) w[i][k] = tms_f16_to_f32(tms_f32_to_f16(w[i][k]));
            uint8_t *codes = malloc(n), *zeros = malloc(rows * groups);
            float *scales = malloc(rows * groups * sizeof *scales);
            tms_awq_round(w[i], rows, cols, GROUP, 4, true, codes, scales, zeros);
            const int32_t *qweight = raw(&run, "f32/tensors/model.layers.%d.%s.qweight", l, linear_names[i]);
            const int32_t *qzeros = raw(&run, "f32/tensors/model.layers.%d.%s.qzeros", l, linear_names[i]);
            float *want = numbers(&run, "f32/tensors/model.layers.%d.%s.scales", l, linear_names[i]);
            for (size_t r = 0; r < rows; r++) {
                for (size_t c = 0; c < cols; c++) assert_int_equal(codes[r * cols + c], nibble(qweight, c, rows, r));
                for (size_t g = 0; g < groups; g++) {
                    assert_int_equal(zeros[r * groups + g], nibble(qzeros, g, rows, r));
                    assert_true(scales[r * groups + g] == want[g * rows + r]);
                }
            }
            free(codes), free(zeros), free(scales), free(want), free(w[i]);
        }
        static const char *const norms[] = {"input_layernorm", "post_attention_layernorm"};
        for (int k = 0; k < 2; k++) {
            const float *want = raw(&run, "f32/tensors/model.layers.%d.%s.weight", l, norms[k]);
            float norm[HIDDEN];
            memcpy(norm, layers[l].norm[k], sizeof norm);
            tms_awq_divide_norm(norm, NULL, raw(&run, "f32/layer%d/scale/%s/scales", l, norms[k]), HIDDEN, false);
            for (size_t c = 0; c < HIDDEN; c++) assert_true(tms_f32_to_f16(norm[c]) == tms_f32_to_f16(want[c]));
        }
    }
}

static void rounding_in_half_is_exact_on_odd_rows(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t rows, cols, group;
    } cases[] = {{"g128", 64, 256, 128}, {"g64", 32, 192, 64}, {"g32", 96, 96, 32}, {"gall", 32, 160, 160}};
    for (size_t k = 0; k < 4; k++) {
        const size_t rows = cases[k].rows, cols = cases[k].cols, n = rows * cols, groups = cols / cases[k].group;
        float *w = numbers(&packing, "%s/weight", cases[k].name),
              *want = numbers(&packing, "%s/rounded", cases[k].name);
        float *want_scales = numbers(&packing, "%s/scales_rows", cases[k].name);
        const uint8_t *want_zeros = raw(&packing, "%s/zeros_rows", cases[k].name);
        const int32_t *qweight = raw(&packing, "%s/qweight", cases[k].name);
        uint8_t *codes = malloc(n), *zeros = malloc(rows * groups);
        float *scales = malloc(rows * groups * sizeof *scales);
        tms_awq_round(w, rows, cols, cases[k].group, 4, true, codes, scales, zeros);
        assert_same_bytes(zeros, want_zeros, rows * groups, "zeros");
        for (size_t i = 0; i < rows * groups; i++) assert_true(scales[i] == want_scales[i]);
        for (size_t i = 0; i < n; i++) assert_true(w[i] == want[i]);
        for (size_t r = 0; r < rows; r++)
            for (size_t c = 0; c < cols; c++) assert_int_equal(codes[r * cols + c], nibble(qweight, c, rows, r));
        free(w), free(want), free(want_scales), free(codes), free(zeros), free(scales);
    }
}

static void norms_that_store_one_less_are_divided_whole(void **state)
{
    (void)state;
    float weight[2] = {0, 1}, bias[2] = {4, 6};
    tms_awq_divide_norm(weight, bias, (const float[]){2, 4}, 2, true);
    assert_true(weight[0] == -0.5f && weight[1] == -0.5f && bias[0] == 2 && bias[1] == 1.5f);
}

static void last_rows_of_a_fused_layer_are_divided(void **state)
{
    (void)state;
    float w[6] = {1, 2, 3, 4, 5, 6}, bias[3] = {1, 1, 1};
    tms_awq_divide_rows(w, bias, 3, 2, (const float[]){2, 4}, 2);
    static const float want[6] = {1, 2, 1.5f, 2, 1.25f, 1.5f};
    assert_same_bytes(w, want, sizeof w, "rows");
    assert_true(bias[0] == 1 && bias[1] == 0.5f && bias[2] == 0.25f);
}

static void search_is_the_same_bits_on_every_machine(void **state)
{
    (void)state;
    static const enum tms_cpu levels[] = {ALL_CPU_LEVELS};
    struct tms_hessian *hessian = hessian_of(layers[0].into[DOWN], WIDE);
    struct tms_awq_layer layer = {layers[0].w[DOWN], HIDDEN};
    struct tms_awq_options options = {.bits = 3, .group = 64};
    float *mean = input_mean(layers[0].into[DOWN], WIDE), limits[2][HIDDEN * 3];
    struct tms_awq_scales first = {0}, found;
    for (size_t round = 0; round < 2 * sizeof levels / sizeof *levels; round++) {
        tms_cpu_force(levels[round / 2]);
        struct tms_pool *pool = round % 2 ? many : one;
        assert_ok(tms_awq_search(&found, &layer, 1, mean, WIDE, hessian, &options, NULL, NULL, pool, &err), err);
        assert_ok(tms_awq_clip(layer.w, HIDDEN, WIDE, hessian, &options, limits[round > 0], pool, &err), err);
        if (round == 0) {
            first = found;
            continue;
        }
        assert_same_bytes(found.losses, first.losses, sizeof first.losses, "losses");
        assert_same_bytes(found.scales, first.scales, WIDE * sizeof(float), "scales");
        assert_same_bytes(limits[1], limits[0], sizeof limits[0], "limits");
        tms_awq_scales_free(&found);
    }
    tms_cpu_force(levels[sizeof levels / sizeof *levels - 1]);
    tms_awq_scales_free(&first);
    options.group = 100;
    assert_int_equal(tms_awq_search(&found, &layer, 1, mean, WIDE, hessian, &options, NULL, NULL, one, &err),
                     TMS_EUSAGE);
    assert_string_equal(err.message, "groups of 100 do not divide rows of 192");
    free(mean);
    tms_hessian_free(hessian);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_ratios_and_scales_are_those_of_autoawq),
        cmocka_unit_test(clip_limits_are_those_of_autoawq),
        cmocka_unit_test(final_codes_are_exact_given_scales_and_limits),
        cmocka_unit_test(rounding_in_half_is_exact_on_odd_rows),
        cmocka_unit_test(norms_that_store_one_less_are_divided_whole),
        cmocka_unit_test(last_rows_of_a_fused_layer_are_divided),
        cmocka_unit_test(search_is_the_same_bits_on_every_machine),
    };
    return cmocka_run_group_tests(tests, run_model, free_model);
}
