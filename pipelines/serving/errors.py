"""What a client is told when a request cannot be answered."""

from __future__ import annotations

from http import HTTPStatus


class RestError(Exception):
    """An error with the status and, where it has one for the case, the sentence of TensorFlow Serving.

    Args:
        status: of HTTP.
        message: for the client, in the body as `{"error": message}`.
    """

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status, self.message = status, message


def invalid(message: str) -> RestError:
    """A request that is wrong whoever answers it."""
    return RestError(HTTPStatus.BAD_REQUEST, message)
