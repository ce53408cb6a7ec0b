/* Pooling over height and width, NHWC. */
#ifndef EMB_POOL_H
#define EMB_POOL_H

#include "emb_core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint16_t batches, in_h, in_w, channels, out_h, out_w;
    uint16_t pool_h, pool_w, stride_h, stride_w, pad_top, pad_left;
    int16_t min, max;
} emb_pool_t;

/* AVERAGE_POOL_2D: the mean of what lies inside the input, halves away from zero. */
void emb_average_pool_s8(const emb_pool_t *p, const int8_t *in, int8_t *out);
void emb_average_pool_s16(const emb_pool_t *p, const int16_t *in, int16_t *out);
/* MAX_POOL_2D. */
void emb_max_pool_s8(const emb_pool_t *p, const int8_t *in, int8_t *out);
void emb_max_pool_s16(const emb_pool_t *p, const int16_t *in, int16_t *out);

#ifdef __cplusplus
}
#endif

#endif
