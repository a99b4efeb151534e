"""From a folder to the list of what is to be painted: pairs, their problems, and what is done already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from batch import catalogue
from batch.catalogue import Catalogue, Item
from batch.errors import BatchError
from batch.pairing import Facts, Source, study
from batch.results import Results
from batch.workflow import Workflow


@dataclass
class Plan:
    """total: pictures found. done: recognised as painted from these inputs with these settings. changed: painted from
    others. waiting: to paint, changed ones among them. settings: nodes and inputs that the table's columns set."""

    total: int = 0
    done: int = 0
    changed: int = 0
    waiting: int = 0
    problems: int = 0
    unused: list[str] = field(default_factory=list)
    settings: set[tuple[str, str]] = field(default_factory=set)

    def __str__(self) -> str:
        parts = [f"{self.done} done", f"{self.waiting} to paint"]
        parts += [f"{self.changed} of these again, since inputs or settings changed"] if self.changed else []
        parts += [f"{self.problems} with problems"] if self.problems else []
        return f"{self.total} pictures: " + ", ".join(parts)


def make(
    source: Source,
    base: Catalogue,
    results: Results,
    workflow: Workflow,
    base_seed: int,
    workers: int,
    again: bool = False,
    step: Callable[[int, int], None] | None = None,
) -> Plan:
    """Checks the pairs in the catalogue. again: reads files that were not touched, too. step(number, total): called for every picture."""
    plan, identity = Plan(total=base.count()), workflow.identity
    plan.problems = base.count(catalogue.PROBLEM)
    new = base.count(catalogue.NEW)
    for number, (item, picture, mask) in enumerate(study(base, source.masked, workers, again), 1):
        if picture is None:
            plan.problems += 1
        else:
            _place(item, picture, mask, plan, base, results, workflow, identity, base_seed)
        if step is not None:
            step(number, new)
        if number % 1000 == 0:
            base.save()
    plan.unused = [path.name for path in base.unused_masks()] if source.masked and not source.shard else []
    base.save()
    return plan


def _place(
    item: Item,
    picture: Facts,
    mask: Facts | None,
    plan: Plan,
    base: Catalogue,
    results: Results,
    workflow: Workflow,
    identity: str,
    base_seed: int,
) -> None:
    """Tells what is done from what is to be painted."""
    try:
        plan.settings |= workflow.check_options(item.options)
    except BatchError as error:
        raise BatchError(f"{item.picture.name}: {error}") from error
    item = replace(item, digests=" ".join(facts["digest"] for facts in (picture, mask) if facts))
    seed = workflow.seed_for(item, base_seed)
    item = replace(item, key=catalogue.digest([identity, item.digests, dict(item.options), seed]))
    record = results.record(item.name)
    done = record is not None and record.get("key") == item.key
    plan.done += done
    plan.waiting += not done
    plan.changed += record is not None and not done
    base.update(
        item,
        digests=item.digests,
        key=item.key,
        pixels=picture["width"] * picture["height"],
        state=catalogue.DONE if done else catalogue.WAITING,
        late=int(not done and base.failed_before(item)),
    )
