"""`python -m tests.clients.postman`: a Postman collection of all operations, made from the schema and run by newman.

Requests are in an order in which each finds what it needs on a server with its samples, and take the examples of the
schema. Ids of what was created are kept in variables of the collection, so no request reaches what a user has made.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from tests.server import ROOT, serving

Json: TypeAlias = dict[str, Any]

FILE = ROOT / "docs" / "postman.json"
_NEWMAN = Path(__file__).resolve().parent / "node_modules/newman/bin/newman.js"

_USE = "Set the variables baseUrl and apiKey. Run it from its beginning: requests take ids from earlier answers."
_END = "the end of a library"
_FOLDERS = ("server", "libraries", "documents", "chunks", "query")
_LAST_FOLDERS = ("jobs", _END)
# These end what the others need.
_LAST = ("reembed", "get_reembedding", "cancel_reembedding", "delete_library")
# What these ask for may have ended before they are sent.
_MAY_BE_OVER = {"get_reembedding": 404, "cancel_reembedding": 404, "cancel_job": 409}
_ID = re.compile(r"\{(\w+)\}")
# A time that is still to come, when the schema is read.
_FUTURE = re.compile(r"2030-\d\d-\d\dT[\d:]+Z")
_SET_FUTURE = 'pm.collectionVariables.set("in_an_hour", new Date(Date.now() + 3600000).toISOString());'


def make_collection(schema: Json) -> Json:
    """The collection, in Postman's format 2.1."""
    operations = [
        Operation(path, method, operation, schema)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    folders: dict[str, list[Operation]] = {name: [] for name in _FOLDERS}
    for operation in operations:
        folders.setdefault(operation.folder, []).append(operation)
    for name in _LAST_FOLDERS:
        folders[name] = folders.pop(name)
    ids = dict.fromkeys(name for operation in operations for name in operation.ids)
    variables = {"baseUrl": "http://127.0.0.1:8000", "apiKey": ""} | dict.fromkeys(ids, "")
    return {
        "info": {
            "name": schema["info"]["title"],
            "description": f"{schema['info']['description']} {_USE}",
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{apiKey}}", "type": "string"}]},
        "variable": [{"key": name, "value": value} for name, value in variables.items()],
        "event": [_script("prerequest", _SET_FUTURE)],
        "item": [
            {
                "name": name,
                "item": [request for one in sorted(chosen, key=lambda one: one.rank) for request in one.requests()],
            }
            for name, chosen in folders.items()
        ],
    }


class Operation:
    """An operation of the schema, as requests of the collection."""

    def __init__(self, path: str, method: str, described: Json, schema: Json) -> None:
        self.path, self.method, self.described = path, method, described
        self.name = described["operationId"]
        self.ids: list[str] = _ID.findall(path)
        self.folder = _END if self.name in _LAST else described["tags"][0]
        below = {other.rpartition("/")[0]: _ID.findall(other)[-1] for other in schema["paths"] if other.endswith("}")}
        posts = {other: schema["paths"].get(other, {}).get("post") for other in below}
        # The ids that answers of POSTs to lists have. A job that is to make something, 202, does not know its id.
        self.creatable = {below[other] for other, post in posts.items() if post and "202" not in post["responses"]}
        self.created = below[path] if method == "post" and below.get(path) in self.creatable else None

    @property
    def rank(self) -> int:
        """The place in the folder: what creates, what replaces, what reads, what changes, what deletes."""
        if self.folder == _END:
            return _LAST.index(self.name)
        if self.created:
            return 0
        return 4 if self.path.endswith("/delete") else {"put": 1, "patch": 3, "delete": 4}.get(self.method, 2)

    def requests(self) -> Iterator[Json]:
        """One request for each example of the body."""
        content = self.described.get("requestBody", {}).get("content", {})
        examples = [(kind, one) for kind in content for one in content[kind].get("examples", {}).values()]
        if not examples:
            yield self._item(self.described["summary"], next(iter(content), None), None)
        for media_type, example in examples:
            name = self.described["summary"] + (f", {example['summary']}" if len(examples) > 1 else "")
            # Examples of queries say which sample they ask.
            library, colon, _ = example.get("summary", "").partition(": ")
            yield self._item(name, media_type, example["value"], library if colon else None)

    def _item(self, name: str, media_type: str | None, body: Any, library: str | None = None) -> Json:
        parameters = self.described.get("parameters", [])
        target = _ID.sub(r":\1", self.path)
        headers = [_parameter(one) for one in parameters if one["in"] == "header"]
        request: Json = {
            "method": self.method.upper(),
            "description": self.described.get("description") or self.described["summary"],
            "header": headers,
            "url": {
                "raw": "{{baseUrl}}" + target,
                "host": ["{{baseUrl}}"],
                "path": target.lstrip("/").split("/"),
                "query": [_parameter(one) for one in parameters if one["in"] == "query"],
                "variable": [
                    {"key": key, "value": library if library and key == "library_id" else "{{" + key + "}}"}
                    for key in self.ids
                ],
            },
        }
        if media_type is not None:
            headers.insert(0, {"key": "Content-Type", "value": media_type})
            text = body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
            request["body"] = {"mode": "raw", "raw": _FUTURE.sub("{{in_an_hour}}", text)}
        return {"name": name, "event": [*self._before(), _script("test", *self._after())], "request": request}

    def _before(self) -> Iterator[Json]:
        lines = [f'pm.collectionVariables.unset("{name}");' for name in self._answered()]
        if lines:
            lines.insert(0, "// If this fails, what an earlier run made is not taken for what this one made.")
        for name in self.ids:
            if name not in self.creatable:
                lines.append(f"// {name} is in an answer of this collection, so nothing else is touched.")
                lines.append(f'if (!pm.variables.get("{name}")) pm.execution.skipRequest();')
        if lines:
            yield _script("prerequest", *lines)

    def _after(self) -> Iterator[str]:
        over = _MAY_BE_OVER.get(self.name)
        allowed = "below(400)" if over is None else f"satisfy((code) => code < 400 || code === {over})"
        yield f'pm.test("It is done.", () => pm.expect(pm.response.code).to.{allowed});'
        for name, id in self._answered().items():
            yield f'if (pm.response.code < 300) pm.collectionVariables.set("{name}", {id});'

    def _answered(self) -> dict[str, str]:
        """Ids that are in the answer, by the names of their variables, and where."""
        answer = self.described["responses"].get("202", {}).get("content", {}).get("application/json", {})
        if answer.get("schema", {}).get("$ref", "").endswith("/Job"):
            return {"job_id": "pm.response.json().id"}
        return {self.created: "pm.response.json().id ?? pm.response.json().ids[0]"} if self.created else {}


def _parameter(parameter: Json) -> Json:
    return {
        "key": parameter["name"],
        "value": str(parameter.get("example", parameter["schema"].get("default", ""))),
        "description": parameter.get("description", ""),
        "disabled": not parameter.get("required"),
    }


def _script(when: str, *lines: str) -> Json:
    return {"listen": when, "script": {"type": "text/javascript", "exec": list(lines)}}


def render(schema: Json) -> str:
    """The text of the file."""
    return json.dumps(make_collection(schema), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file and run it; the exit status of newman."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"VECTORDB_SAMPLE": 1, "VECTORDB_WORKERS": 1}
        with serving(Path(folder) / "data", makes_database=True, **settings) as server:
            schema = httpx.get(f"{server.url}/api/schema", headers={"Accept": "application/json"}).raise_for_status()
            FILE.write_text(render(schema.json()))
            key = server.authorization["Authorization"].removeprefix("Bearer ")
            given = ["--env-var", f"baseUrl={server.url}", "--env-var", f"apiKey={key}"]
            command = ["node", str(_NEWMAN), "run", str(FILE), *given]
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            return subprocess.run(command, env=os.environ | {"PATH": path}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
