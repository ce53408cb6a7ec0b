#include "emb_reduce.h"
#include "emb_sums.h"

static int32_t scaled(const emb_sum_t *p, int32_t sum)
{
    return emb_scale_twice(sum + p->offset, p->multiplier, p->shift) + p->zero;
}

/* One sum; a row without gaps goes by words. */
static int32_t sum_s8(const emb_axes_t *over, const int8_t *in)
{
    const size_t length = over->reduced[1];
    const size_t quads = over->reduced_steps[1] == 1 ? length / 4 : 0;
    int32_t sum = 0;
    for (uint32_t i = 0; i < over->reduced[0]; ++i) {
        int32_t sums[4] = {0, 0, 0, 0};
        emb_sum_quads(in, quads, 4, sums);
        sum += sums[0] + sums[1] + sums[2] + sums[3];
        sum += emb_sum_each(in + 4 * quads, length - 4 * quads, over->reduced_steps[1]);
        in += over->reduced_steps[0];
    }
    return sum;
}

void emb_sum_s8(const emb_sum_t *p, const int8_t *in, int8_t *out)
{
    const emb_axes_t *over = &p->axes;
    for (uint32_t i = 0; i < over->kept[0]; ++i) {
        const int8_t *from = in + (size_t)i * over->kept_steps[0];
        uint32_t left = over->kept[1];
        for (; left >= 4 && over->kept_steps[1] == 1; left -= 4) {
            int32_t sums[4] = {0, 0, 0, 0};
            for (uint32_t k = 0; k < over->reduced[0]; ++k) {
                emb_sum_quads(from + (size_t)k * over->reduced_steps[0], over->reduced[1], over->reduced_steps[1], sums);
            }
            for (size_t k = 0; k < 4; ++k) {
                *out++ = (int8_t)emb_clamp(scaled(p, sums[k]), INT8_MIN, INT8_MAX);
            }
            from += 4;
        }
        for (; left > 0; --left) {
            *out++ = (int8_t)emb_clamp(scaled(p, sum_s8(over, from)), INT8_MIN, INT8_MAX);
            from += over->kept_steps[1];
        }
    }
}

void emb_sum_s16(const emb_sum_t *p, const int16_t *in, int16_t *out)
{
    const emb_axes_t *over = &p->axes;
    for (uint32_t i = 0; i < over->kept[0]; ++i) {
        for (uint32_t j = 0; j < over->kept[1]; ++j) {
            const int16_t *from = in + (size_t)i * over->kept_steps[0] + (size_t)j * over->kept_steps[1];
            int32_t sum = 0;
            for (uint32_t k = 0; k < over->reduced[0]; ++k) {
                for (uint32_t l = 0; l < over->reduced[1]; ++l) {
                    sum += from[(size_t)k * over->reduced_steps[0] + (size_t)l * over->reduced_steps[1]];
                }
            }
            *out++ = (int16_t)emb_clamp(scaled(p, sum), INT16_MIN, INT16_MAX);
        }
    }
}
