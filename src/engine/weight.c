/* See weight.h. */
#include "engine/weight.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/coded.h"
#include "engine/kernels/dots.h"
#include "model/packed_grid.h"

tms_status tms_weight_init(struct tms_weight *out, const struct tms_source *source, const struct tms_tensor *tensor,
                           struct tms_error *err)
{
    uint64_t shape[TMS_ST_MAX_DIMS];
    uint32_t n_dims = tms_source_shape(tensor, shape);
    if (!tms_source_decodes(tensor)) {
        const struct tms_codec *codec = tms_codec(tensor->type);
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': type %s cannot be decoded to run the model",
                        source->files[tensor->file]->path, tensor->name, codec ? codec->name : "unknown");
    }
    *out = (struct tms_weight){.source = source,
                               .tensor = tensor,
                               .rows = tensor->packed ? shape[0] : tensor->rows,
                               .cols = shape[n_dims ? n_dims - 1 : 0]};
    return TMS_OK;
}

void tms_weight_part(struct tms_weight *weight, uint64_t first, uint64_t n)
{
    weight->first_row += first;
    weight->rows = n;
}

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static uint64_t count_scales(const struct tms_weight *w)
{
    const struct tms_packed *p = w->tensor->packed;
    if (p && p->grid) { /* zero points, a byte each, stand behind the scales */
        uint64_t n = tms_grid_scale_rows(&p->grid->grid) * tms_grid_groups(&p->grid->grid);
        return n + (p->grid->grid.has_zeros ? divide_up(n, sizeof *w->scales) : 0);
    }
    if (p) return p->eight ? p->shape[0] : divide_up(p->shape[0] * p->shape[1], p->block_size);
    if (w->tensor->scale != TMS_NO_SCALE) return w->source->tensors[w->tensor->scale].n_elems;
    return 0;
}

uint64_t tms_weight_bytes(const struct tms_weight *w)
{
    return w->tensor->bytes + count_scales(w) * sizeof *w->scales;
}

tms_status tms_weight_scales(struct tms_weight *w, struct tms_error *err)
{
    uint64_t n = count_scales(w);
    if (n == 0 || w->scales) return TMS_OK;
    float *scales = tms_calloc(n, sizeof *scales);
    if (!scales) return tms_fail_memory(err, n * sizeof *scales);
    tms_status status;
    if (w->tensor->packed && w->tensor->packed->grid) {
        const struct tms_packed_grid *p = w->tensor->packed->grid;
        uint64_t n_scales = tms_grid_scale_rows(&p->grid) * tms_grid_groups(&p->grid);
        uint8_t *zeros = p->grid.has_zeros ? (uint8_t *)(scales + n_scales) : NULL;
        status = tms_packed_grid_scales(w->source, p, 0, p->grid.rows, scales, zeros, err);
    } else if (w->tensor->packed) {
        status = tms_packed_scales(w->source, w->tensor->packed, 0, n, scales, err);
    } else {
        const struct tms_tensor *t = &w->source->tensors[w->tensor->scale];
        void *raw = tms_calloc(t->bytes, 1);
        status = raw ? tms_source_read(w->source, t, 0, n, raw, scales, err) : tms_fail_memory(err, t->bytes);
        free(raw);
    }
    if (status != TMS_OK) {
        free(scales);
        return status;
    }
    w->scales = scales;
    return TMS_OK;
}

void tms_weight_drop(struct tms_weight *w)
{
    if (!w->borrows) free(w->scales);
    if (w->replaced) w->tensor = w->stored, w->first_row = w->stored_row;
    w->replaced = false;
    w->borrows = false;
    w->scales = NULL;
    w->data = NULL;
}

/* Blocks run over the flattened tensor, so a row may begin inside one. */
static void decode_four_bits(const struct tms_weight *w, uint64_t first, uint64_t n, float *out)
{
    const struct tms_packed *p = w->tensor->packed;
    uint64_t i = 0;
    while (i < n) {
        uint64_t at = first + i;
        if (at % p->block_size == 0) {
            tms_bnb_decode4(p->map, p->block_size, w->data + at / 2, w->scales + at / p->block_size, out + i,
                            (size_t)(n - i));
            return;
        }
        uint8_t pair = w->data[at / 2];
        out[i++] = p->map[at % 2 ? pair & 15 : pair >> 4] * w->scales[at / p->block_size];
    }
}

static void decode_row(const struct tms_weight *w, uint64_t row, uint64_t col, uint64_t n, float *out)
{
    const struct tms_tensor *t = w->tensor;
    uint64_t first = row * w->cols + col;
    if (t->packed) {
        if (t->packed->eight)
            tms_bnb_decode_int8((const int8_t *)w->data + first, w->scales[row], out, (size_t)n);
        else
            decode_four_bits(w, first, n, out);
        return;
    }
    const struct tms_codec *codec = tms_codec(t->type);
    codec->decode(w->data + tms_codec_bytes(codec, first), out, (size_t)n);
    if (t->scale == TMS_NO_SCALE) return;
    uint64_t block_rows = w->source->config.fp8_block[0], block_cols = w->source->config.fp8_block[1];
    const float *scales = w->scales + row / block_rows * divide_up(w->cols, block_cols);
    for (uint64_t i = 0; i < n; i++) out[i] *= scales[(col + i) / block_cols];
}

void tms_weight_tile(const struct tms_weight *w, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols,
                     float *out, size_t ld)
{
    size_t width = tms_padded((size_t)n_cols);
    if (w->tensor->packed && w->tensor->packed->grid) {
        const struct tms_grid *g = &w->tensor->packed->grid->grid;
        const float *end = w->scales + tms_grid_scale_rows(g) * tms_grid_groups(g);
        tms_grid_decode(g, w->data, w->scales, g->has_zeros ? (const uint8_t *)end : NULL, w->first_row + row, n_rows,
                        col, n_cols, out, ld);
        for (uint64_t r = 0; r < n_rows; r++)
            for (size_t c = (size_t)n_cols; c < width; c++) out[r * ld + c] = 0;
        return;
    }
    for (uint64_t r = 0; r < n_rows; r++) {
        float *to = out + r * ld;
        decode_row(w, w->first_row + row + r, col, n_cols, to);
        for (size_t c = (size_t)n_cols; c < width; c++) to[c] = 0;
    }
}

/* ---- as integers ---- */

bool tms_weight_is_coded(const struct tms_weight *w)
{
    const struct tms_packed *p = w->tensor->packed;
    if (!p) return false;
    if (!p->grid) return p->eight || (p->block_size % TMS_CODED_BLOCK == 0 && w->cols % p->block_size == 0);
    const struct tms_grid *g = &p->grid->grid;
    return (g->values == TMS_GRID_INT || g->values == TMS_GRID_E2M1) && !g->group_of &&
           (g->group % TMS_CODED_BLOCK == 0 || g->group >= g->cols);
}

bool tms_weight_is_row_major(const struct tms_weight *w)
{
    const struct tms_packed *p = w->tensor->packed;
    return !p || !p->grid || tms_grid_row_major(&p->grid->grid);
}

/* From a float for each code to integers; returns what one of them is worth. */
static float make_book(const float map[16], int16_t book[16])
{
    float most = 0;
    for (int i = 0; i < 16; i++) most = fabsf(map[i]) > most ? fabsf(map[i]) : most;
    for (int i = 0; i < 16; i++) book[i] = (int16_t)(most > 0 ? rintf(map[i] / most * TMS_CODED_MOST) : 0);
    return most / TMS_CODED_MOST;
}

/* A scale for each block of 16 from scales of `group` columns, of the first of which `before` lie before the row's. */
static void spread_scales(const float *from, float factor, uint64_t group, uint64_t before, size_t blocks,
                          float *scales)
{
    enum { EIGHT = 8 };
    const size_t in_group = group / TMS_CODED_BLOCK < blocks ? (size_t)(group / TMS_CODED_BLOCK) : blocks;
    size_t i = 0;
    if (in_group <= 4 && in_group != 3) { /* MXFP4's and NVFP4's: a loop without inner ones */
        const size_t shift = in_group / 2, first = (size_t)before / TMS_CODED_BLOCK;
        for (; i < blocks; i++) scales[i] = from[(first + i) >> shift] * factor;
        return;
    }
    for (size_t k = (size_t)before / TMS_CODED_BLOCK; i < blocks; from++, k = 0) {
        const float scale = *from * factor;
        for (; k + EIGHT <= in_group && i + EIGHT <= blocks; k += EIGHT, i += EIGHT)
            for (size_t j = 0; j < EIGHT; j++) scales[i + j] = scale;
        for (; k < in_group && i < blocks; k++) scales[i++] = scale;
    }
}

/* A row of NF4, FP4 (book and unit as make_book has them) or LLM.int8. */
static void row_of_bnb(const struct tms_weight *w, uint64_t first, uint64_t n, const int16_t *book, float unit,
                       int16_t *values, float *scales, uint8_t *codes)
{
    const struct tms_packed *p = w->tensor->packed;
    const size_t blocks = (size_t)divide_up(n, TMS_CODED_BLOCK);
    if (p->eight) {
        tms_coded_signed(w->data + first, values, (size_t)n);
        spread_scales(w->scales + first / w->cols, 1.0f / 127, w->cols, 0, blocks, scales);
        return;
    }
    tms_pairs_unpack(w->data + first / 2, true, codes, (size_t)n);
    tms_coded_lookup(book, codes, values, (size_t)n);
    spread_scales(w->scales + first / p->block_size, unit, p->block_size, first % p->block_size, blocks, scales);
}

/* A row of a grid; scale and zero are those of the group of column `col`, `before` columns of which lie before it. */
static void row_of_grid(const struct tms_grid *g, const float *scale, const uint8_t *zero, uint64_t before, uint64_t n,
                        const uint8_t *codes, int16_t *values, float *scales)
{
    static const int16_t e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}; /* halves */
    const bool halves = g->values == TMS_GRID_E2M1;
    spread_scales(scale, halves ? 0.5f : 1, g->group, before, (size_t)divide_up(n, TMS_CODED_BLOCK), scales);
    if (halves)
        tms_coded_lookup(e2m1, codes, values, (size_t)n);
    else if (!zero)
        tms_coded_integers(codes, tms_grid_middle(g), values, (size_t)n);
    for (uint64_t c = 0; zero && c < n; zero++, before = 0) {
        uint64_t end = c + g->group - before < n ? c + g->group - before : n;
        tms_coded_integers(codes + c, *zero, values + c, (size_t)(end - c));
        c = end;
    }
}

void tms_weight_codes(const struct tms_weight *w, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols,
                      int16_t *values, float *scales, size_t ld, uint8_t *codes)
{
    const struct tms_packed *p = w->tensor->packed;
    const struct tms_grid *g = p->grid ? &p->grid->grid : NULL;
    const uint64_t groups = g ? tms_grid_groups(g) : 0, n_scales = g ? groups * tms_grid_scale_rows(g) : 0;
    const size_t blocks = (size_t)divide_up(n_cols, TMS_CODED_BLOCK);
    int16_t book[16];
    const float unit = g || p->eight ? 1 : make_book(p->map, book);
    if (g) tms_grid_unpack(g, w->data, w->first_row + row, n_rows, col, n_cols, codes, (size_t)n_cols);
    for (uint64_t r = 0; r < n_rows; r++, values += ld, scales += ld / TMS_CODED_BLOCK) {
        const uint64_t at = w->first_row + row + r;
        if (g) {
            const uint64_t group = at / g->scale_rows * groups + col / g->group;
            const uint8_t *zeros = g->has_zeros ? (const uint8_t *)(w->scales + n_scales) + group : NULL;
            row_of_grid(g, w->scales + group, zeros, col % g->group, n_cols, codes + r * n_cols, values, scales);
        } else {
            row_of_bnb(w, at * w->cols + col, n_cols, book, unit, values, scales, codes);
        }
        memset(values + n_cols, 0, (ld - n_cols) * sizeof *values);
        for (size_t i = blocks; i < ld / TMS_CODED_BLOCK; i++) scales[i] = 0;
    }
}
