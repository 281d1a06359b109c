"""Reads the YAML files of deploy/: what PyYAML makes of them, and whether Kubernetes' own schemas take them.

    yaml.py json FILE                   the documents of a file, as one JSON array
    yaml.py kubernetes VERSION FILE…    validates each document, unknown fields refused; what is wrong goes to stderr
"""

import json
import sys

# This file's folder would come before the library of the same name.
sys.path.pop(0)
import yaml  # noqa: E402


def documents(path):
    with open(path) as file:
        return list(yaml.safe_load_all(file))


def validate(version, paths):
    import kubernetes_validate

    faults = 0
    for path in paths:
        for document in documents(path):
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except Exception as error:
                faults += 1
                print(f"{path}: {error}", file=sys.stderr)
    return faults


command, *rest = sys.argv[1:]
if command == "json":
    print(json.dumps(documents(rest[0])))
else:
    sys.exit(1 if validate(rest[0], rest[1:]) else 0)
