/* The four functions that GCC may call without being asked, so that no C library is needed. Weak: a program may link
 * its own. Words are moved where both ends are aligned alike, because models move tensors. */
#include <stddef.h>
#include <stdint.h>

/* An alias type: memory of any type is moved through it. */
typedef uint32_t __attribute__((may_alias)) word_t;

/* Whether both addresses are at word boundaries. */
static int both_aligned(const void *a, const void *b)
{
    return (((uintptr_t)a | (uintptr_t)b) & 3u) == 0u;
}

/* C99 7.21.2.1. */
__attribute__((weak)) void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    unsigned char *out = to;
    const unsigned char *in = from;

    if (both_aligned(to, from)) {
        word_t *wide_out = to;
        const word_t *wide_in = from;

        for (; size >= 16u; size -= 16u, wide_out += 4, wide_in += 4) {
            const uint32_t a = wide_in[0], b = wide_in[1], c = wide_in[2], d = wide_in[3];

            wide_out[0] = a;
            wide_out[1] = b;
            wide_out[2] = c;
            wide_out[3] = d;
        }
        out = (unsigned char *)wide_out;
        in = (const unsigned char *)wide_in;
    }
    while (size-- > 0u) {
        *out++ = *in++;
    }
    return to;
}

/* C99 7.21.2.2: the two may overlap. */
__attribute__((weak)) void *memmove(void *to, const void *from, size_t size)
{
    unsigned char *out = to;
    const unsigned char *in = from;

    if ((uintptr_t)out <= (uintptr_t)in) {
        while (size-- > 0u) {
            *out++ = *in++;
        }
    } else {
        while (size-- > 0u) {
            out[size] = in[size];
        }
    }
    return to;
}

/* C99 7.21.6.1. */
__attribute__((weak)) void *memset(void *to, int value, size_t size)
{
    unsigned char *out = to;

    if (((uintptr_t)to & 3u) == 0u) {
        const uint32_t word = (uint32_t)(unsigned char)value * 0x01010101u;
        word_t *wide = to;

        for (; size >= 16u; size -= 16u, wide += 4) {
            wide[0] = word;
            wide[1] = word;
            wide[2] = word;
            wide[3] = word;
        }
        out = (unsigned char *)wide;
    }
    while (size-- > 0u) {
        *out++ = (unsigned char)value;
    }
    return to;
}

/* C99 7.21.4.1. */
__attribute__((weak)) int memcmp(const void *left, const void *right, size_t size)
{
    const unsigned char *a = left;
    const unsigned char *b = right;

    for (; size > 0u; size--, a++, b++) {
        if (*a != *b) {
            return *a < *b ? -1 : 1;
        }
    }
    return 0;
}
