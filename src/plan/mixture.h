/* Which type each tensor of a GGUF file gets: llama-quantize's rules, as of llama.cpp 0c1e57098 (August 2026),
 * described in src/llama-quant.cpp there; equal results are tested against that program's. */
#ifndef TMS_PLAN_MIXTURE_H
#define TMS_PLAN_MIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "plan/filetype.h"

/* What the rules ask about the model. */
struct tms_mixture_model {
    const char *arch; /* general.architecture */
    uint64_t n_layers, n_heads, n_kv_heads, n_experts;
};

struct tms_mixture_tensor {
    const char *name; /* GGUF name */
    uint32_t n_dims;
    uint64_t n_cols;      /* ne[0], the row length */
    uint64_t n_mats;      /* ne[2]: experts stacked in it, 1 for a matrix */
    enum tms_type source; /* the type it has */
    enum tms_type type;   /* set: the type that it gets */
    bool fallback;        /* set: its rows do not fit the type that the rule gave */
    const char *problem;  /* set: why it cannot be stored so ("…"), NULL if it can */
};

/* "All tensors whose name matches get this type": what --tensor-type says. The first that matches counts. */
struct tms_type_override {
    struct pcre2_real_code_8 *pattern; /* compiled by tms_type_override_parse */
    enum tms_type type;
};

struct tms_mixture_options {
    bool has_weights;  /* importance weights are at hand */
    bool pure;         /* the file type's own type everywhere */
    bool leave_output; /* output.weight stays as it is */
    bool of_2025;      /* the rules of llama.cpp c392e509 (February 2025) in place of the newest */
    enum tms_type output_type, token_embd_type; /* TMS_TYPE_NONE: by the rules */
    const struct tms_type_override *overrides;
    size_t n_overrides;
};

/* True for tensors that llama-quantize quantizes at all: two or more dimensions, a weight, no norm, no router. */
bool tms_mixture_quantizes(const char *name, uint32_t n_dims);

/* True if llama-quantize will not give this type to this tensor without importance weights. */
bool tms_mixture_needs_weights(const struct tms_file_type *ftype, const char *name, enum tms_type type, bool of_2025);

/* Order in which llama-quantize treats and writes tensors: by layer number (-1 if none), then by name. */
int tms_mixture_compare_names(const char *a, const char *b);

/* Sets type, fallback and problem of every tensor, whatever order they are in. False if memory is short. */
bool tms_mixture_assign(const struct tms_file_type *ftype, const struct tms_mixture_model *model,
                        const struct tms_mixture_options *options, struct tms_mixture_tensor *tensors, size_t n);

/* "REGEX=TYPE", as llama-quantize takes it: the expression is put into lower case. TMS_EUSAGE if it is not one. */
tms_status tms_type_override_parse(struct tms_type_override *out, const char *text, struct tms_error *err);
void tms_type_override_free(struct tms_type_override *override);

#endif
