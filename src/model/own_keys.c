/* Keys of our own in GGUF files, both ways. See metadata.h. */
#include <math.h>
#include <stddef.h>

#include "model/metadata.h"
#include "model/restore.h"

enum kind { NUMBER, COUNT, FLAG };
static const struct {
    const char *key;
    size_t at; /* in struct tms_config */
    enum kind kind;
} own[] = {
    {"tamis.attention.query_pre_attn_scalar", offsetof(struct tms_config, query_scalar), NUMBER},
    {"tamis.attn_logit_softcapping", offsetof(struct tms_config, attention_cap), NUMBER},
    {"tamis.final_logit_softcapping", offsetof(struct tms_config, logit_cap), NUMBER},
    {"tamis.expert_weights_norm", offsetof(struct tms_config, experts.normalize), FLAG},
    {"tamis.expert_weights_scale", offsetof(struct tms_config, experts.scale), NUMBER},
    {"tamis.expert_layer_step", offsetof(struct tms_config, experts.step), COUNT},
    {"tamis.rope.freq_base", offsetof(struct tms_config, rope.theta), NUMBER},
    {"tamis.rope.freq_base_swa", offsetof(struct tms_config, rope.local_theta), NUMBER},
    {"tamis.rope.scaling.mscale", offsetof(struct tms_config, rope.mscale), NUMBER},
    {"tamis.rope.scaling.mscale_all_dim", offsetof(struct tms_config, rope.mscale_all_dim), NUMBER},
};
enum { N_OWN = sizeof own / sizeof *own };

static const void *place(const struct tms_config *config, size_t i)
{
    return (const char *)config + own[i].at;
}

static void put(struct tms_kvs *kvs, size_t i, const struct tms_config *said, const struct tms_config *meant)
{
    const void *a = place(said, i), *b = place(meant, i);
    switch (own[i].kind) {
    case NUMBER: {
        float x = (float)*(const double *)a, y = (float)*(const double *)b;
        if (x != y) tms_kvs_set_f32(kvs, own[i].key, y);
        break;
    }
    case COUNT:
        if (*(const uint64_t *)a != *(const uint64_t *)b)
            tms_kvs_set_u32(kvs, own[i].key, (uint32_t) * (const uint64_t *)b);
        break;
    case FLAG:
        if (*(const bool *)a != *(const bool *)b) tms_kvs_set_bool(kvs, own[i].key, *(const bool *)b);
        break;
    }
}

/* A window that no text within the context outgrows is none. */
static uint64_t window_of(const struct tms_config *c, uint64_t layer)
{
    uint64_t window = tms_config_window(c, layer);
    return window < c->context ? window : 0;
}

static void put_window(struct tms_kvs *kvs, const struct tms_config *said, const struct tms_config *meant)
{
    uint8_t layers[TMS_MAX_LAYERS];
    uint64_t n = 0;
    bool same = true;
    for (uint64_t l = 0; l < meant->n_layers && l < TMS_MAX_LAYERS; l++) {
        layers[l] = window_of(meant, l) != 0;
        n += layers[l];
        same &= window_of(said, l) == window_of(meant, l);
    }
    if (same) return;
    tms_kvs_set_u32(kvs, TMS_KEY_WINDOW, n ? (uint32_t)meant->window : 0);
    if (n && n < meant->n_layers)
        tms_kvs_set_array(kvs, TMS_KEY_WINDOW_LAYERS, TMS_KV_BOOL, meant->n_layers, layers, meant->n_layers);
}

tms_status tms_metadata_own(struct tms_kvs *kvs, const struct tms_source *source, struct tms_error *err)
{
    struct tms_config said;
    const struct tms_config *meant = &source->config;
    tms_status status = tms_restore_keys(&said, kvs, source->arch, source->path, err);
    if (status != TMS_OK) return status;
    put_window(kvs, &said, meant);
    for (size_t i = 0; i < N_OWN; i++) put(kvs, i, &said, meant);
    return kvs->failed ? tms_fail_memory(err, 0) : TMS_OK;
}

static tms_status fail_key(const char *path, const char *key, struct tms_error *err)
{
    return tms_fail(err, TMS_EINPUT, "%s: key '%s' makes no sense", path, key);
}

static tms_status read_window(struct tms_config *c, const struct tms_kvs *kvs, const char *path, struct tms_error *err)
{
    const struct tms_kv *kv = tms_kvs_find(kvs, TMS_KEY_WINDOW), *list = tms_kvs_find(kvs, TMS_KEY_WINDOW_LAYERS);
    uint64_t n;
    if (!kv) return TMS_OK;
    bool ok = tms_kv_as_u64(kv, &n) && n < 1u << 30;
    if (ok && list) ok = list->type == TMS_KV_ARRAY && list->elem_type == TMS_KV_BOOL && list->count == c->n_layers;
    if (!ok)
        return tms_fail(err, TMS_EINPUT, "%s: key '%s' or its list of layers makes no sense", path, TMS_KEY_WINDOW);
    c->window = n;
    for (size_t i = 0; i < sizeof c->window_layers / sizeof *c->window_layers; i++) c->window_layers[i] = 0;
    for (uint64_t l = 0; l < c->n_layers && n; l++)
        if (!list || list->bytes[l]) tms_config_set_window(c, l);
    return TMS_OK;
}

tms_status tms_metadata_read_own(struct tms_config *config, const struct tms_kvs *kvs, const char *path,
                                 struct tms_error *err)
{
    for (size_t i = 0; i < N_OWN; i++) {
        const struct tms_kv *kv = tms_kvs_find(kvs, own[i].key);
        void *to = (char *)config + own[i].at;
        double x;
        uint64_t n;
        if (!kv) continue;
        if (own[i].kind == NUMBER) {
            if (!tms_kv_as_f64(kv, &x) || !isfinite(x) || x < 0) return fail_key(path, own[i].key, err);
            *(double *)to = tms_shortest((float)x);
        } else if (own[i].kind == COUNT) {
            if (!tms_kv_as_u64(kv, &n) || n < 1 || n > 1u << 28) return fail_key(path, own[i].key, err);
            *(uint64_t *)to = n;
        } else {
            if (!tms_kv_as_u64(kv, &n)) return fail_key(path, own[i].key, err);
            *(bool *)to = n != 0;
        }
    }
    return read_window(config, kvs, path, err);
}
