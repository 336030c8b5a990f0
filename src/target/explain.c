/* What a type is and what it does to real weights: tms_explain… of <tamis/tamis.h>. */
#include <tamis/tamis.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/sums.h"
#include "codec/layouts.h"
#include "model/source.h"
#include "plan/spec.h"

#define RANGE_VALUES (1u << 18)

bool tms_explain_at(size_t i, struct tms_explanation *out)
{
    const struct tms_layout *layout = tms_layout_at(i);
    if (!layout) return false;
    const struct tms_codec *codec = tms_codec_by_name(layout->name);
    *out = (struct tms_explanation){.name = layout->name,
                                    .id = codec && codec->id < TMS_GGML_TYPES ? (int)codec->id : -1,
                                    .what = layout->what,
                                    .formula = layout->formula,
                                    .readers = layout->readers,
                                    .block_elems = codec ? codec->block_elems : layout->block_elems,
                                    .bits_per_weight = layout->bits_per_weight,
                                    .code_bits = layout->code_bits,
                                    .group = layout->group,
                                    .fields = layout->items,
                                    .decodes = !codec || codec->decode,
                                    .encodes = !codec || codec->encode || codec->encode_weighted,
                                    .wants_importance = codec && !codec->encode && codec->encode_weighted};
    while (out->n_fields < sizeof layout->items / sizeof *layout->items && layout->items[out->n_fields].bytes)
        out->block_bytes += layout->items[out->n_fields++].bytes;
    if (codec && codec->block_bytes) out->bits_per_weight = 8.0 * codec->block_bytes / codec->block_elems;
    return true;
}

bool tms_explain(const char *type, struct tms_explanation *out)
{
    for (size_t i = 0; tms_explain_at(i, out); i++)
        if (strcasecmp(out->name, type) == 0) return true;
    const struct tms_file_type *ftype = tms_file_type(type);
    if (ftype && ftype->type != TMS_TYPE_NONE && tms_explain(tms_codec(ftype->type)->name, out)) {
        out->file_type = ftype->name;
        out->file_type_says = ftype->explanation;
        return true;
    }
    return false;
}

/* ---- what it does to a tensor ---- */

struct measure {
    const struct tms_source *source;
    const struct tms_tensor *tensor;
    const struct tms_codec *codec; /* NULL: bitsandbytes */
    struct tms_spec spec;          /* bitsandbytes */
    struct tms_explain_errors *errors;
    uint64_t step; /* values of a range: whole rows, whole blocks */
    void *raw;
    uint8_t *codes;
    float *x, *back, *ones, *absmax;
    float low, high; /* of the whole tensor, 0 among them */
    double squared_x, squared_type, squared[3];
};

/* Error of n values as integers with one scale and zero point, whose range is [low, high]. */
static double integer_error(const float *x, float *back, uint64_t n, float low, float high, uint32_t bits)
{
    float top = (float)((1u << bits) - 1), scale = (high - low) / top;
    if (!(scale > 0)) return 0; /* all zero */
    float zero_point = nearbyintf(-low / scale);
    for (uint64_t i = 0; i < n; i++) {
        float q = nearbyintf(x[i] / scale) + zero_point;
        q = q < 0 ? 0 : q > top ? top : q;
        back[i] = (q - zero_point) * scale;
    }
    return tms_squared_distance(x, back, n);
}

static void widen(const float *x, uint64_t n, float *low, float *high)
{
    for (uint64_t i = 0; i < n; i++) {
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
}

static double integer_error_of_groups(const float *x, float *back, uint64_t n, uint64_t group, uint32_t bits)
{
    double sum = 0;
    for (uint64_t first = 0; first < n; first += group) {
        uint64_t count = n - first < group ? n - first : group;
        float low = 0, high = 0;
        widen(x + first, count, &low, &high);
        sum += integer_error(x + first, back, count, low, high, bits);
    }
    return sum;
}

/* Decodes in m->back what the type makes of n values from `first` on. */
static void through_type(struct measure *m, uint64_t first, uint64_t n)
{
    uint64_t cols = m->errors->cols ? m->errors->cols : 1;
    if (m->codec) {
        if (m->codec->encode)
            m->codec->encode(m->x, m->codes, n);
        else
            m->codec->encode_weighted(m->x, m->ones, m->codes, n / cols, cols);
        m->codec->decode(m->codes, m->back, n);
    } else if (m->spec.dialect == TMS_DIALECT_BNB8) {
        for (uint64_t row = 0; row < n / cols; row++) {
            float scb;
            tms_bnb_encode_int8(m->x + row * cols, cols, (int8_t *)m->codes, &scb);
            tms_bnb_decode_int8((const int8_t *)m->codes, scb, m->back + row * cols, cols);
        }
    } else { /* with double quantization the first pass left the absmax values that are stored */
        uint64_t block = m->spec.block_size;
        float *absmax = m->absmax + first / block;
        float *fresh = m->spec.double_quant ? m->back : absmax;
        tms_bnb_encode4(m->spec.kind, (uint32_t)block, m->x, n, m->codes, fresh);
        tms_bnb_decode4(tms_bnb_map(m->spec.kind), (uint32_t)block, m->codes, absmax, m->back, n);
    }
}

static tms_status each_range(struct measure *m, void (*visit)(struct measure *, uint64_t first, uint64_t n),
                             struct tms_error *err)
{
    tms_status status = TMS_OK;
    uint64_t all = m->tensor->n_weights;
    for (uint64_t first = 0; first < all && status == TMS_OK; first += m->step) {
        uint64_t n = all - first < m->step ? all - first : m->step;
        status = tms_source_read(m->source, m->tensor, first, n, m->raw, m->x, err);
        if (status == TMS_OK) visit(m, first, n);
    }
    return status;
}

static void look(struct measure *m, uint64_t first, uint64_t n)
{
    widen(m->x, n, &m->low, &m->high);
    m->squared_x += tms_squared_norm(m->x, n);
    if (!m->codec && m->spec.double_quant && m->errors->has_type)
        tms_bnb_encode4(m->spec.kind, m->spec.block_size, m->x, n, m->codes, m->absmax + first / m->spec.block_size);
}

static void compare(struct measure *m, uint64_t first, uint64_t n)
{
    struct tms_explain_errors *e = m->errors;
    if (e->has_type) {
        through_type(m, first, n);
        m->squared_type += tms_squared_distance(m->x, m->back, n);
    }
    if (!e->bits || !e->cols) return;
    m->squared[0] += integer_error(m->x, m->back, n, m->low, m->high, e->bits);
    m->squared[1] += integer_error_of_groups(m->x, m->back, n, e->cols, e->bits);
    /* rows are read whole, so groups must not run over their ends */
    for (uint64_t row = 0; row < n / e->cols; row++)
        m->squared[2] += integer_error_of_groups(m->x + row * e->cols, m->back, e->cols, e->group, e->bits);
}

/* Double quantization needs all absmax values of the tensor. */
static tms_status quantize_absmax(struct measure *m, struct tms_error *err)
{
    if (m->codec || !m->spec.double_quant || !m->errors->has_type) return TMS_OK;
    uint64_t n = (m->tensor->n_weights + m->spec.block_size - 1) / m->spec.block_size;
    uint8_t *codes = tms_calloc(n, 1);
    float *nested = tms_calloc(n / TMS_BNB_NESTED_BLOCK + 1, sizeof *nested), offset;
    if (codes && nested) {
        tms_bnb_encode_absmax(m->absmax, n, codes, nested, &offset);
        tms_bnb_decode_absmax(tms_bnb_dynamic_map, TMS_BNB_NESTED_BLOCK, codes, nested, offset, m->absmax, n);
    }
    tms_status status = codes && nested ? TMS_OK : tms_fail_memory(err, n);
    free(codes);
    free(nested);
    return status;
}

static tms_status measure(struct measure *m, struct tms_error *err)
{
    const struct tms_tensor *t = m->tensor;
    struct tms_explain_errors *e = m->errors;
    uint64_t all = t->n_weights, block = m->codec ? m->codec->block_elems : m->spec.block_size;
    uint64_t unit = tms_common_multiple(tms_common_multiple(tms_source_unit(t), e->cols, all), block, all);
    m->step = unit >= RANGE_VALUES ? unit : RANGE_VALUES / unit * unit;
    uint64_t n = m->step < all ? m->step : all;
    m->raw = malloc(tms_source_raw_bytes(t, n) + 1);
    m->x = tms_calloc(n, sizeof(float));
    m->back = tms_calloc(n, sizeof(float));
    m->ones = tms_calloc(e->cols, sizeof(float));
    m->codes = malloc((m->codec && m->codec->block_bytes ? tms_codec_bytes(m->codec, n) : n) + 1);
    m->absmax = tms_calloc(m->codec ? 1 : all / block + 1, sizeof(float));
    if (!m->raw || !m->x || !m->back || !m->ones || !m->codes || !m->absmax) return tms_fail_memory(err, n * 16);
    for (uint64_t i = 0; i < e->cols; i++) m->ones[i] = 1;
    tms_status status = each_range(m, look, err);
    if (status == TMS_OK) status = quantize_absmax(m, err);
    if (status == TMS_OK) status = each_range(m, compare, err);
    if (status != TMS_OK || !(m->squared_x > 0)) return status;
    e->type = sqrt(m->squared_type / m->squared_x);
    e->per_tensor = sqrt(m->squared[0] / m->squared_x);
    e->per_row = sqrt(m->squared[1] / m->squared_x);
    e->per_group = sqrt(m->squared[2] / m->squared_x);
    return TMS_OK;
}

tms_status tms_explain_measure(struct tms_explain_errors *out, const char *type, const char *model, const char *tensor,
                               struct tms_error *err)
{
    struct tms_explanation about;
    struct tms_explain_errors errors = {0};
    struct measure m = {.errors = &errors};
    struct tms_source *source = NULL;
    if (!tms_explain(type, &about))
        return tms_fail(err, TMS_EUSAGE, "'%s' is no type that tamis knows; `tamis types` lists them", type);
    m.codec = tms_codec_by_name(about.name);
    tms_status status = m.codec ? TMS_OK : tms_spec_parse(&m.spec, about.name, err);
    if (status == TMS_OK) status = tms_source_open(&source, model, NULL, NULL, err);
    if (status != TMS_OK) return status;
    m.source = source;
    m.tensor = tms_source_find(source, tensor);
    if (source->kind == TMS_SOURCE_CONFIG)
        status = tms_fail(err, TMS_EINPUT, "%s: holds no weights; give the folder", model);
    else if (!m.tensor)
        status = tms_fail(err, TMS_EINPUT, "%s: has no tensor '%s'; `tamis inspect` lists them", model, tensor);
    else if (!tms_source_decodes(m.tensor) || m.tensor->n_weights == 0)
        status = tms_fail(err, TMS_EINPUT, "%s: tensor '%s' has no values that tamis can decode", model, tensor);
    if (status == TMS_OK) {
        uint64_t shape[TMS_ST_MAX_DIMS];
        uint32_t n_dims = tms_source_shape(m.tensor, shape);
        errors.cols = n_dims && shape[n_dims - 1] ? shape[n_dims - 1] : 1;
        errors.rows = m.tensor->n_weights / errors.cols;
        errors.bits = about.code_bits;
        errors.group = about.group ? about.group : (uint32_t)(errors.cols < UINT32_MAX ? errors.cols : UINT32_MAX);
        errors.has_type = about.encodes && about.decodes && (!m.codec || errors.cols % m.codec->block_elems == 0);
        status = measure(&m, err);
    }
    free(m.raw);
    free(m.x);
    free(m.back);
    free(m.ones);
    free(m.codes);
    free(m.absmax);
    tms_source_close(source);
    if (status == TMS_OK) *out = errors;
    return status;
}
