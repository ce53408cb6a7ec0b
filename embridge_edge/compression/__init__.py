"""Making a student smaller before it leaves torch: `sizing` picks one for a budget, `pruning` cuts what it needs least, `folding` takes
its norms in, `equalising` evens out its channels; `observers` make ranges of values.
"""
