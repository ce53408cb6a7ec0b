"""From recordings to a trained model and to the numbers that judge it.

`windows` cuts recordings into the one value that everything here works on, `splits` says which windows train and which
test, `pretrain`, `align` and `distill` train, `loop` runs and resumes a training, `evaluate` scores, `baselines` holds
LDA and ridge. Nothing here writes an artifact.
"""
