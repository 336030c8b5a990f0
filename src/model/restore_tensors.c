/* The tensors of a GGUF file as a Hugging Face folder has them: names, order, rows to be put back. See restore.h. */
#include "model/restore.h"

#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct tms_restored_tensor *)a)->name, ((const struct tms_restored_tensor *)b)->name);
}

static tms_status name_tensor(const struct tms_source *s, const struct tms_config *config, size_t index,
                              struct tms_arena *arena, struct tms_restored_tensor *out, struct tms_error *err)
{
    const struct tms_tensor *tensor = &s->tensors[index];
    const char *file = s->files[tensor->file]->path;
    int layer;
    char name[128];
    uint64_t want[2];
    const struct tms_arch_tensor *row = tms_arch_explain_gguf(s->arch, tensor->name, &layer);
    if (!row || layer >= (int)config->n_layers || !tms_arch_has(s->arch, config, row, layer))
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is nothing that %s has; it has no place in the folder", file,
                        tensor->name, s->arch->class_name);
    uint32_t n_dims = tms_arch_shape(config, row, want);
    if (tensor->n_dims != n_dims || tensor->shape[0] != want[0] || (n_dims == 2 && tensor->shape[1] != want[1]))
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': its shape is not [%llu%s%.0llu] as the keys say", file,
                        tensor->name, (unsigned long long)want[0], n_dims == 2 ? ", " : "",
                        (unsigned long long)(n_dims == 2 ? want[1] : 0));
    if (!tms_source_decodes(tensor))
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' has type %s, which tamis cannot decode yet", file,
                        tensor->name, tms_codec(tensor->type)->name);
    tms_arch_name(name, sizeof name, row->hf, layer, -1);
    *out = (struct tms_restored_tensor){.name = tms_arena_strndup(arena, name, strlen(name)), .source = index};
    if (!out->name) return tms_fail_memory(err, sizeof name);
    if (s->arch->permutes && (row->transform == TMS_PERMUTE_Q || row->transform == TMS_PERMUTE_K))
        out->permuted_heads = row->transform == TMS_PERMUTE_Q ? config->n_heads : config->n_kv_heads;
    return TMS_OK;
}

static tms_status require_all(const struct tms_source *s, const struct tms_config *config, struct tms_error *err)
{
    struct tms_arch_step step = {0};
    while (tms_arch_next(&step, s->arch, config)) {
        char name[128];
        if (!step.row->gguf) continue;
        tms_arch_name(name, sizeof name, step.row->gguf, step.layer, step.expert);
        if (!tms_source_find(s, name))
            return tms_fail(err, TMS_EINPUT, "%s: tensor '%s' is missing; %s has it", s->path, name,
                            s->arch->class_name);
    }
    return TMS_OK;
}

tms_status tms_restore_tensors(struct tms_restored_tensor **out, size_t *n, const struct tms_source *source,
                               const struct tms_config *config, struct tms_arena *arena, struct tms_error *err)
{
    size_t n_named = 0;
    tms_status status = require_all(source, config, err);
    if (status != TMS_OK) return status;
    struct tms_restored_tensor *named = tms_calloc(source->n_tensors, sizeof *named);
    if (!named) return tms_fail_memory(err, source->n_tensors * sizeof *named);
    for (size_t i = 0; i < source->n_tensors && status == TMS_OK; i++) {
        /* it is in config.json's rope_scaling */
        if (strcmp(source->tensors[i].name, "rope_freqs.weight") == 0) continue;
        status = name_tensor(source, config, i, arena, &named[n_named++], err);
    }
    if (status != TMS_OK) {
        free(named);
        return status;
    }
    if (n_named) qsort(named, n_named, sizeof *named, compare_names);
    *out = named;
    *n = n_named;
    return TMS_OK;
}
