/* Depthwise convolution with Helium where kernel, shifts and scratch allow it. */
#ifndef EMB_DEPTHWISE_PATCHES_H
#define EMB_DEPTHWISE_PATCHES_H

#include "emb_convolution.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef EMB_MVE
/* One picture of the batch; 0 where it is not possible. Scratch: p->scratch_bytes, aligned to eight. */
int emb_depthwise_patches(const emb_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch);
#else
EMB_INLINE int emb_depthwise_patches(const emb_depthwise_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    (void)p;
    (void)in;
    (void)out;
    (void)scratch;
    return 0;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
