"""The real FR3 cell: arm process, hand, object tracking, checks, blind trials, and rehearsal without a robot."""
