"""The networks: EMG tower, pose tower and Q-Former make the teacher; a device runs one of the `students`.

`head` is the small table that turns an embedding into a gesture, `checkpoint` the folder that a network is kept in.
"""
