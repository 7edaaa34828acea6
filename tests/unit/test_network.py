"""Nothing is downloaded unasked: who may open a connection, and on whose word."""

import ast
import re
import socket

import pytest

import grounding_eval_singlegpu
import Pretrain_vg
from groundwork.tools import check_data
from tests.helpers.script_runs import CONFIGS, evaluate, train
from tests.unit.test_architecture import FILES, ROOT, tree_of

# Modules and programs that talk to other machines -> the files that may use them.
NETWORK = (
    "urllib.request", "http", "socket", "ftplib", "xmlrpc", "requests", "httpx", "aiohttp",
    "urllib3", "huggingface_hub", "torch.hub", "torchvision.datasets.utils", "gdown", "wget",
    "boto3", "fsspec",
)  # fmt: skip
PROGRAMS = r"^(curl|wget|scp|rsync|aria2c|gsutil|aws|pip)\b|^git (clone|fetch|pull)\b"
# To --endpoint, which the user names; to the hub, for an id that the user gives; to the URLs of a
# source, of --parquet and of image_root. The demo listens on this machine, and what measures it
# asks it there.
MAY_CONNECT = {
    "tools/paraphrasing/endpoint.py", "jobs/pretrained.py", "jobs/demo_page.py",
    "experiments/demo_server.py", "experiments/demo_load.py", "files/places.py",
    "jobs/bulk/source.py", "files/shards.py",
}  # fmt: skip

# Libraries that fetch what they are told by name -> where the user has given that name.
BY_NAME = {
    "from_pretrained", "load_state_dict_from_url", "download_url_to_file", "hf_hub_download",
    "get_model_weights", "get_state_dict",
}  # fmt: skip
MAY_FETCH = {
    "dataset/text.py": "data.text_encoder, a name of the hub; the default is shipped",
    "models/albef/checkpoint.py": "--init",
    "models/common/bert_files.py": "--init and model.init.text: a folder, or a name of the hub",
    "models/common/word_vectors.py": "model.init.words, a folder",
    "models/common/torchvision_weights.py": "model.init.detector and model.init.backbone",
    "models/reftr/checkpoint.py": "model.init.text",
    "tools/paraphrasing/local.py": "--local",
    "tools/make_proposals.py": "--download",
}

# Where data sets were once to be had, and are no longer: shut down, or moved.
LOST_HOSTS = (
    "bvisionweb1.cs.unc.edu", "tamaraberg.com", "mscoco.org", "msvocds.blob.core.windows.net",
    "shannon.cs.illinois.edu", "web.engr.illinois.edu",
)  # fmt: skip


def docstrings(tree):
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = (node for node in ast.walk(tree) if isinstance(node, documented) and node.body)
    first = (node.body[0] for node in nodes)
    return {id(one.value) for one in first if isinstance(one, ast.Expr)}


def texts_of(path):
    """(line, text) of every string of a file that is no docstring."""
    tree = tree_of(path)
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in documentation:
                yield node.lineno, node.value


def imported(path):
    """The dotted names that a file imports, at any depth of its code."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls_of(path):
    """(call, last part of the called name) of every call of a file."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func).rpartition(".")[2]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_only_the_client_of_the_users_endpoint_opens_connections(path):
    if path.as_posix() in MAY_CONNECT:
        return
    used = [
        name
        for name in imported(path)
        if any(name == known or name.startswith(f"{known}.") for known in NETWORK)
    ]
    assert not used, f"{path} imports {used}"
    source = (ROOT / path).read_text(encoding="utf-8")
    assert not re.search(r"torch\.hub\.(?!load\(\s*REPO)|urlopen|urlretrieve", source), path
    started = [text for _, text in texts_of(path) if re.search(PROGRAMS, text)]
    assert not started, f"{path} starts {started}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_weights_and_vocabularies_are_fetched_by_names_that_the_user_gives_only(path):
    if path.as_posix() in MAY_FETCH:
        return
    for call, name in calls_of(path):
        place = f"{path}:{call.lineno}"
        assert name not in BY_NAME, f"{place} calls {name}"
        for keyword in call.keywords:
            # A model that starts from somebody's weights fetches them; a state dict is no such.
            if keyword.arg in ("pretrained", "weights", "weights_backbone"):
                built = name in ("get_model", "create_model") or "net" in name.lower()
                nothing = ast.unparse(keyword.value) in ("None", "False")
                assert nothing or not built, f"{place}: {keyword.arg} of {name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_detectors_are_built_without_the_backbone_that_torchvision_fetches_by_default(path):
    for call, name in calls_of(path):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name == "get_model" and given.get("weights") == "None":
            assert given.get("weights_backbone") == "None", f"{path}:{call.lineno}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_code_names_another_machine(path):
    """Documentation may; what runs has no address but what the user gives."""
    named = {
        f"{path}:{line}: {text[:80]}"
        for line, text in texts_of(path)
        if re.search(r"\b(https?|ftp|s3|gs)://(?!HOST\b|127\.0\.0\.1|\s|[\"')]|$)", text)
    }
    assert not named


def test_no_file_sends_anyone_to_a_host_that_the_data_sets_lost():
    settings = [path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")]
    for path in [*FILES, *settings]:
        source = (ROOT / path).read_text(encoding="utf-8").lower()
        found = [host for host in LOST_HOSTS if re.search(rf"\b{re.escape(host)}", source)]
        assert not found, f"{path} names {found}"


def test_training_evaluation_and_the_check_of_the_data_run_without_a_network(
    embedded, trained, tmp_path, monkeypatch
):
    def refuse(*arguments, **_):
        raise AssertionError(f"a connection to {arguments[-2:]}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    train(Pretrain_vg, "tiny/Pretrain_vg_amc", tmp_path / "run")
    file = trained / "checkpoint_01.pth"
    few, out = ["data.splits=[val]"], tmp_path / "results"
    assert evaluate(grounding_eval_singlegpu, "tiny/Grounding_refcoco", file, out, overrides=few)
    config = str(CONFIGS / "tiny/Pretrain_vg_amc.yaml")
    roots = f"roots.embedded={embedded}"
    assert check_data.main([config, "--workers", "1", "--sample", "3", "--set", roots]) == 0
