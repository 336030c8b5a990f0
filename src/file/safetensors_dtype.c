/* The dtypes of safetensors: their spelling in headers, their bits, and their order.
 *
 * The rows stand in the order of `enum Dtype` of the reference (safetensors/src/tensor.rs, version 0.6), which
 * its writer sorts by, widest first. */
#include "file/safetensors.h"

#include <string.h>

static const struct {
    enum tms_type type;
    const char *name;
    unsigned bits;
} dtypes[] = {
    {TMS_BOOL, "BOOL", 8},
    {TMS_F4, "F4", 4},
    {TMS_F6_E2M3, "F6_E2M3", 6},
    {TMS_F6_E3M2, "F6_E3M2", 6},
    {TMS_U8, "U8", 8},
    {TMS_I8, "I8", 8},
    {TMS_F8_E5M2, "F8_E5M2", 8},
    {TMS_F8_E4M3, "F8_E4M3", 8},
    {TMS_F8_E8M0, "F8_E8M0", 8},
    {TMS_F8_E4M3FNUZ, "F8_E4M3FNUZ", 8},
    {TMS_F8_E5M2FNUZ, "F8_E5M2FNUZ", 8},
    {TMS_I16, "I16", 16},
    {TMS_U16, "U16", 16},
    {TMS_F16, "F16", 16},
    {TMS_BF16, "BF16", 16},
    {TMS_I32, "I32", 32},
    {TMS_U32, "U32", 32},
    {TMS_F32, "F32", 32},
    {TMS_C64, "C64", 64},
    {TMS_F64, "F64", 64},
    {TMS_I64, "I64", 64},
    {TMS_U64, "U64", 64},
};

int tms_st_dtype_rank(enum tms_type type)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (dtypes[i].type == type) return (int)i;
    return -1;
}

const char *tms_st_dtype_name(enum tms_type type)
{
    int rank = tms_st_dtype_rank(type);
    return rank < 0 ? NULL : dtypes[rank].name;
}

unsigned tms_st_dtype_bits(enum tms_type type)
{
    int rank = tms_st_dtype_rank(type);
    return rank < 0 ? 0 : dtypes[rank].bits;
}

enum tms_type tms_st_dtype_from_name(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(dtypes[i].name, name) == 0) return dtypes[i].type;
    return TMS_TYPE_NONE;
}
