/* Samples from standard input; for each decision the network's input, its output and the decision to standard output.
 * An argument makes it go through emb_window and emb_decide_on, as with LiteRT, with the library's own network between.
 * BURST is how many frames are pushed at once. */
#include <stdio.h>
#include <string.h>

#include "emb.h"
#include "emb_litert.h"

#ifndef BURST
#define BURST 7
#endif

static emb_t emb;

static void say(const int8_t *input, const emb_decision_t *decision)
{
    fwrite(input, 1, EMB_WINDOW_BYTES, stdout);
    fwrite(emb_model_output(&emb.model), 1, EMB_EMBEDDING, stdout);
    fwrite(decision, sizeof *decision, 1, stdout);
}

int main(int count, char **arguments)
{
    static emb_sample_t frames[BURST * EMB_FRAME_CHANNELS];
    static int8_t input[EMB_WINDOW_BYTES];
    emb_decision_t decision;
    size_t read;
    (void)arguments;
    emb_init(&emb);
    while ((read = fread(frames, sizeof frames[0] * EMB_FRAME_CHANNELS, BURST, stdin)) != 0) {
        emb_push(&emb, frames, read);
        while (count > 1 ? emb_window(&emb, input) : emb_poll(&emb, &decision)) {
            if (count > 1) {
                memcpy(emb_model_input(&emb.model), input, sizeof input);
                emb_model_invoke(&emb.model);
                emb_decide_on(&emb, emb_model_output(&emb.model), &decision);
            } else {
                memset(input, 0, sizeof input); /* the network has written over its input */
            }
            say(input, &decision);
        }
    }
    return emb_lost(&emb) != 0;
}
