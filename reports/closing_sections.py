"""What every report ends with: where its numbers come from, how to get them again, and how they are made."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reports import tables
from reports.base import Base
from reports.evaluated import Evaluation
from reports.sections import Section, Table
from reports.terms import EVALUATION_TERMS, HOLM, TRAINING_TERMS

if TYPE_CHECKING:
    from reports.report import Report

KEPT_VERSIONS = ("torch", "diffusers", "transformers", "peft", "accelerate", "numpy")
"""Packages whose version decides about numbers; named where a report says how to make it again."""
TORCH_BUILD = re.compile(r"\+(cpu|xpu|cu\d+|rocm[\d.]+)$")
TORCH_INDEX = "https://download.pytorch.org/whl/"
"""Where PyTorch offers its builds by name: package indexes have one of them."""


def all_versions(report: Report) -> list[Mapping[str, Any]]:
    """The versions that each run and evaluation noted."""
    found = [run.record["versions"] for arm in report.arms for run in arm.runs]
    return found + [versions for one in report.evaluations if (versions := one.protocol.get("versions"))]


def version_table(records: Iterable[Mapping[str, Any]]) -> Table:
    """One row per package; several values where records differ."""
    found = list(records)
    names = sorted({str(key) for record in found for key in record})
    rows = tuple((name, ", ".join(sorted({str(record.get(name, "–")) for record in found}))) for name in names)
    return Table("Versions", ("package", "version"), rows)


def evaluation_facts(found: Evaluation) -> list[tuple[str, str]]:
    """How an evaluation was made."""
    protocol, scheduler = found.protocol, found.protocol.get("scheduler") or {}
    wanted = ("model", "model_hash", "steps", "guidance", "device", "data", "train")
    said = ", ".join(f"{key} {protocol[key]}" for key in wanted if protocol.get(key) is not None)
    unrelated = len(protocol.get("unrelated") or [])
    counts = f"{len(protocol['prompts'])} prompts, {len(protocol['seeds'])} seeds, {unrelated} unrelated prompts"
    facts = [(f"Evaluation {found.title}", f"{said}; {scheduler.get('class', 'unknown scheduler')}; {counts}")]
    facts += [(f"Network {n.get('name')}", network_words(n)) for n in protocol.get("networks", [])]
    for label in found.adapters:
        place = found.labels.index(label)
        path, digest = (str(found.data[key].values[place]) for key in ("path", "digest"))
        run = f"; training run {found.runs[label].record['name']}" if label in found.runs else ""
        facts.append((f"Adapter {label}", f"{found.kind(label)} at {path}, sha256 {digest}{run}"))
    return facts


def network_words(network: Mapping[str, Any]) -> str:
    """What a feature network is, and how pictures reach it."""
    said = f"{network.get('what')}, {network.get('source')}, sha256 {network.get('sha256')}"
    return f"{said}; {network.get('size')} pixels, {network.get('resize')}; {network.get('quantisation')}"


def provenance_section(report: Report, prefix: str = "") -> Section:
    """Where every number comes from."""
    runs = [run for arm in report.arms for run in arm.runs]
    facts: list[tuple[str, str]] = []
    if runs:
        facts += [
            ("Model", f"{runs[0].record['model']} {runs[0].record['model_hash']}"),
            ("Data", str(runs[0].record["data"])),
        ]
    if probed := own_cube(report):
        facts.append(("Probe", str(probed.path)))
    facts += [fact for one in report.evaluations for fact in evaluation_facts(one)]
    configs = [(arm.label, json.dumps(arm.config, indent=1, sort_keys=True, default=str)) for arm in report.arms]
    shown = ([tables.runs(report.arms)] if runs else []) + [version_table(all_versions(report))]
    return Section(
        f"{prefix}provenance", "Provenance", tables=tuple(shown), kind="provenance",
        extra={"facts": facts, "configs": configs},
    )  # fmt: skip


def version_of(name: str, records: Iterable[Mapping[str, Any]]) -> str:
    """The version of a package that all records name; empty where they differ, which is left to people, or say none."""
    found = {str(record[name]) for record in records if record.get(name)}
    return found.pop() if len(found) == 1 else ""


def pinned(records: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """A command that installs the versions that the numbers were made with, in a clone, and what it does in words."""
    every = list(records)
    found = {name: version for name in KEPT_VERSIONS if (version := version_of(name, every))}
    own = version_of("spectra-adapt", every)
    if not found and not own:
        return "", ""
    build = TORCH_BUILD.search(found.get("torch", ""))
    index = ["--extra-index-url", f"{TORCH_INDEX}{build[1]}"] if build else []
    parts = [f"{name}=={version if name == 'torch' and build else version.partition('+')[0]}"
             for name, version in found.items()]  # fmt: skip
    words = f"Install the versions that made these numbers, in a clone of spectra-adapt{f' {own}' * bool(own)}."
    return words, shlex.join(["pip", "install", ".", *parts, *index])


def own_cube(report: Report) -> Base | None:
    """The base model where it was probed by itself; None where an evaluation watched it."""
    within = report.base is not None and report.base.path.parent in [one.path for one in report.evaluations]
    return None if within else report.base


def reproduce_section(report: Report, prefix: str = "") -> Section:
    """Commands to copy, in the order in which they are run."""
    steps: list[tuple[str, str]] = []
    words, install = pinned(all_versions(report))
    if install:
        steps.append((words, install))
    probed = own_cube(report)
    if probed and probed.cube.attrs.get("command"):
        steps.append(("Watch the base model generate.", tables.command_of(probed.cube.attrs["command"])))
    for arm in report.arms:
        commands = "\n".join(tables.command_of(run.record["command"]) for run in arm.runs)
        steps.append((f"Train {arm.label}.", commands))
    for one in report.evaluations:
        if commands := commands_of(one):
            steps.append((f"Evaluate the adapters of {one.title}.", commands))
    inputs = [str(run.path) for arm in report.arms for run in arm.runs] + [str(one.path) for one in report.evaluations]
    cube = ["--cube", str(probed.path)] if probed else []
    chosen = ["--against", report.against] if report.against else []
    command = shlex.join(["adapt", "report", *inputs, *cube, *chosen, "--out", "report.html"])
    steps.append(("Write this report.", command))
    note = "Equal versions, seeds and settings give equal numbers on the same kind of device."
    return Section(f"{prefix}reproduce", "How to reproduce", notes=(note,), kind="reproduce", extra={"steps": steps})


def commands_of(found: Evaluation) -> str:
    """One line for each call that added adapters to an evaluation; stores of earlier versions name the first alone."""
    first = found.protocol.get("command")
    called = [str(one) for one in found.data["command"].values] if "command" in found.data else []
    return "\n".join(dict.fromkeys(one for one in [tables.command_of(first) if first else "", *called] if one))


def method_section(report: Report) -> Section:
    """How the numbers are made."""
    every = [report, *report.tasks]
    terms = list(TRAINING_TERMS) if any(one.arms for one in every) else []
    terms += EVALUATION_TERMS if any(one.evaluations for one in every) else []
    return Section("method", "How the numbers are made", kind="method", nav="Method", extra={"terms": [*terms, HOLM]})
