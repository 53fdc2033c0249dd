"""The rig's server, run by the rig's own Python: ``python -m rig_server folder``. See :mod:`oc_residual_gym.real.rig`.

It serves franka-sim's robot and hand on one loopback address, publishes the true state and object poses with tracker
errors, and accepts fault commands. It reads ``settings.json`` in ``folder``, and writes ``ready.json`` there once it
answers. It imports only the standard library, NumPy, MuJoCo, ZeroMQ and franka-sim, and nothing from this package.
"""
