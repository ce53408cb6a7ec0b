package org.embridge.edge.sample

import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.embridge.edge.EmbDecoder
import org.tensorflow.lite.Interpreter

/**
 * Decisions where LiteRT computes the network and the C library the chain and the head. The windows have the bytes that
 * the C library gives its own network; the embedding is the one of LiteRT's kernels (XNNPACK), which may round a sum the
 * other way.
 *
 * @param model the library's asset EmbDecoder.MODEL_ASSET, mapped or read into a direct buffer.
 */
class LiteRtDecisions(model: ByteBuffer, private val decoder: EmbDecoder) : AutoCloseable {
    private val interpreter = Interpreter(model)
    private val input = ByteBuffer.allocateDirect(EmbDecoder.windowBytes).order(ByteOrder.nativeOrder())
    private val output = ByteBuffer.allocateDirect(EmbDecoder.embedding).order(ByteOrder.nativeOrder())

    /** The next decision of what was pushed into the decoder, or null. */
    fun poll(): EmbDecoder.Decision? {
        if (!decoder.window(input)) return null
        input.rewind()
        output.rewind()
        interpreter.run(input, output)
        return decoder.decide(output)
    }

    override fun close() = interpreter.close()
}
