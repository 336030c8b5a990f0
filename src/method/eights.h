/* The nearest values of a codebook to eight weights, for 32 rows at once: a search through all points, where the scale
 * is known and errors of columns have weights,
 *     sum over i of cost[i] * (w[i] - sign[i] * step * value[i])²
 * Where signs must be even in number and the weights' are not, one of them is stored wrong, together with the point for
 * which that costs least. Of equals the point with the smallest index.
 * IQ1's codebook has signs in its points; a weight is step * (value + delta), delta 1/8 or -1/8. */
#ifndef TMS_METHOD_EIGHTS_H
#define TMS_METHOD_EIGHTS_H

#include <stdbool.h>

#include "base/error.h"
#include "codec/iq_grids.h"

struct tms_eights;

tms_status tms_eights_create(struct tms_eights **out, enum tms_iq_book book, bool even_signs, struct tms_error *err);
tms_status tms_eights_create_ternary(struct tms_eights **out, struct tms_error *err);
void tms_eights_free(struct tms_eights *eights);

/* w, decoded [8][32], steps [32], cost [8], words [32] as TMS_EIGHT. deltas [32] of IQ1; NULL: the better one for each.
 */
void tms_eights_nearest(const struct tms_eights *eights, const float *w, const float *steps, const float *deltas,
                        const float *cost, uint32_t *words, float *decoded);

/* One eight of one row: x [8]. */
void tms_eights_decode(const struct tms_eights *eights, uint32_t word, float step, float *x);

#endif
