/* What all targets share. See target.h. */
#include "target/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/packed.h"
#include "model/packed_grid.h"
#include "target/grid_route.h"

tms_status tms_target_plan(struct tms_target **out, const struct tms_source *source, const struct tms_spec *spec,
                           const struct tms_target_options *options, struct tms_error *err)
{
    struct tms_target *t = calloc(1, sizeof *t);
    if (!t) return tms_fail_memory(err, sizeof *t);
    t->source = source;
    t->spec = *spec;
    t->folder = spec->dialect != TMS_DIALECT_GGUF;
    t->n_parameters = tms_source_parameters(source);
    tms_status status = TMS_OK;
    switch (spec->dialect) {
    case TMS_DIALECT_GGUF: status = tms_target_plan_gguf(t, options, err); break;
    case TMS_DIALECT_BNB4:
    case TMS_DIALECT_BNB8: status = tms_target_plan_bnb(t, options, err); break;
    case TMS_DIALECT_GRID: status = tms_target_plan_grid(t, options, err); break;
    case TMS_DIALECT_HF: status = tms_target_plan_hf(t, options, err); break;
    }
    if (status != TMS_OK) {
        tms_target_free(t);
        return status;
    }
    *out = t;
    return TMS_OK;
}

void tms_target_free(struct tms_target *target)
{
    if (!target) return;
    for (size_t i = 0; i < target->n_files; i++) {
        tms_output_discard(target->files[i].output);
        tms_kvs_free(&target->files[i].kvs);
        tms_buf_free(&target->files[i].header);
        free(target->files[i].name);
    }
    for (size_t i = 0; i < target->n_routes; i++) {
        free(target->routes[i].absmax_values);
        if (target->routes[i].grid) tms_grid_route_end(target->routes[i].grid);
    }
    tms_output_dir_discard(target->dir);
    tms_kvs_free(&target->kvs);
    tms_made_files_free(&target->side_files);
    free(target->files);
    free(target->outs);
    free(target->routes);
    free(target->path);
    tms_arena_free(&target->arena);
    free(target);
}

size_t tms_target_split_like(struct tms_target *t, const struct tms_source *like)
{
    for (int pass = 0; pass < 2; pass++) {
        uint32_t file = 0;
        for (size_t i = 0; i < t->n_outs; i++) {
            const struct tms_tensor *there = tms_source_find(like, t->outs[i].name);
            uint32_t next = there ? there->file : file; /* what is missing there goes with the one before it */
            if (next != file && (next != file + 1 || i == 0)) return 0;
            file = next;
            if (pass == 1) t->outs[i].file = file;
        }
        if ((size_t)file + 1 != like->n_files) return 0;
    }
    return like->n_files;
}

tms_status tms_target_quantize_again(struct tms_target *t, const struct tms_tensor *tensor,
                                     const struct tms_target_options *options, struct tms_error *err)
{
    if (!options->user->allow_requantize)
        return tms_fail(err, TMS_EINPUT,
                        "%s: tensor '%s' is quantized already (%s); quantizing it again loses more: start from the "
                        "original, or use --allow-requantize",
                        t->source->path, tensor->name,
                        tensor->packed && tensor->packed->grid ? tensor->packed->grid->type
                                                               : tms_codec(tensor->type)->name);
    t->n_again++;
    return TMS_OK;
}

void tms_target_warn_of_again(const struct tms_target *t, const struct tms_target_options *options)
{
    char line[200];
    if (!t->n_again || !options->warn) return;
    snprintf(line, sizeof line,
             "%zu tensors were quantized before: their first loss is not in the errors told here, it adds to them",
             t->n_again);
    options->warn(options->warn_ctx, line);
}

struct tms_out_tensor *tms_target_add_out(struct tms_target *t, const char *name, enum tms_type type, uint32_t n_dims,
                                          const uint64_t *shape)
{
    if (!tms_grow(&t->outs, &t->cap_outs, t->n_outs + 1, sizeof *t->outs)) return NULL;
    struct tms_out_tensor *out = &t->outs[t->n_outs];
    *out = (struct tms_out_tensor){
        .name = tms_arena_strndup(&t->arena, name, strlen(name)), .type = type, .n_dims = n_dims, .n_elems = 1};
    if (!out->name) return NULL;
    for (uint32_t d = 0; d < n_dims; d++) {
        out->shape[d] = shape[d];
        out->n_elems *= shape[d];
    }
    out->bytes = tms_codec_bytes(tms_codec(type), out->n_elems);
    t->n_outs++;
    return out;
}

struct tms_route *tms_target_add_route(struct tms_target *t, size_t source, enum tms_route_kind kind, size_t out)
{
    if (!tms_grow(&t->routes, &t->cap_routes, t->n_routes + 1, sizeof *t->routes)) return NULL;
    struct tms_route *route = &t->routes[t->n_routes++];
    *route = (struct tms_route){.source = source,
                                .kind = kind,
                                .out = out,
                                .turn = tms_turn_none(0),
                                .n_parts = 1,
                                .through = TMS_TYPE_NONE,
                                .absmax = TMS_NO_OUT,
                                .nested_absmax = TMS_NO_OUT,
                                .quant_state = TMS_NO_OUT};
    return route;
}
