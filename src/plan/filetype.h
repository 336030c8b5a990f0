/* File types: llama-quantize's names for "a default type and a rule of which tensor gets another one". */
#ifndef TMS_PLAN_FILETYPE_H
#define TMS_PLAN_FILETYPE_H

#include <tamis/codec.h>

/* general.file_type, as llama.cpp numbers it (llama_ftype in include/llama.h). */
enum tms_ftype {
    TMS_FTYPE_F32 = 0,
    TMS_FTYPE_F16 = 1,
    TMS_FTYPE_Q4_0 = 2,
    TMS_FTYPE_Q4_1 = 3,
    TMS_FTYPE_Q8_0 = 7,
    TMS_FTYPE_Q5_0 = 8,
    TMS_FTYPE_Q5_1 = 9,
    TMS_FTYPE_Q2_K = 10,
    TMS_FTYPE_Q3_K_S = 11,
    TMS_FTYPE_Q3_K_M = 12,
    TMS_FTYPE_Q3_K_L = 13,
    TMS_FTYPE_Q4_K_S = 14,
    TMS_FTYPE_Q4_K_M = 15,
    TMS_FTYPE_Q5_K_S = 16,
    TMS_FTYPE_Q5_K_M = 17,
    TMS_FTYPE_Q6_K = 18,
    TMS_FTYPE_IQ2_XXS = 19,
    TMS_FTYPE_IQ2_XS = 20,
    TMS_FTYPE_Q2_K_S = 21,
    TMS_FTYPE_IQ3_XS = 22,
    TMS_FTYPE_IQ3_XXS = 23,
    TMS_FTYPE_IQ1_S = 24,
    TMS_FTYPE_IQ4_NL = 25,
    TMS_FTYPE_IQ3_S = 26,
    TMS_FTYPE_IQ3_M = 27,
    TMS_FTYPE_IQ2_S = 28,
    TMS_FTYPE_IQ2_M = 29,
    TMS_FTYPE_IQ4_XS = 30,
    TMS_FTYPE_IQ1_M = 31,
    TMS_FTYPE_BF16 = 32,
    TMS_FTYPE_TQ1_0 = 36,
    TMS_FTYPE_TQ2_0 = 37,
    TMS_FTYPE_MXFP4_MOE = 38,
    TMS_FTYPE_NVFP4 = 39,
    TMS_FTYPE_Q1_0 = 40,
    TMS_FTYPE_Q2_0 = 41,
    TMS_FTYPE_COPY = -1, /* no file type of its own: every tensor as it is */
};

struct tms_file_type {
    enum tms_ftype id;
    const char *name;        /* as in file names and general use: "Q4_K_M" */
    const char *alias;       /* another accepted name, or NULL */
    enum tms_type type;      /* of most tensors */
    const char *explanation; /* for `tamis types` */
};

/* By name (any case), alias or number; NULL if there is none. */
const struct tms_file_type *tms_file_type(const char *name);
const struct tms_file_type *tms_file_type_by_id(int id);
/* i = 0 … until NULL. */
const struct tms_file_type *tms_file_type_at(size_t i);

#endif
