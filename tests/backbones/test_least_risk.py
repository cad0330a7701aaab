"""The codeword nearest to the expected one."""

import torch

from ttsadapt.backbones.decoding import least_risk

TABLE = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.1, 0.1], [0.0, 9.0]])


def test_a_sure_prediction_is_the_likeliest():
    logits = 50 * torch.eye(4)
    assert least_risk(logits, TABLE).tolist() == [0, 1, 2, 3]


def test_between_two_opposites_it_takes_what_lies_between():
    logits = torch.tensor([[2.0, 2.1, 0.0, -9.0]])
    assert logits.argmax().item() == 1 and least_risk(logits, TABLE).item() == 2


def test_it_minimises_the_expected_squared_error():
    torch.manual_seed(0)
    table, logits = torch.randn(12, 3), torch.randn(40, 12)
    errors = torch.cdist(table, table).square() @ logits.softmax(-1).T  # (chosen, case)
    assert torch.equal(least_risk(logits, table), errors.argmin(0))


def test_where_the_table_lies_and_how_large_it_is_does_not_matter():
    torch.manual_seed(1)
    table, logits = torch.randn(12, 3), torch.randn(40, 12)
    assert torch.equal(least_risk(logits, table), least_risk(logits, 7 * table + 2))
