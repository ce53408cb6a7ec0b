"""One TOML file per target. Only what a datasheet or a reference manual says; a current only where it is published."""
