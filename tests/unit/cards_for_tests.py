"""What the hub looks at in a model card when it is asked, or when one is pushed, as far as its documentation says.

That is modelcard.md of hub-docs: licences are known identifiers, `other` has a name and a link; datasets and base
models are names on the hub; each result of `model-index` has a task, a data set and metrics with type and value.
"""

import re

import yaml

from visae.publish.licenses import LICENSES

REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+")


def mistakes(content: str) -> list[str]:
    """What is wrong with a card's metadata, in words."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if found is None:
        return ["no metadata between two lines of ---"]
    data = yaml.safe_load(found[1])
    if not isinstance(data, dict):
        return ["metadata: keys and values are allowed"]
    wrong = [] if data.get("license") in (None, *LICENSES) else ["license: no identifier of the hub"]
    if data.get("license") == "other" and not (data.get("license_name") and data.get("license_link")):
        wrong.append("license: other without license_name and license_link")
    for key in ("tags", "datasets", "language"):
        if not all(isinstance(entry, str) for entry in data.get(key) or ()):
            wrong.append(f"{key}: texts are allowed")
    for key in ("library_name", "pipeline_tag", "model_name"):
        if not isinstance(data.get(key, ""), str):
            wrong.append(f"{key}: a text is allowed")
    for key in ("datasets", "base_model"):
        names = data.get(key) or []
        if not all(REPOSITORY.fullmatch(name) for name in ([names] if isinstance(names, str) else names)):
            wrong.append(f"{key}: names on the hub are allowed")
    for model in data.get("model-index") or ():
        wrong += [] if model.get("name") else ["model-index: name is missing"]
        for result in model.get("results") or ():
            needed = (("task", "type"), ("dataset", "type"), ("dataset", "name"))
            wrong += [
                f"model-index: {part}.{key} is missing" for part, key in needed if not result.get(part, {}).get(key)
            ]
            good = all({"type", "value"} <= metric.keys() for metric in result["metrics"])
            wrong += [] if good else ["model-index: a metric has no type or value"]
    return wrong
