import pytest
import torch
from safetensors.torch import load

from engram_transformers.errors import BadInput
from engram_transformers.stores.records import Packed
from engram_transformers.stores.tensors import DTYPES, pack, parse, unpack


def test_every_dtype_comes_back_bit_for_bit(same_bits) -> None:
    noise = torch.randint(0, 256, (240,), dtype=torch.uint8)
    delta = {code: noise.clone().view(dtype) for code, dtype in DTYPES.items() if code != "BOOL"}
    delta["BOOL"] = torch.tensor([True, False, True])
    same_bits(delta, unpack(pack(delta)))


def test_odd_shapes_come_back(same_bits) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    delta = {
        "scalar": torch.tensor(3.5, dtype=torch.bfloat16),
        "empty": torch.empty(0, 5, dtype=torch.int64),
        "strided": whole.t()[::2],
        "gradient": torch.ones(3, requires_grad=True),
        "half with gradient": torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
        "": torch.tensor([1], dtype=torch.uint8),
        "ключ\0🙂": torch.tensor([float("nan"), -0.0]),
    }
    same_bits({name: value.detach() for name, value in delta.items()}, unpack(pack(delta)))
    assert unpack(pack({})) == {}


def test_header_and_data_make_a_safetensors_file() -> None:
    delta = {"a": torch.arange(3, dtype=torch.int32), "b": torch.ones(2, 2).half()}
    packed = pack(delta)
    header = packed.header.encode()
    found = load(len(header).to_bytes(8, "little") + header + packed.data)
    assert all(torch.equal(found[name], value) for name, value in delta.items())


def test_equal_names_and_shapes_share_one_header(batch) -> None:
    headers = {pack(delta).header for _, delta in batch(50)}
    assert len(headers) == 5


@pytest.mark.parametrize(
    "value", [[1, 2], torch.ones(2).to_sparse(), torch.ones(2, device="meta"), torch.ones(2) * 1j]
)
def test_what_safetensors_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(BadInput, match="'x' of a delta"):
        pack({"x": value})


def test_the_name_of_safetensors_own_field_is_refused() -> None:
    with pytest.raises(BadInput, match="__metadata__"):
        pack({"__metadata__": torch.ones(1)})


@pytest.mark.parametrize(
    "header",
    [
        "",
        "[]",
        '{"x": 3}',
        '{"x": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}',
        '{"x": {"dtype": "U8", "shape": [-4], "data_offsets": [0, -4]}}',
        '{"x": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}',
        '{"x": {"dtype": "U8", "shape": ["4"], "data_offsets": [0, 4]}}',
    ],
)
def test_a_header_that_describes_nothing_is_an_error(header: str) -> None:
    with pytest.raises(ValueError, match="header"):
        parse(header)


def test_too_few_bytes_are_an_error() -> None:
    packed = pack({"x": torch.ones(4)})
    with pytest.raises(ValueError, match="15 bytes in place of 16"):
        unpack(Packed(packed.header, packed.data[:-1]))
