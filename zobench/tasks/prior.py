"""Content-free prompts, whose scores calibration subtracts, and the token before an empty one.

MeZO's code scores a choice after an empty prompt from its second token on where the tokenizer puts
no beginning-of-sequence token in front: for one token the score is 0, and nothing is calibrated.
Here such a choice comes after the tokenizer's BOS token or, without one, its eos token. It is the
choice that follows the prompt: the codes strip the space before it where the prompt is empty
(sst2_bare, copa_bare, winogrande), and so compare the scores of two different tokens.
"""

from typing import Any

from zobench.errors import UserError


def first_token(tokenizer: Any) -> int | None:
    """BOS, or else eos; None for a tokenizer that has neither."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return next((token for token in known if token is not None), None)


def check_start(prompt: str, where: str, tokenizer: Any) -> None:
    """Raise UserError for an empty content-free prompt, where no token can stand in its place.

    where: the row, or the setting where the prompt is the same for all rows.
    """
    if first_token(tokenizer) is not None or tokenizer(prompt)["input_ids"]:
        return
    raise UserError(
        f"{where}: the content-free prompt (task.content_free) is empty and this tokenizer has"
        " neither a BOS nor an eos token to score the choices after; give task.content_free a text"
    )
