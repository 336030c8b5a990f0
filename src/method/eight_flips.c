/* See eight_flips.h. */
#include "method/eight_flips.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "engine/kernels/dots.h"
#include "method/feedback.h"

enum { LANES = TMS_FEEDBACK_ROWS };

/* Of the eights of H, with damping. */
struct square {
    float h[64], inverse[64], cost[8];
};

struct work {
    const float *w;
    uint8_t *words;
    size_t n_rows;
    const struct tms_hessian *hessian;
    const struct tms_eight_flips *flips;
    float added;            /* to the diagonal */
    struct square *squares; /* [n / 8] */
};

/* By Gauss and Jordan, in f64; no pivots, as it is positive definite (or nearly: then steps are poor, and refused). */
static void invert(const float *h, float *inverse)
{
    double a[8][16] = {{0}};
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 8; j++) a[i][j] = (double)h[8 * i + j];
        a[i][8 + i] = 1;
    }
    for (int i = 0; i < 8; i++) {
        const double pivot = a[i][i] > 1e-30 ? a[i][i] : 1e-30;
        for (int j = 0; j < 16; j++) a[i][j] /= pivot;
        for (int k = 0; k < 8; k++) {
            const double factor = a[k][i];
            for (int j = 0; k != i && j < 16; j++) a[k][j] -= factor * a[i][j];
        }
    }
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) inverse[8 * i + j] = (float)a[i][8 + j];
}

static void set_square(const struct tms_hessian *hessian, size_t at, float added, struct square *square)
{
    for (size_t i = 0; i < 8; i++) {
        for (size_t j = 0; j < 8; j++)
            square->h[8 * i + j] = hessian->h[(at + i) * hessian->ld + at + j] + (i == j ? added : 0);
        square->cost[i] = square->h[9 * i] > 1e-30f ? square->h[9 * i] : 1e-30f;
    }
    invert(square->h, square->inverse);
}

/* One tile of rows: weights, decoded values and slopes, [LANES][ld] each. */
struct tile {
    const struct work *work;
    size_t row, n_rows;
    float *q, *g;
};

/* How much the error changes when the eight of a row becomes `to`. */
static double change_of(const struct square *square, const float *from, const float *to, const float *slopes)
{
    double sum = 0;
    for (int i = 0; i < 8; i++) {
        double row = 2 * (double)slopes[i];
        for (int j = 0; j < 8; j++) row += (double)square->h[8 * i + j] * ((double)to[j] - (double)from[j]);
        sum += row * ((double)to[i] - (double)from[i]);
    }
    return sum;
}

TMS_INLINE void follow_body(float *restrict g, const float *restrict h, float change, size_t n)
{
    for (size_t j = 0; j < n; j++) g[j] += change * h[j];
}
TMS_BY_CPU(static, follow, (float *restrict g, const float *restrict h, float change, size_t n), (g, h, change, n))

/* The eight from column `at` on, of all rows of the tile; returns how many changed. */
static size_t improve_eight(const struct tile *tile, size_t at)
{
    const struct work *work = tile->work;
    const struct tms_hessian *hessian = work->hessian;
    const struct square *square = &work->squares[at / 8];
    const size_t n = hessian->n, ld = hessian->ld;
    const size_t lanes = at / work->flips->sub * work->flips->n_padded + tile->row;
    const float *steps = work->flips->steps + lanes, *deltas = work->flips->deltas;
    float slopes[LANES][8], target[8 * LANES] = {0}, decoded[8 * LANES];
    uint32_t words[LANES];
    for (size_t r = 0; r < tile->n_rows; r++) {
        const float *q = tile->q + r * ld + at, *w = work->w + (tile->row + r) * n + at;
        for (size_t i = 0; i < 8; i++) slopes[r][i] = tile->g[r * ld + at + i] + work->added * (q[i] - w[i]);
        for (size_t i = 0; i < 8; i++) {
            float step = 0;
            for (size_t j = 0; j < 8; j++) step += square->inverse[8 * i + j] * slopes[r][j];
            target[i * LANES + r] = q[i] - step;
        }
    }
    tms_eights_nearest(work->flips->eights, target, steps, deltas ? deltas + lanes : NULL, square->cost, words,
                       decoded);
    size_t changed = 0;
    for (size_t r = 0; r < tile->n_rows; r++) {
        float *q = tile->q + r * ld + at, to[8];
        for (int i = 0; i < 8; i++) to[i] = decoded[i * LANES + r];
        const double change = change_of(square, q, to, slopes[r]);
        double size = 0; /* only what rounding errors do not explain */
        for (int i = 0; i < 8; i++) {
            const double moved = (double)to[i] - (double)q[i];
            size += moved * moved * (double)square->cost[i];
        }
        if (!(change < -1e-5 * size)) continue;
        for (size_t i = 0; i < 8; i++) {
            if (to[i] != q[i]) follow(tile->g + r * ld, hessian->h + (at + i) * ld, to[i] - q[i], n);
            q[i] = to[i];
        }
        memcpy(work->words + (tile->row + r) * n + at, &words[r], sizeof words[r]);
        changed++;
    }
    return changed;
}

static tms_status improve_tile(void *ctx, size_t index, unsigned worker, struct tms_error *err)
{
    (void)worker;
    const struct work *work = ctx;
    const struct tms_hessian *hessian = work->hessian;
    const size_t n = hessian->n, ld = hessian->ld, row = index * LANES;
    const size_t n_rows = work->n_rows - row < LANES ? work->n_rows - row : LANES;
    float *q = tms_calloc(3 * LANES * (uint64_t)ld, sizeof *q), *g = q + LANES * ld, *e = g + LANES * ld;
    if (!q) return tms_fail_memory(err, 3 * LANES * (uint64_t)ld * sizeof *q);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t at = 0; at < n; at += 8) {
            uint32_t word;
            memcpy(&word, work->words + (row + r) * n + at, sizeof word);
            tms_eights_decode(work->flips->eights, word,
                              work->flips->steps[at / work->flips->sub * work->flips->n_padded + row + r],
                              q + r * ld + at);
            for (size_t i = at; i < at + 8; i++) e[r * ld + i] = q[r * ld + i] - work->w[(row + r) * n + i];
        }
    for (size_t k = 0, padded = tms_padded(n); k < padded; k += TMS_DOT_PIECE)
        tms_dots(e + k, ld, n_rows, hessian->h + k, ld, n, padded - k < TMS_DOT_PIECE ? padded - k : TMS_DOT_PIECE, g,
                 ld, k > 0);
    const struct tile tile = {work, row, n_rows, q, g};
    for (int sweep = 0; sweep < work->flips->n_sweeps; sweep++) {
        size_t changed = 0;
        for (size_t at = 0; at < n; at += 8) changed += improve_eight(&tile, at);
        if (changed == 0) break;
    }
    free(q);
    return TMS_OK;
}

tms_status tms_eight_flips(const float *w, uint8_t *words, size_t n_rows, const struct tms_hessian *hessian,
                           const struct tms_eight_flips *flips, struct tms_pool *pool, struct tms_error *err)
{
    const size_t n = hessian->n;
    if (n % 8 != 0) return tms_fail(err, TMS_EUSAGE, "rows of %zu are no whole number of eights", n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)hessian->h[i * hessian->ld + i];
    struct work work = {.w = w,
                        .words = words,
                        .n_rows = n_rows,
                        .hessian = hessian,
                        .flips = flips,
                        .added = (float)(flips->damp * (sum / (double)n))};
    work.squares = tms_calloc(n / 8, sizeof *work.squares);
    if (!work.squares) return tms_fail_memory(err, n / 8 * sizeof *work.squares);
    for (size_t at = 0; at < n; at += 8) set_square(hessian, at, work.added, &work.squares[at / 8]);
    tms_status status = tms_pool_run(pool, (n_rows + LANES - 1) / LANES, improve_tile, &work, err);
    free(work.squares);
    return status;
}
