"""The rig's server, run by the rig's own Python: ``python -m rig_server folder``. See :mod:`oc_residual_gym.real.rig`.

It serves franka-sim's robot and hand on one loopback address, publishes object poses with a tracker's errors and the
true state, and takes fault switches. ``folder`` holds ``settings.json`` and gets ``ready.json`` once all of it answers.
Imports only the standard library, NumPy, MuJoCo, ZeroMQ and franka-sim: nothing of the package around it.
"""
