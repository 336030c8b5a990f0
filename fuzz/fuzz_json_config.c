/* Any bytes as config.json: parsed or refused with one line; what makes a config has numbers that make sense; and
 * every number in it is spelled so that it reads back as the same. */
#include "fuzz.h"

#include <math.h>
#include <string.h>

#include "base/json.h"
#include "model/config.h"

static void spell_numbers(const json_t *json, unsigned depth)
{
    size_t i;
    json_t *value;
    const char *key;
    char text[32];
    if (depth > 64) return;
    if (json_is_number(json)) {
        double x = json_number_value(json);
        tms_json_repr(text, x);
        fuzz_require(strlen(text) < sizeof text && strtod(text, NULL) == x, "numbers read back as the same");
    }
    if (json_is_array(json)) {
        json_array_foreach(json, i, value) spell_numbers(value, depth + 1);
    }
    if (json_is_object(json)) {
        /* The macro's iterator takes no const; nothing is changed. */
        void *at = json_object_iter((json_t *)(uintptr_t)json);
        for (; at; at = json_object_iter_next((json_t *)(uintptr_t)json, at)) {
            key = json_object_iter_key(at);
            fuzz_require(key != NULL, "every key is a text");
            spell_numbers(json_object_iter_value(at), depth + 1);
        }
    }
}

static void read_config(const json_t *json)
{
    struct tms_config config;
    struct tms_error err = {{0}};
    if (tms_config_read(&config, json, "config.json", &err) != TMS_OK) {
        fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
        return;
    }
    fuzz_require(isfinite(config.rms_eps) && isfinite(config.rope.theta) && isfinite(config.rope.factor),
                 "numbers are finite");
    if (config.has_shape)
        fuzz_require(config.n_layers && config.n_heads && config.n_kv_heads && config.head_dim && config.hidden &&
                         config.n_heads % config.n_kv_heads == 0,
                     "a shape is complete");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    json_t *json = NULL;
    struct tms_error err = {{0}};
    if (tms_json_parse(&json, (const char *)bytes, n, "config.json", &err) == TMS_OK) {
        spell_numbers(json, 0);
        read_config(json);
        json_decref(json);
    } else {
        fuzz_require(json == NULL, "out-parameters stay untouched");
        fuzz_require(err.message[0] && !strchr(err.message, '\n'), "the message is one line");
    }
    double x;
    if (n == sizeof x) {
        char text[32];
        memcpy(&x, bytes, sizeof x);
        tms_json_repr(text, x);
        if (isfinite(x)) fuzz_require(strtod(text, NULL) == x, "every double reads back as the same");
    }
    return 0;
}
