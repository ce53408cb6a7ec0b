#include "emb_move.h"

/* Runs along the fastest axis. */
static void line(const emb_move_t *p, const uint8_t *from, uint8_t *to)
{
    const uint32_t count = p->lengths[EMB_MOVE_AXES - 1];
    const ptrdiff_t in_step = p->in_steps[EMB_MOVE_AXES - 1];
    const ptrdiff_t out_step = p->out_steps[EMB_MOVE_AXES - 1];
    switch (p->run) { /* single elements need no call */
    case 1:
        for (uint32_t i = 0; i < count; ++i) {
            to[(ptrdiff_t)i * out_step] = from[(ptrdiff_t)i * in_step];
        }
        break;
    case 2:
        for (uint32_t i = 0; i < count; ++i) {
            memcpy(to + (ptrdiff_t)i * out_step, from + (ptrdiff_t)i * in_step, 2);
        }
        break;
    case 4:
        for (uint32_t i = 0; i < count; ++i) {
            memcpy(to + (ptrdiff_t)i * out_step, from + (ptrdiff_t)i * in_step, 4);
        }
        break;
    default:
        for (uint32_t i = 0; i < count; ++i) {
            memcpy(to + (ptrdiff_t)i * out_step, from + (ptrdiff_t)i * in_step, p->run);
        }
    }
}

void emb_move(const emb_move_t *p, const void *in, void *out)
{
    const uint8_t *const from = (const uint8_t *)in + p->in_first;
    uint8_t *const to = (uint8_t *)out + p->out_first;
    const uint32_t *const n = p->lengths;
    const int32_t *const r = p->in_steps;
    const int32_t *const w = p->out_steps;
    for (uint32_t a = 0; a < n[0]; ++a) {
        for (uint32_t b = 0; b < n[1]; ++b) {
            for (uint32_t c = 0; c < n[2]; ++c) {
                for (uint32_t d = 0; d < n[3]; ++d) {
                    const ptrdiff_t i[4] = {(ptrdiff_t)a, (ptrdiff_t)b, (ptrdiff_t)c, (ptrdiff_t)d};
                    line(p, from + (i[0] * r[0] + i[1] * r[1] + i[2] * r[2] + i[3] * r[3]),
                         to + (i[0] * w[0] + i[1] * w[1] + i[2] * w[2] + i[3] * w[3]));
                }
            }
        }
    }
}

void emb_move_table(const emb_move_table_t *p, void *out)
{
    emb_move(&p->move, p->table, out);
}
