/* See grid_blocks.h. */
#include "target/grid_blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "codec/legacy_blocks.h"
#include "model/packed.h"
#include "model/packed_grid.h"

/* What belongs to some rows. */
struct rows {
    float *scales;
    uint8_t *zeros, *codes;
};

static void free_rows(struct rows *r)
{
    free(r->scales);
    free(r->zeros);
    free(r->codes);
}

static tms_status read_points(struct rows *r, const struct tms_source *source, const struct tms_packed_grid *p,
                              uint64_t row, uint64_t n_rows, struct tms_error *err)
{
    const uint64_t n = n_rows * tms_grid_groups(&p->grid);
    r->scales = tms_calloc(n, sizeof *r->scales);
    r->zeros = tms_calloc(n, 1);
    if (!r->scales || !r->zeros) return tms_fail_memory(err, n * 5);
    memset(r->zeros, tms_grid_middle(&p->grid), n);
    return tms_packed_grid_scales(source, p, row, n_rows, r->scales, p->grid.has_zeros ? r->zeros : NULL, err);
}

static bool is_f16(float x)
{
    return isfinite(x) && tms_f16_to_f32(tms_f32_to_f16(x)) == x;
}

tms_status tms_grid_becomes_blocks(bool *yes, const struct tms_source *source, const struct tms_tensor *tensor,
                                   enum tms_type type, struct tms_error *err)
{
    const struct tms_packed_grid *p = tensor->packed ? tensor->packed->grid : NULL;
    tms_status status = TMS_OK;
    *yes = false;
    if (!p || p->grid.values != TMS_GRID_INT || p->grid.scale_rows != 1 || p->grid.group_of) return TMS_OK;
    if (p->grid.cols % BLOCK != 0 || p->grid.group % BLOCK != 0) return TMS_OK;
    if (p->grid.bits != (type == TMS_Q8_0 ? 8 : 4)) return TMS_OK;
    if (type != TMS_Q4_0 && type != TMS_Q4_1 && type != TMS_Q8_0) return TMS_OK;
    if (p->grid.layout == TMS_GRID_BYTES && type != TMS_Q8_0) return TMS_OK;
    const uint64_t groups = tms_grid_groups(&p->grid), step = tms_packed_grid_unit_rows(p);
    bool fits = true;
    for (uint64_t row = 0; row < p->grid.rows && status == TMS_OK && fits; row += step) {
        uint64_t n = p->grid.rows - row < step ? p->grid.rows - row : step;
        struct rows r = {0};
        status = read_points(&r, source, p, row, n, err);
        for (uint64_t i = 0; i < n * groups && status == TMS_OK && fits; i++) {
            fits = is_f16(r.scales[i]);
            if (type == TMS_Q4_1)
                fits &= fabsf(r.scales[i]) * 15 <= 65504; /* m */
            else
                fits &= r.zeros[i] == tms_grid_middle(&p->grid);
        }
        free_rows(&r);
    }
    *yes = fits && status == TMS_OK;
    return status;
}

static void put_f16(uint8_t *to, float x)
{
    uint16_t half = tms_f32_to_f16(x);
    memcpy(to, &half, sizeof half);
}

static void put_block(enum tms_type type, const uint8_t *codes, float scale, int zero, uint8_t *block)
{
    put_f16(block, scale);
    if (type == TMS_Q8_0) {
        for (int i = 0; i < BLOCK; i++) block[2 + i] = (uint8_t)(codes[i] - 128);
    } else if (type == TMS_Q4_0) {
        pack_nibbles(codes, block + 2);
    } else {
        put_f16(block + 2, -(float)zero * scale);
        pack_nibbles(codes, block + 4);
    }
}

tms_status tms_grid_to_blocks(const struct tms_source *source, const struct tms_tensor *tensor, enum tms_type type,
                              uint64_t row, uint64_t n_rows, uint64_t head_rows, const void *raw, uint8_t *blocks,
                              struct tms_error *err)
{
    const struct tms_packed_grid *p = tensor->packed->grid;
    const uint64_t cols = p->grid.cols, groups = tms_grid_groups(&p->grid), size = tms_codec(type)->block_bytes;
    struct tms_grid part = p->grid;
    struct rows r = {.codes = tms_calloc(n_rows, cols)};
    tms_status status = r.codes ? TMS_OK : tms_fail_memory(err, n_rows * cols);
    if (status == TMS_OK) status = read_points(&r, source, p, row, n_rows, err);
    part.rows = n_rows;
    if (status == TMS_OK) tms_grid_unpack(&part, raw, 0, n_rows, 0, cols, r.codes, (size_t)cols);
    for (uint64_t i = 0; i < n_rows && status == TMS_OK; i++) {
        uint64_t from = i;
        if (head_rows) {
            uint64_t in_head = i % head_rows;
            from = i - in_head + in_head / 2 + (in_head % 2) * (head_rows / 2);
        }
        for (uint64_t c = 0; c < cols; c += BLOCK, blocks += size) {
            uint64_t at = from * groups + c / p->grid.group;
            put_block(type, r.codes + from * cols + c, r.scales[at], r.zeros[at], blocks);
        }
    }
    free_rows(&r);
    return status;
}
