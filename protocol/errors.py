"""Errors: who broke the rule is the type, why is the ``reason`` (a metric label), the text is for people."""

from __future__ import annotations


class FarcastError(Exception):
    """Root of every error Farcast raises on purpose.

    ``reason`` is a short stable word (``malformed``, ``hash_mismatch``, ...) used as a metric
    label; ``str(error)`` is one sentence for a person that names what, where and the mend.
    """

    def __init__(self, message: str, *, reason: str = "error") -> None:
        """Keep the sentence and its reason code."""
        super().__init__(message)
        self.reason = reason


class LocalError(FarcastError):
    """This box or its user broke the rule: a bad setting, a full disk, a wrong argument."""


class UsageError(LocalError):
    """The command or a setting is wrong; the command ends with exit code 2."""

    def __init__(self, message: str, *, reason: str = "usage") -> None:
        """Keep the sentence; the reason is ``usage`` unless named."""
        super().__init__(message, reason=reason)


class StoreFullError(LocalError):
    """The quota or the disk leaves no room and nothing may be evicted."""

    def __init__(self, message: str, *, reason: str = "store_full") -> None:
        """Keep the sentence; the reason is ``store_full`` unless named."""
        super().__init__(message, reason=reason)


class RemoteError(FarcastError):
    """A peer, or bytes that came from one, broke the rule."""


class UnreachableError(RemoteError):
    """A peer could not be reached or went silent: refused, timed out, reset."""

    def __init__(self, message: str, *, reason: str = "unreachable") -> None:
        """Keep the sentence; the reason is ``unreachable`` unless named."""
        super().__init__(message, reason=reason)


class RefusedError(RemoteError):
    """A peer answered, and the answer is no.

    ``status`` is the HTTP status; ``retry_after_s`` is set for 429 and 503 where the peer said so.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        retry_after_s: float | None = None,
        reason: str = "refused",
    ) -> None:
        """Keep the sentence and the HTTP status."""
        super().__init__(message, reason=reason)
        self.status = status
        self.retry_after_s = retry_after_s
