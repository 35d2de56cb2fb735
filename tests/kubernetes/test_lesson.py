"""The lesson's commands, as far as they can be checked without a cluster: what they name is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest
from markdown_it import MarkdownIt

from deploy.kubectl import NAMESPACE
from tests.kubernetes.conftest import ROOT, find, rendered

LESSON = ROOT / "kubernetes" / "README.md"
KINDS = {
    "cronjob": "CronJob",
    "deployment": "Deployment",
    "service": "Service",
    "statefulset": "StatefulSet",
}


def commands() -> list[list[str]]:
    """The kubectl commands of the lesson, and those that `make k8s` prints at its end, in words."""
    fences = [
        token.content for token in MarkdownIt().parse(LESSON.read_text(encoding="utf-8")) if token.info.strip() == "sh"
    ]
    lines = [line for text in fences for line in text.splitlines()]
    printed = (ROOT / "deploy" / "driver.py").read_text(encoding="utf-8")
    lines += [f"kubectl {line}" for line in re.findall(r"\{scope\} ([^\"]+)\"", printed)]
    return [shlex.split(line.replace("{{", "{").replace("}}", "}")) for line in lines if line.startswith("kubectl ")]


def test_what_the_commands_name_is_there() -> None:
    objects = rendered("production")
    seen = 0
    jobs = {words[words.index("job") + 2] for words in commands() if words[1:3] == ["create", "job"]}
    for words in commands():
        for word in words[1:]:
            kind, _, name = word.removeprefix("--from=").partition("/")
            if kind in KINDS:
                find(objects, KINDS[kind], name)
                seen += 1
            elif kind == "job" and name:
                assert name in jobs
            elif kind == "-l":
                assert words[words.index(word) + 1].partition("=")[0] == "app.kubernetes.io/name"
        if "set-context" in words:
            assert f"--namespace={NAMESPACE}" in words
    assert seen >= 8


def test_kubectl_knows_their_options() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    checked = 0
    general = subprocess.run(["kubectl", "options"], capture_output=True, text=True, timeout=60, check=True).stdout
    for words in commands():
        options = {re.split("=", word)[0] for word in words[2:] if word.startswith("--") and word != "--"}
        if "--" in words:
            options &= set(words[: words.index("--")])
        verb = [words[1], *(words[2:3] if words[1] in ("config", "create", "rollout") else [])]
        told = subprocess.run(
            ["kubectl", *verb, "--help"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for option in options:
            assert re.search(rf"{re.escape(option)}\b", told + general), f"{' '.join(verb)} has no {option}"
        checked += 1
    assert checked >= 15


def test_what_it_renders() -> None:
    for words in commands():
        if words[1] == "kustomize":
            assert (ROOT / words[2] / "kustomization.yaml").is_file()
            result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
            assert result.returncode == 0, result.stderr
