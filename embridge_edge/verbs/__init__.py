"""One module per verb: one public function, which is the product, and one click command, which parses and prints.

Only this layer knows every folder. A verb imports heavy libraries inside its function.
"""
