#include "emb_move.h"

void emb_take(const emb_take_t *p, const void *in, void *out)
{
    uint8_t *to = (uint8_t *)out;
    for (uint32_t a = 0; a < p->lengths[0]; ++a) {
        for (uint32_t b = 0; b < p->lengths[1]; ++b) {
            for (uint32_t c = 0; c < p->lengths[2]; ++c) {
                const uint8_t *from = (const uint8_t *)in + (p->offsets_0[a] + p->offsets_1[b] + p->offsets_2[c]);
                for (uint32_t d = 0; d < p->lengths[3]; ++d) {
                    memcpy(to, from + p->offsets_3[d], p->run);
                    to += p->run;
                }
            }
        }
    }
}
