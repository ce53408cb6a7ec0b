"""The signal chain: causal filters, windows, features and normalisation, the same offline and sample by sample.

`chain` holds the value that travels inside every artifact, `filters` designs and runs biquads, `time_domain` holds the
features, `stream` runs a chain on samples as they arrive. Nothing here knows of recordings or models.
"""
