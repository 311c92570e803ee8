from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtok.config.layers import allowing_bases, from_mapping, from_overrides, merge, read_layers, resolve
from vidtok.config.read import read_config
from vidtok.errors import ConfigError

NAME = "vidtok_kl_causal_488_4chn"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_lies_over_its_bases_and_later_bases_over_earlier_ones(tmp_path: Path) -> None:
    write(tmp_path / "shared" / "root.yaml", "a: 1\nb: {x: 1, y: 1}\nc: [1, 2]\n")
    write(tmp_path / "shared" / "one.yaml", "base: root.yaml\nb: {x: 2}\n")
    write(tmp_path / "two.yaml", "b: {x: 3, z: 3}\nd: ${b.x}\n")
    top = write(tmp_path / "top.yaml", "base: [shared/one.yaml, two.yaml]\na: 4\nc: [9]\n")
    assert resolve(read_layers(top), "top") == {"a": 4, "b": {"x": 3, "y": 1, "z": 3}, "c": [9], "d": 3}


def test_a_value_can_be_asked_for_anew(tmp_path: Path) -> None:
    write(tmp_path / "root.yaml", "a: 1\nb: {x: null, y: 1}\n")
    top = write(tmp_path / "top.yaml", "base: root.yaml\nb:\n  x: ???\n")
    assert resolve(read_layers(top), "top") == {"a": 1, "b": {"x": "???", "y": 1}}
    given = merge(read_layers(top), from_overrides(["b.x=2"]), "top")
    assert resolve(given, "top") == {"a": 1, "b": {"x": 2, "y": 1}}


def test_a_models_name_is_a_base(tmp_path: Path) -> None:
    text = f"base: {NAME}\nmodel: {{params: {{encoder_config: {{params: {{ch: 32}}}}}}}}\n"
    run = read_config(write(tmp_path / "small.yaml", text))
    assert (run.name, run.model.ch, run.model.z_channels) == ("small", 32, 4)
    assert run.raw["model"]["params"]["decoder_config"]["params"]["ch"] == 32
    assert resolve(from_mapping({"base": NAME}, "values"), "values") == read_config(NAME).raw


def test_two_files_may_share_a_base(tmp_path: Path) -> None:
    write(tmp_path / "root.yaml", "a: 1\n")
    write(tmp_path / "one.yaml", "base: root.yaml\nb: 1\n")
    write(tmp_path / "two.yaml", "base: root.yaml\nc: 1\n")
    top = write(tmp_path / "top.yaml", "base: [one.yaml, two.yaml]\n")
    assert resolve(read_layers(top), "top") == {"a": 1, "b": 1, "c": 1}


def test_a_circle_of_bases_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    write(tmp_path / "b.yaml", "base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"base leads back to the file itself: a\.yaml -> b\.yaml -> a\.yaml"):
        read_layers(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "base: vidtok_kl_causal_488_4ch",
            r"top\.yaml: base 'vidtok_kl_causal_488_4ch' is neither a file .*did you mean",
        ),
        (
            "base: gone.yaml",
            r"base 'gone\.yaml' is neither a file \(.*gone\.yaml\) nor the name of a model; a base is a path",
        ),
        ("base: {a: 1}", r"base is \{'a': 1\}; expected a file, a model's name or a list of these"),
        ("base: [1]", r"base is \[1\]; expected a file"),
        ("a: [1", r"top\.yaml is not valid YAML"),
        ("a: 1\na: 2", r"top\.yaml is not valid YAML: .*duplicate key"),
        ("a: !!python/object/apply:os.system ['touch x']", r"top\.yaml is not valid YAML"),
        ("- 1", r"top\.yaml does not hold a mapping; expected sections such as `model:`"),
        ("", r"top\.yaml does not hold a mapping"),
        ("a: ${b.c}", r"an interpolation leads nowhere: a: Interpolation key 'b\.c' not found$"),
        ("a: {b: '${oc.env:HOME}'}", r"top\.yaml: a\.b is '\$\{oc\.env:HOME\}'; of interpolations only"),
        ("a: ['${${b}:HOME}']", r"top\.yaml: a is '\$\{\$\{b\}:HOME\}'; of interpolations only"),
        ("[" * 5000, r"top\.yaml is not valid YAML"),
    ],
)
def test_errors_name_the_file_and_the_fault(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path / "top.yaml", text)
    with pytest.raises(ConfigError, match=expected):
        resolve(read_layers(path), str(path))


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "weights.yaml").write_bytes(b"\x80\x02\xff")
    with pytest.raises(ConfigError, match=r"weights\.yaml is not text; expected a YAML file \(is it a checkpoint\?\)"):
        read_layers(tmp_path / "weights.yaml")
    with pytest.raises(ConfigError, match=r"is a folder; expected a YAML file"):
        read_layers(tmp_path)
    with pytest.raises(ConfigError, match=r"gone\.yaml does not exist; expected a YAML file$"):
        read_layers(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match=rf"does not exist; .*give its name, {NAME}$"):
        read_config(f"configs/gone/{NAME}.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        read_layers(tmp_path / "weights.yaml" / "x.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 20) + b"##")
    with pytest.raises(ConfigError, match=r"large\.yaml holds 1048578 bytes; a configuration is a short YAML file"):
        read_layers(tmp_path / "large.yaml")


@pytest.mark.parametrize("override", ["a", "=1", "a..b=1", ""])
def test_overrides_of_another_form(override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not of the form section\.key=value"):
        from_overrides([override])


def test_overrides_cannot_read_the_environment() -> None:
    with pytest.raises(ConfigError, match="of interpolations only"):
        from_overrides(["a=${oc.env:HOME}"])
    assert resolve(merge(from_overrides(["a=1"]), from_overrides(["b=${a}"]), ""), "") == {"a": 1, "b": 1}


def test_overrides_that_are_too_much() -> None:
    with pytest.raises(
        ConfigError, match=r"^override 'a\.a\..*\.\.\. has a key of more than 32 parts; expected fewer$"
    ):
        from_overrides(["a." * 5000 + "a=1"])
    with pytest.raises(ConfigError, match=r"^override 'a=999.*\.\.\.: a number in it has thousands of digits$"):
        from_overrides(["a=" + "9" * 5000])


def test_an_override_that_is_no_yaml() -> None:
    with pytest.raises(ConfigError, match=r"override 'a=\[1': "):
        from_overrides(["a=[1"])


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_no_bytes_bring_anything_but_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"any\.yaml"):
        read_config(path)


@settings(deadline=None, max_examples=25)
@given(st.text(max_size=40))
def test_no_override_brings_anything_but_a_config_error(text: str) -> None:
    try:
        read_config(NAME, [f"model.params.encoder_config.params.{text}"])
        read_config(NAME, [f"model.params.encoder_config.params.ch={text}"])
    except ConfigError:
        pass


@pytest.mark.parametrize("base", ["../above.yaml", "/ABSOLUTE", "link.yaml", "sub/../../above.yaml"])
def test_a_base_lies_below_the_file_that_names_it_or_is_allowed(tmp_path: Path, base: str) -> None:
    above = write(tmp_path / "above.yaml", "a: 1\n")
    (tmp_path / "sub" / "sub").mkdir(parents=True)
    (tmp_path / "sub" / "link.yaml").symlink_to(above)
    top = write(tmp_path / "sub" / "top.yaml", f"base: {base.replace('/ABSOLUTE', str(above))}\n")
    with pytest.raises(ConfigError, match=r"top\.yaml: base .* does not lie below the folder of .* --allow-base /"):
        read_layers(top)
    for allowed in (tmp_path, above):
        with allowing_bases(tmp_path / "elsewhere", allowed):
            assert resolve(read_layers(top), "top") == {"a": 1}
    with pytest.raises(ConfigError, match="does not lie below"):
        read_layers(top)


def test_a_base_is_a_yaml_file(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "password: hunter2")
    top = write(tmp_path / "top.yaml", "base: notes.txt\n")
    with pytest.raises(ConfigError, match=r"base 'notes\.txt' is no YAML file; expected a name that ends in \.yaml or"):
        read_layers(top)
    top.write_text("base: " + "x" * 5000 + ".yaml\n")
    with pytest.raises(ConfigError, match=r"base 'xxx.*\.\.\. is neither a file nor the name") as caught:
        read_layers(top)
    assert len(str(caught.value)) < 400 + len(str(top))


@pytest.mark.parametrize(
    "text",
    [
        "root:x:0:0:hunter2\nhunter2: hunter2\n",
        "a: !hunter2 hunter2",
        "a: *hunter2",
        "hunter2: 1\nhunter2: 2",
        "a: !!int hunter2",
        "hunter2: 2001-13-45",
        "hunter2: 2001-11-15",
        "a: 'hunter2\n",
        "%hunter2\n---\na: 1",
        "? [hunter2]\n: 1",
        "hunter2",
        "- hunter2",
        "hunter2: 3",
        "hunter2: {model: 3}",
    ],
)
def test_nothing_of_a_file_that_is_no_configuration_is_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path / "notes.yaml", text))
    assert "hunter2" not in str(caught.value)
