/* GPTQ (arXiv 2210.17323) on the affine grids of affine.h, with the conventions of GPTQModel and AutoGPTQ, so that
 * codes agree with theirs but for ties: channels that never saw an input get H = 1 and weights 0; the order of columns
 * is chosen from the diagonal of H; damping adds damp * mean(diagonal) to the diagonal; blocks of 128 columns; a
 * group's parameters are found in the weights as they were at the beginning of its block (feedback.h). "act-order"
 * takes columns by falling H[i][i]; its groups are of columns that follow one another in that order, so that a file
 * needs g_idx. Group-aware order sorts columns within their groups and then the groups by their greatest entry: most of
 * the gain, and groups stay where they are. */
#ifndef TMS_METHOD_GPTQ_H
#define TMS_METHOD_GPTQ_H

#include <stdint.h>

#include "method/affine.h"
#include "method/hessian.h"

enum tms_gptq_order {
    TMS_GPTQ_IN_ORDER,
    TMS_GPTQ_ACT_ORDER,   /* desc_act */
    TMS_GPTQ_GROUP_AWARE, /* act_group_aware */
};

struct tms_gptq_options {
    struct tms_affine affine; /* bits 2 … 8 */
    size_t group;             /* columns; 0: the whole row */
    enum tms_gptq_order order;
    bool static_groups; /* parameters of all groups come from the weights before any feedback, in their places */
    bool fresh_groups;  /* parameters of groups see all feedback, unlike GPTQModel's; groups divide 128 or it them */
    /* Ends of groups weigh squared errors by 1 / U[i][i]², how much an error counts that the columns behind it cannot
     * repair, instead of affine.norm; only of groups that are found in the loop. */
    bool weighted_groups;
    double damp; /* 0.05 in GPTQModel, 0.01 in AutoGPTQ and llm-compressor */
};

struct tms_gptq_result {
    size_t n_rows, n_cols, n_groups;
    uint8_t *codes;   /* [n_rows][n_cols] */
    float *scales;    /* [n_rows][n_groups] */
    uint8_t *zeros;   /* [n_rows][n_groups] */
    uint32_t *g_idx;  /* [n_cols]: the group of each column */
    double damp_used; /* more than asked for if the factor needed it */
    size_t n_dead;    /* channels without input */
    double loss;      /* sum over all weights of ((w - q) / U[i][i])² / 2 */
};

/* w [n_rows][ldw]; hessian finished, of n_cols columns. TMS_EINPUT for weights that are not finite and for a Hessian
 * that damping of 1 does not make positive definite. Freed with tms_gptq_free. */
tms_status tms_gptq(struct tms_gptq_result *out, const float *w, size_t ldw, size_t n_rows,
                    const struct tms_hessian *hessian, const struct tms_gptq_options *options, struct tms_pool *pool,
                    struct tms_error *err);
void tms_gptq_free(struct tms_gptq_result *result);

/* Layers with the same input and options share the order of columns and the factor, which is half of the work for a
 * square layer: prepared once, used for each. */
struct tms_gptq_prepared {
    const struct tms_hessian *hessian; /* borrowed */
    struct tms_gptq_options options;
    uint32_t *order; /* [n] */
    float *u;        /* [n][hessian->ld] */
    double damp_used;
};
tms_status tms_gptq_prepare(struct tms_gptq_prepared *out, const struct tms_hessian *hessian,
                            const struct tms_gptq_options *options, struct tms_pool *pool, struct tms_error *err);
tms_status tms_gptq_with(struct tms_gptq_result *out, const float *w, size_t ldw, size_t n_rows,
                         const struct tms_gptq_prepared *prepared, struct tms_pool *pool, struct tms_error *err);
void tms_gptq_prepared_free(struct tms_gptq_prepared *prepared);

/* scale * (code - zero), [n_rows][n_cols]. */
void tms_gptq_decode(const struct tms_gptq_result *result, float *w);

/* The upper factor of the inverse of H with its columns in `order` (NULL: as they are), after dead channels and
 * damping; u [n][hessian->ld]. *damp is raised as often as needed, by 0.01, beyond 0.05 by half. Encoders with feedback
 * use it, too. */
tms_status tms_damped_factor(const struct tms_hessian *hessian, const uint32_t *order, double *damp, float *u,
                             struct tms_pool *pool, struct tms_error *err);

/* Orders of columns, stable; order [n]. group: as in the options. */
tms_status tms_column_order(const struct tms_hessian *hessian, enum tms_gptq_order kind, size_t group, uint32_t *order,
                            struct tms_error *err);

#endif
