/* What stands at the start of every model's tables, so that a firmware can tell which model it holds, and whether it may use one
 * that was written to flash after the firmware. */
#ifndef EMB_SECTION_H
#define EMB_SECTION_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EMB_SECTION_MAGIC 0x4d424d45u /* "EMBM" */
#define EMB_SECTION_VERSION 2u
#define EMB_SECTION_DIGEST_BYTES 32

typedef struct {
    uint32_t magic;
    uint32_t version;
    uint8_t sha256[32];       /* of everything behind it, to the end of the section; zeros where the linker chose the address */
    uint32_t length;          /* bytes of the whole section, this header included */
    uint32_t plan;            /* what the calls in flash were generated for; a section of another plan must not be used */
    uint32_t address;         /* where the section's pointers expect it to lie; 0 where the linker chose the address */
    uint8_t model_sha256[32]; /* of the .tflite file */
} emb_section_header_t;

typedef enum {
    EMB_SECTION_OK = 0,
    EMB_SECTION_NO_MODEL,        /* erased flash, or something else */
    EMB_SECTION_WRONG_VERSION,   /* of this header */
    EMB_SECTION_WRONG_LENGTH,    /* another length than that of the model that the firmware was built with */
    EMB_SECTION_WRONG_PLAN,      /* made for another firmware */
    EMB_SECTION_WRONG_ADDRESS,   /* made for another place in memory */
    EMB_SECTION_WRONG_DIGEST,    /* damaged, or `hash` failed */
    EMB_SECTION_WRONG_SIGNATURE  /* not signed by the owner of the key */
} emb_section_result_t;

/* The cryptography is the platform's: a driver, PSA Crypto, a boot loader. All callbacks return 0 when they succeed. */
typedef struct {
    /* SHA-256 of `length` bytes; `context` is handed through. */
    int (*hash)(void *context, const void *data, uint32_t length, uint8_t digest[EMB_SECTION_DIGEST_BYTES]);
    void *context;
    /* Whether `signature` is that of `digest` under `key`; NULL where models are not signed. */
    int (*verify)(const void *key, const uint8_t digest[EMB_SECTION_DIGEST_BYTES], const void *signature);
    const void *key;
    const void *signature;
} emb_section_trust_t;

/* Whether the section may be used by a firmware of this plan, whose model takes `length` bytes. Call it before the first
 * inference. What it reads before the digest is known to be right lies in the header. */
emb_section_result_t emb_section_check(const emb_section_header_t *section, uint32_t plan, uint32_t length,
                                       const emb_section_trust_t *trust);

#ifdef __cplusplus
}
#endif

#endif
