"""The learning rate follows the released rule; the optimiser decays what it should."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from groundwork.optim import create_optimizer, parameter_groups
from groundwork.scheduler import apply_learning_rate, learning_rate, rate_factor
from groundwork.settings.optimisation import OptimizerConfig, ScheduleConfig

ADAMW = OptimizerConfig(lr=1e-5, weight_decay=0.02, decay="matrices")
RELEASED = ScheduleConfig(
    name="cosine_epochs", epochs=30, min_lr=1e-6, warmup_lr=1e-6, warmup_epochs=10, step_size=100
)


def released(epoch, iteration=0):
    return learning_rate(RELEASED, ADAMW, epoch, iteration, steps_per_epoch=5000)


def cosine(index):
    share = torch.tensor(torch.pi * index / 30, dtype=torch.float64).cos().item()
    return 1e-6 + 0.5 * (1e-5 - 1e-6) * (1 + share)


def test_the_first_epoch_climbs_from_warmup_lr_in_steps_of_a_hundred_iterations():
    assert released(0, 0) == released(0, 1) == released(0, 100) == 1e-6
    assert released(0, 101) == released(0, 200) == pytest.approx(1e-6 + 9e-6 / 10)
    assert released(0, 1000) == pytest.approx(1e-6 + 9 * 9e-6 / 10)


def test_after_the_warm_up_the_first_epoch_stays_at_the_peak():
    assert released(0, 1001) == released(0, 4999) == pytest.approx(1e-5)


def test_a_later_epoch_uses_the_cosine_from_the_peak_on():
    assert released(1) == released(1, 4999) == pytest.approx(cosine(1))
    assert released(29) == pytest.approx(cosine(29))
    assert released(30) == released(31) == pytest.approx(1e-6)


def test_the_rates_of_amc_are_those_that_its_release_prints():
    schedule = replace(RELEASED, warmup_epochs=20)

    def rate(epoch, iteration=0):
        return learning_rate(schedule, ADAMW, epoch, iteration, 5000)

    assert rate(0, 2001) == pytest.approx(1e-5)
    rates = [rate(epoch) for epoch in (1, 10, 20, 29)]
    assert rates == pytest.approx([9.975e-6, 7.75e-6, 3.25e-6, 1.025e-6], rel=1e-3)


def test_a_short_run_whose_warm_up_is_longer_than_its_cosine_still_has_rates():
    schedule = replace(RELEASED, epochs=2, warmup_epochs=20)
    rates = [learning_rate(schedule, ADAMW, 0, i, 3000) for i in (0, 2000, 2001)]
    assert rates == pytest.approx([1e-6, 1e-6 + 19 * 9e-6 / 20, 1e-5])


def test_cosine_steps_climbs_linearly_peaks_after_the_warm_up_and_ends_at_min_lr():
    schedule = ScheduleConfig(
        name="cosine_steps", epochs=2, warmup_steps=10, warmup_lr=0.0, min_lr=1e-7
    )
    rates = [learning_rate(schedule, ADAMW, s // 50, s % 50, 50) for s in range(100)]
    assert rates[0] == 0.0
    assert rates[5] == pytest.approx(5e-6)
    assert rates[10] == max(rates) == 1e-5
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(schedule, ADAMW, 2, 0, 50) == pytest.approx(1e-7)
    assert learning_rate(schedule, ADAMW, 20, 0, 50) == pytest.approx(1e-7)


def test_a_schedule_without_a_length_is_refused():
    with pytest.raises(ValueError, match="schedule.epochs is not set"):
        learning_rate(ScheduleConfig(name="cosine"), ADAMW, 0, 0, 10)


def test_applying_a_rate_reaches_every_group():
    optimizer = create_optimizer(ADAMW, nn.Linear(2, 3))
    apply_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def model():
    net = nn.ModuleDict({"a": nn.Linear(4, 3), "norm": nn.LayerNorm(3), "b": nn.Linear(3, 4)})
    net.scale = nn.Parameter(torch.ones([]))
    return net


def test_weight_matrices_and_scalars_decay_and_biases_and_norms_do_not():
    decayed, plain = parameter_groups(model(), 0.02)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.02, 0.0)
    assert sorted(p.ndim for p in decayed["params"]) == [0, 2, 2]
    assert sum(p.numel() for p in plain["params"]) == 3 + 3 + 3 + 4


def test_frozen_parameters_are_left_out_and_shared_ones_appear_once():
    net = model()
    net["a"].weight.requires_grad = False
    net["b"].tied = net["b"].weight
    decayed, _ = parameter_groups(net, 0.02)
    assert [p.ndim for p in decayed["params"]] == [0, 2]


def test_a_model_without_trainable_parameters_is_refused():
    net = model().requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        create_optimizer(ADAMW, net)


def test_one_step_moves_every_trainable_parameter():
    net = model()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = create_optimizer(OptimizerConfig(lr=0.1, decay="matrices"), net)
    sum((p**2).sum() + p.sum() for p in net.parameters()).backward()
    optimizer.step()
    assert all((p != b).any() for p, b in zip(net.parameters(), before, strict=True))


def test_groups_with_rates_of_their_own_keep_their_share():
    model = nn.ModuleDict({"text": nn.Linear(2, 2), "mask_head": nn.Linear(2, 2)})
    config = OptimizerConfig(lr=1e-4, rates={"text": 1e-5}, weight_decay=0.1)
    optimizer = create_optimizer(config, model)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-5]
    assert all(group["weight_decay"] == 0.1 for group in optimizer.param_groups)
    apply_learning_rate(optimizer, 5e-5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-5, 5e-6])
    with pytest.raises(ValueError, match=r"optimizer\.rates or factors: no .* contains image"):
        create_optimizer(OptimizerConfig(rates={"image": 1e-5}), model)


def test_a_factor_moves_with_the_main_rate_and_a_rate_stays():
    model = nn.ModuleDict({"text": nn.Linear(2, 2), "mask_head": nn.Linear(2, 2)})
    for lr in (1e-5, 2e-5):
        config = OptimizerConfig(lr=lr, rates={"text": 1e-5}, factors={"mask_head": 10})
        optimizer = create_optimizer(config, model)
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([1e-5, 10 * lr])
    with pytest.raises(ValueError, match="both name text"):
        OptimizerConfig(rates={"text": 1e-5}, factors={"text": 2})
    with pytest.raises(ValueError, match=r"factors\.text is 0"):
        OptimizerConfig(factors={"text": 0})


def factors(steps, **schedule):
    config = ScheduleConfig(**schedule)
    return [rate_factor(config, step, steps_per_epoch=10, total_epochs=9) for step in steps]


def test_factors_are_counted_in_steps_of_the_run():
    steps = (0, 59, 60, 89)
    assert factors(steps, name="step", drop_epochs=(6,)) == pytest.approx([1, 1, 0.1, 0.1])
    warm = factors(
        (0, 4, 19, 20, 60, 70, 89), name="multistep", drop_epochs=(6, 7, 8), warmup_epochs=2
    )
    assert warm == pytest.approx([0.05, 0.25, 1, 1, 0.1, 0.01, 0.01]), "never below the floor"
    cosine = factors((0, 19, 20, 55, 90), name="cosine", warmup_epochs=2)
    assert cosine == pytest.approx([0.05, 1, 1, 0.5, 0.01])
    half = factors((0, 4, 5), name="cosine", warmup_epochs=0.5)
    assert half == pytest.approx([0.2, 1, 1])
