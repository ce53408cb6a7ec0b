/* Moves: SLICE, STRIDED_SLICE, SPLIT, UNPACK, TRANSPOSE, PACK, CONCATENATION, PAD, GATHER and MIRROR_PAD, of any
 * type.
 *
 * All but the last two read and write at constant steps along each axis. The generator joins axes that lie together
 * on both sides, so that a move is as few runs of bytes, each as long, as can be.
 */
#ifndef EMB_MOVE_H
#define EMB_MOVE_H

#include "emb_core.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EMB_MOVE_AXES 5

/* Runs of bytes along up to five axes, the last one the fastest; a length of one where there is no axis. */
typedef struct {
    uint32_t run;                    /* bytes that lie together on both sides */
    uint32_t in_first, out_first;    /* byte of the first run */
    uint32_t lengths[EMB_MOVE_AXES]; /* runs */
    int32_t in_steps[EMB_MOVE_AXES]; /* bytes from one run to the next */
    int32_t out_steps[EMB_MOVE_AXES];
} emb_move_t;

/* Writes the part of the output that the runs cover and nothing else. */
void emb_move(const emb_move_t *p, const void *in, void *out);

/* The same from a constant. */
typedef struct {
    emb_move_t move;
    const void *table;
} emb_move_table_t;

void emb_move_table(const emb_move_table_t *p, void *out);

/* PAD and PADV2: fills the output of `bytes`, then moves the input into it. */
typedef struct {
    emb_move_t move;
    uint32_t bytes;
    int32_t value;
} emb_pad_t;

void emb_pad_8(const emb_pad_t *p, const void *in, void *out);
/* Of two and of four bytes; the output is aligned to them. */
void emb_pad_16(const emb_pad_t *p, const void *in, void *out);
void emb_pad_32(const emb_pad_t *p, const void *in, void *out);

#define EMB_TAKE_AXES 4

/* GATHER and MIRROR_PAD: the output's runs in order, each from the sum of one offset per axis. */
typedef struct {
    uint32_t run; /* bytes */
    uint32_t lengths[EMB_TAKE_AXES];
    const uint32_t *offsets_0, *offsets_1, *offsets_2, *offsets_3; /* bytes; as many as the axis is long */
} emb_take_t;

void emb_take(const emb_take_t *p, const void *in, void *out);

#ifdef __cplusplus
}
#endif

#endif
