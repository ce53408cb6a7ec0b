#include "emb_elementwise.h"

#if defined(EMB_MVE)
/* One row, four elements at a time. */
EMB_INLINE void row_s8(const emb_add_t *p, const int8_t *first, size_t first_step, const int8_t *second,
                       size_t second_step, int8_t *out, int32_t first_sign, int32_t second_sign)
{
    const int32_t first_factor = first_sign * (1 << 20);
    const int32_t first_constant = -p->first_zero * first_factor;
    const int32_t second_constant = p->second_zero * (1 << 21);
    const int32x4_t second_multiplier = vdupq_n_s32(p->second_multiplier);
    const int32x4_t multiplier = vdupq_n_s32(p->out_multiplier);
    const int32_t second_right = p->second_right;
    const int32_t right = p->out_right;
    const int32_t zero = p->zero;
    for (int32_t left = (int32_t)p->over.row; left > 0; left -= 4) {
        const mve_pred16_t active = vctp32q((uint32_t)left);
        const int32x4_t x = emb_load_four(first, first_step, active);
        const int32x4_t y = vsubq_n_s32(vshlq_n_s32(emb_load_four(second, second_step, active), 21), second_constant);
        const int32x4_t scaled = emb_shift_four(vrmulhq_s32(y, second_multiplier), second_right);
        const int32x4_t sum = vaddq_n_s32(vmulq_n_s32(x, first_factor), first_constant);
        const int32x4_t value = vrmulhq_s32(vmlaq_n_s32(sum, scaled, 2 * second_sign), multiplier);
        emb_store_four(out, vaddq_n_s32(emb_shift_four(value, right), zero), active);
        first += 4 * first_step;
        second += 4 * second_step;
        out += 4;
    }
}
#else
/* One row of TFLite's AddElementwise. Half away from zero is half up after taking one from what is negative; the last bit of
 * the last shift goes together with the zero point. */
EMB_INLINE void row_s8(const emb_add_t *p, const int8_t *first, size_t first_step, const int8_t *second,
                       size_t second_step, int8_t *out, int32_t first_sign, int32_t second_sign)
{
    const int32_t first_factor = first_sign * (1 << 20);
    const int32_t first_constant = -p->first_zero * first_factor;
    const int32_t second_constant = p->second_zero * (1 << 21);
    const int32_t second_multiplier = p->second_multiplier;
    const int second_right = p->second_right;
    const int32_t half = (int32_t)1 << (second_right - 1);
    const int32_t multiplier = p->out_multiplier;
    const int right = p->out_right - 1;
    const int32_t zero_twice = 2 * p->zero + 1;
    const int8_t *end = out + p->over.row;
    while (out != end) {
        const int32_t high = emb_high_multiply(*second * (1 << 21) - second_constant, second_multiplier);
        const int32_t scaled = (high + emb_sign(high) + half) >> second_right;
        const int32_t sum = *first * first_factor + first_constant + second_sign * 2 * scaled;
        const int32_t value = emb_high_multiply(sum, multiplier);
        *out++ = emb_saturate8_half(((value + emb_sign(value)) >> right) + zero_twice);
        first += first_step;
        second += second_step;
    }
}
#endif

EMB_INLINE void rows_s8(const emb_add_t *p, const int8_t *first, const int8_t *second, int8_t *out, int32_t first_sign,
                        int32_t second_sign)
{
    uint16_t at[3] = {0, 0, 0};
    size_t a = 0;
    size_t b = 0;
    do {
        if (p->over.first_step != 0 && p->over.second_step != 0) {
            row_s8(p, first + a, 1, second + b, 1, out, first_sign, second_sign);
        } else {
            row_s8(p, first + a, p->over.first_step, second + b, p->over.second_step, out, first_sign, second_sign);
        }
        emb_narrow_row(out, p->over.row, p->min, p->max);
        out += p->over.row;
    } while (emb_next_row(&p->over, at, &a, &b));
}

void emb_add_s8(const emb_add_t *p, const int8_t *first, const int8_t *second, int8_t *out)
{
    rows_s8(p, first, second, out, 1, 1);
}

void emb_sub_s8(const emb_add_t *p, const int8_t *first, const int8_t *second, int8_t *out)
{
    rows_s8(p, first, second, out, p->first_sign, p->second_sign);
}

void emb_add_constant_s8(const emb_add_t *p, const int8_t *in, int8_t *out)
{
    const int8_t *constant = (const int8_t *)p->over.constant;
    emb_add_s8(p, p->over.constant_first ? constant : in, p->over.constant_first ? in : constant, out);
}

void emb_sub_constant_s8(const emb_add_t *p, const int8_t *in, int8_t *out)
{
    const int8_t *constant = (const int8_t *)p->over.constant;
    emb_sub_s8(p, p->over.constant_first ? constant : in, p->over.constant_first ? in : constant, out);
}

void emb_add_s16(const emb_add16_t *p, const int16_t *first, const int16_t *second, int16_t *out)
{
    const emb_add16_t by = *p; /* a copy that no store to `out` can change */
    const int32_t first_factor = by.first_sign * (1 << 14);
    uint16_t at[3] = {0, 0, 0};
    size_t a = 0;
    size_t b = 0;
    do {
        const int16_t *x = first + a;
        const int16_t *y = second + b;
        for (size_t i = 0; i < by.over.row; ++i) {
            const int32_t sum = *x * first_factor + by.second_sign * emb_times(*y, &by.second);
            out[i] = (int16_t)emb_clamp(emb_times(sum, &by.out), by.min, by.max);
            x += by.over.first_step;
            y += by.over.second_step;
        }
        out += by.over.row;
    } while (emb_next_row(&by.over, at, &a, &b));
}

void emb_add_constant_s16(const emb_add16_t *p, const int16_t *in, int16_t *out)
{
    const int16_t *constant = (const int16_t *)p->over.constant;
    emb_add_s16(p, p->over.constant_first ? constant : in, p->over.constant_first ? in : constant, out);
}
