/* Samples from standard input through the chain to inputs of the network on standard output, in pieces of every size. */
#include <stdio.h>
#include <stdlib.h>

#include "emb_internal.h"

int main(void)
{
    emb_t *emb = malloc(sizeof *emb);
    emb_sample_t piece[EMB_HOP][EMB_FRAME_CHANNELS];
    emb_decision_t decision;
    size_t size = 1, frames;
    emb_init(emb);
    while ((frames = fread(piece, sizeof piece[0], size, stdin)) != 0) {
        if (emb_push(emb, piece[0], frames) != frames) {
            return 2;
        }
        while (emb_poll(emb, &decision)) {
            if (emb_label(decision.index) == NULL) {
                return 3;
            }
            fwrite(emb->model.input, 1, sizeof emb->model.input, stdout);
        }
        size = size % EMB_HOP + 1;
    }
    free(emb);
    return 0;
}
