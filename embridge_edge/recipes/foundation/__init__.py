"""The foundation recipes that are shipped, one TOML file each; `embridge_edge.learning.foundation_recipe` reads them."""
