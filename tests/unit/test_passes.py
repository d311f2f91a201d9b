"""Items of several edits share batches; every family's own passes are tested in test_family_edits.py."""

import pytest
import torch

from visae.edits.passes import in_shared_batches


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_items_share_batches_and_come_back_in_order(batch_size):
    sizes, batches, taken = [3, 0, 2, 5, 1, 0, 4], [], []
    numbers = torch.arange(sum(sizes)).float()
    items = list(numbers[:, None, None].expand(-1, 2, 3).split(sizes))

    def lazily():
        for item in items:
            taken.append(len(item))
            yield item

    def forward(batch):
        batches.append(len(batch))
        return batch[:, 0, 0] * 2

    results = in_shared_batches(lazily(), forward, batch_size)
    first = next(results)
    assert len(taken) < len(items) or batch_size == 100  # no more are made than a batch takes
    found = [first, *results]
    assert [len(result) for result in found] == sizes
    torch.testing.assert_close(torch.cat(found), numbers * 2)
    assert max(batches) <= max(batch_size, *sizes)
    assert len(batches) == {1: 5, 4: 5, 7: 3, 100: 1}[batch_size]
