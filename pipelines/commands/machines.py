"""What this machine does for others' runs, and whether it can."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from pipelines.commands.shared import FAILED, OK, workspace_option


def add(commands: Any) -> None:
    """Adds `workers`, `train-worker` and `doctor`."""
    command = commands.add_parser("workers", help="a pool of Beam workers, for beam.environment=EXTERNAL")
    command.add_argument("--port", metavar="N", type=int, default=50000, help="default: 50000")
    command.set_defaults(command=_workers)

    command = commands.add_parser("train-worker", help="take part in a training with training.strategy=multi_worker, "
                                  "as the process that TF_CONFIG says")
    command.add_argument("--wait-minutes", metavar="N", type=float, default=1440,
                         help="for the run to come to its training (default: 1440, a day)")
    command.set_defaults(command=_train_worker)

    command = commands.add_parser("doctor", parents=[workspace_option()],
                                  help="what is installed, what is missing, and the fix")
    command.set_defaults(command=_doctor)


def _workers(options: argparse.Namespace) -> int:
    # Beam's pool starts its workers as plain `python`: that must be ours, and find this project from any folder.
    paths = {"PATH": os.path.dirname(sys.executable), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for name, first in paths.items():
        os.environ[name] = os.pathsep.join(filter(None, (first, os.environ.get(name))))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print(f"a pool of workers on port {options.port}; Ctrl-C ends it", flush=True)
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "apache_beam.runners.worker.worker_pool_main",
                              f"--service_port={options.port}"])


def _train_worker(options: argparse.Namespace) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from components.code_fingerprint import project_fingerprint
    from modules import train_worker

    train_worker.take_part(project_fingerprint(), options.wait_minutes * 60)
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from pipelines import doctor, workspace

    findings = doctor.examine(workspace.root(options.workspace))
    for finding in findings:
        print(finding)
    return FAILED if any(finding.state == "missing" for finding in findings) else OK
