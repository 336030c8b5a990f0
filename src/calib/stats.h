/* The file of a calibration run, a safetensors file. For each input of linear layers, named after the first weight that
 * sees it (as folders have it, without ".weight"; "…mlp.experts.gate_proj" for all experts of a layer):
 *
 *     NAME.count        I64 [parts]         tokens
 *     NAME.sum_squares  F64 [parts, cols]   sums of x^2
 *     NAME.sum_abs      F64 [parts, cols]   sums of |x|
 *     NAME.min, .max    F32 [parts, cols]   0 where no token was
 *     NAME.hessian      F32 [parts, cols, cols]   sums of x xT, lower triangle (only with Hessians)
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

/* Writes the inputs of one layer to a file of their own (complete or not at all). */
tms_status tms_stats_write_layer(const char *path, const struct tms_net *net, uint64_t layer,
                                 const struct tms_layer_inputs *inputs, struct tms_error *err);
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

#endif
