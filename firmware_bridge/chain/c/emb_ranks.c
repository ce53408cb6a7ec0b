/* LS: the second L-moment of the samples of a frame (Hosking, Journal of the Royal Statistical Society B 52(1),
   1990). */
#include "emb_whole.h"

#if EMB_HAS_RANKS

/* Sort upwards in place: Shell's, with gaps of Ciura (2001); no recursion, and no room beside the samples. */
static void emb_sort(float *x, uint32_t count)
{
    static const uint16_t gaps[] = {1750, 701, 301, 132, 57, 23, 10, 4, 1};
    uint32_t which, i, at;
    for (which = 0; which < sizeof gaps / sizeof gaps[0]; which++) {
        const uint32_t gap = gaps[which];
        for (i = gap; i < count; i++) {
            const float held = x[i];
            for (at = i; at >= gap && x[at - gap] > held; at -= gap) {
                x[at] = x[at - gap];
            }
            x[at] = held;
        }
    }
}

float emb_l_score(const float *samples, float *work)
{
    const emb_pair_t step = {EMB_RANK_STEP_HI, EMB_RANK_STEP_LO}, share = {EMB_SHARE_HI, EMB_SHARE_LO};
    emb_pair_t sum = {0.0f, 0.0f};
    uint32_t i;
    memcpy(work, samples, EMB_FRAME * sizeof *work);
    emb_sort(work, EMB_FRAME);
    for (i = 0; i < EMB_FRAME; i++) {
        const emb_pair_t weight = emb_pair_plus(emb_pair_times(step, (float)i), -1.0f);
        sum = emb_pair_add(sum, emb_pair_times(weight, work[i]));
    }
    return emb_pair_multiply(sum, share).hi;
}

#endif
