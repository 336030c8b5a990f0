/* See weight.h. */
#include "engine/weight.h"

#include <stdlib.h>
#include <string.h>

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
