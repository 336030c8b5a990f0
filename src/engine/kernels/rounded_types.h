/* The types of rounded.h, for the files that work on them. */
#ifndef TMS_ENGINE_KERNELS_ROUNDED_TYPES_H
#define TMS_ENGINE_KERNELS_ROUNDED_TYPES_H

#include "codec/iq1_grid.h"
#include "codec/iq_grids.h"
#include "engine/kernels/rounded.h"

#define MAX_UNIT_BYTES 292

/* type, bytes of 256 weights, scales (and minimums) for every 16 weights or 32, has minimums; and how unpack_lanes.h
 * gives codes: with an offset of 2^n (-1: none), with signs apart; which codebook it has. */
#define ROUNDED_TYPES(T)                                                                                               \
    T(q4_0, 144, false, false, 3, false, NO_BOOK)                                                                      \
    T(q4_1, 160, false, true, -1, false, NO_BOOK)                                                                      \
    T(q5_0, 176, false, false, 4, false, NO_BOOK)                                                                      \
    T(q5_1, 192, false, true, -1, false, NO_BOOK)                                                                      \
    T(q8_0, 272, false, false, 7, false, NO_BOOK)                                                                      \
    T(q8_k, 292, false, false, 7, false, NO_BOOK)                                                                      \
    T(q2_k, 84, true, true, -1, false, NO_BOOK)                                                                        \
    T(q3_k, 110, true, false, 2, false, NO_BOOK)                                                                       \
    T(q4_k, 144, false, true, -1, false, NO_BOOK)                                                                      \
    T(q5_k, 176, false, true, -1, false, NO_BOOK)                                                                      \
    T(q6_k, 210, true, false, 5, false, NO_BOOK)                                                                       \
    T(iq4_nl, 144, false, false, 7, false, NO_BOOK)                                                                    \
    T(iq4_xs, 136, false, false, 7, false, NO_BOOK)                                                                    \
    T(iq2_xxs, 66, false, false, -1, true, TMS_BOOK_IQ2_XXS)                                                           \
    T(iq2_xs, 74, true, false, -1, true, TMS_BOOK_IQ2_XS)                                                              \
    T(iq2_s, 82, true, false, -1, true, TMS_BOOK_IQ2_S)                                                                \
    T(iq3_xxs, 98, false, false, -1, true, TMS_BOOK_IQ3_XXS)                                                           \
    T(iq3_s, 110, false, false, -1, true, TMS_BOOK_IQ3_S)                                                              \
    T(iq1_s, 50, false, false, 4, false, BOOK_IQ1)                                                                     \
    T(iq1_m, 56, true, false, 4, false, BOOK_IQ1)                                                                      \
    T(mxfp4, 136, false, false, 4, false, NO_BOOK)                                                                     \
    T(nvfp4, 144, true, false, 4, false, NO_BOOK)                                                                      \
    T(tq1_0, 54, false, false, 0, false, NO_BOOK)                                                                      \
    T(tq2_0, 66, false, false, 0, false, NO_BOOK)                                                                      \
    T(q1_0, 36, false, false, 0, false, NO_BOOK)                                                                       \
    T(q2_0, 72, false, false, 0, false, NO_BOOK)

enum { BOOK_IQ1 = TMS_IQ_BOOKS, NO_BOOK };

/* The bytes that decode a codebook: [points][8 or 4]. */
static inline const uint8_t *book_values(int book)
{
    if (book == NO_BOOK) return NULL;
    return book == BOOK_IQ1 ? (const uint8_t *)tms_iq1_points()->numbers : tms_iq_values((enum tms_iq_book)book);
}

/* At most four rows of n_units whole units; tails: what follows them, filled up with zeros, or NULL. */
typedef void rows_fn(const uint8_t *rows, size_t row_bytes, size_t n_rows, size_t n_units,
                     const uint8_t (*tails)[MAX_UNIT_BYTES], const struct tms_rounded_unit *x, float *y);

struct tms_rounded_codec {
    const char *name;
    size_t number; /* in the table */
    size_t unit_bytes;
    bool by_16, has_mins;
    rows_fn *rows;
#if defined(__x86_64__)
    rows_fn *rows_avx2, *rows_vnni;
#endif
};

#if defined(__x86_64__)
#define TMS_TARGET_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi,bmi2")))
#endif

#endif
