"""The C sources of the signal chain, as they are written into a library."""
