/* A folder of GPTQ, AWQ or compressed-tensors whose parts say anything: types, shapes, group numbers, zero points. It
 * is refused with one line, or every weight that can be decoded is read alike at once and in ranges.
 *
 * The input: a byte that chooses the config; for each of the parts a byte (bit 7: it is missing, bit 3: two dimensions,
 * bit 4: 256 more of the first, bits 0 to 2: its type), and two of its shape; then the data of the tensors, repeated
 * until all are full. */
#include "fuzz_folder.h"

#define LAYER "model.layers.0.mlp.up_proj."
#define CT(BITS, TYPE)                                                                                                 \
    "{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"group_0\":{\"weights\":{\"num_bits\":" BITS         \
    ",\"type\":\"" TYPE "\",\"group_size\":32}}}}"

static const char *const configs[] = {
    "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}",
    "{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":-1,\"checkpoint_format\":\"gptq_v2\",\"sym\":false}",
    "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32}",
    CT("4", "int"),
    CT("3", "int"),
    CT("8", "int"),
    CT("8", "float"),
    CT("4", "float"),
    CT("6", "float"),
};
static const char *const names[] = {"qweight",
                                    "qzeros",
                                    "scales",
                                    "g_idx",
                                    "weight_packed",
                                    "weight",
                                    "weight_scale",
                                    "weight_zero_point",
                                    "weight_shape",
                                    "weight_g_idx",
                                    "weight_global_scale"};
enum { N_CONFIGS = sizeof configs / sizeof *configs, N_PARTS = sizeof names / sizeof *names, MOST_BYTES = 1 << 16 };
static const enum tms_type types[8] = {TMS_I32, TMS_F16, TMS_BF16, TMS_F32, TMS_I8, TMS_U8, TMS_F8_E4M3, TMS_I64};

/* The file that the input describes; false if it is none. */
static int write_weights(const uint8_t *bytes, size_t n)
{
    struct tms_st_plan_tensor plan[N_PARTS];
    char full[N_PARTS][64];
    size_t n_plan = 0;
    if (n < 3 * N_PARTS + 1) return 0;
    const uint8_t *data = bytes + 3 * N_PARTS;
    size_t n_data = n - 3 * N_PARTS;
    for (size_t i = 0; i < N_PARTS; i++) {
        const uint8_t *at = bytes + 3 * i;
        if (at[0] & 0x80) continue;
        snprintf(full[i], sizeof full[i], LAYER "%s", names[i]);
        plan[n_plan++] = (struct tms_st_plan_tensor){.name = full[i],
                                                     .type = types[at[0] % 8],
                                                     .n_dims = at[0] >> 3 & 1 ? 2 : 1,
                                                     .shape = {at[1] + (at[0] >> 4 & 1 ? 256 : 0), at[2]},
                                                     .tag = i};
    }
    struct tms_buf file = {0};
    uint64_t size = 0;
    if (tms_st_layout(plan, n_plan, 0, &file, &size, NULL) != TMS_OK) abort();
    int fits = size <= MOST_BYTES;
    while (fits && file.n < size) tms_buf_put(&file, data, n_data < size - file.n ? n_data : (size_t)size - file.n);
    if (fits) write_file("model.safetensors", file.data, file.n);
    tms_buf_free(&file);
    return fits;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n == 0) return 0;
    make_folder(configs[bytes[0] % N_CONFIGS]);
    if (write_weights(bytes + 1, n - 1)) open_folder(8);
    return 0;
}
