"""Choices of one example in one row: the prompt that they share is computed once, not once a choice.

A packed row is the shared prompt, then what each choice adds to it, one after another. Positions start again behind the
prompt for every choice, and a choice sees the prompt and itself, so that its tokens have the states that they would
have in a row of their own: the longest position stays that of the longest single row, only the row gets longer.

Whether a model can do that (it takes positions and a mask of its own making, and nothing in it goes by a token's place
in the row: no window, no bias by distance) is found by running it, not by a list of names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from dfolora.engine.patch import Forward, patched
from dfolora.engine.readout import Readout
from dfolora.engine.rows import Choices, Rows
from dfolora.engine.trials import agree, attempt

# What the adapted outputs (query and key) are multiplied by in the two trials. Where a softmax has made up its mind,
# one key more or less changes nothing; with small queries and keys it does.
_SOFTER = (1.0, 0.3)
_NO_LIMIT = 10**6  # a width at which attention costs nothing, so that all choices go into one row


def share_prompts(rows: Rows, hidden: int, most_tokens: int) -> Rows:
    """The rows with the choices of each example packed. Only for models that ``packs`` says can read them.

    Args:
        rows: R rows, one a choice.
        hidden: the width of the model.
        most_tokens: a row that holds more than one choice is not longer than this.

    Returns:
        R' < R packed rows; the rows as they came where nothing can be shared.
    """
    if rows.targets is None or "decoder_input_ids" in rows.inputs or not _read_at_the_end(rows):
        return rows
    groups = list(_groups(rows, hidden, most_tokens))
    return rows if len(groups) == rows.count else _pack(rows, groups)


def model_inputs(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """What the model is called with.

    Args:
        inputs: of any rows. Packed ones have ``segments`` (R, T) int64: 0 for the prompt, 1, 2, ... for the choices, -1
            for padding. (A mask made here and not before is tiled, cut and picked like all else, and takes no memory.)
        dtype: the model's.

    Returns:
        The same, with an attention mask (R, 1, T, T) in place of ``segments``: 0 where a token (third dimension) sees
        another, the least number of ``dtype`` elsewhere. It is to be added to scores, which every attention that takes
        a ready mask does. Padding sees the prompt, for a softmax over nothing is NaN.
    """
    if "segments" not in inputs:
        return inputs
    segments = inputs["segments"]
    query, key = segments[:, :, None], segments[:, None, :]
    seen = ((key == 0) | (key == query)).tril_()
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    mask = mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
    return {name: tensor for name, tensor in inputs.items() if name != "segments"} | {"attention_mask": mask}


# -- packing ----------------------------------------------------------------------------------------------------------


def _read_at_the_end(rows: Rows) -> bool:
    """Whether every row is read at its last token, as a causal model is; a masked one has its end token there."""
    assert rows.targets is not None
    last = rows.positions.masked_fill(rows.targets < 0, 0).amax(1)
    return torch.equal(last, rows.inputs["attention_mask"].sum(1) - 1)


def _groups(rows: Rows, hidden: int, most_tokens: int) -> Iterator[tuple[list[int], int]]:
    """Rows that become one, and how many tokens they share.

    A token costs about 12 hidden^2 in linear maps and 2 hidden for every key of its row, seen or not. One row of a
    prompt of p tokens and a of choices costs 2 hidden (p + a)^2 in attention; cut in halves it costs the prompt once
    more, and is cheaper from a^2 = 12 hidden p + 2 p^2 on.
    """
    lengths = rows.inputs["attention_mask"].sum(1).tolist()
    of_example: dict[int, list[int]] = {}
    for row, example in enumerate(rows.owner[:, 0].tolist()):
        of_example.setdefault(example, []).append(row)
    for members in of_example.values():
        texts = [rows.inputs["input_ids"][row, : lengths[row]].tolist() for row in members]
        prompt = _common(texts)
        most = min(math.isqrt(12 * hidden * prompt + 2 * prompt * prompt), most_tokens - prompt)
        together: list[int] = []
        used = 0
        for row in members:
            added = lengths[row] - prompt
            if together and used + added > most:
                yield together, prompt
                together, used = [], 0
            together.append(row)
            used += added
        yield together, prompt


def _common(texts: Sequence[list[int]]) -> int:
    """How many tokens all texts begin with."""
    count = 0
    for tokens in zip(*texts, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count


# What the fields of a shorter row end in.
_PADDING = {
    "input_ids": 0, "position_ids": 0, "segments": -1,
    "positions": 0, "targets": -100, "at": 0, "choice": 0, "classes": -1,
}  # fmt: skip


def _pack(rows: Rows, groups: Sequence[tuple[list[int], int]]) -> Rows:
    """One row a group; ``groups`` as ``_groups`` gives them."""
    assert rows.targets is not None
    ids, targets, positions = rows.inputs["input_ids"].tolist(), rows.targets.tolist(), rows.positions.tolist()
    lengths, classes = rows.inputs["attention_mask"].sum(1).tolist(), rows.owner[:, 1].tolist()
    lists: dict[str, list[list[int]]] = {name: [] for name in _PADDING}
    for members, prompt in groups:
        row = {name: [] for name in _PADDING} | {
            "input_ids": ids[members[0]][:prompt], "position_ids": list(range(prompt)), "segments": [0] * prompt,
        }  # fmt: skip
        read: dict[int, int] = {}  # place in the row -> which reading: all choices begin behind the same token
        for number, member in enumerate(members):
            shift = len(row["input_ids"]) - prompt
            row["input_ids"] += ids[member][prompt : lengths[member]]
            row["position_ids"] += range(prompt, lengths[member])
            row["segments"] += [number + 1] * (lengths[member] - prompt)
            row["classes"].append(classes[member])
            for position, target in zip(positions[member], targets[member], strict=True):
                if target >= 0:
                    place = position if position < prompt else position + shift
                    row["at"].append(read.setdefault(place, len(read)))
                    row["targets"].append(target)
                    row["choice"].append(number)
        row["positions"] = list(read)
        for name, values in row.items():
            lists[name].append(values)
    tensors = {name: _padded(lists[name], value, rows.owner.device) for name, value in _PADDING.items()}
    inputs = {name: tensors[name] for name in ("input_ids", "position_ids", "segments")}
    inputs["attention_mask"] = (inputs["segments"] >= 0).to(rows.inputs["attention_mask"].dtype)
    example = rows.owner[[members[0] for members, _ in groups], 0]
    return Rows(
        inputs=inputs,
        positions=tensors["positions"],
        owner=torch.stack([example, torch.full_like(example, -1)], 1),
        classes=rows.classes,
        targets=tensors["targets"],
        choices=Choices(tensors["at"], tensors["choice"], tensors["classes"]),
    )


def _padded(lists: list[list[int]], value: int, device: torch.device) -> Tensor:
    longest = max(map(len, lists))
    return torch.tensor([part + [value] * (longest - len(part)) for part in lists], device=device)


# -- trial ------------------------------------------------------------------------------------------------------------


def packs(
    sample: Rows,
    readout: Readout,
    adapted: Sequence[nn.Module],
    dtype: torch.dtype,
) -> bool:
    """Whether choices read the same in packed rows as each in a row of its own.

    Args:
        sample: rows of several choices, of several tokens each, behind a few prompts.
        readout: of the model, with nothing cut short.
        adapted: its adapted modules. (A saturated softmax would hide one key more or less; small queries and keys show
            it. That a mask lets tokens see what is packed, and no less, is for the caller to see to: ``Sight``.)
        dtype: the model's.
    """
    packed = share_prompts(sample, _NO_LIMIT, max(map(int, sample.lengths)) * sample.count)
    if packed is sample:
        return False
    assert packed.choices is not None, "rows that are packed hold several choices"
    place = {pair: row for row, pair in enumerate(map(tuple, sample.owner.tolist()))}
    rows = zip(packed.owner[:, 0].tolist(), packed.choices.classes.tolist(), strict=True)
    members = [place[example, label] for example, classes in rows for label in classes if label >= 0]

    for factor in _SOFTER:
        with patched([(module, _times(module.forward, factor)) for module in adapted]):
            expected, together = readout.plain(sample)[members], attempt(lambda: readout.plain(packed))
        if together is None or not agree(together[packed.choices.classes >= 0], expected, dtype):
            return False
    return True


def _times(forward: Forward, factor: float) -> Forward:
    return lambda x, *args, **kwargs: factor * forward(x, *args, **kwargs)
