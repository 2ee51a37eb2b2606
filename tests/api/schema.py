"""As much of OpenAPI's schemas as api/openapi.json uses: does a value have the shape, and which of the
described fields has anybody seen?"""
import json
import pathlib

DOC = json.loads((pathlib.Path(__file__).resolve().parents[2] / "api/openapi.json").read_text(encoding="utf-8"))
TYPES = {"string": str, "boolean": bool, "array": list, "object": dict}


def resolved(schema):
    while "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        schema = DOC["components"]["schemas"][name]
    return schema


class Checker:
    def __init__(self):
        self.seen = {}  # id of an object schema: (where, its fields, those that were seen)

    def check(self, value, schema, where):
        schema = resolved(schema)
        if value is None:
            assert schema.get("nullable"), f"{where} is null"
            return
        if "oneOf" in schema:
            assert any(self.fits(value, s, where) for s in schema["oneOf"]), f"{where}: {value!r} fits none"
            return
        kind = schema["type"]
        if kind in ("integer", "number"):
            good = int if kind == "integer" else (int, float)
            assert isinstance(value, good) and not isinstance(value, bool), f"{where}: {value!r} is no {kind}"
            assert schema.get("minimum", value) <= value <= schema.get("maximum", value), f"{where}: {value}"
        else:
            assert isinstance(value, TYPES[kind]), f"{where}: {value!r} is no {kind}"
        assert value in schema.get("enum", [value]), f"{where}: {value!r} is not described"
        if kind == "array":
            for item in value:
                self.check(item, schema["items"], where + "[]")
        elif kind == "object":
            self.check_object(value, schema, where)

    def check_object(self, value, schema, where):
        fields = schema.get("properties")
        if fields is None:
            for key, item in value.items():
                self.check(item, schema["additionalProperties"], f"{where}.{key}")
            return
        seen = self.seen.setdefault(id(schema), (where, set(fields), set()))[2]
        seen |= set(value)
        assert set(value) <= set(fields), f"{where}: {set(value) - set(fields)} are not described"
        missing = set(schema.get("required", [])) - set(value)
        assert not missing, f"{where}: {missing} are missing"
        for key, item in value.items():
            self.check(item, fields[key], f"{where}.{key}")

    def fits(self, value, schema, where):
        try:
            self.check(value, schema, where)
            return True
        except AssertionError:
            return False

    def unseen(self):
        return [f"{where}.{name}" for where, fields, seen in self.seen.values() for name in sorted(fields - seen)]
