"""Kubeflow Pipelines' API: where it is, whether it is one, and what it says of a run."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modules.errors import TextrailError

SECONDS = 30.0   # So long an answer may take.
FORWARD = ("Correct --host. From outside the cluster: kubectl port-forward -n kubeflow svc/ml-pipeline 8888:8888, and "
           "--host http://localhost:8888.")
HEALTH = {"multi_user", "commit_sha", "tag_name"}   # What the API says of itself, by older and newer backends.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# kfp's client knows no proxies either.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NoAnswer(Exception):
    """The API did not answer as one, which may pass.

    Attributes:
        status: of HTTP; 0 where there was none.
    """

    def __init__(self, reason: str, status: int = 0):
        self.status = status
        super().__init__(reason)


@dataclass(frozen=True)
class Api:
    """Where runs go.

    Attributes:
        host: URL of the API.
        namespace: of a profile; "" on a Kubeflow of one user.
        token: file with a bearer token; "" where none is asked for.

    Raises:
        TextrailError: that is no URL, no name of a namespace, or no file with a token.
    """

    host: str
    namespace: str = ""
    token: str = ""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.host)
            is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url or re.search(r"[?#\s]", self.host):
            raise TextrailError("--host as a URL such as http://localhost:8888", repr(self.host),
                                "Begin with http:// or https://, and leave out '?' and '#' and what is behind them.")
        if self.namespace and not NAME.fullmatch(self.namespace):
            raise TextrailError("--namespace of lower-case letters, digits and '-'", repr(self.namespace),
                                "kubectl get profiles lists them.")
        if self.token:
            self.read_token()

    @property
    def place(self) -> str:
        """The namespace that pods are in."""
        return self.namespace or "kubeflow"

    def page(self, run_id: str) -> str:
        """Where Kubeflow's pages show a run."""
        return f"{self.host.rstrip('/')}/#/runs/details/{run_id}"

    def read_token(self) -> str:
        """The token, read each time anew: those of service accounts last an hour.

        Raises:
            TextrailError: the file has none.
        """
        try:
            words = Path(self.token).expanduser().read_text("utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise TextrailError("a file with a token after --token", f"{self.token} ({reason})",
                                "Write one, for example with kubectl create token.") from None
        if len(words) != 1:
            raise TextrailError("one token in the file after --token", f"{len(words)} words in {self.token}",
                                "Write the token alone, for example with kubectl create token.")
        return words[0]

    def refresh_api_key_hook(self, config: Any) -> None:
        """Gives kfp's client the token, as its `credentials` do."""
        config.api_key["authorization"], config.api_key_prefix["authorization"] = self.read_token(), "Bearer"

    def client(self) -> Any:
        """kfp's client, once the API has answered as one.

        Raises:
            TextrailError: nobody answers, or not Kubeflow Pipelines, or not to us; or it wants a namespace.
        """
        if self.health().get("multi_user") and not self.namespace:
            raise TextrailError(f"--namespace, of a profile, for the Kubeflow at {self.host}, which has several users",
                                "none", "kubectl get profiles lists them.")
        import kfp

        return kfp.Client(host=self.host, namespace=self.place, ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
                          credentials=self if self.token else None)

    def health(self) -> dict[str, Any]:
        """What the API says of itself.

        Raises:
            TextrailError: see `client`.
        """
        expected = f"Kubeflow Pipelines' API at {self.host}"
        try:
            found = self.ask("/apis/v2beta1/healthz")
        except NoAnswer as error:
            if error.status in (401, 403):
                raise TextrailError(f"{self.host} to let us in", f"{error}{' with the token' if self.token else ''}",
                                    "Give --token FILE with a token for its API that has not run out.") from None
            raise TextrailError(expected, f"none ({error})", FORWARD) from None
        if not isinstance(found, dict) or not HEALTH & found.keys():
            raise TextrailError(expected, "the answer of another server", FORWARD)
        return found

    def ask(self, path: str) -> Any:
        """What a path answers, read from JSON.

        Raises:
            NoAnswer: nothing came, or nothing that is JSON.
        """
        text = self.read(path)
        try:
            return json.loads(text)
        except ValueError:
            raise NoAnswer("a page that is none of the API's, such as of a login" if text.lstrip().startswith("<") else
                           "an answer that is none of the API's") from None

    def read(self, path: str) -> str:
        """What a path answers.

        Raises:
            NoAnswer: nothing came.
        """
        request = urllib.request.Request(self.host.rstrip("/") + path)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.read_token()}")
        try:
            with OPENER.open(request, timeout=SECONDS) as answer:
                return answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            raise NoAnswer(f"HTTP {error.code} {_first_line(error)}".strip(), error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(_told(error)) from None


def _first_line(error: urllib.error.HTTPError) -> str:
    """Of an answer that is text, such as that a server speaks HTTPS; else the reason."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        body = error.read(2000).decode("utf-8", "replace").strip()
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return str(json.loads(body)["message"])
        if body and not body.startswith("<"):
            return body.splitlines()[0]
    return str(error.reason)


def _told(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(reason, BaseException) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {SECONDS:.0f} s"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{cause.verify_message}; SSL_CERT_FILE names certificates of one's own"
    if isinstance(cause, ssl.SSLError):
        return f"no TLS there, so http:// may be meant: {cause.reason or cause}"
    return (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).splitlines()[0]
