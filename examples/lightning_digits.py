"""A Lightning module on scikit-learn's handwritten digits, trained by forward passes (MeZO)."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from zobench.integrations.transformers import optimizer_of


class Digits(lightning.LightningModule):
    automatic_optimization = False  # it would call backward() in the closure

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def training_step(self, batch: list[torch.Tensor]) -> None:
        loss = self.optimizers().step(lambda: cross_entropy(self.layer(batch[0]), batch[1]))
        self.log("loss", loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_of("optimizer=mezo", "optimizer.lr=3e-2")(self.named_parameters())


if __name__ == "__main__":
    images, classes = map(torch.tensor, load_digits(return_X_y=True))
    rows = DataLoader(TensorDataset(images.float() / 16, classes), batch_size=256)
    trainer = lightning.Trainer(max_epochs=100, logger=False, enable_checkpointing=False)
    trainer.fit(Digits(), rows)
    print(f"{trainer.global_step} steps: loss {trainer.callback_metrics['loss']:.3f}")
