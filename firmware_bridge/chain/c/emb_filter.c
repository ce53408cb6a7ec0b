/* Biquads in cascade, transposed direct form II, in the order of roundings of the Python chain. */
#include "emb_internal.h"

#if EMB_SECTIONS

void emb_filter_start(float state[][2], float level)
{
    uint32_t section;
    for (section = 0; section < EMB_SECTIONS; section++) {
        const emb_biquad_t *biquad = &emb_biquads[section];
        float out = level * biquad->level;
        state[section][1] = biquad->b2 * level - biquad->a2 * out;
        state[section][0] = biquad->b1 * level - biquad->a1 * out + state[section][1];
        level = out;
    }
}

/* One step of a biquad: x goes in, y comes out. */
#define EMB_STEP(q, first, second, x, y)                                                                               \
    do {                                                                                                               \
        y = q.b0 * x + first;                                                                                          \
        first = q.b1 * x - q.a1 * y + second;                                                                          \
        second = q.b2 * x - q.a2 * y;                                                                                  \
    } while (0)

/*
 * Two biquads at a time: their ten coefficients and four numbers of state fit into the registers of a Cortex-M's FPU,
 * and a sample is loaded and stored once for both. What is left of an odd number goes by itself.
 */
void emb_filter(float state[][2], float *samples, uint32_t count)
{
    uint32_t section = 0, i;
#if EMB_SECTIONS % 2
    {
        const emb_biquad_t q = emb_biquads[0];
        float first = state[0][0], second = state[0][1];
        for (i = 0; i < count; i++) {
            float x = samples[i], y;
            EMB_STEP(q, first, second, x, y);
            samples[i] = y;
        }
        state[0][0] = first;
        state[0][1] = second;
        section = 1;
    }
#endif
    for (; section < EMB_SECTIONS; section += 2) {
        const emb_biquad_t q = emb_biquads[section], r = emb_biquads[section + 1];
        float q_first = state[section][0], q_second = state[section][1];
        float r_first = state[section + 1][0], r_second = state[section + 1][1];
        for (i = 0; i < count; i++) {
            float x = samples[i], y, z;
            EMB_STEP(q, q_first, q_second, x, y);
            EMB_STEP(r, r_first, r_second, y, z);
            samples[i] = z;
        }
        state[section][0] = q_first;
        state[section][1] = q_second;
        state[section + 1][0] = r_first;
        state[section + 1][1] = r_second;
    }
}

#endif
