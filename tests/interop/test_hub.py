"""The hub: against a stand-in that speaks enough of its HTTP on this machine, and against none at all."""

import base64
import hashlib
import json
import os
import re
import threading
import urllib.parse
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from ebbtide import cli
from ebbtide.data import save_points
from ebbtide.errors import EbbtideError, InputError
from ebbtide.exact.tuned import Tuned
from ebbtide.interop.hub import download, push_to_hub
from ebbtide.kinds.runs import from_pretrained
from ebbtide.recipes import RECIPES, cited
from ebbtide.training.card import FIGURE, CardParts, model_card
from ebbtide.training.storage import CODEC, EXPORTED
from recording import record
from training.runs import run, sentence, tiny

NAME = "someone/moons"


class Hub(ThreadingHTTPServer):
    """Repositories as {name: {path: bytes}}, each with one commit."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        self.refuse: int | None = None
        self.revisions = {"main", "v2", "pr/1", "d" * 40}
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, value=None, code=200, headers=(), body=None):
        body = json.dumps(value).encode() if body is None else body
        self.send_response(code)
        for key, text in (("Content-Length", str(len(body))), *headers):
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        if self.server.refuse:
            return self.answer({"error": "no"}, self.server.refuse, [("X-Error-Message", "Out of cheese.")])
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.server.repositories.setdefault(name, {})
            self.server.private[name] = asked.get("private") or asked.get("visibility") == "private"
            return self.answer({"url": f"{self.server.address}/{name}", "id": name})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        found = re.match(r"/api/models/([^/]+/[^/]+)(/.*)?$", path)
        if found and found[1] in self.server.repositories:
            return self.api(found[1], found[2] or "", body)
        found = re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)$", path)
        if found and found[2] in self.server.repositories.get(found[1], {}):
            data = self.server.repositories[found[1]][found[2]]
            headers = [("ETag", f'"{hashlib.sha256(data).hexdigest()}"'), ("X-Repo-Commit", "c" * 40)]
            return self.answer(body=data, headers=headers)
        return self.answer({"error": "Repository not found"}, 404, [("X-Error-Code", "RepoNotFound")])

    def api(self, name, rest, body):
        files = self.server.repositories[name]
        if rest.startswith("/preupload"):
            wanted = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in wanted]
            return self.answer({"files": modes})
        if rest.startswith("/commit"):
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            commit = f"{self.server.address}/{name}/commit/1"
            return self.answer({"success": True, "commitUrl": commit, "commitOid": "c" * 40})
        if (
            rest.startswith("/revision/")
            and urllib.parse.unquote(rest[len("/revision/") :]) not in self.server.revisions
        ):
            return self.answer({"error": "Invalid rev id"}, 404, [("X-Error-Code", "RevisionNotFound")])
        if "/tree/" in rest:
            entries = [{"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                       for path, data in files.items()]  # fmt: skip
            return self.answer(entries)
        return self.answer({"id": name, "sha": "c" * 40, "siblings": [{"rfilename": path} for path in files]})

    do_GET = do_HEAD = do_POST = handle_any


def point_at(monkeypatch, address, cache):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = Hub()
    point_at(monkeypatch, server.address, tmp_path / "cache")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")  # the discard port: nobody listens


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return replace(run(tiny("conditional", batch=8), tmp_path_factory.mktemp("run") / "run"), step=1234)


def test_push_and_load(hub, trained):
    assert push_to_hub(trained, NAME, token="hf_x", private=True) == f"{hub.address}/{NAME}"
    assert sorted(hub.repositories[NAME]) == ["README.md", "config.json", "manifest.json", "model.safetensors"]
    assert hub.private[NAME]
    again = from_pretrained(NAME)
    assert torch.equal(again.sample(6, steps=3, label=1), trained.sample(6, steps=3, label=1))
    assert (again.step, again.recipe, again.classes) == (1234, trained.recipe, trained.classes)


def test_pushing_again_replaces(hub, trained):
    push_to_hub(trained, NAME, token="hf_x")
    push_to_hub(replace(trained, step=5), NAME, token="hf_x")
    assert from_pretrained(NAME).step == 5
    assert not hub.private[NAME]


def test_a_card_edited_on_the_hub_is_no_damage_a_weight_is(hub, trained):
    push_to_hub(trained, NAME, token="hf_x")
    hub.repositories[NAME]["README.md"] = b"# Mine"
    assert from_pretrained(NAME).step == 1234
    weights = hub.repositories[NAME]["model.safetensors"]
    hub.repositories[NAME]["model.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])
    hub.repositories["other/name"] = hub.repositories.pop(NAME)
    with pytest.raises(InputError, match="is damaged") as refused:
        from_pretrained("other/name")
    sentence(refused.value)


def test_only_what_is_needed_is_downloaded(hub, trained):
    push_to_hub(trained, NAME, token="hf_x")
    hub.repositories[NAME] |= {"pytorch_model.bin": b"\x80", "code.py": b"x", "notes/a.txt": b"x"}
    folder = download(NAME)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "manifest.json", "model.safetensors",
    ]  # fmt: skip
    assert not [asked for asked in hub.asked if "code.py" in asked and "resolve" in asked]


def test_a_repository_of_something_else_is_refused(hub):
    hub.repositories["meta/llama"] = {"config.json": b'{"model_type": "llama"}', "pytorch_model.bin": b"\x80"}
    with pytest.raises(InputError, match=r"manifest\.json"):
        from_pretrained("meta/llama")


def test_a_repository_that_is_not_there(hub):
    with pytest.raises(InputError) as refused:
        from_pretrained("no/such")
    assert sentence(refused.value) == "There is no folder 'no/such' and no such repository you may read."


def test_a_revision_is_named_behind_an_at(hub, trained, ebbtide_cli):
    push_to_hub(trained, NAME, token="hf_x")
    for revision in ("v2", "pr/1"):
        assert from_pretrained(f"{NAME}@{revision}").step == 1234
        asked = [urllib.parse.unquote(path) for path in hub.asked]
        assert f"GET /api/models/{NAME}/revision/{revision}" in asked
    with pytest.raises(InputError) as refused:
        from_pretrained(f"{NAME}@v3")
    assert sentence(refused.value) == f"{NAME!r} has no revision 'v3': a branch, a tag or a commit."
    assert ebbtide_cli("sample", f"hf:{NAME}@v2", "--n", "4", "--steps", "2", "--out", "x.npy", "--no-picture")[0] == 0


def test_a_mistyped_folder_does_not_ask_the_hub(hub, trained, ebbtide_cli, tmp_path):
    """A folder of that user's name lies here; hf: asks all the same."""
    (tmp_path / "someone" / "moon").mkdir(parents=True)
    for words in (["sample", NAME], ["train", "--from", NAME], ["train", "flow", "--init", NAME], ["distill", NAME]):
        code, out, err = ebbtide_cli(*words)
        assert (code, out, hub.asked) == (2, "", [])
        assert err == (
            "ebbtide: There is no 'someone/moons' in the folder someone (did you mean 'someone/moon'?); "
            "write hf:someone/moons for the hub's.\n"
        )
    code, _, err = ebbtide_cli("train", "flow-policy", "--data", "someone/arm")
    assert (code, hub.asked, "There is no 'someone/arm' in the folder someone; write hf:" in err) == (2, [], True)
    push_to_hub(trained, NAME, token="hf_x")
    assert from_pretrained(f"hf:{NAME}").step == 1234


@pytest.fixture
def ebbtide_cli(capsys, monkeypatch, tmp_path):
    """Call a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        capsys.readouterr()
        return (cli.main(list(words)), *capsys.readouterr())

    return call


@pytest.mark.parametrize("code", [401, 403, 429, 500])
def test_a_refusal_is_one_sentence(hub, trained, monkeypatch, code):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    hub.refuse = code
    with pytest.raises(EbbtideError) as refused:
        push_to_hub(trained, NAME, token="hf_x")
    assert sentence(refused.value).startswith(f"{NAME!r} can't be uploaded to the hub: ")
    assert refused.value.exit_code == 1
    with pytest.raises(InputError) as refused:
        from_pretrained(NAME)
    assert NAME in sentence(refused.value)


@pytest.mark.parametrize("name", ["no_slash/too/many", "bad name", "-x/y", "a/" + "b" * 200])
def test_a_bad_name_is_one_sentence(hub, trained, name):
    with pytest.raises(EbbtideError) as refused:
        push_to_hub(trained, name, token="hf_x")
    assert "can't be uploaded to the hub" in sentence(refused.value)


def test_no_network_is_one_sentence(no_network, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.showwarning", None)
    trained.save_pretrained("export")
    for words, code, text in (
        (["sample", NAME], 2, f"ebbtide: {NAME!r} is no folder here, and is not available from the hub: "),
        (["export", "export", "--push", NAME], 1, f"ebbtide: {NAME!r} can't be uploaded to the hub: "),
    ):
        assert cli.main(words) == code
        err = capsys.readouterr().err
        assert err.startswith(text)
        assert err.count("\n") == 1


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A folder in a user's home: of all that leaves, no byte may say where it is, whose, or on which machine."""
    for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME"):
        monkeypatch.setenv(name, "jo-77")
    monkeypatch.setattr("socket.gethostname", lambda: "machine-of-jo-77")
    folder = tmp_path / "home" / "jo-77" / "secret-project"
    folder.mkdir(parents=True)
    return folder


def table(folder, name):
    save_points(folder / name, torch.randn(30, 2, generator=torch.Generator().manual_seed(0)))
    return str(folder / name)


def pictures(folder):
    for i, kind in enumerate(("cat", "dog", "cat", "dog")):
        (folder / "digits" / kind).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 * i).save(folder / "digits" / kind / f"{i}.png")
    return str(folder / "digits")


def policies(folder):
    """Two files of the same steps."""
    with np.load(record(folder / "both.npz")) as archive:
        arrays = dict(archive)
    np.savez(folder / "seen.npz", state=arrays.pop("state"))
    np.savez(folder / "done.npz", **arrays)
    return f"{folder}/seen.npz+{folder}/done.npz"


KINDS = {
    "points": lambda folder: tiny(data=table(folder, "points.csv"), steps=1, gaussians=1),
    "two sets": lambda folder: tiny("two sets", data=table(folder, "a.csv"), source=table(folder, "b.csv"), steps=1),
    "pictures": lambda folder: tiny("images", data=pictures(folder), label="folder", steps=1),
    "policy": lambda folder: replace(
        RECIPES["flow-policy-pusht"](), data=policies(folder), steps=1, batch=4, network="action_unet:width=8,emb=16"
    ),
}
NAMED = {"points": "points.csv", "two sets": "a.csv", "pictures": "./digits", "policy": "seen.npz+done.npz"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_leaves_tells_of_no_folder_user_or_machine(hub, away, kind):
    recipe = KINDS[kind](away)
    run(recipe, away / "run")
    named = recipe.outside()
    row = Tuned(evaluations=2, sampler="heun", grid="uniform", steps=1, rms=0.1, median=0.1, error=0.1, usual=0.2)
    measured = ({"name": "sliced W2", "value": 0.1, "how": {"checkpoint": 2, "n": 10}},)
    trained = replace(from_pretrained(away / "run"), tuned=(row,), card_parts=lambda: CardParts(measured))
    exported = trained.save_pretrained(away / "out", license="mit")
    push_to_hub(trained, NAME, token="hf_x", license="mit")
    leaving = {path.name: path.read_bytes() for path in exported.iterdir()}
    without = {FIGURE} | ({CODEC} if kind != "points" else set())  # no samples were drawn; ranks are a codec
    assert set(leaving) == set(hub.repositories[NAME]) == set(EXPORTED) - without
    for name, data in [*leaving.items(), *hub.repositories[NAME].items()]:
        for private in (b"jo-77", b"secret-project", str(away.parents[2]).encode()):
            assert private not in data, name
    for again in (from_pretrained(exported), from_pretrained(NAME)):
        assert again.recipe == recipe.shared()
        assert again.recipe.data == NAMED[kind]
        with pytest.raises(InputError, match=r"only if you name it too: --data \S*" + NAMED[kind].replace("+", r"\+")):
            again.reading()
    assert trained.recipe == recipe
    again, given = from_pretrained(exported, **named), from_pretrained(away / "run", **named)
    assert torch.equal(again.sample(3, steps=2), given.sample(3, steps=2))


# --- the card -------------------------------------------------------------------------------------------------------


def test_the_card_has_its_numbers(trained):
    card = model_card(trained, NAME)
    parameters = sum(p.numel() for p in trained.denoiser.parameters())
    recipe = trained.recipe
    for text in (
        "three round clusters", "(2 columns; by class: right, left, bottom)", f"{parameters:,} parameters",
        "1,234 steps of 8", "seed 3", "standardised per column", f"`{recipe.sampler}`", f"`{recipe.grid}`",
        "lipman2023flow", NAME,
    ):  # fmt: skip
        assert text in card, text
    assert not re.search(r"[{}]|None|user/name", card.split("```")[0] + card.split("```")[2])


def test_the_front_matter_is_yaml_whatever_the_labels(trained):
    yaml = pytest.importorskip("yaml")
    odd = replace(trained, classes=("a: b", "- c", "---"))
    front = model_card(odd, NAME).split("---\n")[1]
    assert yaml.safe_load(front) == {
        "library_name": "ebbtide",
        "tags": ["ebbtide", "diffusion", "flow-matching"],
    }
    licensed = yaml.safe_load(model_card(odd, NAME, "cc-by-4.0").split("---\n")[1])
    assert licensed == yaml.safe_load(front) | {"license": "cc-by-4.0"}
    for wrong in ("mit\ntags: x", "My licence", "-", "MIT"):
        with pytest.raises(InputError, match="license must be written as the hub does"):
            model_card(odd, NAME, wrong)
    data = huggingface_hub.ModelCard(model_card(odd, NAME)).data
    assert data.library_name == "ebbtide"


def evaluated(folder, step, **changes):
    """An evaluation.json as `ebbtide evaluate` writes it."""
    how = {"checkpoint": step, "n": 64, "sampler": "heun", "grid": "uniform", "steps": 10, "seed": 5}
    rows = [
        {"name": "sliced W2", "value": 0.0125, "low": 0.01, "high": 0.02, "floor": 0.0094, "how": how | changes},
        {"name": "outliers: a|b", "value": 0.5, "low": None, "how": how | changes},
        {"name": "never measured", "value": None, "how": how | changes},
        {"name": "beyond all floats", "value": 10**400, "how": how | changes},
    ]
    (folder / "evaluation.json").write_text(json.dumps(rows))


def test_the_card_has_what_was_measured_and_a_figure(tmp_path, monkeypatch):
    """Of this checkpoint alone; and they go with an export, and to the hub's index of results."""
    folder = tmp_path / "run"
    step = run(tiny(), folder).step
    before = from_pretrained(folder)
    assert before.card_parts() == CardParts()
    assert "Measured" not in model_card(before, NAME)
    evaluated(folder, step)
    (folder / "samples.png").write_bytes(b"a figure")
    ready = from_pretrained(folder)
    assert before.card_parts() == ready.card_parts()  # read when they are asked for
    card = model_card(ready, NAME)
    assert "| sliced W2 | 0.0125 | 0.01 to 0.02 | 0.0094 |" in card
    assert "By `ebbtide evaluate`: n 64, sampler heun, grid uniform, steps 10, seed 5." in card
    assert "never measured" not in card
    assert r"| outliers: a\|b | 0.5 |" in card
    evaluated(folder, step, sampler="bespoke:weights=/0.2/0.1 0.3", grid="1,0.5,0", steps=2)
    fitted = model_card(ready, NAME)
    assert "By `ebbtide evaluate`: n 64, sampler bespoke (`tuned.json`), steps 2, seed 5." in fitted
    [result] = huggingface_hub.ModelCard(card).data.eval_results[:1]
    assert (result.metric_type, result.metric_name, result.metric_value) == ("sliced_w2", "sliced W2", 0.0125)
    assert (result.task_type, result.dataset_type) == ("other", "three_gaussians")
    ready.save_pretrained(tmp_path / "exported")
    assert (tmp_path / "exported/samples.png").read_bytes() == b"a figure"
    assert "![Samples](samples.png)" in (tmp_path / "exported/README.md").read_text()
    assert from_pretrained(tmp_path / "exported").card_parts() == CardParts()
    ready.save_pretrained(tmp_path / "exported", overwrite=True)
    evaluated(folder, step - 1)  # of a checkpoint before this one
    os.utime(folder / "samples.png", (1, 1))
    old = from_pretrained(folder)
    assert old.card_parts() == CardParts()
    (folder / "evaluation.json").write_text("{")
    assert from_pretrained(folder).card_parts() == CardParts()


def test_the_card_states_task_and_data_set_where_the_hub_has_them(tmp_path):
    yaml = pytest.importorskip("yaml")
    images = run(tiny("images", batch=4, steps=1), tmp_path / "images")
    front = yaml.safe_load(model_card(images, NAME).split("---\n")[1])
    assert front["pipeline_tag"] == "unconditional-image-generation"
    assert "datasets" not in front
    recipe = replace(images.recipe, data="hf:someone/some-set@main:small")
    front = yaml.safe_load(model_card(replace(images, recipe=recipe), NAME).split("---\n")[1])
    assert front["datasets"] == ["someone/some-set"]
    local = replace(RECIPES["flow-policy"](), data="cubes.npz")
    front = yaml.safe_load(model_card(replace(images, recipe=local), NAME).split("---\n")[1])
    assert front["pipeline_tag"] == "robotics"
    assert "datasets" not in front


def test_no_name_breaks_the_card(trained):
    odd = replace(trained, classes=("a\n---\nx", "\x1b[2J"), recipe=replace(trained.recipe, data="a\n# b\x07.csv"))
    card = model_card(odd, "a\x1b/b", "mit")
    assert all(map(str.isprintable, card.split("\n")))
    assert card.count("\n") == model_card(trained, "a/b", "mit").count("\n")


def test_the_cards_python_runs(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained.save_pretrained("export")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "export" / "README.md").read_text(), re.S)[1]
    scope: dict = {}
    exec(code, scope)  # the code is this project's own
    assert scope["x"].shape == (1000, 2)


@pytest.mark.parametrize("sees", [{}, {"cameras": "top", "prompt": 24, "n_obs_steps": 2}])
def test_a_policys_card_drives_a_robot(sees, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = "action_transformer:width=32,depth=1" if sees else "action_unet:width=8,emb=16"
    recipe = replace(
        RECIPES["flow-policy-pusht"](), data=record(tmp_path / "episodes.npz", pictures=bool(sees)), steps=1, batch=4,
        sample_steps=2, network=network, **sees,
    )  # fmt: skip
    trained = run(recipe, tmp_path / "run")
    trained.save_pretrained("export")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "export" / "README.md").read_text(), re.S)[1]
    assert "trained.sample" not in code
    scope: dict = {}
    exec(code, scope)  # the code is this project's own
    assert scope["action"].shape == (2,)
    assert set(scope["observation"]) == ({"state", "images", "prompt"} if sees else {"state"})


@pytest.mark.parametrize(("name", "cited"), [("ddpm", "ho2020ddpm"), ("edm", "karras2022edm"), ("bridge", "albergo"),
                                             ("ot", "tong2024otcfm")])  # fmt: skip
def test_the_card_cites_the_method(name, cited, tmp_path):
    assert cited in model_card(run(tiny(name, steps=1), tmp_path / "run"), NAME)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_card_of_every_recipe_cites_its_own_papers(name, trained):
    card = model_card(replace(trained, recipe=replace(RECIPES[name](), data="two_moons")), NAME)
    assert cited(RECIPES[name]) in card
