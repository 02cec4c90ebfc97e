"""The weighted kNN vote against a loop that follows the paper's sentence, and its edges."""

import math

import pytest
import torch

from core.errors import InputError
from core.knn import weighted_knn


def slow(train, labels, test, classes, k, temperature):
    """Follow arXiv 1805.01978, sec. 3.4 row by row in float64."""
    predictions = []
    for row in test.double().tolist():
        found = []
        for other, label in zip(train.double().tolist(), labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(row, other, strict=True))
            found.append((dot / math.sqrt(sum(a * a for a in row)) / math.sqrt(sum(b * b for b in other)), label))
        votes = [0.0] * classes
        for similarity, label in sorted(found, reverse=True)[:k]:
            votes[label] += math.exp(similarity / temperature)
        predictions.append(votes.index(max(votes)))
    return predictions


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (7, 1.0), (40, 0.1), (40, 100.0)])
def test_predictions_equal_those_of_a_loop_over_pairs(k, temperature):
    generator = torch.Generator().manual_seed(k)
    labels = torch.randint(0, 4, (40,), generator=generator)
    train = torch.randn(40, 6, generator=generator) + torch.eye(6)[labels]
    test = torch.randn(33, 6, generator=generator) * 10
    found = weighted_knn(train, labels, test, 4, k, temperature, chunk=8)
    assert found.tolist() == slow(train, labels, test, 4, k, temperature)
    assert found.dtype == labels.dtype


def test_the_temperature_decides_whether_one_near_row_outvotes_two_far_ones():
    train = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([0, 1, 1])
    test = torch.tensor([[5.0, 0.0]])
    assert weighted_knn(train, labels, test, 2, 3, 0.07).tolist() == [0]  # e^(1/.07) > 2 e^(.71/.07)
    assert weighted_knn(train, labels, test, 2, 3, 1.0).tolist() == [1]


def test_a_very_low_temperature_does_not_overflow():
    train, labels = torch.eye(3), torch.tensor([2, 0, 1])
    assert weighted_knn(train, labels, torch.eye(3), 3, 3, 1e-4).tolist() == [2, 0, 1]


def test_no_test_rows_give_no_predictions():
    assert weighted_knn(torch.eye(3), torch.arange(3), torch.zeros(0, 3), 3, 2, 0.1).tolist() == []


@pytest.mark.parametrize("k", [0, 6])
def test_a_k_that_the_training_rows_cannot_fill_is_refused(k):
    with pytest.raises(InputError, match=rf"k is {k}, but there are 5 training rows; choose k between 1 and 5"):
        weighted_knn(torch.eye(5), torch.arange(5), torch.eye(5), 5, k, 0.1)


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match="temperature is 0"):
        weighted_knn(torch.eye(5), torch.arange(5), torch.eye(5), 5, 1, 0.0)
