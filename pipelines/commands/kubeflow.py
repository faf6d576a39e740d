"""Runs on Kubeflow Pipelines: compiled, submitted, followed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from modules.errors import TextrailError
from pipelines.commands.shared import FAILED, OK, run_options, tell


def add(commands: Any) -> None:
    """Adds `kubeflow` with its commands."""
    command = commands.add_parser("kubeflow", help="the same runs on Kubeflow Pipelines")
    commands, run = command.add_subparsers(metavar="COMMAND", required=True), run_options()

    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--image", required=True, metavar="IMAGE", help="of kubeflow/Dockerfile, as the cluster pulls it")
    made.add_argument("--pipeline-root", metavar="URI", default="", help="where artifacts go: s3://…, minio://…, "
                      "gs://… or a folder of a volume (default: as the cluster is set up)")
    made.add_argument("--no-cache", action="store_true", help="every task runs although nothing changed")

    command = commands.add_parser("compile", parents=[run, made], help="write a run as YAML to upload")
    command.add_argument("--out", metavar="FILE", help="default: NAME.kubeflow.yaml")
    command.set_defaults(command=_compile)

    api = argparse.ArgumentParser(add_help=False)
    api.add_argument("--host", required=True, metavar="URL", help="Kubeflow Pipelines' API, e.g. "
                     "http://localhost:8888")
    api.add_argument("--namespace", metavar="NAME", default="", help="of a profile, on Kubeflow with several users")
    api.add_argument("--token", metavar="FILE", default="", help="file with a bearer token for the API")

    command = commands.add_parser("submit", parents=[run, made, api], help="compile a run and have a cluster run it")
    command.add_argument("--name", metavar="NAME", help="what Kubeflow calls it (default: as the run)")
    command.add_argument("--experiment", metavar="NAME", default="textrail", help="default: textrail")
    command.add_argument("--service-account", metavar="NAME", help="that pods run as")
    command.add_argument("--cron", metavar="EXPRESSION", default="", help="a recurring run, e.g. '0 0 3 * * *': six "
                         "fields, seconds first")
    command.add_argument("--wait", action="store_true", help="follow it, and exit with 0 only if it succeeds")
    command.set_defaults(command=_submit)

    command = commands.add_parser("follow", parents=[api], help="follow a run, as submit --wait does")
    command.add_argument("run_id", metavar="RUN_ID", help="as submit and Kubeflow's pages tell it")
    command.set_defaults(command=_follow)


def _compile(options: argparse.Namespace) -> int:
    from pipelines import settings
    from pipelines.console import captured

    name = settings.settings_file(options.run).stem
    out = Path(options.out or f"{name}.kubeflow.yaml")
    with captured(os.devnull) as screen:
        documents, hints = _compiled(options, name)
        from kubeflow import compile as kubeflow

        kubeflow.write(documents, out)
        print(kubeflow.described(documents, out), *hints, sep="\n", file=screen)
    return OK


def _submit(options: argparse.Namespace) -> int:
    from kubeflow.api import Api
    from kubeflow.submit import Order, follow, submit
    from pipelines import settings
    from pipelines.console import captured

    name = settings.settings_file(options.run).stem
    api = Api(options.host, options.namespace, options.token)
    order = Order(options.name or name, options.experiment, options.service_account, options.cron)
    if options.wait and options.cron:
        raise TextrailError("--wait or --cron", "both", "Once a recurring run has started, `textrail kubeflow follow`.")
    with captured(os.devnull) as screen:
        def say(line: str) -> None:
            print(line, file=screen, flush=True)

        documents, hints = _compiled(options, name)
        for hint in hints:
            say(hint)
        run_id = submit(documents, order, api, say)
        problem = follow(api, run_id, say) if options.wait else ""
    return tell(problem, FAILED) if problem else OK


def _follow(options: argparse.Namespace) -> int:
    from kubeflow.api import Api
    from kubeflow.submit import follow

    api = Api(options.host, options.namespace, options.token)
    api.health()
    problem = follow(api, options.run_id, lambda line: print(line, flush=True))
    return tell(problem, FAILED) if problem else OK


def _compiled(options: argparse.Namespace, name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The YAML documents of the run that the command line names, and what may be missing on the cluster."""
    from pipelines import settings

    # What the containers read may lie where only they see it.
    loaded = settings.load(options.run, options.overrides, check_files=False)
    sys.argv = sys.argv[:1]
    from kubeflow import compile as kubeflow
    from kubeflow import reach

    documents = kubeflow.compile_run(loaded, name, options.image, options.pipeline_root, not options.no_cache)
    return documents, reach.hints(loaded, options.pipeline_root)
