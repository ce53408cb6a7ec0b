#include "emb_pairs.h"

void emb_pointwise_pairs_s8(const emb_pointwise_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    const size_t quads = (p->in_c + 3u) / 4u;
    const uint32_t *weights = (const uint32_t *)p->weights;
    int16_t *wide = (int16_t *)scratch;
    uint32_t rows = p->rows;
    for (; rows >= EMB_PAIRS_ROWS && !p->out.once; rows -= EMB_PAIRS_ROWS) {
        for (size_t row = 0; row < EMB_PAIRS_ROWS; ++row) {
            emb_pairs_widen(in, p->in_c, wide + 2 * row, EMB_PAIRS_ROWS);
            in += p->in_c;
        }
        emb_pairs_three_rows(&p->out, weights, quads, p->out_c, wide, out);
        out += EMB_PAIRS_ROWS * p->out_c;
    }
    for (; rows > 0; --rows) {
        emb_pairs_widen(in, p->in_c, wide, 1);
        emb_pairs_one_row(&p->out, weights, quads, p->out_c, wide, out);
        in += p->in_c;
        out += p->out_c;
    }
}
