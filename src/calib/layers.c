/* See layers.h. */
#include "calib/layers.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tamis/tamis.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/resident.h"

enum { GROUP_TOKENS = 1024, RESERVE = 1 << 20 };

/* ---- groups of sequences of one length ---- */

struct group {
    size_t first, n;      /* sequences */
    size_t length, token; /* of each; the first token of the first */
};

static bool next_group(const struct tms_layers *l, struct group *g)
{
    const size_t *starts = l->samples->starts;
    g->first += g->n;
    g->n = 0;
    if (g->first >= l->samples->n) return false;
    g->token = starts[g->first];
    g->length = starts[g->first + 1] - g->token;
    do g->n++;
    while (g->first + g->n < l->samples->n && (g->n + 1) * g->length <= l->group_tokens &&
           starts[g->first + g->n + 1] - starts[g->first + g->n] == g->length);
    return true;
}

static size_t tokens_of_group(const struct tms_layers *l)
{
    return l->samples->longest > l->group_tokens ? l->samples->longest : l->group_tokens;
}

static size_t sequences_of_group(const struct tms_layers *l)
{
    size_t n = 1;
    for (struct group g = {0}; next_group(l, &g);)
        if (g.n > n) n = g.n;
    return n;
}

/* ---- memory ---- */

/* One layer's, in turn. */
static struct tms_cache_shape cache_of(const struct tms_layers *l)
{
    return tms_net_cache(&l->info, 1, sequences_of_group(l), l->samples->longest, l->samples->longest);
}

static uint64_t bytes_of_plan(const struct tms_layers *l)
{
    const struct tms_cache_options f32 = tms_cache_exact();
    const struct tms_cache_shape cache = cache_of(l);
    uint64_t largest = 0;
    for (uint64_t i = 0; i <= l->info.n_layers; i++)
        if (tms_net_layer_bytes(l->net, i) > largest) largest = tms_net_layer_bytes(l->net, i);
    size_t tokens = tokens_of_group(l);
    return tms_resident_bytes() + RESERVE + largest + l->more + tms_net_working_bytes(l->net, tokens) +
           (uint64_t)tokens * l->info.stride * sizeof(float) + tms_cache_bytes(&f32, &cache);
}

tms_status tms_layers_open(struct tms_layers *l, struct tms_error *err)
{
    tms_net_describe(l->net, &l->info);
    tms_give_memory_back();
    l->group_tokens = GROUP_TOKENS;
    while ((l->planned_bytes = bytes_of_plan(l)) > l->ram && l->ram && l->group_tokens > l->samples->longest)
        l->group_tokens /= 2;
    if (l->ram && l->planned_bytes > l->ram)
        return tms_fail(err, TMS_EINPUT,
                        "%s: a limit of %.1f MB of memory is too low; the least for sequences of %zu tokens is %llu MB",
                        l->model, (double)l->ram / 1e6, l->samples->longest,
                        (unsigned long long)((l->planned_bytes + 999999) / 1000000));
    uint64_t floats = (uint64_t)tokens_of_group(l) * l->info.stride;
    l->hidden = tms_calloc(floats, sizeof *l->hidden);
    if (!l->hidden) return tms_fail_memory(err, floats * sizeof *l->hidden);
    const struct tms_cache_options f32 = tms_cache_exact();
    const struct tms_cache_shape cache = cache_of(l);
    return tms_cache_create(&l->cache, &f32, &cache, err);
}

void tms_layers_close(struct tms_layers *l)
{
    tms_cache_free(l->cache);
    free(l->hidden);
    l->cache = NULL;
    l->hidden = NULL;
}

/* ---- the folder of work ---- */

#define ABOUT "run.json"
#define SPARE "spare" /* hidden states of no use any more, to be written over */

static char *hidden_path(const struct tms_layers *l, uint64_t layer)
{
    char name[32];
    snprintf(name, sizeof name, "hidden-%05llu", (unsigned long long)layer);
    return tms_path_join(l->work, name);
}

/* Bytes of a file of hidden states. */
static uint64_t hidden_bytes(const struct tms_layers *l)
{
    return (uint64_t)l->samples->n_tokens * l->info.stride * sizeof(float);
}

bool tms_layers_done(const struct tms_layers *l, uint64_t layer)
{
    struct stat s;
    char *path = hidden_path(l, layer);
    bool done = path && stat(path, &s) == 0 && (uint64_t)s.st_size == hidden_bytes(l);
    free(path);
    return done;
}

void tms_layers_forget(const struct tms_layers *l, uint64_t layer)
{
    char *path = hidden_path(l, layer), *spare = tms_path_join(l->work, SPARE);
    if (path && spare) (void)rename(path, spare);
    free(path);
    free(spare);
}

static tms_status write_text(const char *path, const char *text, struct tms_error *err)
{
    struct tms_output *output = NULL;
    tms_status status = tms_output_create(&output, path, 0, err);
    if (status == TMS_OK) status = tms_output_write(output, text, strlen(text), 0, err);
    if (status == TMS_OK) return tms_output_commit(output, err);
    tms_output_discard(output);
    return status;
}

/* True for a folder with files of its own, that no run began. */
static bool is_foreign(const char *work)
{
    bool foreign = false;
    DIR *dir = opendir(work);
    for (const struct dirent *e; dir && (e = readdir(dir));)
        foreign = foreign || (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
                              strncmp(e->d_name, ABOUT, strlen(ABOUT)) != 0);
    if (dir) closedir(dir);
    return foreign;
}

tms_status tms_work_open(const char *work, const char *about, bool *same, struct tms_error *err)
{
    char *path = tms_path_join(work, ABOUT), *was = NULL;
    size_t n = 0;
    tms_status status = path ? TMS_OK : tms_fail_memory(err, 256);
    *same = false;
    if (status == TMS_OK && tms_path_exists(path)) {
        status = tms_file_text(path, 1 << 20, &was, &n, err);
        if (status == TMS_OK && n == 0) tms_work_remove(work); /* which was cut short */
        *same = n > 0 && strcmp(was, about) == 0;
        if (n > 0 && !*same)
            status = tms_fail(err, TMS_EUSAGE,
                              "%s: holds what another run left, of another model, text or option; finish that one or "
                              "remove the folder",
                              work);
    } else if (status == TMS_OK && is_foreign(work)) {
        status = tms_fail(err, TMS_EUSAGE, "%s: is where a run keeps its work, but holds other files", work);
    }
    if (status == TMS_OK && !*same && mkdir(work, 0777) != 0 && errno != EEXIST)
        status = tms_fail(err, TMS_EIO, "%s: cannot be made: %s", work, strerror(errno));
    if (status == TMS_OK && !*same) status = write_text(path, about, err);
    free(was);
    free(path);
    return status;
}

/* First of all nothing can go on with it any more: what it says about its run is emptied, and goes last. */
void tms_work_remove(const char *work)
{
    char *about = tms_path_join(work, ABOUT);
    DIR *dir = about && truncate(about, 0) == 0 ? opendir(work) : NULL;
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.' || strcmp(e->d_name, ABOUT) == 0) continue;
        char *path = tms_path_join(work, e->d_name);
        if (path) unlink(path);
        free(path);
    }
    if (dir) {
        closedir(dir);
        unlink(about);
    }
    free(about);
    rmdir(work);
}

/* ---- a layer ---- */

static tms_status not_finite(const struct tms_layers *l, uint64_t layer, const struct group *g, struct tms_error *err)
{
    for (size_t i = 0; i < g->n * g->length; i++)
        for (size_t c = 0; c < l->info.hidden; c++) {
            float x = l->hidden[i * l->info.stride + c];
            if (x - x == 0) continue;
            return tms_fail(err, TMS_EINPUT,
                            "%s: sequence %zu, token %zu: value %zu of the hidden state behind layer %llu is %g, no "
                            "finite number",
                            l->model, g->first + i / g->length + 1, i % g->length, c, (unsigned long long)layer,
                            (double)x);
        }
    return TMS_OK;
}

/* The final norm of a group's hidden states is the input of the output layer. */
static tms_status tell_head(struct tms_layers *l, size_t rows, struct tms_error *err)
{
    struct tms_tap tap = {.layer = l->info.n_layers,
                          .linear = TMS_LINEAR_HEAD,
                          .expert = -1,
                          .x = l->hidden,
                          .stride = l->info.stride,
                          .n = rows,
                          .cols = l->info.hidden};
    tms_status status = tms_net_final_norm(l->net, l->hidden, rows, l->hidden, err);
    return status == TMS_OK ? l->tap(l->tap_ctx, &tap, err) : status;
}

static tms_status run_group(struct tms_layers *l, uint64_t layer, const struct group *g, const struct tms_file *in,
                            struct tms_output *out, struct tms_error *err)
{
    size_t rows = g->n * g->length;
    uint64_t bytes = (uint64_t)rows * l->info.stride * sizeof(float);
    uint64_t offset = (uint64_t)g->token * l->info.stride * sizeof(float);
    const struct tms_batch batch = {.n_seqs = g->n, .n = g->length};
    tms_status status = layer == 0 ? tms_net_embed(l->net, l->samples->ids + g->token, rows, l->hidden, err)
                                   : tms_file_read(in, l->hidden, bytes, offset, err);
    if (status == TMS_OK && layer == l->info.n_layers) return tell_head(l, rows, err);
    if (status == TMS_OK) status = tms_net_layers(l->net, layer, 1, &batch, l->cache, l->hidden, err);
    if (status == TMS_OK) status = not_finite(l, layer, g, err);
    if (status == TMS_OK && out) status = tms_output_write(out, l->hidden, bytes, offset, err);
    return status;
}

tms_status tms_layers_run(struct tms_layers *l, uint64_t layer, bool keep, struct tms_error *err)
{
    struct tms_file in = {.fd = -1};
    struct tms_output *out = NULL;
    char *from = hidden_path(l, layer), *to = hidden_path(l, layer + 1), *spare = tms_path_join(l->work, SPARE);
    tms_status status = from && to && spare ? TMS_OK : tms_fail_memory(err, 256);
    if (status == TMS_OK && layer > 0) status = tms_file_open(&in, from, err);
    if (status == TMS_OK && keep && layer < l->info.n_layers)
        status = tms_output_take(&out, to, spare, hidden_bytes(l), err);
    for (struct group g = {0}; status == TMS_OK && next_group(l, &g);) {
        if (tms_cancelled())
            status = tms_fail(err, TMS_ECANCELLED, "interrupted; the same command goes on with layer %llu of %llu",
                              (unsigned long long)layer, (unsigned long long)l->info.n_layers);
        if (status == TMS_OK) status = run_group(l, layer, &g, &in, out, err);
        if (status == TMS_OK && l->progress)
            l->progress(l->progress_ctx, layer, (double)(g.token + g.n * g.length) / (double)l->samples->n_tokens);
    }
    if (status == TMS_OK && out)
        status = tms_output_commit(out, err);
    else
        tms_output_discard(out);
    tms_file_close(&in);
    free(from);
    free(to);
    free(spare);
    return status;
}
