"""Which packages and which machine a step ran with, in words that a person reads."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import tensorflow as tf

from modules.hardware import cpu_model

PACKAGES = ("textrail", "tfx", "tensorflow", "tensorflow-text", "keras", "tensorflow-transform",
            "tensorflow-model-analysis", "apache-beam", "ml-metadata", "numpy")


def versions() -> dict[str, str]:
    """Package → version, Python among them; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """For example "Linux x86_64, Intel(R) Xeon(R) Processor, 2 cores"; graphics processors are named, too."""
    accelerators = [tf.config.experimental.get_device_details(one).get("device_name", one.name)
                    for one in tf.config.list_physical_devices("GPU")]
    return ", ".join([f"{platform.system()} {platform.machine()}", cpu_model(), f"{os.cpu_count()} cores",
                      *accelerators])
