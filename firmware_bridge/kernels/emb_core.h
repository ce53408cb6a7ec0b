/* What every kernel needs: which instructions there are, loads that may be unaligned, and requantization.
 *
 * One interface, three implementations, chosen here when the library is compiled:
 *   EMB_MVE  Helium vectors (Cortex-M55)
 *   EMB_DSP  packed 16-bit arithmetic (Cortex-M4, M7, M33 with the DSP extension)
 *   neither  portable C99
 * All give the same bits. Define EMB_PORTABLE to compile the portable ones on any core.
 */
#ifndef EMB_CORE_H
#define EMB_CORE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Generated code says which version it was made for and stops compiling against another one. */
#define EMB_KERNELS_VERSION 1

#if !defined(EMB_PORTABLE)
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define EMB_MVE 1
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_UNALIGNED) && defined(__thumb2__) && defined(__GNUC__)
#define EMB_DSP 1
#endif
#endif

#if defined(__GNUC__)
#define EMB_INLINE static inline __attribute__((always_inline))
#define EMB_RESTRICT __restrict
#else
#define EMB_INLINE static inline
#define EMB_RESTRICT
#endif

/* C leaves it to the compiler what a right shift of a negative number does; here it must keep the sign, as all compilers for
 * these cores do. Another one stops at this line. */
typedef char emb_shifts_keep_the_sign[(-1 >> 1) == -1 && (INT32_MIN >> 31) == -1 ? 1 : -1];

#ifdef __cplusplus
extern "C" {
#endif

/* From int32 accumulators to int8 outputs, one entry per output channel:
 * out = clamp(zero + accumulator × multiplier × 2^(shift − 31), min, max), rounded as the profile of the model does. */
typedef struct {
    const int32_t *bias;       /* what the accumulator starts from; the input's zero point is already in it */
    const int32_t *multiplier; /* 2^30 … 2^31 − 1, or 0 */
    const int8_t *shift;       /* positive to the left, negative to the right */
    int16_t zero;              /* zero point of the output */
    int8_t min, max;           /* the output's range, the activation function included */
    uint8_t once;              /* round once (LiteRT's reference for FULLY_CONNECTED) instead of twice */
} emb_requant_t;

/* Four bytes from any address, the first in the lowest bits. */
EMB_INLINE uint32_t emb_load32(const void *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* Rounds a × b / 2^31 to the nearest, halves up; INT32_MIN × INT32_MIN saturates. gemmlowp's SaturatingRoundingDoublingHighMul. */
EMB_INLINE int32_t emb_doubling_high_multiply(int32_t a, int32_t b)
{
    if (a == INT32_MIN && b == INT32_MIN) {
        return INT32_MAX;
    }
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* Rounds value / 2^exponent to the nearest, halves away from zero; 0 <= exponent <= 31. gemmlowp's RoundingDivideByPOT. */
EMB_INLINE int32_t emb_divide_by_power(int32_t value, int exponent)
{
    const int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1u);
    const int32_t remainder = value & mask;
    const int32_t threshold = (mask >> 1) + (value < 0 ? 1 : 0);
    return (value >> exponent) + (remainder > threshold ? 1 : 0);
}

/* value × multiplier × 2^(shift − 31), rounded twice: after the multiplication and after the shift. */
EMB_INLINE int32_t emb_scale_twice(int32_t value, int32_t multiplier, int shift)
{
    const int left = shift > 0 ? shift : 0;
    const int right = shift > 0 ? 0 : -shift;
    const int32_t shifted = (int32_t)((uint32_t)value << left);
    return emb_divide_by_power(emb_doubling_high_multiply(shifted, multiplier), right);
}

/* value × multiplier × 2^(shift − 31), rounded once, halves up; shift <= 30. */
EMB_INLINE int32_t emb_scale_once(int32_t value, int32_t multiplier, int shift)
{
    const int total = 31 - shift;
    const int64_t half = (int64_t)1 << (total - 1);
    return (int32_t)(((int64_t)value * multiplier + half) >> total);
}

EMB_INLINE int32_t emb_clamp(int32_t value, int32_t least, int32_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* The output for an accumulator of this channel. */
EMB_INLINE int8_t emb_requantize(const emb_requant_t *to, size_t channel, int32_t accumulator)
{
    const int32_t multiplier = to->multiplier[channel];
    const int shift = to->shift[channel];
    const int32_t scaled = to->once ? emb_scale_once(accumulator, multiplier, shift)
                                    : emb_scale_twice(accumulator, multiplier, shift);
    return (int8_t)emb_clamp(scaled + to->zero, to->min, to->max);
}

#ifdef __cplusplus
}
#endif

#endif
