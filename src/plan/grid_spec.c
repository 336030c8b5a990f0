/* Types for GPTQ, AWQ and compressed-tensors. See spec.h.
 *
 *   gptq[:2|3|4|8][:gN|:channel][:sym|:asym][:v1|:v2][:act]   gptq:4:g128; zero points of asym are written as they are
 *                                                        (v2)
 *   awq[:gN|:channel]                                    awq:g128, always 4 bits with zero points
 *   wNa16[:gN|:channel][:sym|:asym]                      N = 2 … 8; w4a16:g128
 *   w8a8, fp8[:channel|:tensor|:block], nvfp4a16, mxfp4a16 (or mxfp4)
 * The names of compressed-tensors are those of its presets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plan/spec.h"

/* "g128", "channel" or "-1" */
static bool read_group(const char *part, uint64_t *group)
{
    char *end;
    if (strcasecmp(part, "channel") == 0 || strcasecmp(part, "gall") == 0) {
        *group = 0;
        return true;
    }
    if (part[0] != 'g' && part[0] != 'G') return false;
    unsigned long long n = strtoull(part + 1, &end, 10);
    if (end == part + 1 || *end || n < 16 || n > 4096 || n % 16 != 0) return false;
    *group = n;
    return true;
}

/* "4" or "b4" */
static bool read_bits(const char *part, unsigned *bits)
{
    const char *digit = part[0] == 'b' || part[0] == 'B' ? part + 1 : part;
    if (!strchr("2348", digit[0]) || !digit[0] || digit[1]) return false;
    *bits = (unsigned)(digit[0] - '0');
    return true;
}

static bool take(struct tms_grid_spec *g, const char *part, bool *version)
{
    const bool integers = g->scheme == TMS_SCHEME_GPTQ || g->scheme == TMS_SCHEME_WORDS;
    if (g->scheme == TMS_SCHEME_GPTQ && read_bits(part, &g->bits)) return true;
    if ((integers || g->scheme == TMS_SCHEME_AWQ) && read_group(part, &g->group))
        return g->scheme == TMS_SCHEME_WORDS || g->group % 32 == 0;
    if (integers && (strcasecmp(part, "sym") == 0 || strcasecmp(part, "asym") == 0)) {
        g->asymmetric = part[0] == 'a' || part[0] == 'A';
        return true;
    }
    if (g->scheme == TMS_SCHEME_GPTQ && (strcasecmp(part, "v1") == 0 || strcasecmp(part, "v2") == 0)) {
        g->v1 = part[1] == '1';
        *version = true;
        return true;
    }
    if (g->scheme == TMS_SCHEME_GPTQ && strcasecmp(part, "act") == 0) {
        g->act_order = true;
        return true;
    }
    if (g->scheme == TMS_SCHEME_FP8) {
        static const char *const names[] = {"channel", "tensor", "block"};
        for (int i = 0; i < 3; i++)
            if (strcasecmp(part, names[i]) == 0) {
                g->fp8 = (enum tms_fp8_scales)i;
                return true;
            }
    }
    return false;
}

static const char *what_it_takes(enum tms_scheme scheme)
{
    switch (scheme) {
    case TMS_SCHEME_GPTQ:
        return ":2, :3, :4, :8 bits, :g32 … :g4096 in steps of 32 or :channel, :sym or :asym, :v1 or :v2, :act";
    case TMS_SCHEME_AWQ: return ":g32 … :g4096 in steps of 32, or :channel";
    case TMS_SCHEME_WORDS: return ":g16 … :g4096 in steps of 16 or :channel, :sym or :asym";
    case TMS_SCHEME_FP8: return ":channel, :tensor or :block";
    default: return "it takes no parameters";
    }
}

static void set_name(struct tms_spec *spec)
{
    const struct tms_grid_spec *g = &spec->grid;
    static const char *const fp8[] = {"fp8", "fp8:tensor", "fp8:block"};
    const char *asym = g->asymmetric ? ":asym" : "";
    char group[24] = ":channel";
    if (g->group) snprintf(group, sizeof group, ":g%u", (unsigned)g->group);
    switch (g->scheme) {
    case TMS_SCHEME_GPTQ:
        snprintf(spec->name, sizeof spec->name, "gptq:%u%s%s%s%s", g->bits, group, asym,
                 g->v1 == !g->asymmetric ? ""
                 : g->v1                 ? ":v1"
                                         : ":v2",
                 g->act_order ? ":act" : "");
        break;
    case TMS_SCHEME_AWQ: snprintf(spec->name, sizeof spec->name, "awq%s", group); break;
    case TMS_SCHEME_WORDS: snprintf(spec->name, sizeof spec->name, "w%ua16%s%s", g->bits, group, asym); break;
    case TMS_SCHEME_INT8: snprintf(spec->name, sizeof spec->name, "w8a8"); break;
    case TMS_SCHEME_FP8: snprintf(spec->name, sizeof spec->name, "%s", fp8[g->fp8]); break;
    case TMS_SCHEME_NVFP4: snprintf(spec->name, sizeof spec->name, "nvfp4a16"); break;
    case TMS_SCHEME_MXFP4: snprintf(spec->name, sizeof spec->name, "mxfp4a16"); break;
    }
}

static bool read_base(struct tms_grid_spec *g, const char *base)
{
    static const struct {
        const char *name;
        struct tms_grid_spec spec;
    } bases[] = {
        {"gptq", {.scheme = TMS_SCHEME_GPTQ, .bits = 4, .group = 128}},
        {"awq", {.scheme = TMS_SCHEME_AWQ, .bits = 4, .group = 128, .asymmetric = true}},
        {"w8a8", {.scheme = TMS_SCHEME_INT8, .bits = 8}},
        {"fp8", {.scheme = TMS_SCHEME_FP8, .bits = 8}},
        {"nvfp4a16", {.scheme = TMS_SCHEME_NVFP4, .bits = 4, .group = 16}},
        {"mxfp4a16", {.scheme = TMS_SCHEME_MXFP4, .bits = 4, .group = 32}},
        {"mxfp4", {.scheme = TMS_SCHEME_MXFP4, .bits = 4, .group = 32}},
    };
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++)
        if (strcasecmp(base, bases[i].name) == 0) {
            *g = bases[i].spec;
            return true;
        }
    if ((base[0] == 'w' || base[0] == 'W') && base[1] >= '2' && base[1] <= '8' && strcasecmp(base + 2, "a16") == 0) {
        *g = (struct tms_grid_spec){.scheme = TMS_SCHEME_WORDS, .bits = (unsigned)(base[1] - '0'), .group = 128};
        return true;
    }
    return false;
}

tms_status tms_spec_parse_grid(struct tms_spec *spec, const char *text, const char *base, const char *rest, bool *known,
                               struct tms_error *err)
{
    bool version = false;
    *known = read_base(&spec->grid, base);
    if (!*known) return TMS_OK;
    spec->dialect = TMS_DIALECT_GRID;
    while (rest) {
        char part[32];
        const char *colon = strchr(rest, ':');
        size_t n = colon ? (size_t)(colon - rest) : strlen(rest);
        snprintf(part, sizeof part, "%.*s", (int)(n < sizeof part ? n : sizeof part - 1), rest);
        rest = colon ? colon + 1 : NULL;
        if (!take(&spec->grid, part, &version))
            return tms_fail(err, TMS_EUSAGE, "'%s': '%s' is not understood (%s)", text, part,
                            what_it_takes(spec->grid.scheme));
    }
    /* v1 loses nothing without zero points of 0, which symmetric ones never are; some readers of it trip over them. */
    if (spec->grid.scheme == TMS_SCHEME_GPTQ && !version) spec->grid.v1 = !spec->grid.asymmetric;
    set_name(spec);
    return TMS_OK;
}
