/* See json.h. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

tms_status tms_json_parse(json_t **out, const char *text, size_t n, const char *where, struct tms_error *err)
{
    json_error_t problem;
    json_t *json = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    /* Running out of memory, jansson says so or says nothing. */
    if (!json && (json_error_code(&problem) == json_error_out_of_memory || !problem.text[0]))
        return tms_fail_memory(err, n);
    if (!json)
        return tms_fail(err, TMS_EINPUT, "%s: is not valid JSON: %s (line %d, column %d)", where, problem.text,
                        problem.line, problem.column);
    *out = json;
    return TMS_OK;
}

tms_status tms_json_load(json_t **out, const char *path, uint64_t limit, struct tms_error *err)
{
    char *text = NULL;
    size_t n = 0;
    tms_status status = tms_file_text(path, limit, &text, &n, err);
    if (status == TMS_OK) status = tms_json_parse(out, text, n, path, err);
    free(text);
    return status;
}

void tms_json_repr(char out[32], double value)
{
    if (isnan(value) || isinf(value)) {
        snprintf(out, 32, "%s", isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity");
        return;
    }
    /* The fewest significant digits that read back as the same number. */
    char digits[40];
    int precision = 1;
    for (; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision - 1, value);
        if (strtod(digits, NULL) == value) break;
    }
    char *e = strchr(digits, 'e');
    int exponent = atoi(e + 1);
    if (exponent < -4 || exponent >= 16) {
        *e = '\0';
        snprintf(out, 32, "%.24se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent) % 1000);
        return;
    }
    int decimals = precision - 1 - exponent;
    if (decimals > 0)
        snprintf(out, 32, "%.*f", decimals, value);
    else
        snprintf(out, 32, "%.1f", value);
}
