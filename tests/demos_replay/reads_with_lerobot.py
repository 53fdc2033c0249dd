"""Script for the environment of the ``lerobot`` package: read a dataset, and train ACT on it for one step.

python reads_with_lerobot.py DATASET OUT.npz
"""

import sys

import numpy as np
import torch
from lerobot.configs.types import FeatureType
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import dataset_to_policy_features
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy

CHUNK = 4
NUMBERS = ("observation.state", "action", "timestamp", "episode_index", "index", "next.reward", "next.done")


def main(root: str, out: str) -> None:
    dataset = LeRobotDataset("test/demos", root=root, video_backend="pyav")
    rows = [dataset[i] for i in range(len(dataset))]
    result = {name: np.stack([row[name].numpy() for row in rows]) for name in (*NUMBERS, *dataset.meta.camera_keys)}
    result["task"] = np.array([row["task"] for row in rows])
    result["mean"] = np.asarray(dataset.meta.stats["action"]["mean"])
    result["loss"] = np.array(loss_of_a_training_step(root))
    np.savez(out, **result)


def loss_of_a_training_step(root: str) -> float:
    times = {"action": [i / 20 for i in range(CHUNK)]}
    dataset = LeRobotDataset("test/demos", root=root, video_backend="pyav", delta_timestamps=times)
    features = dataset_to_policy_features(dataset.features)
    actions = {name: feature for name, feature in features.items() if feature.type is FeatureType.ACTION}
    config = ACTConfig(
        input_features={name: feature for name, feature in features.items() if name not in actions},
        output_features=actions,
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        pretrained_backbone_weights=None,
        device="cpu",
    )
    policy = ACTPolicy(config, dataset_stats=dataset.meta.stats)
    loss, _ = policy(next(iter(torch.utils.data.DataLoader(dataset, batch_size=4))))
    loss.backward()
    return float(loss)


if __name__ == "__main__":
    main(*sys.argv[1:])
