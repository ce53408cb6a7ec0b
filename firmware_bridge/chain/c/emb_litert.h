/*
 * The chain and the head around a network that another runtime computes, such as LiteRT on a phone: emb_poll in two
 * halves. The window that emb_window gives has the bytes that emb_poll gives its own network; what comes of them is
 * up to the runtime, whose kernels may round otherwise.
 *
 *     while (emb_window(&emb, input)) {                 (EMB_WINDOW_BYTES, the network's int8 input)
 *         ... run the .tflite on input, giving output ...
 *         emb_decide_on(&emb, output, &decision);       (EMB_EMBEDDING values, its int8 output)
 *     }
 *
 * Both are for the consumer, as emb_poll is. One context uses these two or emb_poll, not both.
 */
#ifndef EMB_LITERT_H
#define EMB_LITERT_H

#include "emb.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EMB_WINDOW_BYTES (EMB_STEPS * EMB_COLUMNS)

/* Work on what was pushed until a window is complete or nothing is left. Returns 1 with a window, or 0. */
int emb_window(emb_t *emb, int8_t *input);

/* What the head makes of the network's output for the last window. Call it once for each window. */
void emb_decide_on(emb_t *emb, const int8_t *output, emb_decision_t *decision);

#ifdef __cplusplus
}
#endif

#endif
