"""Small servers that speak the protocols of openpi and GR00T, to be run as processes of their own.

    python vla_servers.py PROTOCOL PORT ANSWERS [RECORD]

PROTOCOL is "openpi", "gr00t" (N1.6 and later) or "gr00t-n1.5". ANSWERS, separated by commas, are given to successive
inferences, the last one for ever; the very first is asked for when an environment is made. RECORD is a file for the
last request's bytes. The line "ready PORT" says that the server listens.
"""

import io
import json
import sys
import time
from pathlib import Path

import msgpack
import numpy as np

HORIZON = 16
STATE = {
    "eef_position": (0, 3),
    "eef_rotation_6d": (3, 9),
    "eef_quaternion": (9, 13),
    "joint_position": (13, 20),
    "gripper_position": (20, 21),
}


LOUD = "\x1b[2J\x1b[31mall is lost\x1b]0;owned\x07\x00\x08 " + "very " * 10_000


def claiming(count):
    """The bytes of an array that has ``count`` numbers, if one believes its header."""
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, {"descr": "<f8", "fortran_order": False, "shape": (count,)})
    return data.getvalue() + bytes(64)


def targets(state, answer):
    """(H, 21): 1 mm further up with each step, tool as it is, gripper open; or what ``answer`` says is wrong."""
    steps = {"short": 4, "long": 300}.get(answer, HORIZON)
    rows = np.repeat(state[None].astype(np.float64), steps, axis=0)
    rows[:, 2] += 0.001 * np.arange(1, steps + 1)
    rows[:, 20] = 1.0
    if answer == "nan":
        rows[3, 1] = np.nan
    if answer == "velocities":
        rows[:, 3:13] *= 0.1
    if answer == "wxyz":
        rows[:, 9:13] = rows[:, [12, 9, 10, 11]]
    if answer == "millimetres":
        rows[:, :3] *= 1000.0
    if answer == "joints":
        rows[:, :3], rows[:, 9:13] = rows[:, 13:16], rows[:, 16:20]
    if answer == "signed":
        rows[:, 20] = -1.0
    if answer == "inverted":
        rows[:, 20] = 0.0
    if answer == "width":
        rows[:, 20] = 0.08
    return rows.astype(np.float32)


def actions_of(rows, answer):
    """The columns that a model for openpi returns."""
    if answer == "all":
        return rows
    if answer == "rows":
        return np.concatenate([rows[:, :9], rows[:, 20:]], axis=1)
    if answer in ("wide", "narrow"):
        return np.zeros((len(rows), {"wide": 32, "narrow": 7}[answer]), np.float32)
    return np.concatenate([rows[:, :3], rows[:, 9:13], rows[:, 20:]], axis=1)


def serve_openpi(port, answer_of, record):
    from openpi_client import msgpack_numpy
    from websockets.sync.server import serve

    def talk(websocket):
        websocket.send(msgpack_numpy.packb({"served by": "a test"}))
        for message in websocket:
            record(message)
            observation = msgpack_numpy.unpackb(message)
            answer = answer_of()
            if answer == "hang":
                time.sleep(60)
            if answer == "error":
                websocket.send("Traceback (most recent call last):\n  ...\nRuntimeError: out of GPU memory")
                websocket.close(1011)
                return
            if answer == "loud":
                websocket.send(LOUD)
            elif answer == "garbage":
                websocket.send(b"\xc1\xff\x00garbage")
            elif answer == "objects":
                array = {b"__ndarray__": True, b"data": bytes(128), b"dtype": "|O", b"shape": (2, 8)}
                websocket.send(msgpack.packb({"actions": array}))
            else:
                actions = actions_of(targets(observation["observation/state"], answer), answer)
                websocket.send(msgpack_numpy.packb({"actions": actions, "server_timing": {"infer_ms": 1.0}}))

    with serve(talk, "127.0.0.1", port, compression=None, max_size=None) as server:
        print("ready", server.socket.getsockname()[1], flush=True)
        server.serve_forever()


def pack(reply):
    def encode(value):
        data = io.BytesIO()
        np.save(data, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": data.getvalue()}

    return msgpack.packb(reply, default=encode)


def unpack(message):
    return msgpack.unpackb(
        message, object_hook=lambda v: np.load(io.BytesIO(v["as_npy"])) if "__ndarray_class__" in v else v
    )


def modality_config(old, answer):
    prefix = (lambda name: f"{name}.") if old else (lambda name: "")
    keys = {"video": ["shoulder", "wrist"], "state": list(STATE), "action": ["eef_9d", "gripper_position"]}
    if answer == "stranger":
        keys["video"] = ["ego_view"]
    config = {
        name: {"delta_indices": [0], "modality_keys": [prefix(name) + key for key in members]}
        for name, members in keys.items()
    }
    config["action"]["delta_indices"] = list(range(HORIZON))
    config["language"] = {"delta_indices": [0], "modality_keys": ["annotation.human.task_description"]}
    if answer == "history":
        config["video"]["delta_indices"] = [-15, 0]
    return {
        name: {"__ModalityConfig_class__": True, "as_json": json.dumps(value) if old else value}
        for name, value in config.items()
    }


def gr00t_actions(data, old, answer):
    """What a policy returns for the data of ``get_action``; strict about shapes and types, as GR00T is."""
    if old:
        state = {key.removeprefix("state."): value[None] for key, value in data.items() if key.startswith("state.")}
        video = [value[None] for key, value in data.items() if key.startswith("video.")]
        assert len(data["annotation.human.task_description"]) == 1
    else:
        observation = data["observation"]
        state, video = observation["state"], list(observation["video"].values())
        assert all(len(item) == 1 for item in observation["language"]["annotation.human.task_description"])
    assert all(image.ndim == 5 and image.shape[1] == 1 and image.dtype == np.uint8 for image in video)
    assert all(value.ndim == 3 and value.shape[1] == 1 and value.dtype == np.float32 for value in state.values())
    rows = np.concatenate([state[key][:, 0] for key in STATE], axis=-1)
    if answer == "narrow":
        return {"single_arm": np.zeros((len(rows), HORIZON, 7), np.float32)}
    chunks = np.stack([targets(row, answer) for row in rows])
    parts = {"gripper_position": chunks[..., 20:]}
    if answer == "rows":
        parts |= {"eef_position": chunks[..., :3], "eef_rotation_6d": chunks[..., 3:9]}
    elif answer == "quaternion":
        parts |= {"eef_position": chunks[..., :3], "eef_quaternion": chunks[..., 9:13]}
    else:
        parts |= {"eef_9d": chunks if answer == "wide" else chunks[..., :9]}
    return {f"action.{key}": np.squeeze(value) for key, value in parts.items()} if old else parts


def serve_gr00t(port, answer_of, record, old):
    import zmq

    socket = zmq.Context().socket(zmq.REP)
    socket.bind(f"tcp://127.0.0.1:{port or '*'}")
    print("ready", socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1], flush=True)
    while True:
        message = socket.recv()
        request = unpack(message)
        if request["endpoint"] == "get_modality_config":
            socket.send(pack(modality_config(old, answer_of(peek=True))))
            continue
        record(message)
        answer = answer_of()
        if answer == "hang":
            time.sleep(60)
        if answer == "token" and request.get("api_token") != "secret":
            socket.send(pack({"error": "Unauthorized: Invalid API token"}))
        elif answer == "error":
            socket.send(pack({"error": "RuntimeError: out of GPU memory"}))
        elif answer == "loud":
            socket.send(pack({"error": LOUD}))
        elif answer == "claims":
            array = {"__ndarray_class__": True, "as_npy": claiming(2**40)}
            socket.send(msgpack.packb([{"eef_9d": array, "gripper_position": array}, {}]))
        elif answer == "garbage":
            socket.send(b"\xc1\xff\x00garbage")
        elif answer == "objects":
            data = io.BytesIO()
            np.save(data, np.array([[{}]], dtype=object), allow_pickle=True)
            array = {"__ndarray_class__": True, "as_npy": data.getvalue()}
            socket.send(msgpack.packb([{"eef_9d": array, "gripper_position": array}, {}]))
        else:
            actions = gr00t_actions(request["data"], old, answer)
            socket.send(pack(actions if old else [actions, {}]))


def main(protocol, port, answers, record_file=None):
    left = answers.split(",")

    def answer_of(peek=False):
        return left[0] if peek or len(left) == 1 else left.pop(0)

    def record(message):
        if record_file:
            Path(record_file).write_bytes(message)

    if protocol == "openpi":
        serve_openpi(int(port), answer_of, record)
    else:
        serve_gr00t(int(port), answer_of, record, old=protocol == "gr00t-n1.5")


if __name__ == "__main__":
    main(*sys.argv[1:])
