package org.embridge.edge;

import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.Semaphore;

/**
 * Drives the native methods as EmbDecoder.kt does. Arguments: "array", "direct" or "threads" print the decisions of the
 * samples on standard input; "litert" takes the network's outputs from a file and prints windows as well; "misuse" expects
 * an exception of everything that is wrong.
 */
final class Driver {
    static final int[] SIZES = EmbNative.sizes();
    static final int CHANNELS = SIZES[1], HOP = SIZES[3], WINDOW_BYTES = SIZES[5], EMBEDDING = SIZES[6], SCORES = SIZES[7];
    static final DataOutputStream OUT = new DataOutputStream(new java.io.BufferedOutputStream(System.out, 1 << 16));

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "misuse" -> misuse();
            case "litert" -> litert(samples(), java.nio.file.Files.readAllBytes(java.nio.file.Path.of(arguments[1])));
            case "threads" -> threads(samples());
            default -> decide(samples(), arguments[0].equals("direct"));
        }
        OUT.flush();
    }

    static short[] samples() throws IOException {
        ByteBuffer bytes = ByteBuffer.wrap(System.in.readAllBytes()).order(ByteOrder.LITTLE_ENDIAN);
        short[] found = new short[bytes.remaining() / 2];
        bytes.asShortBuffer().get(found);
        return found;
    }

    static void say(int[] whole, float[] real) throws IOException {
        for (int number : whole) {
            OUT.writeInt(number);
        }
        for (float value : real) {
            OUT.writeFloat(value);
        }
    }

    /** Pieces of every length up to a hop; two streams at once, the second one of the negated samples, unheard. */
    static void decide(short[] samples, boolean direct) throws IOException {
        long handle = EmbNative.create(), other = EmbNative.create();
        int[] whole = new int[3];
        float[] real = new float[2 + SCORES];
        short[] negative = samples.clone();
        for (int i = 0; i < negative.length; i++) {
            negative[i] = (short) -negative[i];
        }
        ByteBuffer buffer = ByteBuffer.allocateDirect(2 * samples.length).order(ByteOrder.LITTLE_ENDIAN);
        buffer.asShortBuffer().put(samples);
        int frames = samples.length / CHANNELS, size = 1;
        for (int at = 0, some; at < frames; at += some, size = size % HOP + 1) {
            some = Math.min(size, frames - at);
            int taken = direct
                    ? EmbNative.pushDirect(handle, buffer, 2 * at * CHANNELS, some)
                    : EmbNative.push(handle, samples, at * CHANNELS, some);
            require(taken == some && EmbNative.push(other, negative, at * CHANNELS, some) == some, "frames were lost");
            while (EmbNative.poll(handle, whole, real)) {
                say(whole, real);
            }
            while (EmbNative.poll(other, whole, real)) { }
        }
        require(EmbNative.lost(handle) == 0, "frames were lost");
        EmbNative.destroy(handle);
        EmbNative.destroy(other);
    }

    static void litert(short[] samples, byte[] outputs) throws IOException {
        long handle = EmbNative.create();
        int[] whole = new int[3];
        float[] real = new float[2 + SCORES];
        ByteBuffer input = ByteBuffer.allocateDirect(WINDOW_BYTES), output = ByteBuffer.allocateDirect(EMBEDDING);
        byte[] window = new byte[WINDOW_BYTES];
        int frames = samples.length / CHANNELS, found = 0;
        for (int at = 0; at + HOP <= frames; at += HOP) {
            EmbNative.push(handle, samples, at * CHANNELS, HOP);
            while (EmbNative.window(handle, input)) {
                input.duplicate().get(window);
                OUT.write(window);
                output.clear();
                output.put(outputs, found++ * EMBEDDING, EMBEDDING);
                EmbNative.decide(handle, output, whole, real);
                say(whole, real);
            }
        }
        EmbNative.destroy(handle);
    }

    /** Hops that were given to the ring; written by the producer. */
    static volatile int pushed;

    /** One thread pushes as long as there is room for a hop, while another polls. */
    static void threads(short[] samples) throws Exception {
        long handle = EmbNative.create();
        int hops = samples.length / CHANNELS / HOP;
        Semaphore room = new Semaphore(SIZES[4] / HOP);
        Thread producer = new Thread(() -> {
            for (int hop = 0; hop < hops; hop++) {
                room.acquireUninterruptibly();
                EmbNative.push(handle, samples, hop * HOP * CHANNELS, HOP);
                pushed = hop + 1;
            }
        });
        producer.start();
        int[] whole = new int[3];
        float[] real = new float[2 + SCORES];
        for (int taken = 0; taken < hops;) {
            int given = pushed;
            while (EmbNative.poll(handle, whole, real)) {
                say(whole, real);
            }
            room.release(given - taken); // a poll without a decision has emptied the ring
            taken = given;
            Thread.yield();
        }
        producer.join();
        require(EmbNative.lost(handle) == 0, "frames were lost");
        EmbNative.destroy(handle);
    }

    interface Call {
        void run();
    }

    static void expect(Class<? extends Throwable> kind, String what, Call call) {
        try {
            call.run();
        } catch (Throwable thrown) {
            require(thrown.getClass() == kind, what + " threw " + thrown);
            return;
        }
        throw new AssertionError(what + " threw nothing");
    }

    static void misuse() throws IOException {
        long handle = EmbNative.create();
        Class<? extends Throwable> closed = IllegalStateException.class, wrong = IllegalArgumentException.class;
        Class<? extends Throwable> beyond = ArrayIndexOutOfBoundsException.class, missing = NullPointerException.class;
        short[] two = new short[2 * CHANNELS];
        int[] whole = new int[3];
        float[] real = new float[2 + SCORES];
        ByteBuffer heap = ByteBuffer.allocate(4096), direct = ByteBuffer.allocateDirect(4 * CHANNELS);
        ByteBuffer large = ByteBuffer.allocateDirect(Math.max(WINDOW_BYTES, EMBEDDING));

        expect(closed, "push on 0", () -> EmbNative.push(0, two, 0, 1));
        expect(closed, "pushDirect on 0", () -> EmbNative.pushDirect(0, direct, 0, 1));
        expect(closed, "poll on 0", () -> EmbNative.poll(0, whole, real));
        expect(closed, "window on 0", () -> EmbNative.window(0, large));
        expect(closed, "decide on 0", () -> EmbNative.decide(0, large, whole, real));
        expect(closed, "interrupt on 0", () -> EmbNative.interrupt(0));
        expect(closed, "lost on 0", () -> EmbNative.lost(0));
        EmbNative.destroy(0);

        expect(missing, "push of null", () -> EmbNative.push(handle, null, 0, 1));
        expect(beyond, "push of too many", () -> EmbNative.push(handle, two, 0, 3));
        expect(beyond, "push behind the end", () -> EmbNative.push(handle, two, 1, 2));
        expect(beyond, "push before the beginning", () -> EmbNative.push(handle, two, -1, 1));
        expect(beyond, "push of a negative number", () -> EmbNative.push(handle, two, 0, -1));
        expect(beyond, "push of 2^31 numbers", () -> EmbNative.push(handle, two, 0, Integer.MAX_VALUE));

        expect(missing, "pushDirect of null", () -> EmbNative.pushDirect(handle, null, 0, 1));
        expect(wrong, "pushDirect from the heap", () -> EmbNative.pushDirect(handle, heap, 0, 1));
        expect(wrong, "pushDirect from an odd place", () -> EmbNative.pushDirect(handle, direct, 1, 1));
        expect(wrong, "pushDirect before the beginning", () -> EmbNative.pushDirect(handle, direct, -2, 1));
        expect(beyond, "pushDirect of too many", () -> EmbNative.pushDirect(handle, direct, 0, 3));
        expect(beyond, "pushDirect behind the end", () -> EmbNative.pushDirect(handle, direct, 2, 2));
        expect(beyond, "pushDirect far behind", () -> EmbNative.pushDirect(handle, direct, 1 << 20, 1));

        expect(missing, "poll without arrays", () -> EmbNative.poll(handle, null, real));
        expect(beyond, "poll with a short array", () -> EmbNative.poll(handle, whole, new float[SCORES]));
        expect(wrong, "window into the heap", () -> EmbNative.window(handle, heap));
        expect(beyond, "window into too little", () -> EmbNative.window(handle, ByteBuffer.allocateDirect(WINDOW_BYTES - 1)));
        expect(beyond, "decide on too little", () -> EmbNative.decide(handle, ByteBuffer.allocateDirect(EMBEDDING - 1), whole, real));
        expect(beyond, "a label below 0", () -> EmbNative.label(-1));
        expect(beyond, "a label too many", () -> EmbNative.label(SCORES));

        // Nothing of that has changed the stream, and an empty one has no decision.
        require(EmbNative.lost(handle) == 0 && !EmbNative.poll(handle, whole, real), "a refused call left something");
        int fits = SIZES[4], more = fits + 5;
        require(EmbNative.push(handle, new short[more * CHANNELS], 0, more) == fits, "the ring took another number of frames");
        require(EmbNative.lost(handle) == 5, "5 frames are lost");
        EmbNative.interrupt(handle);
        EmbNative.destroy(handle);

        require(EmbNative.selfTest() == 0, "the self-test fails");
        for (int label = 0; label < SCORES; label++) {
            OUT.write(new String(EmbNative.label(label), StandardCharsets.UTF_8).getBytes(StandardCharsets.UTF_8));
            OUT.write('\n');
        }
        StringBuilder digest = new StringBuilder();
        for (byte value : EmbNative.modelSha256()) {
            digest.append(String.format("%02x", value));
        }
        OUT.write(digest.toString().getBytes(StandardCharsets.US_ASCII));
    }

    static void require(boolean fact, String what) {
        if (!fact) {
            throw new AssertionError(what + "; sizes " + Arrays.toString(SIZES));
        }
    }
}
