/* The self-test, and whether it leaves a fresh context; on a board its result is the exit status as well. */
#include "emb.h"

static emb_t emb;

int main(void)
{
    return emb_selftest(&emb);
}
