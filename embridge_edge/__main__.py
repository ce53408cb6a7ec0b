"""`python -m embridge_edge` is `embridge-edge`."""

from embridge_edge.cli import main

main()
