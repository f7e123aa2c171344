"""Tests the file with which Kubernetes starts training on several machines (the manifest).

The manifest must follow Kubernetes' API, and each process (pod) must get its own TF_CONFIG.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.training.cluster import find_cluster

yaml = pytest.importorskip("yaml", reason="PyYAML is missing (make docs installs it)")

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "docs" / "kubernetes" / "indexed-job.yaml"
RULES = json.loads((ROOT / "tests" / "support" / "kubernetes_rules.json").read_text())["types"]
KINDS = {("batch/v1", "Job"): "V1Job", ("v1", "Service"): "V1Service"}
PLAIN = {"str": str, "int": int, "bool": bool}
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # a name that is allowed as a host name (RFC 1123)


def find_faults(value: Any, kind: str, path: str) -> Iterator[str]:
    """Yield what is wrong with a value that must have the type `kind` of Kubernetes' API."""
    if kind in PLAIN:
        if type(value) is not PLAIN[kind]:
            yield f"{path} is {value!r}, not {kind}"
    elif kind.startswith("List["):
        for place, each in enumerate(value if isinstance(value, list) else [None]):
            yield from find_faults(each, kind[5:-1], f"{path}[{place}]")
    elif kind.startswith("Dict["):
        for name, each in value.items():
            yield from find_faults(each, kind[5:-1].split(", ")[1], f"{path}.{name}")
    else:
        rules = RULES[kind]
        if not isinstance(value, dict):
            yield f"{path} is {value!r}, not {kind}"
            return
        yield from (f"{path} has no {name}" for name in rules["required"] if name not in value)
        yield from (f"{path} has no field {name}" for name in value.keys() - rules["fields"].keys())
        for name in value.keys() & rules["fields"].keys():
            yield from find_faults(value[name], rules["fields"][name], f"{path}.{name}")


def read_manifest() -> dict[str, Any]:
    """Return the objects of the manifest, as a dict from the kind of an object to the object."""
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text())}


def find_all_faults(objects: dict[str, Any]) -> list[str]:
    """Return everything that is wrong: faults of single objects, and references to objects that do not exist."""
    faults = [
        fault for kind, each in objects.items() for fault in find_faults(each, KINDS[each["apiVersion"], kind], kind)
    ]
    if faults:
        return faults
    job, service = objects["Job"], objects["Service"]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    wanted = {
        "every index has a pod": spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"],
        "pods of a job are restarted": pod["restartPolicy"] in ("OnFailure", "Never"),
        "the service gives names to pods": service["spec"]["clusterIP"] == "None"
        and service["spec"]["publishNotReadyAddresses"],
        "the service has the pods of the job": service["spec"]["selector"] == {"job-name": job["metadata"]["name"]},
        "the pods are in the service's domain": pod["subdomain"] == service["metadata"]["name"],
        "mounts have volumes": all(
            mount["name"] in volumes for each in pod["containers"] for mount in each["volumeMounts"]
        ),
        "names are labels": all(LABEL.fullmatch(each["metadata"]["name"]) for each in objects.values()),
    }
    return [what for what, true in wanted.items() if not true]


def test_the_manifest_is_valid() -> None:
    assert find_all_faults(read_manifest()) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda job: job["spec"].update(completionMod="Indexed"), "has no field completionMod"),
        (lambda job: job["spec"].update(completions="2"), "Job.spec.completions is '2', not int"),
        (lambda job: job["spec"].pop("template"), "Job.spec has no template"),
        (lambda job: job["spec"]["template"]["spec"]["containers"][0]["env"][0].pop("name"), "has no name"),
        (lambda job: job["spec"].update(parallelism=1), "every index has a pod"),
        (lambda job: job["spec"]["template"]["spec"].update(restartPolicy="Always"), "pods of a job are restarted"),
        (lambda job: job["spec"]["template"]["spec"].update(subdomain="other"), "the pods are in the service's domain"),
    ],
)
def test_a_mistake_in_the_manifest_is_found(spoil: Callable[[dict[str, Any]], Any], fault: str) -> None:
    objects = copy.deepcopy(read_manifest())
    spoil(objects["Job"])
    assert any(fault in found for found in find_all_faults(objects)), find_all_faults(objects)


def test_each_pod_is_one_worker_of_the_list() -> None:
    """Test the environment variables of each pod. A variable can contain the values of the variables before it."""
    objects = read_manifest()
    job, port = objects["Job"], objects["Service"]["spec"]["ports"][0]["port"]
    name, domain = job["metadata"]["name"], objects["Service"]["metadata"]["name"]
    [container] = job["spec"]["template"]["spec"]["containers"]
    annotation = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    for index in range(job["spec"]["completions"]):
        made: dict[str, str] = {}
        for variable in container["env"]:
            field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            value = {annotation: str(index)}[field] if field else variable["value"]
            for name_before, value_before in made.items():
                value = value.replace(f"$({name_before})", value_before)
            made[variable["name"]] = value
        cluster = find_cluster(environment=made)
        assert cluster is not None and cluster.rank == index
        assert cluster.addresses == tuple(
            f"{name}-{each}.{domain}:{port}" for each in range(job["spec"]["completions"])
        )


def test_the_command_of_a_pod_is_one_that_the_program_takes() -> None:
    [container] = read_manifest()["Job"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "lowlevel_simclr.train"]
    config, options = parse_run(container["args"])
    assert config.train.devices == "all" and str(options.out) == "/runs/two-workers"
