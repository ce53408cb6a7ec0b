#include "emb_elementwise.h"

#if defined(EMB_MVE)
/* One row, four elements at a time. */
EMB_INLINE void row_s8(const emb_mul_t *p, const int8_t *first, size_t first_step, const int8_t *second,
                       size_t second_step, int8_t *out)
{
    const emb_factor_t by = p->out;
    const int32_t first_zero = p->first_zero;
    const int32_t second_zero = p->second_zero;
    const int32_t zero = p->zero;
    const int32x4_t multiplier = vdupq_n_s32(by.multiplier);
    for (int32_t left = (int32_t)p->over.row; left > 0; left -= 4) {
        const mve_pred16_t active = vctp32q((uint32_t)left);
        const int32x4_t x = vsubq_n_s32(emb_load_four(first, first_step, active), first_zero);
        const int32x4_t y = vsubq_n_s32(emb_load_four(second, second_step, active), second_zero);
        const int32x4_t high = vrmulhq_s32(vshlq_r_s32(vmulq_s32(x, y), by.left), multiplier);
        const int32x4_t scaled = by.right > 0 ? emb_shift_four(high, by.right) : high;
        emb_store_four(out, vaddq_n_s32(scaled, zero), active);
        first += 4 * first_step;
        second += 4 * second_step;
        out += 4;
    }
}
#else
EMB_INLINE void row_s8(const emb_mul_t *p, const int8_t *first, size_t first_step, const int8_t *second,
                       size_t second_step, int8_t *out)
{
    const emb_factor_t by = p->out; /* a copy that no store to `out` can change */
    const int32_t first_zero = p->first_zero;
    const int32_t second_zero = p->second_zero;
    const int32_t zero = p->zero;
    const int8_t *end = out + p->over.row;
    while (out != end) {
        *out++ = emb_saturate8(emb_times((*first - first_zero) * (*second - second_zero), &by) + zero);
        first += first_step;
        second += second_step;
    }
}
#endif

void emb_mul_s8(const emb_mul_t *p, const int8_t *first, const int8_t *second, int8_t *out)
{
    uint16_t at[3] = {0, 0, 0};
    size_t a = 0;
    size_t b = 0;
    do {
        if (p->over.first_step != 0 && p->over.second_step != 0) {
            row_s8(p, first + a, 1, second + b, 1, out);
        } else {
            row_s8(p, first + a, p->over.first_step, second + b, p->over.second_step, out);
        }
        emb_narrow_row(out, p->over.row, p->min, p->max);
        out += p->over.row;
    } while (emb_next_row(&p->over, at, &a, &b));
}

void emb_mul_constant_s8(const emb_mul_t *p, const int8_t *in, int8_t *out)
{
    const int8_t *constant = (const int8_t *)p->over.constant;
    emb_mul_s8(p, p->over.constant_first ? constant : in, p->over.constant_first ? in : constant, out);
}

void emb_mul_s16(const emb_mul16_t *p, const int16_t *first, const int16_t *second, int16_t *out)
{
    const emb_mul16_t by = *p;
    uint16_t at[3] = {0, 0, 0};
    size_t a = 0;
    size_t b = 0;
    do {
        const int16_t *x = first + a;
        const int16_t *y = second + b;
        for (size_t i = 0; i < by.over.row; ++i) {
            const int32_t scaled = emb_scale_twice(*x * *y, by.multiplier, by.shift);
            out[i] = (int16_t)emb_clamp(scaled, by.min, by.max);
            x += by.over.first_step;
            y += by.over.second_step;
        }
        out += by.over.row;
    } while (emb_next_row(&by.over, at, &a, &b));
}

void emb_mul_constant_s16(const emb_mul16_t *p, const int16_t *in, int16_t *out)
{
    const int16_t *constant = (const int16_t *)p->over.constant;
    emb_mul_s16(p, p->over.constant_first ? constant : in, p->over.constant_first ? in : constant, out);
}
