#include "emb_quantize.h"

/* Rounds to the nearest, halves away from zero, and saturates to 2^20, which is beyond any int16. */
static int32_t rounded(float value)
{
    const float limit = 1048576.0f;
    if (!(value > -limit)) {
        return value == value ? -(1 << 20) : 0; /* NaN is unlike itself */
    }
    if (value >= limit) {
        return 1 << 20;
    }
    const int32_t whole = (int32_t)value;
    const float rest = value - (float)whole; /* exact */
    return rest >= 0.5f ? whole + 1 : rest <= -0.5f ? whole - 1 : whole;
}

void emb_quantize_f32_s8(const emb_scale_f32_t *p, const float *in, int8_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = (int8_t)emb_clamp(rounded(in[i] / p->scale) + p->zero, INT8_MIN, INT8_MAX);
    }
}

void emb_quantize_f32_s16(const emb_scale_f32_t *p, const float *in, int16_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = (int16_t)emb_clamp(rounded(in[i] / p->scale) + p->zero, INT16_MIN, INT16_MAX);
    }
}

void emb_dequantize_s8_f32(const emb_scale_f32_t *p, const int8_t *in, float *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = (float)(in[i] - p->zero) * p->scale;
    }
}

void emb_dequantize_s16_f32(const emb_scale_f32_t *p, const int16_t *in, float *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = (float)(in[i] - p->zero) * p->scale;
    }
}

EMB_INLINE int32_t rescaled(const emb_rescale_t *p, int32_t value)
{
    return emb_scale_twice(value - p->in_zero, p->multiplier, p->shift) + p->zero;
}

void emb_rescale_s8_s16(const emb_rescale_t *p, const int8_t *in, int16_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = (int16_t)emb_clamp(rescaled(p, in[i]), INT16_MIN, INT16_MAX);
    }
}

void emb_rescale_s16_s8(const emb_rescale_t *p, const int16_t *in, int8_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = (int8_t)emb_clamp(rescaled(p, in[i]), INT8_MIN, INT8_MAX);
    }
}

void emb_rescale_s16_s16(const emb_rescale_t *p, const int16_t *in, int16_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = (int16_t)emb_clamp(rescaled(p, in[i]), INT16_MIN, INT16_MAX);
    }
}

void emb_rescale_s8_s32(const emb_rescale_t *p, const int8_t *in, int32_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = rescaled(p, in[i]);
    }
}

void emb_rescale_s16_s32(const emb_rescale_t *p, const int16_t *in, int32_t *out)
{
    for (uint32_t i = 0; i < p->count; ++i) {
        out[i] = rescaled(p, in[i]);
    }
}
