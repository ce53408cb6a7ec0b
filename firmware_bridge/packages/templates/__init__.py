"""Texts of the packages' files. `@word@` stands for what `rendering.filled` is given."""
