"""Reconstructions: repair of the weights that stay. One for each file, found by itself.

Each takes the (out, in) weights of layers that read the same input, the Hessian of that input if
it needs one, the pattern, the layers' cuts and their masks (True keeps; None where the repair
chooses itself), and returns new weights, masks and whether damping had to be raised.
"""
