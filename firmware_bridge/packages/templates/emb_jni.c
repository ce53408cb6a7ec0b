/* The library as static methods of a Java class. See emb_jni.h. */
#include "emb_jni.h"

#include <stdlib.h>
#include <string.h>

#include "emb_litert.h"

/* Of the network's own library: SHA-256 of the .tflite. */
#include "emb_model.h"

static void emb_throw(JNIEnv *env, const char *kind, const char *message)
{
    jclass type = (*env)->FindClass(env, kind);
    if (type != NULL) { /* else the virtual machine has thrown already */
        (*env)->ThrowNew(env, type, message);
        (*env)->DeleteLocalRef(env, type);
    }
}

static void emb_wrong(JNIEnv *env, const char *message)
{
    emb_throw(env, "java/lang/IllegalArgumentException", message);
}

static void emb_beyond(JNIEnv *env, const char *message)
{
    emb_throw(env, "java/lang/ArrayIndexOutOfBoundsException", message);
}

/* The stream of a handle; NULL with an exception where it is closed. */
static emb_t *emb_of(JNIEnv *env, jlong handle)
{
    if (handle == 0) {
        emb_throw(env, "java/lang/IllegalStateException", "The decoder is closed.");
    }
    return (emb_t *)(intptr_t)handle;
}

/* Whether an object is there; an exception where it is not. */
static int emb_given(JNIEnv *env, jobject object)
{
    if (object == NULL) {
        emb_throw(env, "java/lang/NullPointerException", "An array or a buffer is null.");
    }
    return object != NULL;
}

/* Whether `frames` frames fit behind `at` of `length` numbers; in 64 bits, where nothing overflows. */
static int emb_fits(jlong length, jlong at, jlong frames)
{
    return at >= 0 && frames >= 0 && at + frames * EMB_FRAME_CHANNELS <= length;
}

/* Memory of a direct buffer of at least `bytes`; NULL with an exception where it is none. */
static void *emb_direct(JNIEnv *env, jobject buffer, jlong bytes)
{
    void *memory;
    if (!emb_given(env, buffer)) {
        return NULL;
    }
    memory = (*env)->GetDirectBufferAddress(env, buffer);
    if (memory == NULL) {
        emb_wrong(env, "The buffer is not direct; use ByteBuffer.allocateDirect.");
        return NULL;
    }
    if ((*env)->GetDirectBufferCapacity(env, buffer) < bytes) {
        emb_beyond(env, "The buffer is too small.");
        return NULL;
    }
    return memory;
}

/* Whether a decision's arrays have room; an exception where they have not. */
static int emb_has_room(JNIEnv *env, jintArray whole, jfloatArray real)
{
    if (!emb_given(env, whole) || !emb_given(env, real)) {
        return 0;
    }
    if ((*env)->GetArrayLength(env, whole) < EMB_JNI_WHOLE || (*env)->GetArrayLength(env, real) < EMB_JNI_REAL) {
        emb_beyond(env, "The arrays of a decision are too short.");
        return 0;
    }
    return 1;
}

static void emb_store(JNIEnv *env, const emb_decision_t *decision, jintArray whole, jfloatArray real)
{
    jint numbers[EMB_JNI_WHOLE];
    jfloat values[EMB_JNI_REAL];
    numbers[0] = (jint)decision->number;
    numbers[1] = (jint)decision->first;
    numbers[2] = (jint)decision->index;
    values[0] = decision->score;
    values[1] = decision->margin;
    memcpy(values + 2, decision->scores, sizeof decision->scores);
    (*env)->SetIntArrayRegion(env, whole, 0, EMB_JNI_WHOLE, numbers);
    (*env)->SetFloatArrayRegion(env, real, 0, EMB_JNI_REAL, values);
}

static jbyteArray emb_bytes(JNIEnv *env, const void *from, size_t count)
{
    jbyteArray array = (*env)->NewByteArray(env, (jsize)count);
    if (array != NULL) {
        (*env)->SetByteArrayRegion(env, array, 0, (jsize)count, from);
    }
    return array;
}

static emb_t *emb_new(JNIEnv *env)
{
    emb_t *emb = malloc(sizeof *emb);
    if (emb == NULL) {
        emb_throw(env, "java/lang/OutOfMemoryError", "There is no memory for a decoder.");
        return NULL;
    }
    emb_init(emb);
    return emb;
}

jintArray emb_jni_sizes(JNIEnv *env, jclass type)
{
    jint sizes[EMB_JNI_SIZES];
    jintArray array = (*env)->NewIntArray(env, EMB_JNI_SIZES);
    (void)type;
    sizes[EMB_JNI_SAMPLE_BITS] = EMB_SAMPLE_BITS;
    sizes[EMB_JNI_FRAME_CHANNELS] = EMB_FRAME_CHANNELS;
    sizes[EMB_JNI_WINDOW] = EMB_WINDOW;
    sizes[EMB_JNI_HOP] = EMB_HOP;
    sizes[EMB_JNI_RING] = EMB_RING;
    sizes[EMB_JNI_WINDOW_BYTES] = EMB_WINDOW_BYTES;
    sizes[EMB_JNI_EMBEDDING] = EMB_EMBEDDING;
    sizes[EMB_JNI_SCORES] = EMB_SCORES;
    sizes[EMB_JNI_REGRESSION] = EMB_REGRESSION;
    if (array != NULL) {
        (*env)->SetIntArrayRegion(env, array, 0, EMB_JNI_SIZES, sizes);
    }
    return array;
}

/* Bytes, since NewStringUTF takes Java's own form of UTF-8, in which a character beyond U+FFFF is six bytes. */
jbyteArray emb_jni_label(JNIEnv *env, jclass type, jint index)
{
    const char *label = index >= 0 && index < EMB_SCORES ? emb_label(index) : NULL;
    (void)type;
    if (label == NULL) {
        emb_beyond(env, "There is no label of this number.");
        return NULL;
    }
    return emb_bytes(env, label, strlen(label));
}

jbyteArray emb_jni_model_sha256(JNIEnv *env, jclass type)
{
    (void)type;
    return emb_bytes(env, emb_model_model_sha256(), 32);
}

jint emb_jni_self_test(JNIEnv *env, jclass type)
{
    emb_t *emb = emb_new(env);
    jint result = EMB_SELFTEST_PASSED;
    (void)type;
    if (emb != NULL) {
        result = emb_selftest(emb);
        free(emb);
    }
    return result;
}

jlong emb_jni_create(JNIEnv *env, jclass type)
{
    (void)type;
    return (jlong)(intptr_t)emb_new(env);
}

void emb_jni_destroy(JNIEnv *env, jclass type, jlong handle)
{
    (void)env;
    (void)type;
    free((emb_t *)(intptr_t)handle);
}

void emb_jni_interrupt(JNIEnv *env, jclass type, jlong handle)
{
    emb_t *emb = emb_of(env, handle);
    (void)type;
    if (emb != NULL) {
        emb_interrupt(emb);
    }
}

jint emb_jni_lost(JNIEnv *env, jclass type, jlong handle)
{
    emb_t *emb = emb_of(env, handle);
    (void)type;
    return emb == NULL ? 0 : (jint)emb_lost(emb);
}

jint emb_jni_push(JNIEnv *env, jclass type, jlong handle, emb_jsamples_t samples, jint at, jint frames)
{
    emb_t *emb = emb_of(env, handle);
    emb_sample_t *values;
    size_t taken;
    (void)type;
    if (emb == NULL || !emb_given(env, samples)) {
        return 0;
    }
    if (!emb_fits((*env)->GetArrayLength(env, samples), at, frames)) {
        emb_beyond(env, "The frames do not lie within the array.");
        return 0;
    }
    /* Critical: emb_push copies and returns, without blocking and without a call of the virtual machine. */
    values = (*env)->GetPrimitiveArrayCritical(env, samples, NULL);
    if (values == NULL) {
        return 0; /* OutOfMemoryError is thrown */
    }
    taken = emb_push(emb, values + at, (size_t)frames);
    (*env)->ReleasePrimitiveArrayCritical(env, samples, values, JNI_ABORT);
    return (jint)taken;
}

jint emb_jni_push_direct(JNIEnv *env, jclass type, jlong handle, jobject samples, jint at, jint frames)
{
    emb_t *emb = emb_of(env, handle);
    const uint8_t *memory = emb == NULL ? NULL : emb_direct(env, samples, 0);
    const jlong size = (jlong)sizeof(emb_sample_t);
    (void)type;
    if (memory == NULL) {
        return 0;
    }
    if (at < 0 || (intptr_t)(memory + at) % size != 0) {
        emb_wrong(env, "The samples do not begin at a multiple of their size.");
        return 0;
    }
    if (!emb_fits(((*env)->GetDirectBufferCapacity(env, samples) - at) / size, 0, frames)) {
        emb_beyond(env, "The frames do not lie within the buffer.");
        return 0;
    }
    return (jint)emb_push(emb, (const emb_sample_t *)(const void *)(memory + at), (size_t)frames);
}

jboolean emb_jni_poll(JNIEnv *env, jclass type, jlong handle, jintArray whole, jfloatArray real)
{
    emb_t *emb = emb_of(env, handle);
    emb_decision_t decision;
    (void)type;
    if (emb == NULL || !emb_has_room(env, whole, real) || !emb_poll(emb, &decision)) {
        return JNI_FALSE;
    }
    emb_store(env, &decision, whole, real);
    return JNI_TRUE;
}

jboolean emb_jni_window(JNIEnv *env, jclass type, jlong handle, jobject input)
{
    emb_t *emb = emb_of(env, handle);
    int8_t *memory = emb == NULL ? NULL : emb_direct(env, input, EMB_WINDOW_BYTES);
    (void)type;
    return memory != NULL && emb_window(emb, memory) ? JNI_TRUE : JNI_FALSE;
}

void emb_jni_decide(JNIEnv *env, jclass type, jlong handle, jobject output, jintArray whole, jfloatArray real)
{
    emb_t *emb = emb_of(env, handle);
    const int8_t *memory = emb == NULL ? NULL : emb_direct(env, output, EMB_EMBEDDING);
    emb_decision_t decision;
    (void)type;
    if (memory != NULL && emb_has_room(env, whole, real)) {
        emb_decide_on(emb, memory, &decision);
        emb_store(env, &decision, whole, real);
    }
}

#define EMB_METHOD(name, signature, function) {(char *)(name), (char *)(signature), (void *)(function)}

JNIEXPORT jint JNI_OnLoad(JavaVM *vm, void *reserved)
{
    const JNINativeMethod methods[] = {
        EMB_METHOD("sizes", "()[I", emb_jni_sizes),
        EMB_METHOD("label", "(I)[B", emb_jni_label),
        EMB_METHOD("modelSha256", "()[B", emb_jni_model_sha256),
        EMB_METHOD("selfTest", "()I", emb_jni_self_test),
        EMB_METHOD("create", "()J", emb_jni_create),
        EMB_METHOD("destroy", "(J)V", emb_jni_destroy),
        EMB_METHOD("interrupt", "(J)V", emb_jni_interrupt),
        EMB_METHOD("lost", "(J)I", emb_jni_lost),
        EMB_METHOD("push", "(J" EMB_JSAMPLES "II)I", emb_jni_push),
        EMB_METHOD("pushDirect", "(JLjava/nio/ByteBuffer;II)I", emb_jni_push_direct),
        EMB_METHOD("poll", "(J[I[F)Z", emb_jni_poll),
        EMB_METHOD("window", "(JLjava/nio/ByteBuffer;)Z", emb_jni_window),
        EMB_METHOD("decide", "(JLjava/nio/ByteBuffer;[I[F)V", emb_jni_decide),
    };
    JNIEnv *env = NULL;
    jclass type;
    (void)reserved;
    if ((*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_1_6) != JNI_OK) {
        return JNI_ERR;
    }
    type = (*env)->FindClass(env, EMB_JNI_CLASS);
    if (type == NULL || (*env)->RegisterNatives(env, type, methods, sizeof methods / sizeof methods[0]) != JNI_OK) {
        return JNI_ERR;
    }
    return JNI_VERSION_1_6;
}
