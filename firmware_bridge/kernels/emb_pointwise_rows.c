#include "emb_rows.h"

#define BLOCK 64u /* rows that are copied at a time where the output overwrites them; more no longer pays */

void emb_pointwise_rows_s8(const emb_pointwise_t *p, const int8_t *in, int8_t *out, void *scratch)
{
    const int in_place = in == out;
    const size_t least = in_place ? p->in_c : 0;
    const size_t given = scratch == NULL ? 0 : p->scratch_bytes > least ? p->scratch_bytes : least;
    const size_t beside = scratch != NULL && given >= EMB_BESIDE(p->in_c) + least ? EMB_BESIDE(p->in_c) : 0;
    emb_rows_t rows = {&p->out, (const int8_t *)p->weights, 0, p->out_c, p->in_c, p->in_c, p->out_c, 0,
                       beside > 0 ? (int8_t *)scratch : NULL};
    if (!in_place) {
        emb_rows_s8(&rows, in, p->rows, out);
        return;
    }
    int8_t *copy = (int8_t *)scratch + beside;
    const size_t room = (given - beside) / p->in_c < BLOCK ? (given - beside) / p->in_c : BLOCK;
    size_t block = room;
    for (size_t left = p->rows; left > 0; left -= block) {
        block = room < left ? room : left;
        rows.behind = given - beside - block * p->in_c;
        memcpy(copy, in, block * p->in_c);
        emb_rows_s8(&rows, copy, block, out);
        in += block * p->in_c;
        out += block * p->out_c;
    }
}
