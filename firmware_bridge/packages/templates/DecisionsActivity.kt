package org.embridge.edge.sample

import android.app.Activity
import android.os.Bundle
import android.widget.TextView
import java.io.DataInputStream
import java.io.EOFException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit
import org.embridge.edge.EmbDecoder

/**
 * Plays a recording from the application's assets, `samples.raw`, at its own rate, and shows decisions. The file holds
 * frames of little-endian integers, as the converter gives them: whole numbers of EmbDecoder.sampleBytes bytes,
 * EmbDecoder.frameChannels in a frame. An application with a band pushes what Bluetooth brings instead.
 */
class DecisionsActivity : Activity() {
    // One thread pushes, one polls. shutdown lets a running task end, and close waits for it.
    private val source = Executors.newSingleThreadScheduledExecutor()
    private val decisions = Executors.newSingleThreadScheduledExecutor()
    private lateinit var decoder: EmbDecoder
    private lateinit var recording: DataInputStream

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        val shown = TextView(this).also { setContentView(it) }
        decoder = EmbDecoder()
        val hopNs = (1e9 * EmbDecoder.hopFrames / EmbDecoder.RATE_HZ).toLong()

        val hop = ByteArray(EmbDecoder.hopFrames * EmbDecoder.frameChannels * EmbDecoder.sampleBytes)
        val direct = ByteBuffer.allocateDirect(hop.size).order(ByteOrder.LITTLE_ENDIAN)
        recording = DataInputStream(assets.open("samples.raw").buffered())
        source.scheduleAtFixedRate({
            try {
                recording.readFully(hop)
                direct.clear()
                direct.put(hop)
                direct.flip()
                decoder.push(direct)
            } catch (end: EOFException) {
                source.shutdown()
            }
        }, 0, hopNs, TimeUnit.NANOSECONDS)

        decisions.scheduleWithFixedDelay({
            while (true) {
                val decision = decoder.poll() ?: break
                val text = "${decision.label ?: decision.scores.joinToString()}  ${decision.margin}"
                runOnUiThread { shown.text = text }
            }
        }, 0, hopNs, TimeUnit.NANOSECONDS)
    }

    override fun onDestroy() {
        // A task that comes after close would throw; its executor is shut down, and drops the exception.
        source.shutdownNow()
        decisions.shutdownNow()
        decoder.close()
        recording.close()
        super.onDestroy()
    }
}
