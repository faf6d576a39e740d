"""How the processes of a training find each other before TensorFlow joins them, and notice when one is gone.

TensorFlow waits for ever for a process that does not come, keeps SIGTERM from ending one that waits, and tells that
another is gone by an error deep in an operation, if at all. So the first process listens at its own address of
TF_CONFIG until TensorFlow takes that over. The others come there, are told what to train, say whether they can, and
keep the connection until the end: where it breaks without a word, a process is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from modules.errors import TextrailError

COMMAND = "textrail train-worker"
ANSWER_SECONDS = 300   # For a process that has come to say whether it can train.
KNOCK_SECONDS = 1      # Between two attempts to reach the first process.
LEAVE_SECONDS = 5      # For all that knock to hear that nothing is trained.
# Of a connection on which nothing travels: a machine that is gone says nothing, and is noticed after three minutes.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 6}


class Place(NamedTuple):
    """Which of a training's processes this is, and where all are.

    Attributes:
        number: 0 is the first, the chief where TF_CONFIG names one.
        hosts: address of each, `host:port`.
    """

    number: int
    hosts: tuple[str, ...]

    def name(self, number: int) -> str:
        """What errors call a process: `process 1 (b:2222)`."""
        return f"process {number} ({self.hosts[number]})"


def place() -> Place:
    """This process's place, by TF_CONFIG.

    Raises:
        TextrailError: there is none, or it is not what TensorFlow reads.
    """
    config = os.environ.get("TF_CONFIG", "")
    try:
        values = json.loads(config)
        chiefs, workers = (list(values["cluster"].get(key, [])) for key in ("chief", "worker"))
        kind, index = values["task"]["type"], int(values["task"]["index"])
        hosts, number = (*chiefs, *workers), {"chief": 0, "worker": len(chiefs)}[kind] + index
        if not 0 <= number < len(hosts):
            raise ValueError(f"task {kind} {index}")
        for host in hosts:
            _address(host)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TextrailError(
            'TF_CONFIG such as {"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
            '"index": 0}} for training.strategy=multi_worker', config or "none",
            f"Set it for every process ({error}); docs/cluster.md has an example.") from None
    return Place(number, hosts)


class Connection:
    """Lines of JSON between two processes."""

    def __init__(self, connected: socket.socket):
        self._socket = connected
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):   # Not everywhere.
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._lines = connected.makefile("r", encoding="utf-8")

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message.

        Raises:
            OSError: the other one is gone.
        """
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """The next message; none if the other one is gone, silent for so many seconds, or none of ours."""
        self._socket.settimeout(seconds)
        try:
            message = json.loads(self._lines.readline())
        except (OSError, ValueError):
            return None
        finally:
            with contextlib.suppress(OSError):
                self._socket.settimeout(None)
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Ends it; whoever waits for the other side's words gets none."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def gather(here: Place, card: Mapping[str, str], training: Mapping[str, Any], wait_seconds: float
           ) -> dict[int, Connection]:
    """The first process's part: waits until all others have come and can train.

    Args:
        here: its place.
        card: what must be the same for all, by what it is: versions, code.
        training: what they are told.
        wait_seconds: for all of them to come.

    Returns:
        The connection to each, by its number. Its address is free again, for TensorFlow.

    Raises:
        TextrailError: one did not come, is another version, or cannot train.
    """
    found: dict[int, Connection] = {}
    try:
        awaited = set(range(1, len(here.hosts)))
        for number, connection, hello in _arrivals(here, awaited, wait_seconds):
            try:
                _check_same(here, card, number, hello)
            except TextrailError as error:
                _send_error(connection, error)
                raise
            if number in found:   # It was started anew.
                found[number].close()
            found[number] = connection
        if awaited:
            raise TextrailError(
                f"all {len(here.hosts)} processes of TF_CONFIG within {wait_seconds / 60:.3g} min",
                f"nothing of {', '.join(map(here.name, sorted(awaited)))}",
                f"Start `{COMMAND}` there, with TF_CONFIG of its own index, and see that it reaches {here.hosts[0]}. "
                "Then call this again.")
        for number, connection in found.items():
            _send(here, number, connection, {"training": training})
        for number, connection in found.items():
            answer = connection.receive(ANSWER_SECONDS) or {"error": [
                f"all processes to say within {ANSWER_SECONDS:g} s whether they can train", "nothing",
                f"Look at its output, start `{COMMAND}` there, and call the run again."]}
            if "error" in answer:
                raise failed(here, number, answer)
        for number, connection in found.items():
            _send(here, number, connection, {"go": True})
        return found
    except TextrailError as error:
        for connection in found.values():
            _send_error(connection, error)
        raise


def send_away(here: Place) -> None:
    """The first process's part where there is nothing to train: tells all that wait, and is back within seconds.

    Args:
        here: its place.
    """
    with contextlib.suppress(TextrailError):   # Something else is at this address: nobody waits there.
        for _, connection, _ in _arrivals(here, set(range(1, len(here.hosts))), LEAVE_SECONDS):
            with contextlib.suppress(OSError):
                connection.send({"training": None})
            connection.close()


def come(here: Place, card: Mapping[str, str], wait_seconds: float, told: Callable[[dict[str, Any]], None]
         ) -> Connection | None:
    """The part of any other process: finds the first one, hears what to train, says whether it can.

    Args:
        here: its place.
        card: see `gather`.
        wait_seconds: for a run to come to its training.
        told: is given the training, and raises a TextrailError if this process cannot train that.

    Returns:
        The connection to the first; none if it says that there is nothing to train.

    Raises:
        TextrailError: no training came, or not with this process.
    """
    end = time.monotonic() + wait_seconds
    while True:
        connection = _reach(here, end, wait_seconds)
        with contextlib.suppress(OSError):
            connection.send({"number": here.number, "hosts": here.hosts, "card": card})
        message = connection.receive() or {}   # It comes when the last of us has.
        if "error" in message:
            raise TextrailError(*message["error"])
        if "training" in message:
            break
        connection.close()   # The run has ended before; another may come.
        time.sleep(KNOCK_SECONDS)
    if message["training"] is None:
        return None
    try:
        told(message["training"])
    except TextrailError as error:
        _send_error(connection, error)
        raise
    with contextlib.suppress(OSError):
        connection.send({"ready": True})
    answer = connection.receive()
    if not answer or "error" in answer:
        raise failed(here, 0, answer)
    return connection


class Watch:
    """Looks after the connections while a training lasts.

    Args:
        here: this process's place.
        others: connections to those whose end would be that of the training, by number.
        lost: called, in a thread, with an error when one of them fails or is gone.
    """

    def __init__(self, here: Place, others: Mapping[int, Connection], lost: Callable[[TextrailError], None]):
        self._here, self._others, self._lost, self._is_over = here, others, lost, False
        self._threads = [threading.Thread(target=self._listen, args=one, daemon=True) for one in others.items()]
        for thread in self._threads:
            thread.start()

    def _listen(self, number: int, connection: Connection) -> None:
        message = connection.receive()
        if not self._is_over and (message is None or "error" in message):
            self._lost(failed(self._here, number, message))

    def finish(self) -> None:
        """Tells all that this process is done, and returns when they are."""
        for connection in self._others.values():
            with contextlib.suppress(OSError):
                connection.send({"done": True})
        for thread in self._threads:
            thread.join()

    def tell(self, error: TextrailError) -> None:
        """Tells all why this process ends before the training does."""
        self._is_over = True
        for connection in self._others.values():
            _send_error(connection, error)


def failed(here: Place, number: int, message: Mapping[str, Any] | None) -> TextrailError:
    """What is told of a process that has failed for a reason of ours, or is gone."""
    if message and "error" in message:
        expected, received, fix = message["error"]
        return TextrailError(expected, f"{received}, in {here.name(number)}", fix)
    again = (f"Look at its output, start `{COMMAND}` where it ended, and call the run again: the training goes on from "
             "its last checkpoint." if number else
             f"Look at the run's log. Call the run again, and `{COMMAND}` here: the training goes on from its last "
             "checkpoint.")
    return TextrailError("all processes of the training until its end", f"the end of {here.name(number)}", again)


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    if not name:
        raise ValueError(f"{host!r} without a port")
    return name.strip("[]"), int(port)


def _listening(here: Place) -> socket.socket:
    """A socket at the port of this process; on all of its addresses, since its name may be another one elsewhere."""
    port, both = _address(here.hosts[0])[1], socket.has_dualstack_ipv6()
    try:
        return socket.create_server(("", port), family=socket.AF_INET6 if both else socket.AF_INET,
                                    dualstack_ipv6=both, backlog=128)
    except OSError as error:
        raise TextrailError(f"a free port {port} for the first process of TF_CONFIG", f"none ({error})",
                            "Does another training use it? Name another port in TF_CONFIG of all processes.") from None


def _arrivals(here: Place, awaited: set[int], seconds: float) -> Iterator[tuple[int, Connection, dict[str, Any]]]:
    """Who comes to the first process until nobody is awaited or so many seconds are over; its address is free then.

    Args:
        here: its place.
        awaited: numbers; who comes is taken out.
        seconds: to wait.

    Yields:
        Number, connection, and what the process says of itself.

    Raises:
        TextrailError: something else is at this address.
    """
    end = time.monotonic() + seconds
    with _listening(here) as server:
        while awaited:
            server.settimeout(max(end - time.monotonic(), 0.01))
            try:
                connected, _ = server.accept()
            except TimeoutError:
                return
            connection = Connection(connected)
            hello = connection.receive(ANSWER_SECONDS) or {}
            number = hello.get("number")
            if isinstance(number, int) and 0 < number < len(here.hosts):
                awaited.discard(number)
                yield number, connection, hello
            else:
                connection.close()   # Whoever that was.


def _reach(here: Place, end: float, wait_seconds: float) -> Connection:
    while True:
        try:
            return Connection(socket.create_connection(_address(here.hosts[0]), timeout=10))
        except OSError as error:   # A name that is not known yet is one, too.
            if time.monotonic() > end:
                raise TextrailError(f"a run whose Trainer waits at {here.hosts[0]} within {wait_seconds / 60:.3g} min",
                                    f"none ({error})", "Start the run with training.strategy=multi_worker where "
                                    "TF_CONFIG's first process is.") from None
        time.sleep(KNOCK_SECONDS)


def _check_same(here: Place, card: Mapping[str, str], number: int, hello: Mapping[str, Any]) -> None:
    if tuple(hello.get("hosts", ())) != here.hosts:
        raise TextrailError(f"one cluster in TF_CONFIG of all processes: {', '.join(here.hosts)}",
                            f"{', '.join(hello.get('hosts', ()))} in process {number}", "Name the same hosts in all.")
    theirs = hello.get("card", {})
    for what, value in card.items():
        if theirs.get(what) != value:
            raise TextrailError(f"{what} {value} in {here.name(number)}, as in the run",
                                str(theirs.get(what, "none")), f"Start `{COMMAND}` from this project's environment.")


def _send(here: Place, number: int, connection: Connection, message: Mapping[str, Any]) -> None:
    try:
        connection.send(message)
    except OSError:
        raise failed(here, number, None) from None


def _send_error(connection: Connection, error: TextrailError) -> None:
    with contextlib.suppress(OSError):
        connection.send({"error": [error.expected, error.received, error.fix]})
