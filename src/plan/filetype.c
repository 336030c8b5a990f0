/* See filetype.h. */
#include "plan/filetype.h"

#include <stdlib.h>
#include <strings.h>

static const struct tms_file_type table[] = {
    {TMS_FTYPE_F32, "F32", NULL, TMS_F32, "32 bits, as the weights were trained or better"},
    {TMS_FTYPE_F16, "F16", NULL, TMS_F16, "16 bits; large values overflow at 65504"},
    {TMS_FTYPE_BF16, "BF16", NULL, TMS_BF16, "16 bits with the range of F32; lossless for most models"},
    {TMS_FTYPE_Q8_0, "Q8_0", NULL, TMS_Q8_0, "8.5 bits; hardly to be told from the original"},
    {TMS_FTYPE_Q6_K, "Q6_K", NULL, TMS_Q6_K, "6.6 bits; very close to the original"},
    {TMS_FTYPE_Q5_K_M, "Q5_K_M", "Q5_K", TMS_Q5_K, "about 5.7 bits; some tensors in Q6_K"},
    {TMS_FTYPE_Q5_K_S, "Q5_K_S", NULL, TMS_Q5_K, "about 5.5 bits"},
    {TMS_FTYPE_Q4_K_M, "Q4_K_M", "Q4_K", TMS_Q4_K, "about 4.8 bits; the usual choice"},
    {TMS_FTYPE_Q4_K_S, "Q4_K_S", NULL, TMS_Q4_K, "about 4.6 bits"},
    {TMS_FTYPE_Q3_K_L, "Q3_K_L", NULL, TMS_Q3_K, "about 4.3 bits"},
    {TMS_FTYPE_Q3_K_M, "Q3_K_M", "Q3_K", TMS_Q3_K, "about 3.9 bits"},
    {TMS_FTYPE_Q3_K_S, "Q3_K_S", NULL, TMS_Q3_K, "about 3.5 bits"},
    {TMS_FTYPE_Q2_K, "Q2_K", NULL, TMS_Q2_K, "about 3 bits; visible loss"},
    {TMS_FTYPE_Q2_K_S, "Q2_K_S", NULL, TMS_Q2_K, "about 2.8 bits; needs --imatrix"},
    {TMS_FTYPE_IQ4_NL, "IQ4_NL", NULL, TMS_IQ4_NL, "4.5 bits on an uneven grid"},
    {TMS_FTYPE_IQ4_XS, "IQ4_XS", NULL, TMS_IQ4_XS, "4.25 bits on an uneven grid"},
    {TMS_FTYPE_IQ3_M, "IQ3_M", NULL, TMS_IQ3_S, "about 3.7 bits, from a codebook; better with --imatrix"},
    {TMS_FTYPE_IQ3_S, "IQ3_S", NULL, TMS_IQ3_S, "about 3.5 bits, from a codebook"},
    {TMS_FTYPE_IQ3_XS, "IQ3_XS", NULL, TMS_IQ3_S, "about 3.3 bits; needs --imatrix"},
    {TMS_FTYPE_IQ3_XXS, "IQ3_XXS", NULL, TMS_IQ3_XXS, "about 3.1 bits; needs --imatrix"},
    {TMS_FTYPE_IQ2_M, "IQ2_M", NULL, TMS_IQ2_S, "about 2.7 bits; needs --imatrix"},
    {TMS_FTYPE_IQ2_S, "IQ2_S", NULL, TMS_IQ2_XS, "about 2.5 bits; needs --imatrix"},
    {TMS_FTYPE_IQ2_XS, "IQ2_XS", NULL, TMS_IQ2_XS, "about 2.3 bits; needs --imatrix"},
    {TMS_FTYPE_IQ2_XXS, "IQ2_XXS", NULL, TMS_IQ2_XXS, "about 2.1 bits; needs --imatrix"},
    {TMS_FTYPE_IQ1_M, "IQ1_M", NULL, TMS_IQ1_M, "about 1.8 bits; needs --imatrix"},
    {TMS_FTYPE_IQ1_S, "IQ1_S", NULL, TMS_IQ1_S, "about 1.6 bits; needs --imatrix"},
    {TMS_FTYPE_TQ2_0, "TQ2_0", NULL, TMS_TQ2_0, "2.1 bits, for models trained ternary"},
    {TMS_FTYPE_TQ1_0, "TQ1_0", NULL, TMS_TQ1_0, "1.7 bits, for models trained ternary"},
    {TMS_FTYPE_Q2_0, "Q2_0", NULL, TMS_Q2_0, "2.25 bits, for models trained ternary"},
    {TMS_FTYPE_Q1_0, "Q1_0", NULL, TMS_Q1_0, "1.1 bits, for models trained binary"},
    {TMS_FTYPE_MXFP4_MOE, "MXFP4_MOE", NULL, TMS_MXFP4, "4.25 bits for experts, Q8_0 for the rest"},
    {TMS_FTYPE_NVFP4, "NVFP4", NULL, TMS_NVFP4, "4.5 bits: 4-bit floats with 8-bit scales"},
    {TMS_FTYPE_Q5_1, "Q5_1", NULL, TMS_Q5_1, "6 bits, older format"},
    {TMS_FTYPE_Q5_0, "Q5_0", NULL, TMS_Q5_0, "5.5 bits, older format"},
    {TMS_FTYPE_Q4_1, "Q4_1", NULL, TMS_Q4_1, "5 bits, older format"},
    {TMS_FTYPE_Q4_0, "Q4_0", NULL, TMS_Q4_0, "4.5 bits, older format; fast on every machine"},
    {TMS_FTYPE_COPY, "COPY", NULL, TMS_TYPE_NONE, "every tensor as it is, only the container changes"},
};

const struct tms_file_type *tms_file_type_at(size_t i)
{
    return i < sizeof table / sizeof *table ? &table[i] : NULL;
}

const struct tms_file_type *tms_file_type_by_id(int id)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if ((int)table[i].id == id) return &table[i];
    return NULL;
}

const struct tms_file_type *tms_file_type(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcasecmp(name, table[i].name) == 0) return &table[i];
        if (table[i].alias && strcasecmp(name, table[i].alias) == 0) return &table[i];
    }
    char *end;
    long id = strtol(name, &end, 10);
    if (end == name || *end || id < 0 || id > 1024) return NULL;
    return tms_file_type_by_id((int)id);
}
