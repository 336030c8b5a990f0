/* The way of one linear layer onto a grid (codec/grid.h): from values to codes by plain rounding, or the codes of a
 * source that has the same grid, and into the tensors of a folder.
 *
 * Scales and zero points of the whole layer (4 and 1 bytes a group), and the codes of GPTQ and AWQ, which lie across
 * the whole tensor, are kept from the layer's first range to its last: with as many layers in work as threads, memory
 * is bounded by so many packed tensors. Codes of compressed-tensors are written range by range. */
#ifndef TMS_TARGET_GRID_ROUTE_H
#define TMS_TARGET_GRID_ROUTE_H

#include "codec/grid.h"
#include "codec/grid_round.h"
#include "model/source.h"

struct tms_grid_route {
    struct tms_grid grid;
    struct tms_rounding rounding;
    const char *made;             /* a file of what a method chose, or NULL: codes [rows][cols], scales (f32)
                                   * [rows][groups], zero points [rows][groups], with `order` that (u32) [cols] */
    uint32_t *order;              /* [cols]: the grid's group_of, which a method fills; NULL: in order */
    bool moves;                   /* codes, scales and zero points are the source's own */
    bool v1;                      /* GPTQ: zero points less one */
    size_t scales, zeros, global; /* indices of output tensors; TMS_NO_OUT: there are none */
    enum tms_type scale_type;     /* of the stored scales */
    float *amax;                  /* largest |w| of the tensor, or of all that share it; NULL: not needed */
    /* from the first range to the last */
    float *scale_values;  /* [scale rows][groups] */
    uint8_t *zero_values; /* the same; NULL: none are stored */
    uint8_t *codes;       /* GPTQ, AWQ: packed, whole */
};

/* Rows that must be encoded together. */
uint64_t tms_grid_route_unit_rows(const struct tms_grid_route *route);
/* Room for the values of the layer; before its first range, by one thread. */
tms_status tms_grid_route_begin(struct tms_grid_route *route, struct tms_error *err);
void tms_grid_route_end(struct tms_grid_route *route);

/* Rows [row, row + n_rows), their values x and stored bytes raw, to codes (room: one byte for each value) and the
 * decoded values, back. *packed: their bytes for the file (room: as codes), NULL if the layer's are kept together. */
tms_status tms_grid_route_encode(struct tms_grid_route *route, const struct tms_source *source,
                                 const struct tms_tensor *tensor, uint64_t row, uint64_t n_rows, const float *x,
                                 const void *raw, uint8_t *codes, uint8_t *room, const uint8_t **packed, float *back,
                                 struct tms_error *err);

typedef tms_status (*tms_put_fn)(void *ctx, size_t out, const void *bytes, uint64_t n, struct tms_error *err);
/* After the last range: all that was kept, each tensor whole. codes: index of the tensor of codes. */
tms_status tms_grid_route_finish(struct tms_grid_route *route, size_t codes, tms_put_fn put, void *ctx,
                                 struct tms_error *err);

#endif
