/* See turn.h. */
#include "model/turn.h"

#include <string.h>

#include "model/heads.h"

struct tms_turn tms_turn_none(uint64_t start)
{
    return (struct tms_turn){.kind = TMS_TURN_NONE, .in = 1, .out = 1, .stride = 1, .start = start};
}

struct tms_turn tms_turn_shift(enum tms_turn_kind kind)
{
    return (struct tms_turn){.kind = kind, .in = 1, .out = 1, .stride = 1};
}

struct tms_turn tms_turn_heads(enum tms_turn_kind kind, uint64_t rows, uint64_t cols)
{
    uint64_t n = rows * cols;
    return (struct tms_turn){.kind = kind, .in = n, .out = n, .stride = n, .rows = rows, .cols = cols};
}

struct tms_turn tms_turn_latent(enum tms_turn_kind kind, const struct tms_latent *l)
{
    uint64_t keys = l->nope * l->kv_rank, values = l->value * l->kv_rank, both = keys + values;
    bool of_keys = kind == TMS_TURN_KEYS || kind == TMS_TURN_KEYS_BACK;
    bool back = kind == TMS_TURN_KEYS_BACK || kind == TMS_TURN_VALUES_BACK;
    struct tms_turn t = {.kind = kind, .cols = l->kv_rank, .rows = of_keys ? l->nope : l->value};
    t.out = of_keys ? keys : values;
    t.in = back ? t.out : both;
    t.stride = back ? both : t.out;
    t.start = back && !of_keys ? keys : 0;
    t.skip = !back && !of_keys ? keys : 0;
    return t;
}

/* [rows][cols] to [cols][rows] */
static void transpose(const float *x, float *out, uint64_t rows, uint64_t cols)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) out[c * rows + r] = x[r * cols + c];
}

uint64_t tms_turn_values(const struct tms_turn *t, const float *x, uint64_t n, float *out)
{
    float one = t->kind == TMS_TURN_PLUS_ONE ? 1.0f : -1.0f;
    switch (t->kind) {
    case TMS_TURN_NEIGHBOURS: tms_heads_to_neighbours(x, out, n, t->rows, t->cols); return n;
    case TMS_TURN_HALVES: tms_heads_to_halves(x, out, n, t->rows, t->cols); return n;
    case TMS_TURN_PLUS_ONE:
    case TMS_TURN_MINUS_ONE:
        for (uint64_t i = 0; i < n; i++) out[i] = x[i] + one;
        return n;
    default: break;
    }
    if (t->in == 0) return 0;
    for (uint64_t u = 0; u < n / t->in; u++) {
        const float *from = x + u * t->in + t->skip;
        float *to = out + u * t->out;
        if (t->kind == TMS_TURN_KEYS)
            transpose(from, to, t->rows, t->cols);
        else if (t->kind == TMS_TURN_KEYS_BACK)
            transpose(from, to, t->cols, t->rows);
        else
            memcpy(to, from, t->out * sizeof *to);
    }
    return n / t->in * t->out;
}
