/* Whether the program that a folder was written for will load it: tms_check_reader of <tamis/tamis.h>.
 *
 * Rules as their sources have them: vLLM (its loaders of GPTQ, AWQ, compressed-tensors), transformers 5.23,
 * GPTQModel 7.7, AutoAWQ 0.2.9. What a reader does slowly, or in another way, but rightly, is no finding. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <tamis/tamis.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/packed.h"
#include "model/packed_grid.h"
#include "target/linear_target.h"

enum reader { VLLM, TRANSFORMERS, GPTQMODEL, AUTOAWQ, N_READERS };
static const char *const reader_names[N_READERS] = {"vllm", "transformers", "gptqmodel", "autoawq"};

struct check {
    const struct tms_source *source;
    enum reader reader;
    const json_t *config; /* quantization_config; NULL if there is none */
    tms_line_fn finding;
    void *finding_ctx;
    size_t n_findings;
};

static void found(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void found(struct check *c, const char *format, ...)
{
    char text[900];
    struct tms_error line;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tms_set_message(&line, "%s: for %s: %s", c->source->path, reader_names[c->reader], text);
    c->n_findings++;
    if (c->finding) c->finding(c->finding_ctx, line.message);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* ---- layers that are named as not quantized ---- */

/* As Python's re.match: from the start of the name. */
static bool matches(const char *pattern, const char *name)
{
    int code;
    size_t at;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED, &code, &at, NULL);
    pcre2_match_data *match = compiled ? pcre2_match_data_create(1, NULL) : NULL;
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    if (context) pcre2_set_match_limit(context, 100000);
    bool yes = match && context && pcre2_match(compiled, (PCRE2_SPTR)name, strlen(name), 0, 0, match, context) >= 0;
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
    pcre2_code_free(compiled);
    return yes;
}

/* compressed-tensors: names, or "re:" and an expression. AWQ: parts of names. GPTQ: "-:" and an expression. */
static bool is_left_out(const struct check *c, enum tms_grid_family family, const char *module)
{
    const char *key;
    size_t i;
    json_t *entry;
    if (family == TMS_FAMILY_GPTQ) {
        json_object_foreach((json_t *)json_object_get(c->config, "dynamic"), key,
                            entry) if (strncmp(key, "-:", 2) == 0 && matches(key + 2, module)) return true;
        return false;
    }
    const json_t *list = json_object_get(c->config, family == TMS_FAMILY_CT ? "ignore" : "modules_to_not_convert");
    json_array_foreach(list, i, entry)
    {
        const char *text = json_string_value(entry);
        if (!text) continue;
        if (family == TMS_FAMILY_AWQ
                ? strstr(module, text) != NULL
                : strcmp(module, text) == 0 || (strncmp(text, "re:", 3) == 0 && matches(text + 3, module)))
            return true;
    }
    return false;
}

static void check_left_out(struct check *c, enum tms_grid_family family)
{
    static const char *const lists[] = {"'dynamic'", "'modules_to_not_convert'", "'ignore'"};
    for (size_t i = 0; i < c->source->n_tensors; i++) {
        const struct tms_tensor *t = &c->source->tensors[i];
        char module[TMS_ST_MAX_NAME + 1];
        if (t->is_scale || t->packed || !tms_linear_is_module(t->name, t->n_dims)) continue;
        bool head = strncmp(t->name, "lm_head.", 8) == 0;
        if (family != TMS_FAMILY_CT && head) continue;
        if (family == TMS_FAMILY_GPTQ && !tms_linear_is(t->name)) continue; /* routers: known to the readers */
        snprintf(module, sizeof module, "%.*s", (int)(strlen(t->name) - strlen(".weight")), t->name);
        if (!is_left_out(c, family, module))
            found(c, "'%s' is not quantized, and %s does not name it", module, lists[family]);
    }
}

/* ---- layers that vLLM makes one of ---- */

static const struct tms_tensor *sibling(const struct check *c, const char *name, const char *part, const char *other)
{
    char text[TMS_ST_MAX_NAME + 32];
    const char *at = strstr(name, part);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - name), name, other, at + strlen(part));
    return tms_source_find(c->source, text);
}

static const char *type_of(const struct tms_tensor *t)
{
    return t->packed && t->packed->grid ? t->packed->grid->type : "not quantized";
}

static void check_fused(struct check *c)
{
    static const char *const sets[][3] = {
        {".q_proj.", ".k_proj.", ".v_proj."}, {".gate_proj.", ".up_proj.", NULL}, {".w1.", ".w3.", NULL}};
    for (size_t i = 0; i < c->source->n_tensors; i++) {
        const struct tms_tensor *t = &c->source->tensors[i];
        if (t->is_scale || !tms_ends_with(t->name, ".weight")) continue;
        for (size_t set = 0; set < 3; set++) {
            if (!strstr(t->name, sets[set][0])) continue;
            for (size_t k = 1; k < 3 && sets[set][k]; k++) {
                const struct tms_tensor *other = sibling(c, t->name, sets[set][0], sets[set][k]);
                if (!other) continue;
                if (strcmp(type_of(t), type_of(other)) != 0)
                    found(c, "'%s' is %s and '%s' %s: vLLM makes one matrix of them, and they must be alike", t->name,
                          type_of(t), other->name, type_of(other));
                else if (t->packed && t->packed->grid && t->packed->grid->global != other->packed->grid->global)
                    found(c, "'%s' and '%s' have different weight_global_scale: vLLM makes one matrix of them", t->name,
                          other->name);
            }
        }
    }
}

/* ---- one layer ---- */

/* A zero point of 0 is stored as -1 in v1: it borrows from its neighbour, and kernels that add 1 to a field read 16. */
static tms_status check_v1_zeros(struct check *c, const struct tms_tensor *t, struct tms_error *err)
{
    const struct tms_packed_grid *p = t->packed->grid;
    const uint64_t groups = tms_grid_groups(&p->grid), step = tms_packed_grid_unit_rows(p);
    float *scales = tms_calloc(step * groups, sizeof *scales);
    uint8_t *zeros = tms_calloc(step * groups, 1);
    uint64_t n_zero = 0;
    tms_status status = scales && zeros ? TMS_OK : tms_fail_memory(err, step * groups * 5);
    for (uint64_t row = 0; row < p->grid.rows && status == TMS_OK; row += step) {
        uint64_t n = p->grid.rows - row < step ? p->grid.rows - row : step;
        status = tms_packed_grid_scales(c->source, p, row, n, scales, zeros, err);
        for (uint64_t i = 0; i < n * groups && status == TMS_OK; i++) n_zero += zeros[i] == 0;
    }
    if (n_zero)
        found(c, "'%s' has %llu zero points of 0, which checkpoint_format gptq cannot hold safely; write gptq_v2",
              p->stored_name, (unsigned long long)n_zero);
    free(scales);
    free(zeros);
    return status;
}

static tms_status check_gptq_layer(struct check *c, const struct tms_tensor *t, struct tms_error *err)
{
    const struct tms_packed_grid *p = t->packed->grid;
    const char *scales = c->source->tensors[p->scales].name;
    char g_idx[TMS_ST_MAX_NAME + 16];
    snprintf(g_idx, sizeof g_idx, "%.*sg_idx", (int)(strlen(scales) - strlen("scales")), scales);
    if (p->grid.rows % 32 != 0)
        found(c, "'%s' has %llu outputs, no multiple of 32", p->stored_name, (unsigned long long)p->grid.rows);
    if (c->reader == VLLM && p->grid.cols % p->grid.group != 0)
        found(c, "'%s': groups of %llu do not divide its %llu inputs", p->stored_name,
              (unsigned long long)p->grid.group, (unsigned long long)p->grid.cols);
    bool wants_order = c->reader != VLLM || json_is_true(json_object_get(c->config, "desc_act"));
    if (wants_order && !tms_source_find(c->source, g_idx)) found(c, "tensor '%s' is missing", g_idx);
    if (p->grid.group_of && !json_is_true(json_object_get(c->config, "desc_act")))
        found(c, "'%s' has its groups in an order of its own, and the config says desc_act false", p->stored_name);
    return p->v1 && c->reader == VLLM ? check_v1_zeros(c, t, err) : TMS_OK;
}

static void check_awq_layer(struct check *c, const struct tms_tensor *t)
{
    const struct tms_packed_grid *p = t->packed->grid;
    uint64_t outputs = c->reader == AUTOAWQ ? 32 : 8;
    if (p->grid.rows % outputs != 0)
        found(c, "'%s' has %llu outputs, no multiple of %llu", p->stored_name, (unsigned long long)p->grid.rows,
              (unsigned long long)outputs);
    if (p->grid.cols % p->grid.group != 0)
        found(c, "'%s': groups of %llu do not divide its %llu inputs", p->stored_name,
              (unsigned long long)p->grid.group, (unsigned long long)p->grid.cols);
    if (c->source->tensors[p->scales].type != TMS_F16)
        found(c, "tensor '%s' is not F16", c->source->tensors[p->scales].name);
}

static void check_ct_layer(struct check *c, const struct tms_tensor *t)
{
    const struct tms_packed_grid *p = t->packed->grid;
    const struct tms_grid *g = &p->grid;
    if (g->cols % g->group != 0 && g->scale_rows == 1)
        found(c, "'%s': groups of %llu do not divide its %llu inputs", p->stored_name, (unsigned long long)g->group,
              (unsigned long long)g->cols);
    if (g->group_of)
        found(c, "'%s' has a weight_g_idx, which compressed-tensors reads no longer (since 0.20)", p->stored_name);
    if (g->layout == TMS_GRID_PADDED && 32 % g->bits != 0)
        found(c,
              "'%s' has %u-bit codes padded to words, as compressed-tensors wrote them before 0.18; newer ones read "
              "them wrongly",
              p->stored_name, g->bits);
    if (c->reader == TRANSFORMERS && g->has_zeros && !p->zero_bytes)
        found(c, "'%s' has packed zero points, which transformers (5.23) expects unpacked and refuses", p->stored_name);
}

/* ---- the config ---- */

static void want_keys(struct check *c, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!json_object_get(c->config, keys[i])) found(c, "the config lacks '%s'", keys[i]);
}

static void check_gptq_config(struct check *c)
{
    static const char *const keys[] = {"bits", "group_size", "desc_act", "sym"};
    const char *name;
    json_t *value;
    bool overrides = false;
    want_keys(c, keys, sizeof keys / sizeof *keys);
    json_object_foreach((json_t *)json_object_get(c->config, "dynamic"), name, value) overrides = true;
    if (c->reader == TRANSFORMERS && overrides)
        found(c, "'dynamic' gives layers settings of their own, which transformers ignores");
    if (c->reader == AUTOAWQ) found(c, "quant_method gptq is not read");
}

static void check_awq_config(struct check *c)
{
    static const char *const keys[] = {"group_size", "zero_point"};
    want_keys(c, keys, sizeof keys / sizeof *keys);
    if (!json_object_get(c->config, "bits") && !json_object_get(c->config, "w_bit"))
        found(c, "the config lacks 'bits'");
    if (json_is_false(json_object_get(c->config, "zero_point")))
        found(c, "zero_point is false: version gemm has zero points always");
}

static void check_ct_config(struct check *c)
{
    if (c->reader == AUTOAWQ || c->reader == GPTQMODEL) found(c, "quant_method compressed-tensors is not read");
    if (!json_object_size(json_object_get(c->config, "config_groups"))) found(c, "the config lacks 'config_groups'");
    if (!text_of(c->config, "format")[0]) found(c, "the config lacks 'format'");
    if (strcmp(text_of(c->config, "quantization_status"), "compressed") != 0)
        found(c, "quantization_status is not 'compressed'");
}

static tms_status check_layers(struct check *c, struct tms_error *err)
{
    tms_status status = TMS_OK;
    for (size_t i = 0; i < c->source->n_tensors && status == TMS_OK; i++) {
        const struct tms_tensor *t = &c->source->tensors[i];
        if (!t->packed || !t->packed->grid) continue;
        switch (t->packed->grid->family) {
        case TMS_FAMILY_GPTQ: status = check_gptq_layer(c, t, err); break;
        case TMS_FAMILY_AWQ: check_awq_layer(c, t); break;
        case TMS_FAMILY_CT: check_ct_layer(c, t); break;
        }
    }
    return status;
}

/* ---- the whole ---- */

/* Loaders of old releases refuse files that do not say which library's tensors they hold. */
static void check_metadata(struct check *c)
{
    for (size_t i = 0; c->source->hf && i < c->source->hf->n_shards; i++) {
        const struct tms_safetensors *st = c->source->hf->shards[i];
        bool has = false;
        for (size_t k = 0; k < st->n_metadata; k++) has |= strcmp(st->metadata[k].key, "format") == 0;
        if (!has) found(c, "%s lacks the metadata \"format\": \"pt\"", tms_path_base(st->file.path));
    }
}

static tms_status check_folder(struct check *c, struct tms_error *err)
{
    const char *method = c->source->config.quant_method;
    tms_status status = TMS_OK;
    check_metadata(c);
    if (!method[0]) {
        if (c->reader == GPTQMODEL || c->reader == AUTOAWQ) found(c, "it is not quantized (no quantization_config)");
        return TMS_OK;
    }
    enum tms_grid_family family = TMS_FAMILY_CT;
    if (strcmp(method, "gptq") == 0) {
        family = TMS_FAMILY_GPTQ;
        check_gptq_config(c);
    } else if (strcmp(method, "awq") == 0) {
        family = TMS_FAMILY_AWQ;
        check_awq_config(c);
    } else if (strcmp(method, "compressed-tensors") == 0) {
        check_ct_config(c);
    } else if (c->reader == GPTQMODEL || c->reader == AUTOAWQ) {
        found(c, "quant_method %s is not read", method);
        return TMS_OK;
    } else {
        return TMS_OK; /* bitsandbytes, fp8: no rules beyond those of check itself */
    }
    status = check_layers(c, err);
    if (status == TMS_OK) check_left_out(c, family);
    if (status == TMS_OK && c->reader == VLLM) check_fused(c);
    return status;
}

tms_status tms_check_reader(const char *path, const char *reader, tms_line_fn finding, void *finding_ctx,
                            size_t *n_findings, struct tms_error *err)
{
    struct check c = {.finding = finding, .finding_ctx = finding_ctx};
    struct tms_source *source = NULL;
    while (c.reader < N_READERS && strcmp(reader, reader_names[c.reader]) != 0) c.reader++;
    if (c.reader == N_READERS)
        return tms_fail(err, TMS_EUSAGE, "--for '%s': expected vllm, transformers, gptqmodel or autoawq", reader);
    tms_status status = tms_source_open(&source, path, NULL, NULL, err);
    if (status != TMS_OK) return status;
    c.source = source;
    json_t *own = NULL;
    c.config = json_object_get(source->config_json, "quantization_config");
    if (!c.config && source->config.quant_method[0]) {
        char *file = tms_path_join(path, "quantize_config.json");
        own = file ? json_load_file(file, 0, NULL) : NULL;
        free(file);
        c.config = own;
        if (c.reader == VLLM || c.reader == TRANSFORMERS)
            found(&c, "config.json has no quantization_config, only quantize_config.json has one");
    }
    if (source->kind == TMS_SOURCE_GGUF && c.reader != VLLM && c.reader != TRANSFORMERS)
        found(&c, "GGUF files are not read");
    else if (source->kind == TMS_SOURCE_HF && !source->has_config)
        found(&c, "needs the whole folder (config.json)");
    else if (source->kind == TMS_SOURCE_HF)
        status = check_folder(&c, err);
    json_decref(own);
    tms_source_close(source);
    if (status == TMS_OK) *n_findings = c.n_findings;
    return status;
}
