#include "emb_section.h"

#include <stddef.h>

/* The digest covers what follows it; what stands before it is compared with constants. The fields are compared first, because
 * `length` says how much memory is read. A signature of the digest therefore signs the whole section, its address included. */
emb_section_result_t emb_section_check(const emb_section_header_t *section, uint32_t plan, uint32_t length,
                                       const emb_section_trust_t *trust)
{
    const size_t covered = offsetof(emb_section_header_t, length);
    uint8_t digest[EMB_SECTION_DIGEST_BYTES];

    if (section->magic != EMB_SECTION_MAGIC) {
        return EMB_SECTION_NO_MODEL;
    }
    if (section->version != EMB_SECTION_VERSION) {
        return EMB_SECTION_WRONG_VERSION;
    }
    if (section->length != length || length < sizeof *section) {
        return EMB_SECTION_WRONG_LENGTH;
    }
    if (section->plan != plan) {
        return EMB_SECTION_WRONG_PLAN;
    }
    if (section->address != (uint32_t)(uintptr_t)section) {
        return EMB_SECTION_WRONG_ADDRESS;
    }
    if (trust->hash(trust->context, (const uint8_t *)section + covered, length - (uint32_t)covered, digest) != 0) {
        return EMB_SECTION_WRONG_DIGEST;
    }
    for (size_t i = 0; i < sizeof digest; ++i) {
        if (digest[i] != section->sha256[i]) {
            return EMB_SECTION_WRONG_DIGEST;
        }
    }
    if (trust->verify != NULL && trust->verify(trust->key, digest, trust->signature) != 0) {
        return EMB_SECTION_WRONG_SIGNATURE;
    }
    return EMB_SECTION_OK;
}
