/* Sums of many int8, four at a time: what pooling and MEAN are made of. */
#ifndef EMB_SUMS_H
#define EMB_SUMS_H

#include "emb_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Adds to sums the four neighbours at `from`, at from + step … (count of them). The bytes become 0 … 255 in lanes of 16 bits,
 * two to a word, which 257 of them fill. */
EMB_INLINE void emb_sum_quads(const int8_t *from, size_t count, size_t step, int32_t *sums)
{
    const uint32_t lanes = 0x00ff00ffu;
    while (count > 0) {
        const size_t part = count < 256 ? count : 256;
        uint32_t even = 0;
        uint32_t odd = 0;
        for (size_t i = 0; i < part; ++i) {
            const uint32_t bytes = emb_load32(from) ^ 0x80808080u;
            even += bytes & lanes;
            odd += (bytes >> 8) & lanes;
            from += step;
        }
        const int32_t offset = 128 * (int32_t)part;
        sums[0] += (int32_t)(even & 0xffffu) - offset;
        sums[1] += (int32_t)(odd & 0xffffu) - offset;
        sums[2] += (int32_t)(even >> 16) - offset;
        sums[3] += (int32_t)(odd >> 16) - offset;
        count -= part;
    }
}

/* The sum of one value in each step. */
EMB_INLINE int32_t emb_sum_each(const int8_t *from, size_t count, size_t step)
{
    int32_t sum = 0;
    for (size_t i = 0; i < count; ++i) {
        sum += *from;
        from += step;
    }
    return sum;
}

#ifdef __cplusplus
}
#endif

#endif
