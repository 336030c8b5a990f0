/* Target types as users write them: "q4_k_m", "15", "nf4:dq", "fp4:b128", "int8", "hf:bf16". */
#ifndef TMS_PLAN_SPEC_H
#define TMS_PLAN_SPEC_H

#include "base/error.h"
#include "codec/bnb.h"
#include "plan/filetype.h"

enum tms_dialect { TMS_DIALECT_GGUF, TMS_DIALECT_BNB4, TMS_DIALECT_BNB8, TMS_DIALECT_HF };

struct tms_spec {
    enum tms_dialect dialect;
    const struct tms_file_type *ftype; /* GGUF */
    enum tms_bnb_kind kind;            /* BNB4 */
    uint32_t block_size;               /* BNB4: values per absmax */
    bool double_quant;                 /* BNB4 */
    enum tms_type float_type;          /* HF: of every tensor of floats */
    char name[32];                     /* canonical spelling: "Q4_K_M", "nf4:b128:dq" */
};

/* TMS_EUSAGE with the known names if it is none. */
tms_status tms_spec_parse(struct tms_spec *out, const char *text, struct tms_error *err);

#endif
