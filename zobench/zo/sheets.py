"""Passes over all slots at once, planned without a look at each of them.

A pass of one step differs from the same pass of the step before by keys and a few scales, where a
sampler's directions are the same but for their keys (`Sampler.steady`) and a rule moves all
matrices alike and all vectors alike (`Rule.alike`). Then the tables of the fused pass are kept, and
these columns written anew: a model of 400 tensors costs Python little more than one of 4. All else
is planned slot by slot, to the same bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zobench.zo.feedback import Feedback, Key, Point, Replay
from zobench.zo.passes.move import Move
from zobench.zo.passes.tables import Tables
from zobench.zo.rules.base import Rule
from zobench.zo.samplers.base import Sampler, Steady
from zobench.zo.scalars import present
from zobench.zo.sheet import Sheet
from zobench.zo.space import Slot


class Asked(NamedTuple):
    """An update: what the rule is to do with the feedback, from the point where the weights are."""

    rule: Rule
    feedback: Feedback
    at: Point
    keys: Sequence[Key]
    lr: float
    step: int

    def replays(self, slot: Slot, sampler: Sampler) -> list[Replay]:
        """The keys' directions on the slot, with what each of them is needed for."""
        at = {} if slot.away else self.at
        drawn = [(key, sampler.direction(slot, key)) for key in self.keys]
        weight = sampler.weight(slot)
        return [self.feedback.replay(k, z, at, weight) for k, z in drawn if z is not None]

    def move(self, slot: Slot, replays: Sequence[Replay]) -> Move | None:
        """What the rule does to the slot."""
        recalled = {*self.rule.recall()}
        moving = [r for r in replays if r.moves or r.key in recalled]
        return self.rule.update(slot, moving, lr=self.lr, step=self.step)


class Sheets:
    """Plans what it can for all slots together; says False where they have to be asked."""

    def __init__(self, slots: Sequence[Slot], sampler: Sampler) -> None:
        self.slots, self.sampler = slots, sampler
        self.forget()

    def forget(self) -> None:
        """Nothing of what was seen holds any more: state was replaced."""
        self._sheet: Sheet | None = None
        self._step: int | None = None  # at which the sheet was made
        self._rule: Rule | None = None  # whose state it points to

    def walk(self, at: Point, target: Point) -> bool:
        """Take all slots from the point to the target, through their clean weights."""
        keys = [*{**at, **target}]
        sheet = self._sheet_for(keys)
        if sheet is None:
            return False
        if not at:
            sheet.keep()
        tables = sheet.tables(keys)
        for place, key in enumerate(keys):
            back = -at.get(key, 0.0) * sheet.scales
            tables.terms["first"][:, place] = np.where(sheet.kept != 0, 0.0, back)
            tables.terms["second"][:, place] = target.get(key, 0.0) * sheet.scales
        sheet.run(tables, away=bool(target))
        return True

    def point(self, point: Point) -> tuple[Sheet, Tables] | None:
        """A pass to the point from clean weights, of which parts can be taken."""
        keys = [key for key, scale in point.items() if scale != 0.0]
        sheet = self._sheet_for(keys)
        if sheet is None or sheet.on_gpu:
            return None
        tables = sheet.tables(keys)
        for place, key in enumerate(keys):
            tables.terms["first"][:, place] = point[key] * sheet.scales
        return sheet, tables._replace(terms=tables.terms.reshape(-1))

    def update(self, asked: Asked) -> bool:
        """Restore all slots and apply the feedback."""
        sampler, rule = self.sampler, asked.rule
        learns = type(sampler).observe is not Sampler.observe
        revises = type(sampler).revise is not Sampler.revise
        if learns or revises or sampler.weighted or not rule.alike:
            return False
        sheet = self._sheet_for(asked.keys)
        if sheet is None or any(slot.rounding.stream is not None for slot in sheet.slots):
            return False
        if self._rule is not rule:
            moves = [asked.move(slot, asked.replays(slot, sampler)) for slot in sheet.slots]
            if any(move is None for move in moves):
                return False
            sheet.add_state([move for move in moves if move])
            self._rule = rule
        tables = sheet.tables(asked.keys)
        for kind in sheet.kinds:
            slot = sheet.slots[kind[0]]
            replays = asked.replays(slot, sampler)
            if move := asked.move(slot, replays):
                sheet.write(tables, kind, move, [r.direction for r in replays])
        sheet.run(tables, away=False)
        return True

    def _sheet_for(self, keys: Sequence[Key]) -> Sheet | None:
        """The sheet of the keys' step; None where there is none."""
        steady = self.sampler.steady
        if steady is Steady.NEVER or not keys or present() is not None:
            return None  # with scalars that only the device knows each pass is planned by itself
        step = keys[0].step
        if any(key.query < 0 or key.step != step for key in keys):
            return None
        new = self._step is None or (steady is Steady.STEP and self._step != step)
        if new or (self._sheet is not None and self._sheet.stale()):
            self.forget()
            self._step, self._sheet = step, Sheet.of(self.slots, self.sampler, keys[0])
        return self._sheet
