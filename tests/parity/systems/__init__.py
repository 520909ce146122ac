"""How the recorded arrays of each official class are made with our parts.

A module names its classes in `SYSTEMS`, or, for steps of training, `TRAINING`;
`tests.parity.check` finds it by itself.
"""
