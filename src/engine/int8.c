/* See int8.h. */
#include "engine/int8.h"

#include <math.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/mem.h"

bool tms_int8_fits(const struct tms_weight *weight)
{
    return weight->tensor->packed && weight->tensor->packed->eight;
}

void tms_int8_free(struct tms_int8_input *input)
{
    free(input->codes);
    free(input->scales);
    free(input->outliers);
}

struct split {
    struct tms_int8_input *out;
    const float *x;
    size_t stride;
    const uint8_t *stays; /* [cols] */
};

static tms_status split_row(void *ctx, size_t row, unsigned worker, struct tms_error *err)
{
    const struct split *s = ctx;
    const float *x = s->x + row * s->stride;
    int8_t *codes = s->out->codes + row * s->out->cols;
    float top = 0;
    (void)worker, (void)err;
    for (size_t c = 0; c < s->out->cols; c++)
        if (!s->stays[c] && fabsf(x[c]) > top) top = fabsf(x[c]);
    float inverse = top > 0 ? 127.0f / top : 0;
    for (size_t c = 0; c < s->out->cols; c++) codes[c] = s->stays[c] ? 0 : (int8_t)rintf(x[c] * inverse);
    s->out->scales[row] = top * (1.0f / 127.0f);
    return TMS_OK;
}

tms_status tms_int8_split(struct tms_int8_input *out, struct tms_pool *pool, const float *x, size_t stride, size_t n,
                          size_t cols, float threshold, struct tms_error *err)
{
    uint8_t *stays = tms_calloc(cols, 1);
    *out = (struct tms_int8_input){.n = n, .cols = cols};
    out->codes = tms_calloc(n, cols);
    out->scales = tms_calloc(n, sizeof *out->scales);
    out->outliers = tms_calloc(cols, sizeof *out->outliers);
    if (!stays || !out->codes || !out->scales || !out->outliers) {
        free(stays);
        return tms_fail_memory(err, n * cols);
    }
    /* Not a number stays, too, and is seen in the result. */
    for (size_t row = 0; row < n; row++)
        for (size_t c = 0; c < cols; c++) stays[c] |= !(fabsf(x[row * stride + c]) < threshold);
    for (size_t c = 0; c < cols; c++)
        if (stays[c]) out->outliers[out->n_outliers++] = c;
    struct split split = {out, x, stride, stays};
    tms_status status = tms_pool_run(pool, n, split_row, &split, err);
    free(stays);
    return status;
}

/* Pieces of 2^16 products of at most 127^2 fit 32 bits. */
TMS_INLINE void int8_dot_body(const int8_t *a, const int8_t *b, size_t n, int64_t *out)
{
    int64_t sum = 0;
    for (size_t i = 0; i < n; i += 1u << 16) {
        size_t end = n - i < 1u << 16 ? n : i + (1u << 16);
        int32_t part = 0;
        for (size_t k = i; k < end; k++) part += (int32_t)a[k] * b[k];
        sum += part;
    }
    *out = sum;
}
TMS_BY_CPU(static, int8_dot, (const int8_t *a, const int8_t *b, size_t n, int64_t *out), (a, b, n, out))

void tms_int8_rows(const struct tms_int8_input *input, const float *x, size_t stride, const struct tms_weight *weight,
                   uint64_t first, uint64_t end, float *y, size_t y_stride)
{
    for (uint64_t row = first; row < end; row++) {
        const int8_t *codes = (const int8_t *)weight->data + row * weight->cols;
        float scale = weight->scales[row] * (1.0f / 127.0f);
        for (size_t i = 0; i < input->n; i++) {
            int64_t sum;
            float exact = 0;
            int8_dot(input->codes + i * input->cols, codes, input->cols, &sum);
            for (size_t k = 0; k < input->n_outliers; k++) {
                size_t c = input->outliers[k];
                exact = fmaf(x[i * stride + c], (float)codes[c] * scale, exact);
            }
            y[i * y_stride + row] = (float)sum * input->scales[i] * scale + exact;
        }
    }
}
