/* Samples that the host loaded through the chain; inputs of the network and decisions go back to it. */
#include "emb_board.h"
#include "emb_internal.h"

static emb_t emb;

int main(void)
{
    const uint32_t *input = emb_board_input();
    const uint32_t frames = input[0];
    const emb_sample_t *samples = (const emb_sample_t *)(input + 1);
    uint32_t frame = 0;
    emb_init(&emb);
    while (frame < frames) {
        const uint32_t size = frames - frame < EMB_HOP ? frames - frame : EMB_HOP;
        emb_decision_t decision;
        frame += (uint32_t)emb_push(&emb, samples + frame * EMB_FRAME_CHANNELS, size);
        while (emb_poll(&emb, &decision)) {
            emb_board_output(emb.model.input, sizeof emb.model.input);
            emb_board_output(&decision.index, sizeof decision.index);
        }
    }
    return 0;
}
