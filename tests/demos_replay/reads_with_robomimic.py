"""Script for the environment of the ``robomimic`` package: read a file, and train BC on it for one step.

python reads_with_robomimic.py FILE OUT.npz
"""

import sys

import numpy as np
import torch
from robomimic.algo import algo_factory
from robomimic.config import config_factory
from robomimic.utils import file_utils, obs_utils
from robomimic.utils.dataset import SequenceDataset

LOW_DIM = ["robot0_eef_pos", "robot0_eef_rot_6d", "robot0_gripper_opening", "object"]
RGB = ["shoulder_image", "wrist_image"]


def main(path: str, out: str) -> None:
    config = config_factory("bc")
    with config.values_unlocked():
        config.observation.modalities.obs.low_dim = LOW_DIM
        config.observation.modalities.obs.rgb = RGB
    obs_utils.initialize_obs_utils_with_config(config)
    environment = file_utils.get_env_metadata_from_dataset(path)
    shapes = file_utils.get_shape_metadata_from_dataset(path, all_obs_keys=[*LOW_DIM, *RGB])
    dataset = SequenceDataset(
        path,
        obs_keys=[*LOW_DIM, *RGB],
        dataset_keys=["actions", "rewards", "dones"],
        seq_length=3,
        hdf5_cache_mode="low_dim",
        filter_by_attribute="train",
        load_next_obs=True,
    )
    whole = dataset.get_trajectory_at_index(0)
    result = {f"{kind}/{name}": whole[kind][name] for kind in ("obs", "next_obs") for name in whole[kind]}
    result |= {name: whole[name] for name in ("actions", "rewards", "dones")}
    result["demos"] = np.array(dataset.demos)
    result["env_name"] = np.array(environment["env_name"])
    algorithm = algo_factory("bc", config, shapes["all_shapes"], shapes["ac_dim"], torch.device("cpu"))
    algorithm.set_train()
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=2)))
    batch = algorithm.postprocess_batch_for_training(algorithm.process_batch_for_training(batch), None)
    result["loss"] = np.array(float(algorithm.train_on_batch(batch, epoch=0)["losses"]["action_loss"]))
    np.savez(out, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
