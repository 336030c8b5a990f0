/* See iq1_grid.h. */
#include "codec/iq1_grid.h"

#include <pthread.h>
#include <string.h>

/* Bit p of these bits: place p holds a point. (Source: the GGUF format; from the table of ggml 0.25.) */
static const uint64_t is_point[103] = {
    0x514202a085142555, 0xa28a2086a8314508, 0x14508514202a081a, 0xa005152545442082, 0x8208001888208202,
    0x0aaabb88a02a03a0, 0xaa0a0022000baa90, 0x4508514008a0828c, 0x0851421450808821, 0x2a8008a09808308a,
    0x4248208514214508, 0x20a0c22c01450855, 0xa2aaa8242a00268a, 0x0028280808afe208, 0xa82028aa284202a0,
    0xa8bab9089b0a2080, 0x3aaaaea289aeca20, 0xb80e82bbbaeaeb7c, 0x2202920ed3caba22, 0x820aba8aa8202200,
    0x3ba2e04a2a000802, 0x81408100a22b2022, 0x8514012208288aaa, 0x5421450920821550, 0x203aa8230208a085,
    0xa208514254208284, 0x082a021450950820, 0x200248a08082a8b8, 0xab2802a268a28208, 0x083082082085082a,
    0xa085142145004045, 0x8229014500514200, 0x1430a1082a828a00, 0x2145082882145005, 0x2aaa200202208514,
    0xa828ae8ab1122000, 0x0a820070a8aaa1ba, 0x8200840222280208, 0xaa2ab0eaa0804800, 0xa7daea22ba8b20c2,
    0xaa2ab092a86e8b8b, 0x48202a0c448a8b72, 0x20aa082a8a284084, 0xa09aafa222a2ccc8, 0xa82a00020002a8e8,
    0xa2a28ba080200088, 0xba0a328280a0ba28, 0x2ba0a2ebfebab8be, 0x00a2ea280a8a08a2, 0xdeeaa4fa0c0232a1,
    0xeb7ebe8d2ea82bef, 0xdeba7de6bf7ff7fa, 0x12fa26bfff27fb69, 0x0ebeaa10228ae1e9, 0xae820ba8b208aa84,
    0x62048083e924baff, 0x002ba40aa8f2682c, 0x0012aae208082a02, 0x82c920a60a2a8202, 0x8c00a20028829089,
    0x6c00080882001380, 0x8abea602bbaaaa8a, 0xd02e976b8002caa0, 0xdeaa2e108210e9b2, 0x820a0004a5d11528,
    0x20a1010820828a00, 0xa0843222ba39aa82, 0x0262a28a00188009, 0xac21450051441481, 0x20aa085142145082,
    0x45082a120a87aa28, 0x08514208a0051421, 0x22a240a002200145, 0x8a6a08a208008800, 0x0a200080aaaab86e,
    0x5044082122c8e282, 0x8515208a09514214, 0x2a2aaa080a861450, 0x21450851420a0080, 0xe2085142145000a8,
    0x082a82180a828820, 0x0a028bb08aaaa2aa, 0x0aaa80822820aa2a, 0x220288a900280828, 0xba8a08b8280bbea0,
    0xaef8a4baffaeb24b, 0x30a0b668285220aa, 0x6a220828020a80e6, 0x2baaaa020a208062, 0x0808a2a0a9a2eaaa,
    0x0e8200228aa02010, 0x400aa08514214500, 0x4a0006a921450851, 0x440d1000a50802aa, 0x0514214508288214,
    0x0020f2ac82820800, 0x20ba0a280aaa0000, 0x280948820002a2ea, 0x0051454b110014e9, 0x5142145002a80145,
    0x400a288808248808, 0x02a0051401450008, 0x0000000145085140,
};

static struct tms_iq1_points points;
static struct tms_iq1_places places;

static uint16_t code_of(int place)
{
    unsigned code = 0;
    for (int i = 0; i < 8; i++, place /= 3) code |= (unsigned)(place % 3) << 2 * i;
    return (uint16_t)code;
}

static void make_points(void)
{
    int n = 0;
    for (int place = 0; place < TMS_IQ1_PLACES; place++) {
        if (!(is_point[place / 64] >> place % 64 & 1)) continue;
        points.codes[n] = code_of(place);
        for (int i = 0; i < 8; i++) points.numbers[n][i] = (int8_t)((points.codes[n] >> 2 * i & 3) - 1);
        n++;
    }
}

enum { HALF = 81 }; /* a place is two halves, of four coordinates each */

static uint8_t half_distance(int a, int b)
{
    int sum = 0;
    for (int i = 0; i < 4; i++, a /= 3, b /= 3) sum += (a % 3 - b % 3) * (a % 3 - b % 3);
    return (uint8_t)sum;
}

/* Lists the points around one place: distances to all, and then the points of one distance after the other. */
static uint32_t list_near(uint8_t distance[TMS_IQ1_POINTS], uint16_t *near)
{
    enum { SHELLS = 3, FARTHEST = 32 };
    uint32_t n = 0;
    for (int d = 0, shells = 0; d <= FARTHEST && shells < SHELLS; d++) {
        uint32_t before = n;
        const uint8_t *at = distance, *end = distance + TMS_IQ1_POINTS;
        while ((at = memchr(at, d, (size_t)(end - at))) != NULL) near[n++] = points.codes[at++ - distance];
        shells += n > before;
    }
    while (n % TMS_IQ1_LIST) {
        near[n] = near[n - 1];
        n++;
    }
    return n;
}

static void make_places(void)
{
    static uint8_t halves[HALF][HALF];
    static uint8_t low[TMS_IQ1_POINTS], high[TMS_IQ1_POINTS];
    for (int a = 0; a < HALF; a++)
        for (int b = 0; b < HALF; b++) halves[a][b] = half_distance(a, b);
    tms_iq1_points();
    for (int half = 0; half < HALF; half++) places.half_place[code_of(half)] = (uint8_t)half;
    for (int i = 0; i < TMS_IQ1_POINTS; i++) {
        low[i] = places.half_place[points.codes[i] & 255];
        high[i] = places.half_place[points.codes[i] >> 8];
    }
    uint32_t n = 0;
    int16_t number = 0;
    for (int place = 0; place < TMS_IQ1_PLACES; place++) {
        if (is_point[place / 64] >> place % 64 & 1) {
            places.number[place] = number++;
            continue;
        }
        uint8_t distance[TMS_IQ1_POINTS];
        for (int i = 0; i < TMS_IQ1_POINTS; i++)
            distance[i] = (uint8_t)(halves[place % HALF][low[i]] + halves[place / HALF][high[i]]);
        places.number[place] = -1;
        places.first[place] = n;
        places.n_near[place] = (uint16_t)list_near(distance, places.near + n);
        n += places.n_near[place];
    }
}

const struct tms_iq1_points *tms_iq1_points(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_points);
    return &points;
}

const struct tms_iq1_places *tms_iq1_places(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_places);
    return &places;
}
