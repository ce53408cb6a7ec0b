#include "emb_unary.h"

void emb_lookup_s8(const emb_lookup_t *p, const int8_t *in, int8_t *out)
{
    const int8_t *middle = p->table + 128;
    const int8_t *end = in + p->count;
    while (in != end) {
        *out++ = middle[*in++];
    }
}

void emb_clip_s8(const emb_clip_t *p, const int8_t *in, int8_t *out)
{
    const int32_t least = p->min;
    const int32_t most = p->max;
    const int8_t *end = in + p->count;
    while (in != end) {
        *out++ = (int8_t)emb_clamp(*in++, least, most);
    }
}

void emb_clip_s16(const emb_clip_t *p, const int16_t *in, int16_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = (int16_t)emb_clamp(in[i], p->min, p->max);
    }
}

void emb_interpolate_s16(const emb_interpolate_t *p, const int16_t *in, int16_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        const int16_t *at = p->table + 256 + (in[i] >> 7);
        /* The slope wraps around in 16 bits, as the reference's does. */
        const int16_t slope = (int16_t)(uint16_t)(at[1] - at[0]);
        out[i] = (int16_t)(uint16_t)(at[0] + ((slope * (in[i] & 127) + 64) >> 7));
    }
}

/* The input in steps of 1 / (24 × 512), positive or negative. */
EMB_INLINE int32_t sigmoid_input(const emb_sigmoid_t *p, int16_t value)
{
    const int32_t half = (int32_t)(((uint32_t)1 << p->right) >> 1);
    return (value * p->multiplier + half) >> p->right;
}

void emb_logistic_s16(const emb_sigmoid_t *p, const int16_t *in, int16_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        const int32_t value = sigmoid_input(p, in[i]);
        const uint32_t magnitude = (uint32_t)(value < 0 ? -value : value);
        const uint32_t at = magnitude >> 9;
        uint32_t result = 0x7fffu << 10;
        if (at < 255) {
            result = ((uint32_t)p->table[at] << 9) + (magnitude & 511u) * (uint32_t)(p->table[at + 1] - p->table[at]);
        }
        result = value >= 0 ? result + 512u : ((uint32_t)1 << 25) - result + 511u;
        out[i] = (int16_t)(result >> 10);
    }
}

/* tanh(x) = 2 × logistic(2x) − 1. */
void emb_tanh_s16(const emb_sigmoid_t *p, const int16_t *in, int16_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        const int32_t value = sigmoid_input(p, in[i]);
        const uint32_t magnitude = (uint32_t)(value < 0 ? -value : value);
        const uint32_t at = magnitude >> 8;
        int32_t result = 0xffff << 8;
        if (at < 255) {
            result = (p->table[at] << 8) + (int32_t)(magnitude & 255u) * (p->table[at + 1] - p->table[at]);
        }
        result = value >= 0 ? result - (1 << 23) + 128 : (1 << 23) - result + 127;
        out[i] = (int16_t)(result >> 8);
    }
}

void emb_slopes_s16(const emb_slopes_t *p, const int16_t *in, int16_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        const int32_t value = p->magnitude && in[i] < 0 ? -in[i] : in[i];
        const int32_t scaled = value >= 0 ? emb_scale_twice(value, p->positive_multiplier, p->positive_shift)
                                          : emb_scale_twice(value, p->negative_multiplier, p->negative_shift);
        out[i] = (int16_t)emb_clamp(scaled, p->min, p->max);
    }
}
