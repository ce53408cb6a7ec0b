"""embridge-edge carries an EMG gesture model from a trained checkpoint to an armband or a phone.

The verbs of the command line are plain functions in `embridge_edge.api`.
"""

__version__ = "0.1.1"
