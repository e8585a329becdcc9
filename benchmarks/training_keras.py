"""Keras's side of ``benchmarks.training``: run by a Python that has Keras 3 and TensorFlow.

The network and its training are those of the published comparison; one process warms up, waits, and trains.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

BATCH, CLASSES = 250, 10


def network() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.5),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(CLASSES, activation="softmax", dtype="float32"),
        ]
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy")
    return model


def trained(images: int, epochs: int) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (images, 32, 32, 3)).astype("float32") / 255
    y = np.eye(CLASSES, dtype="float32")[generator.integers(0, CLASSES, images)]
    model = network()
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
    print("ready", flush=True)
    sys.stdin.readline()
    started, used = time.perf_counter(), time.process_time()
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    print(time.perf_counter() - started, time.process_time() - used, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", choices=["float32", "bfloat16"])
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--versions", action="store_true")
    options = parser.parse_args()
    if options.versions:
        print(json.dumps({"keras": keras.__version__, "tensorflow": tf.__version__}))
        return
    for set_threads, name in (
        (tf.config.threading.set_intra_op_parallelism_threads, "TF_NUM_INTRAOP_THREADS"),
        (tf.config.threading.set_inter_op_parallelism_threads, "TF_NUM_INTEROP_THREADS"),
    ):
        set_threads(int(os.environ[name]))
    if options.work == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    trained(options.images, options.epochs)


if __name__ == "__main__":
    main()
