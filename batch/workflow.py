"""A workflow in API format: which of its nodes load, paint and save, and its settings. It is data; nothing of it runs here."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch.catalogue import Item, digest
from batch.errors import BatchError

Prompt = dict[str, Any]

ROLES = ("picture", "mask", "painter", "prompt", "negative", "save", "uncertainty")
LOADERS = ("LoadImage", "LoadImageMask")
SAVERS = ("SaveImage", "PreviewImage", "SaveImageWebsocket")
# Where nodes of the pack give their posterior.
POSTERIOR_OUTPUT = {"VIPaintFit": 0, "VIPaintInpaint": 1}
OUTPUTS = ("fills", "uncertainty", "posterior")
# Folders on the server, see nodes/routes.py.
UPLOADS, POSTERIORS = "vipaint_batch", "batch"
# Of what a key is made: another number where pictures are prepared in another way, which repaints all.
KEY_VERSION = 1
SEED_BITS = 48  # the editor's numbers hold 53


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


@dataclass(frozen=True)
class Filled:
    """A workflow for one picture: the prompt, and the nodes whose pictures are wanted, by output."""

    prompt: Prompt
    savers: dict[str, str]
    posterior: bool


@dataclass(frozen=True)
class Workflow:
    """nodes: ids of the roles found. seeds: nodes whose seed is set. outputs: what is wanted of `OUTPUTS`, None: what
    the workflow saves. fixed_seed: whether a setting gives all pictures one seed.
    settings: those applied, by node and input."""

    prompt: Prompt
    nodes: Mapping[str, str]
    seeds: Sequence[str]
    outputs: Sequence[str] | None = None
    fixed_seed: bool = False
    settings: Mapping[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def mask_from(self) -> str:
        """`file`: a node loads it; `alpha`: the picture's transparency; `none`: the workflow needs no mask."""
        if "mask" in self.nodes:
            return "file"
        return "alpha" if any(link == [self.nodes["picture"], 1] for link in _links(self.prompt)) else "none"

    @property
    def classes(self) -> set[str]:
        """All node classes that a server needs."""
        found = {node["class_type"] for node in self.prompt.values()} | {"SaveImage"}
        if self.outputs and "uncertainty" in self.outputs:
            found.add("VIPaintUncertainty")
        return found | ({"VIPaintSavePosterior"} if self.outputs and "posterior" in self.outputs else set())

    @property
    def identity(self) -> str:
        """Digest of all that is the same for every picture."""
        bare = {
            name: {"class_type": node["class_type"], "inputs": self._constant(name)}
            for name, node in self.prompt.items()
        }
        return digest([KEY_VERSION, bare, dict(self.nodes), list(self.outputs or ()), self.mask_from])

    def _constant(self, name: str) -> dict[str, Any]:
        """A node's inputs without those that every picture sets."""
        varying = {
            ("picture", "image"),
            ("mask", "image"),
            ("save", "filename_prefix"),
            ("uncertainty", "filename_prefix"),
        }
        mine = {key for role, key in varying if self.nodes.get(role) == name}
        mine |= {"seed"} if name in self.seeds and not self.fixed_seed else set()
        return {key: value for key, value in self.prompt[name]["inputs"].items() if key not in mine}

    def base_seed(self) -> int:
        """The workflow's own seed."""
        return int(self.prompt[self.seeds[0]]["inputs"]["seed"])

    def seed_for(self, item: Item, base_seed: int) -> int:
        """The table's seed, one that a setting gives to all pictures, or one of the picture's own."""
        if "seed" in item.options:
            return int(item.options["seed"])
        return self.base_seed() if self.fixed_seed else _seed_of(base_seed, item.name)

    def check_options(self, options: Mapping[str, str]) -> set[tuple[str, str]]:
        """Node and input of the table's columns. Raises BatchError where one has no place in this workflow."""
        for role in ("prompt", "negative"):
            if role in options and role not in self.nodes:
                raise BatchError(
                    f"expected a node that encodes the {role}, found none in the workflow. Use a workflow with CLIP Text "
                    f"Encode, name the node with --node {role}=ID, or leave the column out"
                )
        if "seed" in options and not options["seed"].isdecimal():
            raise BatchError(f"expected a whole number in the column seed, found {options['seed']!r}")
        extra = {name: value for name, value in options.items() if name not in ("prompt", "negative", "seed")}
        return {self.find(name, value)[:2] for name, value in extra.items()}

    def find(self, name: str, text: str) -> tuple[str, str, Any]:
        """Node, input and value of a setting `INPUT` or `NODE.INPUT`, where NODE is an id or a title."""
        for at, letter in enumerate(name):
            if letter == "." and (node := _by_name(self.prompt, name[:at])) is not None:
                return node, name[at + 1 :], self._value(node, name[at + 1 :], text)
        painter = self.nodes["painter"]
        holders = [painter] if name in self.prompt[painter]["inputs"] else []
        holders = holders or [node for node, data in self.prompt.items() if name in data["inputs"]]
        if len(holders) == 1:
            return holders[0], name, self._value(holders[0], name, text)
        if not holders and self.prompt[painter]["class_type"].startswith("VIPaint") and "." not in name:
            # An input that the workflow leaves at its default; servers tell whether it exists.
            return painter, name, self._value(painter, name, text)
        found = ", ".join(f"{node}.{name}" for node in holders) or "none"
        raise BatchError(
            f"expected a setting NODE.INPUT of one node, found {name!r}, which {found} could be. Name the node"
        )

    def _value(self, node: str, name: str, text: str) -> Any:
        old = self.prompt[node]["inputs"].get(name)
        if is_link(old):
            raise BatchError(
                f"expected an input with a value for the setting {name!r}, found that {node}.{name} is connected to "
                f"{old[0]}. Set that node's inputs"
            )
        try:
            if isinstance(old, bool):
                return {"true": True, "false": False}[text.lower()]
            if isinstance(old, int):
                return int(text)
            if isinstance(old, float):
                return float(text)
            if old is None:
                return json.loads(text)
        except (ValueError, KeyError):
            if old is not None:
                kind = "true or false" if isinstance(old, bool) else f"a number like {old}"
                raise BatchError(f"expected {kind} for the setting {name!r}, found {text!r}") from None
        return text

    def fill(
        self,
        job: str,
        seed: int,
        options: Mapping[str, str],
        picture: str = "picture.png",
        mask: str | None = "mask.png",
    ) -> Filled:
        """The prompt for one picture whose files lie on the server under the job's name."""
        prompt = copy.deepcopy(self.prompt)
        for name, text in options.items():
            if name in ("prompt", "negative"):
                prompt[self.nodes[name]]["inputs"]["text"] = text
            elif name != "seed":
                node, key, value = self.find(name, text)
                prompt[node]["inputs"][key] = value
        for node in self.seeds:
            prompt[node]["inputs"]["seed"] = seed
        prompt[self.nodes["picture"]]["inputs"]["image"] = f"{UPLOADS}/{job}/{picture}"
        if "mask" in self.nodes and mask is not None:
            inputs = prompt[self.nodes["mask"]]["inputs"]
            inputs["image"] = f"{UPLOADS}/{job}/{mask}"
            if "channel" in inputs:
                inputs["channel"] = "red"
        wanted = self._wanted(prompt)
        savers: dict[str, str] = {}
        for output in ("fills", "uncertainty"):
            saver = self.nodes.get("save" if output == "fills" else output)
            if saver is None and output in wanted:
                saver = _add_uncertainty(prompt, self.nodes["save"])
            if saver is None:
                continue
            if output not in wanted:
                del prompt[saver]
                continue
            # Of its own kind and folder, whatever the workflow's node would do: there it is found and can be deleted.
            inputs = {"images": prompt[saver]["inputs"]["images"], "filename_prefix": f"{UPLOADS}/{job}/{output}"}
            prompt[saver] = {"class_type": "SaveImage", "inputs": inputs}
            savers[output] = saver
        if "posterior" in wanted:
            _add_posterior(prompt, job)
        return Filled(prompt, savers, "posterior" in wanted)

    def _wanted(self, prompt: Prompt) -> set[str]:
        if self.outputs is not None:
            return set(self.outputs)
        wanted = {"fills"} | ({"uncertainty"} if "uncertainty" in self.nodes else set())
        # One fill differs from none.
        return wanted - ({"uncertainty"} if prompt[self.nodes["painter"]]["inputs"].get("fills") == 1 else set())


def _add_uncertainty(prompt: Prompt, save: str) -> str:
    images = prompt[save]["inputs"]["images"]
    inputs = {"images": images, "fills": 0, "full_scale": 0.0}
    prompt["vipaint_batch_spread"] = {"class_type": "VIPaintUncertainty", "inputs": inputs}
    saver = {"class_type": "SaveImage", "inputs": {"images": ["vipaint_batch_spread", 0]}}
    prompt["vipaint_batch_uncertainty"] = saver
    return "vipaint_batch_uncertainty"


def _add_posterior(prompt: Prompt, job: str) -> None:
    prefix = f"{POSTERIORS}/{job}/posterior"
    present = [node for node in prompt.values() if node["class_type"] == "VIPaintSavePosterior"]
    for node in present:
        node["inputs"]["filename_prefix"] = prefix
    if present:
        return
    for kind, output in POSTERIOR_OUTPUT.items():
        for name in [name for name, node in prompt.items() if node["class_type"] == kind]:
            inputs = {"posterior": [name, output], "filename_prefix": prefix}
            prompt["vipaint_batch_posterior"] = {"class_type": "VIPaintSavePosterior", "inputs": inputs}
            return
    raise BatchError(
        f"expected a node that gives a posterior ({', '.join(POSTERIOR_OUTPUT)}), found none in the workflow. Leave "
        "`posterior` out of --outputs"
    )


def _seed_of(base: int, name: str) -> int:
    """A seed of a picture's own, the same in every run."""
    return int(digest([base, name]), 16) % 2**SEED_BITS


# --- reading ---


def load(
    file: Path,
    nodes: Mapping[str, str] | None = None,
    settings: Sequence[tuple[str, str]] = (),
    outputs: Sequence[str] | None = None,
) -> Workflow:
    """Reads a workflow, finds its nodes and applies settings. nodes: roles that the user names, by id or title."""
    try:
        prompt = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BatchError(f"expected a workflow in API format, found that {file} cannot be read: {error}") from error
    _check_format(prompt, file)
    named = {}
    for role, name in (nodes or {}).items():
        if role not in ROLES:
            raise BatchError(f"expected --node ROLE=NODE with a role of {', '.join(ROLES)}, found {role!r}")
        node = _by_name(prompt, name)
        if node is None:
            raise BatchError(f"expected a node with the id or title {name!r}, found {', '.join(prompt)}")
        named[role] = node
    found = _roles(prompt, named)
    seeds = [
        name
        for name, node in prompt.items()
        if isinstance(node["inputs"].get("seed"), int)
        and (node["class_type"].startswith("VIPaint") or name == found["painter"])
    ]
    if not seeds:
        raise BatchError(
            f"expected a node with a seed, found that {found['painter']} has none. Name it: --node painter=ID"
        )
    flow = Workflow(prompt, found, seeds, outputs)
    applied = {}
    for name, text in settings:
        node, key, value = flow.find(name, text)
        prompt[node]["inputs"][key] = value
        applied[node, key] = value
    fixed = any((node, "seed") in applied for node in seeds)
    flow = Workflow(prompt, found, seeds, outputs, fixed, applied)
    flow.fill("0" * 32, 0, {})  # tells what cannot be filled before any picture is read
    return flow


def _check_format(prompt: Any, file: Path) -> None:
    fix = "In ComfyUI choose Export (API)"
    if not isinstance(prompt, dict) or not prompt:
        raise BatchError(f"expected a workflow in API format, found no nodes in {file}. {fix}")
    if isinstance(prompt.get("nodes"), list):
        raise BatchError(f"expected a workflow in API format, found the editor's format in {file}. {fix}")
    for name, node in prompt.items():
        if not (
            isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
        ):
            raise BatchError(
                f"expected a workflow in API format, found no class_type and inputs in {name!r} of {file}. {fix}"
            )


def _by_name(prompt: Prompt, name: str) -> str | None:
    """A node by its id, or by its title where one has it. Raises BatchError where several do."""
    if name in prompt:
        return name
    found = [key for key, node in prompt.items() if _title(node) == name.strip().casefold()]
    if len(found) > 1:
        raise BatchError(f"expected one node with the title {name!r}, found {', '.join(found)}. Use an id")
    return found[0] if found else None


def _title(node: Mapping[str, Any]) -> str:
    meta = node.get("_meta")
    return str(meta.get("title", "")).strip().casefold() if isinstance(meta, dict) else ""


def _links(prompt: Prompt) -> Iterator[list[Any]]:
    return (value for node in prompt.values() for value in node["inputs"].values() if is_link(value))


def _upstream(prompt: Prompt, start: Any) -> Iterator[str]:
    """Nodes that a link leads to, nearest first."""
    seen, queue = set(), [start]
    while queue:
        link = queue.pop(0)
        if not is_link(link) or link[0] in seen or link[0] not in prompt:
            continue
        seen.add(link[0])
        yield link[0]
        queue += prompt[link[0]]["inputs"].values()


def _roles(prompt: Prompt, named: Mapping[str, str]) -> dict[str, str]:
    found = dict(named)

    def one(role: str, candidates: Sequence[str], needed: str) -> None:
        """Takes the only candidate, or of several the one whose id or title is the role's."""
        if role in found:
            return
        own = [name for name in candidates if name.casefold() == role]
        own = own or [name for name in candidates if _title(prompt[name]) == role]
        if len(candidates) == 1 or len(own) == 1:
            found[role] = (own or list(candidates))[0]
        elif needed or len(candidates) > 1:
            what = ", ".join(candidates) or "none"
            raise BatchError(
                f"expected one node that {needed or 'serves as ' + role}, found {what}. Use --node {role}=ID"
            )

    def of(*kinds: str) -> list[str]:
        return [name for name, node in prompt.items() if node["class_type"] in kinds]

    painters = [name for name, node in prompt.items() if node["class_type"].startswith("VIPaint")]
    painters = [name for name in painters if {"seed", "fills"} <= prompt[name]["inputs"].keys()]
    one("painter", painters, "paints, with a seed and fills")
    masks = of("LoadImageMask") or [
        name for name in of("LoadImage") if name == "mask" or _title(prompt[name]) == "mask"
    ]
    one("mask", masks, "")
    one("picture", [name for name in of("LoadImage") if name != found.get("mask")], "loads the picture")
    maps = [
        name
        for name in of(*SAVERS)
        if any(
            prompt[node]["class_type"] == "VIPaintUncertainty"
            for node in _upstream(prompt, prompt[name]["inputs"].get("images"))
        )
    ]
    one("uncertainty", maps, "")
    one("save", [name for name in of(*SAVERS) if name not in maps], "saves the fills")
    for role, socket in (("prompt", "positive"), ("negative", "negative")):
        link = prompt[found["painter"]]["inputs"].get(socket)
        texts = [name for name in _upstream(prompt, link) if isinstance(prompt[name]["inputs"].get("text"), str)]
        if texts:
            found.setdefault(role, texts[0])
    return found
