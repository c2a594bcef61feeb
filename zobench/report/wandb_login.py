"""Whether the user is logged in to W&B: the only place in `report` that imports wandb."""

from zobench.environment import refused
from zobench.errors import UserError


def require_login() -> None:
    """Raise UserError unless a W&B key is at hand; asks nobody and does not go online.

    Also for an environment variable that W&B does not take.
    """
    import wandb

    for name, reason in refused("WANDB_", lambda one: wandb.Settings().update_from_env_vars(one)):
        raise UserError(f"{name}: {reason}; correct it, or unset it")
    # Silent, for else login() asks the server for the user's name; online, for WANDB_MODE=offline
    # is about runs, and with it login() would not look for a key.
    wandb.setup(settings=wandb.Settings(silent=True, mode="online"))
    try:
        found = wandb.login(prompt=False, verify=False)
    except wandb.errors.AuthenticationError as error:
        raise UserError(f"W&B: {error}") from error
    if not found:
        raise UserError("not logged in to W&B: run `wandb login`, or set WANDB_API_KEY")
