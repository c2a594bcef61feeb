"""The check for a W&B login: the only file in `report` that imports wandb."""

from zobench.environment import refused
from zobench.errors import UserError


def require_login() -> None:
    """Raise UserError unless there is a W&B key; without a prompt and without the network.

    Also for an environment variable that W&B does not accept.
    """
    import wandb

    for name, reason in refused("WANDB_", lambda one: wandb.Settings().update_from_env_vars(one)):
        raise UserError(f"{name}: {reason}; correct it, or unset it")
    # Silent, since otherwise login() requests the user's name from the server; online, since with
    # WANDB_MODE=offline, which is meant for runs, login() would not look for a key.
    wandb.setup(settings=wandb.Settings(silent=True, mode="online"))
    try:
        found = wandb.login(prompt=False, verify=False)
    except wandb.errors.AuthenticationError as error:
        raise UserError(f"W&B: {error}") from error
    if not found:
        raise UserError("not logged in to W&B: run `wandb login`, or set WANDB_API_KEY")
