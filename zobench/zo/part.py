"""The common base of samplers, estimators and rules: requirements and state."""

from zobench.zo.space import Slot


class PartError(ValueError):
    """A part does something else than it says."""


class Part:
    """A third of a method. Parts go together when each finds what it `needs` in another.

    Attributes:
        needs: Names from `zobench.zo.feedback`: feedback channels and abilities that others must
            give.
        gives: Those that this part gives.
        device_scalars: True for an estimator or rule that only adds, subtracts, multiplies and
            divides its scalars, so that they may be numbers that only the device knows
            (`zobench.zo.scalars`).
    """

    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()
    device_scalars: bool = False

    def state_bytes(self, slot: Slot) -> int:
        """Bytes kept in the slot's buffers from step to step.

        Args:
            slot: A trainable tensor.

        Returns:
            Bytes; a test compares them with the buffers' sizes.
        """
        del slot
        return 0

    def state_dict(self) -> dict[str, object]:
        """Scalars that the slots' buffers do not hold.

        Returns:
            Plain data, for a checkpoint.
        """
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take back what `state_dict` gave.

        Args:
            state: Of a part with the same settings.
        """
