/* See pairs.h. */
#include "model/pairs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sums.h"
#include "model/restore.h"

/* What is known of one side while names are matched. */
struct side {
    const struct tms_source *source;
    bool translate;              /* GGUF names become Hugging Face names */
    bool mixed;                  /* the other side is of the other kind */
    const struct tms_arch *arch; /* mixed: the one that explains names */
    struct tms_latent latent;    /* mixed: the GGUF file's */
    struct tms_piece *pieces;
    size_t n, cap;
};

static bool is_weight(const struct side *side, const struct tms_tensor *t)
{
    const struct tms_source *s = side->source;
    if (t->is_scale || tms_arch_ignores(t->name)) return false;
    if (!side->mixed) return true;
    if (side->translate) return strncmp(t->name, "rope_f", 6) != 0;
    if (s->has_config && tms_arch_is_spare(side->arch, &s->config, t->name)) return false;
    return !(s->config.tied && strcmp(t->name, "lm_head.weight") == 0);
}

static uint64_t head_count(const struct tms_source *s, bool keys)
{
    char name[160];
    uint64_t n = 0;
    snprintf(name, sizeof name, "%.100s.attention.head_count%s", tms_source_arch_name(s), keys ? "_kv" : "");
    if (tms_kv_as_u64(tms_kvs_find(&s->gguf->kvs, name), &n)) return n;
    return keys ? head_count(s, false) : 0;
}

/* Puts the rows of heads back that a conversion to GGUF permutes. */
static tms_status undo_permutation(const struct side *side, const struct tms_arch_tensor *row, struct tms_piece *piece,
                                   struct tms_error *err)
{
    const struct tms_tensor *t = piece->tensor;
    if (!side->arch->permutes || (row->transform != TMS_PERMUTE_Q && row->transform != TMS_PERMUTE_K)) return TMS_OK;
    uint64_t n_heads = head_count(side->source, row->transform == TMS_PERMUTE_K);
    uint64_t rows = t->n_dims > 1 ? t->rows : t->n_elems;
    if (rows == 0 || n_heads == 0 || rows % n_heads != 0 || rows / n_heads % 2 != 0)
        return tms_fail(err, TMS_EINPUT, "%s: tensor '%s': its %llu rows are no %llu heads of an even size",
                        side->source->path, t->name, (unsigned long long)rows, (unsigned long long)n_heads);
    piece->turn = tms_turn_heads(TMS_TURN_HALVES, rows / n_heads, t->n_dims > 1 ? t->cols : 1);
    return TMS_OK;
}

static tms_status add_piece(struct side *side, struct tms_pairs *pairs, const struct tms_piece *piece, const char *name,
                            struct tms_error *err)
{
    if (!tms_grow(&side->pieces, &side->cap, side->n + 1, sizeof *side->pieces))
        return tms_fail_memory(err, side->n * sizeof *side->pieces);
    struct tms_piece *to = &side->pieces[side->n];
    *to = *piece;
    to->name = tms_arena_strndup(&pairs->arena, name, strlen(name));
    to->n_values = 1;
    for (uint32_t d = 0; d < to->n_dims; d++) to->n_values *= to->shape[d];
    if (!to->name) return tms_fail_memory(err, strlen(name));
    side->n++;
    return TMS_OK;
}

/* A stack of experts, one by one. */
static tms_status add_experts(struct side *side, struct tms_pairs *pairs, struct tms_piece piece,
                              const struct tms_arch_tensor *row, int layer, struct tms_error *err)
{
    tms_status status = TMS_OK;
    char name[160];
    piece.n_parts = piece.shape[0];
    piece.n_dims = 2;
    memmove(piece.shape, piece.shape + 1, 2 * sizeof *piece.shape);
    for (piece.part = 0; piece.part < piece.n_parts && status == TMS_OK; piece.part++) {
        tms_arch_name(name, sizeof name, row->hf, layer, (int)piece.part);
        status = add_piece(side, pairs, &piece, name, err);
    }
    return status;
}

/* A folder's kv_b, as GGUF's keys and values. */
static tms_status add_kv(struct side *side, struct tms_pairs *pairs, struct tms_piece piece, int layer,
                         struct tms_error *err)
{
    tms_status status = TMS_OK;
    char name[160];
    struct tms_config config = {.latent = side->latent};
    uint64_t head = (side->latent.nope + side->latent.value) * side->latent.kv_rank;
    config.n_heads = piece.tensor->n_weights / head;
    for (enum tms_kv_part part = TMS_KV_PART_KEYS; part <= TMS_KV_PART_VALUES && status == TMS_OK; part++) {
        piece.turn = tms_turn_latent(part == TMS_KV_PART_KEYS ? TMS_TURN_KEYS : TMS_TURN_VALUES, &side->latent);
        piece.n_dims = 3;
        tms_arch_kv_shape(&config, part, piece.shape);
        tms_arch_kv_name(name, sizeof name, part, layer);
        status = add_piece(side, pairs, &piece, name, err);
    }
    return status;
}

static bool is_kv(const struct side *side, const struct tms_piece *piece)
{
    uint64_t rows = side->latent.nope + side->latent.value;
    return piece->n_dims == 2 && rows && piece->shape[0] && piece->shape[0] % rows == 0 &&
           piece->shape[1] == side->latent.kv_rank;
}

/* All pieces that a tensor is taken for. */
static tms_status add_pieces(struct side *side, struct tms_pairs *pairs, const struct tms_tensor *t,
                             struct tms_error *err)
{
    struct tms_piece piece = {.tensor = t, .n_parts = 1, .turn = tms_turn_none(0)};
    char name[TMS_ST_MAX_NAME + 1];
    int layer, expert;
    piece.n_dims = tms_source_shape(t, piece.shape);
    snprintf(name, sizeof name, "%s", t->name);
    const struct tms_arch_tensor *row = NULL;
    if (side->mixed && side->arch)
        row = side->translate ? tms_arch_explain_gguf(side->arch, name, &layer)
                              : tms_arch_explain(side->arch, name, &layer, &expert);
    if (row && side->translate) {
        bool stack =
            row->transform == TMS_STACK && piece.n_dims == 3 && piece.shape[0] > 0 && piece.shape[0] <= TMS_MAX_EXPERTS;
        if (stack) return add_experts(side, pairs, piece, row, layer, err);
        tms_status status = undo_permutation(side, row, &piece, err);
        if (status != TMS_OK) return status;
        tms_arch_name(name, sizeof name, row->hf, layer, -1);
    } else if (row) {
        if (row->transform == TMS_SPLIT_KV && is_kv(side, &piece)) return add_kv(side, pairs, piece, layer, err);
        if (row->transform == TMS_PLUS_ONE) piece.turn = tms_turn_shift(TMS_TURN_PLUS_ONE);
    }
    return add_piece(side, pairs, &piece, name, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const struct tms_piece *const *)a)->name, (*(const struct tms_piece *const *)b)->name);
}

static tms_status match(struct tms_pairs *pairs, struct side sides[2], struct tms_error *err)
{
    uint64_t most = (uint64_t)sides[0].n + sides[1].n;
    const struct tms_piece **sorted = tms_calloc(sides[1].n, sizeof *sorted);
    bool *taken = tms_calloc(sides[1].n, sizeof *taken);
    pairs->items = tms_calloc(most, sizeof *pairs->items);
    tms_status status = sorted && taken && pairs->items ? TMS_OK : tms_fail_memory(err, most * sizeof *pairs->items);
    for (size_t i = 0; i < sides[1].n && status == TMS_OK; i++) sorted[i] = &sides[1].pieces[i];
    if (status == TMS_OK && sides[1].n) qsort(sorted, sides[1].n, sizeof *sorted, compare_names);
    for (size_t i = 0; i < sides[0].n && status == TMS_OK; i++) {
        const struct tms_piece *a = &sides[0].pieces[i];
        const struct tms_piece **found =
            sides[1].n ? bsearch(&a, sorted, sides[1].n, sizeof *sorted, compare_names) : NULL;
        struct tms_pair *to = &pairs->items[pairs->n++];
        *to = (struct tms_pair){.name = a->name, .side = {*a}};
        if (!found) continue;
        to->side[1] = **found;
        taken[*found - sides[1].pieces] = true;
    }
    for (size_t i = 0; i < sides[1].n && status == TMS_OK; i++) {
        const struct tms_piece *b = &sides[1].pieces[i];
        if (!taken[i]) pairs->items[pairs->n++] = (struct tms_pair){.name = b->name, .side = {[1] = *b}};
    }
    free(sorted);
    free(taken);
    return status;
}

/* A GGUF file beside a folder: the architecture that explains both, and the numbers of its latent attention. */
static tms_status prepare_mixed(struct side sides[2], struct tms_error *err)
{
    struct side *gguf = &sides[sides[1].translate], *folder = &sides[sides[0].translate];
    const struct tms_source *s = gguf->source;
    if (!s->arch)
        return tms_fail(err, TMS_EINPUT,
                        "%s: architecture '%s' is not known, so its tensors cannot be matched with those of a "
                        "folder; known are %s",
                        s->path, tms_source_arch_name(s), tms_arch_known());
    gguf->arch = s->arch;
    folder->arch = folder->source->arch ? folder->source->arch : s->arch;
    if (!tms_arch_kv_row(s->arch)) return TMS_OK;
    struct tms_config config;
    tms_status status = tms_restore_keys(&config, &s->gguf->kvs, s->arch, s->path, err);
    if (status == TMS_OK) folder->latent = config.latent;
    return status;
}

tms_status tms_pairs_find(struct tms_pairs *out, const struct tms_source *const models[2], struct tms_error *err)
{
    struct side sides[2];
    struct tms_pairs pairs = {0};
    tms_status status = TMS_OK;
    bool mixed = (models[0]->kind == TMS_SOURCE_GGUF) != (models[1]->kind == TMS_SOURCE_GGUF);
    for (int k = 0; k < 2; k++) {
        sides[k] = (struct side){
            .source = models[k], .translate = mixed && models[k]->kind == TMS_SOURCE_GGUF, .mixed = mixed};
        if (models[k]->kind == TMS_SOURCE_CONFIG)
            return tms_fail(err, TMS_EINPUT, "%s: holds no weights; give the folder", models[k]->path);
    }
    if (mixed) status = prepare_mixed(sides, err);
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < models[k]->n_tensors && status == TMS_OK; i++)
            if (is_weight(&sides[k], &models[k]->tensors[i]))
                status = add_pieces(&sides[k], &pairs, &models[k]->tensors[i], err);
    if (status == TMS_OK) status = match(&pairs, sides, err);
    for (int k = 0; k < 2; k++) free(sides[k].pieces);
    if (status != TMS_OK) {
        tms_pairs_free(&pairs);
        return status;
    }
    *out = pairs;
    return TMS_OK;
}

void tms_pairs_free(struct tms_pairs *pairs)
{
    free(pairs->items);
    tms_arena_free(&pairs->arena);
    *pairs = (struct tms_pairs){0};
}

bool tms_pair_same_shape(const struct tms_pair *pair)
{
    const struct tms_piece *a = &pair->side[0], *b = &pair->side[1];
    for (uint32_t i = 0, k = 0;; i++, k++) {
        while (i < a->n_dims && a->shape[i] == 1) i++;
        while (k < b->n_dims && b->shape[k] == 1) k++;
        if (i == a->n_dims || k == b->n_dims) return i == a->n_dims && k == b->n_dims;
        if (a->shape[i] != b->shape[k]) return false;
    }
}

uint64_t tms_pair_unit(const struct tms_pair *pair)
{
    uint64_t unit = 1, all = pair->side[0].n_values;
    for (int k = 0; k < 2; k++) {
        const struct tms_piece *p = &pair->side[k];
        uint64_t whole = tms_common_multiple(tms_source_unit(p->tensor), p->turn.in, p->tensor->n_weights / p->n_parts);
        unit = tms_common_multiple(unit, whole / p->turn.in * p->turn.out, all);
    }
    return unit ? unit : 1;
}

uint64_t tms_pair_source_values(const struct tms_pair *pair, int side, uint64_t n)
{
    const struct tms_turn *turn = &pair->side[side].turn;
    return turn->in == turn->out ? n : n / turn->out * turn->in;
}

tms_status tms_pair_read(const struct tms_pair *pair, int side, const struct tms_source *source, uint64_t first,
                         uint64_t n, void *raw, float *turned, float *out, struct tms_error *err)
{
    const struct tms_piece *p = &pair->side[side];
    bool turns = p->turn.kind != TMS_TURN_NONE;
    uint64_t from = p->part * (p->tensor->n_weights / p->n_parts) + tms_pair_source_values(pair, side, first);
    uint64_t n_source = tms_pair_source_values(pair, side, n);
    tms_status status = tms_source_read(source, p->tensor, from, n_source, raw, turns ? turned : out, err);
    if (status == TMS_OK && turns) tms_turn_values(&p->turn, turned, n_source, out);
    return status;
}
