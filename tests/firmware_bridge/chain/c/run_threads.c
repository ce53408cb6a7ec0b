/* One thread pushes what standard input has, as long as there is room, while another polls. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "emb_internal.h"

static emb_t emb;
static int finished;

static void *produce(void *unused)
{
    static emb_sample_t piece[EMB_HOP][EMB_FRAME_CHANNELS];
    size_t size = 1, frames, done;
    (void)unused;
    while ((frames = fread(piece, sizeof piece[0], size, stdin)) != 0) {
        for (done = 0; done < frames;) {
            /* No more than there is room for: what emb_push does not take counts as lost. */
            size_t room = EMB_RING - (emb.given - __atomic_load_n(&emb.taken, __ATOMIC_ACQUIRE));
            size_t some = frames - done < room ? frames - done : room;
            if (some == 0) {
                sched_yield();
            }
            done += emb_push(&emb, piece[done], some);
        }
        size = size % EMB_HOP + 1;
    }
    __atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
    return NULL;
}

int main(void)
{
    pthread_t producer;
    int last;
    emb_init(&emb);
    if (pthread_create(&producer, NULL, produce, NULL) != 0) {
        return 2;
    }
    do {
        emb_decision_t decision;
        last = __atomic_load_n(&finished, __ATOMIC_ACQUIRE);
        while (emb_poll(&emb, &decision)) {
            fwrite(emb.model.input, 1, sizeof emb.model.input, stdout);
        }
    } while (!last);
    pthread_join(producer, NULL);
    return emb_lost(&emb) == 0 ? 0 : 3;
}
