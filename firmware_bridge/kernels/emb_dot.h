/* Products of vectors that both lie together in memory. */
#ifndef EMB_DOT_H
#define EMB_DOT_H

#include "emb_dsp.h"

#if defined(EMB_DSP)
#include <arm_acle.h>
#elif defined(EMB_MVE)
#include <arm_mve.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if defined(EMB_DSP)
/* Four products at once. */
EMB_INLINE int32_t emb_dot_four(const int8_t *x, const int8_t *w, int32_t sum)
{
    const uint32_t a = emb_load32(x);
    const uint32_t b = emb_load32(w);
    sum = __smlad((int16x2_t)emb_even_bytes(a), (int16x2_t)emb_even_bytes(b), sum);
    return __smlad((int16x2_t)emb_odd_bytes(a), (int16x2_t)emb_odd_bytes(b), sum);
}
#endif

/* sum + Σ x × w. */
EMB_INLINE int32_t emb_dot_s8(const int8_t *x, const int8_t *w, size_t count, int32_t sum)
{
#if defined(EMB_MVE)
    for (int32_t left = (int32_t)count; left > 0; left -= 16, x += 16, w += 16) {
        const mve_pred16_t there = vctp8q((uint32_t)left);
        sum = vmladavaq_p_s8(sum, vldrbq_z_s8(x, there), vldrbq_z_s8(w, there), there);
    }
#else
#if defined(EMB_DSP)
    for (; count >= 8; count -= 8, x += 8, w += 8) {
        sum = emb_dot_four(x + 4, w + 4, emb_dot_four(x, w, sum));
    }
    if (count >= 4) {
        sum = emb_dot_four(x, w, sum);
        count -= 4;
        x += 4;
        w += 4;
    }
#endif
    for (size_t k = 0; k < count; ++k) {
        sum += x[k] * w[k];
    }
#endif
    return sum;
}

/* sum + Σ x × w, of 16-bit values and 8-bit weights. */
EMB_INLINE int64_t emb_dot_s16(const int16_t *x, const int8_t *w, size_t count, int64_t sum)
{
#if defined(EMB_MVE)
    for (int32_t left = (int32_t)count; left > 0; left -= 8, x += 8, w += 8) {
        const mve_pred16_t there = vctp16q((uint32_t)left);
        sum = vmlaldavaq_p_s16(sum, vldrhq_z_s16(x, there), vldrbq_z_s16(w, there), there);
    }
#else
#if defined(EMB_DSP)
    for (; count >= 4; count -= 4, x += 4, w += 4) {
        const uint32_t b = emb_load32(w);
        const uint32_t even = emb_even_bytes(b);
        const uint32_t odd = emb_odd_bytes(b);
        sum = __smlald((int16x2_t)emb_load32(x), (int16x2_t)((even & 0xffffu) | (odd << 16)), sum);
        sum = __smlald((int16x2_t)emb_load32(x + 2), (int16x2_t)((even >> 16) | (odd & 0xffff0000u)), sum);
    }
#endif
    for (size_t k = 0; k < count; ++k) {
        sum += (int32_t)x[k] * w[k];
    }
#endif
    return sum;
}

#ifdef __cplusplus
}
#endif

#endif
