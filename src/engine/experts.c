/* A mixture of experts in place of the feed-forward layer. See net_parts.h.
 *
 * The router's scores become probabilities (softmax, or DeepSeek-V3's sigmoid); the best experts of a token are chosen,
 * there with a bias and within the best groups; its rows are gathered expert after expert, so that each expert that
 * somebody chose is one product of matrices; results are added in the order of their weights. Experts that nobody chose
 * are not touched. */
#include <math.h>
#include <string.h>

#include "engine/kernels/vector.h"
#include "engine/net_parts.h"

/* ---- who is chosen ---- */

/* Scores to probabilities, in place. */
static void rate(const struct tms_experts *e, float *scores)
{
    size_t n = (size_t)e->n;
    if (e->sigmoid) {
        tms_sigmoid(scores, n);
        return;
    }
    float top = scores[0];
    for (size_t i = 1; i < n; i++) top = scores[i] > top ? scores[i] : top;
    tms_exps(scores, top, scores, n);
    tms_scale(scores, 1.0f / tms_sum(scores, n), n);
}

/* The index of the largest of values that is not yet taken (-infinity); the first of equal ones. */
static size_t best_of(const float *values, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (values[i] > values[best]) best = i;
    return best;
}

/* Groups that are not among the best lose all their experts. A group is worth the sum of its two best experts
 * (DeepSeek-V3) or its best (V2). */
static void keep_groups(const struct tms_experts *e, float *values)
{
    size_t groups = (size_t)e->n_groups, size = (size_t)(e->n / e->n_groups);
    float worth[TMS_MAX_EXPERTS] = {0};
    if (size == 0) return;
    for (size_t g = 0; g < groups; g++) {
        const float *v = values + g * size;
        size_t best = best_of(v, size);
        float second = -INFINITY;
        for (size_t i = 0; i < size; i++)
            if (i != best && v[i] > second) second = v[i];
        worth[g] = e->sigmoid && size > 1 ? v[best] + second : v[best];
    }
    bool kept[TMS_MAX_EXPERTS] = {false};
    for (size_t k = 0; k < e->groups_used; k++) {
        size_t best = best_of(worth, groups);
        kept[best] = true;
        worth[best] = -INFINITY;
    }
    for (size_t i = 0; i < e->n; i++)
        if (!kept[i / size]) values[i] = -INFINITY;
}

static void choose(const struct tms_pass *p, size_t row)
{
    const struct tms_net *net = p->net;
    const struct tms_experts *e = &net->config.experts;
    size_t used = (size_t)e->used, width = tms_net_widths(&net->config).scores;
    const float *bias = p->layer->vectors[TMS_VECTOR_ROUTER_BIAS];
    float rates[TMS_MAX_EXPERTS] = {0}, values[TMS_MAX_EXPERTS] = {0}, sum = 0;
    float *weights = net->expert_weights + row * used;
    int32_t *chosen = net->chosen + row * used;
    memcpy(rates, net->scores + row * width, (size_t)e->n * sizeof *rates);
    rate(e, rates);
    for (size_t i = 0; i < e->n; i++) values[i] = bias ? rates[i] + bias[i] : rates[i];
    if (e->n_groups > 1) keep_groups(e, values);
    for (size_t k = 0; k < used; k++) {
        size_t best = best_of(values, (size_t)e->n), at = k;
        values[best] = -INFINITY;
        for (; at > 0 && weights[at - 1] < rates[best]; at--) {
            weights[at] = weights[at - 1];
            chosen[at] = chosen[at - 1];
        }
        weights[at] = rates[best];
        chosen[at] = (int32_t)best;
    }
    for (size_t k = 0; k < used; k++) sum += weights[k];
    float factor = (float)e->scale;
    if (e->normalize) factor /= e->sigmoid ? sum + 1e-20f : sum;
    for (size_t k = 0; k < used; k++) weights[k] *= factor;
}

/* ---- their work ---- */

/* places, firsts: rows of one expert lie together, in the order of tokens. */
static void sort_rows(const struct tms_net *net, size_t n)
{
    size_t n_experts = (size_t)net->config.experts.n, slots = n * (size_t)net->config.experts.used;
    size_t *firsts = net->firsts;
    memset(firsts, 0, (n_experts + 1) * sizeof *firsts);
    for (size_t i = 0; i < slots; i++) firsts[net->chosen[i] + 1]++;
    for (size_t e = 0; e < n_experts; e++) firsts[e + 1] += firsts[e];
    for (size_t i = 0; i < slots; i++) net->places[i] = firsts[net->chosen[i]]++;
    for (size_t e = n_experts; e > 0; e--) firsts[e] = firsts[e - 1];
    firsts[0] = 0;
}

static void gather(const struct tms_pass *p, size_t row)
{
    const struct tms_net *net = p->net;
    size_t used = (size_t)net->config.experts.used, stride = tms_net_stride(net);
    for (size_t k = 0; k < used; k++)
        memcpy(net->gathered + net->places[row * used + k] * stride, net->x + row * stride, stride * sizeof(float));
}

static void activate(const struct tms_pass *p, size_t row)
{
    const struct tms_net *net = p->net;
    size_t used = (size_t)net->config.experts.used, width = tms_net_widths(&net->config).expert_ffn;
    for (size_t at = row * used; at < (row + 1) * used; at++)
        tms_pass_activate(p, net->expert_gate + at * width, net->expert_up + at * width,
                          (size_t)net->config.experts.ffn);
}

static void activate_shared(const struct tms_pass *p, size_t row)
{
    const struct tms_net *net = p->net;
    size_t width = tms_net_widths(&net->config).ffn;
    tms_pass_activate(p, net->gate + row * width, net->up + row * width, (size_t)net->config.experts.shared);
}

/* Adds the results of a token's experts to y (what the shared ones gave). */
static void collect(const struct tms_pass *p, size_t row)
{
    const struct tms_net *net = p->net;
    const struct tms_experts *e = &net->config.experts;
    size_t used = (size_t)e->used, stride = tms_net_stride(net), n = (size_t)net->config.hidden;
    float *y = net->y + row * stride;
    if (!e->shared) memset(y, 0, n * sizeof *y);
    if (p->layer->linear[TMS_LINEAR_SHARED_SWITCH].tensor) {
        float *open = net->scores + row * tms_net_widths(&net->config).scores; /* has been read */
        tms_sigmoid(open, 1);
        tms_scale(y, *open, n);
    }
    for (size_t k = 0; k < used; k++)
        tms_add_scaled(net->scattered + net->places[row * used + k] * stride, net->expert_weights[row * used + k], y,
                       n);
}

struct operand {
    const float *x;
    size_t x_stride;
    float *y;
    size_t y_stride;
};

/* Products of one or two matrices (which, which + 1) of each expert with its rows. x of a single token is not gathered:
 * shared_x. */
static tms_status multiply(const struct tms_pass *p, size_t which, const struct operand *parts, size_t n_parts,
                           bool shared_x, struct tms_error *err)
{
    struct tms_net *net = p->net;
    size_t n_jobs = 0;
    bool alone = net->options.int8_outlier > 0; /* its split of the input is of one input at a time */
    tms_status status = TMS_OK;
    for (size_t e = 0; e < net->config.experts.n && status == TMS_OK; e++) {
        size_t first = net->firsts[e], n = net->firsts[e + 1] - first;
        for (size_t i = 0; i < n_parts && n && status == TMS_OK; i++) {
            const struct tms_weight *w = &p->layer->experts[which + i][e];
            const float *x = parts[i].x + (shared_x ? 0 : first) * parts[i].x_stride;
            net->jobs[n_jobs++] = (struct tms_linear_job){.weight = w,
                                                          .x = x,
                                                          .x_stride = parts[i].x_stride,
                                                          .n = n,
                                                          .y = parts[i].y + first * parts[i].y_stride,
                                                          .y_stride = parts[i].y_stride,
                                                          .outlier = (float)net->options.int8_outlier};
            status = tms_pass_tell(p, (enum tms_linear)(TMS_LINEAR_EXPERT_GATE + which + i), (int)e, x,
                                   parts[i].x_stride, n, w->cols, err);
        }
        if (status == TMS_OK && alone && n_jobs) {
            status = tms_linear_run(net->pool, net->jobs, n_jobs, net->scratch, tms_net_fast(net), err);
            n_jobs = 0;
        }
    }
    if (status == TMS_OK && n_jobs)
        status = tms_linear_run(net->pool, net->jobs, n_jobs, net->scratch, tms_net_fast(net), err);
    return status;
}

static tms_status run_shared(const struct tms_pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    struct tms_net_widths w = tms_net_widths(&net->config);
    const struct tms_product in[] = {{TMS_LINEAR_SHARED_GATE, net->gate, w.ffn},
                                     {TMS_LINEAR_SHARED_UP, net->up, w.ffn},
                                     {TMS_LINEAR_SHARED_SWITCH, net->scores, w.scores}};
    const struct tms_product down = {TMS_LINEAR_SHARED_DOWN, net->y, w.hidden};
    size_t n_in = p->layer->linear[TMS_LINEAR_SHARED_SWITCH].tensor ? 3 : 2;
    tms_status status = tms_pass_multiply(p, net->x, w.hidden, in, n_in, err);
    if (status == TMS_OK) status = tms_pass_rows(p, activate_shared, err);
    if (status == TMS_OK) status = tms_pass_multiply(p, net->up, w.ffn, &down, 1, err);
    return status;
}

tms_status tms_experts_run(const struct tms_pass *p, struct tms_error *err)
{
    struct tms_net *net = p->net;
    const struct tms_experts *e = &net->config.experts;
    struct tms_net_widths w = tms_net_widths(&net->config);
    size_t n = p->n_seqs * p->n;
    const struct tms_product router = {TMS_LINEAR_ROUTER, net->scores, w.scores};
    tms_status status = tms_pass_multiply(p, net->x, w.hidden, &router, 1, err);
    if (status == TMS_OK) status = tms_pass_rows(p, choose, err);
    if (status != TMS_OK) return status;
    if (net->routing) {
        struct tms_routing seen = {p->layer_number,     n,           (size_t)e->used, net->chosen,
                                   net->expert_weights, net->scores, w.scores};
        net->routing(net->routing_ctx, &seen);
    }
    sort_rows(net, n);
    bool one = n == 1;
    if (!one) status = tms_pass_rows(p, gather, err);
    const float *x = one ? net->x : net->gathered;
    const struct operand in[] = {{x, w.hidden, net->expert_gate, w.expert_ffn},
                                 {x, w.hidden, net->expert_up, w.expert_ffn}};
    const struct operand down = {net->expert_up, w.expert_ffn, net->scattered, w.hidden};
    if (status == TMS_OK) status = multiply(p, 0, in, 2, one, err);
    if (status == TMS_OK) status = tms_pass_rows(p, activate, err);
    if (status == TMS_OK) status = multiply(p, 2, &down, 1, false, err);
    if (status == TMS_OK && e->shared) status = run_shared(p, err);
    if (status == TMS_OK) status = tms_pass_rows(p, collect, err);
    return status;
}
