/* Target types as users write them: "q4_k_m", "15", "nf4:dq", "fp4:b128", "int8", "hf:bf16", "gptq:4:g128", "awq",
 * "w4a16:asym", "fp8:block". */
#ifndef TMS_PLAN_SPEC_H
#define TMS_PLAN_SPEC_H

#include "base/error.h"
#include "codec/bnb.h"
#include "plan/filetype.h"

enum tms_dialect { TMS_DIALECT_GGUF, TMS_DIALECT_BNB4, TMS_DIALECT_BNB8, TMS_DIALECT_HF, TMS_DIALECT_GRID };

/* What a folder on a grid (codec/grid.h) is written as. */
enum tms_scheme {
    TMS_SCHEME_GPTQ,
    TMS_SCHEME_AWQ,
    TMS_SCHEME_WORDS, /* compressed-tensors pack-quantized: wNa16 */
    TMS_SCHEME_INT8,  /* int-quantized: w8a8 */
    TMS_SCHEME_FP8,   /* float-quantized */
    TMS_SCHEME_NVFP4,
    TMS_SCHEME_MXFP4,
};
enum tms_fp8_scales { TMS_FP8_CHANNEL, TMS_FP8_TENSOR, TMS_FP8_BLOCK };

struct tms_grid_spec {
    enum tms_scheme scheme;
    unsigned bits;
    uint64_t group; /* 0: the whole row */
    bool asymmetric;
    bool v1;        /* GPTQ: zero points less one */
    bool act_order; /* GPTQ: groups are made of columns in the order of their inputs' size (desc_act) */
    enum tms_fp8_scales fp8;
};

struct tms_spec {
    enum tms_dialect dialect;
    const struct tms_file_type *ftype; /* GGUF */
    enum tms_bnb_kind kind;            /* BNB4 */
    uint32_t block_size;               /* BNB4: values per absmax */
    bool double_quant;                 /* BNB4 */
    enum tms_type float_type;          /* HF: of every tensor of floats */
    struct tms_grid_spec grid;         /* GRID */
    char name[64];                     /* canonical spelling: "Q4_K_M", "nf4:b128:dq" */
};

/* "gptq…", "awq…", "wNa16…", "w8a8", "fp8…", "nvfp4a16", "mxfp4a16"; *known is false if `base` (before the first ':')
 * is none of them. `rest`: what is behind, or NULL. */
tms_status tms_spec_parse_grid(struct tms_spec *spec, const char *text, const char *base, const char *rest, bool *known,
                               struct tms_error *err);
/* TMS_EUSAGE with the known names if it is none. */
tms_status tms_spec_parse(struct tms_spec *out, const char *text, struct tms_error *err);

#endif
