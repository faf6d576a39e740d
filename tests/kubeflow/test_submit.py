"""What is asked of Kubeflow's API, and what is told of its answers.

A server of our own gives answers that a real one gave.
"""

import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("kfp", reason="submitting to Kubeflow needs the extra `kubeflow`")

from kubeflow import api as kubeflow_api
from kubeflow.api import Api, NoAnswer
from kubeflow.submit import Order, Patience, follow, submit
from modules.errors import TextrailError
from pipelines import cli

HEALTH = {"commit_sha": "unknown", "tag_name": "unknown", "multi_user": False, "pipeline_store": "database"}
RUN = "/apis/v2beta1/runs/r1"
LOGS = "/apis/v1alpha1/runs/r1/nodes/hello-x7-"
NO_LOG = '{"error_message":"BadRequestError: Failed to read logs for run r1"}'
LAUNCHER = "F1123 04:56:36.297246      15 main.go:130] failed to execute component: "
PIPELINE = [{"pipelineInfo": {"name": "hello"}, "schemaVersion": "2.1.0", "sdkVersion": "textrail",
             "root": {"dag": {"tasks": {"Say": {"taskInfo": {"name": "Say"}, "componentRef": {"name": "comp-Say"}}}}},
             "components": {"comp-Say": {"executorLabel": "exec-Say"}},
             "deploymentSpec": {"executors": {"exec-Say": {"container": {"image": "a:1", "command": ["true"]}}}}}]


class Server(ThreadingHTTPServer):
    """Answers by path, without what is behind '?': in turn, the last one again and again; what is asked is kept.

    An answer is JSON, a text, or a status with either.
    """

    def __init__(self, answers: dict):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {path: [*answer] if isinstance(answer, list) else [answer] for path, answer in answers.items()}
        self.asked: list[tuple[str, str, dict]] = []
        self.tokens: list[str | None] = []
        self.host = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.asked.append((self.command, self.path, json.loads(body) if body else {}))
        server.tokens.append(self.headers.get("Authorization"))
        none = [(404, {"code": 5, "message": "Not Found"})]
        kept = server.answers.get(f"{self.command} {path}") or server.answers.get(path, none)
        answer = kept.pop(0) if len(kept) > 1 else kept[0]
        if answer == "hang up":
            self.connection.close()
            return
        status, answer = answer if isinstance(answer, tuple) else (200, answer)
        text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if text.startswith(b"<") else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def serve() -> Iterator:
    servers = []

    def start(answers: dict) -> Server:
        server = Server({"/apis/v2beta1/healthz": HEALTH, **answers})
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch, tmp_path) -> None:
    """The machine that the tests run on may know a real one."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


def task(name: str, state: str, *children: str, end: str = "2026-11-23T04:56:41Z") -> dict:
    return {"task_id": f"{name}-id", "display_name": name, "state": state, "start_time": "2026-11-23T04:56:23Z",
            "end_time": end if state in ("SUCCEEDED", "FAILED") else "0001-01-01T00:00:00Z",
            "child_tasks": [{"pod_name": f"hello-x7-{child}"} for child in children]}


def run(state: str, *tasks: dict) -> dict:
    around = [task("root-driver", "SUCCEEDED", "1"), task("hello-x7", state, "2"), task("root", state, "3", "4"),
              {"task_id": "without a name", "execution_id": "9"}]
    return {"run_id": "r1", "state": state, "run_details": {"task_details": [*around, *tasks] if tasks else []}}


def followed(server: Server, **patience: float) -> tuple[str, list[str]]:
    lines: list[str] = []
    problem = follow(Api(server.host), "r1", lines.append, Patience(**{"poll": 0.01, **patience}))
    return problem, lines


def test_each_change_of_a_component_is_told_and_nothing_else(serve):
    server = serve({RUN: [run("PENDING"), run("RUNNING", task("Say", "RUNNING", "5"), task("executor", "PENDING")),
                          run("RUNNING", task("Say", "RUNNING", "5"), task("Say-driver", "SUCCEEDED", "6")),
                          run("SUCCEEDED", task("Say", "SUCCEEDED", "5"), task("executor(0)", "SUCCEEDED"))]})
    problem, lines = followed(server)
    assert problem == ""
    assert lines == ["Say                  running", "Say                  succeeded 0.3 min"]


@pytest.mark.parametrize(("logs", "sentence"), [
    ({"retry-system-container-impl-8": f"textrail: expected a; received b. Do c.\n{LAUNCHER}exit status 1\nError: 1"},
     "Gate failed: expected a; received b. Do c."),
    ({"system-container-impl-7": f'{LAUNCHER}exec: "python": executable file not found in $PATH\n'},
     'Gate failed: the image is not one of kubeflow/Dockerfile, .*: failed to execute component: exec: "python"'),
    ({"system-container-impl-7": f"python: No module named kubeflow\n{LAUNCHER}exit status 1"},
     "Gate failed: the image is not one of .*: python: No module named kubeflow"),
    ({"system-container-driver-4": "E1123 04:56:36.29      15 main.go:1] KFP driver: bucket nowhere not found"},
     "Gate failed: KFP driver: bucket nowhere not found"),
    ({}, "Gate failed: it left no log, .* see http.*/#/runs/details/r1. Started again"),
])
def test_a_failed_component_is_told_with_the_last_sentence_of_its_log(serve, logs, sentence):
    said = {f"{LOGS[:-1]}-{pod}/log": log for pod, log in logs.items()}
    silent = {f"{LOGS[:-1]}-{template}-{pod}/log": NO_LOG for pod in "3478" for template in (
        "retry-system-container-impl", "system-container-impl")}
    server = serve({RUN: run("FAILED", task("Ask", "SUCCEEDED"), task("executor", "FAILED", "8"),
                             task("Gate", "FAILED", "7")), **silent, **said})
    problem, lines = followed(server)
    assert re.match(sentence, problem), problem
    assert "Gate                 failed 0.3 min" in lines


def test_what_the_api_has_no_log_of_is_read_from_the_cluster(serve, tmp_path, monkeypatch):
    pods = "/api/v1/namespaces/kubeflow/pods/hello-x7-"
    server = serve({RUN: run("FAILED", task("Gate", "FAILED", "7")), f"{LOGS}system-container-impl-7/log": NO_LOG,
                    f"{pods}system-container-impl-7/log": f"textrail: expected a. Do c.\n{LAUNCHER}exit status 1\n"})
    (tmp_path / "config").write_text(json.dumps({
        "current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "b", "user": "c"}}],
        "clusters": [{"name": "b", "cluster": {"server": server.host}}], "users": [{"name": "c", "user": {}}]}))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert followed(server)[0] == "Gate failed: expected a. Do c."
    asked = [path for _, path, _ in server.asked if path.startswith("/api/")]
    assert asked[-1] == f"{pods}system-container-impl-7/log?container=main&tailLines=1000"


def test_what_does_not_begin_is_told_once(serve):
    stuck = run("RUNNING", task("Trainer", "RUNNING", "5"), task("executor", "PENDING"))
    _, lines = followed(serve({RUN: [run("PENDING")] * 9 + [stuck] * 9 + [run("SUCCEEDED")]}), pending=0.02)
    assert [line.partition(" for")[0] for line in lines] == [
        "the run has been pending", "Trainer              running", "a pod of Trainer has been pending"]
    assert all(line.endswith("kubectl describe pods -n kubeflow -l pipeline/runid=r1")
               for line in lines if "pending" in line)
    assert "ml-pipeline-persistenceagent" in lines[0]


def test_a_connection_that_breaks_is_taken_up_again(serve):
    server = serve({RUN: [run("RUNNING", task("Say", "RUNNING")), "hang up", (503, "no healthy upstream"),
                          run("SUCCEEDED", task("Say", "SUCCEEDED"))]})
    problem, lines = followed(server)
    assert problem == ""
    assert lines[1].startswith(f"no answer from {server.host} (Remote end closed connection") and "goes on" in lines[1]
    assert lines[2:] == [f"{server.host} answers again", "Say                  succeeded 0.3 min"]


def test_a_connection_that_stays_broken_ends_the_following_and_not_the_run(serve):
    server = serve({RUN: (503, "no healthy upstream")})
    with pytest.raises(TextrailError, match=r"received nothing \(HTTP 503 no healthy upstream\)\. The run goes on\. "
                                            rf"Once .* textrail kubeflow follow r1 --host {server.host}"):
        followed(server, lost=0.05)


def test_a_run_that_is_none_is_told_at_once(serve):
    with pytest.raises(TextrailError, match=r"expected a run r1 at .*; received HTTP 404 Run r1 not found"):
        followed(serve({RUN: (404, {"code": 5, "message": "Run r1 not found"})}))


def test_ctrl_c_leaves_the_run_going_and_says_so(serve):
    signal.signal(signal.SIGINT, signal.default_int_handler)   # What a shell starts in the background ignores it.
    server, lines = serve({RUN: run("RUNNING", task("Say", "RUNNING"))}), []

    def tell(line: str) -> None:
        lines.append(line)
        if len(lines) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        follow(Api(server.host), "r1", tell, Patience(poll=0.01))
    assert lines[1] == (f"the run goes on: {server.host}/#/runs/details/r1, or textrail kubeflow follow r1 "
                        f"--host {server.host}")


def test_the_command_follows_a_run(serve, capsys):
    server = serve({RUN: run("FAILED", task("Gate", "FAILED"))})
    assert cli.main(["kubeflow", "follow", "r1", "--host", server.host]) == cli.FAILED
    told = capsys.readouterr()
    assert told.out == "Gate                 failed 0.3 min\n"
    assert told.err.startswith("textrail: Gate failed: it left no log")
    assert f"see {server.host}/#/runs/details/r1." in told.err


EXPERIMENTS = {"GET /apis/v2beta1/experiments": {}, "POST /apis/v2beta1/experiments": {"experiment_id": "e1"}}


def test_a_run_is_started_under_its_name_in_its_experiment(serve, tmp_path):
    server, lines = serve({**EXPERIMENTS, "POST /apis/v2beta1/runs": {"run_id": "r1"}}), []
    (tmp_path / "token").write_text("abc.def\n")
    api = Api(server.host, token=str(tmp_path / "token"))
    assert submit(PIPELINE, Order("reviews-3", "nightly", "runner"), api, lines.append) == "r1"
    (_, _, experiment), (_, _, started) = [asked for asked in server.asked if asked[0] == "POST"]
    assert experiment["display_name"] == "nightly"
    assert started["experiment_id"] == "e1" and started["service_account"] == "runner"
    assert started["display_name"].startswith("reviews-3 ")
    assert started["pipeline_spec"]["pipelineInfo"] == {"name": "hello"}
    assert lines == [f"run r1: {server.host}/#/runs/details/r1"] and {*server.tokens} == {"Bearer abc.def"}


def test_a_recurring_run_is_made_once(serve):
    recurring = "/apis/v2beta1/recurringruns"
    server, lines = serve({**EXPERIMENTS, f"GET {recurring}": [{}, {"recurringRuns": [{"recurring_run_id": "q1"}]}],
                           f"POST {recurring}": {"recurring_run_id": "q1"}}), []
    order = Order("nightly", cron="0 0 3 * * *")
    assert submit(PIPELINE, order, Api(server.host), lines.append) == ""
    made = server.asked[-1][2]
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (made["display_name"], made["mode"]) == ("nightly", "ENABLE")
    assert (made["no_catchup"], made["max_concurrency"]) == (True, 1)
    assert lines == ["recurring run nightly (q1): 0 0 3 * * *, in the cluster's time zone"]
    with pytest.raises(TextrailError, match="no recurring run nightly in the experiment textrail yet; received q1"):
        submit(PIPELINE, order, Api(server.host), lines.append)


def test_what_the_api_refuses_is_told_in_its_words(serve):
    said = "Schedule cron is not a supported format. Error: End of range (99) above maximum (59): 99"
    server = serve({**EXPERIMENTS, "GET /apis/v2beta1/recurringruns": {},
                    "POST /apis/v2beta1/recurringruns": (400, {"code": 3, "message": said})})
    with pytest.raises(TextrailError) as caught:
        submit(PIPELINE, Order("nightly", cron="0 99 3 * * *"), Api(server.host), print)
    assert str(caught.value) == (
        f"expected a pipeline that {server.host} takes; received its refusal: {said}. Nothing was started.")


@pytest.mark.parametrize(("answer", "sentence"), [
    ("<!doctype html><title>Sign in</title>", r"received none \(a page that is none of the API's, such as of a login"),
    ({"status": "ok"}, "received the answer of another server. Correct --host"),
    ("pong", r"received none \(an answer that is none of the API's\)"),
    ((404, "404 page not found"), r"received none \(HTTP 404 404 page not found\). Correct --host"),
    ((400, "Client sent an HTTP request to an HTTPS server."), "HTTP 400 Client sent an HTTP request to an HTTPS"),
    ((401, {"message": "no token"}), "to let us in; received HTTP 401 no token. Give --token FILE"),
    ("hang up", r"received none \(Remote end closed connection"),
    ({**HEALTH, "multi_user": True}, "expected --namespace, of a profile, .* several users; received none"),
])
def test_what_is_not_kubeflows_api_is_told_apart(serve, answer, sentence):
    with pytest.raises(TextrailError, match=sentence):
        Api(serve({"/apis/v2beta1/healthz": answer}).host).client()


def test_nobody_at_the_host_is_told_and_how_to_get_there(serve, monkeypatch):
    with socket.socket() as free:   # Bound and not listening, hence refused.
        free.bind(("127.0.0.1", 0))
        with pytest.raises(TextrailError, match=r"received none \(Connection refused\)\. Correct --host\. .* port-for"):
            Api(f"http://127.0.0.1:{free.getsockname()[1]}").health()
    with pytest.raises(TextrailError, match=r"no TLS there, so http:// may be meant"):
        Api(serve({}).host.replace("http", "https")).health()
    monkeypatch.setattr(kubeflow_api, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NoAnswer, match="no answer within 0 s"):
        Api(f"http://127.0.0.1:{silent.getsockname()[1]}").ask("/")


@pytest.mark.parametrize("host", ["", "localhost:8888", "localhost", "ftp://a", "http://", "http://a:99999",
                                  "http://a b", "http://localhost:8080/#/runs", "http://a?x=1", "http://[::1"])
def test_a_host_is_a_url(host):
    with pytest.raises(TextrailError, match="expected --host as a URL such as http://localhost:8888; received "):
        Api(host)


@pytest.mark.parametrize(("content", "sentence"), [
    (None, r"token \(No such file or directory\)"), (b"", "received 0 words in"), (b"\n \n", "received 0 words in"),
    (b"abc\ndef\n", "received 2 words in"), (b"\xff\xfe", "it is no text"),
])
def test_a_token_is_one_word_in_a_file(tmp_path, content, sentence):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TextrailError, match=sentence):
        Api("http://localhost:1", token=str(file))


def test_a_token_is_read_anew_each_time(serve, tmp_path):
    server, file = serve({}), tmp_path / "token"
    for token in ("first", "second"):
        file.write_text(token)
        Api(server.host, token=str(file)).health()
    assert server.tokens == ["Bearer first", "Bearer second"]


def test_five_fields_are_not_taken_for_six():
    """Kubeflow reads '0 3 * * *' as second 0 of minute 3 of every hour."""
    with pytest.raises(TextrailError, match=r"six fields, .*; received '0 3 \* \* \*'. .*: '0 0 3 \* \* \*'"):
        Order("a", cron="0 3 * * *")
    for wrong in ("daily", "0 0 3 * *  * *", "0 0 3 * * $"):
        with pytest.raises(TextrailError, match="expected --cron as six fields"):
            Order("a", cron=wrong)
    for right in ("0 0 3 * * *", "0 */15 8-18 ? JAN-MAR 1,3", "@daily", "@every 90m"):
        assert Order("a", cron=right).cron == right


@pytest.mark.parametrize("namespace", ["Kubeflow", "a_b", "a/b", "-a"])
def test_a_namespace_is_one(namespace):
    with pytest.raises(TextrailError, match="expected --namespace of lower-case letters"):
        Api("http://localhost:8888", namespace)


def test_a_recurring_run_is_not_waited_for(capsys):
    assert cli.main(["kubeflow", "submit", "reviews", "--image", "a", "--host", "http://localhost:1", "--wait",
                     "--cron", "@daily"]) == cli.USAGE
    assert "expected --wait or --cron; received both" in capsys.readouterr().err
