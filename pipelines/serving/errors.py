"""What a client is told when a request cannot be answered."""

from __future__ import annotations

from http import HTTPStatus

# TensorFlow's error codes → HTTP, as http_server.cc of TensorFlow Serving has them; those that are missing are 500.
STATUSES = {3: HTTPStatus.BAD_REQUEST, 4: HTTPStatus.GATEWAY_TIMEOUT, 5: HTTPStatus.NOT_FOUND, 6: HTTPStatus.CONFLICT,
            7: HTTPStatus.FORBIDDEN, 8: HTTPStatus.TOO_MANY_REQUESTS, 9: HTTPStatus.BAD_REQUEST,
            10: HTTPStatus.CONFLICT, 11: HTTPStatus.BAD_REQUEST, 12: HTTPStatus.NOT_IMPLEMENTED,
            14: HTTPStatus.SERVICE_UNAVAILABLE, 16: HTTPStatus.UNAUTHORIZED}


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


def of_tensorflow(code: int, message: str) -> RestError:
    """What the model answered instead of outputs: that the rows are wrong, or that something else is."""
    return RestError(STATUSES.get(code, HTTPStatus.INTERNAL_SERVER_ERROR), message)
