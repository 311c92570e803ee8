"""Models are told apart by what they are made of and by their weights, however they were loaded."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

import vidtok
from support import small_config, small_model
from tiny import FSQ_1_0, KL_1_0, KL_1_1, tiny_model, write_model
from vidtok import Tokenizer
from vidtok.models.config import KLConfig
from vidtok.tokens import TokenFileError, check_model, config_hash, model_identity


def test_the_hashes_are_those_that_files_have() -> None:
    """A change of these breaks every file that exists."""
    identity = model_identity(tiny_model(KL_1_0))
    assert identity.config == "a1f2d87ded52cec9fe460747f742ee597234e53c7bec4aef3e1ab422ad3ef44a"
    assert identity.weights == "4b4fe3669d24ee5b094ba59ffa7b50b73c25ad5ce16e3fa7e7857a1eafd150c2"
    assert identity.signs == "f0d3dd205557953833688e85700e095a33c78fd04b197700c3f8a0f2e121321a"
    assert (identity.name, identity.weights_dtype) == (KL_1_0, "float32")


def test_neither_file_nor_compilation_changes_a_model(tmp_path: Path) -> None:
    files = write_model(tmp_path, KL_1_1)
    from_checkpoint = vidtok.load(files.config, files.checkpoint)
    from_checkpoint.name = KL_1_1
    model = tiny_model(KL_1_1)
    from_folder = vidtok.load(model.save_pretrained(tmp_path / "model"))
    assert model_identity(from_checkpoint) == model_identity(from_folder) == model_identity(model)
    compiled = copy.deepcopy(model)
    compiled.decoder = torch.compile(compiled.decoder)  # type: ignore[assignment]
    assert model_identity(compiled) == model_identity(model)


def test_another_dtype_keeps_the_signs() -> None:
    model = tiny_model(KL_1_0)
    wanted = model_identity(model)
    for dtype in torch.float64, torch.float16, torch.bfloat16:
        other = tiny_model(KL_1_0).to(dtype)
        identity = model_identity(other)
        assert identity.signs == wanted.signs
        assert identity.weights_dtype == str(dtype).removeprefix("torch.")
        check_model(wanted, other, "file")
        check_model(identity, model, "file")
    assert model_identity(tiny_model(KL_1_0).half()).weights != wanted.weights


def test_a_hash_is_taken_once_and_again_after_a_change() -> None:
    model = tiny_model(KL_1_0)
    before = model_identity(model)
    assert model_identity(model) == before
    with torch.no_grad():
        next(model.decoder.parameters()).mul_(1.001)
    after = model_identity(model)
    assert after.weights != before.weights
    assert after.signs == before.signs
    with torch.no_grad():
        next(model.decoder.parameters()).neg_()
    assert model_identity(model).signs != before.signs
    with torch.inference_mode():
        frozen = tiny_model(KL_1_0)
        assert model_identity(frozen) == before
        next(frozen.parameters()).mul_(2)
        assert model_identity(frozen) != before


def test_what_only_training_uses_changes_no_configuration() -> None:
    config = small_config(KL_1_0)
    same = [
        dataclasses.replace(config, dropout=0.5),
        dataclasses.replace(config, use_checkpoint=True),
        dataclasses.replace(config, bottleneck=KLConfig(sample=False)),
        dataclasses.replace(config, spatial_ds=(2, 1, 0)),
    ]
    assert {config_hash(other) for other in same} == {config_hash(config)}
    others = [dataclasses.replace(config, ch=16), dataclasses.replace(config, ch_mult=(1, 2, 4, 8)),
              small_config(KL_1_1), small_config(FSQ_1_0)]  # fmt: skip
    assert len({config_hash(other) for other in [config, *others]}) == 5


def test_a_wrong_model_is_refused_with_both_names() -> None:
    wanted = model_identity(tiny_model(KL_1_0))
    other = tiny_model(KL_1_1)
    for allow_other in (False, True):
        with pytest.raises(TokenFileError, match=f"v.vtok was made with {KL_1_0}, which is not this {KL_1_1} "
                                                 r"\(configurations \w{12} and \w{12}\); give the model"):  # fmt: skip
            check_model(wanted, other, "v.vtok", allow_other=allow_other)
    trained: Tokenizer = small_model(KL_1_0, ch=8, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
    trained.name = "mine"
    with torch.no_grad():
        trained.decoder.conv_out.conv.bias.add_(1e-3)  # type: ignore[union-attr, operator]
    with pytest.raises(TokenFileError, match=f"made with {KL_1_0}, which is not this mine "
                                             r"\(weights \w{12} and \w{12}\).*--allow-other-weights"):  # fmt: skip
        check_model(wanted, trained, "v.vtok")
    check_model(wanted, trained, "v.vtok", allow_other=True)
    with torch.no_grad():
        trained.decoder.conv_out.conv.bias.neg_()  # type: ignore[union-attr, operator]
    with pytest.raises(TokenFileError, match=r"weights \w{12} and \w{12}"):
        check_model(wanted, trained.to(torch.bfloat16), "v.vtok")
    same = tiny_model(KL_1_0)
    same.name = "another name"
    check_model(wanted, same, "v.vtok")
