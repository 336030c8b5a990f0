/* See packed_grid.h: which tensors belong together, and what their shapes say. Everything in a file is hostile until
 * it is checked here: afterwards every read stays inside its tensor. */
#include "model/packed_grid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "model/packed.h"

#define CONFIG_LIMIT (16u << 20) /* bytes of a quantize_config.json */
enum { MAX_SCHEMES = 64 };

/* What one config group of compressed-tensors says of weights. */
struct scheme {
    unsigned bits;
    bool is_float;
    uint64_t group, block[2];
};

struct finder {
    struct tms_source *s;
    struct tms_error *err;
    enum tms_grid_family family;
    bool v1, asymmetric;
    uint64_t group; /* GPTQ, AWQ: group_size; 0: whole rows, or not said */
    struct scheme schemes[MAX_SCHEMES];
    size_t n_schemes;
    bool found;
};

static tms_status fail(const struct finder *f, const struct tms_tensor *t, const char *problem)
{
    return tms_fail(f->err, TMS_EINPUT, "%s: tensor '%s': %s", f->s->files[t->file]->path, t->name, problem);
}

/* "PREFIX.PART" of the module that `t` belongs to. */
static struct tms_tensor *part(const struct finder *f, const char *module, const char *name)
{
    char text[TMS_ST_MAX_NAME + 64];
    snprintf(text, sizeof text, "%s.%s", module, name);
    const struct tms_tensor *found = tms_source_find(f->s, text);
    return found ? &f->s->tensors[found - f->s->tensors] : NULL;
}

static bool is_matrix(const struct tms_tensor *t, enum tms_type type)
{
    return t && t->type == type && t->n_dims == 2 && t->n_elems > 0;
}

static bool is_plain_scale(const struct tms_tensor *t)
{
    return t && (t->type == TMS_F16 || t->type == TMS_BF16 || t->type == TMS_F32) && t->n_elems > 0;
}

/* The tensor of codes becomes the weight. */
static tms_status settle(struct finder *f, struct tms_tensor *t, const char *module, const struct tms_packed_grid *grid)
{
    struct tms_source *s = f->s;
    char name[TMS_ST_MAX_NAME + 16];
    snprintf(name, sizeof name, "%s.weight", module);
    const struct tms_tensor *other = tms_source_find(s, name);
    if (other && other != t) return fail(f, t, "stands beside a '.weight' of the same layer: which of them counts?");
    if (tms_grid_code_bytes(&grid->grid, grid->grid.rows) != t->bytes)
        return fail(f, t, "its size does not fit its shape"); /* cannot be: shapes were compared */
    struct tms_packed *packed = tms_arena_alloc(&s->arena, sizeof *packed);
    struct tms_packed_grid *own = tms_arena_alloc(&s->arena, sizeof *own);
    char *weight = tms_arena_strndup(&s->arena, name, strlen(name));
    if (!packed || !own || !weight) return tms_fail_memory(f->err, sizeof *own);
    *own = *grid;
    own->stored_name = weight; /* names change places when all are found: until then they are sorted */
    own->stored_dims = t->n_dims;
    own->stored_shape[0] = t->shape[0];
    own->stored_shape[1] = t->n_dims > 1 ? t->shape[1] : 1;
    packed->grid = own;
    packed->shape[0] = t->rows = grid->grid.rows;
    packed->shape[1] = t->cols = grid->grid.cols;
    t->shape[0] = t->rows;
    t->shape[1] = t->cols;
    t->n_dims = 2;
    t->n_elems = t->n_weights = t->rows * t->cols;
    t->packed = packed;
    f->found = true;
    return TMS_OK;
}

/* ---- groups ---- */

/* The group that gives `groups` groups in `cols` columns: what the config says if it fits, else an even cut; 0 if none
 * fits. */
static uint64_t group_of_count(uint64_t cols, uint64_t groups, uint64_t said)
{
    if (groups == 0 || groups > cols) return 0;
    if (said && said <= cols && (cols + said - 1) / said == groups) return said;
    if (groups == 1) return cols;
    return cols % groups == 0 ? cols / groups : 0;
}

/* g_idx, if it is not what columns / group gives. */
static tms_status read_groups(struct finder *f, const struct tms_tensor *t, uint64_t n_groups, struct tms_grid *grid)
{
    struct tms_source *s = f->s;
    if (t->type != TMS_I32 || t->n_elems != grid->cols)
        return fail(f, t, "expected one I32 for every input of the layer");
    uint32_t *groups = tms_arena_alloc(&s->arena, (size_t)t->bytes);
    if (!groups) return tms_fail_memory(f->err, t->bytes);
    tms_status status = tms_file_read(s->files[t->file], groups, t->bytes, t->offset, f->err);
    if (status != TMS_OK) return status;
    bool in_order = true;
    for (uint64_t i = 0; i < grid->cols; i++) {
        if ((int32_t)groups[i] < 0 && (int64_t)(int32_t)groups[i] + (int64_t)n_groups >= 0)
            groups[i] = (uint32_t)((int64_t)(int32_t)groups[i] + (int64_t)n_groups); /* counted from the end */
        if (groups[i] >= n_groups)
            return tms_fail(f->err, TMS_EINPUT, "%s: tensor '%s' element %llu: group %d of %llu",
                            s->files[t->file]->path, t->name, (unsigned long long)i, (int)groups[i],
                            (unsigned long long)n_groups);
        in_order &= groups[i] == i / grid->group;
    }
    if (!in_order) grid->group_of = groups;
    return TMS_OK;
}

/* ":g128" as --to has it: the group that the config says, for all layers alike, else what the layer has. */
static void name_group(char *out, size_t size, uint64_t said, const struct tms_grid *grid)
{
    uint64_t group = said ? said : grid->group < grid->cols ? grid->group : 0;
    if (group)
        snprintf(out, size, ":g%u", (unsigned)group);
    else
        snprintf(out, size, ":channel");
}

/* ---- GPTQ and AWQ ---- */

static tms_status find_gptq(struct finder *f, struct tms_tensor *t, const char *module)
{
    const bool awq = f->family == TMS_FAMILY_AWQ;
    struct tms_tensor *scales = part(f, module, "scales"), *zeros = part(f, module, "qzeros"),
                      *g_idx = awq ? NULL : part(f, module, "g_idx");
    if (!is_matrix(t, TMS_I32)) return fail(f, t, "expected a matrix of I32");
    if (!scales || !zeros) return fail(f, t, scales ? "its 'qzeros' are missing" : "its 'scales' are missing");
    if (!is_plain_scale(scales) || scales->n_dims != 2) return fail(f, scales, "expected F16 [groups, outputs]");
    uint64_t rows = scales->cols, groups = scales->rows;
    if (!is_matrix(zeros, TMS_I32) || zeros->rows != groups)
        return fail(f, zeros, "expected I32 [groups, outputs * bits / 32], with the groups of 'scales'");
    uint64_t bits = rows ? zeros->cols * 32 / rows : 0;
    if ((bits != 2 && bits != 3 && bits != 4 && bits != 8) || zeros->cols * 32 != rows * bits || (awq && bits != 4))
        return tms_fail(f->err, TMS_EINPUT,
                        "%s: tensor '%s': %llu words for %llu outputs are no zero points of %s bits",
                        f->s->files[zeros->file]->path, zeros->name, (unsigned long long)zeros->cols,
                        (unsigned long long)rows, awq ? "4" : "2, 3, 4 or 8");
    uint64_t cols = awq ? t->rows : t->rows * 32 / bits;
    if (awq ? t->cols * 8 != rows : t->cols != rows || t->rows * 32 != cols * bits)
        return fail(f, t,
                    awq ? "expected I32 [inputs, outputs / 8], with the outputs of 'scales'"
                        : "expected I32 [inputs * bits / 32, outputs], with the outputs of 'scales'");
    if (cols % 32 != 0) return fail(f, t, "its layer's inputs are no multiple of 32");
    struct tms_packed_grid p = {.family = f->family,
                                .v1 = f->v1,
                                .scales = (size_t)(scales - f->s->tensors),
                                .zeros = (size_t)(zeros - f->s->tensors)};
    p.grid = (struct tms_grid){.layout = awq ? TMS_GRID_AWQ : TMS_GRID_GPTQ,
                               .bits = (unsigned)bits,
                               .has_zeros = true,
                               .rows = rows,
                               .cols = cols,
                               .scale_rows = 1,
                               .group = group_of_count(cols, groups, f->group)};
    if (!p.grid.group)
        return tms_fail(f->err, TMS_EINPUT, "%s: tensor '%s': %llu groups do not fit %llu inputs",
                        f->s->files[scales->file]->path, scales->name, (unsigned long long)groups,
                        (unsigned long long)cols);
    char group[24];
    tms_status status = g_idx ? read_groups(f, g_idx, groups, &p.grid) : TMS_OK;
    if (status != TMS_OK) return status;
    name_group(group, sizeof group, f->group, &p.grid);
    if (awq)
        snprintf(p.type, sizeof p.type, "awq%s", group);
    else
        snprintf(p.type, sizeof p.type, "gptq:%u%s%s%s", p.grid.bits, group, f->asymmetric ? ":asym" : "",
                 p.v1 == !f->asymmetric ? ""
                 : p.v1                 ? ":v1"
                                        : ":v2");
    scales->is_scale = zeros->is_scale = true;
    if (g_idx) g_idx->is_scale = true;
    return settle(f, t, module, &p);
}

/* ---- compressed-tensors ---- */

/* A scheme whose width gives rows of so many words; *padded: as before 0.18. */
static const struct scheme *scheme_of_words(const struct finder *f, uint64_t cols, uint64_t words, bool *padded)
{
    for (int old = 0; old < 2; old++)
        for (size_t i = 0; i < f->n_schemes; i++) {
            const struct scheme *s = &f->schemes[i];
            if (s->is_float || s->bits > 8) continue;
            uint64_t bytes = old ? tms_grid_padded_bytes(cols, s->bits) : tms_grid_stream_bytes(cols, s->bits);
            if (bytes != words * 4) continue;
            *padded = old;
            return s;
        }
    return NULL;
}

static const struct scheme *first_scheme(const struct finder *f, bool is_float, unsigned bits)
{
    for (size_t i = 0; i < f->n_schemes; i++)
        if (f->schemes[i].is_float == is_float && (!bits || f->schemes[i].bits == bits)) return &f->schemes[i];
    return NULL;
}

/* Scales: one, a column, groups of columns, or blocks. */
static tms_status set_scales(struct finder *f, const struct tms_tensor *t, const struct scheme *scheme,
                             struct tms_packed_grid *p)
{
    struct tms_grid *g = &p->grid;
    uint64_t rows = t->n_dims == 2 ? t->rows : t->n_elems, cols = t->n_dims == 2 ? t->cols : 1;
    g->group = g->cols;
    g->scale_rows = 1;
    if (t->n_dims > 2 || t->n_elems == 0) return fail(f, t, "is no matrix of scales");
    if (t->n_elems == 1) {
        g->scale_rows = g->rows;
    } else if (rows == g->rows) {
        g->group = group_of_count(g->cols, cols, scheme ? scheme->group : 0);
    } else {
        uint64_t h = scheme && scheme->block[0] ? scheme->block[0] : 128,
                 w = scheme && scheme->block[1] ? scheme->block[1] : 128;
        if (rows != (g->rows + h - 1) / h || cols != (g->cols + w - 1) / w)
            return fail(f, t, "is neither one scale, nor one for each row, group or block of its weight");
        g->scale_rows = h;
        g->group = w < g->cols ? w : g->cols;
    }
    if (!g->group) return fail(f, t, "its groups do not fit the columns of its weight");
    p->scales = (size_t)(t - f->s->tensors);
    return TMS_OK;
}

static tms_status set_zeros(struct finder *f, struct tms_tensor *z, struct tms_packed_grid *p)
{
    const struct tms_grid *g = &p->grid;
    uint64_t groups = tms_grid_groups(g), bits = g->bits, in_word = 32 / bits;
    uint64_t words = g->layout == TMS_GRID_PADDED ? (g->rows + in_word - 1) / in_word : (g->rows * bits + 31) / 32;
    bool bytes = z->type == TMS_I8 && z->n_elems == tms_grid_scale_rows(g) * groups && g->layout == TMS_GRID_BYTES;
    bool packed = z->type == TMS_I32 && z->n_dims == 2 && z->rows == words && z->cols == groups && g->scale_rows == 1;
    if (!bytes && !packed) return fail(f, z, "does not fit the groups of its weight");
    if (bytes && g->scale_rows != 1) return fail(f, z, "zero points that rows share are not supported");
    z->is_scale = true;
    p->zeros = (size_t)(z - f->s->tensors);
    p->zero_bytes = bytes;
    p->grid.has_zeros = true;
    return TMS_OK;
}

static void name_ct_type(struct tms_packed_grid *p, const struct scheme *scheme)
{
    const struct tms_grid *g = &p->grid;
    char group[24];
    name_group(group, sizeof group, scheme ? scheme->group : 0, g);
    if (g->values == TMS_GRID_E2M1)
        snprintf(p->type, sizeof p->type, p->exponents ? "mxfp4a16" : "nvfp4a16");
    else if (g->values == TMS_GRID_E2M3)
        snprintf(p->type, sizeof p->type, "mxfp6");
    else if (g->values == TMS_GRID_E4M3)
        snprintf(p->type, sizeof p->type, "%s%s", p->exponents ? "mxfp8" : "fp8",
                 p->exponents                 ? ""
                 : scheme && scheme->block[0] ? ":block"
                 : g->scale_rows >= g->rows   ? ":tensor"
                                              : "");
    else
        snprintf(p->type, sizeof p->type, "w%ua%s%s%s", g->bits, g->layout == TMS_GRID_BYTES ? "8" : "16",
                 g->layout == TMS_GRID_BYTES && strcmp(group, ":channel") == 0 ? "" : group,
                 g->has_zeros ? ":asym" : "");
}

/* weight_packed of integers: I32 and a shape. */
static tms_status find_words(struct finder *f, const struct tms_tensor *t, const char *module,
                             const struct scheme **scheme, struct tms_grid *g)
{
    struct tms_tensor *shape = part(f, module, "weight_shape");
    int64_t size[2];
    bool padded = false;
    if (!shape || shape->type != TMS_I64 || shape->n_elems != 2)
        return fail(f, t, "its 'weight_shape' is missing or is not I64 [2]");
    tms_status status = tms_file_read(f->s->files[shape->file], size, sizeof size, shape->offset, f->err);
    if (status != TMS_OK) return status;
    if (size[0] < 1 || size[1] < 1 || (uint64_t)size[0] != t->rows || (uint64_t)size[1] > t->cols * 32)
        return fail(f, shape, "does not fit its 'weight_packed'");
    g->rows = (uint64_t)size[0];
    g->cols = (uint64_t)size[1];
    *scheme = scheme_of_words(f, g->cols, t->cols, &padded);
    if (!*scheme) return fail(f, t, "its rows have not the length that any num_bits of the config gives");
    g->layout = padded ? TMS_GRID_PADDED : TMS_GRID_STREAM;
    g->bits = (*scheme)->bits;
    g->row_bytes = t->cols * 4;
    shape->is_scale = true;
    return TMS_OK;
}

/* weight_packed of 4- and 6-bit floats. */
static tms_status find_small_floats(struct finder *f, const struct tms_tensor *t, const char *module,
                                    const struct tms_tensor *scale, struct tms_packed_grid *p)
{
    struct tms_tensor *global = part(f, module, "weight_global_scale");
    bool six = !first_scheme(f, true, 4) && first_scheme(f, true, 6);
    p->grid.layout = TMS_GRID_STREAM;
    p->grid.values = six ? TMS_GRID_E2M3 : TMS_GRID_E2M1;
    p->grid.bits = six ? 6 : 4;
    p->grid.rows = t->rows;
    p->grid.cols = t->cols * 8 / p->grid.bits;
    p->grid.row_bytes = t->cols;
    p->exponents = scale->type == TMS_U8 || scale->type == TMS_F8_E8M0;
    if (six && t->cols % 3) return fail(f, t, "its rows are no multiple of 4 values of 6 bits");
    if (p->exponents) return TMS_OK;
    if (scale->type != TMS_F8_E4M3 || !global || global->type != TMS_F32 || global->n_elems != 1)
        return fail(f, t, "expected 'weight_scale' U8, or F8_E4M3 with 'weight_global_scale' F32 [1]");
    global->is_scale = true;
    tms_status status = tms_file_read(f->s->files[global->file], &p->global, sizeof p->global, global->offset, f->err);
    if (status == TMS_OK && !(p->global > 0)) return fail(f, global, "is not above 0");
    return status;
}

static tms_status find_ct(struct finder *f, struct tms_tensor *t, const char *module, bool packed)
{
    struct tms_tensor *scale = part(f, module, "weight_scale"), *zero = part(f, module, "weight_zero_point"),
                      *g_idx = part(f, module, "weight_g_idx");
    struct tms_packed_grid p = {.family = TMS_FAMILY_CT, .zeros = TMS_NO_SCALE};
    const struct scheme *scheme = NULL;
    tms_status status = TMS_OK;
    if (!scale) return fail(f, t, "its 'weight_scale' is missing");
    if (t->n_dims != 2 || t->n_elems == 0) return fail(f, t, "is no matrix");
    if (packed && t->type == TMS_I32) {
        status = find_words(f, t, module, &scheme, &p.grid);
    } else if (packed && t->type == TMS_U8) {
        status = find_small_floats(f, t, module, scale, &p);
    } else if (packed) {
        return fail(f, t, "expected I32 or U8");
    } else {
        p.exponents = scale->type == TMS_U8;
        p.grid.layout = TMS_GRID_BYTES;
        p.grid.values = t->type == TMS_I8 ? TMS_GRID_INT : TMS_GRID_E4M3;
        p.grid.bits = 8;
        p.grid.rows = t->rows;
        p.grid.cols = p.grid.row_bytes = t->cols;
        scheme = first_scheme(f, t->type != TMS_I8, 0);
        if (scheme && scheme->bits <= 8 && t->type == TMS_I8) p.grid.bits = scheme->bits;
    }
    if (status == TMS_OK && p.global == 0 && !p.exponents && !is_plain_scale(scale))
        return fail(f, scale, "expected BF16, F16 or F32");
    if (status == TMS_OK) status = set_scales(f, scale, scheme, &p);
    if (status == TMS_OK && zero && p.grid.values == TMS_GRID_INT) status = set_zeros(f, zero, &p);
    if (status == TMS_OK && g_idx) status = read_groups(f, g_idx, tms_grid_groups(&p.grid), &p.grid);
    if (status != TMS_OK) return status;
    scale->is_scale = true;
    if (g_idx) g_idx->is_scale = true;
    name_ct_type(&p, scheme);
    return settle(f, t, module, &p);
}

/* Scales of activations and of the cache: nothing that a weight needs. */
static bool is_runtime_scale(const char *name)
{
    static const char *const endings[] = {".input_scale",  ".input_zero_point", ".input_global_scale",
                                          ".output_scale", ".k_scale",          ".v_scale",
                                          ".q_scale",      ".weight_shape"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (tms_ends_with(name, endings[i])) return true;
    return false;
}

/* ---- the config ---- */

static void read_scheme(struct finder *f, const json_t *weights)
{
    json_int_t bits = json_integer_value(json_object_get(weights, "num_bits"));
    json_int_t group = json_integer_value(json_object_get(weights, "group_size"));
    const json_t *block = json_object_get(weights, "block_structure");
    const char *type = json_string_value(json_object_get(weights, "type"));
    if (f->n_schemes == MAX_SCHEMES || bits < 1 || bits > 8) return;
    struct scheme *s = &f->schemes[f->n_schemes++];
    *s = (struct scheme){.bits = (unsigned)bits,
                         .is_float = type && strcmp(type, "float") == 0,
                         .group = group > 0 ? (uint64_t)group : 0};
    for (size_t i = 0; i < 2; i++) {
        json_int_t n = json_integer_value(json_array_get(block, i));
        s->block[i] = n > 0 && n <= 1 << 20 ? (uint64_t)n : 0;
    }
}

static tms_status refuse(const struct finder *f, const char *what, const char *value)
{
    return tms_fail(f->err, TMS_EINPUT, "%s: its weights are quantized in a way that tamis cannot read: %s '%s'",
                    f->s->path, what, value);
}

static const char *text_of(const json_t *config, const char *key)
{
    const char *text = json_string_value(json_object_get(config, key));
    return text ? text : "";
}

/* *known: it is one of the three families. */
static tms_status read_config(struct finder *f, const json_t *q, const char *method, bool *known)
{
    const char *format = text_of(q, "checkpoint_format"), *packing = text_of(q, "packing_format");
    json_int_t group = json_integer_value(json_object_get(q, "group_size"));
    const char *name;
    json_t *value;
    if (!format[0]) format = text_of(q, "format");
    f->group = group > 0 ? (uint64_t)group : 0;
    *known = true;
    bool auto_round = strcmp(method, "auto-round") == 0 || strcmp(method, "intel/auto-round") == 0;
    if (strcmp(method, "awq") == 0 || (auto_round && strstr(packing, "awq"))) {
        const char *version = text_of(q, "version");
        f->family = TMS_FAMILY_AWQ;
        if (version[0] && strcmp(version, "gemm") != 0 && strcmp(version, "GEMM") != 0)
            return refuse(f, "AWQ version", version);
    } else if (strcmp(method, "gptq") == 0 || (auto_round && strstr(packing, "gptq"))) {
        f->family = TMS_FAMILY_GPTQ;
        f->v1 = strcmp(format, "gptq_v2") != 0;
        f->asymmetric = json_is_false(json_object_get(q, "sym"));
        if (!auto_round && format[0] && strcmp(format, "gptq") != 0 && strcmp(format, "gptq_v2") != 0)
            return refuse(f, "checkpoint_format", format);
    } else if (strcmp(method, "compressed-tensors") == 0) {
        f->family = TMS_FAMILY_CT;
        json_object_foreach(json_object_get(q, "config_groups"), name, value)
            read_scheme(f, json_object_get(value, "weights"));
        const char *sparsity = text_of(json_object_get(q, "sparsity_config"), "format");
        if (sparsity[0] && strcmp(sparsity, "dense") != 0) return refuse(f, "sparsity format", sparsity);
    } else {
        *known = false;
    }
    return TMS_OK;
}

/* Old folders of AutoGPTQ say it in quantize_config.json alone. */
static tms_status load_own_config(const struct finder *f, json_t **out)
{
    struct tms_source *s = f->s;
    if (!s->hf || !s->hf->dir) return TMS_OK;
    char *path = tms_path_join(s->path, "quantize_config.json");
    if (!path) return tms_fail_memory(f->err, 256);
    tms_status status = tms_path_exists(path) ? tms_json_load(out, path, CONFIG_LIMIT, f->err) : TMS_OK;
    free(path);
    return status;
}

tms_status tms_packed_grid_find(struct tms_source *source, bool *renamed, struct tms_error *err)
{
    struct finder f = {.s = source, .err = err};
    json_t *own = NULL;
    const json_t *config = json_object_get(source->config_json, "quantization_config");
    const char *method = source->config.quant_method;
    bool known = false;
    tms_status status = TMS_OK;
    *renamed = false;
    if (!source->has_config || source->kind != TMS_SOURCE_HF) return TMS_OK;
    if (!method[0]) {
        status = load_own_config(&f, &own);
        config = own;
        method = "gptq";
        if (status == TMS_OK && !json_is_object(config)) {
            json_decref(own);
            return TMS_OK;
        }
    }
    if (status == TMS_OK) status = read_config(&f, config, method, &known);
    for (size_t i = 0; i < source->n_tensors && status == TMS_OK && known; i++) {
        struct tms_tensor *t = &source->tensors[i];
        static const char *const endings[] = {".qweight", ".weight_packed", ".weight"};
        const bool ct = f.family == TMS_FAMILY_CT;
        t->is_scale |= ct && is_runtime_scale(t->name);
        for (size_t k = 0; k < 3; k++) {
            if (!tms_ends_with(t->name, endings[k]) || ct == (k == 0)) continue;
            if (k == 2 && t->type != TMS_I8 && t->type != TMS_F8_E4M3) continue;
            char module[TMS_ST_MAX_NAME + 1];
            snprintf(module, sizeof module, "%.*s", (int)(strlen(t->name) - strlen(endings[k])), t->name);
            status = ct ? find_ct(&f, t, module, k == 1) : find_gptq(&f, t, module);
            break;
        }
    }
    for (size_t i = 0; i < source->n_tensors && status == TMS_OK; i++) {
        struct tms_tensor *t = &source->tensors[i];
        if (!t->packed || !t->packed->grid) continue;
        struct tms_packed_grid *grid = t->packed->grid;
        const char *weight = grid->stored_name;
        grid->stored_name = t->name;
        t->name = weight;
    }
    if (status == TMS_OK && f.found && !source->config.quant_method[0])
        snprintf(source->config.quant_method, sizeof source->config.quant_method, "%s", method);
    json_decref(own);
    *renamed = f.found;
    return status;
}
