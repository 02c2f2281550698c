"""LeRobot's format: round trips, folders made by hand, damage; and LeRobot itself, which opens what was written."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.data import shards
from ebbtide.data.episodes import Episodes, Windows, resized
from ebbtide.data.levels import Levels
from ebbtide.errors import InputError, StorageError
from ebbtide.interop.lerobot import (
    files,
    frames as video,
    open_dataset,
    read_dataset,
    read_info,
    read_stats,
    write_dataset,
    writing,
)  # fmt: skip
from training.runs import sentence

av, pa, pq = (pytest.importorskip(name) for name in ("av", "pyarrow", "pyarrow.parquet"))

# A recording and statistics that others made, where they lie beside the checkout; their licences keep them out of it.
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
RECORDING, ALOHA = SHARED / "lerobot_so101_v3", SHARED / "aloha_sim_transfer_cube_human_meta"
VIDEO = "videos/observation.images.{}/chunk-000/file-{:03d}.mp4"
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


def picture(i, h=32, w=48):
    """Four plain quarters, told apart from those of other steps: what a video keeps nearly."""
    shades = np.random.default_rng(i).integers(30, 226, (2, 2, 3), dtype=np.uint8)
    return shades.repeat(h // 2, 0).repeat(w // 2, 1)


def episodes(lengths=(5, 3, 7), cameras=("top",), fps=10.0, tasks=("Push", "Pull", "Push"), **own):
    n, g = sum(lengths), torch.Generator().manual_seed(0)
    images = {name: torch.from_numpy(np.stack([picture(100 * k + i) for i in range(n)]))
              for k, name in enumerate(cameras)}  # fmt: skip
    return Episodes(
        torch.randn(n, 3, generator=g), torch.randn(n, 2, generator=g), torch.tensor(lengths).cumsum(0), images,
        tasks, fps, ("x", "y", "angle"), ("to x", "to y"), **own,
    )  # fmt: skip


def rows(file):
    return pq.read_table(file).to_pydict()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    whole = episodes(cameras=("top", "wrist_cam"))
    return whole, write_dataset(whole, tmp_path_factory.mktemp("lerobot") / "set")


@pytest.fixture
def broken(written, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(written[1], tmp_path / "broken"))


# --- there and back -------------------------------------------------------------------------------------------------


def near(frames, source, most=8):
    assert frames.shape == source.shape
    off = (frames.float() - source.float()).flatten(1)
    assert off.mean().abs() < 0.5  # no darker and no brighter
    assert off.abs().mean(1).max() < most  # a frame of another step is off by some 60


def test_numbers_come_back_exactly_and_pictures_nearly(written):
    whole, folder = written
    again = read_dataset(folder, cameras=("wrist_cam", "top"))
    for name in ("state", "action", "ends"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
        assert getattr(again, name).dtype == getattr(whole, name).dtype
    for name in ("tasks", "fps", "state_names", "action_names"):
        assert getattr(again, name) == getattr(whole, name)
    assert list(again.images) == ["wrist_cam", "top"]
    for name, frames in again.images.items():
        near(frames, whole.images[name])


def test_a_set_without_a_state(tmp_path):
    whole = replace(episodes(), state=torch.zeros(15, 0), state_names=())
    folder = write_dataset(whole, tmp_path / "set")
    assert "observation.state" not in read_info(folder)["features"]
    again = read_dataset(folder, cameras=("top",))
    assert (again.state.shape, again.state_names) == ((15, 0), ())
    assert torch.equal(again.action, whole.action)
    with pytest.raises(InputError, match=r"no column 'observation\.environment_state'"):
        read_dataset(folder, state=("observation.state", "observation.environment_state"))


def test_without_cameras_no_video_is_touched(written, broken, monkeypatch):
    shutil.rmtree(broken / "videos")
    monkeypatch.setattr(
        files, "need_package", lambda name, real=files.need_package: {}[name] if name == "av" else real(name)
    )
    again = read_dataset(broken)
    assert torch.equal(again.state, written[0].state)
    assert again.images == {}


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_codecs(codec, tmp_path, capfd):
    whole = episodes((4,), tasks=("Push",))
    if codec == "av1":  # whose encoder wants 64 pixels at least
        whole = replace(whole, images={"top": whole.images["top"].repeat(1, 3, 2, 1)})
    folder = write_dataset(whole, tmp_path / "set", codec=codec)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER  # the AV1 encoder takes more, if root lets it
    near(read_dataset(folder, cameras=("top",)).images["top"], whole.images["top"])
    with av.open(str(folder / VIDEO.format("top", 0))) as container:
        assert container.streams.video[0].codec_context.name in {"h264": ("h264",), "av1": ("av1", "libdav1d")}[codec]
        assert container.streams.video[0].pix_fmt == "yuv420p"
    assert capfd.readouterr().err == ""


def test_no_pictures_no_tasks_no_names_one_column(tmp_path):
    """LeRobot keeps a feature of one number as the number itself, not as a list."""
    whole = Episodes(torch.tensor([[1.5], [2], [3]]), torch.tensor([[4.0], [5], [6]]), torch.tensor([2, 3]), fps=30.0)
    folder = write_dataset(whole, tmp_path / "set", robot="arm")
    assert rows(folder / DATA)["action"] == [4, 5, 6]
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["video_path"], info["robot_type"], info["fps"]) == (None, "arm", 30)
    assert info["features"]["action"] == {"dtype": "float32", "shape": [1], "names": None}
    again = read_dataset(folder)
    assert torch.equal(again.state, whole.state)
    assert torch.equal(again.action, whole.action)
    assert (again.tasks, again.images) == ((), {})
    assert (again.state_names, again.action_names) == (("state_0",), ("action_0",))


@pytest.mark.parametrize("fps", [29.97, 12.5, 1000 / 70])
def test_fps_need_not_be_whole(fps, tmp_path):
    whole = episodes(fps=fps)
    again = read_dataset(write_dataset(whole, tmp_path / "set"), cameras=("top",))
    assert again.fps == fps
    near(again.images["top"], whole.images["top"])


def test_files_hold_so_much_and_no_more(tmp_path, monkeypatch):
    """Videos of at most 0.9 s at 10 Hz: lengths 5, 3, 7 → files of 8 and 7 steps; of data, in MB, one episode each."""
    monkeypatch.setattr(writing, "VIDEO_SECONDS", 0.9)
    monkeypatch.setattr(writing, "DATA_MB", 1e-4)
    whole = episodes()
    folder = write_dataset(whole, tmp_path / "set")
    table = rows(folder / EPISODES)
    key = "videos/observation.images.top/"
    assert table[key + "file_index"] == [0, 0, 1]
    assert table[key + "from_timestamp"] == pytest.approx([0, 0.5, 0])
    assert table[key + "to_timestamp"] == pytest.approx([0.5, 0.8, 0.7])
    assert table["data/file_index"] == [0, 1, 2]
    assert [len(rows(file)["index"]) for file in sorted((folder / "data").rglob("*.parquet"))] == [5, 3, 7]
    again = read_dataset(folder, cameras=("top",))
    assert torch.equal(again.action, whole.action)
    near(again.images["top"], whole.images["top"])
    monkeypatch.setattr(writing, "FILES_A_CHUNK", 2)
    folder = write_dataset(whole, tmp_path / "chunks")
    assert rows(folder / EPISODES)["data/chunk_index"] == [0, 0, 1]
    assert rows(folder / EPISODES)["data/file_index"] == [0, 1, 0]
    assert torch.equal(read_dataset(folder).action, whole.action)


def test_a_set_is_prepared_on_the_disk_as_it_is_in_memory(tmp_path, monkeypatch):
    """In pieces of four frames, which begin and end inside episodes of 5, 3 and 7, and lie in several files."""
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(writing, "VIDEO_SECONDS", 0.9)
    monkeypatch.setattr(writing, "DATA_MB", 1e-4)
    folder = write_dataset(episodes(), tmp_path / "set")
    for how in ({"size": 8}, {"size": 8, "episodes": [0, 2]}):
        whole = read_dataset(folder, cameras=("top",), **how)
        monkeypatch.setattr(shards, "SIZE", 4 * 192)
        kept = open_dataset(folder, cameras=("top",), **how).read(cache=True, on_disk=True)
        assert isinstance(kept.images["top"], shards.Shards)
        assert torch.equal(kept.state.tensor(), whole.state)
        assert torch.equal(kept.action.tensor(), whole.action)
        assert torch.equal(kept.images["top"].tensor(), whole.images["top"])
        monkeypatch.setattr(shards, "SIZE", 2**26)
    assert len(list((tmp_path / "cache").glob("episodes-*/0*.safetensors"))) == 4 * 1 + 4 + 3


def test_some_episodes(written):
    whole, folder = written
    part, all_ = read_dataset(folder, cameras=("top",), episodes=[2, 1]), read_dataset(folder, cameras=("top",))
    assert torch.equal(part.state, whole.state[5:])
    assert part.ends.tolist() == [3, 10]
    assert part.tasks == ("Pull", "Push")
    assert torch.equal(part.images["top"], all_.images["top"][5:])
    for wrong in ([3], [-1], []):
        with pytest.raises(InputError, match="from 0 to 2"):
            read_dataset(folder, episodes=wrong)


def test_pictures_can_be_made_smaller(written):
    small = read_dataset(written[1], cameras=("top",), size=8).images["top"]
    assert small.shape == (15, 8, 8, 3)
    near(small[:, 1::5, 1::5], written[0].images["top"][:, 4::20, 6::30])  # the middles of the quarters
    whole = read_dataset(written[1], cameras=("top",)).images["top"]
    assert torch.equal(small, resized(whole, 8))  # to the bit what a simulator's images become
    assert torch.equal(read_dataset(written[1], cameras=("top",), size=7).images["top"], resized(whole, 7))
    with pytest.raises(InputError, match="size"):
        read_dataset(written[1], size=-1)


# --- what is on the disk, by hand -----------------------------------------------------------------------------------


def test_the_folder_by_hand(written):
    _, folder = written
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == sorted([
        "meta/info.json", "meta/stats.json", "meta/tasks.parquet", EPISODES, DATA,
        VIDEO.format("top", 0), VIDEO.format("wrist_cam", 0),
    ])  # fmt: skip
    info = read_info(folder)
    counts = {"total_episodes": 3, "total_frames": 15, "total_tasks": 2, "codebase_version": "v3.0", "fps": 10}
    assert {name: info[name] for name in counts} == counts
    assert info["splits"] == {"train": "0:3"}
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "angle"]}
    assert info["features"]["observation.images.top"]["shape"] == [32, 48, 3]
    steps = rows(folder / DATA)
    assert steps["frame_index"] == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3, 4, 5, 6]
    assert steps["episode_index"] == [0] * 5 + [1] * 3 + [2] * 7
    assert steps["task_index"] == [0] * 5 + [1] * 3 + [0] * 7
    assert steps["index"] == list(range(15))
    assert steps["timestamp"][4:7] == [pytest.approx(0.4), 0, pytest.approx(0.1)]
    schema = pq.read_schema(folder / DATA)
    assert pa.types.is_fixed_size_list(schema.field("action").type)
    assert schema.field("action").type.list_size == 2
    assert {str(schema.field(name).type) for name in ("index", "task_index", "frame_index")} == {"int64"}
    assert str(schema.field("timestamp").type) == "float"
    table = rows(folder / EPISODES)
    assert table["tasks"] == [["Push"], ["Pull"], ["Push"]]
    assert (table["dataset_from_index"], table["dataset_to_index"]) == ([0, 5, 8], [5, 8, 15])
    assert table["stats/frame_index/max"] == [[4], [2], [6]]
    assert table["stats/observation.images.top/mean"][0][0][0][0] > 0
    assert rows(folder / "meta/tasks.parquet") == {"task_index": [0, 1], "__index_level_0__": ["Push", "Pull"]}


def test_tasks_are_the_index_of_a_pandas_table(written):
    import pandas

    tasks = pandas.read_parquet(written[1] / "meta/tasks.parquet")
    assert tasks.loc["Pull"].task_index == 1
    assert tasks.iloc[0].name == "Push"
    assert list(tasks.columns) == ["task_index"]


def test_every_episode_starts_with_a_key_frame(tmp_path):
    """In a still image too, of which the encoder would make every second frame one."""
    still = replace(episodes(), images={"top": torch.from_numpy(picture(0)).repeat(15, 1, 1, 1)})
    with av.open(str(write_dataset(still, tmp_path / "set") / VIDEO.format("top", 0))) as container:
        frames = [(round(frame.time * 10), frame.key_frame) for frame in container.decode(video=0)]
    assert [i for i, _ in frames] == list(range(15))
    keys = {i for i, key in frames if key}
    assert {0, 5, 8} <= keys
    assert len(keys) < 15


def test_statistics_by_hand(tmp_path):
    """State 1, 2, 3, 6: mean 3, variance 14/4, median 2.5; 1 % is 1 + 0.03, 99 % is 6 - 0.09. An image of two halves,
    0 and 255, and one of 51: of eight pixels four are 51, two 0 and two 255."""
    frames = torch.full((4, 2, 4, 3), 51, dtype=torch.uint8)
    frames[:2, :, :2], frames[:2, :, 2:] = 0, 255
    frames[..., 2] = 255
    state = torch.tensor([[1.0], [2], [3], [6]])
    whole = Episodes(state, torch.tensor([[1.0, 9]] * 4), torch.tensor([2, 4]), {"eye": frames.repeat(1, 8, 8, 1)})
    stats = read_stats(write_dataset(whole, tmp_path / "set"))
    found = {name: value.item() for name, value in stats["observation.state"].items()}
    assert found == pytest.approx(
        {"min": 1, "max": 6, "mean": 3, "std": 3.5**0.5, "count": 4, "q01": 1.03, "q10": 1.3, "q50": 2.5, "q90": 5.1,
         "q99": 5.91}
    )  # fmt: skip
    assert stats["action"]["std"].tolist() == [0, 0]
    eye = stats["observation.images.eye"]
    assert {value.shape for name, value in eye.items() if name != "count"} == {(3, 1, 1)}
    mean = (2 * 0.2 + 1) / 4
    red = {name: value.flatten()[0].item() for name, value in eye.items()}
    assert red == pytest.approx({
        "min": 0, "max": 1, "mean": mean, "std": ((mean**2 + (1 - mean) ** 2) / 4 + (mean - 0.2) ** 2 / 2) ** 0.5,
        "count": 4, "q01": 0, "q10": 0, "q50": 0.2, "q90": 1, "q99": 1,
    })  # fmt: skip
    assert eye["min"][2].item() == eye["q50"][2].item() == 1
    table = rows(tmp_path / "set" / EPISODES)
    assert table["stats/observation.state/mean"] == [[1.5], [4.5]]
    assert table["stats/observation.images.eye/q50"][1] == [[[pytest.approx(0.2)]]] * 2 + [[[1]]]


def test_a_quantile_of_pixels_is_the_least_that_so_many_do_not_exceed():
    """Of a hundred pixels 1 is 0, 9 are 51, 40 are 102, 50 are 255."""
    counts = np.zeros((3, 256), int)
    counts[:, [0, 51, 102, 255]] = 1, 9, 40, 50
    found = {name: np.array(value).flatten()[0] for name, value in writing._image_stats(counts, 1).items()}
    assert [found[f"q{q:02d}"] for q in files.QUANTILES] == pytest.approx([0, 0.2, 0.4, 1, 1])


# --- folders as others make them ------------------------------------------------------------------------------------


def by_hand(folder, *, features=None, key="observation.image", frames=None, tasks_column="task"):
    """Two episodes of 3 and 2 steps in two data files, lists of any length, a table of names, a task column."""
    state = [[float(i), 10.0 * i] for i in range(5)]
    steps = {
        "observation.state": state, "action": [[-x, -y] for x, y in state], "next.done": [False] * 5,
        "timestamp": pa.array([0, 0.5, 1, 0, 0.5], pa.float32()), "frame_index": [0, 1, 2, 0, 1],
        "episode_index": [0, 0, 0, 1, 1], "index": list(range(5)), "task_index": [7, 7, 7, 3, 3],
    }  # fmt: skip
    if frames is not None:
        steps[key] = [{"bytes": data, "path": None} for data in frames]
    for place in ("meta/episodes/chunk-000", "data/chunk-000"):
        (folder / place).mkdir(parents=True)
    whole = pa.table(steps)
    pq.write_table(whole.slice(0, 3), folder / "data/chunk-000/file-000.parquet")
    pq.write_table(whole.slice(3), folder / "data/chunk-000/file-001.parquet")
    pq.write_table(pa.table({"task_index": [7, 3], tasks_column: ["Stir", "Pour"]}), folder / "meta/tasks.parquet")
    table = {"episode_index": [0, 1], "length": [3, 2], "tasks": [["Stir"], ["Pour"]]} | {
        f"videos/{key}/{name}": values
        for name, values in {"chunk_index": [0, 0], "file_index": [0, 0], "from_timestamp": [2.0, 5.5]}.items()
    }
    pq.write_table(pa.table(table), folder / EPISODES)
    names = {"motors": ["waist", "elbow"]}
    info = {
        "codebase_version": "v3.0", "fps": 2.0, "total_episodes": 2, "total_frames": 5,
        "features": {
            "observation.state": {"dtype": "float32", "shape": [2], "names": names},
            "action": {"dtype": "float32", "shape": [2], "names": {"b": 1, "a": 0}},
            key: {"dtype": "video" if frames is None else "image", "shape": [32, 48, 3]},
        } | (features or {}),
    }  # fmt: skip
    (folder / "meta/info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("column", ["task", "__index_level_0__"])
def test_a_folder_by_hand(tmp_path, column):
    found = read_dataset(by_hand(tmp_path / "set", tasks_column=column))
    assert found.state.tolist() == [[0, 0], [1, 10], [2, 20], [3, 30], [4, 40]]
    assert found.state.dtype == torch.float32
    assert found.action[4].tolist() == [-4, -40]
    assert found.ends.tolist() == [3, 5]
    assert found.tasks == ("Stir", "Pour")
    assert found.fps == 2
    assert found.state_names == ("waist", "elbow")
    assert found.action_names == ("a", "b")


def test_features_side_by_side(tmp_path):
    found = read_dataset(by_hand(tmp_path / "set"), state=("observation.state", "action"))
    assert found.state[3].tolist() == [3, 30, -3, -30]
    assert found.state_names == ("waist", "elbow", "a", "b")


@pytest.mark.parametrize("options", [{}, {"bf": "3", "g": "5"}, {"bf": "0", "g": "250"}])
def test_a_video_is_read_by_its_times(tmp_path, options):
    """16 frames at 2 Hz; episode 0 begins at 2 s, frame 4, and episode 1 at 5.5 s, frame 11; key frames anywhere."""
    folder = by_hand(tmp_path / "set")
    file = folder / "videos/observation.image/chunk-000/file-000.mp4"
    file.parent.mkdir(parents=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", Fraction(2), options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for i in range(16):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    found = read_dataset(folder, cameras=("image",))
    near(found.images["image"], torch.from_numpy(np.stack([picture(i) for i in (4, 5, 6, 11, 12)])))
    last = read_dataset(folder, cameras=("observation.image",), episodes=[1])
    assert torch.equal(last.images["observation.image"], found.images["image"][3:])


def test_an_index_that_misleads():
    """A seek that lands behind the time wanted: all frames are gone through from the first."""

    class Container:
        def seek(self, offset, stream):
            self.at = 7 if offset else 0

        def decode(self, stream):
            return (SimpleNamespace(time=None if i == 1 else i / 2) for i in range(self.at, 9))

    stream = SimpleNamespace(time_base=Fraction(1, 100))
    assert [frame.time for frame in video._from(Container(), stream, 3.25)] == [0, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert [frame.time for frame in video._from(Container(), stream, 3.75)] == [3.5, 4]


def test_pictures_beside_the_numbers(tmp_path):
    def png(i):
        Image.fromarray(picture(i)).save(tmp_path / "x.png")
        return (tmp_path / "x.png").read_bytes()

    folder = by_hand(tmp_path / "set", frames=[png(i) for i in range(5)])
    found = read_dataset(folder, cameras=("image",))
    assert torch.equal(found.images["image"], torch.from_numpy(np.stack([picture(i) for i in range(5)])))
    last = read_dataset(folder, cameras=("image",), episodes=[1], size=2).images["image"]
    assert last[0].tolist() == picture(3)[::16, ::24].tolist()
    odd = read_dataset(folder, cameras=("image",), size=5).images["image"]
    assert torch.equal(odd, resized(found.images["image"], 5))
    folder = by_hand(tmp_path / "bad", frames=[png(0), b"no", *map(png, range(3))])
    with pytest.raises(InputError, match="row 1 holds no readable image"):
        read_dataset(folder, cameras=("image",))


def deep_png(values, dtype=np.uint16):
    file = io.BytesIO()
    Image.fromarray(np.asarray(values, dtype)).save(file, "png" if dtype == np.uint16 else "tiff")
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_depths_are_scaled_by_the_range_of_all_steps(tmp_path, monkeypatch, dtype):
    """300 to 2200 mm, of which each image holds a part; read in whole, by episode, and by a range that is given."""
    depths = np.linspace(300, 2200, 5 * 6 * 8).round().reshape(5, 6, 8)[[2, 0, 4, 1, 3]]
    folder = by_hand(
        tmp_path / "set", frames=[deep_png(depth, dtype) for depth in depths], key="observation.images.depth"
    )
    exact = np.rint((depths - 300) / 1900 * 255)
    said = r"^set, observation\.images\.depth: 5 of 5 images have more than 8 bits: their values 300 to 2200 become"
    with pytest.warns(UserWarning, match=said):
        found = read_dataset(folder, cameras=("depth",))
    assert found.levels == {"depth": (300, 2200)}
    assert found.images["depth"][..., 0].tolist() == exact.tolist()
    assert found.images["depth"][..., 2].tolist() == exact.tolist()
    with pytest.warns(UserWarning, match="their values 300 to 2200 become"):
        last = read_dataset(folder, cameras=("depth",), episodes=[1])
    assert last.images["depth"][..., 0].tolist() == exact[3:].tolist()
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "SIZE", 2 * 6 * 8 * 3)  # two images; the range is that of all
    with pytest.warns(UserWarning, match="their values 300 to 2200 become"):
        kept = open_dataset(folder, cameras=("depth",)).read(cache=True, on_disk=True)
    monkeypatch.setattr(shards, "SIZE", 2**26)
    assert kept.levels == {"depth": (300, 2200)}
    assert kept.images["depth"].tensor()[..., 0].tolist() == exact.tolist()
    with pytest.warns(UserWarning, match="some values in 300 to 2200 beyond the range 500:1000"):
        given = read_dataset(folder, cameras=("depth",), levels={"depth": Levels(500, 1000)})
    assert given.levels == {"depth": (500, 1000)}
    assert given.images["depth"][..., 0].tolist() == Levels(500, 1000).scaled(depths).tolist()


def test_transparent_frames_are_said_and_lie_on_white(tmp_path):
    half = np.zeros((4, 4, 4), np.uint8)
    half[:, :2, 3] = 255
    file = io.BytesIO()
    Image.fromarray(half).save(file, "png")
    folder = by_hand(tmp_path / "set", frames=[file.getvalue()] * 5)
    with pytest.warns(UserWarning, match=r"5 of 5 images are transparent in places, and lie on white\.$"):
        found = read_dataset(folder, cameras=("image",))
    assert found.images["image"][0, 0, :, 0].tolist() == [0, 0, 255, 255]
    assert found.levels == {}


def test_a_video_of_depths_is_refused(tmp_path):
    """Rather than read as black: 300 to 2200 of 65535 are eight of 256 shades."""
    folder = by_hand(tmp_path / "set")
    file = folder / "videos/observation.image/chunk-000/file-000.mp4"
    file.parent.mkdir(parents=True)
    with av.open(str(file), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", Fraction(2))
        stream.height, stream.width, stream.pix_fmt = 32, 48, "gray16le"
        for _ in range(16):
            depth = np.full((32, 48), 2200, np.uint16)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(depth, format="gray16le")))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="holds grey of 16 bits; such images are read from image files, not video"):
        read_dataset(folder, cameras=("image",))


def test_a_depth_that_is_not_a_number_is_named(tmp_path):
    frames = [deep_png(np.full((4, 4), value), np.float32) for value in (1, 2, np.nan, 3, np.inf)]
    with pytest.raises(InputError, match="row 2 holds no readable image: holds 16 of 16 values that are not finite"):
        read_dataset(by_hand(tmp_path / "set", frames=frames), cameras=("image",))


@pytest.mark.skipif(not RECORDING.is_dir(), reason=f"no recording of LeRobot's in {RECORDING}")
def test_a_real_recording():
    found = read_dataset(RECORDING)
    assert (len(found), len(found.state), found.fps) == (4, 1492, 30)
    assert found.ends.tolist() == [373, 747, 1119, 1492]
    assert set(found.tasks) == {"Pick the orange cube and place it in the box"}
    assert found.state_names[0] == found.action_names[0] == "shoulder_pan.pos"
    stats = read_stats(RECORDING)
    for name, values in (("observation.state", found.state.double()), ("action", found.action.double())):
        assert torch.equal(stats[name]["min"], values.amin(0))
        torch.testing.assert_close(stats[name]["mean"], values.mean(0), rtol=0, atol=1e-3)
        torch.testing.assert_close(stats[name]["std"], values.std(0, correction=0), rtol=0, atol=1e-2)
    assert stats["action"]["count"].item() == 1492
    with pytest.raises(InputError, match="no video of the camera") as refused:
        read_dataset(RECORDING, cameras=("front",))
    sentence(refused.value)
    with pytest.raises(InputError, match="no camera 'back'; it has front, top"):
        read_dataset(RECORDING, cameras=("back",))


@pytest.mark.skipif(not ALOHA.is_dir(), reason=f"no statistics of LeRobot's in {ALOHA}")
def test_real_statistics():
    stats = read_stats(ALOHA / "stats.json")
    assert len(stats["action"]["mean"]) == 14
    assert float(stats["action"]["mean"][0]) == pytest.approx(-0.0075644574)
    assert float(stats["action"]["std"][6]) == pytest.approx(0.30665165)
    assert "q01" not in stats["action"]


# --- damage ---------------------------------------------------------------------------------------------------------


def change(file, **columns):
    """A parquet file with columns replaced, or left out where None."""
    table = pq.read_table(file)
    for name, values in columns.items():
        table = table.drop_columns([name])
        if values is not None:
            table = table.append_column(name, pa.array(values))
    pq.write_table(table, file)


def info_with(**changes):
    def damage(folder):
        file = folder / "meta/info.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


@pytest.mark.parametrize(("damage", "words"), [
    (lambda f: (f / "meta/info.json").unlink(), "info.json: No such file"),
    (lambda f: (f / "meta/info.json").write_text("{"), "info.json is not valid JSON"),
    (lambda f: (f / "meta/info.json").write_text("[]"), "no codebase_version"),
    (info_with(codebase_version="v2.1"), "v2.1, and v3.0 is read here; convert it with"),
    (info_with(codebase_version="v4.0"), "format v4.0, and v3.0 is read here."),
    (info_with(fps=0), "fps must be a number above 0; got 0"),
    (info_with(fps="30"), "got '30'"),
    (info_with(features=[]), "features must be tables"),
    (info_with(total_episodes=4), "tells of total_episodes 4, and meta/episodes holds 3"),
    (info_with(total_frames=16), "tells of total_frames 16, and data holds 15"),
    (lambda f: (f / "meta/tasks.parquet").unlink(), "tasks.parquet does not exist"),
    (lambda f: change(f / "meta/tasks.parquet", task_index=[0, 5]), "no task 1"),
    (lambda f: change(f / "meta/tasks.parquet", task_index=None), "columns task_index and task; it has __index"),
    (lambda f: shutil.rmtree(f / "meta/episodes"), "meta/episodes has no chunk-"),
    (lambda f: shutil.rmtree(f / "data"), "data has no chunk-"),
    (lambda f: (f / DATA).write_bytes((f / DATA).read_bytes()[:-100]), "not a readable parquet file"),
    (lambda f: (f / DATA).write_bytes(b""), "not a readable parquet file"),
    (lambda f: change(f / DATA, action=None), "no column 'action'; it has observation.state, timestamp"),
    (lambda f: change(f / DATA, action=[[1.0, 2.0]] * 14 + [[1.0]]), "lists of 1 to 2 numbers"),
    (lambda f: change(f / DATA, action=["left"] * 15), "must hold numbers; got string"),
    (lambda f: change(f / DATA, action=[[[1.0]]] * 15), "must hold numbers; got list"),
    (lambda f: change(f / DATA, action=[None] + [[1.0]] * 14), "lacks 1 of 15"),
    (lambda f: change(f / DATA, action=[[float("nan")]] * 15), "action holds numbers that are not finite"),
    (lambda f: change(f / DATA, episode_index=[0] * 6 + [1] * 2 + [2] * 7), "not hold the steps, in order"),
    (lambda f: change(f / DATA, frame_index=[0, 2, 1, 3, 4, 0, 1, 2, *range(7)]), "not hold the steps, in order"),
    (lambda f: change(f / EPISODES, length=[5, 0, 10]), "not hold the steps, in order"),
    (lambda f: change(f / EPISODES, **{"videos/observation.images.top/from_timestamp": None}), "no column 'videos/"),
    (lambda f: change(f / EPISODES, **{"videos/observation.images.top/from_timestamp": [0.0, 0.5, 9.0]}), "no frame"),
    (lambda f: (f / VIDEO.format("top", 0)).unlink(), "no video of the camera"),
    (lambda f: (f / VIDEO.format("top", 0)).write_bytes(b"x" * 999), "can't be decoded"),
])  # fmt: skip
def test_damage_is_one_sentence(broken, damage, words):
    damage(broken)
    with pytest.raises(InputError) as refused:
        read_dataset(broken, cameras=("top",))
    assert words in sentence(refused.value)


def test_a_video_cut_short_is_refused(broken):
    file = broken / VIDEO.format("top", 0)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(InputError) as refused:
        read_dataset(broken, cameras=("top",))
    sentence(refused.value)


@pytest.mark.parametrize(
    "text", ["[]", '{"action": 3}', '{"action": {"mean": "x"}}', '{"action": {"mean": [[1], []]}}']
)
def test_damaged_statistics(tmp_path, text):
    (tmp_path / "stats.json").write_text(text)
    with pytest.raises(InputError, match="damaged"):
        read_stats(tmp_path / "stats.json")


def test_absent_packages_are_named(written, monkeypatch):
    for package in ("pyarrow", "av"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            patch.setitem(sys.modules, f"{package}.parquet", None)
            with pytest.raises(InputError, match=rf"package {package}: pip install 'ebbtide\[robots\]'"):
                read_dataset(written[1], cameras=("top",))


# --- the hub --------------------------------------------------------------------------------------------------------


def test_a_name_is_fetched_from_the_hub(written, monkeypatch):
    from huggingface_hub.errors import RevisionNotFoundError

    asked = []

    def snapshot(name, *, repo_type, revision, allow_patterns):
        asked.append((name, repo_type, revision, allow_patterns))
        if revision and name == "some/untagged":
            raise RevisionNotFoundError.__new__(RevisionNotFoundError)  # its response needs the hub's own client
        return str(written[1])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert torch.equal(read_dataset("some/set", cameras=("top",)).state, written[0].state)
    assert asked == [("some/set", "dataset", "v3.0", ["meta/*", "data/*", "videos/*top/*"])]
    read_stats("some/untagged")
    assert [(revision, patterns) for _, _, revision, patterns in asked[1:]] == [
        ("v3.0", ["meta/*"]),
        (None, ["meta/*"]),
    ]


@pytest.mark.parametrize("use", [read_dataset, read_info, read_stats])
def test_without_a_network(use, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as refused:
        use("lerobot/pusht")
    assert sentence(refused.value).startswith("'lerobot/pusht' is no folder here, and is not available from the hub: ")


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "../a", "/none/such", "a b/c"])
def test_what_is_neither(name):
    with pytest.raises(InputError, match="is no folder; a data set of LeRobot's is a folder, or USER/NAME on the hub"):
        read_dataset(name)


# --- refusals to write ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("whole", "options", "words"), [
    (episodes(), {"codec": "mjpeg"}, "codec must be one of h264, av1; got 'mjpeg'"),
    (episodes(fps=0.0), {}, "fps must be above 0 and finite; got 0.0"),
    (replace(episodes(), state=torch.full((15, 3), 1e300, dtype=torch.float64)), {}, "float32"),
    (episodes(cameras=("../top",)), {}, "camera's name must be letters"),
    (replace(episodes(), images={"top": torch.zeros(15, 31, 48, 3, dtype=torch.uint8)}), {}, "'top' are 48 × 31"),
])  # fmt: skip
def test_what_can_not_be_written(tmp_path, whole, options, words):
    with pytest.raises(InputError) as refused:
        write_dataset(whole, tmp_path / "set", **options)
    assert words in sentence(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    for name in ("folder", "file", "link"):
        {"folder": Path.mkdir, "file": Path.touch, "link": lambda p: p.symlink_to("nowhere")}[name](tmp_path / name)
        with pytest.raises(InputError, match="exists already"):
            write_dataset(episodes(), tmp_path / name)
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize(("error", "kind"), [(OSError(28, "No space left on device"), StorageError),
                                             (KeyboardInterrupt(), KeyboardInterrupt)])  # fmt: skip
def test_what_fails_leaves_nothing_behind(tmp_path, monkeypatch, error, kind):
    def fails(*_):
        raise error

    monkeypatch.setattr(writing, "_encode", fails)
    with pytest.raises(kind):
        write_dataset(episodes(), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / ".set.writing" / "data").mkdir(parents=True)
    (tmp_path / ".set.writing" / "junk").touch()
    assert sorted(path.name for path in write_dataset(episodes(cameras=()), tmp_path / "set").iterdir()) == [
        "data",
        "meta",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


# --- LeRobot --------------------------------------------------------------------------------------------------------

# Stands in for torchvision, which is built for one version of torch: of it LeRobot 0.4.4's reader uses a video decoder
# alone, here av's. It decides nothing about the format.
TORCHVISION = """
import sys, types
import av, torch

class VideoReader:
    def __init__(self, path, stream):
        self.container = av.open(path)
    def seek(self, time, keyframes_only=False):
        self.container.seek(max(0, int(time * 1e6) - 1))
    def __iter__(self):
        for frame in self.container.decode(video=0):
            image = torch.from_numpy(frame.to_ndarray(format="rgb24", interpolation=0x42020))
            yield {"data": image.permute(2, 0, 1), "pts": frame.time}

def set_video_backend(name): pass
io = types.SimpleNamespace(VideoReader=VideoReader)
transforms = types.ModuleType("torchvision.transforms")
sys.modules["torchvision.transforms"] = transforms
"""

ITEMS = """
import sys, torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

folder, out, indices = sys.argv[1], sys.argv[2], [int(i) for i in sys.argv[3].split(",")]
plain = LeRobotDataset("some/set", root=folder, video_backend="pyav")
windows = LeRobotDataset("some/set", root=folder, video_backend="pyav", delta_timestamps={
    "action": [0.0, 0.1, 0.2, 0.3], "observation.state": [-0.1, 0.0], "observation.images.top": [-0.1, 0.0]})
stats = {key: {name: torch.as_tensor(x) for name, x in rows.items()} for key, rows in plain.meta.stats.items()}
torch.save({"length": len(plain), "episodes": plain.num_episodes, "fps": plain.fps, "stats": stats,
            "plain": [plain[i] for i in range(len(plain))], "windows": [windows[i] for i in indices]}, out)
"""


@pytest.mark.slow
def test_lerobot_opens_what_was_written(tmp_path, monkeypatch):
    """Every item, and windows beside their padding flags at episodes' edges; two video files, two data files.

    LeRobot's own requirements exclude the versions tested here, so it is installed without them, in a folder of its
    own; what of them its reader imports, `datasets` among them, is in the extra `test`.
    """
    stubs, packages = tmp_path / "stubs", tmp_path / "packages"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", packages, "lerobot==0.4.4"]
    installed = subprocess.run(command, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    (stubs / "torchvision").mkdir(parents=True)
    (stubs / "torchvision" / "__init__.py").write_text(TORCHVISION)
    (tmp_path / "items.py").write_text(ITEMS)
    monkeypatch.setattr(writing, "VIDEO_SECONDS", 0.9)
    monkeypatch.setattr(writing, "DATA_MB", 5e-4)
    whole = episodes()
    folder = write_dataset(whole, tmp_path / "set")
    assert max(rows(folder / EPISODES)["data/file_index"]) == 1
    indices = [0, 4, 5, 6, 7, 8, 12, 14]
    ran = subprocess.run(
        [sys.executable, tmp_path / "items.py", folder, tmp_path / "items.pt", ",".join(map(str, indices))],
        env=os.environ | {"PYTHONPATH": f"{stubs}{os.pathsep}{packages}", "HF_HOME": str(tmp_path / "hf"),
                          "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = torch.load(tmp_path / "items.pt")
    assert (found["length"], found["episodes"], found["fps"]) == (15, 3, 10)
    ours = read_dataset(folder, cameras=("top",)).images["top"]
    seen: list[torch.Tensor] = []
    for i, item in enumerate(found["plain"]):
        episode = int(torch.searchsorted(whole.ends, torch.tensor(i), right=True))
        assert item["episode_index"] == episode
        assert item["task"] == whole.tasks[episode]
        assert torch.equal(item["observation.state"], whole.state[i])
        assert torch.equal(item["action"], whole.action[i])
        seen.append((item["observation.images.top"] * 255).permute(1, 2, 0))
    near(torch.stack(seen), ours)
    made = Windows(whole.action, whole.ends, 4, 2, whole.state, ours[:, None])
    expected = made.take(torch.tensor(indices))
    for k, item in enumerate(found["windows"]):
        assert torch.equal(item["action"], expected["x0"][k])
        assert torch.equal(item["action_is_pad"], ~expected["mask"][k, :, 0])
        assert torch.equal(item["observation.state"], expected["state"][k])
        assert item["observation.state_is_pad"].tolist() == [indices[k] in (0, 5, 8), False]
        near((item["observation.images.top"] * 255).permute(0, 2, 3, 1), expected["images"][k])
    for key, named in read_stats(folder).items():
        for name, value in named.items():
            torch.testing.assert_close(found["stats"][key][name].double(), value)
