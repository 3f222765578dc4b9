"""What `deploy/` holds is well-formed, fits the code as it is, and lets nobody in without a word."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from configs import load_config
from orchestration.cluster.serving_front import SETTINGS, FrontSettings, front_environment
from orchestration.commands.serve_application import DoorArguments

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(DEPLOY.glob("*.sh"))


def loaded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return found


def only(properties: dict[str, Any], *, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object that has these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(needed), "additionalProperties": False}


# The part of KubeRay 1.6's definitions (ray.io/v1) and of Kubernetes' pods that the files use: whatever stands elsewhere,
# or under another name, is a mistake. Operators drop what they do not know without a word.
TEXT, FLAG, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
AMOUNTS = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^\d+(\.\d+)?(m|[KMGT]i?)?$"}}
MOUNT = only({"name": TEXT, "mountPath": TEXT, "readOnly": FLAG}, needed=("name", "mountPath"))
CONTAINER = only(
    {
        "name": TEXT,
        "image": TEXT,
        "env": {"type": "array", "items": only({"name": TEXT, "value": TEXT}, needed=("name", "value"))},
        "ports": {"type": "array", "items": only({"name": TEXT, "containerPort": COUNT}, needed=("containerPort",))},
        "resources": only({"requests": AMOUNTS, "limits": AMOUNTS}, needed=("requests", "limits")),
        "volumeMounts": {"type": "array", "items": MOUNT},
    },
    needed=("name", "image", "resources"),
)
VOLUME = only(
    {
        "name": TEXT,
        "persistentVolumeClaim": only({"claimName": TEXT}, needed=("claimName",)),
        "configMap": only({"name": TEXT}, needed=("name",)),
        "secret": only({"secretName": TEXT}, needed=("secretName",)),
        "emptyDir": only({"medium": {"const": "Memory"}, "sizeLimit": TEXT}),
    },
    needed=("name",),
)
POD = only(
    {
        "spec": only(
            {"containers": {"type": "array", "items": CONTAINER}, "volumes": {"type": "array", "items": VOLUME}},
            needed=("containers",),
        )
    },
    needed=("spec",),
)
STARTS = {"type": "object", "additionalProperties": TEXT}
GROUP = only(
    {
        "groupName": TEXT,
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": STARTS,
        "template": POD,
    },
    needed=("groupName", "template", "rayStartParams"),
)
CLUSTER = only(
    {
        "rayVersion": TEXT,
        "authOptions": only({"mode": {"const": "token"}}, needed=("mode",)),
        "headGroupSpec": only({"rayStartParams": STARTS, "template": POD}, needed=("template", "rayStartParams")),
        "workerGroupSpecs": {"type": "array", "items": GROUP},
    },
    needed=("rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"),
)


def resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return only(
        {
            "apiVersion": {"const": "ray.io/v1"},
            "kind": {"const": kind},
            "metadata": only({"name": TEXT}, needed=("name",)),
            "spec": only(spec, needed=tuple(spec)),
        },
        needed=("apiVersion", "kind", "metadata", "spec"),
    )


RAY_JOB = resource(
    "RayJob",
    {
        "entrypoint": TEXT,
        "backoffLimit": COUNT,
        "shutdownAfterJobFinishes": FLAG,
        "ttlSecondsAfterFinished": COUNT,
        "rayClusterSpec": CLUSTER,
    },
)
RAY_SERVICE = resource(
    "RayService",
    {
        "deploymentUnhealthySecondThreshold": COUNT,
        "serviceUnhealthySecondThreshold": COUNT,
        "serveConfigV2": TEXT,
        "rayClusterConfig": CLUSTER,
    },
)
SKYPILOT = only(
    {
        "name": TEXT,
        "resources": only({"accelerators": {"type": "string", "pattern": r"^\w+:\d+$"}, "disk_size": COUNT}),
        "num_nodes": COUNT,
        "workdir": TEXT,
        "file_mounts": {
            "type": "object",
            "additionalProperties": only(
                {"name": TEXT, "store": {"enum": ["s3", "gcs", "azure", "r2"]}, "mode": {"enum": ["MOUNT", "COPY"]}}
            ),
        },
        "envs": {"type": "object", "additionalProperties": TEXT},
        "setup": TEXT,
        "run": TEXT,
    },
    needed=("resources", "run"),
)


@pytest.mark.parametrize(
    ("name", "schema"),
    [("kuberay/rayjob.yaml", RAY_JOB), ("kuberay/rayservice.yaml", RAY_SERVICE), ("skypilot.yaml", SKYPILOT)],
)
def test_every_word_is_one_that_is_known(name: str, schema: dict[str, Any]) -> None:
    jsonschema.validate(loaded(name), schema)


@pytest.mark.parametrize(
    ("name", "cluster"), [("kuberay/rayjob.yaml", "rayClusterSpec"), ("kuberay/rayservice.yaml", "rayClusterConfig")]
)
def test_a_cluster_is_of_our_ray_and_mounts_what_it_names(name: str, cluster: str) -> None:
    spec = loaded(name)["spec"][cluster]
    assert spec["rayVersion"] == version("ray")
    pods = [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    for pod in pods:
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            # Data is where every node sees it.
            assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_a_run_on_kubernetes_is_a_command_of_ours() -> None:
    words = loaded("kuberay/rayjob.yaml")["spec"]["entrypoint"].split()
    assert words[:2] == ["distill", "run"] and words[words.index("--ray-address") + 1] == "auto"
    overrides = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    config = load_config(ROOT / "configs/qwen2.5-7b-to-1.5b.yaml", overrides=overrides)
    assert str(config.runtime.run_root) == "/data/runs"


def test_the_door_on_kubernetes_is_served_by_serve_and_with_tls() -> None:
    served = ServeDeploySchema.model_validate(
        yaml.safe_load(loaded("kuberay/rayservice.yaml")["spec"]["serveConfigV2"])
    )
    [app] = served.applications
    module, name = app.import_path.split(":")
    assert callable(getattr(import_module(module), name))
    arguments = DoorArguments.model_validate(app.args)
    config = load_config(ROOT / "configs/qwen2.5-7b-to-1.5b.yaml", overrides=arguments.overrides)
    assert config.runtime.serve.hosts == ("stillroom-serve-svc",)
    assert served.http_options.ssl_certfile and served.http_options.ssl_keyfile
    assert served.logging_config is not None and served.logging_config.enable_access_log is False
    # The process that listens is bounded as that of `distill serve` is.
    head = loaded("kuberay/rayservice.yaml")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    environment = {each["name"]: each["value"] for each in head["containers"][0]["env"]}
    # All but the settings, which have their defaults there.
    assert (front_environment(config.runtime.serve).items() - environment.items()) == {
        (SETTINGS, FrontSettings().model_dump_json())
    }
    assert served.http_options.keep_alive_timeout_s == config.runtime.serve.idle_s


def test_skypilot_starts_what_is_there() -> None:
    task = loaded("skypilot.yaml")
    assert load_config(ROOT / task["envs"]["CONFIG"]).runtime.nodes == task["num_nodes"]
    assert "deploy/ray-nodes.sh distill run" in task["run"] and "RAY_AUTH_TOKEN" in task["run"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")


def test_parts_of_other_files_that_are_scripts_are_sound_too() -> None:
    task = loaded("skypilot.yaml")
    for part in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=part, text=True, check=True)


def test_slurm_is_asked_for_what_slurm_knows() -> None:
    text = (DEPLOY / "slurm.sh").read_text(encoding="utf-8")
    asked = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.MULTILINE)
    assert len(asked) == text.count("\n#SBATCH ")
    assert {name for name, _ in asked} == {
        "job-name", "nodes", "ntasks-per-node", "exclusive", "time", "signal", "output",
    }  # fmt: skip
    # Slurm stops looking for them at the first command.
    assert text.index("#SBATCH") < text.index("set -euo") and text.rindex("#SBATCH") < text.index("set -euo")


@pytest.mark.parametrize("lacking", ["RAY_AUTH_TOKEN", "HEAD", "PORT", "NODES", "RANK"])
def test_no_node_starts_without_a_word_or_a_place(lacking: str) -> None:
    environment = {"HEAD": "127.0.0.1", "PORT": "1", "NODES": "1", "RANK": "0", "RAY_AUTH_TOKEN": "word"}
    del environment[lacking]
    ended = subprocess.run(
        [str(DEPLOY / "ray-nodes.sh"), "true"],
        env=environment | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode != 0 and lacking in ended.stderr


def instructions(text: str) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile, each with what follows it."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def test_the_image_is_made_of_what_is_there() -> None:
    said = instructions((DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    known = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in said} <= known
    assert next(word for word, _ in said if word != "ARG") == "FROM"
    copied = [name for word, rest in said if word == "COPY" for name in rest.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied)
    # What is copied is what the build is given, and nothing else is: no data, no token, no environment.
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    given = {line[1:] for line in patterns if line.startswith("!")}
    assert patterns[0] == "*" and given == set(copied)


def test_nobody_in_the_image_is_root() -> None:
    said = instructions((DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    assert [rest for word, rest in said if word == "USER"] == ["stillroom"]
    # The commands stand where a login shell looks.
    assert any("ln -s" in rest and "/usr/local/bin" in rest for word, rest in said if word == "RUN")
