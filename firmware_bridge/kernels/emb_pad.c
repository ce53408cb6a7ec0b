#include "emb_move.h"

void emb_pad_8(const emb_pad_t *p, const void *in, void *out)
{
    memset(out, p->value, p->bytes);
    emb_move(&p->move, in, out);
}

void emb_pad_16(const emb_pad_t *p, const void *in, void *out)
{
    int16_t *const to = (int16_t *)out;
    for (uint32_t i = 0; i < p->bytes / 2; ++i) {
        to[i] = (int16_t)p->value;
    }
    emb_move(&p->move, in, out);
}

void emb_pad_32(const emb_pad_t *p, const void *in, void *out)
{
    int32_t *const to = (int32_t *)out;
    for (uint32_t i = 0; i < p->bytes / 4; ++i) {
        to[i] = p->value;
    }
    emb_move(&p->move, in, out);
}
