/* See override.h. */
#include "target/override.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tms_status set(struct tms_kvs *kvs, const char *key, const char *type, const char *value, const char *text,
                      struct tms_error *err)
{
    char *end = NULL;
    if (strncmp(type, "int:", 4) == 0) {
        long long n = strtoll(value, &end, 10);
        if (end != value && !*end) tms_kvs_set_u32(kvs, key, (uint32_t)(n < 0 ? -n : n));
    } else if (strncmp(type, "float:", 6) == 0) {
        double x = strtod(value, &end);
        if (end != value && !*end) tms_kvs_set_f32(kvs, key, (float)x);
    } else if (strncmp(type, "bool:", 5) == 0) {
        bool yes = strcmp(value, "true") == 0;
        if (yes || strcmp(value, "false") == 0) {
            tms_kvs_set_bool(kvs, key, yes);
            end = strchr(text, '\0');
        }
    } else if (strncmp(type, "str:", 4) == 0 && strlen(value) <= 127) {
        tms_kvs_set_string(kvs, key, value);
        end = strchr(text, '\0');
    }
    if (!end || end == value || *end)
        return tms_fail(err, TMS_EUSAGE, "--override-kv '%s': expected KEY=int:N, float:X, bool:true|false or str:TEXT",
                        text);
    return TMS_OK;
}

tms_status tms_override_kvs(struct tms_kvs *kvs, const char *const *texts, size_t n, struct tms_error *err)
{
    for (size_t i = 0; i < n; i++) {
        char key[128];
        const char *equals = strchr(texts[i], '='), *colon = equals ? strchr(equals, ':') : NULL;
        if (!colon || equals == texts[i] || equals - texts[i] > 127)
            return tms_fail(err, TMS_EUSAGE, "--override-kv '%s': expected KEY=TYPE:VALUE", texts[i]);
        snprintf(key, sizeof key, "%.*s", (int)(equals - texts[i]), texts[i]);
        tms_kvs_remove(kvs, key);
        tms_status status = set(kvs, key, equals + 1, colon + 1, texts[i], err);
        if (status != TMS_OK) return status;
    }
    return TMS_OK;
}
