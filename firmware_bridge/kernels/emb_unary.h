/* Functions of one element: LOGISTIC, TANH, GELU, RELU, ABS and the like. The output may take the input's memory. */
#ifndef EMB_UNARY_H
#define EMB_UNARY_H

#include "emb_factor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Any function of an int8: its outputs for −128 … 127. */
typedef struct {
    const int8_t *table;
    uint32_t count;
} emb_lookup_t;

void emb_lookup_s8(const emb_lookup_t *p, const int8_t *in, int8_t *out);

/* RELU, RELU6, RELU_N1_TO_1 whose output has the input's scale. */
typedef struct {
    uint32_t count;
    int16_t min, max;
} emb_clip_t;

void emb_clip_s8(const emb_clip_t *p, const int8_t *in, int8_t *out);
void emb_clip_s16(const emb_clip_t *p, const int16_t *in, int16_t *out);

/* A smooth function of an int16: its outputs for each 128th input and the one behind the last, and straight lines in between
 * (TFLite's LUTLookup). */
typedef struct {
    const int16_t *table; /* 513 */
    uint32_t count;
} emb_interpolate_t;

void emb_interpolate_s16(const emb_interpolate_t *p, const int16_t *in, int16_t *out);

/* LOGISTIC and TANH of an int16, from TFLite's table of the logistic function at i / 24. */
typedef struct {
    const uint16_t *table; /* 256: 65536 × logistic(i / 24), rounded, 65535 at most */
    uint32_t count;
    int32_t multiplier; /* of the input, before a rounding shift to the right */
    uint8_t right;
} emb_sigmoid_t;

void emb_logistic_s16(const emb_sigmoid_t *p, const int16_t *in, int16_t *out);
void emb_tanh_s16(const emb_sigmoid_t *p, const int16_t *in, int16_t *out);

/* RELU, RELU6, LEAKY_RELU and ABS of an int16: one factor for what is positive or 0, one for what is negative. */
typedef struct {
    uint32_t count;
    int32_t positive_multiplier, negative_multiplier;
    int8_t positive_shift, negative_shift; /* positive to the left */
    uint8_t magnitude;                     /* 1: ABS, of the absolute value */
    int16_t min, max;
} emb_slopes_t;

void emb_slopes_s16(const emb_slopes_t *p, const int16_t *in, int16_t *out);

#ifdef __cplusplus
}
#endif

#endif
