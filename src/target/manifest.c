/* See manifest.h. Files go by their names alone, so that a manifest tells nothing about the machine. */
#include "target/manifest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *files_json(const struct tms_hashed_files *files)
{
    json_t *list = json_array();
    for (size_t i = 0; i < files->n; i++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "name", tms_path_base(files->items[i].path), "bytes",
                                              (json_int_t)files->items[i].bytes, "sha256", files->items[i].sha256));
    return list;
}

/* The name behind the last '/', also of "folder/". */
static json_t *name_json(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t begin = n;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    return json_stringn(path + begin, n - begin);
}

/* What went into an output tensor; several routes may fill one. */
struct filling {
    double squared_error;
    uint64_t n_routes, n_values;
};

static json_t *tensor_json(const struct tms_out_tensor *out, const struct filling *filling)
{
    json_t *tensor = json_pack("{s:s, s:s, s:I}", "name", out->name, "type", tms_codec(out->type)->name, "bytes",
                               (json_int_t)out->bytes);
    if (!filling->n_routes) return tensor;
    double n = (double)filling->n_values;
    json_object_set_new(tensor, "rms_error", json_real(n > 0 ? sqrt(filling->squared_error / n) : 0));
    return tensor;
}

static json_t *tensors_json(const struct tms_target *t, struct tms_error *err)
{
    struct filling *fillings = tms_calloc(t->n_outs, sizeof *fillings);
    if (!fillings) {
        (void)tms_fail_memory(err, t->n_outs * sizeof *fillings);
        return NULL;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < t->n_routes; i++) {
        struct filling *to = &fillings[t->routes[i].out];
        to->squared_error += t->routes[i].squared_error;
        to->n_values += t->routes[i].n_values;
        to->n_routes++;
    }
    for (size_t i = 0; i < t->n_outs; i++) json_array_append_new(list, tensor_json(&t->outs[i], &fillings[i]));
    free(fillings);
    return list;
}

tms_status tms_manifest_add(struct tms_manifest *manifest, const struct tms_target *target,
                            const struct tms_target_stats *stats, const char *recipe, struct tms_error *err)
{
    struct tms_hashed_files files = {0};
    tms_status status = tms_hash_target(&files, target, manifest->pool, err);
    if (status != TMS_OK) return status;
    double n = stats->n_values ? (double)stats->n_values : 1;
    json_t *recipe_json = json_loads(recipe, 0, NULL), *tensors = tensors_json(target, err);
    json_t *output = json_pack("{s:o, s:s, s:o, s:b, s:f, s:f, s:o, s:o}", "name", name_json(target->path), "type",
                               target->spec.name, "recipe", recipe_json, "read_back", stats->verified, "rms_error",
                               sqrt(stats->squared_error / n), "rms_weight", sqrt(stats->squared_weight / n), "files",
                               files_json(&files), "tensors", tensors);
    tms_hashed_files_free(&files);
    if (target->n_seen + target->n_unseen)
        json_object_set_new(output, "calibrated",
                            json_pack("{s:I, s:I, s:I, s:f}", "matrices", (json_int_t)target->n_seen,
                                      "matrices_too_rarely_seen", (json_int_t)target->n_unseen, "damping_raised",
                                      (json_int_t)target->n_raised, "largest_damping", target->most_damp));
    if (!manifest->outputs) manifest->outputs = json_array();
    if (!output || json_array_append_new(manifest->outputs, output) != 0) return tms_fail_memory(err, 256);
    return TMS_OK;
}

tms_status tms_manifest_write(struct tms_manifest *manifest, struct tms_output *to, struct tms_error *err)
{
    json_t *document =
        json_pack("{s:{s:s, s:s}, s:{s:o, s:s, s:o}, s:o}", "tool", "name", "tamis", "version", tms_version(), "source",
                  "name", name_json(manifest->source->path), "hash", manifest->source_hash, "files",
                  files_json(manifest->source_files), "outputs", manifest->outputs ? manifest->outputs : json_array());
    manifest->outputs = NULL;
    char *text = document ? json_dumps(document, JSON_INDENT(2)) : NULL;
    json_decref(document);
    if (!text) return tms_fail_memory(err, 256);
    size_t n = strlen(text);
    tms_status status = tms_output_write(to, text, n, 0, err);
    if (status == TMS_OK) status = tms_output_write(to, "\n", 1, n, err);
    free(text);
    return status;
}
