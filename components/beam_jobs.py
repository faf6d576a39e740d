"""Ends jobs that nobody waits for any more: those of a call that was killed, or that took too long.

They would keep the cluster's slots, and write where the next call does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from typing import Any

import grpc
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.portability.api import beam_job_api_pb2_grpc
from apache_beam.runners.runner import PipelineState

from components.beam_options import ENDPOINTS
from modules.progress import report

ANSWER_SECONDS = 5   # For a server to answer.
END_SECONDS = 10     # For a cluster to end jobs.
FLINK = "beam:option:flink_master:v1"   # By which a job server tells of a job where its Flink is.
ENDED = {"FINISHED", "FAILED", "CANCELED"}   # As Flink calls it.


def job_name(name: str, root: str) -> str:
    """What a job is called: what it does, and a mark of the place that it works for.

    Args:
        name: of the component or command.
        root: folder or URI for the results; one call at a time works there.
    """
    return f"textrail-{name.lower()}-{_mark(root)}"


def _mark(root: str) -> str:
    return hashlib.blake2b(root.encode(), digest_size=6).hexdigest()


def end_jobs(settings: Mapping[str, Any], root: str) -> None:
    """Ends all jobs that work for a place.

    A job server that does not answer, or keeps no list, is left alone; so is a Flink that cannot be reached from here.

    Args:
        settings: the section `beam` of a run's settings.
        root: see `job_name`.
    """
    if settings["runner"] not in ENDPOINTS:
        return
    flinks: Counter[str] = Counter()   # Address → jobs that were not over.
    with (contextlib.suppress(grpc.RpcError),
          grpc.insecure_channel(settings["job_endpoint"] or ENDPOINTS[settings["runner"]]) as channel):
        server: Any = beam_job_api_pb2_grpc.JobServiceStub(channel)
        for job in server.GetJobs(api.GetJobsRequest(), timeout=ANSWER_SECONDS).job_info:
            if job.job_name.endswith(_mark(root)):
                is_over = PipelineState.is_terminal(api.JobState.Enum.Name(job.state))
                flinks[dict(job.pipeline_options).get(FLINK) or ""] += not is_over
                if not is_over:
                    report(f"ends {job.job_name}, which nobody waits for", lasting=True)
                    server.Cancel(api.CancelJobRequest(job_id=job.job_id), timeout=ANSWER_SECONDS)
    # Flink goes on with a job that Beam's server has cancelled.
    for flink, count in flinks.items():
        if re.fullmatch(r"[^\s/]+:\d+", flink):
            with contextlib.suppress(OSError):
                _end_in_flink(f"http://{flink}/jobs", _mark(root), count)


def _end_in_flink(jobs: str, mark: str, count: int) -> None:
    """Ends what has this mark, and waits for so many that may only just be on their way."""
    end, ended = time.monotonic() + END_SECONDS, set[str]()
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{jobs}/overview", timeout=ANSWER_SECONDS) as answer:
            left = {job["jid"] for job in json.load(answer)["jobs"]
                    if job["name"].endswith(mark) and job["state"] not in ENDED}
        if not left and len(ended) >= count:
            return
        for job in left - ended:
            request = urllib.request.Request(f"{jobs}/{job}?mode=cancel", method="PATCH")
            urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()
        ended |= left
        time.sleep(0.2)
