/* QUANTIZE and DEQUANTIZE: from one scale or type to another. */
#ifndef EMB_QUANTIZE_H
#define EMB_QUANTIZE_H

#include "emb_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Between whole numbers: out = zero + (in − in_zero) × multiplier × 2^(shift − 31), rounded twice. int8 to int8 is a table of
 * emb_unary.h. */
typedef struct {
    uint32_t count;
    int32_t multiplier;
    int8_t shift; /* positive to the left */
    int16_t in_zero, zero;
} emb_rescale_t;

void emb_rescale_s8_s16(const emb_rescale_t *p, const int8_t *in, int16_t *out);
void emb_rescale_s16_s8(const emb_rescale_t *p, const int16_t *in, int8_t *out);
void emb_rescale_s16_s16(const emb_rescale_t *p, const int16_t *in, int16_t *out);
void emb_rescale_s8_s32(const emb_rescale_t *p, const int8_t *in, int32_t *out);
void emb_rescale_s16_s32(const emb_rescale_t *p, const int16_t *in, int32_t *out);

/* From and to float32. */
typedef struct {
    uint32_t count;
    float scale;
    int16_t zero;
} emb_scale_f32_t;

/* in / scale rounded to the nearest, halves away from zero, plus zero; saturates. NaN becomes the zero point. */
void emb_quantize_f32_s8(const emb_scale_f32_t *p, const float *in, int8_t *out);
void emb_quantize_f32_s16(const emb_scale_f32_t *p, const float *in, int16_t *out);
/* (in − zero) × scale. */
void emb_dequantize_s8_f32(const emb_scale_f32_t *p, const int8_t *in, float *out);
void emb_dequantize_s16_f32(const emb_scale_f32_t *p, const int16_t *in, float *out);

#ifdef __cplusplus
}
#endif

#endif
