"""A forearm and an armband that make EMG from hand poses: torque, activation, motor units, skin, electrodes, sensor.

One file per step of the way a signal really goes: `protocol` (what the hand does), `anatomy` (whose forearm),
`activation` (which muscles that takes), `motor_units` (when their motor units fire), `action_potentials` (what a
firing looks like under an electrode), `armband` (the band and its electronics), `session` (all of it).
`docs/simulator.md` says where the numbers come from and where the signals differ from real ones.
"""
