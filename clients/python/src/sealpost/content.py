"""The payload of a message, as the application gives it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Fields that the client writes itself.
OWN_FIELDS = frozenset(
    ("recipient_id", "sender_id", "message_id", "encrypted_data", "ttl", "content_type", "signature")
)
#: Levels of nesting that the relay reads, the payload included.
DEEPEST = 127


def message_content(
    data: str, content_type: str | None, signature: str | None, fields: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The payload without ids and ttl, as a copy that stays as it is; ValueError for what the relay cannot read."""
    if not isinstance(data, str):
        raise ValueError("data is a string: encode bytes first, for instance as base64")
    if signature is not None and not isinstance(signature, str):
        raise ValueError("signature is a string")
    more = dict(fields or {})
    if not all(isinstance(name, str) for name in more):
        raise ValueError("the names of fields are strings")
    own = sorted(OWN_FIELDS & more.keys())
    if own:
        raise ValueError(f"fields has {', '.join(own)}, which the client writes itself")
    content: dict[str, Any] = {"encrypted_data": data, **more}
    if content_type is not None:
        content["content_type"] = content_type
    if signature is not None:
        content["signature"] = signature
    try:
        copy: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"fields cannot be written as JSON: {error}") from error
    if _depth(copy) > DEEPEST:
        raise ValueError(f"fields is nested deeper than {DEEPEST - 1}")
    return copy


def _depth(value: Any) -> int:
    """Levels of nesting, counted without recursion."""
    depth, level = 0, [value]
    while level:
        containers = [one for one in level if isinstance(one, (dict, list))]
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
        depth += 1 if containers else 0
    return depth
