/* Inputs times weights in the layout "pairs"; see emb_convolution.h. */
#ifndef EMB_PAIRS_H
#define EMB_PAIRS_H

#include "emb_convolution.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of inputs that share one pass over the weights: three, or one where fewer are left. */
#define EMB_PAIRS_ROWS 3

/* Widens count int8 inputs to int16. Of each four (zeros behind the last) first 0 and 2 are stored, then 1 and 3; from
 * each two to the next it is `rows` times two, so that several rows alternate; row r starts at wide + 2 × r. */
void emb_pairs_widen(const int8_t *in, size_t count, int16_t *wide, size_t rows);

/* Outputs of all channels for one row of widened inputs, `quads` times four. */
void emb_pairs_one_row(const emb_requant_t *to, const uint32_t *weights, size_t quads, size_t out_c,
                       const int16_t *wide, int8_t *out);

/* The same for EMB_PAIRS_ROWS rows, whose outputs follow each other. Rounds twice, whatever to->once says. */
void emb_pairs_three_rows(const emb_requant_t *to, const uint32_t *weights, size_t quads, size_t out_c,
                          const int16_t *wide, int8_t *out);

#ifdef __cplusplus
}
#endif

#endif
