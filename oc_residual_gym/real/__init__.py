"""The real FR3 cell: arm process, hand, pose sources' cell, checks, trials and their rehearsal without a robot."""
