/* emb_poll in two halves, for a network that another runtime computes. */
#include "emb_litert.h"

#include "emb_internal.h"

int emb_window(emb_t *emb, int8_t *input)
{
    if (!emb_next_input(emb)) {
        return 0;
    }
    memcpy(input, emb_model_input(&emb->model), EMB_WINDOW_BYTES);
    return 1;
}

void emb_decide_on(emb_t *emb, const int8_t *output, emb_decision_t *decision)
{
    decision->number = emb->decisions++;
    decision->first = emb->clock - EMB_WINDOW;
    emb_decide(output, decision);
}
