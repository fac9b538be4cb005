"""Every error a user can meet, as one small tree.

CmathStreamError            one line that says what is wrong and what to do; the CLI prints it and exits 1
├── SettingsError           unknown key, wrong type, value out of range
├── MediaError              a file or track that cannot be read
├── WireError               a message or blob that does not decode
├── BusError                Redis cannot be reached or refuses
├── OperatorError           a command about what Redis does not hold, or not as the command needs it
├── SignalingError          a WHIP request that cannot be served; carries its HTTP status
│   └── AccessDenied        (401, 403) a token that is missing, invalid or not enough
├── ModelUnavailable        an encoder whose weights cannot be had here
│   └── NotExportable       (workers.text_export) a text encoder that only torch can run here
└── CheckpointError         (cmath_stream.checkpoint_files) a foreign or damaged checkpoint
"""

from __future__ import annotations


class CmathStreamError(Exception):
    """Base of everything this project raises on purpose; `str(error)` is one line for the user."""


class SettingsError(CmathStreamError):
    """A setting that does not exist, has the wrong type or lies outside its range."""


class MediaError(CmathStreamError):
    """A media file or track that cannot be read."""


class WireError(CmathStreamError):
    """A Redis entry or blob that is not what its header says."""


class BusError(CmathStreamError):
    """Redis cannot be reached, or answers that it will not serve."""


class ModelUnavailable(CmathStreamError):
    """An encoder whose weights are neither on disk nor downloadable here."""


class OperatorError(CmathStreamError):
    """A session or dead letter that is not there, is not the only one meant, or is in another state."""


class SignalingError(CmathStreamError):
    """A WHIP request that is refused.

    `status` is the HTTP status (RFC 9725 §4.2 and §4.5), `detail` the sentence for the client,
    `accepted` the codecs the server takes, where that helps, `retry_after_s` when another try makes sense.
    """

    def __init__(
        self, status: int, detail: str, accepted: tuple[str, ...] = (), retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.accepted = accepted
        self.retry_after_s = retry_after_s


class AccessDenied(SignalingError):
    """A request whose token does not open this door: 401, or 403 where it is for something else.

    `code` is the error code of RFC 6750 §3.1; None where the request has no token at all, about which the
    server has nothing more to say.
    """

    def __init__(self, status: int, detail: str, code: str | None = None) -> None:
        super().__init__(status, detail)
        self.code = code
