/* What the kernels for packed 16-bit arithmetic (Cortex-M4, M7, M33) share.
 *
 * They ask more of a layer than the portable ones; where it does not give it, the generator takes the layout "rows":
 *   every shift is in −31 … −1 (any shift does where the multiplier is 0, so the generator writes −1);
 *   |bias| + 128 × Σ |w| < 2^30 for every output channel;
 *   `once` is set for emb_pointwise_pairs_s8 alone;
 *   bias, multiplier and shift of the layout "pairs" have an even number of entries: both of a pair are loaded.
 * Words are loaded from any address (__ARM_FEATURE_UNALIGNED): tensors lie in ordinary memory, and CCR.UNALIGN_TRP is 0
 * as after reset.
 *
 * Requantization of an accumulator a by multiplier m, right = −1 − shift and zero_twice = 2 × zero point + 1:
 *   SMMULR(2a, m) = (2am + 2^31) >> 32       the doubling high multiply, since |2a| < 2^31
 *   h = h + (h >> 31)                        half up from here on is half away from zero
 *   SSAT((h >> right) + zero_twice, >> 1)    adds half and the zero point, shifts by the last bit and saturates to int8
 * Rounding once takes SMMUL, which drops the lower half, and leaves out the second line: h is the floor of am / 2^31.
 */
#ifndef EMB_DSP_H
#define EMB_DSP_H

#include "emb_core.h"

#if defined(__GNUC__)
/* Keeps a function with an inner loop apart from its caller, whose variables would take its registers. */
#define EMB_NOINLINE __attribute__((noinline))
#else
#define EMB_NOINLINE
#endif

/* The same word, but the compiler does not know that: a loop that copies words does not become a call to memcpy. */
EMB_INLINE uint32_t emb_opaque(uint32_t word)
{
#if defined(__GNUC__)
    __asm("" : "+r"(word));
#endif
    return word;
}

#if defined(EMB_DSP)

/* Bytes 0 and 2 of a word, each sign-extended to 16 bits (SXTB16, Arm DDI 0403, A7.7.182). */
EMB_INLINE uint32_t emb_even_bytes(uint32_t word)
{
    uint32_t halves;
    __asm("sxtb16 %0, %1" : "=r"(halves) : "r"(word));
    return halves;
}

/* Bytes 1 and 3. */
EMB_INLINE uint32_t emb_odd_bytes(uint32_t word)
{
    uint32_t halves;
    __asm("sxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(word));
    return halves;
}

/* Clamps outputs that lie `step` apart to an activation function that is narrower than int8: rare, since the zero point
 * after a ReLU is −128. */
EMB_INLINE void emb_dsp_clamp(const emb_requant_t *to, int8_t *out, size_t count, size_t step)
{
    if (to->min > INT8_MIN || to->max < INT8_MAX) {
        for (; count > 0; --count, out += step) {
            *out = (int8_t)emb_clamp(*out, to->min, to->max);
        }
    }
}

#endif

#endif
