"""The recipes that are shipped, one TOML file each; `embridge_edge.recipe` reads them."""
