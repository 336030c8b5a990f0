/* See packed_grid.h: reading. Finding is packed_grid_find.c. */
#include "model/packed_grid.h"

#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "base/text.h"
#include "model/packed.h"

/* Strips of a transposed tensor are as wide as a range has rows: some of GPTQ's words, more of AWQ's, which hold 8 rows
 * each. Packed zero points ask for 32 rows: a whole number of words at every width. */
uint64_t tms_packed_grid_unit_rows(const struct tms_packed_grid *p)
{
    uint64_t rows = 1;
    if (p->family == TMS_FAMILY_GPTQ) rows = 64;
    if (p->family == TMS_FAMILY_AWQ) rows = 256;
    if (p->family == TMS_FAMILY_CT && p->zeros != TMS_NO_SCALE && !p->zero_bytes) rows = 32;
    if (p->grid.scale_rows > 1 && p->grid.scale_rows < p->grid.rows) rows = p->grid.scale_rows;
    return rows < p->grid.rows ? rows : p->grid.rows;
}

/* `n` strips of `bytes` bytes that begin `stride` bytes apart, one behind the other. */
static tms_status read_strips(const struct tms_source *s, const struct tms_tensor *t, uint64_t first, uint64_t stride,
                              uint64_t n, uint64_t bytes, void *to, struct tms_error *err)
{
    tms_status status = TMS_OK;
    if (bytes == stride) return tms_file_read(s->files[t->file], to, n * bytes, t->offset + first, err);
    for (uint64_t i = 0; i < n && status == TMS_OK; i++)
        status =
            tms_file_read(s->files[t->file], (uint8_t *)to + i * bytes, bytes, t->offset + first + i * stride, err);
    return status;
}

/* The stored codes of the range, as of a matrix of its own. */
static tms_status read_codes(const struct tms_source *s, const struct tms_tensor *t, uint64_t row, uint64_t n_rows,
                             void *raw, struct tms_error *err)
{
    const struct tms_grid *g = &t->packed->grid->grid;
    if (tms_grid_row_major(g))
        return tms_file_read(s->files[t->file], raw, n_rows * g->row_bytes, t->offset + row * g->row_bytes, err);
    if (g->layout == TMS_GRID_GPTQ)
        return read_strips(s, t, row * 4, g->rows * 4, g->cols * g->bits / 32, n_rows * 4, raw, err);
    return read_strips(s, t, row / 2, g->rows / 2, g->cols, n_rows / 2, raw, err);
}

/* The grid of a range of rows. */
static struct tms_grid part_of(const struct tms_grid *grid, uint64_t n_rows)
{
    struct tms_grid part = *grid;
    part.rows = n_rows;
    return part;
}

/* GPTQ's and AWQ's: [groups][rows]. */
static tms_status read_turned(const struct tms_source *s, const struct tms_packed_grid *p, uint64_t row, uint64_t n,
                              float *scales, uint8_t *zeros, struct tms_error *err)
{
    const struct tms_tensor *t = &s->tensors[p->scales], *z = &s->tensors[p->zeros];
    const uint64_t groups = tms_grid_groups(&p->grid), rows = p->grid.rows, bits = p->grid.bits;
    const uint64_t zero_bytes = n * bits / 8, size = t->bytes / t->n_elems;
    const struct tms_codec *codec = tms_codec(t->type);
    uint8_t *raw = tms_calloc(groups, n * size + zero_bytes);
    float *column = tms_calloc(n, sizeof *column);
    tms_status status = raw && column ? TMS_OK : tms_fail_memory(err, groups * n * (size + 1));
    if (status == TMS_OK) status = read_strips(s, t, row * size, rows * size, groups, n * size, raw, err);
    for (uint64_t g = 0; g < groups && status == TMS_OK; g++) {
        codec->decode(raw + g * n * size, column, n);
        for (uint64_t r = 0; r < n; r++) scales[r * groups + g] = column[r];
    }
    if (status == TMS_OK && zeros)
        status = read_strips(s, z, row * bits / 8, rows * bits / 8, groups, zero_bytes, raw, err);
    if (status == TMS_OK && zeros && p->family == TMS_FAMILY_GPTQ)
        tms_gptq_unpack_zeros(raw, n, groups, (unsigned)bits, p->v1, zeros);
    else if (status == TMS_OK && zeros)
        tms_awq_unpack_zeros(raw, n, groups, zeros);
    free(raw);
    free(column);
    return status;
}

static tms_status read_ct_zeros(const struct tms_source *s, const struct tms_packed_grid *p, uint64_t row, uint64_t n,
                                uint8_t *zeros, struct tms_error *err)
{
    const struct tms_tensor *z = &s->tensors[p->zeros];
    const uint64_t groups = tms_grid_groups(&p->grid);
    if (p->zero_bytes) {
        tms_status status = tms_file_read(s->files[z->file], zeros, n * groups, z->offset + row * groups, err);
        for (uint64_t i = 0; i < n * groups && status == TMS_OK; i++) zeros[i] = (uint8_t)(zeros[i] + 128);
        return status;
    }
    const bool padded = p->grid.layout == TMS_GRID_PADDED;
    const uint64_t bits = p->grid.bits, in_word = 32 / bits;
    uint64_t first = padded ? row / in_word : row * bits / 32;
    uint64_t end = padded ? (row + n - 1) / in_word + 1 : ((row + n) * bits + 31) / 32;
    uint64_t bytes = (end - first) * groups * 4;
    uint8_t *raw = tms_calloc(bytes, 1);
    if (!raw) return tms_fail_memory(err, bytes);
    tms_status status = tms_file_read(s->files[z->file], raw, bytes, z->offset + first * groups * 4, err);
    if (status == TMS_OK)
        tms_ct_unpack_zeros(raw, groups, (unsigned)bits, padded, padded ? row - first * in_word : 0, n, zeros);
    free(raw);
    return status;
}

static tms_status read_ct(const struct tms_source *s, const struct tms_packed_grid *p, uint64_t row, uint64_t n,
                          float *scales, uint8_t *zeros, struct tms_error *err)
{
    const struct tms_tensor *t = &s->tensors[p->scales];
    const uint64_t groups = tms_grid_groups(&p->grid), height = p->grid.scale_rows;
    uint64_t first = row / height, count = ((row + n - 1) / height - first + 1) * groups;
    uint64_t size = t->bytes / t->n_elems;
    uint8_t *raw = tms_calloc(count, size);
    if (!raw) return tms_fail_memory(err, count * size);
    tms_status status = tms_file_read(s->files[t->file], raw, count * size, t->offset + first * groups * size, err);
    if (status == TMS_OK && p->exponents)
        tms_e8m0_to_f32_n(raw, scales, count);
    else if (status == TMS_OK)
        tms_codec(t->type)->decode(raw, scales, count);
    for (uint64_t i = 0; i < count && status == TMS_OK && p->global != 0; i++) scales[i] /= p->global;
    free(raw);
    if (status == TMS_OK && zeros && p->zeros != TMS_NO_SCALE) status = read_ct_zeros(s, p, row, n, zeros, err);
    return status;
}

tms_status tms_packed_grid_scales(const struct tms_source *source, const struct tms_packed_grid *p, uint64_t row,
                                  uint64_t n_rows, float *scales, uint8_t *zeros, struct tms_error *err)
{
    if (n_rows == 0) return TMS_OK;
    if (p->family == TMS_FAMILY_CT) return read_ct(source, p, row, n_rows, scales, zeros, err);
    return read_turned(source, p, row, n_rows, scales, zeros, err);
}

tms_status tms_packed_grid_read(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t first,
                                uint64_t n, void *raw, float *out, struct tms_error *err)
{
    const struct tms_packed_grid *p = tensor->packed->grid;
    const uint64_t row = first / p->grid.cols, n_rows = n / p->grid.cols;
    const struct tms_grid part = part_of(&p->grid, n_rows);
    if (n == 0) return TMS_OK;
    uint64_t n_scales = tms_grid_scale_rows(&part) * tms_grid_groups(&part);
    float *scales = tms_calloc(n_scales, sizeof *scales);
    uint8_t *zeros = p->grid.has_zeros ? tms_calloc(n_scales, 1) : NULL;
    tms_status status = scales && (zeros || !p->grid.has_zeros) ? TMS_OK : tms_fail_memory(err, n_scales * 5);
    if (status == TMS_OK) status = tms_packed_grid_scales(source, p, row, n_rows, scales, zeros, err);
    if (status == TMS_OK) status = read_codes(source, tensor, row, n_rows, raw, err);
    if (status == TMS_OK) tms_grid_decode(&part, raw, scales, zeros, 0, n_rows, 0, part.cols, out, (size_t)part.cols);
    free(scales);
    free(zeros);
    return status;
}

tms_status tms_packed_grid_codes(const struct tms_source *source, const struct tms_tensor *tensor, uint64_t row,
                                 uint64_t n_rows, void *raw, uint8_t *codes, struct tms_error *err)
{
    const struct tms_grid part = part_of(&tensor->packed->grid->grid, n_rows);
    tms_status status = read_codes(source, tensor, row, n_rows, raw, err);
    if (status == TMS_OK) tms_grid_unpack(&part, raw, 0, n_rows, 0, part.cols, codes, (size_t)part.cols);
    return status;
}

const struct tms_tensor *tms_source_find_stored(const struct tms_source *source, const char *stored_name)
{
    static const char *const endings[] = {".qweight", ".weight_packed"};
    const struct tms_tensor *found = tms_source_find(source, stored_name);
    char name[TMS_ST_MAX_NAME + 16];
    for (size_t i = 0; i < sizeof endings / sizeof *endings && !found; i++) {
        if (!tms_ends_with(stored_name, endings[i])) continue;
        size_t n = strlen(stored_name) - strlen(endings[i]);
        snprintf(name, sizeof name, "%.*s.weight", (int)n, stored_name);
        found = tms_source_find(source, name);
    }
    if (found && found->packed && found->packed->grid && strcmp(found->packed->grid->stored_name, stored_name) != 0)
        return NULL;
    return found;
}
