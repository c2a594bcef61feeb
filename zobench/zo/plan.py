"""The only thing that moves weights: displaces, restores and updates all slots, one pass each.

Every pass goes through the clean point: from w + a z to w + b z it adds -a z, then b z, with one
draw. A float32 sum within one binade that is undone by the same number comes back to its bits, so
the weights drift at binade borders only; -2 eps z in one sum would drift at every step. A 16-bit
weight moves together with its remainder, as one float32. 16 bits alone drift at every step, in any
order, as they do in MeZO's code.

Where the law is a recipe, the same for all directions but for their keys, passes are written into
the tables of all slots at once (`zobench.zo.slot_tables`): a model of 400 tensors costs Python
little more than one of 4. What no table holds is moved slot by slot, to the same bits.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from zobench.zo.directions import Drawn
from zobench.zo.feedback import FIRST_PROBE, GRAD, MOVE, DrawnTerm, Feedback, Key, Point, Request
from zobench.zo.moves import Move, Recipe, Term
from zobench.zo.part import PartError
from zobench.zo.passes import fused
from zobench.zo.passes.apply import apply_moves
from zobench.zo.passes.kernel import IN_TORCH
from zobench.zo.passes.tables import Tables
from zobench.zo.rules.base import BlockChange, Change, Kind, Rule, SlotChange
from zobench.zo.samplers.base import Sampler
from zobench.zo.scalars import current_scalars
from zobench.zo.slot_tables import SlotTables, Sums
from zobench.zo.space import Slot

_RESTORE = Change({})


class Update(NamedTuple):
    """The update of one step."""

    rule: Rule
    feedback: Feedback
    lr: float
    step: int


class Way(NamedTuple):
    """Along one direction: where the weights are, and how far on the estimator moves them."""

    at: float
    on: float


class Plan:
    """Moves the slots of one optimizer, in place: no copy of the weights is made.

    Attributes:
        at: Where the weights are, relative to the clean point; the update has to undo it.
        by_slot: True plans every slot by itself, for comparisons: the bits are the same.
    """

    hint = ""
    by_slot = False

    def __init__(self, slots: Sequence[Slot], sampler: Sampler) -> None:
        self.slots, self.sampler = slots, sampler
        self.at: Point = {}
        self._kinds = [Kind.of(slot) for slot in slots]
        self._by_key = sampler.by_key
        self._lasting = type(sampler).begin_step is Sampler.begin_step
        self._compared = False  # what the sampler says of its directions, with what it returns
        self.forget()

    def forget(self) -> None:
        """Drop the tables: the state that they point to was replaced."""
        self._tables: SlotTables | None = None
        self._step: int | None = None  # whose law they have
        self._rule: Rule | None = None  # whose state they point to
        self._first: Recipe | None = None  # of the first slot, in the step before

    def begin_step(self) -> None:
        """Look whether a law that should last has changed; call it after the sampler's.

        Raises PartError where it has: z is the law of the run unless the sampler has a
        `begin_step`.
        """
        sampler = self.sampler
        if not self._lasting or self._by_key:
            return
        slot, before = self.slots[0], self._first
        self._first = sampler.recipe(slot)
        if before and not (self._first and self._first.same(before)):
            raise PartError(
                f"sampler {type(sampler).__name__}: the law of z on {slot.name} is not that of the"
                " step before; change it in begin_step"
            )

    @contextmanager
    def evaluating(self, request: Request) -> Iterator[None]:
        """The model computes with w + sum of scale * z(key), inside and until the next pass."""
        self.go_to(request.point)
        yield

    def leave(self) -> None:
        """Back to the clean weights, without an update."""
        self.go_to({})

    def go_to(self, point: Point) -> None:
        """Take all slots to the point, through their clean weights.

        Args:
            point: Scales of directions; those that are 0 are left out.
        """
        target = {key: scale for key, scale in point.items() if scale != 0.0}
        if target == self.at:
            return
        keys = [*{**self.at, **target}]
        if tables := self._tables_for(keys):
            self._displace(tables, keys, target)
        else:
            apply_moves([*self._displacements(keys, target)])
        self.at = target

    def _displace(self, tables: SlotTables, keys: Sequence[Key], target: Point) -> None:
        if not self.at:
            tables.save_clean()
        written = tables.written(keys)
        for place, key in enumerate(keys):
            back = -self.at.get(key, 0.0) * tables.scales
            written.terms["first"][:, place] = np.where(tables.clean_copies != 0, 0.0, back)
            written.terms["second"][:, place] = target.get(key, 0.0) * tables.scales
        tables.run(written, displaced=bool(target))

    def _displacements(self, keys: Sequence[Key], target: Point) -> Iterator[Move]:
        """The same slot by slot."""
        for slot in self.slots:
            drawn = [(k, z) for k in keys if (z := self.sampler.direction(slot, k)) is not None]
            if not drawn:
                continue
            at = {} if slot.restore() else self.at
            if target:
                slot.save_clean()
            yield slot.move([Term(z, -at.get(k, 0.0), target.get(k, 0.0)) for k, z in drawn])

    def update(self, update: Update) -> tuple[list[Slot], Sums | None]:
        """Restore all slots and apply the feedback.

        Returns the slots that took part in the step, and what the sampler wants summed, if it could
        be summed on the way.
        """
        channels = update.feedback.channels
        estimated = [key for channel in channels.values() for key in channel]
        keys = [*dict.fromkeys([*self.at, *estimated, *update.rule.past_keys()])]
        done = self._update_together(update, keys) or self._update_each(update, keys)
        self.at = {}
        return done

    def _update_together(
        self, update: Update, keys: Sequence[Key]
    ) -> tuple[list[Slot], Sums | None] | None:
        """None where each slot has to be planned by itself."""
        sampler, rule = self.sampler, update.rule
        revised = type(sampler).released_update is not Sampler.released_update
        tables = None if revised else self._tables_for(keys)
        if tables is None or any(slot.rounding.stream is not None for slot in tables.slots):
            return None
        changes = []
        grad = update.feedback.channels.get(GRAD, {})
        for (kind, weight), places in self._alike(tables).items():
            own = grad if weight == 1.0 else {key: c * weight for key, c in grad.items()}
            change = rule.change(own, kind, lr=update.lr, step=update.step) or _RESTORE
            if not isinstance(change, Change) or not _by_kernel(change, tables.slots[places[0]]):
                return None
            changes.append((places, change))
        if len(tables.taking) < len(self.slots):
            others = {*range(len(self.slots))} - {*tables.taking.tolist()}
            kinds = {self._kinds[place] for place in others}
            if any(rule.change({}, kind, lr=update.lr, step=update.step) for kind in kinds):
                return None  # momentum, say, moves what takes no part
        if self._rule is not rule:
            tables.forget_state()
            self._rule = rule
        moved = update.feedback.channels.get(MOVE, {})
        ways = {key: Way(self.at.get(key, 0.0), moved.get(key, 0.0)) for key in keys}
        written = tables.written(keys)
        _write(tables, written, changes, ways)
        taking = [tables.slots[place] for place in tables.taking]
        sums = None
        weights = sampler.sums(update.feedback.channels)
        if weights and not tables.on_gpu:
            widths = [recipe.width for recipe in tables.recipes]
            sums = Sums(taking, widths, [weights.get(key, 0.0) for key in keys])
            sums.write(written, tables.taking)
        tables.run(written, displaced=False)
        return taking, sums

    def _alike(self, tables: SlotTables) -> dict[tuple[Kind, float], list[int]]:
        """Places of the slots that change alike."""
        weighted = self.sampler.weighted
        alike: dict[tuple[Kind, float], list[int]] = {}
        for place in tables.taking.tolist():
            slot = tables.slots[place]
            weight = self.sampler.weight(slot) if weighted else 1.0
            alike.setdefault((self._kinds[place], weight), []).append(place)
        return alike

    def _update_each(self, update: Update, keys: Sequence[Key]) -> tuple[list[Slot], Sums | None]:
        taking, moves = [], []
        changes: dict[object, Change | BlockChange | SlotChange | None] = {}
        past = {*update.rule.past_keys()}
        for slot in self.slots:
            drawn = self.drawn_terms(slot, update.feedback, keys)
            slot.restore()
            if drawn:
                taking.append(slot)
                drawn = self.sampler.released_update(slot, drawn)
            grad = {t.key: t.grad for t in drawn if GRAD in t.coefficients}
            kind = Kind.of(slot)
            alike = (kind, *grad.items())
            if alike not in changes:
                changes[alike] = update.rule.change(grad, kind, lr=update.lr, step=update.step)
            moving = [term for term in drawn if term.moves or term.key in past]
            change = changes[alike] or (_RESTORE if moving else None)
            if change and (move := change.move(slot, moving)):
                moves.append((move, [term.key for term in moving]))
        weights = self.sampler.sums(update.feedback.channels)
        sums = None
        able = len(moves) == len(taking) and all(
            fused.able(move) and weights.keys() <= {*drawn} for move, drawn in moves
        )
        if weights and able:
            widths = [_width(move) for move, _ in moves]
            sums = Sums(taking, widths, [weights.get(key, 0.0) for key in moves[0][1]])
            pairs = zip(moves, sums.parts, strict=True)
            apply_moves(replace(move, row_sums=part) for (move, _), part in pairs)
        else:
            apply_moves(move for move, _ in moves)
        return taking, sums

    def drawn_terms(self, slot: Slot, feedback: Feedback, keys: Iterable[Key]) -> list[DrawnTerm]:
        """The keys' directions on the slot, with their coefficients."""
        at: Point = {} if slot.displaced else self.at
        found = [(key, self.sampler.direction(slot, key)) for key in keys]
        weight = self.sampler.weight(slot)
        return [feedback.drawn_term(k, z, at, weight) for k, z in found if z is not None]

    def _tables_for(self, keys: Sequence[Key]) -> SlotTables | None:
        """Those of the keys' step; None where there are none."""
        if self.by_slot or not keys or current_scalars() is not None or self._by_key:
            return None  # with scalars that only the device knows each pass is planned by itself
        step = keys[0].step
        for key in keys:
            if not 0 <= key.query < FIRST_PROBE or key.step != step:
                return None
        if self._tables is not None and self._tables.stale():
            self.forget()
        if self._tables is None and self._step is None:
            self._tables = SlotTables.of(self.slots)
        known = self._step == step or (self._lasting and self._step is not None)
        if self._tables is not None and not known:
            recipes = [self.sampler.recipe(slot) for slot in self.slots]
            if not all(recipe is None or recipe.in_float32 for recipe in recipes):
                self._tables = None
            else:
                self._tables.set_recipes(recipes)
                self._compare(recipes, keys)
        self._step = step
        return self._tables if self._tables is not None and len(self._tables.taking) else None

    def _compare(self, recipes: Sequence[Recipe | None], keys: Sequence[Key]) -> None:
        """Raise PartError where a direction is not what the law makes of its key; once a run."""
        if self._compared:
            return
        self._compared = True
        for slot, recipe in zip(self.slots, recipes, strict=True):
            for key in keys:
                z = self.sampler.direction(slot, key)
                if recipe is None:
                    alike = z is None
                else:
                    stream = Drawn.of(recipe, key, slot.id).stream
                    alike = isinstance(z, Drawn) and z.stream == stream and z.form.same(recipe)
                if not alike:
                    raise PartError(
                        f"sampler {type(self.sampler).__name__}: its direction on {slot.name} is"
                        " not what its recipe says; define one of the two"
                    )


def _write(
    tables: SlotTables,
    written: Tables,
    changes: Sequence[tuple[Sequence[int], Change]],
    ways: Mapping[Key, Way],
) -> None:
    """Restore the slots and change them. changes: by their places; ways: in the pass's order."""
    places = np.concatenate([own for own, _ in changes])
    counts = [len(own) for own, _ in changes]
    decay = np.repeat([change.decay for _, change in changes], counts)
    written.targets["decay"][places] = decay
    for own, change in changes:
        if change.state is not None:
            tables.set_state(written, own, change.state)
    copied = np.array([tables.slots[place].displaced for place in places])
    scales = tables.scales[places]
    for number, (key, way) in enumerate(ways.items()):
        back = np.where(copied, way.on, way.on - way.at)
        on = np.repeat([change.scales.get(key, 0.0) for _, change in changes], counts)
        written.terms["first"][places, number] = decay * back * scales
        written.terms["second"][places, number] = on * scales


def _width(move: Move) -> int:
    recipes = [term.direction.recipe for term in move.terms]
    return max((recipe.width for recipe in recipes if recipe), default=1)


def _by_kernel(change: Change, slot: Slot) -> bool:
    return change.state is None or change.state(slot).kernel != IN_TORCH
