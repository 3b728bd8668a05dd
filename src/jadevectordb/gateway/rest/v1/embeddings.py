"""Texts to vectors: `/v1/embeddings/generate`."""

from __future__ import annotations

from collections.abc import Mapping

from jadevectordb.gateway.rest.http import Request, Response, Route, invalid, iso, reply
from jadevectordb.gateway.rest.v1.databases import text
from jadevectordb.gateway.service.numbers import shortest
from jadevectordb.gateway.service.services import Services

_ALIASES: Mapping[str, str] = {
    "input": "input",
    "text": "input",
    "input_type": "input_type",
    "inputType": "input_type",
    "model": "model",
    "provider": "provider",
}
_INPUT_TYPES = ("text", "query")


def _generate(services: Services, request: Request) -> Response:
    fields = request.fields(_ALIASES)
    given = fields.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise invalid("input must be a text, or a list of at least one text.")
    input_type = text(fields, "input_type", "text")
    if input_type not in _INPUT_TYPES:
        raise invalid(
            f"input_type must be one of {', '.join(_INPUT_TYPES)}, got {input_type!r:.60}: no model here reads others."
        )
    done = services.embeddings.embed(texts, text(fields, "model") or "default", text(fields, "provider") or "default")
    vectors = shortest(done.vectors).tolist()
    answer = {
        "embeddings": vectors,
        "model": done.model,
        "provider": done.provider,
        "dimension": done.dimension,
        "input_type": input_type,
        "count": len(vectors),
        "generated_at": iso(done.time_ms),
    }
    if isinstance(given, str):
        answer["embedding"] = vectors[0]
    return reply(answer)


ROUTES = (Route("POST", "/v1/embeddings/generate", "embed", _generate, summary="Embed texts"),)
