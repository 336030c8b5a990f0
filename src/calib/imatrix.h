/* The importance matrix: for every weight, how much each of its columns matters.
 *
 * llama-imatrix runs a model over a text and sums, for each matrix multiplication, the squares of its inputs. Their
 * mean over all tokens, E[x_j^2] for column j, is the factor by which a quantizer weighs the error of every number in
 * that column. What is kept here are these means, made with llama-quantize's own arithmetic in f32, so that a weighted
 * encoder gets the very numbers that llama-quantize's gets. Both formats are read: GGUF, and the .dat before it. */
#ifndef TMS_CALIB_IMATRIX_H
#define TMS_CALIB_IMATRIX_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/mem.h"
#include "file/kvs.h"

struct tms_imatrix_entry {
    const char *name; /* of the weight in a GGUF file: "blk.0.attn_q.weight" */
    size_t n_values;
    const float *values; /* the means, [n_values]: [matrices of the weight][its columns] */
    size_t n_counts;     /* parts of equal length with a count of their own, one per expert; 1 in a .dat file, which
                          * does not tell */
    size_t n_unseen;     /* parts that no token reached: their values are all 1 */
};

struct tms_imatrix_options {
    /* Names that an entry must hold one of, or must hold none of, as substrings. Not both. */
    const char *const *include;
    size_t n_include;
    const char *const *exclude;
    size_t n_exclude;
    /* Gets lines about experts never seen and the like; may be NULL. */
    void (*warn)(void *ctx, const char *line);
    void *warn_ctx;
};

struct tms_imatrix {
    char *path; /* as given */
    size_t n;
    struct tms_imatrix_entry *entries; /* sorted by name */
    char *dataset;                     /* the text it was made from, the first if there are several; or NULL */
    const char *model, *fingerprint;   /* of statistics: the architecture and tms_net_fingerprint; else NULL */
    int32_t n_chunks;                  /* of that text, as written; 0 or less: not known */
    struct tms_imatrix_options options;
    struct tms_arena arena; /* owns all of the above but the options' lists */
};

/* Opens a file of either format; `options` may be NULL, and its context is borrowed until close. TMS_EINPUT names file,
 * entry and offset. Values that are not finite, or negative, are refused, unless the entry is left out by the lists.
 * TMS_EUSAGE if the lists leave no entry, or both are there. */
tms_status tms_imatrix_open(struct tms_imatrix **out, const char *path, const struct tms_imatrix_options *options,
                            struct tms_error *err);
void tms_imatrix_close(struct tms_imatrix *imatrix);

const struct tms_imatrix_entry *tms_imatrix_find(const struct tms_imatrix *imatrix, const char *name);

/* *values becomes the means for a weight of `n_mats` matrices (ne[2]: experts, else 1) of `n_cols` columns (ne[0]),
 * as [n_mats][n_cols], borrowed until close; or NULL if there are none for it. TMS_EINPUT if the entry has another
 * size; for token embeddings that is a warning only and gives NULL, as in llama-quantize. */
tms_status tms_imatrix_values(const struct tms_imatrix *imatrix, const char *name, uint64_t n_cols, uint64_t n_mats,
                              const float **values, struct tms_error *err);

/* The keys that llama-quantize writes about it, in its order: quantize.imatrix.file, .dataset (if known),
 * .entries_count, .chunks_count (if known). Texts are cut to 127 bytes as there, but between characters. */
void tms_imatrix_set_keys(const struct tms_imatrix *imatrix, struct tms_kvs *kvs);

#endif
