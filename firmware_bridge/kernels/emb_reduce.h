/* MEAN, SUM, REDUCE_MAX and REDUCE_MIN along any axes. The generator merges neighbouring axes until at most two kept and two
 * reduced ones alternate. */
#ifndef EMB_REDUCE_H
#define EMB_REDUCE_H

#include "emb_core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint32_t kept[2], kept_steps[2];       /* lengths, and elements of the input from one to the next; the slower first */
    uint32_t reduced[2], reduced_steps[2];
} emb_axes_t;

/* MEAN and SUM: out = zero + (Σ input + offset) × multiplier × 2^(shift − 31), rounded twice. */
typedef struct {
    emb_axes_t axes;
    int32_t offset;     /* −count × zero point of the input */
    int32_t multiplier; /* for MEAN with 1 / count in it */
    int8_t shift;       /* positive to the left */
    int16_t zero;
} emb_sum_t;

void emb_sum_s8(const emb_sum_t *p, const int8_t *in, int8_t *out);
void emb_sum_s16(const emb_sum_t *p, const int16_t *in, int16_t *out);

void emb_reduce_max_s8(const emb_axes_t *p, const int8_t *in, int8_t *out);
void emb_reduce_max_s16(const emb_axes_t *p, const int16_t *in, int16_t *out);
void emb_reduce_min_s8(const emb_axes_t *p, const int8_t *in, int8_t *out);
void emb_reduce_min_s16(const emb_axes_t *p, const int16_t *in, int16_t *out);

#ifdef __cplusplus
}
#endif

#endif
