#include "emb_reduce.h"

/* The largest of each group; with `sign` −1 the smallest. */
EMB_INLINE void pick_s8(const emb_axes_t *p, const int8_t *in, int8_t *out, int sign)
{
    for (uint32_t i = 0; i < p->kept[0]; ++i) {
        for (uint32_t j = 0; j < p->kept[1]; ++j) {
            const int8_t *from = in + (size_t)i * p->kept_steps[0] + (size_t)j * p->kept_steps[1];
            int32_t best = *from;
            for (uint32_t k = 0; k < p->reduced[0]; ++k) {
                for (uint32_t l = 0; l < p->reduced[1]; ++l) {
                    const int32_t value = from[(size_t)l * p->reduced_steps[1]];
                    best = sign * value > sign * best ? value : best;
                }
                from += p->reduced_steps[0];
            }
            *out++ = (int8_t)best;
        }
    }
}

EMB_INLINE void pick_s16(const emb_axes_t *p, const int16_t *in, int16_t *out, int sign)
{
    for (uint32_t i = 0; i < p->kept[0]; ++i) {
        for (uint32_t j = 0; j < p->kept[1]; ++j) {
            const int16_t *from = in + (size_t)i * p->kept_steps[0] + (size_t)j * p->kept_steps[1];
            int32_t best = *from;
            for (uint32_t k = 0; k < p->reduced[0]; ++k) {
                for (uint32_t l = 0; l < p->reduced[1]; ++l) {
                    const int32_t value = from[(size_t)l * p->reduced_steps[1]];
                    best = sign * value > sign * best ? value : best;
                }
                from += p->reduced_steps[0];
            }
            *out++ = (int16_t)best;
        }
    }
}

void emb_reduce_max_s8(const emb_axes_t *p, const int8_t *in, int8_t *out)
{
    pick_s8(p, in, out, 1);
}

void emb_reduce_min_s8(const emb_axes_t *p, const int8_t *in, int8_t *out)
{
    pick_s8(p, in, out, -1);
}

void emb_reduce_max_s16(const emb_axes_t *p, const int16_t *in, int16_t *out)
{
    pick_s16(p, in, out, 1);
}

void emb_reduce_min_s16(const emb_axes_t *p, const int16_t *in, int16_t *out)
{
    pick_s16(p, in, out, -1);
}
