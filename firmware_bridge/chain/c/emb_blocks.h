/* Sums over blocks of samples, and how those of successive blocks become those of a window. */
#ifndef EMB_BLOCKS_H
#define EMB_BLOCKS_H

#include "emb_internal.h"

/* Sums of `count` samples; samples[-1] and samples[-2] are those before, or anything finite where there are none. */
void emb_block_sums(const float *samples, uint32_t count, emb_sums_t *sums);

/* The sums of two blocks that follow each other; `out` may be `a` or `b`. */
void emb_join(const emb_sums_t *a, const emb_sums_t *b, emb_sums_t *out);

#endif
