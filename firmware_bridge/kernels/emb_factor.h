/* Multiplication by a real number in a few instructions, where the generator knows that nothing overflows. */
#ifndef EMB_FACTOR_H
#define EMB_FACTOR_H

#include "emb_core.h"

#if defined(EMB_MVE)
#include <arm_mve.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A real factor: multiplier × 2^(left − right − 32). The generator bounds the values: |value| × 2^left < 2^31. */
typedef struct {
    int32_t multiplier; /* 2^30 … 2^31 − 1, or 0 */
    uint8_t left;       /* shift to the left before the multiplication, 1 … 31 */
    uint8_t right;      /* rounding shift to the right after it, 0 … 31 */
} emb_factor_t;

/* The upper half of a × b, rounded, halves up. With a doubled first it is emb_doubling_high_multiply where that fits. */
EMB_INLINE int32_t emb_high_multiply(int32_t a, int32_t b)
{
#if defined(__ARM_FEATURE_DSP) && !defined(EMB_PORTABLE)
    int32_t high;
    __asm("smmulr %0, %1, %2" : "=r"(high) : "r"(a), "r"(b));
    return high;
#else
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32);
#endif
}

/* −1 of what is negative, else 0: a shift by 31, which an addition does on its way. */
EMB_INLINE int32_t emb_sign(int32_t value)
{
    return -(int32_t)(value < 0);
}

/* emb_divide_by_power for |value| <= 2^30, without its branches: half away from zero is half up after taking one from what is
 * negative. */
EMB_INLINE int32_t emb_shift_rounded(int32_t value, int right)
{
    const int32_t below = right > 0 ? -1 : 0;
    const int32_t half = (int32_t)(((uint32_t)1 << right) >> 1);
    return (value + (emb_sign(value) & below) + half) >> right;
}

/* emb_scale_twice(value, by->multiplier, left − 1 − right). */
EMB_INLINE int32_t emb_times(int32_t value, const emb_factor_t *by)
{
    const int32_t shifted = (int32_t)((uint32_t)value << by->left);
    return emb_shift_rounded(emb_high_multiply(shifted, by->multiplier), by->right);
}

/* Saturates to int8; GCC 12 does not find the instruction by itself. */
EMB_INLINE int8_t emb_saturate8(int32_t value)
{
#if defined(__ARM_FEATURE_SAT) && !defined(EMB_PORTABLE)
    int32_t narrow;
    __asm("ssat %0, #8, %1" : "=r"(narrow) : "r"(value));
    return (int8_t)narrow;
#else
    return (int8_t)emb_clamp(value, INT8_MIN, INT8_MAX);
#endif
}

/* The same of value / 2, rounded down. */
EMB_INLINE int8_t emb_saturate8_half(int32_t value)
{
#if defined(__ARM_FEATURE_SAT) && !defined(EMB_PORTABLE)
    int32_t narrow;
    __asm("ssat %0, #8, %1, asr #1" : "=r"(narrow) : "r"(value));
    return (int8_t)narrow;
#else
    return (int8_t)emb_clamp(value >> 1, INT8_MIN, INT8_MAX);
#endif
}

#if defined(EMB_MVE)
/* Four neighbours, or four times one where it is broadcast. */
EMB_INLINE int32x4_t emb_load_four(const int8_t *from, size_t step, mve_pred16_t active)
{
    return step != 0 ? vldrbq_z_s32(from, active) : vdupq_n_s32(*from);
}

/* emb_shift_rounded for right > 0: the instruction rounds halves up. */
EMB_INLINE int32x4_t emb_shift_four(int32x4_t values, int32_t right)
{
    return vrshlq_n_s32(vaddq_s32(values, vshrq_n_s32(values, 31)), -right);
}

/* Saturates to int8 and stores four neighbours. */
EMB_INLINE void emb_store_four(int8_t *to, int32x4_t values, mve_pred16_t active)
{
    const int16x8_t halves = vqmovnbq_s32(vreinterpretq_s16_s32(values), values);
    const int8x16_t bytes = vqmovnbq_s16(vreinterpretq_s8_s16(halves), halves);
    vstrbq_p_s32(to, vreinterpretq_s32_s8(bytes), active);
}
#endif

#ifdef __cplusplus
}
#endif

#endif
