/* Codes that are made before the pipeline runs: HQQ's (hqq_codes.h), and those that need a text: GPTQ on the grids of
 * integers that folders hold (method/gptq.h), and inside GGUF's block types (method/block_feedback.h).
 *
 * Hessians come from statistics (calib/stats.h), which serve all types: they are those of the model as it was. In
 * sequential order (GPTQModel's "true sequential") there are none: the model is walked over the text layer by layer, as
 * it will be read; a layer's inputs come from the layers before it in their new codes, and what comes later in a layer
 * sees the new codes of what is before it: Q, K and V, then O, then gate and up, then down, a walk for each (with
 * scales between operations all of a layer at once). Codes of a finished layer lie in the folder OUTPUT.work, where a
 * killed run goes on; the pipeline takes them from there. */
#ifndef TMS_TARGET_CALIBRATED_H
#define TMS_TARGET_CALIBRATED_H

#include "base/threads.h"
#include "calib/samples.h"
#include "calib/stats.h"
#include "target/target.h"

/* Checks that the options go together and name a method that there is; *calibrated: its codes are made
 * here. */
tms_status tms_calibrated_check(const struct tms_quantize_options *options, bool *calibrated, struct tms_error *err);

/* True for methods that walk the model over a text, and for all whose codes are made before the pipeline runs. */
bool tms_method_reads_text(const char *name);
bool tms_method_makes_codes(const char *name);
/* TMS_EUSAGE if a method that reads a text finds no codes for a target. */
tms_status tms_calibrated_fits(const struct tms_spec *spec, const char *name, struct tms_error *err);

/* The text of the options as the source's tokenizer reads it. */
tms_status tms_calibrated_samples(struct tms_samples *out, const struct tms_source *source,
                                  const struct tms_quantize_options *options, struct tms_error *err);

/* Makes the codes of all routes of a planned target that error feedback knows, and sets route->made. Routes that it
 * leaves alone (types without such codes) are encoded by the pipeline; matrices that too few tokens reached are rounded
 * plainly, and a line to options->warning tells how many, as does the target. stats: instead of samples, of this model;
 * or NULL. */
tms_status tms_calibrated_make(struct tms_target *t, struct tms_pool *pool, const struct tms_samples *samples,
                               const struct tms_stats *stats, const struct tms_quantize_options *options,
                               struct tms_error *err);
/* Removes OUTPUT.work, when the output has its name. */
void tms_calibrated_done(const struct tms_target *t);

#endif
