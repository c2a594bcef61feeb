"""The method library: a ZO method is a sampler, an estimator and a rule.

It imports torch, numpy and numba only, and can be used without the rest of zobench:

    optimizer = ZOOptimizer(model.named_parameters(), lr=1e-6, eps=1e-3, seed=0,
                            sampler=Gaussian(), estimator=TwoSided(), rule=SGD())
    loss = optimizer.step(lambda: loss_of(model(batch)))
"""
