"""From a task's success condition and milestones to rewards and the ends of episodes."""

from __future__ import annotations

from oc_residual_gym.compiled import njit
from oc_residual_gym.states import Array, BoolArray, IntArray
from oc_residual_gym.tasks.base import REACHED, SUCCESS_STEPS


@njit(
    "void(int64[:],boolean[:],float64[:,:],float64[:],boolean[:],boolean[:],int64[:],int64,boolean,int64[:],float64[:,:],"
    "float64[:],float64[:,:],boolean[:],boolean[:],int64[:])"
)
def judge(
    worlds: IntArray,
    done_now: BoolArray,
    milestones: Array,
    weights: Array,
    stopped: BoolArray,
    base_failed: BoolArray,
    steps: IntArray,
    max_steps: int,
    sparse: bool,
    held: IntArray,
    best: Array,
    reward: Array,
    terms: Array,
    success: BoolArray,
    truncated: BoolArray,
    missed: IntArray,
) -> None:
    """Judge a control step of ``worlds``.

    Args:
        worlds: which were stepped.
        done_now: (N,) does the success condition hold?
        milestones: (T, N) in [0, 1].
        weights: (T,) shares of the milestones in the dense reward.
        stopped: (N,) can the world not go on?
        base_failed: (N,) has the base policy no target for the coming step?
        steps: (N,) control steps in the episode.
        max_steps: time limit in control steps, 0 for none.
        sparse: reward -1 until success, instead of progress - 1 until the success condition holds.
        held: (N,) control steps for which the condition has held without a break; updated.
        best: (T, N) best value of each milestone in the episode; updated.
        reward, success, truncated: (N,) written.
        terms: (T, N) weighted milestones, written for all worlds.
        missed: (N,) written: the first milestone whose best value is below ``REACHED``, T if there is none.
    """
    for n in range(len(done_now)):
        for t in range(len(weights)):
            terms[t, n] = weights[t] * milestones[t, n]
    for n in worlds:
        held[n] = held[n] + 1 if done_now[n] and not stopped[n] else 0
        success[n] = held[n] >= SUCCESS_STEPS
        progress = 0.0
        for t in range(len(weights)):
            best[t, n] = max(best[t, n], milestones[t, n])
            progress += terms[t, n]
        if sparse:
            reward[n] = 0.0 if success[n] else -1.0
        else:
            reward[n] = 0.0 if done_now[n] else progress - 1.0
        # As with Gymnasium's TimeLimit, success in the very last step is both.
        late = max_steps > 0 and steps[n] >= max_steps
        truncated[n] = late or stopped[n] or (base_failed[n] and not success[n])
        missed[n] = 0
        while missed[n] < len(weights) and best[missed[n], n] >= REACHED:
            missed[n] += 1
