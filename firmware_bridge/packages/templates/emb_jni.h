/*
 * What EmbNative.java calls. JNI_OnLoad registers these functions with the class EMB_JNI_CLASS, so that none of their
 * names is exported and a signature that does not fit is found when the library is loaded.
 *
 * A handle is the address of one stream's emb_t; there is no global variable, and any number of streams. A wrong
 * argument throws and changes nothing: IllegalStateException for the handle 0 (closed), IllegalArgumentException for a
 * buffer that is not direct or not aligned, ArrayIndexOutOfBoundsException for sizes, NullPointerException for null,
 * OutOfMemoryError. A handle that is in use on one thread must not be destroyed on another: EmbDecoder.kt sees to it.
 */
#ifndef EMB_JNI_H
#define EMB_JNI_H

#include <jni.h>

#include "emb.h"

/* Define it where the Java package has another name. */
#ifndef EMB_JNI_CLASS
#define EMB_JNI_CLASS "org/embridge/edge/EmbNative"
#endif

/* An array of samples in Java, and its signature. */
#if EMB_SAMPLE_BITS == 16
typedef jshortArray emb_jsamples_t;
#define EMB_JSAMPLES "[S"
#else
typedef jintArray emb_jsamples_t;
#define EMB_JSAMPLES "[I"
#endif

/* Places in the array that emb_jni_sizes gives. */
enum {
    EMB_JNI_SAMPLE_BITS,
    EMB_JNI_FRAME_CHANNELS,
    EMB_JNI_WINDOW,
    EMB_JNI_HOP,
    EMB_JNI_RING,
    EMB_JNI_WINDOW_BYTES,
    EMB_JNI_EMBEDDING,
    EMB_JNI_SCORES,
    EMB_JNI_REGRESSION,
    EMB_JNI_SIZES
};

/* A decision in two arrays: number, first, index; then score, margin and all scores. */
#define EMB_JNI_WHOLE 3
#define EMB_JNI_REAL (2 + EMB_SCORES)

jintArray emb_jni_sizes(JNIEnv *env, jclass type);                    /* EMB_JNI_SIZES numbers */
jbyteArray emb_jni_label(JNIEnv *env, jclass type, jint index);       /* UTF-8 */
jbyteArray emb_jni_model_sha256(JNIEnv *env, jclass type);            /* of the .tflite, 32 bytes */
jint emb_jni_self_test(JNIEnv *env, jclass type);                     /* EMB_SELFTEST_..., on a context of its own */
jlong emb_jni_create(JNIEnv *env, jclass type);                       /* a handle */
void emb_jni_destroy(JNIEnv *env, jclass type, jlong handle);         /* nothing for 0 */
void emb_jni_interrupt(JNIEnv *env, jclass type, jlong handle);       /* emb_interrupt */
jint emb_jni_lost(JNIEnv *env, jclass type, jlong handle);            /* emb_lost */

/* emb_push from samples[at] on; the array is pinned or copied by the virtual machine, and copied into the ring once. */
jint emb_jni_push(JNIEnv *env, jclass type, jlong handle, emb_jsamples_t samples, jint at, jint frames);

/* emb_push from byte `at` of a direct buffer, little-endian; nothing is copied but into the ring. */
jint emb_jni_push_direct(JNIEnv *env, jclass type, jlong handle, jobject samples, jint at, jint frames);

/* emb_poll: whether there is a decision, which is in `whole` and `real` then. */
jboolean emb_jni_poll(JNIEnv *env, jclass type, jlong handle, jintArray whole, jfloatArray real);

/* emb_window into a direct buffer of EMB_WINDOW_BYTES or more, which the caller knows to be writable (JNI cannot tell), and emb_decide_on from one of EMB_EMBEDDING or more. */
jboolean emb_jni_window(JNIEnv *env, jclass type, jlong handle, jobject input);
void emb_jni_decide(JNIEnv *env, jclass type, jlong handle, jobject output, jintArray whole, jfloatArray real);

#endif
