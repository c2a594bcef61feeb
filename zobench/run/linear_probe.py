"""Linear probing: logistic regression fits the head's rows of the label words; no steps."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from zobench.errors import UserError
from zobench.run.zero_shot import ZeroShot
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.features import Features, features, head_of
from zobench.tasks.reading import Choosing

_FOLDS = 5  # scikit-learn's default


class LinearProbe(ZeroShot):
    """MeZO's linear probing (arXiv 2305.17333 and its large_models code): fit, then evaluate.

    scikit-learn's LogisticRegressionCV on the training split's inputs of the output head: ten
    strengths of the L2 penalty, chosen by accuracy in five stratified folds (fewer where a class
    has fewer examples), with an intercept if the head has a bias. As in MeZO's code, a solver that
    stops at max_iter gives its last coefficients. The one forward pass over train is not a training
    step: the result's cost.forwards is 0, its time and memory are phase `fit`.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        max_iter: int = 5000,
        tol: float = 1e-4,
    ) -> None:
        super().__init__(named_parameters)
        if max_iter < 1 or not tol > 0:
            raise ValueError(f"max_iter={max_iter}, tol={tol}: must be above 0")
        self.max_iter, self.tol = max_iter, tol

    def fit(self, model: Any, problem: Any, batch_size: int) -> None:
        """Write the fitted coefficients into the head's rows of the label words.

        Raises UserError for tasks and models without such rows, and for a head that is not trained
        (the rows would not be saved) or tied to the input embedding.
        """
        if not (isinstance(problem, ChoiceProblem) and isinstance(problem.reading, Choosing)):
            raise UserError(
                "optimizer=linear_probe: it fits a classifier to the choices of a task, and this"
                " task's answer is not one of its choices; choose another optimizer"
            )
        head = head_of(model, problem.encoder.interface)
        _check_own(model, head)
        found = features(model, head, problem, batch_size)
        coefficients, intercepts = self._regress(found, intercept=head.bias is not None)
        words = torch.tensor(found.words, device=head.weight.device)
        with torch.no_grad():
            head.weight[words] = coefficients.to(head.weight)
            if head.bias is not None:
                head.bias[words] = intercepts.to(head.bias)

    def _regress(self, found: Features, *, intercept: bool) -> tuple[Tensor, Tensor]:
        """(classes, H) and (classes,), whose softmax is the regression's."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegressionCV
        from threadpoolctl import threadpool_limits

        least = int(torch.bincount(found.classes, minlength=len(found.words)).min())
        if least < 2:
            raise UserError(
                "optimizer=linear_probe: a class has fewer than two examples in train, too few to"
                " choose the penalty; raise task.sizes.train"
            )
        regression = LogisticRegressionCV(
            cv=min(_FOLDS, least),
            fit_intercept=intercept,
            max_iter=self.max_iter,
            tol=self.tol,
            scoring="accuracy",
            l1_ratios=(0.0,),  # L2 alone
            use_legacy_attributes=False,
            random_state=0,
        )
        with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(found.inputs.double().numpy(), found.classes.numpy())
        coefficients = torch.from_numpy(regression.coef_)
        intercepts = torch.zeros(len(coefficients)).double()
        if intercept:
            intercepts = torch.from_numpy(regression.intercept_)
        if len(found.words) == 2:  # one row for both classes: half for, half against
            coefficients = torch.cat([-coefficients, coefficients]) / 2
            intercepts = torch.cat([-intercepts, intercepts]) / 2
        return coefficients, intercepts


def _check_own(model: Any, head: nn.Linear) -> None:
    """Raise UserError unless the head's weights are trained and not tied."""
    find = getattr(model, "get_input_embeddings", None)
    if find is not None and getattr(find(), "weight", None) is head.weight:
        raise UserError(
            "optimizer=linear_probe: this model's output head is tied to its input embedding;"
            " choose tuning=head, which unties them"
        )
    if not all(parameter.requires_grad for parameter in head.parameters()):
        raise UserError(
            "optimizer=linear_probe: this tuning does not train the output head; choose tuning=head"
        )
