"""Passes over all slots at once, planned without a loop over the slots.

A pass of one step differs from the same pass of the step before by keys and a few scales, where a
sampler's directions are the same but for their keys (`Sampler.steady`) and a rule moves all
matrices in the same way and all vectors in the same way (`Rule.alike`). Then the tables of the
fused pass are kept, and only these columns are written: a model of 400 tensors costs Python little
more than one of 4. Everything else is planned slot by slot, to the same bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zobench.zo.feedback import DrawnTerm, Feedback, Key, Point
from zobench.zo.passes.move import Move
from zobench.zo.passes.tables import Tables
from zobench.zo.plan import Plan
from zobench.zo.rules.base import Rule
from zobench.zo.samplers.base import Sampler, Steady
from zobench.zo.scalars import current_scalars
from zobench.zo.space import Slot


class Update(NamedTuple):
    """An update: the rule, the feedback, and the point where the weights are."""

    rule: Rule
    feedback: Feedback
    at: Point
    keys: Sequence[Key]
    lr: float
    step: int

    def drawn_terms(self, slot: Slot, sampler: Sampler) -> list[DrawnTerm]:
        """The keys' directions on the slot, with their coefficients."""
        at = {} if slot.displaced else self.at
        found = [(key, sampler.direction(slot, key)) for key in self.keys]
        weight = sampler.weight(slot)
        return [self.feedback.drawn_term(k, z, at, weight) for k, z in found if z is not None]

    def move(self, slot: Slot, drawn: Sequence[DrawnTerm]) -> Move | None:
        """What the rule does to the slot."""
        past = {*self.rule.past_keys()}
        moving = [term for term in drawn if term.moves or term.key in past]
        return self.rule.update(slot, moving, lr=self.lr, step=self.step)


class Planner:
    """Passes over all slots at once; returns False where each slot has to be planned by itself."""

    def __init__(self, slots: Sequence[Slot], sampler: Sampler) -> None:
        self.slots, self.sampler = slots, sampler
        self.forget()

    def forget(self) -> None:
        """Drop the plan: the state that it points to was replaced."""
        self._plan: Plan | None = None
        self._step: int | None = None  # at which the plan was made
        self._rule: Rule | None = None  # whose state it points to

    def displace(self, at: Point, target: Point) -> bool:
        """Take all slots from the point to the target, through their clean weights."""
        keys = [*{**at, **target}]
        plan = self._plan_for(keys)
        if plan is None:
            return False
        if not at:
            plan.save_clean()
        tables = plan.tables(keys)
        for place, key in enumerate(keys):
            back = -at.get(key, 0.0) * plan.scales
            tables.terms["first"][:, place] = np.where(plan.clean_copies != 0, 0.0, back)
            tables.terms["second"][:, place] = target.get(key, 0.0) * plan.scales
        plan.run(tables, displaced=bool(target))
        return True

    def point(self, point: Point) -> tuple[Plan, Tables] | None:
        """A pass to the point from clean weights, of which parts can be taken."""
        keys = [key for key, scale in point.items() if scale != 0.0]
        plan = self._plan_for(keys)
        if plan is None or plan.on_gpu:
            return None
        tables = plan.tables(keys)
        for place, key in enumerate(keys):
            tables.terms["first"][:, place] = point[key] * plan.scales
        return plan, tables._replace(terms=tables.terms.reshape(-1))

    def update(self, update: Update) -> bool:
        """Restore all slots and apply the feedback."""
        sampler, rule = self.sampler, update.rule
        learns = type(sampler).observe is not Sampler.observe
        revised = type(sampler).released_update is not Sampler.released_update
        if learns or revised or sampler.weighted or not rule.alike:
            return False
        plan = self._plan_for(update.keys)
        if plan is None or any(slot.rounding.stream is not None for slot in plan.slots):
            return False
        if self._rule is not rule:
            moves = [update.move(slot, update.drawn_terms(slot, sampler)) for slot in plan.slots]
            if any(move is None for move in moves):
                return False
            plan.add_state([move for move in moves if move])
            self._rule = rule
        tables = plan.tables(update.keys)
        for kind in plan.kinds:
            slot = plan.slots[kind[0]]
            drawn = update.drawn_terms(slot, sampler)
            if move := update.move(slot, drawn):
                plan.write(tables, kind, move, [term.direction for term in drawn])
        plan.run(tables, displaced=False)
        return True

    def _plan_for(self, keys: Sequence[Key]) -> Plan | None:
        """The plan of the keys' step; None where there is none."""
        steady = self.sampler.steady
        if steady is Steady.NEVER or not keys or current_scalars() is not None:
            return None  # with scalars that only the device knows each pass is planned by itself
        step = keys[0].step
        if any(key.query < 0 or key.step != step for key in keys):
            return None
        new = self._step is None or (steady is Steady.STEP and self._step != step)
        if new or (self._plan is not None and self._plan.stale()):
            self.forget()
            self._step, self._plan = step, Plan.of(self.slots, self.sampler, keys[0])
        return self._plan
