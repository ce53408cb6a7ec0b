/* SOFTMAX and LOG_SOFTMAX along the last axis, in the fixed-point arithmetic of TFLite's reference kernels. */
#ifndef EMB_SOFTMAX_H
#define EMB_SOFTMAX_H

#include "emb_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* int8 to int8 of scale 1 / 256 and zero point −128, or to int16 of scale 1 / 32768 and zero point −32768. The output may take
 * the input's memory where both are int8. */
typedef struct {
    uint32_t rows;
    uint32_t length;    /* of a row */
    int32_t multiplier; /* of a difference of inputs, which becomes its exponent with 26 bits below the point */
    uint8_t shift;      /* to the left */
    int32_t least;      /* differences below count as an exponential of 0 */
} emb_softmax_t;

/* Scratch: 4 × length bytes, aligned to four. */
void emb_softmax_s8(const emb_softmax_t *p, const int8_t *in, int8_t *out, void *scratch);
void emb_softmax_s8_s16(const emb_softmax_t *p, const int8_t *in, int16_t *out, void *scratch);

/* int16, outputs of scale 1 / 32768 and zero point 0. */
typedef struct {
    uint32_t rows;
    uint32_t length;
    int32_t multiplier; /* of a difference of inputs; the product spans [−10, 0] in 65536 steps */
    int8_t shift;
    const int16_t *exponentials; /* 513: exp on [−10, 0] */
    const int16_t *inverses;     /* 513: 1 / (1 + x) on [0, 1] */
} emb_softmax16_t;

/* The output may take the input's memory. */
void emb_softmax_s16(const emb_softmax16_t *p, const int16_t *in, int16_t *out);

#ifdef __cplusplus
}
#endif

#endif
