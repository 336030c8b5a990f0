/* See spec.h. */
#include "plan/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The part of `text` up to the next ':' (or its end); *rest points behind it, NULL at the end. */
static void next_part(const char *text, char *part, size_t size, const char **rest)
{
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : strlen(text);
    snprintf(part, size, "%.*s", (int)(n < size ? n : size - 1), text);
    *rest = colon ? colon + 1 : NULL;
}

static tms_status parse_bnb(struct tms_spec *spec, const char *text, const char *rest, struct tms_error *err)
{
    char part[32];
    while (rest) {
        next_part(rest, part, sizeof part, &rest);
        char *end;
        unsigned long block = (part[0] == 'b' || part[0] == 'B') ? strtoul(part + 1, &end, 10) : 0;
        if (spec->dialect == TMS_DIALECT_BNB4 && strcasecmp(part, "dq") == 0) {
            spec->double_quant = true;
        } else if (spec->dialect == TMS_DIALECT_BNB4 && block && *end == '\0' && tms_bnb_block_size_ok(block)) {
            spec->block_size = (uint32_t)block;
        } else {
            return tms_fail(err, TMS_EUSAGE, "'%s': '%s' is not understood (%s)", text, part,
                            spec->dialect == TMS_DIALECT_BNB4
                                ? ":dq for double quantization, :b32 … :b4096 for another block size than 64"
                                : "int8 takes no parameters");
        }
    }
    const char *base = spec->dialect == TMS_DIALECT_BNB8 ? "int8" : spec->kind == TMS_BNB_NF4 ? "nf4" : "fp4";
    char block[16] = "";
    if (spec->dialect == TMS_DIALECT_BNB4 && spec->block_size != 64)
        snprintf(block, sizeof block, ":b%u", spec->block_size);
    snprintf(spec->name, sizeof spec->name, "%s%s%s", base, block, spec->double_quant ? ":dq" : "");
    return TMS_OK;
}

/* "hf", "hf:bf16", …: a plain Hugging Face folder. */
static tms_status parse_hf(struct tms_spec *spec, const char *text, const char *rest, struct tms_error *err)
{
    static const enum tms_type types[] = {TMS_BF16, TMS_F16, TMS_F32};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *name = tms_codec(types[i])->name;
        if (rest ? strcasecmp(rest, name) != 0 : i > 0) continue;
        spec->float_type = types[i];
        snprintf(spec->name, sizeof spec->name, "hf:%s", name);
        return TMS_OK;
    }
    return tms_fail(err, TMS_EUSAGE, "'%s': '%s' is not understood (hf:bf16, hf:f16 or hf:f32)", text, rest);
}

tms_status tms_spec_parse(struct tms_spec *out, const char *text, struct tms_error *err)
{
    struct tms_spec spec = {.block_size = 64};
    char base[32];
    const char *rest;
    next_part(text, base, sizeof base, &rest);
    if (strcasecmp(base, "nf4") == 0 || strcasecmp(base, "fp4") == 0) {
        spec.dialect = TMS_DIALECT_BNB4;
        spec.kind = strcasecmp(base, "nf4") == 0 ? TMS_BNB_NF4 : TMS_BNB_FP4;
    } else if (strcasecmp(base, "int8") == 0) {
        spec.dialect = TMS_DIALECT_BNB8;
    } else if (strcasecmp(base, "hf") == 0) {
        spec.dialect = TMS_DIALECT_HF;
    } else {
        bool known;
        tms_status status = tms_spec_parse_grid(&spec, text, base, rest, &known, err);
        if (known && status == TMS_OK) *out = spec;
        if (known) return status;
        spec.dialect = TMS_DIALECT_GGUF;
        spec.ftype = rest ? NULL : tms_file_type(base);
        if (!spec.ftype)
            return tms_fail(err, TMS_EUSAGE, "'%s' is no type that tamis can write; `tamis types` lists them", text);
        snprintf(spec.name, sizeof spec.name, "%s", spec.ftype->name);
        *out = spec;
        return TMS_OK;
    }
    tms_status status =
        spec.dialect == TMS_DIALECT_HF ? parse_hf(&spec, text, rest, err) : parse_bnb(&spec, text, rest, err);
    if (status == TMS_OK) *out = spec;
    return status;
}
