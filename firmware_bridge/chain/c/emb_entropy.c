/*
 * Sample entropy (Richman and Moorman, American Journal of Physiology 278(6), 2000) and fuzzy entropy (Chen, Wang, Xie
 * and Yu, IEEE TNSRE 15(2), 2007). Both compare each pattern of a frame with each other one: the cost grows with its
 * square.
 */
#include "emb_whole.h"

#if EMB_HAS_ENTROPY

#define EMB_DIMENSION 2u
#define EMB_TOLERANCE 0.3f
/* Added to both counts, so that none is 0. */
#define EMB_NEVER 0x1p-52f

/* Standard deviation, exactly 0 for equal samples. */
static float emb_deviation(const float *samples)
{
    const emb_pair_t share = {EMB_SHARE_HI, EMB_SHARE_LO};
    emb_pair_t mean = {0.0f, 0.0f}, power = {0.0f, 0.0f};
    float lowest = samples[0], highest = samples[0];
    uint32_t i;
    for (i = 0; i < EMB_FRAME; i++) {
        mean = emb_pair_plus(mean, samples[i]);
        lowest = emb_least(samples[i], lowest);
        highest = emb_most(samples[i], highest);
    }
    if (!(highest > lowest)) {
        return 0.0f;
    }
    mean = emb_pair_multiply(mean, share);
    for (i = 0; i < EMB_FRAME; i++) {
        const emb_pair_t centred = emb_pair_plus(emb_pair_negative(mean), samples[i]);
        power = emb_pair_add(power, emb_pair_multiply(centred, centred));
    }
    return emb_pair_sqrt(emb_pair_multiply(power, share)).hi;
}

/* log((often + never) / (rarely + never)). */
static float emb_log_of_shares(emb_pair_t often, emb_pair_t rarely)
{
    often = emb_pair_plus(often, EMB_NEVER);
    return emb_pair_log(emb_pair_divide(often, emb_pair_plus(rarely, EMB_NEVER))).hi;
}

/* count / (a * b). */
static emb_pair_t emb_share_of(emb_pair_t count, uint32_t a, uint32_t b)
{
    return emb_pair_divide(emb_pair_divide(count, emb_pair((float)a)), emb_pair((float)b));
}

/* A whole number below 2^32 as a pair. */
static emb_pair_t emb_whole(uint32_t number)
{
    return emb_two_sum((float)(number & 0xFFFF0000u), (float)(number & 0xFFFFu));
}

float emb_sample_entropy(const float *samples)
{
    const float deviation = emb_deviation(samples), within = deviation * EMB_TOLERANCE;
    uint32_t shorter = 0, longer = 0, lag, i;
    if (!(deviation > 0.0f)) {
        return 0.0f;
    }
    for (lag = 1; lag <= EMB_FRAME - EMB_DIMENSION; lag++) {
        uint32_t run = 0, last_short = 0, last_long = 0;
        for (i = 0; i + lag < EMB_FRAME; i++) {
            run = emb_abs(samples[i] - samples[i + lag]) <= within ? run + 1 : 0;
            last_short = run >= EMB_DIMENSION;
            last_long = run >= EMB_DIMENSION + 1;
            shorter += 2 * last_short;
            longer += 2 * last_long;
        }
        /* Each pair counts from both its ends, but the last pattern of a frame is never one that others are compared
           with. */
        shorter -= last_short;
        longer -= last_long;
    }
    return emb_log_of_shares(
        emb_share_of(emb_whole(shorter), EMB_FRAME - EMB_DIMENSION - 1, EMB_FRAME - EMB_DIMENSION),
        emb_share_of(emb_whole(longer), EMB_FRAME - EMB_DIMENSION - 1, EMB_FRAME - EMB_DIMENSION - 1));
}

/* The squared distance of two patterns whose differences are at most, at least and in sum this. */
static float emb_distance(float top, float bottom, float sum, float share)
{
    const float mean = sum * share;
    const float distance = emb_most(top - mean, mean - bottom);
    return distance * distance;
}

float emb_fuzzy_entropy(const float *samples, float *work)
{
    const float deviation = emb_deviation(samples);
    const uint32_t templates = EMB_FRAME - EMB_DIMENSION;
    emb_pair_t often = {0.0f, 0.0f}, rarely = {0.0f, 0.0f};
    float rate;
    uint32_t lag, i;
    if (!(deviation > 0.0f)) {
        return 0.0f;
    }
    rate = -1.0f / (deviation * EMB_TOLERANCE);
    for (lag = 1; lag <= templates; lag++) {
        const uint32_t pairs = EMB_FRAME - lag;
        emb_pair_t near = {0.0f, 0.0f}, far = {0.0f, 0.0f};
        float last_near = 0.0f, last_far = 0.0f;
        for (i = 0; i < pairs; i++) {
            work[i] = samples[i] - samples[i + lag];
        }
        for (i = 0; i + 1 < pairs; i++) {
            const float top = emb_most(work[i + 1], work[i]), bottom = emb_least(work[i + 1], work[i]);
            const float sum = work[i] + work[i + 1];
            last_near = emb_decay(emb_distance(top, bottom, sum, 0.5f) * rate);
            near = emb_pair_plus(near, last_near);
            if (i + 2 < pairs) {
                const float x = work[i + 2];
                const float distance = emb_distance(emb_most(x, top), emb_least(x, bottom), sum + x, 1.0f / 3.0f);
                last_far = emb_decay(distance * rate);
                far = emb_pair_plus(far, last_far);
            }
        }
        /* Half of the last one, as no pattern is compared with the last one of a frame. */
        often = emb_pair_add(often, emb_pair_plus(near, -0.5f * last_near));
        rarely = emb_pair_add(rarely, emb_pair_plus(far, -0.5f * last_far));
    }
    often = emb_share_of(emb_pair_times(often, 2.0f), templates - 1, templates);
    rarely = emb_share_of(emb_pair_times(rarely, 2.0f), templates - 2, templates - 1);
    return emb_log_of_shares(often, rarely);
}

#endif
