/* The file of a calibration run, a safetensors file. For each input of linear layers, named after the first weight that
 * sees it (as folders have it, without ".weight"; "…mlp.experts.gate_proj" for all experts of a layer):
 *
 *     NAME.count        I64 [parts]         tokens
 *     NAME.sum_squares  F64 [parts, cols]   sums of x^2
 *     NAME.sum_abs      F64 [parts, cols]   sums of |x|
 *     NAME.min, .max    F32 [parts, cols]   0 where no token was
 * With Hessians, 2 / count * sum of x xT (method/hessian.h):
 *     NAME.dead         I64 [parts]         channels that never saw anything but 0
 *     NAME.damp         F64 [parts]         damping that made the Hessian positive definite, 0 where no token was
 *     NAME.hessian      F32 [parts, cols (cols + 1) / 2]   if it is kept: rows of the lower triangle
 * With histograms (method/observers.h), all parts together:
 *     NAME.histogram    I64 [4096]          counts over [-reach, reach)
 *     NAME.reach        F64 [1]
 *
 * parts is the number of experts, 1 for others. Beside them lies tamis.calibration, U8, a JSON text: format (1),
 * fingerprint of the model (tms_net_fingerprint), architecture, data, sequences, seqlen, tokens, and `weights`: for
 * every weight that saw an input, by the name that GGUF files have for it, the name of that input. */
#ifndef TMS_CALIB_STATS_H
#define TMS_CALIB_STATS_H

#include <jansson.h>

#include "calib/inputs.h"
#include "file/safetensors.h"

#define TMS_STATS_ABOUT "tamis.calibration"

/* Writes the inputs of one layer to a file of their own (complete or not at all): begun when all inputs are known; then
 * the Hessians that are in memory by now are examined, and written if they are kept, as often as there are others; the
 * end writes everything else and gives the file its name. Inputs are borrowed until then. */
struct tms_stats_layer;
tms_status tms_stats_layer_begin(struct tms_stats_layer **out, const char *path, const struct tms_net *net,
                                 uint64_t layer, const struct tms_layer_inputs *inputs, bool keep_hessians,
                                 struct tms_error *err);
tms_status tms_stats_layer_hessians(struct tms_stats_layer *file, struct tms_pool *pool, struct tms_error *err);
tms_status tms_stats_layer_end(struct tms_stats_layer *file, struct tms_error *err);
void tms_stats_layer_free(struct tms_stats_layer *file); /* without an end nothing is left; NULL is allowed */
/* Joins files of layers, 0 … n - 1 of "DIR/layer-00000.safetensors", and the JSON into one file. */
tms_status tms_stats_join(const char *path, const char *dir, uint64_t n, const json_t *about, struct tms_error *err);
/* "DIR/layer-00007.safetensors"; to be freed, NULL if memory is short. */
char *tms_stats_layer_path(const char *dir, uint64_t layer);

struct tms_stats {
    struct tms_safetensors *file;
    json_t *about;
};
/* True if a file is one of these, by its first bytes. */
bool tms_is_stats(const struct tms_file *file);
tms_status tms_stats_open(struct tms_stats **out, const char *path, struct tms_error *err);
void tms_stats_close(struct tms_stats *stats);
/* The model's fingerprint and architecture, as text. */
const char *tms_stats_fingerprint(const struct tms_stats *stats);
const char *tms_stats_model(const struct tms_stats *stats);
/* TMS_EINPUT, naming both, if the statistics in the file at `path`, of an architecture and a fingerprint, are of
 * another model than the source. */
tms_status tms_stats_check_model(const char *path, const char *architecture, const char *fingerprint,
                                 const struct tms_source *source, struct tms_error *err);

/* One input of the file; arrays are owned, free with tms_stats_drop. */
struct tms_stats_input {
    size_t cols, parts;
    int64_t *counts;
    double *squares;
};
/* Reads counts and sums of squares of the input that a weight sees (GGUF's name). TMS_EINPUT if they are damaged; an
 * input that is not there leaves cols 0. */
tms_status tms_stats_read(const struct tms_stats *stats, const char *weight, struct tms_stats_input *out,
                          struct tms_error *err);
void tms_stats_drop(struct tms_stats_input *input);

/* Tokens of each part of an input, by its own name: *counts [*n], to be freed; NULL if it is not there. */
tms_status tms_stats_counts(const struct tms_stats *stats, const char *input, uint64_t **counts, size_t *n,
                            struct tms_error *err);
/* What its Hessians were like, summed over the parts; left as it is for a file without. */
struct tms_hessians_seen {
    size_t n, n_dead, n_raised; /* Hessians; dead channels; Hessians that needed more than the least damping */
    double most_damp;
};
tms_status tms_stats_hessians_seen(const struct tms_stats *stats, const char *input, struct tms_hessians_seen *seen,
                                   struct tms_error *err);
/* The kept Hessian of a part of the input that a weight (GGUF's name) sees, finished; *out stays NULL if the weight has
 * no input there or no token reached the part. TMS_EINPUT if the file has no Hessians or is damaged. */
tms_status tms_stats_hessian(const struct tms_stats *stats, const char *weight, size_t part, size_t cols,
                             struct tms_hessian **out, struct tms_error *err);
/* The largest |x| of each column of a part of an input that is there; out [cols]. */
tms_status tms_stats_largest(const struct tms_stats *stats, const char *weight, size_t part, size_t cols, float *out,
                             struct tms_error *err);
/* Where the damping of NAME.damp begins. */
#define TMS_STATS_DAMP 0.01

#endif
