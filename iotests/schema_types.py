# SPDX-License-Identifier: MIT
"""What query-qmp-schema says, for iotests: values that are checked against it, and two schemas that are compared."""


class Schema:
    def __init__(self, daemon):
        self.of = {entity["name"]: entity for entity in daemon.command("query-qmp-schema")}

    def kind(self, name):
        """Of a type, so that those of two schemas can be compared: what is inside of objects is not in it."""
        entity = self.of[name]
        meta = entity["meta-type"]
        if meta == "enum":
            return "enum"
        if meta == "array":
            return f"[{self.kind(entity['element-type'])}]"
        if meta == "alternate":
            return "|".join(sorted(self.kind(member["type"]) for member in entity["members"]))
        return "object" if meta == "object" else "int" if entity["json-type"] == "int" else entity["name"]

    def members(self, path, name, out, seen=()):
        """All members below the type @name: path -> kind, with a ? before those that may be absent, and values of enums."""
        entity = self.of[name]
        if name in seen or entity["meta-type"] not in ("object", "array", "alternate"):
            return out
        seen = seen + (name,)
        if entity["meta-type"] == "array":
            return self.members(path + "[]", entity["element-type"], out, seen)
        if entity["meta-type"] == "alternate":
            for member in entity["members"]:
                self.members(path, member["type"], out, seen)
            return out
        for member in entity["members"]:
            below = f"{path}.{member['name']}"
            values = self.of[member["type"]].get("values")
            out[below] = ("?" if "default" in member else "") + self.kind(member["type"]), frozenset(values or ())
            self.members(below, member["type"], out, seen)
        for variant in entity.get("variants", []):
            self.members(f"{path}<{variant['case']}>", variant["type"], out, seen)
        return out

    def wrong(self, value, name, path=""):
        """What is wrong with a value of the type: a list of sentences."""
        entity = self.of[name]
        return getattr(self, "wrong_" + entity["meta-type"])(value, entity, path)

    @staticmethod
    def wrong_builtin(value, entity, path):
        kinds = {"string": str, "int": int, "number": (int, float), "boolean": bool, "null": type(None), "value": object}
        wanted = kinds[entity["json-type"]]
        good = isinstance(value, wanted) and (wanted is object or isinstance(value, bool) == (wanted is bool))
        return [] if good else [f"{path}: {value!r} is no {entity['json-type']}"]

    @staticmethod
    def wrong_enum(value, entity, path):
        return [] if value in entity["values"] else [f"{path}: {value!r} is none of {entity['values']}"]

    def wrong_array(self, value, entity, path):
        if not isinstance(value, list):
            return [f"{path}: no array"]
        return [text for i, one in enumerate(value) for text in self.wrong(one, entity["element-type"], f"{path}[{i}]")]

    def wrong_object(self, value, entity, path):
        if not isinstance(value, dict):
            return [f"{path}: no object"]
        members = {member["name"]: member for member in entity["members"]}
        for variant in entity.get("variants", []):
            if variant["case"] == value.get(entity["tag"]):
                members.update({member["name"]: member for member in self.of[variant["type"]]["members"]})
        told = [f"{path}.{key}: not in the schema" for key in value if key not in members]
        told += [f"{path}.{key}: missing" for key, member in members.items() if "default" not in member and key not in value]
        for key in set(members) & set(value):
            told += self.wrong(value[key], members[key]["type"], f"{path}.{key}")
        return told
