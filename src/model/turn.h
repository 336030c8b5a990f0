/* What a conversion between a folder and a GGUF file does to the values of a tensor, in units: each `in` values become
 * `out` values, and those of unit u stand at start + u * stride of the result. The table of architectures (arch.h) says
 * which tensors are turned.
 *
 *   neighbours, halves    rows of a head, see heads.h; a unit is a head
 *   plus one, minus one   Gemma's norms; a unit is a value
 *   keys, values          DeepSeek's kv_b [heads][nope + value][rank] becomes k_b [heads][rank][nope], transposed, and
 *                         v_b [heads][value][rank]; a unit is a head
 *   keys back, values back   the two become parts of one again */
#ifndef TMS_MODEL_TURN_H
#define TMS_MODEL_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "model/config.h"

enum tms_turn_kind {
    TMS_TURN_NONE,
    TMS_TURN_NEIGHBOURS,
    TMS_TURN_HALVES,
    TMS_TURN_PLUS_ONE,
    TMS_TURN_MINUS_ONE,
    TMS_TURN_KEYS,
    TMS_TURN_VALUES,
    TMS_TURN_KEYS_BACK,
    TMS_TURN_VALUES_BACK,
};

struct tms_turn {
    enum tms_turn_kind kind;
    uint64_t in, out, stride, start;
    uint64_t rows, cols; /* of the matrix that a unit is, or that is taken out of it */
    uint64_t skip;       /* values of a unit before that matrix */
};

/* Values as they are, beginning at `start` of the result. */
struct tms_turn tms_turn_none(uint64_t start);
/* PLUS_ONE, MINUS_ONE. */
struct tms_turn tms_turn_shift(enum tms_turn_kind kind);
/* NEIGHBOURS, HALVES: n_heads heads of `rows` rows of `cols` values. */
struct tms_turn tms_turn_heads(enum tms_turn_kind kind, uint64_t rows, uint64_t cols);
/* The four of latent attention. */
struct tms_turn tms_turn_latent(enum tms_turn_kind kind, const struct tms_latent *latent);

/* n (whole units) values of x into out, one unit after the other; returns how many they become. x and out are not the
 * same. */
uint64_t tms_turn_values(const struct tms_turn *turn, const float *x, uint64_t n, float *out);

/* True if the units of the result touch each other. */
static inline bool tms_turn_is_dense(const struct tms_turn *turn)
{
    return turn->stride == turn->out;
}

#endif
