/* What a stream keeps from block to block: types without arithmetic, since emb.h needs their sizes. */
#ifndef EMB_STATE_H
#define EMB_STATE_H

#include <stdint.h>

#include "emb_config.h"

/* The sum of two float32, see emb_pair.h. */
typedef struct {
    float hi;
    float lo;
} emb_pair_t;

#if EMB_FEATURES

/*
 * Sums over successive samples x of one channel, their differences (steps) and second differences (bends).
 * emb_config.h lists those that the chain's features need. `early` and `late` are the terms of the block's first and
 * second sample that reach to samples before it: they count where something comes before.
 */
typedef struct {
#define EMB_MEMBER(name) emb_pair_t name;
    EMB_LEVEL_SUMS(EMB_MEMBER)
#undef EMB_MEMBER
#define EMB_MEMBER(name)                                                                                               \
    emb_pair_t name;                                                                                                   \
    float early_##name;
    EMB_STEP_SUMS(EMB_MEMBER)
#undef EMB_MEMBER
#define EMB_MEMBER(name)                                                                                               \
    emb_pair_t name;                                                                                                   \
    float early_##name;                                                                                                \
    float late_##name;
    EMB_BEND_SUMS(EMB_MEMBER)
#undef EMB_MEMBER
    uint32_t count; /* of samples */
} emb_side_t;

typedef struct {
    emb_side_t x;
#if EMB_HAS_LOGARITHMS
    emb_side_t y; /* of y = log(x^2 + 2^-52) */
#endif
#if EMB_HAS_LARGE_STEPS
    uint32_t large_steps;
    uint32_t early_large_steps;
#endif
#if EMB_HAS_TURNS
    uint32_t turns;
    uint32_t early_turns;
    uint32_t late_turns;
#endif
#if EMB_HAS_CROSSINGS
    uint32_t crossings;
    float opened; /* the first sample that is not zero, and the last one; zero where there is none */
    float closed;
#endif
#if EMB_HAS_HIGHEST
    float highest;
#endif
#if EMB_HAS_LOG_ONE
    emb_pair_t log_one; /* logarithm of the product of |x| + 1 */
#endif
#if EMB_CENTRED
    float reference;                 /* the first sample */
    emb_pair_t centred[EMB_CENTRED]; /* sums of powers of (x - reference) * EMB_CENTRED_SCALE, from the first */
#endif
} emb_sums_t;

typedef struct {
    uint32_t filled; /* samples of each channel in the block that is not complete */
    uint32_t rest;   /* 1 where that block is what comes after the head of a hop */
    uint32_t place;  /* of the hop in its group */
    uint32_t hops;   /* so far, at most EMB_HOPS */
    float samples[EMB_CHANNELS][2 + EMB_BLOCK]; /* the two before the block, and the block */
#if EMB_BLOCK_SUMS
#if EMB_HEAD
    emb_sums_t pending[EMB_CHANNELS]; /* the head of the hop that is not complete */
#endif
#if EMB_GROUP
    emb_sums_t prefix[EMB_CHANNELS];           /* the hops of this group so far */
    emb_sums_t group[EMB_CHANNELS][EMB_GROUP]; /* hops of this group, then suffixes of the one before */
#endif
#endif
#if EMB_HELD
    uint32_t oldest;                     /* of the samples that are held */
    float held[EMB_CHANNELS][EMB_HELD];  /* of the last windows or frame */
    float frame[2 + EMB_FRAME];          /* one frame in order, behind two zeros */
    float work[EMB_WORK];
#endif
    float columns[EMB_FEATURES]; /* of one channel */
} emb_features_t;

#endif

#endif
