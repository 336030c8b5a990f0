/* See subjects.h. */
#include "eval/subjects.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/resident.h"

/* Pages of the program, of threads and of small allocations that are touched for the first time on the way. */
enum { RESERVE = 1 << 20 };

tms_status tms_subjects_open(struct tms_subjects *s, const char *model, const struct tms_eval_options *options,
                             bool tokenizes, struct tms_error *err)
{
    struct tms_error first = {""};
    s->options = options;
    s->paths[0] = model;
    s->paths[1] = options->base;
    s->n_models = options->base ? 2 : 1;
    s->caches[0].keep_first = (size_t)options->cache_keep_first;
    s->caches[0].keep_last = (size_t)options->cache_keep_last;
    s->caches[1] = tms_cache_exact();
    tms_status status = tms_cache_type(options->cache ? options->cache : "f32", &s->caches[0].type, err);
    s->weights_alone =
        status == TMS_OK && s->caches[0].type == s->caches[1].type && options->int8_outlier == 0 && !options->fast;
    for (size_t m = 0; m < s->n_models && status == TMS_OK; m++) {
        status = tms_source_open(&s->sources[m], s->paths[m], NULL, NULL, err);
        if (status == TMS_OK && s->sources[m]->kind == TMS_SOURCE_CONFIG)
            status = tms_fail(err, TMS_EINPUT, "%s: a config.json alone has no weights to evaluate", s->paths[m]);
        if (status != TMS_OK || !tokenizes) continue;
        /* one of the two may be without */
        if (tms_tokenizer_open(&s->tokenizers[m], s->sources[m], m == 0 ? &first : err) == TMS_EIO) {
            if (m == 0 && err) *err = first;
            return TMS_EIO;
        }
    }
    if (status == TMS_OK && tokenizes && !s->tokenizers[0] && !s->tokenizers[1]) {
        if (err) *err = first;
        status = TMS_EINPUT;
    }
    if (status == TMS_OK) status = tms_pool_create(&s->pool, options->n_threads, err);
    return status;
}

static void close_tokenizers(struct tms_subjects *s)
{
    for (size_t m = 0; m < 2; m++) {
        tms_tokenizer_close(s->tokenizers[m]);
        s->tokenizers[m] = NULL;
    }
}

void tms_subjects_close(struct tms_subjects *s)
{
    close_tokenizers(s);
    for (size_t m = 0; m < 2; m++) {
        if (s->nets[m]) tms_net_close(s->nets[m]);
        if (s->sources[m]) tms_source_close(s->sources[m]);
    }
    if (s->pool) tms_pool_free(s->pool);
    *s = (struct tms_subjects){0};
}

static tms_status encode(struct tms_subjects *s, size_t m, const char *text, size_t n_bytes, int32_t **ids, size_t *n,
                         size_t *cap, struct tms_error *err)
{
    struct tms_tokenizer *t = s->tokenizers[m];
    struct tms_tokenize_options o = {.special = !s->options->no_bos, .no_parse_special = true};
    size_t before = *n;
    tms_status status = tms_tokenizer_encode(t, text, n_bytes, &o, ids, n, cap, err);
    if (status == TMS_OK && o.special && tms_tokenizer_add_eos(t) && *n > before &&
        (*ids)[*n - 1] == tms_tokenizer_eos(t))
        --*n;
    return status;
}

tms_status tms_subjects_encode(struct tms_subjects *s, const char *where, const char *text, size_t n_bytes,
                               int32_t **ids, size_t *n, size_t *cap, struct tms_error *err)
{
    size_t before = *n, m = s->tokenizers[0] ? 0 : 1;
    tms_status status = encode(s, m, text, n_bytes, ids, n, cap, err);
    if (status != TMS_OK || m == 1 || !s->tokenizers[1]) return status;
    int32_t *base = NULL;
    size_t n_base = 0, cap_base = 0, n_ours = *n - before, i = 0;
    status = encode(s, 1, text, n_bytes, &base, &n_base, &cap_base, err);
    while (status == TMS_OK && i < n_base && i < n_ours && base[i] == (*ids)[before + i]) i++;
    if (status == TMS_OK && (i < n_base || i < n_ours))
        status = tms_fail(err, TMS_EINPUT,
                          "%s: the tokenizer of the base %s sees another text than that of %s: token %zu differs",
                          where, s->paths[1], s->paths[0], i);
    free(base);
    return status;
}

int32_t tms_subjects_bos(const struct tms_subjects *s)
{
    const struct tms_tokenizer *t = s->tokenizers[0] ? s->tokenizers[0] : s->tokenizers[1];
    return t && !s->options->no_bos && tms_tokenizer_add_bos(t) ? tms_tokenizer_bos(t) : -1;
}

static tms_status open_nets(struct tms_subjects *s, struct tms_error *err)
{
    struct tms_net_options o = {.bounded = s->options->ram != 0, .int8_outlier = s->options->int8_outlier};
    uint64_t vocab = 0;
    for (size_t m = 0; m < s->n_models; m++) {
        o.fast = s->options->fast && m == 0;
        struct tms_net_info info;
        tms_status status = tms_net_open(&s->nets[m], s->sources[m], s->pool, &o, err);
        if (status != TMS_OK) return status;
        tms_net_describe(s->nets[m], &info);
        if (m == 0) vocab = info.vocab;
        if (info.vocab != vocab)
            return tms_fail(err, TMS_EINPUT, "%s: has a vocabulary of %llu tokens, the base %s one of %llu",
                            s->paths[0], (unsigned long long)vocab, s->paths[1], (unsigned long long)info.vocab);
    }
    return TMS_OK;
}

/* The engine would find ids out of range only when it gets to them. */
static tms_status check_sequences(struct tms_subjects *s, const char *name, const struct tms_sequence *sequences,
                                  size_t n, struct tms_error *err)
{
    struct tms_net_info info;
    size_t longest = 0;
    tms_net_describe(s->nets[0], &info);
    for (size_t i = 0; i < n; i++) {
        if (sequences[i].n > longest) longest = sequences[i].n;
        for (size_t k = 0; k < sequences[i].n; k++)
            if (sequences[i].ids[k] < 0 || (uint64_t)sequences[i].ids[k] >= info.vocab)
                return tms_fail(err, TMS_EINPUT,
                                "%s %zu, position %zu: token %d is not in the vocabulary of %llu of %s", name, i + 1, k,
                                (int)sequences[i].ids[k], (unsigned long long)info.vocab, s->paths[0]);
    }
    for (size_t m = 0; m < s->n_models; m++) {
        tms_net_describe(s->nets[m], &info);
        if (info.context == 0 || longest <= info.context || !s->options->warning) continue;
        struct tms_error line;
        tms_set_message(&line, "%s: was made for %llu tokens; a %s here has %zu", s->paths[m],
                        (unsigned long long)info.context, name, longest);
        s->options->warning(s->options->warning_ctx, line.message);
    }
    tms_net_describe(s->nets[0], &info);
    const struct tms_cache_shape shape = tms_net_cache(&info, info.n_layers, 1, longest, 1);
    s->cache_bytes = tms_cache_bytes(&s->caches[0], &shape);
    return tms_cache_check(&s->caches[0], &shape, s->paths[0], err);
}

tms_status tms_subjects_run(struct tms_subjects *s, const char *name, const struct tms_sequence *sequences,
                            size_t n_sequences, struct tms_position *positions, size_t n_positions,
                            struct tms_error *err)
{
    double start = tms_seconds();
    struct tms_walk_plan plan = {0};
    close_tokenizers(s);
    if (s->options->ram) tms_give_memory_back();
    tms_status status = open_nets(s, err);
    if (status == TMS_OK) status = check_sequences(s, name, sequences, n_sequences, err);
    if (status != TMS_OK) return status;
    struct tms_walk walk = {.pool = s->pool,
                            .n_nets = s->n_models,
                            .nets = {s->nets[0], s->nets[1]},
                            .names = {s->paths[0], s->paths[1]},
                            .caches = {s->caches[0], s->caches[1]},
                            .n_sequences = n_sequences,
                            .sequences = sequences,
                            .sequence_name = name,
                            .n_positions = n_positions,
                            .positions = positions,
                            .ram = s->options->ram,
                            .progress = s->options->progress,
                            .progress_ctx = s->options->progress_ctx};
    if (walk.ram)
        walk.resident = tms_resident_bytes() + RESERVE + n_positions * (sizeof *positions + 2 * sizeof(double));
    status = tms_walk_plan(&plan, &walk, err);
    s->by_layer = plan.by_layer;
    s->planned_bytes = plan.bytes;
    if (status == TMS_OK) status = tms_walk_run(&walk, &plan, err);
    tms_walk_plan_free(&plan);
    s->seconds = tms_seconds() - start;
    return status;
}
