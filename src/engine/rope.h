/* Rotary position embedding: angles of positions, and the rotation of heads.
 *
 * Frequencies and angles are f32 as in transformers (modeling_rope_utils), so that long positions agree with it. */
#ifndef TMS_ENGINE_ROPE_H
#define TMS_ENGINE_ROPE_H

#include "model/config.h"

/* Which values of a head turn together: i and i + d/2 (Hugging Face), or 2i and 2i + 1 (GGUF files of "llama"). */
enum tms_rope_pairs { TMS_ROPE_HALVES, TMS_ROPE_NEIGHBOURS };

/* Frequencies [rope_dim / 2] of a pass whose last position is n_positions - 1 (dynamic scaling and longrope depend on
 * it), and what cos and sin are multiplied with. local: of Gemma 3's layers with a window. divisors: [rope_dim / 2] of
 * Llama 3's scaling (tms_rope_freqs, or the rope_freqs of a GGUF file), or NULL. TMS_EINPUT for scalings that tamis
 * does not know. */
tms_status tms_rope_frequencies(const struct tms_config *config, bool local, const float *divisors,
                                uint64_t n_positions, float *frequencies, float *factor, struct tms_error *err);
/* DeepSeek: attention scores are multiplied with this, too. */
double tms_rope_score_factor(const struct tms_config *config);
/* cos and sin [n][half] of positions start … start + n - 1. */
void tms_rope_angles(const float *frequencies, size_t half, float factor, size_t start, size_t n, float *cosines,
                     float *sines);
/* Turns one head in place. */
void tms_rope_turn(float *head, size_t half, enum tms_rope_pairs pairs, const float *cosines, const float *sines);

#endif
