"""The OpenAPI description of the server, which is true: tests ask the server everything that it allows."""

from typing import Any

PROBLEMS = {
    400: "The body broke off, or the form cannot be read.",
    401: "The token is missing or wrong.",
    404: "There is no such model, or it cannot do this.",
    408: "The body came too slowly.",
    413: "The body is over the limit.",
    415: "The body is no image.",
    422: "The image is damaged or too large, or a parameter cannot be.",
    429: "The server has enough to do; Retry-After says when to ask again.",
    500: "The engine failed for this image.",
    503: "The worker was lost, or the server ends.",
    504: "There was no answer in time.",
}
ASKING = (400, 404, 408, 413, 415, 422, 429, 500, 503, 504)
STRING: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1.00001}


def described(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    """Makes the schema of an object, whose properties are all there but for the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def list_of(items: dict[str, Any]) -> dict[str, Any]:
    """Makes the schema of a list."""
    return {"type": "array", "items": items}


def reference(name: str) -> dict[str, Any]:
    """Makes a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: dict[str, Any] = {
    "Problem": described({"type": STRING, "title": STRING, "status": {"type": "integer"}, "detail": STRING}),
    "Prediction": described({"labels": list_of(STRING), "probabilities": list_of(PROBABILITY)}),
    "Refused": described({"problem": reference("Problem")}),
    "Predictions": described(
        {"model": STRING, "predictions": list_of({"oneOf": [reference("Prediction"), reference("Refused")]})}
    ),
    "Explanation": described({"model": STRING, "explanation": {"type": "object"}}),
    "Model": described(
        {
            "name": STRING, "classes": list_of(STRING), "task": STRING, "pixels": {"type": "integer"},
            "enough": {"type": ["integer", "null"]}, "data_license": {"type": ["string", "null"]},
            "card": {"type": "object"}, "explains": {"type": "boolean"},
        }
    ),
    "Models": described({"models": list_of(reference("Model"))}),
    "Status": described({"status": STRING}),
}  # fmt: skip


def parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    """Describes a parameter of the query."""
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


MODEL = parameter("model", STRING, "Name of the model; the first one by default.")
TOPK = parameter("topk", {"type": "integer", "minimum": 1, "maximum": 999_999_999}, "Classes to name; 5 by default.")
CLASS = parameter("class", STRING, "Class to explain; the likeliest by default.")


def body(files: dict[str, Any]) -> dict[str, Any]:
    """Describes the body: an image, or a form with images."""
    form = {"schema": {"type": "object", "properties": files, "required": list(files)}}
    image = {"schema": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {"application/octet-stream": image, "image/*": image, "multipart/form-data": form},
    }


def operation(text: str, answer: dict[str, Any], problems: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    """Describes an operation with its answers."""
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": answer}}
    content = {"application/problem+json": {"schema": reference("Problem")}}
    for status in problems:
        responses[str(status)] = {"description": PROBLEMS[status], "content": content}
    return {"summary": text, "responses": responses, **more}


def as_json(name: str) -> dict[str, Any]:
    """Describes an answer in JSON."""
    return {"application/json": {"schema": reference(name)}}


def describe(*, explains: bool, token: bool) -> dict[str, Any]:
    """Describes a server.

    Args:
        explains: Whether it explains answers.
        token: Whether it asks for a token.
    """
    asked = (401,) if token else ()
    image = {"type": "string", "format": "binary"}
    text = {"text/plain": {"schema": STRING}}
    anything = {"application/json": {"schema": {"type": "object"}}}
    open_to_all: dict[str, Any] = {"security": []}
    paths: dict[str, Any] = {
        "/v1/predict": {"post": operation(
            "Says what is on images.", as_json("Predictions"), (*asked, *ASKING),
            parameters=[TOPK, MODEL], requestBody=body({"files": list_of(image)}),
        )},
        "/v1/models": {"get": operation("Lists the models.", as_json("Models"), asked)},
        "/healthz": {"get": operation("Says that the server lives.", as_json("Status"), **open_to_all)},
        "/readyz": {"get": operation("Says whether it takes requests.", as_json("Status"), (503,), **open_to_all)},
        "/metrics": {"get": operation("Counters for Prometheus.", text, asked)},
        "/openapi.json": {"get": operation("This description.", anything, asked)},
    }  # fmt: skip
    if explains:
        answer = as_json("Explanation") | {"image/png": {"schema": image}}
        paths["/v1/explain"] = {"post": operation(
            "Says what in an image spoke for an answer.", answer, (*asked, *ASKING),
            parameters=[CLASS, MODEL], requestBody=body({"file": image}),
        )}  # fmt: skip
    components: dict[str, Any] = {"schemas": SCHEMAS}
    described_all: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "supertokenvit", "version": "1"},
        "paths": paths, "components": components,
    }  # fmt: skip
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described_all["security"] = [{"token": []}]
    return described_all
