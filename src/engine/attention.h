/* Causal attention over the cache, without a matrix of scores: keys come in blocks of 64, scores of a block are made,
 * and the running maximum, sum and weighted values of each query are corrected (Milakov and Gimelshein 2018; Dao et al.
 * 2022). Quantized keys are decoded block by block, for all queries that look at them together; no more than that is
 * ever there in f32.
 *
 * Positions are cut into segments of 1024. A query's result is put together from those of its segments, each computed
 * from nothing, in their order; so threads can share the segments of one query when a text is long, and bits stay the
 * same. Blocks begin at positions that are multiples of 64, and a block that a query does not see changes nothing, so a
 * query's result does not depend on which others are computed with it either. */
#ifndef TMS_ENGINE_ATTENTION_H
#define TMS_ENGINE_ATTENTION_H

#include "base/threads.h"
#include "engine/cache.h"

struct tms_attention {
    const struct tms_cache *cache; /* holds keys and values of positions 0 … start + n - 1 */
    size_t layer;                  /* of the cache */
    size_t first_seq;              /* of the cache: sequence 0 of q and out */
    size_t n_seqs, n, start;       /* as in struct tms_batch */
    size_t n_heads;                /* of queries: a multiple of the cache's */
    size_t window;                 /* position p sees p - window + 1 … p; 0: all before it */
    float scale;                   /* of the scores */
    float cap;                     /* scores become cap tanh(score / cap); 0: they stay */
    const float *q;                /* [n_seqs * n][q_stride], heads q_head apart */
    size_t q_stride, q_head;
    float *out; /* [n_seqs * n][out_stride], heads out_head apart */
    size_t out_stride, out_head;
    float *scratch; /* tms_attention_scratch floats for each worker */
};

/* Floats of scratch memory that one worker needs. */
size_t tms_attention_scratch(size_t n_heads, size_t n_kv_heads, size_t key_dim, size_t value_dim);
tms_status tms_attention_run(struct tms_pool *pool, const struct tms_attention *a, struct tms_error *err);

#endif
